//! Objects in, configurations and status out.

mod remotes;

use super::{Claimant, Heard, Objects, Observed, desired, report};
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

mod scale;
mod services;
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
fn filters_are_read_in_order_and_one_that_is_missing_closes_the_peer() {
    let tor = || peer("tor", json!({"asn": 65101, "remote": {"address": "172.31.1.1"}, "filters": ["one", "two"]}));
    let one =
        || filter("one", json!({"import": [{"match": {"prefixes": [{"cidr": "0.0.0.0/0"}]}, "action": "Reject"}]}));
    let half = desired("a1", &with(cluster(), [tor(), one()]));
    let closed = &half.speaker.peers["tor"];
    assert_eq!((&closed.import, closed.export), (&Import::None, Export::None));
    let said = "BGPPeer tor: filters[1]: there is no BGPFilter two; create it, or leave it out; no route is taken or told until then";
    assert_eq!(half.problems, [said]);

    let two =
        filter("two", json!({"import": [{"action": "Accept"}], "export": [{"set": {"addCommunities": ["65000:1"]}}]}));
    let whole = desired("a1", &with(cluster(), [tor(), one(), two]));
    let open = &whole.speaker.peers["tor"];
    assert_eq!((&open.import, open.export), (&Import::All, Export::Own));
    assert_eq!(open.import_filter.name(0), "BGPFilter one: spec.import[0]");
    assert_eq!(open.import_filter.name(1), "BGPFilter two: spec.import[0]");
    assert_eq!(open.export_filter.name(0), "BGPFilter two: spec.export[0]");
    assert!(whole.problems.is_empty() && whole.speaker.peers["a2"].import_filter.is_empty());

    // An API server of an older definition took it.
    let odd = filter("two", json!({"export": [{"set": {"addCommunities": ["rt:70000:65536"]}}]}));
    let odd = desired("a1", &with(cluster(), [tor(), one(), odd]));
    assert_eq!(odd.speaker.peers["tor"].import, Import::None);
    assert!(odd.problems[0].contains("BGPFilter two: spec.export[0].set.addCommunities[0]"), "{:?}", odd.problems);
}

#[test]
fn filters_that_go_or_make_no_sense_leave_the_former_ones_in_force_over_a_restart_too() {
    let tor =
        |filters: &[&str]| peer("tor", json!({"asn": 65101, "remote": {"address": "172.31.1.1"}, "filters": filters}));
    let reject = |name: &str| filter(name, json!({"import": [{"action": "Reject"}]}));
    let mut objects = with(cluster(), [tor(&["one"]), reject("one")]);
    let is_closed = |objects: &Objects| desired("a1", objects).speaker.peers["tor"].import == Import::None;
    let rules = |objects: &Objects| {
        let wanted = desired("a1", objects);
        (wanted.speaker.peers["tor"].import_filter.name(0).to_owned(), wanted.problems)
    };
    let one = "BGPFilter one: spec.import[0]".to_owned();
    assert_eq!(rules(&objects), (one.clone(), vec![]));

    // The peer is heard before its new filter.
    objects = with(objects, [tor(&["two", "one"])]);
    let waits = "BGPPeer tor: filters[0]: there is no BGPFilter two; create it, or leave it out; until then its former filters stay in force";
    assert_eq!(rules(&objects), (one, vec![waits.to_owned()]));
    objects = with(objects, [reject("two")]);
    let two = "BGPFilter two: spec.import[0]".to_owned();
    assert_eq!(rules(&objects), (two.clone(), vec![]));

    // One goes, and the speaker starts again.
    let gone = |heard| match heard {
        Heard::Filter(Followed::Applied(filter, _)) => Heard::Filter(Followed::Deleted(filter, Revision(9))),
        Heard::Peer(Followed::Applied(peer, _)) => Heard::Peer(Followed::Deleted(peer, Revision(9))),
        other => other,
    };
    objects = with(objects, [gone(reject("two"))]);
    assert_eq!(rules(&objects).0, two);
    let again = Objects::remembered("a1", "twill-system", objects.snapshot());
    assert_eq!(rules(&again).0, two);
    // The peer goes: a new one of its name has no past.
    objects = with(objects, [gone(tor(&[])), tor(&["two"])]);
    assert!(is_closed(&objects));

    // A release that kept no rules: those of its filters hold before the datastore has said anything.
    let known = with(cluster(), [tor(&["two"]), reject("two")]);
    let mut older = serde_json::to_value(known.snapshot()).unwrap();
    older.as_object_mut().unwrap().remove("rules");
    objects = Objects::remembered("a1", "twill-system", serde_json::from_value(older).unwrap());
    assert_eq!(rules(&objects), (two, vec![]));
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

#[test]
fn peers_are_those_that_select_the_node() {
    let tor = |name: &str, rack: &str, address: &str| {
        let selector = json!({"matchLabels": {"rack": rack}});
        peer(name, json!({"nodeSelector": selector, "remote": {"address": address}, "asn": 65101, "holdTime": 9}))
    };
    let fabric = configuration(json!({"topology": "Fabric", "asn": 65000, "vxlanPort": 8472,
        "bmp": [{"address": "10.0.0.9", "port": 11019}]}));
    let objects = with(cluster(), [fabric, tor("tor-a", "a", "172.31.1.1"), tor("tor-b", "b", "172.31.2.1")]);
    let seen = desired("a1", &objects);
    assert_eq!(seen.speaker.peers.keys().collect::<Vec<_>>(), ["tor-a"], "no mesh in a fabric");
    let found = &seen.speaker.peers["tor-a"];
    assert_eq!((found.asn, found.hold_time, found.allow_own_as), (PeerAsn::Number(65101), 9, 1));
    assert_eq!((seen.speaker.asn, seen.fib.vxlan_port), (65000, 8472));
    assert_eq!(seen.speaker.bmp, ["10.0.0.9:11019".parse().unwrap()].into());
    assert!(seen.fib.peers.contains(&"172.31.1.1".parse().unwrap()));
    let twice = desired(
        "a1",
        &with(objects, [tor("tor-c", "a", "172.31.1.1"), peer("none", json!({"remote": {}, "asn": "external"}))]),
    );
    assert_eq!(twice.speaker.peers.keys().collect::<Vec<_>>(), ["tor-a"]);
    assert!(
        twice.problems.iter().any(|p| p.contains("BGPPeer tor-c") && p.contains("BGPPeer tor-a")),
        "{:?}",
        twice.problems
    );
    assert!(twice.problems.iter().any(|p| p.contains("BGPPeer none: remote.address")), "{:?}", twice.problems);
}

#[test]
fn bfd_of_a_peer_is_over_one_hop_to_another_as_and_as_it_proves_to_be_inside_ours() {
    let with_bfd = |name: &str, address: &str, asn: Value, bfd: Value| {
        peer(name, json!({"remote": {"address": address}, "asn": asn, "bfd": bfd}))
    };
    let objects = with(
        cluster(),
        [
            with_bfd("tor", "172.31.1.1", json!(65101), json!({"minTx": 100, "multiplier": 5})),
            with_bfd("far", "172.31.9.1", json!("external"), json!({"multihop": "Always"})),
            with_bfd("inside", "172.31.1.2", json!("internal"), json!({})),
            peer("plain", json!({"remote": {"address": "172.31.1.3"}, "asn": "internal"})),
        ],
    );
    let peers = desired("a1", &objects).speaker.peers;
    let tor = Bfd { min_tx: 100, min_rx: 300, multiplier: 5, hops: BfdHops::Single };
    assert_eq!(peers["tor"].bfd, Some(tor));
    assert_eq!(peers["far"].bfd.map(|bfd| bfd.hops), Some(BfdHops::Multiple));
    assert_eq!(peers["inside"].bfd.map(|bfd| bfd.hops), Some(BfdHops::Auto));
    assert_eq!((peers["plain"].bfd, peers["b1"].bfd), (None, None));
}

#[test]
fn what_a_person_says_of_a_node_goes_before_the_mesh() {
    let spec = json!({"remote": {"address": "172.31.1.12", "port": 1790}, "asn": "internal", "holdTime": 30});
    let objects = with(cluster(), [peer("special", spec), configuration(json!({"listenPort": 1179, "holdTime": 12}))]);
    let seen = desired("a1", &objects);
    assert_eq!(seen.speaker.peers.keys().collect::<Vec<_>>(), ["b1", "special"]);
    let special = &seen.speaker.peers["special"];
    assert_eq!((special.port, special.hold_time, special.asn), (1790, 30, PeerAsn::Number(64512)));
    assert_eq!((seen.speaker.peers["b1"].port, seen.speaker.peers["b1"].hold_time), (1179, 12));
    // The remote itself is selected too, and does not speak with itself.
    assert_eq!(desired("a2", &objects).speaker.peers.keys().collect::<Vec<_>>(), ["a1", "b1"]);
}

#[test]
fn sync_is_all_kinds_and_the_revision_is_that_of_the_slowest() {
    fn synced<K>(revision: u64) -> Followed<K> {
        Followed::Synced { items: Vec::new(), revision: Revision(revision) }
    }
    let mut objects = Objects::of("a1", "twill-system");
    objects.apply(Heard::Node(Box::new(synced(7))));
    let others = [Heard::Pool(synced(7)), Heard::Block(synced(7)), Heard::Peer(synced(7)), Heard::Filter(synced(7))];
    for heard in others.into_iter().chain([Heard::Network(synced(7)), Heard::Secret(Box::new(synced(7)))]) {
        objects.apply(heard);
    }
    assert!(!objects.in_sync());
    assert!(objects.apply(Heard::Configuration(synced(5))), "the first word of a kind is news even if it says nothing");
    assert!(objects.in_sync() && objects.revision() == Revision(5));
    assert!(!objects.apply(Heard::Configuration(Followed::Bookmark(Revision(9)))));
    assert_eq!(objects.revision(), Revision(7));
}

#[test]
fn a_snapshot_means_the_same_after_a_restart_and_holds_no_more_than_is_read() {
    let objects = cluster();
    let text = serde_json::to_string(&objects.snapshot()).unwrap();
    assert!(!text.contains("large"), "{text}");
    let back = Objects::remembered("a1", "twill-system", serde_json::from_str(&text).unwrap());
    assert_eq!(desired("a1", &back), desired("a1", &objects));
    assert!(!back.in_sync());
}

fn network(drain: bool) -> Heard {
    Heard::Network(applied(object(json!({"metadata": {"name": "a1"}, "spec": {"drain": drain}}))))
}

#[test]
fn a_drained_node_speaks_with_nobody_also_after_a_restart_and_says_when_all_sessions_are_closed() {
    let mut objects = cluster();
    assert!(objects.apply(network(true)) && !objects.apply(network(true)), "its own status is no news");
    let drained = desired("a1", &objects);
    assert!(drained.speaker.peers.is_empty() && drained.speaker.listen.is_empty());
    assert_eq!(drained.speaker.shutdown, Some(Shutdown::Drained));
    let kept = serde_json::to_string(&objects.snapshot()).unwrap();
    assert_eq!(
        desired("a1", &Objects::remembered("a1", "twill-system", serde_json::from_str(&kept).unwrap())),
        drained
    );

    let now = Timestamp::from_second(1).unwrap();
    let said = |peers: u32| {
        let conditions =
            report(&drained, &Observed { peers, ..Observed::default() }, &BgpState::default(), now).conditions;
        conditions.into_iter().find(|c| c.type_ == "Drained").map(|c| (c.status, c.message)).unwrap()
    };
    assert_eq!(said(2), ("False".to_owned(), "2 sessions are still being closed".to_owned()));
    assert_eq!(said(1), ("False".to_owned(), "1 session is still being closed".to_owned()));
    assert_eq!(said(0), ("True".to_owned(), String::new()));
    let untold = Observed { untold: vec!["tor".to_owned()], ..Observed::default() };
    let conditions = report(&drained, &untold, &BgpState::default(), now).conditions;
    assert!(conditions.iter().any(|c| c.type_ == "Drained" && c.status == "False" && c.message.starts_with("tor: ")));
    objects.apply(network(false));
    let back = desired("a1", &objects);
    assert_eq!(back, desired("a1", &cluster()));
    // What was observed is still of the drained node, which had no sessions.
    let conditions = report(&back, &Observed::default(), &BgpState::default(), now).conditions;
    let sessions = conditions.iter().find(|c| c.type_ == "SessionsEstablished").unwrap();
    assert_eq!(sessions.message, format!("{0} of {0} sessions are not established", back.speaker.peers.len()));
    assert!(!conditions.iter().any(|c| c.type_ == "Drained"));
}

#[test]
fn a_snapshot_of_another_release_is_read() {
    let mut value = serde_json::to_value(cluster().snapshot()).unwrap();
    value.as_object_mut().unwrap().remove("network");
    value["later"] = json!([1]);
    let back = Objects::remembered("a1", "twill-system", serde_json::from_value(value).unwrap());
    assert_eq!(desired("a1", &back), desired("a1", &cluster()));
}

#[test]
fn the_kubelet_says_that_the_machine_goes_down() {
    let node = |message: &str| {
        Heard::Node(Box::new(applied(object(json!({
            "metadata": {"name": "a1", "creationTimestamp": "2026-01-01T00:00:01Z"},
            "status": {
                "addresses": [{"type": "InternalIP", "address": "172.31.1.11"}],
                "conditions": [{"type": "Ready", "status": "False", "message": message}],
            },
        })))))
    };
    assert!(!desired("a1", &with(cluster(), [node("container runtime is down")])).going_down);
    assert!(desired("a1", &with(cluster(), [node("[container runtime is down, node is shutting down]")])).going_down);
    assert!(!desired("a2", &with(cluster(), [node("node is shutting down")])).going_down, "another one does");
}

#[test]
fn a_report_changes_only_with_what_it_says() {
    let desired = desired("a1", &cluster());
    let at = |second: i64| Timestamp::from_second(second).unwrap();
    let observed = Observed { peers: 2, established: 2, ..Observed::default() };
    let first = report(&desired, &observed, &BgpState::default(), at(1));
    assert_eq!(report(&desired, &observed, &first, at(2)), first);
    assert_eq!(first.tunnel_addresses, ["10.42.7.0".parse::<IpAddr>().unwrap()]);
    assert!(first.conditions.iter().all(|condition| condition.status == "True"));
    let text = "IPPool default: no".to_owned();
    let fib =
        fib::Status { problems: vec![fib::Problem { condition: fib::Condition::Tunnel, text }], ..Default::default() };
    let bad = report(&desired, &Observed { established: 1, fib, ..observed }, &first, at(3));
    let changed: Vec<(&str, &str)> =
        bad.conditions.iter().filter(|c| c.status == "False").map(|c| (c.type_.as_str(), c.message.as_str())).collect();
    let wanted =
        [("TunnelHealthy", "IPPool default: no"), ("SessionsEstablished", "1 of 2 sessions is not established")];
    assert_eq!(changed, wanted);
    for (old, new) in first.conditions.iter().zip(&bad.conditions) {
        assert_eq!(old.last_transition_time == new.last_transition_time, old.status == new.status, "{}", new.type_);
    }
}

#[test]
fn a_condition_that_says_much_is_no_longer_than_the_api_server_takes() {
    let length = |count: usize| {
        let mut long = desired("a1", &cluster());
        long.problems = vec!["é".repeat(count)];
        let state = report(&long, &Observed::default(), &BgpState::default(), Timestamp::UNIX_EPOCH);
        let ready = state.conditions.into_iter().find(|condition| condition.type_ == "BGPReady").unwrap();
        (ready.message.chars().count(), ready.message.ends_with("..."))
    };
    assert_eq!([length(100), length(32_768), length(32_769)], [(100, false), (32_768, false), (32_768, true)]);
}

#[test]
fn a_report_names_the_peers_that_are_down_also_those_that_cannot_be() {
    let tor = |name: &str, address: &str| peer(name, json!({"remote": {"address": address}, "asn": "external"}));
    let far = peer(
        "far",
        json!({"remote": {"address": "172.31.9.1"}, "asn": 1, "nodeSelector": {"matchLabels": {"rack": "b"}}}),
    );
    // One is of a family that the node has no address of, one has the name of a node and its own address, one is the node itself.
    let more =
        [tor("six", "fd31::1"), tor("b1", "172.31.1.1"), tor("self", "172.31.1.11"), tor("up", "172.31.1.2"), far];
    let desired = desired("a1", &with(cluster(), more));
    assert_eq!(desired.speaker.peers["b1"].address, "172.31.1.1".parse::<IpAddr>().unwrap());
    let down = |up: &[&str]| {
        let up = up.iter().map(|name| (*name).to_owned()).collect();
        let observed = Observed { up, ..Observed::default() };
        report(&desired, &observed, &BgpState::default(), Timestamp::UNIX_EPOCH).peers_down.unwrap()
    };
    assert_eq!(down(&["up", "a2"]), ["b1", "six"]);
    assert_eq!(down(&["up", "b1", "b1/172.31.2.11"]), ["six"]);
}
