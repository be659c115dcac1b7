//! What concerns the cluster as a whole, done by one of the processes that stand ready.
//!
//! In flow nodes, their NodeNetworks, blocks, pools, peers and policies as the datastore tells them, and the time; out flow [`Action`]s:
//! look whether pods name a node that is gone, free its blocks, write the status of an object, tell an event. Everything outside
//! [`io`] is pure: no socket, no clock, no file.

mod addresses;
pub mod conditions;
mod events;
pub mod exodus;
pub mod gone;
pub mod holders;
pub mod io;
pub mod leftovers;
mod orphans;
mod peers;
pub mod plan;
pub mod policies;
pub mod pools;
mod reflectors;
mod settled;
mod topology;
mod turns;
pub mod verdicts;
pub mod world;
mod written;

pub use io::daemon::{Args, run};
pub use plan::{Action, Controller, Now, Written};
pub use world::{Fact, World};
