//! Whether the datastore can be reached, for those who ask how this node is.

use super::follower::State;
use std::time::Duration;
use tokio::sync::watch::Sender;
use tokio::time::{sleep, timeout};
use twill_crds::NodeNetwork;
use twill_datastore::{Datastore, Error, Key};

/// How soon a datastore that could not be opened is tried again.
const OPEN: Duration = Duration::from_secs(1);
/// How often one that is open is asked something small, and how long that may take.
const LOOK: Duration = Duration::from_secs(5);

/// Opens the datastore. One who has something to go on with waits until it can be opened.
pub(super) async fn open(url: &str, patient: bool, state: &Sender<State>) -> Result<Datastore, Error> {
    loop {
        match Datastore::open_existing_as(url, "bgpd").await {
            Err(error) if patient => {
                tracing::warn!(%error, "the datastore cannot be opened now; going on from what was read before");
                say(
                    state,
                    Some(format!("the datastore cannot be opened, and what was read before stays in force: {error}")),
                );
                sleep(OPEN).await;
            }
            result => {
                say(state, None);
                return result;
            }
        }
    }
}

/// Notes whether the datastore answers, for ever: those who follow it only wait when it does not.
pub(super) async fn watch(store: &Datastore, node: &str, state: &Sender<State>) {
    loop {
        sleep(LOOK).await;
        say(
            state,
            match timeout(LOOK, store.get::<NodeNetwork>(&Key::cluster(node))).await {
                Ok(Err(error @ (Error::Unavailable(_) | Error::Full(_)))) => Some(error.to_string()),
                Ok(_) => None,
                Err(_) => Some(format!("the datastore does not answer within {} s", LOOK.as_secs())),
            },
        );
    }
}

fn say(state: &Sender<State>, problem: Option<String>) {
    state.send_if_modified(|state| {
        let changed = state.datastore != problem;
        state.datastore = problem;
        changed
    });
}
