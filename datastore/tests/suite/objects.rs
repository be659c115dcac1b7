//! What is stored, and who may change it.

use super::{labelled, next, node, pod, pool};
use serde_json::json;
use twill_crds::{IPPool, NetworkPolicy, Node, NodeNetwork, Object, Pod};
use twill_datastore::{Datastore, Error, Filter, Key, Preconditions, Revision, WatchEvent};

pub async fn they_carry_the_metadata_of_an_api_server(store: Datastore) {
    let made = store.create(&pool("a", "10.42.0.0/16")).await.unwrap();
    assert!(made.metadata.uid.is_some() && made.metadata.creation_timestamp.is_some());
    assert_eq!(made.metadata.generation, Some(1));
    assert!(made.metadata.managed_fields.is_none(), "nobody here reads them, and they are most of an object");
    let revision: u64 = made.metadata.resource_version.as_deref().unwrap().parse().unwrap();
    assert!(revision > 0);
    assert_eq!(store.get::<IPPool>(&Key::cluster("a")).await.unwrap(), Some(made.clone()));
    assert_eq!(store.get::<IPPool>(&Key::cluster("b")).await.unwrap(), None);
    let mut changed = made.clone();
    changed.spec.disabled = true;
    let changed = store.update(&changed).await.unwrap();
    assert_eq!((changed.metadata.generation, &changed.metadata.uid), (Some(2), &made.metadata.uid));
    assert!(changed.metadata.resource_version > made.metadata.resource_version);
    let same = store.update(&changed).await.unwrap();
    assert_eq!(
        same.metadata.resource_version, changed.metadata.resource_version,
        "what changes nothing writes nothing"
    );
    assert!(
        matches!(store.create(&pool("a", "10.43.0.0/16")).await, Err(Error::AlreadyExists(what)) if what == "IPPool a")
    );
    assert!(matches!(store.update(&node("n2")).await, Err(Error::NotFound(what)) if what == "Node n2"));
    assert!(store.engine().kinds().await.unwrap().contains(&IPPool::kind()));
}

pub async fn of_two_who_read_the_same_revision_one_writes_and_the_other_reads_again(store: Datastore) {
    let read = store.create(&node("n1")).await.unwrap();
    let relabelled = |value: &str| {
        let mut node = read.clone();
        node.metadata.labels = Some([("rack".to_owned(), value.to_owned())].into());
        node
    };
    let (a, b) = (relabelled("a"), relabelled("b"));
    let (first, second) = tokio::join!(store.update(&a), store.update(&b));
    assert_eq!([&first, &second].iter().filter(|done| done.is_ok()).count(), 1);
    assert!([first, second].into_iter().any(|done| matches!(done, Err(Error::Conflict(what)) if what == "Node n1")));
}

pub async fn an_update_without_revision_replaces_what_is_there(store: Datastore) {
    store.create(&labelled("n1", "rack", "a")).await.unwrap();
    store.update(&labelled("n1", "rack", "b")).await.unwrap();
    let updated = store.update(&labelled("n1", "row", "c")).await.unwrap();
    assert_eq!(updated.metadata.labels, Some([("row".to_owned(), "c".to_owned())].into()));
}

pub async fn status_changes_by_its_own_call_alone(store: Datastore) {
    let network = |drain: bool, agent: &str| -> NodeNetwork {
        let condition = json!({"type": agent, "status": "True", "reason": "R", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let status = json!({"felix": {"conditions": [condition]}});
        serde_json::from_value(json!({
            "apiVersion": "twill.network/v1", "kind": "NodeNetwork",
            "metadata": {"name": "n1"}, "spec": {"drain": drain}, "status": status
        }))
        .unwrap()
    };
    let made = store.create(&network(false, "A")).await.unwrap();
    assert!(
        made.status.is_none() || made.status == Some(twill_crds::NodeNetworkStatus::default()),
        "{:?}",
        made.status
    );
    let mut told = network(true, "B");
    told.metadata.resource_version = made.metadata.resource_version;
    let told = store.update_status(&told).await.unwrap();
    assert!(!told.spec.drain && told.status.is_some());
    let mut drained = network(true, "C");
    drained.metadata.resource_version = told.metadata.resource_version.clone();
    let drained = store.update(&drained).await.unwrap();
    assert!(drained.spec.drain);
    assert_eq!(drained.status, told.status);
    assert!(matches!(store.update_status(&told).await, Err(Error::Conflict(_))), "the revision is an old one");
}

pub async fn a_delete_holds_to_its_preconditions(store: Datastore) {
    let stale = store.create(&node("n1")).await.unwrap();
    let made = store.update(&labelled("n1", "a", "b")).await.unwrap();
    let revision = |node: &Node| node.meta().resource_version.as_deref().and_then(|at| at.parse().ok()).map(Revision);
    let key = Key::cluster("n1");
    let wrong_revision = Preconditions { uid: None, revision: revision(&stale) };
    assert!(matches!(store.delete::<Node>(&key, &wrong_revision).await, Err(Error::Conflict(_))));
    let wrong_uid = Preconditions { uid: Some("another".into()), revision: None };
    assert!(matches!(store.delete::<Node>(&key, &wrong_uid).await, Err(Error::Conflict(_))));
    let right = Preconditions { uid: made.metadata.uid.clone(), revision: revision(&made) };
    store.delete::<Node>(&key, &right).await.unwrap();
    assert!(matches!(store.delete::<Node>(&key, &Preconditions::default()).await, Err(Error::NotFound(_))));
}

pub async fn what_breaks_a_rule_is_refused_with_object_and_field(store: Datastore) {
    let mut bad = pool("bad", "10.42.0.0/16");
    bad.spec.block_size = Some(8);
    let refused = store.create(&bad).await.unwrap_err();
    assert!(matches!(refused, Error::Invalid(_)), "{refused:?}");
    let sentence = refused.to_string();
    assert!(sentence.contains("bad") && sentence.contains("blockSize"), "{sentence}");
    let made = store.create(&pool("good", "10.42.0.0/16")).await.unwrap();
    let mut moved = made;
    moved.spec.cidr = "10.43.0.0/16".parse().unwrap();
    let refused = store.update(&moved).await.unwrap_err().to_string();
    assert!(refused.contains("good") && refused.contains("cidr"), "{refused}");
}

pub async fn lists_are_ordered_and_filtered(store: Datastore) {
    for (name, app) in [("c", "x"), ("a", "x"), ("b", "y")] {
        store.create(&pod(name, app)).await.unwrap();
    }
    let names = |pods: Vec<Pod>| pods.iter().map(|pod| pod.name().to_owned()).collect::<Vec<_>>();
    let all = store.list::<Pod>(&Filter::default()).await.unwrap();
    assert_eq!(names(all.items), ["a", "b", "c"]);
    let labels = serde_json::from_value(json!({"matchLabels": {"app": "x"}})).unwrap();
    let x = Filter { labels: Some(labels), ..Filter::default() };
    assert_eq!(names(store.list::<Pod>(&x).await.unwrap().items), ["a", "c"]);
    let fields = vec![("metadata.name".to_owned(), "b".to_owned())];
    let b = Filter { fields, namespace: Some("default".into()), ..Filter::default() };
    assert_eq!(names(store.list::<Pod>(&b).await.unwrap().items), ["b"]);
    let elsewhere = Filter { namespace: Some("kube-system".into()), ..Filter::default() };
    assert!(store.list::<Pod>(&elsewhere).await.unwrap().items.is_empty());
    assert!(store.list::<NetworkPolicy>(&Filter::default()).await.unwrap().items.is_empty());
}

/// More than a page of any engine.
pub async fn a_long_list_is_whole(store: Datastore) {
    use futures::{StreamExt, TryStreamExt, stream};
    let names: Vec<String> = (0..1203).map(|n| format!("n{n:04}")).collect();
    let made = stream::iter(names.iter().map(|name| labelled(name, "size", "long"))).map(|node| {
        let store = store.clone();
        async move { store.create(&node).await }
    });
    made.buffer_unordered(16).try_collect::<Vec<_>>().await.unwrap();
    let list = store.list::<Node>(&Filter::default()).await.unwrap();
    assert!(list.items.iter().map(Object::name).eq(names.iter().map(String::as_str)));
    let mut watch = store.watch::<Node>(&Filter::default(), list.revision).await.unwrap();
    store.create(&node("one-more")).await.unwrap();
    loop {
        match next(&mut watch).await.unwrap() {
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Applied(node, _) if node.name() == "one-more" => return,
            other => panic!("{other:?}"),
        }
    }
}
