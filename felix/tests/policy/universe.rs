//! Random small clusters. The alphabet is tiny so that selectors, addresses and port names collide.

use crate::cluster_policies::cluster_policy;
use crate::isolations::isolation;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use twill_crds::IPBlock;
use twill_felix::index::Endpoint;
use twill_felix::model::PodKey;

/// One state of a cluster.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub namespaces: BTreeMap<String, core::Namespace>,
    pub pods: BTreeMap<PodKey, core::Pod>,
    pub policies: BTreeMap<(String, String), NetworkPolicy>,
    /// As they were written: each evaluator has a type of its own for them.
    pub cluster_policies: BTreeMap<String, Value>,
    /// The same.
    pub isolations: BTreeMap<String, Value>,
    pub endpoints: BTreeMap<String, (String, Endpoint)>,
    pub nodes: Vec<core::Node>,
}

/// What a pod is like, apart from its place in the list.
#[derive(Clone, Debug)]
struct PodSpec {
    namespace: usize,
    labels: BTreeMap<&'static str, &'static str>,
    node: usize,
    families: u8,
    host_network: bool,
    phase: &'static str,
    ports: Vec<(&'static str, u16, &'static str)>,
    generation: u8,
    /// A remote or completed pod may claim the address of another.
    claims: Option<usize>,
    endpoint: EndpointKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndpointKind {
    Attached,
    Missing,
    OfAnotherUid,
}

const NAMESPACES: [&str; 3] = ["x", "y", "z"];
const NODES: [&str; 2] = ["n1", "n2"];

pub fn node_address(node: usize, v4: bool) -> String {
    if v4 { format!("192.0.2.{}", node + 1) } else { format!("2001:db8::{}", node + 1) }
}

/// Each node's blocks: what it has in tunnels is the first address of each.
pub fn blocks() -> Vec<IPBlock> {
    let block = |(i, cidr): (usize, &str)| {
        parse(
            json!({"apiVersion": "twill.network/v1", "kind": "IPBlock", "metadata": {"name": cidr.replace(['.', ':', '/'], "-")},
            "spec": {"cidr": cidr, "node": NODES[i]}}),
        )
    };
    [(0, "10.0.0.64/28"), (0, "fd00::40/124"), (1, "10.0.0.80/28"), (1, "fd00::50/124")]
        .into_iter()
        .map(block)
        .collect()
}

/// Those first addresses.
pub fn tunnels() -> Vec<(String, IpAddr)> {
    blocks().into_iter().map(|block| (block.spec.node, block.spec.cidr.network())).collect()
}

/// A state's nodes with what they have in tunnels.
pub fn nodes_of(state: &State) -> Vec<twill_felix::model::Node> {
    let blocks = blocks();
    let of = blocks.iter().map(|block| (block.spec.node.as_str(), block.spec.cidr));
    twill_felix::model::nodes(state.nodes.iter(), of)
}

fn pod_address(slot: usize, v4: bool) -> String {
    if v4 { format!("10.0.0.{}", slot + 1) } else { format!("fd00::{}", slot + 1) }
}

pub fn interface(namespace: &str, name: &str) -> String {
    format!("twl{namespace}{name}")
}

/// `steady`: every local pod is attached, as the evaluators take for granted.
pub fn state(steady: bool) -> impl Strategy<Value = State> {
    let namespaces = vec(option::weighted(0.9, labels()), NAMESPACES.len());
    let pods = vec(option::weighted(0.8, pod(steady)), 0..7);
    let policies = vec((0..NAMESPACES.len(), policy()), 0..5);
    let cluster = prop_oneof![1 => Just(Vec::new()), 2 => vec(cluster_policy(), 1..4)];
    let isolations = prop_oneof![1 => Just(Vec::new()), 1 => vec(isolation(), 1..3)];
    let racks = vec((option::of(select(vec!["1", "2"])), any::<bool>()), NODES.len());
    let all = (namespaces, pods, policies, cluster, isolations, racks);
    all.prop_map(|(namespaces, pods, policies, cluster, isolations, racks)| {
        let mut state = build(&namespaces, &pods, policies);
        state.nodes = (0..).zip(&racks).map(|(i, (rack, control_plane))| node(i, *rack, *control_plane)).collect();
        state.isolations = (0..).zip(isolations).map(|(i, spec): (usize, _)| (format!("i{i}"), spec)).collect();
        state.cluster_policies = (0..).zip(cluster).map(|(i, spec): (usize, _)| (format!("c{i}"), spec)).collect();
        state
    })
}

pub fn labels() -> impl Strategy<Value = BTreeMap<&'static str, &'static str>> {
    btree_map(select(vec!["a", "b"]), select(vec!["1", "2"]), 0..3)
}

fn pod(steady: bool) -> impl Strategy<Value = PodSpec> {
    let port = (select(vec!["web", "alt"]), select(vec![80_u16, 81, 8080]), select(vec!["TCP", "UDP", "SCTP"]));
    let phase = prop_oneof![8 => Just("Running"), 1 => Just("Succeeded"), 1 => Just("Failed")];
    let endpoint = if steady {
        Just(EndpointKind::Attached).boxed()
    } else {
        prop_oneof![
            6 => Just(EndpointKind::Attached),
            1 => Just(EndpointKind::Missing),
            1 => Just(EndpointKind::OfAnotherUid)
        ]
        .boxed()
    };
    let first = (0..NAMESPACES.len(), labels(), 0..NODES.len(), 1_u8..4, prop::bool::weighted(0.1), phase);
    (first, vec(port, 0..3), 0_u8..2, option::weighted(0.15, 0..7_usize), endpoint).prop_map(
        |((namespace, labels, node, families, host_network, phase), ports, generation, claims, endpoint)| PodSpec {
            namespace,
            labels,
            node,
            families,
            host_network,
            phase,
            ports,
            generation,
            claims,
            endpoint,
        },
    )
}

pub fn selector() -> impl Strategy<Value = Value> {
    let expression = prop_oneof![
        (select(vec!["a", "b"]), select(vec!["In", "NotIn"]), vec(select(vec!["1", "2"]), 1..3))
            .prop_map(|(key, operator, values)| json!({"key": key, "operator": operator, "values": values})),
        (select(vec!["a", "b"]), select(vec!["Exists", "DoesNotExist"]))
            .prop_map(|(key, operator)| json!({"key": key, "operator": operator})),
    ];
    prop_oneof![
        2 => Just(json!({})),
        3 => labels().prop_map(|l| json!({"matchLabels": l})),
        2 => vec(expression, 1..3).prop_map(|e| json!({"matchExpressions": e})),
        1 => select(NAMESPACES.to_vec()).prop_map(|n| json!({"matchLabels": {"kubernetes.io/metadata.name": n}})),
    ]
}

fn block() -> impl Strategy<Value = Value> {
    let v4 = (select(vec!["0.0.0.0/0", "10.0.0.0/29", "10.0.0.2/31", "10.0.0.4/32", "192.0.2.0/24", "10.0.0.0/8"]))
        .prop_flat_map(|cidr| {
            let inside: Vec<&str> = ["10.0.0.2/32", "10.0.0.4/31", "10.0.0.0/30", "192.0.2.1/32", "10.0.0.4/32"]
                .into_iter()
                .filter(|e| contains(cidr, e))
                .collect();
            let none = inside.is_empty();
            let except = if none { Just(Vec::new()).boxed() } else { vec(select(inside), 0..3).boxed() };
            except.prop_map(move |except| json!({"cidr": cidr, "except": except}))
        });
    let v6 = prop_oneof![
        Just(json!({"cidr": "::/0"})),
        Just(json!({"cidr": "::/0", "except": ["fd00::2/127"]})),
        Just(json!({"cidr": "fd00::/125", "except": ["fd00::4/128", "fd00::2/128"]})),
        Just(json!({"cidr": "fd00::3/128"})),
    ];
    // What an API server would refuse.
    let wrong = prop_oneof![
        Just(json!({"cidr": "10.0.0.0/40"})),
        Just(json!({"cidr": "10.0.0.0/29", "except": ["10.1.0.0/29"]})),
        Just(json!({"cidr": "fd00::/64", "except": ["10.0.0.1/32"]})),
    ];
    prop_oneof![6 => v4, 4 => v6, 1 => wrong]
}

fn contains(outer: &str, inner: &str) -> bool {
    let net = |text: &str| text.parse::<ipnet::IpNet>().expect("a test's own CIDR");
    net(outer).contains(&net(inner))
}

fn peer() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => selector().prop_map(|p| json!({"podSelector": p})),
        2 => selector().prop_map(|n| json!({"namespaceSelector": n})),
        2 => (selector(), selector()).prop_map(|(n, p)| json!({"namespaceSelector": n, "podSelector": p})),
        4 => block().prop_map(|b| json!({"ipBlock": b})),
        1 => Just(json!({})),
    ]
}

fn port() -> impl Strategy<Value = Value> {
    let protocol = option::of(select(vec!["TCP", "UDP", "SCTP"]));
    let number = prop_oneof![
        2 => Just(json!({})),
        4 => select(vec![80, 81, 8080]).prop_map(|p| json!({"port": p})),
        2 => select(vec![(80, 81), (79, 80), (81, 9000), (8080, 8080), (82, 81)])
            .prop_map(|(first, last)| json!({"port": first, "endPort": last})),
        4 => select(vec!["web", "alt", "none"]).prop_map(|name| json!({"port": name})),
    ];
    (protocol, number).prop_map(|(protocol, mut port)| {
        if let Some(protocol) = protocol {
            port["protocol"] = json!(protocol);
        }
        port
    })
}

fn rule(peers: &'static str) -> impl Strategy<Value = Value> {
    let few = |weight: f64| prop::bool::weighted(weight);
    let ports = (few(0.3), vec(port(), 0..3), few(0.1));
    (few(0.3), vec(peer(), 0..3), ports).prop_map(move |(no_peers, of, (no_ports, mut ports, many))| {
        let mut rule = json!({});
        if many {
            // More than stand in a rule.
            ports.extend((0..70).map(|n| json!({"port": 2 * n + 2, "protocol": if n == 7 { "UDP" } else { "TCP" }})));
        }
        if !no_peers {
            rule[peers] = json!(of);
        }
        if !no_ports {
            rule["ports"] = json!(ports);
        }
        rule
    })
}

fn policy() -> impl Strategy<Value = Value> {
    let types = option::weighted(
        0.6,
        select(vec![vec![], vec!["Ingress"], vec!["Egress"], vec!["Ingress", "Egress"], vec!["Egress", "Other"]]),
    );
    let ingress = option::weighted(0.7, vec(rule("from"), 0..3));
    let egress = option::weighted(0.7, vec(rule("to"), 0..3));
    (option::weighted(0.9, selector()), types, ingress, egress).prop_map(|(pods, types, ingress, egress)| {
        json!({"podSelector": pods, "policyTypes": types, "ingress": ingress, "egress": egress})
    })
}

fn build(
    namespaces: &[Option<BTreeMap<&'static str, &'static str>>],
    pods: &[Option<PodSpec>],
    policies: Vec<(usize, Value)>,
) -> State {
    let mut state = State::default();
    for (name, labels) in NAMESPACES.iter().zip(namespaces) {
        if let Some(labels) = labels {
            let raw = json!({"metadata": {"name": name, "labels": labels}});
            state.namespaces.insert((*name).to_owned(), parse(raw));
        }
    }
    for (i, spec) in pods.iter().enumerate() {
        if let Some(spec) = spec {
            add_pod(&mut state, i, spec);
        }
    }
    for (i, (namespace, spec)) in policies.into_iter().enumerate() {
        let (namespace, name) = (NAMESPACES[namespace].to_owned(), format!("p{i}"));
        let raw = json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec});
        state.policies.insert((namespace, name), parse(raw));
    }
    state
}

fn node(i: usize, rack: Option<&str>, control_plane: bool) -> core::Node {
    let addresses = [true, false].map(|v4| json!({"type": "InternalIP", "address": node_address(i, v4)}));
    let mut labels = json!({});
    if let Some(rack) = rack {
        labels["rack"] = json!(rack);
    }
    if control_plane {
        labels["node-role.kubernetes.io/control-plane"] = json!("");
    }
    parse(json!({"metadata": {"name": NODES[i], "labels": labels}, "status": {"addresses": addresses}}))
}

/// A ClusterNetworkPolicy as a type.
pub fn cluster_policy_of<T: serde::de::DeserializeOwned>(name: &str, spec: &Value) -> T {
    parse(json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name}, "spec": spec}))
}

/// A NamespaceIsolation as a type.
pub fn isolation_of<T: serde::de::DeserializeOwned>(name: &str, spec: &Value) -> T {
    parse(
        json!({"apiVersion": "twill.network/v1", "kind": "NamespaceIsolation", "metadata": {"name": name}, "spec": spec}),
    )
}

/// A pod that has run to its end, or has no interface, may claim the address of another; pods that run on an interface never
/// share one, which is what the allocator guarantees.
fn add_pod(state: &mut State, i: usize, spec: &PodSpec) {
    let (namespace, name) = (NAMESPACES[spec.namespace], format!("p{i}"));
    let completed = spec.phase != "Running";
    let mut slot = i;
    if let Some(other) = spec.claims.filter(|_| completed || spec.endpoint == EndpointKind::Missing) {
        slot = other;
    }
    let families: Vec<bool> =
        [(true, 1), (false, 2)].iter().filter(|(_, b)| spec.families & b != 0).map(|x| x.0).collect();
    let ips: Vec<String> = families
        .iter()
        .map(|v4| if spec.host_network { node_address(spec.node, *v4) } else { pod_address(slot, *v4) })
        .collect();
    let uid = format!("{name}-{}", spec.generation);
    let ports: Vec<Value> = spec
        .ports
        .iter()
        .map(|(name, port, protocol)| json!({"name": name, "containerPort": port, "protocol": protocol}))
        .collect();
    let raw = json!({
        "metadata": {"namespace": namespace, "name": name, "uid": uid, "labels": spec.labels,
            "creationTimestamp": format!("2026-01-01T00:0{i}:0{}Z", spec.generation)},
        "spec": {"nodeName": NODES[spec.node], "hostNetwork": spec.host_network,
            "containers": [{"name": "c", "ports": ports}]},
        "status": {"phase": spec.phase, "podIP": ips[0],
            "podIPs": ips.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>()}
    });
    let key = PodKey { namespace: namespace.to_owned(), name: name.clone() };
    if !spec.host_network && spec.endpoint != EndpointKind::Missing {
        let endpoint = Endpoint {
            ifname: interface(namespace, &name),
            pod: key.clone(),
            uid: if spec.endpoint == EndpointKind::Attached { uid } else { "another".to_owned() },
            addresses: ips.iter().filter_map(|ip| ip.parse::<IpAddr>().ok()).collect(),
        };
        state.endpoints.insert(endpoint.ifname.clone(), (NODES[spec.node].to_owned(), endpoint));
    }
    state.pods.insert(key, parse(raw));
}

fn parse<T: serde::de::DeserializeOwned>(raw: Value) -> T {
    serde_json::from_value(raw).expect("a test's own object")
}
