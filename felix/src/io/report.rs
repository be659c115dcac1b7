//! felix's conditions in the node's NodeNetwork: written only when one changes, by compare-and-swap, beside the agent.

use crate::io::agent::Conditions;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use std::time::Duration;
use tokio::sync::watch;
use twill_crds::{NodeNetwork, NodeNetworkSpec};
use twill_datastore::{Datastore, Error, Key};

/// Where the agent tells its conditions.
pub type Sender = watch::Sender<Conditions>;

/// Pause before a write that failed is tried again.
const PAUSE: Duration = Duration::from_secs(2);

/// Starts the writer.
#[must_use]
pub fn start(store: Datastore, node: String) -> Sender {
    let (sender, mut receiver) = watch::channel(Conditions::new());
    tokio::spawn(async move {
        while receiver.changed().await.is_ok() {
            loop {
                let wanted = receiver.borrow_and_update().clone();
                match write(&store, &node, &wanted).await {
                    Ok(()) => break,
                    // Somebody else's field changed meanwhile: read again, decide again.
                    Err(Error::Conflict(_) | Error::AlreadyExists(_)) => {}
                    Err(error) => {
                        tracing::warn!(%error, "conditions not written");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        }
    });
    sender
}

/// Tells the writer, if something changed.
pub fn tell(sender: &Sender, now: Conditions) {
    sender.send_if_modified(|told| {
        let changed = *told != now;
        if changed {
            *told = now;
        }
        changed
    });
}

async fn write(store: &Datastore, node: &str, wanted: &Conditions) -> Result<(), Error> {
    if wanted.is_empty() {
        return Ok(());
    }
    let mut object = match store.get::<NodeNetwork>(&Key::cluster(node)).await? {
        Some(object) => object,
        None => store.create(&NodeNetwork::new(node, NodeNetworkSpec::default())).await?,
    };
    let status = object.status.get_or_insert_default();
    let next = merged(&status.felix.conditions, wanted, Time(jiff::Timestamp::now()));
    if next == status.felix.conditions {
        return Ok(());
    }
    status.felix.conditions = next;
    store.update_status(&object).await.map(|_| ())
}

/// The wanted conditions, each with the time of its last transition.
fn merged(old: &[Condition], wanted: &Conditions, now: Time) -> Vec<Condition> {
    let one = |(kind, holds, message): &(&'static str, bool, String)| {
        let status = if *holds { "True" } else { "False" };
        let before = old.iter().find(|condition| condition.type_ == *kind && condition.status == status);
        Condition {
            last_transition_time: before
                .map_or_else(|| now.clone(), |condition| condition.last_transition_time.clone()),
            message: message.clone(),
            observed_generation: None,
            reason: if *holds { "AsExpected" } else { "Problem" }.to_owned(),
            status: status.to_owned(),
            type_: (*kind).to_owned(),
        }
    };
    wanted.iter().map(one).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let at = |second| Time(jiff::Timestamp::from_second(second).unwrap());
        let first = merged(&[], &vec![("NetworkReady", true, "fine".into())], at(1));
        let same = merged(&first, &vec![("NetworkReady", true, "still fine".into())], at(2));
        assert_eq!((same[0].message.as_str(), &same[0].last_transition_time), ("still fine", &at(1)));
        let other = merged(&same, &vec![("NetworkReady", false, "not".into())], at(3));
        assert_eq!((other[0].status.as_str(), &other[0].last_transition_time), ("False", &at(3)));
    }
}
