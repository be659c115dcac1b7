//! Policy from the API's objects to the ruleset, without a kernel.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod boutique;
mod cluster;
mod cluster_policies;
mod diff;
mod differential;
mod fixes;
mod hosts;
mod isolations;
mod metamorphic;
mod sequences;
mod tiers;
mod tunnels;
mod universe;
