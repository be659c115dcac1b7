//! Kinds that the server does not know, that are not ours, or that it treats in its own way.

use crate::api::{Api, established};
use crate::suite::{next, node, pod, pool};
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::json;
use std::time::Duration;
use tokio::time::timeout;
use twill_crds::{IPPool, Kind, Node, Object, Pod};
use twill_datastore::{Error, Filter, Followed, Key, Preconditions, Scope, WatchEvent, follow};

#[tokio::test]
#[ignore = "needs a Kubernetes API server"]
async fn a_kind_that_the_server_does_not_know_is_said_with_what_to_install() {
    let api = Api::start();
    let store = api.store().await;
    let wanted = "does not know IPPool; install Twill's CRDs: twill crds | kubectl apply --server-side -f -";
    let (listed, made) =
        (store.list::<IPPool>(&Filter::default()).await, store.create(&pool("a", "10.0.0.0/16")).await);
    let got = store.get::<IPPool>(&Key::cluster("a")).await;
    for error in [listed.unwrap_err(), made.unwrap_err(), got.unwrap_err()] {
        assert!(matches!(&error, Error::UnknownKind(text) if text.contains(wanted)), "{error:?}");
    }
    let error = store.create(&labelled_pod("nowhere", "p")).await.unwrap_err();
    assert!(matches!(&error, Error::NotFound(what) if what == "Namespace nowhere"), "{error:?}");
    // Whoever follows it goes on once it is there.
    let mut follower = follow::<IPPool>(&store, Filter::default());
    assert!(timeout(Duration::from_millis(500), follower.next()).await.is_err());
    api.define();
    assert!(matches!(next(&mut follower).await, Followed::Synced { items, .. } if items.is_empty()));
    store.create(&pool("a", "10.0.0.0/16")).await.unwrap();
    loop {
        match next(&mut follower).await {
            Followed::Bookmark(_) => {}
            Followed::Applied(pool, _) => break assert_eq!(pool.name(), "a"),
            other => panic!("{other:?}"),
        }
    }
}

fn labelled_pod(namespace: &str, name: &str) -> Pod {
    let mut made = pod(name, "a");
    made.metadata.namespace = Some(namespace.to_owned());
    made
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server"]
async fn a_field_that_the_server_does_not_select_by_is_selected_here() {
    let api = Api::start();
    let store = api.store().await;
    let lease = |name: &str, holder: &str| -> Lease {
        let metadata = json!({"name": name, "namespace": "default"});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"holderIdentity": holder}})).unwrap()
    };
    let fields = vec![("spec.holderIdentity".to_owned(), "a".to_owned())];
    let filter = Filter { namespace: Some("default".into()), fields, ..Filter::default() };
    store.create(&lease("mine", "a")).await.unwrap();
    store.create(&lease("theirs", "b")).await.unwrap();
    let list = store.list::<Lease>(&filter).await.unwrap();
    assert_eq!(list.items.iter().map(Object::name).collect::<Vec<_>>(), ["mine"]);
    let marks = store.barrier(&[Scope { kind: Lease::kind(), filter: filter.clone() }]).await.unwrap();
    assert_eq!(marks[0].present.as_ref().unwrap().keys, [Key::namespaced("default", "mine")]);
    let mut watch = store.watch::<Lease>(&filter, list.revision).await.unwrap();
    for (name, holder) in [("mine", "b"), ("mine", "c"), ("mine", "a")] {
        store.update(&lease(name, holder)).await.unwrap();
    }
    store.create(&lease("another", "b")).await.unwrap();
    store.delete::<Lease>(&Key::namespaced("default", "mine"), &Preconditions::default()).await.unwrap();
    let mut told = Vec::new();
    while told.len() < 3 {
        match next(&mut watch).await.unwrap() {
            WatchEvent::Applied(lease, _) => told.push(("applied", lease.name().to_owned())),
            WatchEvent::Deleted(lease, _) => told.push(("deleted", lease.name().to_owned())),
            WatchEvent::Bookmark(_) => {}
        }
    }
    assert_eq!(told, [("deleted", "mine".into()), ("applied", "mine".into()), ("deleted", "mine".into())]);
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server"]
async fn a_pod_on_a_node_is_given_its_time_unless_its_containers_have_ended() {
    let api = Api::start();
    let store = api.store().await;
    let mut placed = pod("p", "a");
    placed.spec.as_mut().unwrap().node_name = Some("n1".into());
    store.create(&placed).await.unwrap();
    let key = Key::namespaced("default", "p");
    store.delete::<Pod>(&key, &Preconditions::default()).await.unwrap();
    let ending = store.get::<Pod>(&key).await.unwrap().expect("its kubelet has not let it go");
    assert!(ending.metadata.deletion_timestamp.is_some());
    let other = Preconditions { uid: Some("another".into()), revision: None };
    assert!(matches!(store.engine().delete_ended(&Pod::kind(), &key, &other).await, Err(Error::Conflict(_))));
    store.engine().delete_ended(&Pod::kind(), &key, &Preconditions::default()).await.unwrap();
    assert_eq!(store.get::<Pod>(&key).await.unwrap(), None);
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server"]
async fn a_kind_of_others_keeps_its_status_through_an_update() {
    let api = Api::start();
    api.server.apply(OTHERS).unwrap();
    let store = api.store().await;
    let kind = |name: &str| Kind {
        namespaced: false,
        plural: format!("{}s", name.to_lowercase()).into(),
        ..twill_crds::known::guess("example.org", "v1", name)
    };
    let engine = store.engine();
    for name in ["Plain", "Apart"] {
        let kind = kind(name);
        let object = |spec: &str| json!({"apiVersion": "example.org/v1", "kind": name, "metadata": {"name": "o"}, "spec": {"x": spec}});
        let mut made = None;
        while made.is_none() {
            // It takes a moment until a new kind is served.
            made = engine
                .create(&kind, object("1"))
                .await
                .map_err(|e| assert!(matches!(e, Error::UnknownKind(_)), "{e}"))
                .ok();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut status = object("ignored");
        status["status"] = json!({"y": "told"});
        let told = engine.update_status(&kind, status).await.unwrap();
        assert_eq!((&told["spec"]["x"], &told["status"]["y"]), (&json!("1"), &json!("told")), "{name}");
        let mut update = object("2");
        update["status"] = json!({"y": "ignored"});
        let updated = engine.update(&kind, update.clone()).await.unwrap();
        assert_eq!((&updated["spec"]["x"], &updated["status"]["y"]), (&json!("2"), &json!("told")), "{name}");
        update["metadata"]["resourceVersion"] = made.unwrap()["metadata"]["resourceVersion"].clone();
        assert!(matches!(engine.update(&kind, update).await, Err(Error::Conflict(_))), "{name}");
    }
}

/// Two kinds, one without status subresource.
const OTHERS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: plains.example.org}
spec:
  group: example.org
  scope: Cluster
  names: {kind: Plain, plural: plains}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: aparts.example.org}
spec:
  group: example.org
  scope: Cluster
  names: {kind: Apart, plural: aparts}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";

#[tokio::test]
#[ignore = "needs a Kubernetes API server"]
async fn barriers_that_are_asked_for_together_are_few_lists() {
    let api = Api::start();
    let store = api.store().await;
    store.create(&node("n1")).await.unwrap();
    let lists = || api.requests("LIST", "nodes");
    let before = lists();
    let scopes = [Scope::all::<Node>()];
    let asked = (0..200).map(|_| store.barrier(&scopes));
    let marks = futures::future::try_join_all(asked).await.unwrap();
    assert!(marks.iter().all(|mark| mark[0].present.as_ref().unwrap().keys == [Key::cluster("n1")]));
    let sent = lists() - before;
    assert!(sent <= 2, "{sent} lists for 200 who asked at once");
    assert!(established(api.port()) <= 2);
}
