//! What the world looks like after any number of operations, and from where a watcher began to listen.

use super::{labelled, next};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::json;
use std::collections::BTreeMap;
use twill_crds::{Node, Object};
use twill_datastore::{Datastore, Error, Filter, Key, Preconditions, Revision, WatchEvent};

const ROUNDS: usize = 16;

#[derive(Clone, Debug)]
enum Op {
    /// Creates or relabels.
    Put(usize, bool),
    Delete(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![3 => (0usize..4, any::<bool>()).prop_map(|(n, on)| Op::Put(n, on)), 1 => (0usize..4).prop_map(Op::Delete)]
}

async fn perform(store: &Datastore, op: &Op) {
    let name = |n: usize| format!("n{n}");
    match *op {
        Op::Put(n, on) => {
            let object = labelled(&name(n), "on", &on.to_string());
            match store.create(&object).await {
                Err(Error::AlreadyExists(_)) => drop(store.update(&object).await.unwrap()),
                done => drop(done.unwrap()),
            }
        }
        Op::Delete(n) => match store.delete::<Node>(&Key::cluster(name(n)), &Preconditions::default()).await {
            Ok(()) | Err(Error::NotFound(_)) => {}
            Err(error) => panic!("{error}"),
        },
    }
}

/// By name; without what only the deletion of an object changes.
type World = BTreeMap<String, Node>;

async fn listed(store: &Datastore, filter: &Filter) -> (World, Revision) {
    let list = store.list::<Node>(filter).await.unwrap();
    (list.items.into_iter().map(|node| (node.name().to_owned(), node)).collect(), list.revision)
}

/// Tells the world on from `from` until it is like `expected`.
async fn told(store: &Datastore, filter: &Filter, mut world: World, from: Revision, expected: &World) {
    let mut watch = store.watch::<Node>(filter, from).await.unwrap();
    let mut last = from;
    while world != *expected {
        let at = match next(&mut watch).await.unwrap() {
            WatchEvent::Applied(node, at) => {
                world.insert(node.name().to_owned(), node);
                at
            }
            WatchEvent::Deleted(node, at) => {
                assert!(world.remove(node.name()).is_some(), "what is deleted was there");
                at
            }
            WatchEvent::Bookmark(at) => at,
        };
        assert!(at >= last, "in order");
        last = at;
    }
}

pub async fn a_list_and_the_events_after_it_are_the_later_list(store: Datastore) {
    let mut runner = TestRunner::deterministic();
    let ops = prop::collection::vec(op(), 0..12);
    for round in 0..ROUNDS {
        let mut some = || ops.new_tree(&mut runner).unwrap().current();
        let (before, after) = (some(), some());
        let on = serde_json::from_value(json!({"matchLabels": {"on": "true"}})).unwrap();
        let filter = Filter { labels: (round % 2 == 0).then_some(on), ..Filter::default() };
        for op in &before {
            perform(&store, op).await;
        }
        let (world, from) = listed(&store, &filter).await;
        for op in &after {
            perform(&store, op).await;
        }
        let (expected, _) = listed(&store, &filter).await;
        told(&store, &filter, world, from, &expected).await;
    }
}
