//! What is in etcd, and what is refused.

use crate::server::Server;
use crate::store;
use crate::suite::{labelled, next, node, pod, pool};
use futures::StreamExt;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use twill_crds::{IPPool, Node, Object, Pod};
use twill_datastore::{
    Datastore, Error, Filter, Followed, Key, Preconditions, RawEvent, Revision, Scope, WatchEvent, follow,
};

#[tokio::test]
async fn a_document_is_one_key_and_its_kind_another_of_the_same_revision() {
    let (server, store) = store().await;
    let made = store.create(&pod("p", "a")).await.unwrap();
    let mut raw = server.raw().await;
    let read =
        async |raw: &mut etcd_client::Client, key: &str| raw.get(key, None).await.unwrap().take_kvs().pop().unwrap();
    let (document, head) =
        (read(&mut raw, "/twill/v1/Pod/default/p").await, read(&mut raw, "/twill/v1/Pod/.head").await);
    let stored: Value = serde_json::from_slice(document.value()).unwrap();
    assert!(stored["metadata"].get("resourceVersion").is_none() && stored["spec"]["containers"][0]["name"] == "c");
    assert_eq!(made.metadata.resource_version, Some(document.mod_revision().to_string()));
    assert_eq!(document.mod_revision(), head.mod_revision());
    let marks = store.barrier(&[Scope::all::<Pod>(), Scope::all::<Node>()]).await.unwrap();
    let at = Revision(u64::try_from(head.mod_revision()).unwrap());
    assert_eq!(marks.iter().map(|mark| mark.revision).collect::<Vec<_>>(), [at, Revision(0)]);
    store.create(&node("n")).await.unwrap();
    assert_eq!(store.engine().kinds().await.unwrap(), [Node::kind(), Pod::kind()]);
    store.delete::<Node>(&Key::cluster("n"), &Preconditions::default()).await.unwrap();
    assert_eq!(store.engine().kinds().await.unwrap(), [Pod::kind()]);
}

#[tokio::test]
async fn two_prefixes_are_two_datastores() {
    let server = Server::start().await;
    let a = Datastore::open(&format!("{}/a", server.url())).await.unwrap();
    let b = Datastore::open(&format!("{}/a/b", server.url())).await.unwrap();
    a.create(&node("n")).await.unwrap();
    assert!(b.list::<Node>(&Filter::default()).await.unwrap().items.is_empty());
    assert_ne!(a.identity().await.unwrap(), b.identity().await.unwrap());
    let again = Datastore::open(&format!("{}/a/", server.url())).await.unwrap();
    assert_eq!(a.identity().await.unwrap(), again.identity().await.unwrap());
}

#[tokio::test]
async fn a_bookmark_follows_each_write_of_the_kind_and_none_of_others() {
    let (_server, store) = store().await;
    let from = store.list::<Node>(&Filter::default()).await.unwrap().revision;
    let mut watch = store.watch::<Node>(&Filter::default(), from).await.unwrap();
    assert!(matches!(next(&mut watch).await, Ok(WatchEvent::Bookmark(at)) if at == from));
    store.create(&node("n1")).await.unwrap();
    store.create(&pod("p", "a")).await.unwrap();
    store.delete::<Node>(&Key::cluster("n1"), &Preconditions::default()).await.unwrap();
    let Ok(WatchEvent::Applied(_, at)) = next(&mut watch).await else { panic!() };
    assert!(matches!(next(&mut watch).await, Ok(WatchEvent::Bookmark(told)) if told == at));
    let Ok(WatchEvent::Deleted(last, gone)) = next(&mut watch).await else { panic!() };
    assert_eq!((gone, last.metadata.resource_version), (Revision(at.0 + 2), Some(gone.0.to_string())));
    assert!(matches!(next(&mut watch).await, Ok(WatchEvent::Bookmark(told)) if told == gone));
}

#[tokio::test]
async fn of_pools_that_overlap_one_is_made_however_many_try_at_once() {
    let (_server, store) = store().await;
    let pools: Vec<IPPool> = (0..8).map(|n| pool(&format!("p{n}"), &format!("10.42.0.0/{}", 16 + n))).collect();
    let done = futures::future::join_all(pools.iter().map(|pool| store.create(pool))).await;
    assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 1, "{done:?}");
    for refused in done.into_iter().filter_map(Result::err) {
        let sentence = refused.to_string();
        assert!(sentence.contains("overlaps IPPool p"), "{sentence}");
    }
    assert_eq!(store.list::<IPPool>(&Filter::default()).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn finalizers_hold_what_is_deleted() {
    let (_server, store) = store().await;
    let mut held = node("n1");
    held.metadata.finalizers = Some(vec!["twill.network/x".into()]);
    store.create(&held).await.unwrap();
    store.delete::<Node>(&Key::cluster("n1"), &Preconditions::default()).await.unwrap();
    let mut dying = store.get::<Node>(&Key::cluster("n1")).await.unwrap().unwrap();
    assert!(dying.metadata.deletion_timestamp.is_some());
    dying.metadata.finalizers = None;
    store.update(&dying).await.unwrap();
    assert_eq!(store.get::<Node>(&Key::cluster("n1")).await.unwrap(), None);
}

#[tokio::test]
async fn writers_without_revision_all_get_through() {
    let (_server, store) = store().await;
    store.create(&node("n1")).await.unwrap();
    let writers = (0..8).map(|n| {
        let store = store.clone();
        async move { store.update(&labelled("n1", "by", &n.to_string())).await }
    });
    for done in futures::future::join_all(writers).await {
        done.unwrap();
    }
}

#[tokio::test]
async fn an_object_that_cannot_be_read_stalls_nobody() {
    let (server, store) = store().await;
    let mut raw = server.raw().await;
    let mut followed = follow::<IPPool>(&store, Filter::default());
    assert!(matches!(next(&mut followed).await, Followed::Synced { .. }));
    let good = json!({"metadata": {"name": "good"}, "spec": {"cidr": "10.9.0.0/16"}}).to_string();
    for (name, json) in [
        ("-/none", "{ no json"),
        ("-/typed", r#"{"metadata":{"name":"typed"},"spec":{"cidr":7}}"#),
        ("-/misplaced", &good),
        ("stray", &good),
    ] {
        raw.put(format!("/twill/v1/IPPool.twill.network/{name}"), json, None).await.unwrap();
    }
    store.create(&pool("good", "10.42.0.0/16")).await.unwrap();
    let told = loop {
        match next(&mut followed).await {
            Followed::Bookmark(_) => {}
            other => break other,
        }
    };
    assert!(matches!(told, Followed::Applied(pool, _) if pool.name() == "good"));
    let mut fresh = follow::<IPPool>(&store, Filter::default());
    assert!(matches!(next(&mut fresh).await, Followed::Synced { items, .. } if items.len() == 1));
    // Each can be deleted; those who follow list again.
    for name in ["typed", "none", "misplaced"] {
        let deleted = store.list::<IPPool>(&Filter::default()).await.unwrap().revision;
        store.delete::<IPPool>(&Key::cluster(name), &Preconditions::default()).await.unwrap();
        while !matches!(next(&mut fresh).await, Followed::Synced { items, revision } if items.len() == 1 && revision > deleted)
        {
        }
    }
    store.create(&pool("later", "10.43.0.0/16")).await.unwrap();
    while !matches!(next(&mut fresh).await, Followed::Applied(pool, _) if pool.name() == "later") {}
}

#[tokio::test]
async fn what_is_larger_than_etcd_takes_is_refused_with_its_name() {
    let (_server, store) = store().await;
    for megabytes in [2, 5] {
        let mut big = node("big");
        big.metadata.annotations = Some([("a".to_owned(), "x".repeat(megabytes << 20))].into());
        let refused = store.create(&big).await.unwrap_err();
        assert!(matches!(refused, Error::Invalid(_)), "{refused:?}");
        let sentence = refused.to_string();
        assert!(sentence.contains("Node big: size") && sentence.contains("--max-request-bytes"), "{sentence}");
    }
    store.create(&node("small")).await.unwrap();
}

#[tokio::test]
async fn documents_near_the_limit_are_listed_and_watched() {
    let (_server, store) = store().await;
    let from = store.list::<Node>(&Filter::default()).await.unwrap().revision;
    let mut watch = store.watch::<Node>(&Filter::default(), from).await.unwrap();
    let large = |n: usize, mark: &str| {
        let mut node = labelled(&format!("n{n}"), "mark", mark);
        node.metadata.annotations = Some([("a".to_owned(), "x".repeat(1_400_000))].into());
        node
    };
    // More than one answer may hold.
    for n in 0..60 {
        store.create(&large(n, "a")).await.unwrap();
    }
    store.update(&large(0, "b")).await.unwrap();
    assert_eq!(store.list::<Node>(&Filter::default()).await.unwrap().items.len(), 60);
    let mut applied = 0;
    while applied < 61 {
        applied += usize::from(matches!(next(&mut watch).await, Ok(WatchEvent::Applied(..))));
    }
}

#[tokio::test]
async fn a_watch_that_nobody_listens_to_stops_no_other_call() {
    let (_server, store) = store().await;
    let from = store.list::<Node>(&Filter::default()).await.unwrap().revision;
    let mut deaf = Vec::new();
    for _ in 0..8 {
        let mut watch = store.engine().watch(&Node::kind(), &Filter::default(), from).await.unwrap();
        assert!(matches!(next(&mut watch).await, Ok(RawEvent::Bookmark(_))));
        deaf.push(watch);
    }
    let mut big = node("n0");
    for n in 0..12 {
        big.metadata.name = Some(format!("n{n}"));
        big.metadata.annotations = Some([("a".to_owned(), "x".repeat(1_000_000))].into());
        let start = Instant::now();
        store.create(&big).await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(4));
    }
    let start = Instant::now();
    assert_eq!(store.list::<Node>(&Filter::default()).await.unwrap().items.len(), 12);
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    // And each has missed nothing.
    for mut watch in deaf {
        let mut applied = 0;
        while applied < 12 {
            applied += usize::from(matches!(next(&mut watch).await, Ok(RawEvent::Applied(..))));
        }
    }
}

#[tokio::test]
async fn history_that_is_compacted_is_expired() {
    let (server, store) = store().await;
    for n in 0..20 {
        store.create(&node(&format!("n{n}"))).await.unwrap();
    }
    let now = store.list::<Node>(&Filter::default()).await.unwrap().revision;
    server.raw().await.compact(i64::try_from(now.0).unwrap(), None).await.unwrap();
    let watch = async |from: Revision| {
        let mut watch = store.engine().watch(&Node::kind(), &Filter::default(), from).await.unwrap();
        loop {
            match next(&mut watch).await {
                Ok(RawEvent::Bookmark(at)) if at == from => {}
                other => return (other, watch),
            }
        }
    };
    let (expired, mut ended) = watch(Revision(2)).await;
    assert!(matches!(expired, Err(Error::Expired)), "{expired:?}");
    assert!(ended.next().await.is_none());
    let (later, _) = watch(Revision(now.0 + 1000)).await;
    assert!(matches!(later, Err(Error::Expired)), "a revision that is not there yet: {later:?}");
    store.create(&node("new")).await.unwrap();
    let (recent, _) = watch(now).await;
    assert!(matches!(recent, Ok(RawEvent::Applied(..))), "{recent:?}");
}

#[tokio::test]
async fn a_quota_that_is_used_up_is_said_and_hurts_nothing_that_is_there() {
    let server = Server::with(&["--quota-backend-bytes", "2000000"]).await;
    let store = Datastore::open(&server.url()).await.unwrap();
    store.create(&node("n1")).await.unwrap();
    let mut full = None;
    for n in 0..20 {
        let mut big = node(&format!("big{n}"));
        big.metadata.annotations = Some([("a".to_owned(), "x".repeat(400_000))].into());
        full = store.create(&big).await.err();
        if full.is_some() {
            break;
        }
    }
    assert!(matches!(&full, Some(Error::Full(text)) if text.contains("alarm disarm")), "{full:?}");
    assert!(store.get::<Node>(&Key::cluster("n1")).await.unwrap().is_some());
}
