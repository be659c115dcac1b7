//! The node agent: policy into nftables, pods onto the network.
//!
//! In flow the datastore's objects, the runtime's CNI calls and the kernel's events; out flow one nftables table, the
//! workload interfaces with their local routes, and answers on one Unix socket. Everything outside [`io`] is pure: no
//! socket, no clock, no file.

pub mod base;
pub mod cni;
pub mod compile;
pub mod cut;
pub mod evaluate;
pub mod host;
pub mod index;
pub mod io;
pub mod memory;
pub mod model;
pub mod pace;
pub mod refused;
pub mod ruleset;
pub mod trace;
pub mod workload;

pub use io::daemon::{Args, run};
