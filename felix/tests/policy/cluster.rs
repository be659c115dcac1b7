//! Evaluator B: every node's compiled ruleset, and the way of a packet through them.

use crate::universe::{State, cluster_policy_of, interface, isolation_of, node_address, nodes_of, tunnels};
use std::collections::BTreeMap;
use std::net::IpAddr;
use twill_felix::base::{Settings, skeleton};
use twill_felix::compile::interpret::{Fate, Packet, interpret};
use twill_felix::compile::{Compiler, Limits};
use twill_felix::index::{Event, Pool};
use twill_felix::model::{
    Isolation, Pod, PodKey, Policy, Protocol, cluster_network_policy, namespace_isolation, namespace_labels,
    network_policy,
};
use twill_felix::ruleset::{Hook, Ruleset};

/// Every node's ruleset, and where addresses are.
pub struct Cluster {
    rulesets: BTreeMap<String, Ruleset>,
    pods: BTreeMap<IpAddr, (PodKey, String)>,
    nodes: BTreeMap<IpAddr, String>,
}

pub fn pools() -> Vec<Pool> {
    let pool = |cidr: &str, nat_outgoing| Pool { cidr: cidr.parse().expect("a test's own pool"), nat_outgoing };
    vec![pool("10.0.0.0/24", true), pool("fd00::/64", false), pool("10.0.0.0/16", false)]
}

/// All selectors share sets, however few.
pub const SHARED: Limits = Limits { share_above: 0, own_below: 0 };

/// A compiler of a node that has heard all of a state, kind by kind.
pub fn compiled(state: &State, node: &str) -> Compiler {
    compiled_within(Limits::default(), state, node)
}

/// The same with other limits.
pub fn compiled_within(limits: Limits, state: &State, node: &str) -> Compiler {
    compiled_from(limits, replaced(state), state, node)
}

/// The same with other policies, which are all.
fn compiled_with(state: &State, node: &str, policies: &[Policy]) -> Compiler {
    let of_policy = |event: &Event| matches!(event, Event::PoliciesReplaced { .. } | Event::IsolationsReplaced(_));
    let others = replaced(state).into_iter().filter(|event| !of_policy(event));
    compiled_from(Limits::default(), others.chain(policies.iter().cloned().map(Event::PolicyApplied)), state, node)
}

fn compiled_from(limits: Limits, events: impl IntoIterator<Item = Event>, state: &State, node: &str) -> Compiler {
    let mut compiler = Compiler::new(skeleton(&Settings::default())).with_limits(limits);
    compiler.apply(Event::PoolsChanged(pools()));
    events.into_iter().for_each(|event| compiler.apply(event));
    for (_, endpoint) in state.endpoints.values().filter(|(of, _)| of == node) {
        compiler.apply(Event::EndpointAttached(endpoint.clone()));
    }
    compiler.commit();
    compiler
}

/// A state's NetworkPolicies in the internal form.
pub fn policies(state: &State) -> Vec<Policy> {
    state.policies.values().map(network_policy).collect()
}

/// Those and the ClusterNetworkPolicies; what NamespaceIsolations make is left out.
pub fn all_policies(state: &State) -> Vec<Policy> {
    policies(state).into_iter().chain(cluster_policies(state)).collect()
}

fn cluster_policies(state: &State) -> impl Iterator<Item = Policy> {
    let read = |(name, spec): (&String, &_)| cluster_network_policy(&cluster_policy_of(name, spec));
    state.cluster_policies.iter().map(read)
}

pub fn isolations(state: &State) -> Vec<Isolation> {
    state.isolations.iter().map(|(name, spec)| namespace_isolation(&isolation_of(name, spec))).collect()
}

/// A state as the events that replace all there was, endpoints apart.
pub fn replaced(state: &State) -> Vec<Event> {
    let namespaces = state.namespaces.iter().map(|(name, raw)| (name.clone(), namespace_labels(raw))).collect();
    vec![
        Event::NodesChanged(nodes_of(state)),
        Event::NamespacesReplaced(namespaces),
        Event::PodsReplaced(state.pods.values().map(Pod::read).collect()),
        Event::PoliciesReplaced { kind: "NetworkPolicy".into(), policies: policies(state) },
        Event::PoliciesReplaced { kind: "ClusterNetworkPolicy".into(), policies: cluster_policies(state).collect() },
        Event::IsolationsReplaced(isolations(state)),
    ]
}

impl Cluster {
    pub fn of(state: &State) -> Self {
        Self::by(state, |node| compiled(state, node))
    }

    /// With sets that selectors share.
    pub fn shared(state: &State) -> Self {
        Self::by(state, |node| compiled_within(SHARED, state, node))
    }

    /// A state with other policies, which are all.
    pub fn with(state: &State, policies: &[Policy]) -> Self {
        Self::by(state, |node| compiled_with(state, node, policies))
    }

    fn by(state: &State, compiled: impl Fn(&str) -> Compiler) -> Self {
        let rulesets = state.nodes.iter().map(|n| {
            let name = n.metadata.name.clone().unwrap_or_default();
            let ruleset = compiled(&name).ruleset().clone();
            ruleset.check().expect("a compiled ruleset is sound");
            (name, ruleset)
        });
        let mut pods = BTreeMap::new();
        for pod in state.pods.values().map(Pod::read).filter(Pod::is_governed) {
            for address in &pod.addresses {
                assert!(
                    pods.insert(*address, (pod.key.clone(), pod.node.clone())).is_none(),
                    "two pods share {address}"
                );
            }
        }
        let node = |i: usize, name: &str| [true, false].map(|v4| (node_address(i, v4).parse(), name.to_owned()));
        let nodes = [node(0, "n1"), node(1, "n2")].into_iter().flatten();
        let nodes = nodes.map(|(a, n)| (a.expect("a node's address"), n));
        let nodes = nodes.chain(tunnels().into_iter().map(|(name, address)| (address, name))).collect();
        Self { rulesets: rulesets.collect(), pods, nodes }
    }

    /// Addresses worth asking about: of pods, of nodes, outside.
    fn addresses(&self) -> Vec<IpAddr> {
        let outside = ["10.0.0.7", "203.0.113.9", "fd00::7", "2001:db8:1::1"].map(|a| a.parse().expect("an address"));
        self.pods.keys().chain(self.nodes.keys()).copied().chain(outside).collect()
    }

    /// All pairs of addresses of one family.
    pub fn pairs(&self) -> Vec<(IpAddr, IpAddr)> {
        let all = self.addresses();
        let of = |src: IpAddr| all.iter().filter(move |d| d.is_ipv4() == src.is_ipv4()).map(move |dst| (src, *dst));
        all.iter().copied().flat_map(of).collect()
    }

    /// Whether the packet arrives.
    pub fn passes(&self, src: IpAddr, dst: IpAddr, protocol: Protocol, port: u16) -> bool {
        if src == dst {
            return true;
        }
        let (from, to) = (self.pods.get(&src), self.pods.get(&dst));
        let uplink = || Some("eth0".to_owned());
        let name = |at: Option<&(PodKey, String)>| at.map(|(key, _)| interface(&key.namespace, &key.name));
        let dst_port = if protocol.has_ports() { port } else { 0 };
        let packet = |in_interface, out_interface| Packet {
            in_interface,
            out_interface,
            src,
            dst,
            protocol: protocol.0,
            src_port: dst_port.min(1) * 40000,
            dst_port,
            came_to: None,
        };
        let goes = |node: &str, hook, packet: Packet| interpret(&self.rulesets[node], hook, &packet) == Fate::Passed;
        match (from, to) {
            (Some((_, a)), Some((_, b))) if a == b => goes(a, Hook::Forward, packet(name(from), name(to))),
            (Some((_, a)), Some((_, b))) => {
                goes(a, Hook::Forward, packet(name(from), uplink()))
                    && goes(b, Hook::Forward, packet(uplink(), name(to)))
            }
            (Some((_, a)), None) if self.nodes.get(&dst) == Some(a) => goes(a, Hook::Input, packet(name(from), None)),
            (Some((_, a)), None) => goes(a, Hook::Forward, packet(name(from), uplink())),
            (None, Some((_, b))) if self.nodes.get(&src) == Some(b) => goes(b, Hook::Output, packet(None, name(to))),
            (None, Some((_, b))) => goes(b, Hook::Forward, packet(uplink(), name(to))),
            (None, None) => true,
        }
    }
}
