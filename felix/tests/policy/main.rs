//! Policy from the API's objects to the ruleset, without a kernel.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod cluster;
mod differential;
mod sequences;
mod universe;
