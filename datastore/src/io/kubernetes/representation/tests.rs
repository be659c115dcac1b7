//! Against what an API server (1.36) gave: `golden/NAME.pb` and `golden/NAME.json` are its answers to the same request.

use super::super::protobuf::Frames;
use super::*;
use serde_json::json;
use twill_crds::{Namespace, Node, Object, Pod};

macro_rules! golden {
    ($name:literal) => {
        (
            include_bytes!(concat!("golden/", $name, ".pb")).as_slice(),
            include_bytes!(concat!("golden/", $name, ".json")).as_slice(),
        )
    };
}

fn documents<K: Object>(extent: Extent) -> Documents {
    let part = trimmed::of(&K::kind()).filter(|_| extent == Extent::Trimmed);
    Documents { kind: K::kind(), part, protobuf: true }
}

/// A page's objects, as each representation gives them.
fn both<K: Object>((protobuf, json): (&[u8], &[u8])) -> (Vec<Value>, Vec<Value>) {
    let documents = documents::<K>(Extent::Trimmed);
    let of_protobuf = protobuf::page(protobuf.to_vec(), |message| documents.of_protobuf(message)).unwrap();
    let of_json: Part<Value> = serde_json::from_slice(json).unwrap();
    assert_eq!(of_protobuf.metadata.resource_version, of_json.metadata.resource_version);
    assert_eq!(of_protobuf.metadata.next, of_json.metadata.next);
    let of_json = of_json.items.unwrap().into_iter().map(|object| documents.of_json(object)).collect();
    (of_protobuf.items.unwrap(), of_json)
}

#[test]
fn what_followers_read_of_an_object_is_the_same_from_protobuf_and_from_json() {
    let (pods, from_json) = both::<Pod>(golden!("pods"));
    let meta = |name: &str, uid: &str, revision: &str, labels: Value| json!({"name": name, "uid": uid, "resourceVersion": revision, "creationTimestamp": "2026-11-26T02:25:05Z", "labels": labels});
    let mut cart = meta("cart", "0fadf09c-d68d-4bc0-ab05-6095a1c417ca", "382", json!({"app": "cart", "tier": "front"}));
    (cart["namespace"], cart["generation"]) = (json!("default"), json!(1));
    let wanted = json!({"apiVersion": "v1", "kind": "Pod", "metadata": cart, "spec": {
        "nodeName": "n1",
        "containers": [{"ports": [{"name": "web", "containerPort": 8080, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}]}],
        "initContainers": [
            {"ports": [{"name": "early", "containerPort": 7000, "protocol": "TCP"}]},
            {"ports": [{"name": "metrics", "containerPort": 9100, "protocol": "TCP"}], "restartPolicy": "Always"}]
    }, "status": {"phase": "Running", "podIP": "10.42.0.5", "podIPs": [{"ip": "10.42.0.5"}, {"ip": "fd00::5"}]}});
    assert_eq!((&pods[..], &from_json[..]), (&[wanted.clone()][..], &[wanted][..]));

    let (nodes, from_json) = both::<Node>(golden!("nodes"));
    assert_eq!(nodes, from_json);
    assert_eq!(nodes[0]["metadata"]["labels"], json!({"rack": "r1", "twill.network/asn": "64512"}));
    let addresses = json!([{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": "n1"}]);
    let ready = json!({"type": "Ready", "status": "False", "message": "node is shutting down"});
    assert_eq!(nodes[0]["status"], json!({"addresses": addresses, "conditions": [ready]}));

    let (namespaces, from_json) = both::<Namespace>(golden!("namespaces"));
    assert_eq!(namespaces, from_json);
    assert_eq!(namespaces[0]["metadata"]["labels"]["kubernetes.io/metadata.name"], "default");
}

#[test]
fn the_types_read_what_is_left() {
    let (pods, _) = both::<Pod>(golden!("pods"));
    let pod: Pod = serde_json::from_value(pods[0].clone()).unwrap();
    let (spec, status) = (pod.spec.unwrap(), pod.status.unwrap());
    assert_eq!((spec.node_name.as_deref(), spec.containers.len()), (Some("n1"), 1));
    assert_eq!(spec.init_containers.unwrap()[1].ports.as_ref().unwrap()[0].container_port, 9100);
    assert_eq!(status.pod_ips.unwrap()[1].ip, "fd00::5");
    assert_eq!(pod.metadata.creation_timestamp.unwrap().0.to_string(), "2026-11-26T02:25:05Z");
}

#[test]
fn metadata_alone_has_names_and_revisions() {
    let page = protobuf::page(include_bytes!("golden/metadata.pb").to_vec(), |message| {
        Metadata { protobuf: true }.of_protobuf(message)
    });
    let item = page.unwrap().items.unwrap().pop().unwrap().metadata;
    let told = (&*item.namespace, &*item.name, &*item.resource_version, &*item.uid);
    assert_eq!(told, ("default", "cart", "382", "0fadf09c-d68d-4bc0-ab05-6095a1c417ca"));
}

#[test]
fn the_frames_of_a_watch_tell_what_its_lines_tell_wherever_they_were_cut() {
    let (protobuf, json) = golden!("watch");
    let documents = documents::<Namespace>(Extent::Trimmed);
    let lines: Vec<(String, Value)> = serde_json::Deserializer::from_slice(json)
        .into_iter::<Value>()
        .map(|line| {
            let line = line.unwrap();
            (line["type"].as_str().unwrap().to_owned(), documents.of_json(line["object"].clone()))
        })
        .collect();
    assert_eq!(lines.len(), 6);
    for size in [1, 3, 4, 5, 700, protobuf.len()] {
        let mut frames = Frames::default();
        let taken = protobuf.chunks(size).flat_map(|chunk| frames.take(chunk).unwrap());
        let told = taken.map(|frame| {
            let (step, message) = protobuf::event(frame).unwrap();
            (step, documents.of_protobuf(&message).unwrap())
        });
        assert_eq!(told.collect::<Vec<_>>(), lines, "in pieces of {size}");
    }
}

#[test]
fn a_refusal_says_the_same_in_protobuf() {
    let refusal = Status::read(400, include_bytes!("golden/refusal.pb"));
    assert_eq!((refusal.code, &*refusal.reason), (400, "BadRequest"));
    assert_eq!(refusal.refused_field(), Some("spec.foo"));
}

/// A message of Kubernetes with this inside, by hand: the field of the raw bytes is the second.
fn wrapped(raw: &[u8]) -> Vec<u8> {
    [b"k8s\0\x12".as_slice(), &[u8::try_from(raw.len()).unwrap()], raw].concat()
}

#[test]
fn what_is_no_message_is_said_and_not_taken_for_an_empty_one() {
    let documents = documents::<Pod>(Extent::Trimmed);
    let page = |bytes: Vec<u8>| protobuf::page(bytes, |message| documents.of_protobuf(message)).map(|part| part.items);
    // An item with metadata of one name.
    let item = [0x12, 6, 0x0a, 4, 0x0a, 2, b'p', b'1'];
    let items = page(wrapped(&item)).unwrap().unwrap();
    assert_eq!(items, [json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p1"}})]);
    assert!(page(br#"{"items":[]}"#.to_vec()).unwrap_err().contains("does not begin"));
    assert!(page(wrapped(&item[..6])).is_err(), "cut off");
    // Go writes whatever bytes a string has; JSON says what they are meant to be.
    assert!(page(wrapped(&[0x12, 5, 0x0a, 3, 0x0a, 1, 0xff])).unwrap_err().contains("UTF-8"));
    // A time that no calendar has.
    let late = [&[0x12, 14, 0x0a, 12, 0x42, 10, 0x08][..], &[0xff; 8][..], &[0x7f][..]].concat();
    assert!(page(wrapped(&late)).is_err());
    assert!(Frames::default().take(&[0xff; 8]).unwrap_err().contains("bytes long"));
}

#[test]
fn whole_documents_are_asked_for_as_json_and_parts_of_kinds_that_are_known() {
    assert_eq!(documents::<Pod>(Extent::Whole).accept(), "application/json");
    assert_eq!(documents::<Pod>(Extent::Trimmed).accept(), EITHER);
    assert_eq!(documents::<twill_crds::IPBlock>(Extent::Trimmed).accept(), "application/json");
    assert_eq!(documents::<twill_crds::NetworkPolicy>(Extent::Trimmed).accept(), "application/json");
    assert_eq!(Documents { protobuf: false, ..documents::<Pod>(Extent::Trimmed) }.accept(), "application/json");
    let whole = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"hostPID": true}});
    assert_eq!(documents::<Pod>(Extent::Whole).of_json(whole.clone()), whole);
}
