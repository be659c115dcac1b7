//! What a kernel has for our table, tried in the calling thread's network namespace: one without a table of ours, that nobody else uses.

use super::actual;
use super::connection::Connection;
use super::{Error, Table};
use crate::base::{Settings, skeleton};

/// Makes the table as felix does on a node without one: sets with concatenated keys, timeouts, verdict maps, `ct`, all in one commit. Says
/// whether the kernel keeps others from changing it (`owner, persist`). The table goes with the namespace.
///
/// # Errors
/// What the kernel lacks.
pub async fn trial() -> Result<bool, Error> {
    // Nothing happens to any table that a log would tell of.
    let _silent = tracing::subscriber::set_default(tracing::subscriber::NoSubscriber::default());
    let (_table, _events) = Table::open(skeleton(&Settings::default())).await?;
    let state = actual::table(&mut Connection::open()?)?.ok_or(Error::NoAnswer)?;
    Ok(state.owner.is_some())
}
