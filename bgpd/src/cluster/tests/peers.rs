//! What BGPPeers mean.

use super::*;

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
