//! A server that is away, hangs, or has forgotten.

use crate::api::{Api, cpu};
use crate::suite::{next, node};
use futures::StreamExt;
use nix::sys::resource::UsageWho;
use std::time::{Duration, Instant};
use tokio::time::timeout;
use twill_crds::{Node, Object};
use twill_datastore::{Error, Filter, Followed, Index, Key, Preconditions, RawEvent, Revision, WatchEvent, follow};

/// Follows until there are so many nodes.
async fn nodes(
    follower: &mut (impl futures::Stream<Item = Followed<Node>> + Unpin),
    index: &mut Index<Node>,
    wanted: usize,
) {
    while index.len() != wanted {
        let followed =
            timeout(Duration::from_secs(60), follower.next()).await.expect("the follower is silent").unwrap();
        index.apply(followed);
    }
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server"]
async fn a_server_that_is_killed_and_comes_back_has_lost_nobody_anything() {
    let mut api = Api::start();
    let store = api.store().await;
    store.create(&node("n1")).await.unwrap();
    let (mut follower, mut index) = (follow::<Node>(&store, Filter::default()), Index::default());
    nodes(&mut follower, &mut index, 1).await;
    let trouble = store.trouble();
    assert_eq!(*trouble.borrow(), None);
    api.server.kill();
    let (before, began) = (cpu(UsageWho::RUSAGE_THREAD), Instant::now());
    // What it does meanwhile is to wait; it is never silent about it for longer than a pause.
    assert!(timeout(Duration::from_secs(6), follower.next()).await.is_err(), "there is nothing to tell");
    let busy = (cpu(UsageWho::RUSAGE_THREAD) - before).as_secs_f64() / began.elapsed().as_secs_f64();
    assert!(busy < 0.05, "it waits: {busy}");
    assert!(trouble.borrow().is_some(), "whoever follows knows it without a question");
    let error = store.create(&node("lost")).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    api.server.start_again().unwrap();
    let other = api.store().await;
    other.create(&node("n2")).await.unwrap();
    other.delete::<Node>(&Key::cluster("n1"), &Preconditions::default()).await.unwrap();
    other.create(&node("n3")).await.unwrap();
    while index.get(&Key::cluster("n3")).is_none() {
        index.apply(next(&mut follower).await);
    }
    assert!(index.len() == 2 && index.get(&Key::cluster("n2")).is_some());
    assert_eq!(*trouble.borrow(), None);
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server"]
async fn history_that_was_compacted_is_expired_and_a_follower_lists_again() {
    let mut api = Api::start();
    let store = api.store().await;
    let first = store.create(&node("n0")).await.unwrap();
    let from = Revision(first.metadata.resource_version.unwrap().parse().unwrap());
    let (mut follower, mut index) = (follow::<Node>(&store, Filter::default()), Index::default());
    nodes(&mut follower, &mut index, 1).await;
    api.server.kill();
    // What happens while nobody can watch, and what is then forgotten.
    api.server.start_again().unwrap();
    let other = api.store().await;
    for n in 1..20 {
        other.create(&node(&format!("n{n}"))).await.unwrap();
    }
    other.delete::<Node>(&Key::cluster("n0"), &Preconditions::default()).await.unwrap();
    api.server.kill();
    api.compact();
    api.server.start_again().unwrap();
    nodes(&mut follower, &mut index, 19).await;
    assert!(index.get(&Key::cluster("n0")).is_none());
    let mut watch = store.engine().watch(&Node::kind(), &Filter::default(), from).await.unwrap();
    loop {
        match next(&mut watch).await {
            Ok(RawEvent::Bookmark(_)) => {}
            Ok(event) => panic!("{event:?}"),
            Err(error) => break assert!(matches!(error, Error::Expired), "{error}"),
        }
    }
    assert!(watch.next().await.is_none());
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server"]
async fn a_server_that_hangs_is_unavailable_and_nothing_is_lost_once_it_goes_on() {
    let api = Api::start();
    let store = api.store().await;
    store.create(&node("n1")).await.unwrap();
    let from = store.list::<Node>(&Filter::default()).await.unwrap().revision;
    let mut watch = store.watch::<Node>(&Filter::default(), from).await.unwrap();
    assert!(matches!(next(&mut watch).await, Ok(WatchEvent::Bookmark(_))));
    let (mut follower, mut index) = (follow::<Node>(&store, Filter::default()), Index::default());
    nodes(&mut follower, &mut index, 1).await;
    api.server.pause();
    let began = Instant::now();
    let error = store.get::<Node>(&Key::cluster("n1")).await.unwrap_err();
    assert!(
        matches!(error, Error::Unavailable(_)) && began.elapsed() < Duration::from_secs(12),
        "{error:?} after {:?}",
        began.elapsed()
    );
    loop {
        match next(&mut watch).await {
            Ok(WatchEvent::Bookmark(_)) => {}
            Ok(event) => panic!("{event:?}"),
            Err(error) => break assert!(matches!(error, Error::Unavailable(_)), "{error}"),
        }
    }
    println!("a call failed and the watch ended {:?} after the server had stopped", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(30));
    let mut trouble = store.trouble();
    if trouble.borrow().is_none() {
        let heard = tokio::select! {
            told = follower.next() => panic!("{told:?}"),
            heard = timeout(Duration::from_secs(30), trouble.changed()) => heard,
        };
        heard.expect("its followers have noticed").unwrap();
    }
    assert!(trouble.borrow().is_some());
    api.server.resume();
    store.create(&node("n2")).await.unwrap();
    nodes(&mut follower, &mut index, 2).await;
    assert_eq!(*trouble.borrow(), None);
}
