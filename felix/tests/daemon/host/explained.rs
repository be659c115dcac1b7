//! What `twill explain` says of HostPolicies is what the kernel does: connections to the node, from it, and to its NodePorts.

use super::forwarded::{NODE_PORT, node_port};
use super::{NODE, OTHER, OUTSIDE, SSH, Wire, manual};
use serde_json::{Value, json};
use std::time::Duration;
use twill_crds::{HostPolicy, Namespace, Pod};
use twill_felix::evaluate::{Crossing, Explanation, Judgement, Objects, Party, Universe};
use twill_felix::host::State;
use twill_felix::model::{PodKey, Protocol};

/// The uplink, as the node calls it.
const UPLINK: &str = "wire0";

/// All that is stored.
fn universe(wire: &Wire) -> Universe {
    let addresses = json!([{"type": "InternalIP", "address": NODE}]);
    let node = json!({"metadata": {"name": "n1"}, "status": {"addresses": addresses}});
    Universe::new(&Objects {
        pods: &wire.node.list::<Pod>(),
        namespaces: &wire.node.list::<Namespace>(),
        host_policies: &wire.node.list::<HostPolicy>(),
        nodes: &[serde_json::from_value(node).unwrap()],
        ..Objects::default()
    })
}

/// What is said of each connection, and whether it comes about.
fn told_and_done(wire: &Wire) -> Vec<(Explanation, bool)> {
    let all = universe(wire);
    let address = |text: &str| Party::Address(text.parse().unwrap());
    let pod = Party::Pod(PodKey { namespace: "shop".into(), name: "a".into() });
    let told = |src: &str, dst: &Party, port: u16, came_to: Option<u16>| {
        let came_to = came_to.map(|port| ("n1".to_owned(), port));
        let way = Crossing { interface: Some(UPLINK.to_owned()), came_to, ..Crossing::default() };
        all.explain_by(&address(src), dst, port, Protocol::TCP, &way).unwrap()
    };
    let node = &wire.node.ns;
    vec![
        (told(OUTSIDE, &address(NODE), SSH, None), wire.reaches(NODE, SSH)),
        (told(OUTSIDE, &address(NODE), OTHER, None), wire.reaches(NODE, OTHER)),
        (told(NODE, &address(OUTSIDE), OTHER, None), wire.connects(node, OUTSIDE, OTHER)),
        (told(OUTSIDE, &pod, OTHER, Some(NODE_PORT)), wire.reaches(NODE, NODE_PORT)),
    ]
}

#[test]
#[ignore = "needs root: make test"]
fn what_is_explained_of_a_nodes_interface_is_what_the_kernel_does_there() {
    let mut wire = Wire::new();
    wire.node.start_routed(1);
    let (pod, address) = node_port(&mut wire);
    wire.node.report(&pod, &[address]);
    let from = |cidr: &str, port: u16| json!([{"from": [{"cidrs": [cidr]}], "ports": [{"port": port}]}]);
    let (mine, others) = ("192.0.2.2/32", "192.0.2.9/32");
    let programs: [(&str, Value, [bool; 4]); 8] = [
        ("closed", json!({}), [true, false, true, true]),
        ("without", json!({"failsafes": "None", "lockoutRisk": "Accepted"}), [false, false, true, true]),
        ("mine", json!({"ingress": from(mine, OTHER)}), [true, true, true, true]),
        ("others", json!({"ingress": from(others, OTHER)}), [true, false, true, true]),
        ("elsewhere", json!({"interfaces": ["bond*"]}), [true, true, true, true]),
        ("out", json!({"directions": ["Egress"], "egress": [{"action": "Deny"}]}), [true, true, false, true]),
        ("ports", json!({"directions": ["Forwarded"], "ingress": from(mine, NODE_PORT)}), [true, true, true, true]),
        (
            "no-ports",
            json!({"directions": ["Ingress", "Forwarded"], "ingress": from(others, NODE_PORT)}),
            [true, false, true, false],
        ),
    ];
    for (name, spec, expected) in programs {
        wire.apply(name, spec);
        wire.until_confirmed(name);
        for ((story, done), expected) in told_and_done(&wire).into_iter().zip(expected) {
            assert_eq!((story.allowed, done), (expected, expected), "{name}: {story}");
        }
        wire.node.delete::<HostPolicy>(name);
        crate::world::until("open again", super::SOON, || wire.state()["confirmed"] == json!([]));
    }
}

/// What felix says of itself, and what is explained by it.
fn by_its_word(wire: &Wire, port: u16) -> Explanation {
    let state: State = serde_json::from_value(wire.state()).unwrap();
    let way = Crossing { interface: Some(UPLINK.to_owned()), ..Crossing::default() };
    let (from, to) = (OUTSIDE.parse().unwrap(), "n1".parse().unwrap());
    universe(wire).told(&state).explain_by(&from, &to, port, Protocol::TCP, &way).unwrap()
}

#[test]
#[ignore = "needs root: make test"]
fn what_is_explained_by_a_nodes_own_word_follows_its_trials() {
    let wire = Wire::started();
    wire.apply("all", manual(10));
    wire.until_closed();
    let tried = by_its_word(&wire, OTHER);
    assert!(!tried.allowed && !wire.reaches(NODE, OTHER), "{tried}");
    let notes = tried.notes.iter().map(ToString::to_string).collect::<String>();
    assert!(notes.starts_with("on trial at node n1: all, which ends in "), "{tried}");
    assert!(notes.ends_with("without it: allowed: no HostPolicy of node n1 closes what comes to it"), "{tried}");
    let ssh = by_its_word(&wire, SSH);
    assert!(ssh.allowed && wire.reaches(NODE, SSH), "{ssh}");
    assert!(matches!(&ssh.ingress, Judgement::Needed { assumed: false, reason, .. } if reason == "SSH is served here"));
    // Nobody confirms it: the node goes back, and what the datastore has is not what it enforces.
    crate::world::until("it has gone back", Duration::from_secs(30), || !wire.state()["reverted"].is_null());
    let gone_back = by_its_word(&wire, OTHER);
    assert!(gone_back.allowed && wire.reaches(NODE, OTHER), "{gone_back}");
    let sentence = "node n1 does not enforce what the datastore has, but what was before (none), by which this is judged: nobody confirmed it";
    assert!(gone_back.notes.iter().any(|note| note.to_string().starts_with(sentence)), "{gone_back}");
}
