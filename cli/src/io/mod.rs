//! Sockets, files, the datastore, the clock and the log.

pub(crate) mod control;
pub(crate) mod log;
pub(crate) mod manifests;

use anyhow::Context;
use twill_datastore::Datastore;

/// Runs what a command asks of the datastore.
pub(crate) fn with_store<T>(url: &str, ask: impl AsyncFnOnce(Datastore) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime can be started")?;
    runtime.block_on(async { ask(Datastore::open(url).await?).await })
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
