//! What a watch tells.

use super::{labelled, next, node, pod};
use serde_json::json;
use std::collections::BTreeSet;
use twill_crds::{Node, Object, Pod};
use twill_datastore::{Datastore, Filter, Followed, Key, Preconditions, Revision, WatchEvent, WatchStream, follow};

/// The next event that is no bookmark: its verb, name and revision. Bookmarks never go back.
async fn event<K: Object>(watch: &mut WatchStream<K>) -> (&'static str, String, Revision) {
    let mut told = Revision(0);
    loop {
        match next(watch).await.unwrap() {
            WatchEvent::Bookmark(at) => {
                assert!(at >= told);
                told = at;
            }
            WatchEvent::Applied(object, at) => return ("applied", object.name().to_owned(), at),
            WatchEvent::Deleted(object, at) => return ("deleted", object.name().to_owned(), at),
        }
    }
}

fn revision<K: Object>(object: &K) -> Revision {
    Revision(object.meta().resource_version.as_deref().unwrap().parse().unwrap())
}

pub async fn a_watch_tells_all_in_order(store: Datastore) {
    let from = store.list::<Node>(&Filter::default()).await.unwrap().revision;
    let mut watch = store.watch::<Node>(&Filter::default(), from).await.unwrap();
    let first = revision(&store.create(&node("n1")).await.unwrap());
    store.create(&pod("p", "a")).await.unwrap();
    let second = revision(&store.update(&labelled("n1", "a", "b")).await.unwrap());
    store.delete::<Node>(&Key::cluster("n1"), &Preconditions::default()).await.unwrap();
    assert_eq!(event(&mut watch).await, ("applied", "n1".into(), first));
    assert_eq!(event(&mut watch).await, ("applied", "n1".into(), second));
    let (verb, name, last) = event(&mut watch).await;
    assert!(verb == "deleted" && name == "n1" && last > second);
    let mut again = store.watch::<Node>(&Filter::default(), second).await.unwrap();
    assert_eq!(event(&mut again).await, ("deleted", "n1".into(), last));
}

pub async fn an_object_that_enters_or_leaves_the_filter_is_applied_or_deleted(store: Datastore) {
    let labels = serde_json::from_value(json!({"matchLabels": {"app": "a"}})).unwrap();
    let filter = Filter { namespace: Some("default".into()), labels: Some(labels), ..Filter::default() };
    let from = store.list::<Pod>(&filter).await.unwrap().revision;
    let mut watch = store.watch::<Pod>(&filter, from).await.unwrap();
    let relabel = async |app: &str| {
        let mut read = store.get::<Pod>(&Key::namespaced("default", "p")).await.unwrap().unwrap();
        read.metadata.labels = Some([("app".to_owned(), app.to_owned())].into());
        store.update(&read).await.unwrap();
    };
    store.create(&pod("p", "b")).await.unwrap();
    relabel("a").await;
    store.create(&pod("other", "c")).await.unwrap();
    relabel("b").await;
    relabel("a").await;
    assert_eq!(store.list::<Pod>(&filter).await.unwrap().items.len(), 1);
    store.delete::<Pod>(&Key::namespaced("default", "p"), &Preconditions::default()).await.unwrap();
    for verb in ["applied", "deleted", "applied"] {
        let (told, name, _) = event(&mut watch).await;
        assert_eq!((told, name.as_str()), (verb, "p"));
    }
    // An API server marks a pod as being deleted before it deletes it.
    while event(&mut watch).await.0 != "deleted" {}
}

pub async fn a_follower_that_was_far_behind_catches_up_in_order(store: Datastore) {
    let mut followed = follow::<Node>(&store, Filter::default());
    assert!(matches!(next(&mut followed).await, Followed::Synced { .. }));
    // More than any engine keeps ready in memory, while nobody listens.
    for n in 0..700 {
        store.create(&node(&format!("n{n}"))).await.unwrap();
    }
    let (mut heard, mut last) = (0, Revision(0));
    while heard < 700 {
        match next(&mut followed).await {
            Followed::Applied(node, at) => {
                assert!(node.name() == format!("n{heard}") && at > last);
                (heard, last) = (heard + 1, at);
            }
            Followed::Bookmark(at) => assert!(at >= last),
            other => panic!("{other:?}"),
        }
    }
}

pub async fn two_handles_hear_each_other(store: Datastore) {
    let other = store.clone();
    let mut names = BTreeSet::new();
    let mut followed = follow::<Node>(&other, Filter::default());
    assert!(matches!(next(&mut followed).await, Followed::Synced { .. }));
    let writers = (0..4).map(|writer| {
        let store = store.clone();
        async move {
            for n in 0..25 {
                store.create(&node(&format!("w{writer}-{n}"))).await.unwrap();
            }
        }
    });
    futures::future::join_all(writers).await;
    while names.len() < 100 {
        if let Followed::Applied(node, _) = next(&mut followed).await {
            assert!(names.insert(node.name().to_owned()), "told once");
        }
    }
    assert_eq!(store.identity().await.unwrap(), other.identity().await.unwrap());
}
