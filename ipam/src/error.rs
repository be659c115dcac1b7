//! What can go wrong with the local store.

use crate::ledger::Sandbox;
use std::net::IpAddr;
use std::path::PathBuf;

/// A failed change of the local store. Nothing was changed, in memory or on disk.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The filesystem is full, or refuses writes.
    #[error("the store of addresses {path} cannot be written: {problem}; free space on its filesystem and try again")]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What SQLite or the kernel said.
        problem: String,
    },
    /// Another process has it.
    #[error("the store of addresses {path} is in use by another process; only one felix may run on a state directory")]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// Anything else that SQLite says.
    #[error(
        "the store of addresses {path} failed: {problem}; if it is damaged, stop felix, move it away and start again"
    )]
    Broken {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        problem: String,
    },
    /// The address has a holder already.
    #[error("{address} is held by container {} interface {}", .holder.container_id, .holder.ifname)]
    Held {
        /// The address.
        address: IpAddr,
        /// Who has it.
        holder: Sandbox,
    },
}
