//! BGPPeers on interfaces, of many nodes, and with passwords.

use super::*;

fn secret(name: &str, data: Value) -> Heard {
    let object =
        object(json!({"metadata": {"name": name, "namespace": "twill-system"}, "type": "Opaque", "data": data}));
    Heard::Secret(Box::new(applied(object)))
}

fn labelled(name: &str, address: &str, labels: Value) -> Heard {
    Heard::Node(Box::new(applied(object(json!({
        "metadata": {"name": name, "labels": labels},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    })))))
}

/// A BGPPeer at 172.31.1.1 with this reference.
fn with_password(name: &str, key: &str) -> Heard {
    let source = json!({"secretKeyRef": {"name": name, "key": key}});
    peer("tor", json!({"remote": {"address": "172.31.1.1"}, "asn": "external", "password": source}))
}

#[test]
fn a_peer_on_an_interface_speaks_of_both_families_and_is_called_over_ipv6() {
    let fabric = configuration(json!({"topology": "Fabric", "listenPort": 1179}));
    let tor = |name: &str, interface: &str| {
        peer(name, json!({"remote": {"interface": interface}, "asn": "external", "ttlSecurity": 1, "bfd": {}}))
    };
    let seen =
        desired("a1", &with(cluster(), [fabric, tor("left", "eth0"), tor("right", "eth1"), tor("more", "eth1")]));
    assert!(seen.speaker.peers.is_empty());
    let unnumbered = &seen.speaker.templates.unnumbered;
    assert_eq!(unnumbered.keys().collect::<Vec<_>>(), ["left", "more"], "one per interface, the first by name");
    let left = &unnumbered["left"];
    assert_eq!((left.interface.as_str(), left.address), ("eth0", None));
    assert_eq!((left.peer.families, left.peer.extended_next_hop), (Families::ALL, true), "a node with IPv4 only");
    assert_eq!((left.peer.next_hop_v4, left.peer.next_hop_v6, left.peer.allow_own_as), (None, None, 1));
    assert_eq!(left.peer.export, Export::Own);
    assert!(
        seen.problems.iter().any(|problem| problem.contains("BGPPeer right: remote.interface: eth1")),
        "{:?}",
        seen.problems
    );
    assert!(seen.speaker.listen.contains(&"[::]:1179".parse().unwrap()), "{:?}", seen.speaker.listen);
    assert_eq!(seen.configured, ["left", "more", "right"].map(ToOwned::to_owned).into());
}

#[test]
fn nodes_that_a_label_selects_are_peers_of_both_ends() {
    let reflectors = || {
        let selected = json!({"matchLabels": {"reflector": "yes"}});
        peer(
            "reflectors",
            json!({"remote": {"nodeSelector": selected}, "nodeSelector": {"matchLabels": {"plain": "yes"}},
            "asn": "internal", "holdTime": 9}),
        )
    };
    let nodes = || {
        [
            configuration(json!({"topology": "Fabric"})),
            labelled("r1", "172.31.1.1", json!({"reflector": "yes"})),
            labelled("r2", "172.31.1.2", json!({"reflector": "yes"})),
            labelled("p1", "172.31.1.3", json!({"plain": "yes"})),
            labelled("p2", "172.31.1.4", json!({"plain": "yes"})),
            labelled("other", "172.31.1.5", json!({})),
        ]
    };
    let of = |name: &str, more: Vec<Heard>| {
        let mut objects = Objects::of(name, "twill-system");
        for heard in nodes().into_iter().chain([reflectors()]).chain(more) {
            objects.apply(heard);
        }
        desired(name, &objects)
    };
    let names = |seen: &crate::cluster::Desired| seen.speaker.peers.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&of("p1", vec![])), ["reflectors/r1", "reflectors/r2"]);
    assert_eq!(names(&of("r1", vec![])), ["reflectors/p1", "reflectors/p2"], "not among themselves");
    assert!(of("other", vec![]).speaker.peers.is_empty() && of("other", vec![]).configured.is_empty());
    assert_eq!(of("p1", vec![]).configured, ["reflectors".to_owned()].into());
    let seen = of("p1", vec![]);
    let session = &seen.speaker.peers["reflectors/r2"];
    assert_eq!((session.address, session.hold_time), ("172.31.1.2".parse::<IpAddr>().unwrap(), 9));
    // What is written about one goes before what is written about many.
    let alone = peer("alone", json!({"remote": {"address": "172.31.1.2"}, "asn": "internal"}));
    assert_eq!(names(&of("p1", vec![alone])), ["alone", "reflectors/r1"]);
    let mesh = of("p1", vec![configuration(json!({"topology": "Mesh"}))]);
    assert_eq!(names(&mesh), ["other", "p2", "reflectors/r1", "reflectors/r2"], "and before the mesh");
}

#[test]
fn a_password_comes_from_its_secret_and_follows_it() {
    let objects = with(cluster(), [with_password("tor", "password"), secret("tor", json!({"password": "c2VjcmV0"}))]);
    let seen = desired("a1", &objects);
    assert_eq!((seen.speaker.peers["tor"].password.as_deref(), &seen.problems[..]), (Some("secret"), &[][..]));
    let rotated = desired("a1", &with(objects, [secret("tor", json!({"password": "bmV3"}))]));
    assert_eq!(rotated.speaker.peers["tor"].password.as_deref(), Some("new"));
}

#[test]
fn without_its_password_there_is_no_session_and_a_sentence_that_does_not_tell_it() {
    for (data, word) in [
        (None, "there is no Secret tor of type Opaque in namespace twill-system"),
        (Some(json!({"other": "c2VjcmV0"})), "no entry password"),
        (Some(json!({"password": ""})), "1 to 80 octets, and has 0"),
        (Some(json!({"password": "c2VjcmV0Cg=="})), "line break"),
        (Some(json!({"password": "/w=="})), "no text"),
    ] {
        let secrets = data.map(|data| secret("tor", data));
        let seen = desired("a1", &with(with(cluster(), [with_password("tor", "password")]), secrets));
        assert!(!seen.speaker.peers.contains_key("tor"), "{word}");
        let problem = seen
            .problems
            .iter()
            .find(|problem| problem.contains(word))
            .unwrap_or_else(|| panic!("{:?}", seen.problems));
        assert!(
            problem.starts_with("BGPPeer tor: password.secretKeyRef.") && !problem.contains("secret\n"),
            "{problem}"
        );
        assert!(seen.configured.contains("tor"), "it is missing, and counted as down");
    }
}

#[test]
fn a_snapshot_has_the_passwords_in_use_and_no_others() {
    let both = json!({"password": "c2VjcmV0", "unused": "dW51c2Vk"});
    let objects =
        with(cluster(), [with_password("tor", "password"), secret("tor", both.clone()), secret("mine", both)]);
    let text = serde_json::to_string(&snapshot_of(&objects)).unwrap();
    assert!(text.contains("c2VjcmV0") && !text.contains("dW51c2Vk") && !text.contains("\"mine\""), "{text}");
    let back = Objects::remembered("a1", "twill-system", serde_json::from_str(&text).unwrap());
    assert_eq!(desired("a1", &back).speaker.peers["tor"].password.as_deref(), Some("secret"));
}
