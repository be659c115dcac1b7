//! The shapes of the cases that mattfenwick/cyclonus generates, told anew, in its order. It has no expectation but that of its own
//! simulator, and so there is none here: whoever runs a case asks two evaluators and compares.
//!
//! Most shapes are one policy for x/a that differs in one thing from a base: in from pods b, c of x, y and out to pods a, b of
//! y, z, both on 80/TCP, and DNS.

mod actions;
mod conflicts;
mod peers;
mod ports;
mod upstream;

use crate::manifest::{expression, label, network_policy};
use crate::matrix::every_pair;
use crate::{Case, Change, Probe, Protocol, Step, Universe, World};
use serde_json::{Value, json};

/// All 230 cases.
#[must_use]
pub fn cyclonus() -> Vec<Case> {
    let groups = [
        targets(),
        rules(),
        peers::cases(),
        ports::cases(),
        vec![actions::example()],
        actions::cases(),
        conflicts::cases(),
        peers::by_default_label(),
        upstream::cases(),
    ];
    groups.into_iter().flatten().collect()
}

const PODS: [&str; 9] = ["x/a", "x/b", "x/c", "y/a", "y/b", "y/c", "z/a", "z/b", "z/c"];
const PORTS: [u16; 2] = [80, 81];
const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// A direction of the base policy.
#[derive(Clone, Copy)]
enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    fn rules(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    fn peers(self) -> &'static str {
        match self {
            Self::Ingress => "from",
            Self::Egress => "to",
        }
    }
}

/// DNS to anybody, as a rule of egress.
fn dns() -> Value {
    json!({"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]})
}

/// The spec that shapes differ from.
fn base() -> Value {
    let from = json!({"podSelector": expression("pod", "In", &["b", "c"]), "namespaceSelector": expression("ns", "In", &["x", "y"])});
    let to = json!({"podSelector": expression("pod", "In", &["a", "b"]), "namespaceSelector": expression("ns", "In", &["y", "z"])});
    let port = json!([{"protocol": "TCP", "port": 80}]);
    json!({
        "podSelector": label("pod", "a"),
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"ports": port, "from": [from]}],
        "egress": [{"ports": port, "to": [to]}, dns()]
    })
}

/// The base with other peers in its first rule.
fn with_peers(direction: Direction, peers: &Value) -> Value {
    let mut spec = base();
    spec[direction.rules()][0][direction.peers()] = peers.clone();
    spec
}

/// The base with other ports in its first rule.
fn with_ports(direction: Direction, ports: &Value) -> Value {
    let mut spec = base();
    spec[direction.rules()][0]["ports"] = ports.clone();
    spec
}

/// The base with other rules.
fn with_rules(direction: Direction, rules: &Value) -> Value {
    let mut spec = base();
    spec[direction.rules()] = rules.clone();
    spec
}

/// Creates or replaces the policy `base` of x.
fn in_x(spec: &Value) -> Change {
    network_policy("x", "base", spec)
}

/// A case of one policy.
fn shape(name: &str, about: &str, spec: &Value) -> Case {
    case(name, about, vec![vec![in_x(spec)]])
}

/// A case of several steps, after each of which everybody is asked for everything.
fn case(name: &str, about: &str, steps: Vec<Vec<Change>>) -> Case {
    let universe = Universe::of(&PODS, &PORTS, &PROTOCOLS);
    let mut world = World::new(&universe);
    let mut told = Vec::new();
    for changes in steps {
        changes.iter().for_each(|change| world.apply(change));
        told.push(Step { changes, probes: everything(&world) });
    }
    Case { name: name.to_owned(), about: about.to_owned(), universe, steps: told }
}

/// Every pair of pods that there are, on every port, by every protocol.
fn everything(world: &World) -> Vec<Probe> {
    let pods: Vec<String> = world.of_kind("Pod").map(crate::universe::full_name).collect();
    let mut probes = Vec::new();
    for protocol in PROTOCOLS {
        for port in PORTS {
            probes.extend(every_pair(&pods, port, protocol));
        }
    }
    probes
}

fn targets() -> Vec<Case> {
    let mut cases = Vec::new();
    for namespace in ["x", "y", "z"] {
        let change = network_policy(namespace, "base", &base());
        let about = format!("The policy is one of {namespace}.");
        cases.push(case(&format!("target-namespace-{namespace}"), &about, vec![vec![change]]));
    }
    let selectors =
        [("all", json!({})), ("by-label", label("pod", "a")), ("by-expression", expression("pod", "In", &["a", "b"]))];
    for (name, selector) in selectors {
        let mut spec = base();
        spec["podSelector"] = selector;
        cases.push(shape(&format!("target-pods-{name}"), "The pods that the policy selects.", &spec));
    }
    cases
}

fn rules() -> Vec<Case> {
    let mut cases = Vec::new();
    for direction in [Direction::Egress, Direction::Ingress] {
        for (name, about, rules) in
            [("deny", "No rule at all.", json!([])), ("allow", "One rule that allows everything.", json!([{}]))]
        {
            let name = format!("{}-{name}-all", direction.rules());
            cases.push(shape(&name, about, &with_rules(direction, &rules)));
        }
    }
    cases
}
