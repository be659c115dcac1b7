//! Writes this node's part of NodeNetwork.

use crate::cluster::{Choice, Desired, Observed, STANDS, report};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use twill_crds::{NodeNetwork, NodeNetworkSpec};
use twill_datastore::{Datastore, Error, Key};

/// Changes of the status that come within this time are written at once.
const REPORT: Duration = Duration::from_millis(300);
/// After a failed write of the status; doubled up to [`RETRY_MAX`].
const RETRY: Duration = Duration::from_millis(500);
/// See [`RETRY`].
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Writes the status of a node in its NodeNetwork whenever it is another, for ever or until nobody tells what it is.
pub async fn report_status(
    store: Datastore,
    node: String,
    mut desired: watch::Receiver<Option<Arc<Desired>>>,
    mut observed: watch::Receiver<Observed>,
) {
    let mut wait = REPORT;
    let mut choice = Choice::default();
    loop {
        tokio::time::sleep(wait).await;
        let wanted = desired.borrow_and_update().clone();
        let mut seen = observed.borrow_and_update().clone();
        let chooses = !seen.fib.better.is_empty();
        if let Some(wanted) = &wanted {
            seen.fib.better = choice.settled(&wanted.fib.local, &seen.fib.better, Instant::now());
        }
        wait = REPORT;
        if let Some(wanted) = wanted.filter(|wanted| wanted.node_exists)
            && let Err(error) = write_status(&store, &node, &wanted, &seen).await
        {
            tracing::warn!(%error, "status of the node cannot be written now");
            wait = if matches!(error, Error::Conflict(_)) { RETRY } else { (wait * 2).clamp(RETRY, RETRY_MAX) };
            continue;
        }
        // Another address is taken when that has stood for a while.
        let more = tokio::select! {
            changed = desired.changed() => changed,
            changed = observed.changed() => changed,
            () = tokio::time::sleep(STANDS), if chooses => Ok(()),
        };
        if more.is_err() {
            return;
        }
    }
}

async fn write_status(store: &Datastore, node: &str, desired: &Desired, observed: &Observed) -> Result<(), Error> {
    let key = Key::cluster(node);
    let mut object = match store.get::<NodeNetwork>(&key).await? {
        Some(object) => object,
        None => store.create(&NodeNetwork::new(node, NodeNetworkSpec::default())).await?,
    };
    let status = object.status.get_or_insert_default();
    let new = report(desired, observed, &status.bgp, Timestamp::now());
    if status.bgp == new {
        return Ok(());
    }
    status.bgp = new;
    store.update_status(&object).await.map(|_| ())
}
