//! The daemon in network namespaces of its own, with a SQLite datastore, called as `twill-cni` calls it.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod announce;
mod attach;
mod bandwidth;
mod cutting;
mod deletes;
mod failures;
mod host;
mod interfaces;
mod ipvs;
mod node;
mod order;
mod owners;
mod ownership;
mod recall;
mod refused;
mod reserved;
mod restart;
mod verbs;
mod world;
