//! The datastore and the disk.

pub mod claimer;
pub mod identity;
pub mod store;
