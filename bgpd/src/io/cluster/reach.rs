//! Whether the datastore can be reached, for those who ask how this node is.

use super::follower::State;
use std::time::Duration;
use tokio::sync::watch::Sender;
use tokio::time::{sleep, timeout};
use twill_crds::NodeNetwork;
use twill_datastore::{Datastore, Error, Key};

/// How soon a datastore that could not be opened is tried again.
const OPEN: Duration = Duration::from_secs(1);
/// How often one that is a file of this machine is asked something small, and how long the answer may take.
const LOOK: Duration = Duration::from_secs(5);
/// How often a server is, which all nodes ask: its watches tell whether it is there, but not whether it could answer.
pub const LOOK_AT_SERVER: Duration = Duration::from_secs(600);

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

/// Notes whether the datastore answers, for ever: as whoever follows it hears, and, as what one hears may be old, by a question now and
/// then.
pub(super) async fn watch(store: &Datastore, url: &str, node: &str, state: &Sender<State>) {
    let (mut trouble, mut silent) = (store.trouble(), None::<String>);
    loop {
        let heard = trouble.borrow_and_update().clone();
        say(state, heard.or_else(|| silent.clone()));
        // While it gives no answer it is asked more often: that load is not there then.
        let pause = if silent.is_some() || url.starts_with("sqlite:") { LOOK } else { LOOK_AT_SERVER };
        tokio::select! {
            // Fails only once there is no handle, and `store` is one.
            Ok(()) = trouble.changed() => {}
            () = sleep(pause) => silent = ask(store, node).await,
        }
    }
}

/// Why there is no answer to something small; none if there is.
async fn ask(store: &Datastore, node: &str) -> Option<String> {
    match timeout(LOOK, store.get::<NodeNetwork>(&Key::cluster(node))).await {
        Ok(Err(error @ (Error::Unavailable(_) | Error::Full(_)))) => Some(error.to_string()),
        Ok(_) => None,
        Err(_) => Some(format!("the datastore does not answer within {} s", LOOK.as_secs())),
    }
}

fn say(state: &Sender<State>, problem: Option<String>) {
    state.send_if_modified(|state| {
        let changed = state.datastore != problem;
        state.datastore = problem;
        changed
    });
}
