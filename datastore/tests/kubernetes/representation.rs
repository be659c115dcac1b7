//! What followers are given of Pods, Nodes and Namespaces: by protobuf, and by JSON where there is none.

use crate::api::Api;
use crate::scripted::{answer, serve, store};
use crate::suite::next;
use futures::StreamExt;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use twill_crds::{EndpointSlice, Kind, Namespace, Node, Object, Pod};
use twill_datastore::{Datastore, Error, Filter, RawEvent, Revision};

/// An answer in protobuf.
fn in_protobuf(stream: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("Content-Type: application/vnd.kubernetes.protobuf{stream}\r\n");
    let length = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n{head}\r\n", body.len());
    [length.as_bytes(), body].concat()
}

/// A field with a length, of a short message.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat()
}

fn wrapped(message: &[u8]) -> Vec<u8> {
    [b"k8s\0".as_slice(), &field(2, message)].concat()
}

/// A Node of this name and revision.
fn message(name: &[u8], revision: &str) -> Vec<u8> {
    field(1, &[field(1, name), field(6, revision.as_bytes())].concat())
}

fn frame(step: &str, node: &[u8]) -> Vec<u8> {
    let event = [field(1, step.as_bytes()), field(2, &field(1, &wrapped(node)))].concat();
    [u32::try_from(event.len()).unwrap().to_be_bytes().as_slice(), &event].concat()
}

fn accepted(request: &str) -> &str {
    let mut lines = request.lines().filter_map(|line| line.strip_prefix("accept: "));
    lines.next_back().expect("every request says what it accepts")
}

const EITHER: &str = "application/vnd.kubernetes.protobuf,application/json";

fn names(items: &[Value]) -> Vec<&str> {
    items.iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_server_that_refuses_protobuf_is_asked_for_json_and_so_from_then_on() {
    for refusal in ["406 Not Acceptable", "415 Unsupported Media Type"] {
        let directory = tempfile::tempdir().unwrap();
        let page = json!({"metadata": {"resourceVersion": "9"}, "items": [{"metadata": {"name": "n1", "resourceVersion": "7"}}]});
        let page = || answer("200 OK", "Content-Type: application/json\r\n", &page.to_string());
        let (url, serving) = serve(vec![answer(refusal, "", "no"), page(), page()]).await;
        let store = store(directory.path(), &url).await;
        for _ in 0..2 {
            let page = store.engine().list_trimmed(&Node::kind(), &Filter::default()).await.unwrap();
            assert_eq!((names(&page.items), page.revision), (vec!["n1"], Revision(9)));
        }
        let requests = serving.await.unwrap();
        let accepted: Vec<&str> = requests.iter().map(|request| accepted(request)).collect();
        assert_eq!(accepted, [EITHER, "application/json", "application/json"]);
    }
}

#[tokio::test]
async fn a_list_that_cannot_be_read_as_protobuf_is_read_as_json() {
    let directory = tempfile::tempdir().unwrap();
    let good = [field(1, &field(2, b"9")), field(2, &message(b"n1", "7"))].concat();
    let bad = [good.clone(), field(2, &message(b"\xff", "8"))].concat();
    let page = json!({"metadata": {"resourceVersion": "9"}, "items": [{"metadata": {"name": "n1"}}, {"metadata": {"name": "n2"}}]});
    let (good, bad) = (in_protobuf("", &wrapped(&good)), in_protobuf("", &wrapped(&bad)));
    let (url, serving) = serve(vec![good, bad, answer("200 OK", "", &page.to_string()).into_bytes()]).await;
    let store = store(directory.path(), &url).await;
    let list = async || store.engine().list_trimmed(&Node::kind(), &Filter::default()).await.unwrap();
    let page = list().await;
    let wanted = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "resourceVersion": "7"}});
    assert_eq!((page.items, page.revision), (vec![wanted], Revision(9)));
    assert_eq!(names(&list().await.items), ["n1", "n2"]);
    assert_eq!(accepted(&serving.await.unwrap()[2]), "application/json");
}

#[tokio::test]
async fn an_event_that_cannot_be_read_as_protobuf_is_heard_as_json_and_none_before_it_twice() {
    let directory = tempfile::tempdir().unwrap();
    let frames = [
        frame("ADDED", &message(b"n1", "6")),
        frame("DELETED", &message(b"\xff", "7")),
        frame("ADDED", &message(b"n3", "8")),
    ];
    let event = |step: &str, name: &str, revision: &str| {
        json!({"type": step, "object": {"metadata": {"name": name, "resourceVersion": revision}}}).to_string() + "\n"
    };
    let gone = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}"#.to_owned() + "\n";
    let lines = event("DELETED", "n2", "7") + &event("ADDED", "n3", "8");
    let first = in_protobuf(";stream=watch", &frames.concat());
    let (url, serving) =
        serve(vec![first, answer("200 OK", "", &lines).into_bytes(), answer("200 OK", "", &gone).into_bytes()]).await;
    let store = store(directory.path(), &url).await;
    let mut watch = store.engine().watch_trimmed(&Node::kind(), &Filter::default(), Revision(5)).await.unwrap();
    let mut told = Vec::new();
    let error = loop {
        match next(&mut watch).await {
            Ok(RawEvent::Applied(object, at)) => told.push(("applied", object["metadata"]["name"].clone(), at.0)),
            Ok(RawEvent::Deleted(object, at)) => told.push(("deleted", object["metadata"]["name"].clone(), at.0)),
            Ok(RawEvent::Bookmark(_)) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Expired), "{error}");
    assert_eq!(told, [("applied", json!("n1"), 6), ("deleted", json!("n2"), 7), ("applied", json!("n3"), 8)]);
    let requests = serving.await.unwrap();
    assert!(requests[1].contains("&resourceVersion=6&"), "{}", requests[1]);
    assert_eq!([accepted(&requests[0]), accepted(&requests[1])], [EITHER, "application/json"]);
}

#[tokio::test]
async fn the_end_of_a_watch_is_understood_in_protobuf() {
    let directory = tempfile::tempdir().unwrap();
    // metav1.Status: message, reason and code.
    let status = [field(3, b"too old"), field(4, b"Expired"), vec![0x30, 0x9a, 0x03]].concat();
    let (url, serving) = serve(vec![in_protobuf(";stream=watch", &frame("ERROR", &status))]).await;
    let store = store(directory.path(), &url).await;
    let mut watch = store.engine().watch_trimmed(&Node::kind(), &Filter::default(), Revision(5)).await.unwrap();
    assert!(matches!(next(&mut watch).await, Ok(RawEvent::Bookmark(Revision(5)))));
    let error = next(&mut watch).await.unwrap_err();
    assert!(matches!(error, Error::Expired), "{error}");
    assert_eq!(serving.await.unwrap().len(), 1);
}

/// What of a document followers read: fields of objects, and of those in lists.
fn read_of(kind: &str) -> Value {
    let metadata = json!({"name": 1, "namespace": 1, "uid": 1, "resourceVersion": 1, "generation": 1,
        "creationTimestamp": 1, "deletionTimestamp": 1, "labels": 1, "annotations": {"twill.network/ipv4-pools": 1}});
    let container = json!([{"restartPolicy": 1, "ports": [{"name": 1, "containerPort": 1, "protocol": 1}]}]);
    match kind {
        "Pod" => json!({"apiVersion": 1, "kind": 1, "metadata": metadata,
            "spec": {"nodeName": 1, "hostNetwork": 1, "containers": container, "initContainers": container},
            "status": {"phase": 1, "podIP": 1, "podIPs": [{"ip": 1}]}}),
        "Node" => json!({"apiVersion": 1, "kind": 1, "metadata": metadata,
            "spec": {"unschedulable": 1, "taints": [{"key": 1, "effect": 1}]}, "status": {
            "conditions": [{"type": 1, "status": 1, "message": 1}], "addresses": [{"type": 1, "address": 1}]}}),
        "EndpointSlice" => json!({"apiVersion": 1, "kind": 1, "metadata": metadata, "addressType": 1, "endpoints": [{
            "addresses": [1], "nodeName": 1, "conditions": {"ready": 1, "serving": 1, "terminating": 1}}]}),
        _ => json!({"apiVersion": 1, "kind": 1, "metadata": metadata}),
    }
}

/// A document cut down to the fields that `wanted` has, and without fields that are empty.
fn cut(document: &Value, wanted: &Value) -> Value {
    match (document, wanted) {
        (Value::Array(items), Value::Array(each)) => items.iter().map(|item| cut(item, &each[0])).collect(),
        (Value::Object(fields), Value::Object(wanted)) => {
            let kept = fields.iter().filter_map(|(name, value)| Some((name.clone(), cut(value, wanted.get(name)?))));
            let is_empty = |value: &Value| [json!({}), json!([]), json!(""), json!(false), json!(null)].contains(value);
            // Of an endpoint's conditions false is not the same as nothing.
            let is_said = |name: &String| ["ready", "serving", "terminating"].contains(&name.as_str());
            Value::Object(kept.filter(|(name, value)| is_said(name) || !is_empty(value)).collect())
        }
        _ => document.clone(),
    }
}

fn word() -> impl Strategy<Value = String> {
    "[a-z]([a-z0-9-]{0,12}[a-z0-9])?"
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(word(), prop_oneof![Just(String::new()), word()], 0..4)
}

fn container(sidecar: bool) -> impl Strategy<Value = Value> {
    let port = (1u16.., prop_oneof!["TCP", "UDP", "SCTP"], any::<bool>());
    let ports = btree_map(1u16.., port, 0..3).prop_map(|ports| {
        let port = |(number, (_, protocol, named)): (u16, (u16, String, bool))| match named {
            true => json!({"name": format!("p{number}"), "containerPort": number, "protocol": protocol}),
            false => json!({"containerPort": number, "protocol": protocol}),
        };
        ports.into_iter().map(port).collect::<Vec<_>>()
    });
    (ports, any::<bool>()).prop_map(move |(ports, always)| {
        let mut made = json!({"image": "none", "ports": ports, "env": [{"name": "E", "value": "größe"}]});
        if sidecar && always {
            made["restartPolicy"] = json!("Always");
        }
        made
    })
}

fn named(containers: Vec<Value>, letter: char) -> Vec<Value> {
    let name = |(place, mut container): (usize, Value)| {
        container["name"] = json!(format!("{letter}{place}"));
        container
    };
    containers.into_iter().enumerate().map(name).collect()
}

fn pod() -> impl Strategy<Value = Value> {
    let addresses = vec(any::<u8>(), 0..3).prop_map(|last| {
        let one = |(place, last): (usize, u8)| match place {
            0 => json!({"ip": format!("10.42.0.{last}")}),
            _ => json!({"ip": format!("fd00::{last:x}")}),
        };
        last.into_iter().take(2).enumerate().map(one).collect::<Vec<_>>()
    });
    let phase = prop_oneof!["Pending", "Running", "Succeeded", "Failed"];
    (labels(), vec(container(false), 1..3), vec(container(true), 0..3), addresses, phase, any::<[bool; 2]>()).prop_map(
        |(labels, containers, inits, addresses, phase, [placed, host])| {
            let (containers, inits) = (named(containers, 'c'), named(inits, 'i'));
            let node = if placed { json!("n1") } else { json!(null) };
            json!({"metadata": {"namespace": "default", "labels": labels, "annotations": {"a": "b", "twill.network/ipv4-pools": "[]"}},
                "spec": {"nodeName": node, "hostNetwork": host, "containers": containers, "initContainers": inits},
                "status": {"phase": phase, "podIP": addresses.first().map(|a| a["ip"].clone()), "podIPs": addresses}})
        },
    )
}

fn node() -> impl Strategy<Value = Value> {
    let condition = prop_oneof!["True", "False", "Unknown"];
    (labels(), btree_set(any::<u8>(), 0..3), condition, "[ -~äß]{0,40}").prop_map(|(labels, last, status, message)| {
        let addresses = last.iter().map(|last| json!({"type": "InternalIP", "address": format!("192.0.2.{last}")}));
        let time = "2026-01-02T03:04:05Z";
        json!({"metadata": {"labels": labels}, "spec": {"unschedulable": true,
            "taints": [{"key": "example.org/a", "value": "b", "effect": "NoSchedule"}]}, "status": {
            "addresses": addresses.collect::<Vec<_>>(), "conditions": [{"type": "Ready", "status": status, "message": message,
                "reason": "R", "lastHeartbeatTime": time, "lastTransitionTime": time}]}})
    })
}

fn slice() -> impl Strategy<Value = Value> {
    let condition = || proptest::option::of(any::<bool>());
    let endpoint = (any::<u8>(), proptest::option::of(word()), condition(), condition(), condition());
    (labels(), btree_map(any::<u8>(), endpoint, 0..4)).prop_map(|(labels, endpoints)| {
        let endpoints = endpoints.into_iter().map(|(last, (_, node, ready, serving, terminating))| {
            let mut conditions = json!({"ready": ready, "serving": serving, "terminating": terminating});
            conditions.as_object_mut().unwrap().retain(|_, value| !value.is_null());
            json!({"addresses": [format!("192.0.2.{last}")], "nodeName": node, "zone": "z", "conditions": conditions})
        });
        json!({"metadata": {"labels": labels, "namespace": "default"}, "addressType": "IPv4", "ports": [{"port": 80}],
            "endpoints": endpoints.collect::<Vec<_>>()})
    })
}

fn namespace() -> impl Strategy<Value = Value> {
    let annotations = json!({"a": "b", "twill.network/ipv4-pools": "[]"});
    labels().prop_map(move |labels| json!({"metadata": {"labels": labels, "annotations": annotations}}))
}

/// Makes objects out of a strategy, and each again with the status of another: what whoever reads whole documents sees of
/// them, whoever lists them trimmed and whoever watches them trimmed sees, too.
async fn reads_alike<S: Strategy<Value = Value>>(store: &Datastore, kind: &Kind, strategy: S) {
    let engine = store.engine();
    let from = engine.list(kind, &Filter::default()).await.unwrap().revision;
    let mut runner = TestRunner::deterministic();
    for n in 0..40 {
        let mut object = strategy.new_tree(&mut runner).unwrap().current();
        object["metadata"]["name"] = json!(format!("o{n:02}"));
        (object["apiVersion"], object["kind"]) = (json!(kind.api_version()), json!(kind.kind));
        let made = engine.create(kind, object.clone()).await.unwrap();
        if object["status"].is_object() {
            object["metadata"] = made["metadata"].clone();
            engine.update_status(kind, object).await.unwrap();
        }
    }
    let wanted = |whole: &Value| cut(whole, &read_of(&kind.kind));
    let whole = engine.list(kind, &Filter::default()).await.unwrap();
    let whole: Vec<Value> = whole.items.iter().map(wanted).collect();
    let trimmed = engine.list_trimmed(kind, &Filter::default()).await.unwrap();
    assert!(trimmed.items.len() >= 40);
    assert_eq!(trimmed.items, whole);

    let mut events = Vec::new();
    for watch in [
        engine.watch(kind, &Filter::default(), from).await.unwrap(),
        engine.watch_trimmed(kind, &Filter::default(), from).await.unwrap(),
    ] {
        let last = trimmed.items.iter().map(|item| item["metadata"]["resourceVersion"].as_str().unwrap());
        let last: u64 = last.map(|text| text.parse().unwrap()).max().unwrap();
        let mut watch = watch
            .filter_map(|event| async move {
                match event.unwrap() {
                    RawEvent::Applied(object, at) => Some((object, at.0)),
                    RawEvent::Deleted(object, _) => panic!("nothing was deleted: {object}"),
                    RawEvent::Bookmark(_) => None,
                }
            })
            .boxed();
        let mut told = Vec::new();
        while told.last().is_none_or(|(_, at)| *at < last) {
            told.push(next(&mut watch).await);
        }
        events.push(told);
    }
    let whole: Vec<_> = events[0].iter().map(|(object, at)| (wanted(object), *at)).collect();
    assert_eq!(events[1], whole);
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server"]
async fn what_followers_read_is_what_whole_documents_say() {
    let api = Api::start();
    let store = api.store().await;
    reads_alike(&store, &Namespace::kind(), namespace()).await;
    reads_alike(&store, &Node::kind(), node()).await;
    reads_alike(&store, &Pod::kind(), pod()).await;
    reads_alike(&store, &EndpointSlice::kind(), slice()).await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server"]
async fn a_real_server_gives_followers_protobuf() {
    let api = Api::start();
    let store = api.store().await;
    store.create(&crate::suite::node("n1")).await.unwrap();
    // As its own figures say, which it adds to once an answer has gone.
    let mut sent = api.sent("LIST", "nodes");
    let mut sizes = Vec::new();
    for trimmed in [false, true] {
        let (engine, kind, all) = (store.engine(), Node::kind(), Filter::default());
        let page = if trimmed { engine.list_trimmed(&kind, &all) } else { engine.list(&kind, &all) };
        assert_eq!(page.await.unwrap().items.len(), 1);
        let before = sent;
        let deadline = Instant::now() + Duration::from_secs(20);
        while sent == before {
            assert!(Instant::now() < deadline, "the server does not count its answers");
            sent = api.sent("LIST", "nodes");
        }
        sizes.push(sent - before);
    }
    assert!(sizes[1] < sizes[0], "{sizes:?} bytes, whole and trimmed");
}
