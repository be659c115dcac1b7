//! A node of a cluster: what the datastore's objects mean for its speaker and its kernel.
//!
//! In flow Node, IPPool, IPBlock, BGPConfiguration, BGPPeer, BGPFilter, and where they are told of, Service and EndpointSlice ([`Objects`]); out flow the speaker's and the FIB's
//! configuration ([`Desired`]) and the node's part of NodeNetwork ([`report`]). Pure: [`crate::io::cluster`] follows the
//! datastore and writes the status.

mod addresses;
mod advertised;
mod choice;
mod desired;
mod exposed;
mod filters;
mod hidden;
mod identifier;
mod nodes;
mod objects;
mod passwords;
mod peers;
mod remotes;
mod report;
mod services;
mod topology;

pub use choice::{Choice, STANDS};
pub use desired::{Desired, desired};
pub use objects::{Claimant, Heard, Objects, Snapshot, scopes};
pub use report::{Observed, report};

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
