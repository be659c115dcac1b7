//! The sub-tests of the ClusterNetworkPolicy conformance suite (`conformance` of kubernetes-sigs/network-policy-api, July 2026), told
//! anew. There the sub-tests of a test go on from each other; here each begins at the beginning, and a first step brings about the
//! state that the suite has by then.
//!
//! Four namespaces with two pods each, which the suite calls by a story's names: here north, south, east and west, and `host`, whose
//! pods live in the nodes' network. North and its like are subjects; south is denied or passed on a port, east allowed on one.

mod combined;
mod directed;
mod networks;
mod nodes;
mod tiers;

use crate::manifest::{cluster_network_policy as policy, label};
use crate::universe::{Listener, NODES, namespace, nodes, pod};
use crate::{Case, Change, Probe, Protocol, Step, Universe};
use serde_json::{Value, json};

/// All 92 cases.
#[must_use]
pub fn cluster_network_policy() -> Vec<Case> {
    let groups = [directed::cases(), combined::cases(), networks::cases(), tiers::cases(), nodes::cases()];
    groups.into_iter().flatten().collect()
}

/// A tier and what the suite's policies of that tier are like.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tier {
    Admin,
    Baseline,
}

impl Tier {
    fn name(self) -> &'static str {
        match self {
            Self::Admin => "Admin",
            Self::Baseline => "Baseline",
        }
    }

    fn kebab(self, name: &str) -> String {
        format!("{}-{name}", self.name().to_lowercase())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Ingress,
    Egress,
}

impl Direction {
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

const HOST_TCP: [u16; 2] = [36_000, 36_001];
const HOST_UDP: [u16; 2] = [36_002, 36_004];
const HOST_SCTP: [u16; 2] = [36_006, 36_007];

fn universe() -> Universe {
    let mut universe = Universe { nodes: nodes(), ..Universe::default() };
    for name in ["north", "south", "east", "west", "host"] {
        universe.namespaces.push(namespace(name, &json!({"side": name})));
        let listeners = if name == "host" { host_listeners() } else { listeners() };
        for (i, node) in NODES.into_iter().enumerate() {
            let mut pod = pod(name, &format!("{name}-{i}"), node, &json!({"side": name}), &listeners);
            if name == "host" {
                pod["spec"]["hostNetwork"] = json!(true);
            }
            universe.pods.push(pod);
        }
    }
    universe
}

fn listeners() -> Vec<Listener> {
    let on = |port, protocol, name: Option<&str>| Listener { port, protocol, name: name.map(str::to_owned) };
    vec![
        on(80, Protocol::Tcp, Some("web")),
        on(8080, Protocol::Tcp, None),
        on(53, Protocol::Udp, Some("dns")),
        on(5353, Protocol::Udp, None),
        on(9003, Protocol::Sctp, None),
        on(9005, Protocol::Sctp, None),
    ]
}

fn host_listeners() -> Vec<Listener> {
    let mut listeners = Vec::new();
    for (ports, protocol) in [(HOST_TCP, Protocol::Tcp), (HOST_UDP, Protocol::Udp), (HOST_SCTP, Protocol::Sctp)] {
        for port in ports {
            listeners.push(Listener { port, protocol, name: None });
        }
    }
    listeners
}

/// All pods of a namespace, by its name.
fn all_of(name: &str) -> Value {
    json!({"namespaces": label("kubernetes.io/metadata.name", name)})
}

/// The pods of a namespace, by its label and their own.
fn pods_of(side: &str) -> Value {
    json!({"pods": {"namespaceSelector": label("side", side), "podSelector": label("side", side)}})
}

fn number(protocol: Protocol, port: u16) -> Value {
    json!({protocol.to_string().to_lowercase(): {"destinationPort": {"number": port}}})
}

fn rule(direction: Direction, action: &str, peers: &[Value], protocols: &[Value]) -> Value {
    let mut rule = json!({"action": action, direction.peers(): peers});
    if !protocols.is_empty() {
        rule["protocols"] = json!(protocols);
    }
    rule
}

/// A connection and what the suite says of it; `east/1` means pod `east-1` of namespace `east`.
fn probe(from: &str, to: &str, protocol: Protocol, port: u16, reached: bool) -> Probe {
    Probe { from: full(from), to: full(to), protocol, port, reached: Some(reached) }
}

fn full(short: &str) -> String {
    let (namespace, ordinal) = short.split_once('/').unwrap_or_default();
    format!("{namespace}/{namespace}-{ordinal}")
}

fn case(name: String, about: &str, steps: Vec<Step>) -> Case {
    Case { name, about: about.to_owned(), universe: universe(), steps }
}

fn step(changes: Vec<Change>, probes: Vec<Probe>) -> Step {
    Step { changes, probes }
}
