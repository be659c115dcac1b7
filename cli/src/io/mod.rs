//! Sockets, files, the datastore, the clock and the log.

pub(crate) mod control;
pub(crate) mod daemon;
pub(crate) mod leftovers;
pub(crate) mod log;
pub(crate) mod look;
pub(crate) mod manifests;
pub(crate) mod trace;

use anyhow::Context;
use twill_datastore::Datastore;

/// Runs what a command asks of a datastore that is there.
pub(crate) fn with_store<T>(url: &str, ask: impl AsyncFnOnce(Datastore) -> anyhow::Result<T>) -> anyhow::Result<T> {
    block_on(async { ask(Datastore::open_existing(url).await?).await })
}

/// Runs what a command asks of a datastore, which is made if there is none.
pub(crate) fn with_new_store<T>(url: &str, ask: impl AsyncFnOnce(Datastore) -> anyhow::Result<T>) -> anyhow::Result<T> {
    block_on(async { ask(Datastore::open(url).await?).await })
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime can be started")?;
    runtime.block_on(work)
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
