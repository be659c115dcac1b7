//! The datastore and the disk.

pub mod claimer;
pub mod store;
