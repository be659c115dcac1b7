//! The engine of a Kubernetes cluster, against a real API server; what is ours alone to decide, against one that says what the case
//! needs.
#![allow(clippy::unwrap_used, missing_docs)]

mod access;
mod api;
mod figures;
mod kinds;
mod outages;
mod representation;
mod scripted;
#[path = "../suite/mod.rs"]
mod suite;

use api::{Api, established};
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::events::v1::Event;
use suite::CASES;
use twill_crds::{IPBlock, IPPool, NetworkPolicy, Node, NodeNetwork, Object, Pod};
use twill_datastore::{Datastore, Error, Filter, Key, Preconditions};

/// Removes everything that a case may have made.
async fn empty(store: &Datastore) {
    async fn remove<K: Object>(store: &Datastore) {
        let made: Vec<Key> = store.list::<K>(&Filter::default()).await.unwrap().items.iter().map(key).collect();
        let removed = futures::stream::iter(made).map(|key| async move {
            match store.engine().delete_ended(&K::kind(), &key, &Preconditions::default()).await {
                Ok(()) | Err(Error::NotFound(_)) => {}
                Err(error) => panic!("{error}"),
            }
        });
        removed.buffer_unordered(8).collect::<()>().await;
    }
    remove::<Node>(store).await;
    remove::<Pod>(store).await;
    remove::<IPPool>(store).await;
    remove::<IPBlock>(store).await;
    remove::<NodeNetwork>(store).await;
    remove::<Event>(store).await;
    remove::<NetworkPolicy>(store).await;
    let _ = store.delete::<Lease>(&Key::namespaced("kube-system", "twill"), &Preconditions::default()).await;
}

fn key<K: Object>(object: &K) -> Key {
    Key { namespace: object.namespace().to_owned(), name: object.name().to_owned() }
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server"]
async fn every_case_of_the_suite_holds() {
    let api = Api::with_definitions();
    let store = api.store().await;
    for (name, case) in CASES {
        empty(&store).await;
        println!("case {name}");
        case(store.clone()).await;
    }
    assert!(established(api.port()) <= 2, "all share a connection: {}", established(api.port()));
}
