//! Barriers: a mark is reached when, and only when, what was there before it has been heard.

use super::{labelled, next, node, pod};
use twill_crds::{Namespace, Node, Object, Pod};
use twill_datastore::{Datastore, Filter, Freshness, Key, Preconditions, Scope, follow};

/// Hears a kind until the marks are reached; how many steps that took.
async fn hear<K: Object>(store: &Datastore, scopes: &[Scope], mut until: impl FnMut(&Freshness) -> bool) -> Freshness {
    let mut freshness = Freshness::of(scopes.to_vec());
    let mut followed = follow::<K>(store, Filter::default());
    while !until(&freshness) {
        freshness.take(&next(&mut followed).await);
    }
    freshness
}

pub async fn a_mark_is_reached_once_everything_before_it_was_heard(store: Datastore) {
    store.create(&node("n1")).await.unwrap();
    let scopes = [Scope::all::<Node>()];
    let before = hear::<Node>(&store, &scopes, Freshness::is_complete).await;
    assert!(before.reached(&store.barrier(&scopes).await.unwrap()), "all was heard by the list");
    store.update(&labelled("n1", "a", "b")).await.unwrap();
    store.create(&node("n2")).await.unwrap();
    let marks = store.barrier(&scopes).await.unwrap();
    assert!(!before.reached(&marks), "two changes were not heard");
    // A watch from before the changes hears them.
    let mut later = Freshness::of(scopes.to_vec());
    let mut followed = follow::<Node>(&store, Filter::default());
    while !later.reached(&marks) {
        later.take(&next(&mut followed).await);
    }
    assert!(later.reached(&store.barrier(&scopes).await.unwrap()));
    let one = [Scope::object::<Node>(&Key::cluster("n1"))];
    assert!(!before.reached(&store.barrier(&one).await.unwrap()) && later.reached(&store.barrier(&one).await.unwrap()));
}

pub async fn a_deletion_counts(store: Datastore) {
    for name in ["a", "b"] {
        store.create(&pod(name, "x")).await.unwrap();
    }
    let scopes = [Scope::all::<Pod>()];
    let mut followed = follow::<Pod>(&store, Filter::default());
    let mut freshness = Freshness::of(scopes.to_vec());
    freshness.take(&next(&mut followed).await);
    store.delete::<Pod>(&Key::namespaced("default", "b"), &Preconditions::default()).await.unwrap();
    let marks = store.barrier(&[Scope::namespace::<Pod>("default")]).await.unwrap();
    assert!(!freshness.reached(&marks));
    while !freshness.reached(&marks) {
        freshness.take(&next(&mut followed).await);
    }
    let marks = store.barrier(&[Scope::object::<Pod>(&Key::namespaced("default", "b"))]).await.unwrap();
    assert!(freshness.reached(&marks));
}

pub async fn nothing_at_all_is_reached_at_once(store: Datastore) {
    let scopes = [Scope::object::<Namespace>(&Key::cluster("none"))];
    let marks = store.barrier(&scopes).await.unwrap();
    assert_eq!(marks.len(), 1);
    let freshness = hear::<Namespace>(&store, &[Scope::all::<Namespace>()], Freshness::is_complete).await;
    assert!(freshness.reached(&marks));
    assert!(!Freshness::of(scopes.to_vec()).reached(&marks), "but not by who has heard nothing");
}
