//! Leases and events, which are ordinary objects.

use super::node;
use k8s_openapi::api::events::v1::Event;
use twill_crds::Object;
use twill_datastore::event::{Occurrence, Recorder, Severity, reference};
use twill_datastore::lease::{Claim, Held};
use twill_datastore::{Datastore, Filter, Key, Preconditions};

pub async fn a_lease_has_one_holder_and_is_free_once_released(store: Datastore) {
    let now = jiff::Timestamp::now();
    let mut a = Claim::new("kube-system", "twill", "a", 15);
    let mut b = Claim::new("kube-system", "twill", "b", 15);
    let (first, second) = tokio::join!(a.hold(&store, now), b.hold(&store, now));
    assert_eq!([first.unwrap(), second.unwrap()].iter().filter(|held| **held == Held::Ours).count(), 1);
    let held = a.hold(&store, now).await.unwrap();
    let (winner, loser) = if held == Held::Ours { (&mut a, &mut b) } else { (&mut b, &mut a) };
    assert!(matches!(loser.hold(&store, now).await.unwrap(), Held::Theirs { .. }));
    loser.release(&store).await.unwrap();
    assert_eq!(winner.hold(&store, now).await.unwrap(), Held::Ours);
    winner.release(&store).await.unwrap();
    assert_eq!(loser.hold(&store, now).await.unwrap(), Held::Ours);
}

pub async fn events_are_stored_counted_and_swept(store: Datastore) {
    let made = store.create(&node("n1")).await.unwrap();
    let mut recorder = Recorder::new("twill.network/felix", "n1");
    let occurrence = Occurrence {
        regarding: reference(&made),
        severity: Severity::Warning,
        reason: "RouteRepaired".into(),
        action: "Repair".into(),
        note: "a route was missing".into(),
    };
    // An API server writes events of its own.
    let ours = async || {
        let mut all = store.list::<Event>(&Filter::default()).await.unwrap().items;
        all.retain(|event| event.reporting_controller.as_deref() == Some("twill.network/felix"));
        all
    };
    let now = jiff::Timestamp::now();
    for id in 0..3 {
        recorder.record(&store, &occurrence, now, id).await.unwrap();
    }
    let events = ours().await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].series.as_ref().unwrap().count, 3);
    let key = Key::namespaced(events[0].namespace(), events[0].name());
    store.delete::<Event>(&key, &Preconditions::default()).await.unwrap();
    recorder.record(&store, &occurrence, now, 3).await.unwrap();
    let later = now + jiff::SignedDuration::from_hours(2);
    Recorder::new("twill.network/felix", "n2").sweep(&store, later).await.unwrap();
    assert_eq!(ours().await.len(), 1);
    recorder.sweep(&store, later).await.unwrap();
    // Where they go by themselves nobody needs to look for them.
    assert_eq!(ours().await.is_empty(), store.engine().keeps_events());
}
