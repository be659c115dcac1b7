use super::*;
use crate::compile::interpret::{Fate, Packet, interpret};
use crate::host::failsafe::{Facts, failsafes};
use crate::host::sort;
use crate::index::Event;
use crate::model::{Labels, Node, host_policy};
use crate::ruleset::{Delta, Ruleset};
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use std::time::Duration;

fn program(specs: &[Json]) -> Program {
    let one = |(n, spec): (usize, &Json)| {
        let raw = json!({"apiVersion": "twill.network/v1", "kind": "HostPolicy", "metadata": {"name": format!("h{n}")}, "spec": spec});
        Arc::new(host_policy(&serde_json::from_value(raw).unwrap()))
    };
    let mut program: Program = specs.iter().enumerate().map(one).collect();
    sort(&mut program);
    program
}

fn compiler() -> Compiler {
    let mut compiler = Compiler::new(base::skeleton(&base::Settings::default()));
    let addresses: BTreeSet<_> = ["192.0.2.1".parse().unwrap()].into();
    let node = Node {
        name: "n1".into(),
        labels: Labels::default(),
        known_as: addresses.clone(),
        addresses,
        tunnels: BTreeSet::new(),
    };
    compiler.apply(Event::NodesChanged(vec![node]));
    compiler
}

/// A program in force, on a node where SSH listens.
fn confirmed(specs: &[Json]) -> Compiler {
    let mut compiler = compiler();
    let facts = Facts { listening: [22].into(), ..Facts::default() };
    compiler.plan_host(Plan { confirmed: program(specs), failsafes: failsafes(&facts), ..Plan::default() });
    compiler.commit();
    compiler.ruleset().check().unwrap();
    compiler
}

fn passes(ruleset: &Ruleset, hook: Hook, interface: &str, peer: &str, protocol: u8, port: u16) -> bool {
    let own = if peer.contains(':') { "fd00::9" } else { "198.51.100.9" };
    let inbound = hook == Hook::Input;
    let (src, dst) = if inbound { (peer, own) } else { (own, peer) };
    let packet = Packet {
        in_interface: inbound.then(|| interface.to_owned()),
        out_interface: (!inbound).then(|| interface.to_owned()),
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
        protocol,
        src_port: 40_000,
        dst_port: port,
        came_to: None,
    };
    interpret(ruleset, hook, &packet) == Fate::Passed
}

/// A connection to a port of the host that it sends on to port 80 of a pod elsewhere, as it comes to an interface.
fn passes_through(ruleset: &Ruleset, interface: &str, from: &str, came_to: Option<u16>) -> bool {
    let packet = Packet {
        in_interface: Some(interface.to_owned()),
        out_interface: Some("eth1".to_owned()),
        src: from.parse().unwrap(),
        dst: "10.42.7.7".parse().unwrap(),
        protocol: 6,
        src_port: 40_000,
        dst_port: 80,
        came_to,
    };
    interpret(ruleset, Hook::Forward, &packet) == Fate::Passed
}

#[test]
fn what_is_forwarded_is_judged_only_where_that_is_said_and_by_the_port_that_it_came_to() {
    let rules = json!([{"from": [{"cidrs": ["203.0.113.0/24"]}], "ports": [{"port": 30080}, {"port": 30090, "endPort": 30099}]}, {"ports": [{"port": 80}]}]);
    let only =
        |directions: Json| confirmed(&[json!({"directions": directions, "interfaces": ["eth*"], "ingress": rules})]);
    let (host, through) = (only(json!(["Ingress"])), only(json!(["Forwarded"])));
    assert!(passes_through(host.ruleset(), "eth0", "203.0.114.5", Some(30080)));
    let open = |interface, from, came_to| passes_through(through.ruleset(), interface, from, came_to);
    assert!(open("eth0", "203.0.113.5", Some(30080)) && !open("eth0", "203.0.114.5", Some(30080)));
    assert!(open("eth0", "203.0.113.5", Some(30095)) && !open("eth0", "203.0.113.5", Some(30081)));
    assert!(open("eth0", "203.0.114.5", Some(80)), "the port that it came to");
    assert!(!open("eth0", "203.0.114.5", Some(22)), "SSH of the node is not what a Service on its port leads to");
    assert!(!open("eth0", "192.0.2.1", Some(179)), "nor is BGP with nodes");
    assert!(!open("eth0", "203.0.114.5", Some(8080)), "the port that it is sent on to means nothing");
    assert!(open("eth0", "203.0.114.5", None), "what is for the pod itself");
    for (other, from) in [("wlan0", "203.0.114.5"), (names::VXLAN_DEVICE, "192.0.2.1")] {
        assert!(open(other, from, Some(30080)), "{other}");
    }
    assert!(passes(through.ruleset(), Hook::Input, "eth0", "203.0.114.5", 6, 8080), "the host itself is open");
}

#[test]
fn without_policies_nothing_is_closed_and_no_policy_stands_where_the_host_sends() {
    let mut compiler = compiler();
    assert!(!compiler.plan_host(Plan::default()));
    compiler.commit();
    let ruleset = compiler.ruleset();
    assert!(passes(ruleset, Hook::Input, "eth0", "203.0.113.5", 6, 80));
    assert!(!ruleset.chains.contains_key(&chain_name(base::HOST_SENDS)));
}

#[test]
fn a_closed_node_lets_in_what_it_needs_and_what_rules_accept_on_every_interface() {
    let rules = json!([{"action": "Deny", "from": [{"cidrs": ["203.0.113.66/32"]}]}, {"ports": [{"port": 80}, {"protocol": "ICMP"}]},
        {"from": [{"cidrs": ["203.0.113.0/24"]}], "ports": [{"protocol": "UDP", "port": 7, "endPort": 9}]}]);
    let compiler = confirmed(&[json!({"ingress": rules})]);
    let open =
        |interface, peer, protocol, port| passes(compiler.ruleset(), Hook::Input, interface, peer, protocol, port);
    for interface in ["eth0", "whatever"] {
        assert!(open(interface, "203.0.113.5", 6, 80) && open(interface, "fd00::5", 6, 80));
        assert!(!open(interface, "203.0.113.5", 6, 81) && !open(interface, "fd00::5", 6, 81));
    }
    assert!(
        open("eth0", "203.0.113.5", 17, 8) && !open("eth0", "203.0.114.5", 17, 8) && !open("eth0", "fd00::5", 17, 8)
    );
    assert!(open("eth0", "203.0.113.5", 1, 0) && open("eth0", "fd00::5", 58, 0));
    assert!(!open("eth0", "203.0.113.66", 6, 80) && open("eth0", "203.0.113.66", 6, 22), "failsafes come first");
    assert!(open("eth0", "192.0.2.1", 6, 179) && !open("eth0", "192.0.2.2", 6, 179), "BGP with nodes");
    for never in ["lo", names::VXLAN_DEVICE] {
        assert!(open(never, "192.0.2.1", 6, 81), "{never}");
    }
    assert!(
        passes(compiler.ruleset(), Hook::Postrouting, "eth0", "203.0.113.5", 6, 81),
        "only one direction is closed"
    );
}

#[test]
fn interfaces_are_named_or_begin_alike_and_policies_have_an_order() {
    let first =
        json!({"priority": 1, "interfaces": ["eth0"], "ingress": [{"action": "Deny", "ports": [{"port": 80}]}]});
    let second =
        json!({"priority": 2, "interfaces": ["eth*", "bond0"], "ingress": [{"ports": [{"port": 80}, {"port": 81}]}]});
    let compiler = confirmed(&[second, first]);
    let open = |interface, port| passes(compiler.ruleset(), Hook::Input, interface, "203.0.113.5", 6, port);
    assert!(!open("eth0", 80) && open("eth0", 81) && !open("eth0", 82));
    assert!(open("eth1", 80) && !open("eth1", 82) && open("bond0", 80) && !open("bond0", 82));
    assert!(open("bond1", 82) && open("wlan0", 82));
}

#[test]
fn what_goes_out_is_closed_but_never_to_the_nodes_own_pods() {
    let compiler =
        confirmed(&[json!({"directions": ["Egress"], "egress": [{"to": [{"nodes": {}}], "ports": [{"port": 5000}]}]})]);
    let open = |interface, peer, port| passes(compiler.ruleset(), Hook::Postrouting, interface, peer, 6, port);
    assert!(open("eth0", "192.0.2.1", 5000) && !open("eth0", "192.0.2.2", 5000) && !open("eth0", "192.0.2.1", 5001));
    assert!(
        open("lo", "127.0.0.1", 1)
            && open("twl00000000001", "10.42.0.7", 1)
            && open(names::VXLAN_DEVICE, "10.42.1.7", 1)
    );
    assert!(passes(compiler.ruleset(), Hook::Input, "eth0", "192.0.2.2", 6, 1), "only one direction is closed");
    // A pod's: the host only sends it on.
    let of_a_pod = Packet {
        in_interface: Some("twl00000000001".to_owned()),
        out_interface: Some("eth0".to_owned()),
        src: "10.42.0.7".parse().unwrap(),
        dst: "203.0.113.5".parse().unwrap(),
        protocol: 6,
        src_port: 40_000,
        dst_port: 81,
        came_to: None,
    };
    assert_eq!(interpret(compiler.ruleset(), Hook::Postrouting, &of_a_pod), Fate::Passed);
}

#[test]
fn no_failsafes_only_where_all_policies_say_so() {
    let risky = json!({"failsafes": "None", "lockoutRisk": "Accepted"});
    let ssh = |specs: &[Json]| passes(confirmed(specs).ruleset(), Hook::Input, "eth0", "203.0.113.5", 6, 22);
    assert!(!ssh(std::slice::from_ref(&risky)) && ssh(&[risky, json!({"interfaces": ["eth9"]})]));
}

/// The same with the gate's elements as the kernel has them until they expire.
fn during(delta: &Delta, ruleset: &Ruleset) -> Ruleset {
    let mut ruleset = ruleset.clone();
    for (name, set) in delta.add_sets.iter().filter(|(_, set)| set.timeout.is_some()) {
        ruleset.sets.get_mut(name).unwrap().elements = set.elements.clone();
    }
    ruleset
}

#[test]
fn a_trial_is_asked_in_place_of_what_is_confirmed_as_long_as_its_gate_lasts() {
    let mut compiler = confirmed(&[json!({"ingress": [{"ports": [{"port": 80}]}]})]);
    let before = compiler.ruleset().clone();
    let confirmed = program(&[json!({"ingress": [{"ports": [{"port": 80}]}]})]);
    let tried = program(&[json!({"directions": ["Ingress", "Egress"], "ingress": [{"ports": [{"port": 81}]}]})]);
    let trial = Trial { gate: "host_trial_1".into(), program: tried, within: Duration::from_secs(9) };
    assert!(compiler.plan_host(Plan { confirmed: confirmed.clone(), trial: Some(trial), failsafes: Vec::new() }));
    let delta = compiler.commit();
    let gate = &delta.add_sets["host_trial_1"];
    assert_eq!(gate.elements.values().collect::<Vec<_>>(), [&Value::Expires(Duration::from_secs(9)); 2]);
    assert!(compiler.ruleset().sets["host_trial_1"].elements.is_empty(), "a repair must not begin it anew");
    let open = |ruleset: &Ruleset, port| passes(ruleset, Hook::Input, "eth0", "203.0.113.5", 6, port);
    let lasting = during(&delta, compiler.ruleset());
    assert!(
        !open(&lasting, 80) && open(&lasting, 81) && !passes(&lasting, Hook::Postrouting, "eth0", "203.0.113.5", 6, 81)
    );
    // The kernel alone goes back, in both directions.
    let over = compiler.ruleset();
    assert!(open(over, 80) && !open(over, 81) && passes(over, Hook::Postrouting, "eth0", "203.0.113.5", 6, 81));
    // And what is left of it goes, too.
    let facts = Facts { listening: [22].into(), ..Facts::default() };
    compiler.plan_host(Plan { confirmed, trial: None, failsafes: failsafes(&facts) });
    let delta = compiler.commit();
    assert_eq!(compiler.ruleset(), &before);
    assert!(delta.remove_sets.contains("host_trial_1"));
}

#[test]
fn the_ruleset_does_not_depend_on_the_road_and_the_last_policy_leaves_nothing() {
    let bare = {
        let mut compiler = compiler();
        compiler.commit();
        compiler.ruleset().clone()
    };
    let pods = json!({"directions": ["Ingress", "Egress"], "ingress": [{"from": [{"pods": {}}, {"nodes": {}}]}], "egress": [{"action": "Deny", "to": [{"pods": {}}]}]});
    let mut compiler = confirmed(&[json!({"ingress": [{}]}), pods.clone()]);
    let facts = Facts { listening: [22].into(), ..Facts::default() };
    compiler.plan_host(Plan {
        confirmed: program(std::slice::from_ref(&pods)),
        trial: None,
        failsafes: failsafes(&facts),
    });
    compiler.commit();
    assert_eq!(compiler.ruleset(), confirmed(&[pods]).ruleset());
    compiler.plan_host(Plan::default());
    let delta = compiler.commit();
    assert_eq!(compiler.ruleset(), &bare);
    assert!(compiler.sets.is_empty() && compiler.chains.is_empty() && !delta.remove_sets.is_empty());
}
