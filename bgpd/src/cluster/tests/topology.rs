//! What a node makes of the controller's decision.

use super::*;
use crate::cluster::Snapshot;
use crate::speaker::Member;

/// The configuration with a decision; `spec` and `sessions` as they stand in the object.
fn decided(spec: Value, sessions: Value) -> Heard {
    Heard::Configuration(applied(object(
        json!({"metadata": {"name": "default"}, "spec": spec, "status": {"sessions": sessions}}),
    )))
}

/// `peer=role/export` of each peer of a node of [`cluster`] with one more node.
fn peers_of(node_name: &str, configuration: Heard) -> Vec<String> {
    let objects = with(cluster(), [node("c1", &["172.31.3.11"], 4), configuration]);
    let wanted = desired(node_name, &objects);
    let shown = wanted
        .speaker
        .peers
        .iter()
        .map(|(name, peer)| format!("{name}={:?}/{:?}/{}", peer.member, peer.export, peer.role()));
    shown.collect()
}

fn reflected() -> Value {
    json!({"step": 3, "topology": "RouteReflector", "routeReflectors": ["a2", "b1"]})
}

#[test]
fn a_node_speaks_with_reflectors_and_these_with_all_and_pass_on_what_nodes_say() {
    let of = |name| peers_of(name, decided(json!({"topology": "RouteReflector"}), reflected()));
    assert_eq!(of("a1"), ["a2=Reflector/Own/reflector", "b1=Reflector/Own/reflector"]);
    assert_eq!(of("b1"), ["a1=Node/Members/client", "a2=Reflector/Members/reflector", "c1=Node/Members/client"]);
    // A new decision may differ from what is asked for since; what was decided counts.
    let of = |name| peers_of(name, decided(json!({"topology": "Mesh"}), reflected()));
    assert_eq!(of("c1").len(), 2);
}

#[test]
fn what_retires_is_there_until_the_controller_says_otherwise() {
    let of = |name, sessions: Value| peers_of(name, decided(json!({"topology": "RouteReflector"}), sessions));
    let from_mesh =
        json!({"step": 2, "topology": "RouteReflector", "routeReflectors": ["a2"], "retiring": {"mesh": true}});
    assert_eq!(
        of("a1", from_mesh.clone()),
        ["a2=Reflector/Own/reflector", "b1=Leaving/Own/leaving", "c1=Leaving/Own/leaving"]
    );
    assert_eq!(of("a2", from_mesh), ["a1=Node/Members/client", "b1=Node/Members/client", "c1=Node/Members/client"]);
    let back = json!({"step": 4, "topology": "Mesh", "retiring": {"routeReflectors": ["a2"]}});
    assert_eq!(of("a1", back.clone()), ["a2=FormerReflector/Own/reflector", "b1=Node/Own/node", "c1=Node/Own/node"]);
    assert_eq!(of("a2", back)[0], "a1=Node/Members/client");
    let other = json!({"step": 5, "topology": "RouteReflector", "routeReflectors": ["b1"], "retiring": {"routeReflectors": ["a2"]}});
    assert_eq!(of("a1", other.clone()), ["a2=Leaving/Own/leaving", "b1=Reflector/Own/reflector"]);
    assert_eq!(
        of("b1", other.clone()),
        ["a1=Node/Members/client", "a2=FormerReflector/Members/client", "c1=Node/Members/client"]
    );
    assert_eq!(
        of("a2", other),
        ["a1=Leaving/Members/client", "b1=Reflector/Members/reflector", "c1=Leaving/Members/client"]
    );
}

#[test]
fn without_a_decision_nodes_are_a_mesh_and_say_who_would_decide() {
    for topology in ["Auto", "Mesh", "RouteReflector"] {
        let objects = with(cluster(), [configuration(json!({"topology": topology}))]);
        let wanted = desired("a1", &objects);
        assert_eq!((wanted.speaker.peers.len(), wanted.speaker.step), (2, None), "{topology}");
        assert_eq!(wanted.problems.len(), usize::from(topology == "RouteReflector"), "{:?}", wanted.problems);
    }
    let fabric = json!({"step": 7, "topology": "Fabric"});
    assert_eq!(peers_of("a1", decided(json!({"topology": "Mesh"}), fabric.clone())).len(), 3, "at once");
    assert_eq!(peers_of("a1", decided(json!({"topology": "RouteReflector"}), fabric)).len(), 0, "the fabric goes on");
    assert_eq!(peers_of("a1", decided(json!({"topology": "Fabric"}), reflected())).len(), 0);
    let labelled = json!({"topology": "RouteReflector", "asn": {"nodeLabel": "rack"}});
    let objects = with(cluster(), [decided(labelled, reflected())]);
    assert!(!desired("a1", &objects).reflects);
    let gone = json!({"step": 3, "topology": "RouteReflector", "routeReflectors": ["x"]});
    let lost = desired("a1", &with(cluster(), [decided(json!({}), gone)]));
    assert!(lost.problems[0].contains("of the nodes that reflect (x) none is there any more"), "{:?}", lost.problems);
}

#[test]
fn what_a_person_wrote_about_a_reflector_stands_and_a_closed_peer_stays_closed() {
    let written = || peer("far", json!({"asn": "internal", "remote": {"address": "172.31.1.11"}, "holdTime": 30}));
    let closed = || peer("far", json!({"asn": "internal", "remote": {"address": "172.31.1.11"}, "filters": ["none"]}));
    let of = |peer: Heard| desired("b1", &with(cluster(), [peer, decided(json!({}), reflected())]));
    let open = &of(written()).speaker.peers["far"];
    assert_eq!((open.hold_time, open.export, open.reflector_client), (30, Export::Members, true));
    assert_eq!(of(closed()).speaker.peers["far"].export, Export::None);
    let tor = || peer("tor", json!({"asn": 65101, "remote": {"address": "172.31.2.1"}}));
    let tor = &of(tor()).speaker.peers["tor"];
    assert_eq!(
        (tor.export, tor.member, tor.reflector_client),
        (Export::Own, Member::Apart, false),
        "a node never transits"
    );
}

#[test]
fn a_node_that_says_that_it_lives_changes_nothing() {
    let said = |version: &str, address: &str| {
        Heard::Node(Box::new(applied(object(json!({
            "metadata": {"name": "a2", "resourceVersion": version, "creationTimestamp": "2026-01-01T00:00:01Z"},
            "status": {"addresses": [{"type": "InternalIP", "address": address}], "conditions": [{"type": "Ready", "status": "True",
                "lastHeartbeatTime": format!("2026-01-01T00:00:{version}Z")}]},
        })))))
    };
    let mut objects = cluster();
    assert!(objects.apply(said("10", "172.31.1.12")));
    assert!(!objects.apply(said("11", "172.31.1.12")));
    assert!(objects.apply(said("12", "172.31.1.13")));
}

#[test]
fn a_decision_holds_until_there_is_another_whatever_becomes_of_the_object() {
    let lone = |objects: &Objects| desired("a1", objects).speaker.peers.into_keys().collect::<Vec<_>>();
    let reflected = || {
        decided(
            json!({"topology": "RouteReflector"}),
            json!({"step": 3, "topology": "RouteReflector", "routeReflectors": ["a2"]}),
        )
    };
    let mut objects = with(cluster(), [reflected()]);
    assert_eq!(lone(&objects), ["a2"]);
    objects.apply(Heard::Configuration(Followed::Deleted(
        object(json!({"metadata": {"name": "default"}, "spec": {}})),
        Revision(2),
    )));
    assert_eq!(lone(&objects), ["a2"], "deleted");
    assert_eq!(desired("a1", &objects).speaker.step, Some(3));
    let kept: Snapshot = serde_json::from_value(serde_json::to_value(snapshot_of(&objects)).unwrap()).unwrap();
    assert_eq!(lone(&Objects::remembered("a1", "twill-system", kept)), ["a2"], "over a restart");
    objects.apply(configuration(json!({"topology": "RouteReflector"})));
    assert_eq!(lone(&objects), ["a2"], "made anew, and not judged yet");
    objects.apply(decided(json!({"topology": "Mesh"}), json!({"step": 104, "topology": "Mesh"})));
    assert_eq!(lone(&objects), ["a2", "b1"]);

    // A release before this one kept the object alone.
    let mut older = serde_json::to_value(snapshot_of(&with(cluster(), [reflected()]))).unwrap();
    older.as_object_mut().unwrap().remove("decided");
    let older: Snapshot = serde_json::from_value(older).unwrap();
    assert_eq!(lone(&Objects::remembered("a1", "twill-system", older)), ["a2"]);
}
