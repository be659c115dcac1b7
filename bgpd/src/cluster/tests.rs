//! Objects in, configurations and status out.

use super::{Claimant, Heard, Objects, Observed, Snapshot, desired, report};
use crate::fib;
use crate::speaker::{Bfd, Export, Import, PeerAsn, Shutdown};
use crate::wire::{Families, Family};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::net::IpAddr;
use twill_crds::control::BfdHops;
use twill_crds::node_network::BgpState;
use twill_crds::{Object, Protocol};
use twill_datastore::{Followed, Revision};

mod addresses;
mod filters;
mod peers;
mod remotes;
mod reports;
mod scale;
mod services;
mod shutdowns;
mod snapshots;
mod topology;

fn object<K: Object>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn node(name: &str, addresses: &[&str], second: u32) -> Heard {
    let addresses: Vec<Value> = addresses.iter().map(|a| json!({"type": "InternalIP", "address": a})).collect();
    Heard::Node(Box::new(applied(object(json!({
        "metadata": {"name": name, "labels": {"rack": &name[..1]}, "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")},
        "status": {"addresses": addresses, "images": [{"names": ["large"]}]},
    })))))
}

fn block(cidr: &str, node: &str, second: u32) -> Heard {
    Heard::Block(applied(object(json!({
        "metadata": {"name": cidr.replace(['.', ':', '/'], "-"), "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")},
        "spec": {"cidr": cidr, "node": node},
    }))))
}

fn pool(name: &str, cidr: &str, protocol: &str, second: u32) -> Heard {
    Heard::Pool(applied(object(json!({
        "metadata": {"name": name, "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")},
        "spec": {"cidr": cidr, "encapsulation": {"protocol": protocol}},
    }))))
}

fn configuration(spec: Value) -> Heard {
    Heard::Configuration(applied(object(json!({"metadata": {"name": "default"}, "spec": spec}))))
}

fn peer(name: &str, spec: Value) -> Heard {
    Heard::Peer(applied(object(json!({"metadata": {"name": name}, "spec": spec}))))
}

fn filter(name: &str, spec: Value) -> Heard {
    Heard::Filter(applied(object(json!({"metadata": {"name": name}, "spec": spec}))))
}

fn applied<K: Object>(object: K) -> Followed<K> {
    Followed::Applied(object, Revision(1))
}

/// Three nodes in a mesh, one pool, and three blocks of which two are those of a1.
fn cluster() -> Objects {
    objects([
        node("a1", &["172.31.1.11"], 1),
        node("a2", &["172.31.1.12"], 2),
        node("b1", &["172.31.2.11", "fd31:2::11"], 3),
        pool("default", "10.42.0.0/16", "VXLAN", 1),
        block("10.42.1.0/26", "a1", 9),
        block("10.42.7.0/26", "a1", 5),
        block("10.42.2.0/26", "a2", 1),
    ])
}

fn objects(all: impl IntoIterator<Item = Heard>) -> Objects {
    let mut objects = Objects::of("a1", "twill-system");
    for heard in all {
        objects.apply(heard);
    }
    objects
}

fn with(mut objects: Objects, more: impl IntoIterator<Item = Heard>) -> Objects {
    for heard in more {
        objects.apply(heard);
    }
    objects
}

/// What a restart of this node starts from.
fn snapshot_of(objects: &Objects) -> Snapshot {
    objects.snapshot(&desired("a1", objects))
}

#[test]
fn a_mesh_is_every_other_node_and_a_node_tells_its_own_blocks_only() {
    let desired = desired("a1", &cluster());
    let names: Vec<&str> = desired.speaker.peers.keys().map(String::as_str).collect();
    assert_eq!(names, ["a2", "b1"]);
    let peer = &desired.speaker.peers["b1"];
    assert_eq!((peer.address.to_string().as_str(), peer.port, peer.hold_time), ("172.31.2.11", 179, 90));
    assert_eq!((peer.asn, peer.export), (PeerAsn::Number(64512), Export::Own));
    assert_eq!(peer.source, Some([172, 31, 1, 11].into()));
    assert_eq!(peer.families, Families::only(Family::Ipv4Unicast), "no IPv6 without an address to be its next hop");
    let blocks: Vec<String> = desired.speaker.originate.iter().map(ToString::to_string).collect();
    assert_eq!(blocks, ["10.42.1.0/26", "10.42.7.0/26"]);
    assert_eq!(desired.fib.own, desired.speaker.originate);
    assert_eq!(desired.speaker.router_id.to_string(), "172.31.1.11");
    assert_eq!(desired.speaker.listen, ["0.0.0.0:179".parse().unwrap()]);
    assert!(desired.problems.is_empty() && desired.node_problems.is_empty());
}

#[test]
fn a_block_that_another_machine_claimed_under_the_name_is_not_told() {
    let claimed = |cidr: &str, claimant: &str| {
        Heard::Block(applied(object(json!({
            "metadata": {"name": cidr.replace(['.', '/'], "-"), "creationTimestamp": "2026-01-01T00:00:01Z"},
            "spec": {"cidr": cidr, "node": "a1", "claimant": claimant},
        }))))
    };
    let mut objects = with(cluster(), [claimed("10.42.20.0/26", "one"), claimed("10.42.21.0/26", "other")]);
    let mut told = |claimant: Claimant| {
        objects.claimed_by(claimant);
        let wanted = desired("a1", &objects);
        assert_eq!(wanted.fib.own, wanted.speaker.originate);
        wanted.speaker.originate.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let by_hand = ["10.42.1.0/26", "10.42.7.0/26"];
    assert_eq!(told(Claimant::Known("one".to_owned())), [&by_hand[..], &["10.42.20.0/26"]].concat());
    assert_eq!(told(Claimant::Awaited), by_hand);
    assert_eq!(told(Claimant::Unknown), [&by_hand[..], &["10.42.20.0/26", "10.42.21.0/26"]].concat());
}

#[test]
fn the_as_comes_from_a_label_and_nodes_of_another_one_are_external_and_far() {
    let labelled = |name: &str, address: &str, asn: Option<&str>| {
        let mut value = json!({
            "metadata": {"name": name, "labels": {}, "creationTimestamp": "2026-01-01T00:00:01Z"},
            "status": {"addresses": [{"type": "InternalIP", "address": address}]},
        });
        value["metadata"]["labels"]["asn"] = json!(asn);
        value["metadata"]["labels"].as_object_mut().unwrap().retain(|_, value| !value.is_null());
        Heard::Node(Box::new(applied(object(value))))
    };
    let nodes = || {
        with(
            Objects::of("a1", "twill-system"),
            [
                labelled("a1", "172.31.1.11", Some("65201")),
                labelled("a2", "172.31.1.12", Some("65201")),
                labelled("b1", "172.31.2.11", Some("65202")),
                labelled("b2", "172.31.2.12", Some("none")),
                configuration(json!({"asn": {"nodeLabel": "asn"}})),
                peer("in", json!({"remote": {"address": "172.31.1.9"}, "asn": "internal"})),
            ],
        )
    };
    let wanted = desired("a1", &nodes());
    let seen = wanted.speaker.peers.iter().map(|(name, peer)| (name.as_str(), peer.asn, peer.ttl));
    let expected = [
        ("a2", PeerAsn::Number(65201), None),
        ("b1", PeerAsn::Number(65202), Some(64)),
        ("in", PeerAsn::Number(65201), None),
    ];
    assert_eq!(seen.collect::<Vec<_>>(), expected);
    assert_eq!(wanted.speaker.asn, 65201);
    assert!(wanted.problems[0].starts_with("Node b2: metadata.labels: asn is \"none\""), "{:?}", wanted.problems);
    let without = desired("b2", &nodes());
    assert!(without.speaker.peers.is_empty(), "nobody knows what it would have to say");
    assert!(without.node_problems[0].starts_with("Node b2: metadata.labels"), "{:?}", without.node_problems);
    assert!(!without.fib.nodes.is_empty(), "its kernel is told of the others all the same");
}

#[test]
fn the_tunnel_address_is_ordinal_0_of_the_oldest_block() {
    let desired = desired("a1", &cluster());
    assert_eq!(desired.fib.tunnel_sources, ["10.42.7.0".parse::<IpAddr>().unwrap()]);
    assert_eq!(desired.fib.pools[0].encapsulation.protocol, Protocol::VXLAN);
    assert_eq!(desired.fib.nodes.iter().map(|n| n.name.as_str()).collect::<Vec<_>>(), ["a2", "b1"]);
}

#[test]
fn ipv6_is_offered_over_the_same_session_once_the_node_has_an_address() {
    let six = || [node("a1", &["172.31.1.11", "fe80::1", "fd31:1::11"], 1), block("fd42::/122", "a1", 1)];
    let without = desired("a1", &with(cluster(), [block("fd42::/122", "a1", 1)]));
    assert!(without.problems[0].contains("a1") && without.problems[0].contains("IPv6"), "{:?}", without.problems);
    let desired = desired("a1", &with(cluster(), six()));
    let peer = &desired.speaker.peers["b1"];
    assert_eq!(peer.families, Families::ALL);
    assert_eq!(peer.next_hop_v6, Some("fd31:1::11".parse().unwrap()), "and never a link-local one");
    assert_eq!(peer.address.to_string(), "172.31.2.11");
    assert_eq!(desired.fib.tunnel_sources.len(), 2);
    assert!(desired.problems.is_empty());
}

#[test]
fn nodes_without_ipv4_tell_blocks_of_ipv4_pools_by_their_ipv6_addresses() {
    let six = |pool| {
        let nodes = [node("a1", &["fd31:1::11"], 1), node("a2", &["fd31:1::12"], 2), pool];
        desired("a1", &objects(nodes)).speaker
    };
    let families = |speaker: &crate::speaker::Config| speaker.peers["a2"].families;
    let only_v6 = six(pool("six", "fd42::/48", "VXLAN", 1));
    assert_eq!(families(&only_v6), Families::only(Family::Ipv6Unicast));
    let both = six(pool("four", "10.42.0.0/16", "VXLAN", 1));
    assert_eq!(families(&both), Families::ALL);
    assert!(both.peers["a2"].extended_next_hop && both.peers["a2"].next_hop_v4.is_none());
    assert!((1..127).contains(&both.router_id.octets()[0]));
}

#[test]
fn of_two_nodes_with_one_address_the_older_keeps_it_and_the_other_is_named() {
    let double = || with(cluster(), [node("c1", &["172.31.1.12"], 9)]);
    let seen = desired("a1", &double());
    assert_eq!(seen.speaker.peers.keys().collect::<Vec<_>>(), ["a2", "b1"]);
    assert_eq!(seen.problems.len(), 1);
    assert!(
        ["Node c1", "172.31.1.12", "Node a2"].iter().all(|part| seen.problems[0].contains(part)),
        "{:?}",
        seen.problems
    );
    let itself = desired("c1", &double());
    assert!(itself.speaker.peers.is_empty() && itself.speaker.listen.is_empty());
    assert!(itself.node_problems[0].contains("Node a2"), "{:?}", itself.node_problems);
    assert!(desired("a2", &double()).node_problems.is_empty());
}

#[test]
fn a_node_without_object_or_address_says_so_and_keeps_its_blocks_in_the_kernel() {
    let none = desired("zz", &with(cluster(), [block("10.42.9.0/26", "zz", 1)]));
    assert!(none.node_problems[0].contains("Node zz does not exist") && !none.node_exists);
    assert_eq!((none.speaker.peers.len(), none.fib.own.len()), (0, 1));
    let bare = desired("zz", &with(cluster(), [node("zz", &[], 9)]));
    assert!(bare.node_problems[0].contains("no InternalIP") && bare.node_exists);
    let own = desired("zz", &with(cluster(), [node("zz", &["169.254.20.10", "172.31.1.19"], 9)]));
    assert_eq!(own.fib.local.v4, Some([172, 31, 1, 19].into()), "of no other machine's link");
    let other = desired("a1", &with(cluster(), [node("zz", &["127.0.0.1"], 9)]));
    assert!(other.problems[0].contains("Node zz"), "{:?}", other.problems);
    assert_eq!(other.speaker.peers.len(), 2);
}

#[test]
fn overlapping_pools_leave_the_older_in_force() {
    let desired = desired("a1", &with(cluster(), [pool("late", "10.42.128.0/17", "IPIP", 8)]));
    assert_eq!(desired.fib.pools.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["default"]);
    assert!(desired.problems[0].starts_with("IPPool late: "), "{:?}", desired.problems);
}
