//! The datastore and the disk.

pub mod claimer;
pub mod identity;
mod lent;
pub mod store;
