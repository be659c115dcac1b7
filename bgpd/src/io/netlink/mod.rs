//! The kernel's routes, tunnel devices and neighbours: read as a whole, written in batches, watched for what others change.
//!
//! In flow the commands of a [`Fib`] handle and the kernel's notifications; out flow rtnetlink requests and the
//! [`Feedback`]. One thread owns both sockets. It decides nothing: [`Table`] does.

mod backoff;
mod decode;
mod encode;
mod ethtool;
mod kernel;
mod monitor;
mod neighbours;
mod removal;
pub(crate) mod socket;
mod thread;
mod trial;

pub use removal::{Removed, remove};
pub use thread::start;
pub use trial::{Trial, trial, vxlan_ports};

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
