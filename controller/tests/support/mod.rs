//! Objects as the datastore would tell them.
#![allow(dead_code)] // Not all of it is used by each file.

use jiff::Timestamp;
use serde_json::{Value, json};
use twill_controller::{Controller, Fact, Now};
use twill_crds::{BGPPeer, IPBlock, IPPool, NetworkPolicy, Node, NodeNetwork, Object, names};
use twill_datastore::{Followed, Revision};

pub fn now(at: u64) -> Now {
    let at_wall = i64::try_from(at).unwrap();
    Now { at, wall: Timestamp::from_millisecond(1_767_225_600_000 + at_wall).unwrap() }
}

pub fn object<K: Object>(mut value: Value) -> K {
    value["apiVersion"] = json!(K::kind().api_version());
    value["kind"] = json!(K::kind().kind);
    serde_json::from_value(value).unwrap()
}

pub fn node(name: &str, revision: u64) -> Node {
    object(
        json!({"metadata": {"name": name, "uid": format!("node-{revision}"), "resourceVersion": revision.to_string(),
        "labels": {"rack": format!("r{}", name.len())}}}),
    )
}

pub fn block(cidr: &str, node: &str, uid: &str, revision: u64, used: u32) -> IPBlock {
    let name = names::block_name(cidr.parse().unwrap());
    object(json!({
        "metadata": {"name": name, "uid": uid, "resourceVersion": revision.to_string()},
        "spec": {"cidr": cidr, "node": node, "claimant": node}, "status": {"used": used},
    }))
}

pub fn pool(name: &str, spec: Value) -> IPPool {
    object(json!({"metadata": {"name": name, "uid": name, "resourceVersion": "1", "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec}))
}

pub fn peer(name: &str, spec: Value) -> BGPPeer {
    object(json!({"metadata": {"name": name, "uid": name, "resourceVersion": "1", "generation": 1}, "spec": spec}))
}

pub fn policy(name: &str, spec: Value) -> NetworkPolicy {
    object(json!({"metadata": {"name": name, "namespace": "shop", "uid": name, "resourceVersion": "1"}, "spec": spec}))
}

/// An object of a kind that the whole cluster shares.
pub fn cluster_wide<K: Object>(name: &str, generation: u64, spec: Value) -> K {
    object(
        json!({"metadata": {"name": name, "uid": name, "resourceVersion": generation.to_string(), "generation": generation},
        "spec": spec}),
    )
}

pub fn network(name: &str, revision: u64, uninstall: bool) -> NodeNetwork {
    object(json!({"metadata": {"name": name, "uid": format!("net-{name}"), "resourceVersion": revision.to_string()},
        "spec": {"uninstall": uninstall}}))
}

/// What a node's daemons report: its address, peers that are down, whether policy is in force.
pub fn reported(name: &str, revision: u64, address: &str, down: &[&str], policy: bool) -> NodeNetwork {
    let condition = json!({"type": "PolicySynced", "status": if policy { "True" } else { "False" }, "reason": "R",
        "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    object(json!({
        "metadata": {"name": name, "uid": format!("net-{name}"), "resourceVersion": revision.to_string()}, "spec": {},
        "status": {"bgp": {"addresses": [address], "asn": 64512, "peersDown": down}, "felix": {"conditions": [condition]}},
    }))
}

pub fn applied<K: Object>(object: K) -> Followed<K> {
    Followed::Applied(object, Revision(1))
}

pub fn deleted<K: Object>(object: K) -> Followed<K> {
    Followed::Deleted(object, Revision(1))
}

fn none<K: Object>() -> Followed<K> {
    Followed::Synced { items: Vec::new(), revision: Revision(1) }
}

/// All kinds have been told, and there is nothing.
pub fn synced(controller: &mut Controller) {
    for fact in [
        Fact::node(none()),
        Fact::Network(none()),
        Fact::Block(none()),
        Fact::Pool(none()),
        Fact::Peer(none()),
        Fact::Filter(none()),
        Fact::Policy(none()),
        Fact::ClusterPolicy(none()),
        Fact::isolation(none()),
        Fact::Reservation(none()),
        Fact::Configuration(none()),
    ] {
        controller.hear(fact);
    }
}
