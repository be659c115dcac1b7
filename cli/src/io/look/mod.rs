//! Reads a node for [`crate::fitness`], and changes nothing on it.

mod host;
mod kernel;
mod others;

pub(crate) use host::{host, settings};
pub(crate) use kernel::kernel;
pub(crate) use others::{links, others, ports};

use crate::fitness::datastore;
use crate::io::with_store;
use anyhow::Context;
use std::time::Duration;
use twill_crds::IPPool;
use twill_datastore::Filter;

/// How long the datastore may take for a first answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks the datastore for its pools.
pub(crate) fn datastore(url: &str) -> datastore::Facts {
    let pools = with_store(url, async |store| {
        let listed = tokio::time::timeout(PATIENCE, store.list::<IPPool>(&Filter::default())).await;
        let listed = listed.with_context(|| format!("it does not answer within {} s", PATIENCE.as_secs()))?;
        Ok(listed?.items.len())
    });
    datastore::Facts { url: url.to_owned(), pools: pools.map_err(|error| format!("{error:#}")) }
}
