//! Everything that counts for policy, and who is behind an address.

use super::host::{AtHost, Crossing};
use super::hostport::{HostPort, host_ports};
use super::judge::{Judgement, judge};
use super::packet::Packet;
use super::story::Explanation;
use crate::host::Failsafe;
use crate::model::{
    Direction, HostPolicy, Isolation, Labels, Node, Pod, PodKey, Policy, PolicyKey, Protocol, Selector, Way,
    cluster_network_policy, host_policy, namespace_isolation, namespace_labels, network_policy, nodes,
};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use twill_crds::{self as crds, ClusterNetworkPolicy, NamespaceIsolation};

/// All pods, namespaces, policies and nodes at one moment.
#[derive(Clone, Debug, Default)]
pub struct Universe {
    pub(super) pods: BTreeMap<PodKey, Pod>,
    pub(super) namespaces: BTreeMap<String, Labels>,
    pub(super) policies: Vec<Policy>,
    /// What rules are called that have a name.
    pub(super) names: BTreeMap<(PolicyKey, Direction, usize), String>,
    pub(super) nodes: BTreeMap<String, Node>,
    pub(super) owners: BTreeMap<IpAddr, PodKey>,
    pub(super) hosts: BTreeMap<IpAddr, String>,
    /// In the order in which they are judged.
    pub(super) host_policies: Vec<HostPolicy>,
    /// Ports of nodes that lead to pods.
    pub(super) host_ports: Vec<HostPort>,
    /// What nodes say that they need.
    pub(super) failsafes: BTreeMap<String, Vec<Failsafe>>,
    /// Problems of objects that are not told by one policy.
    problems: Vec<String>,
}

/// All objects that policy depends on, as the datastore has them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Objects<'a> {
    /// Pods.
    pub pods: &'a [core::Pod],
    /// Namespaces.
    pub namespaces: &'a [core::Namespace],
    /// NetworkPolicies.
    pub network_policies: &'a [NetworkPolicy],
    /// ClusterNetworkPolicies.
    pub cluster_network_policies: &'a [ClusterNetworkPolicy],
    /// NamespaceIsolations.
    pub namespace_isolations: &'a [NamespaceIsolation],
    /// HostPolicies.
    pub host_policies: &'a [crds::HostPolicy],
    /// Nodes.
    pub nodes: &'a [core::Node],
    /// Blocks, which give nodes their addresses in tunnels.
    pub blocks: &'a [crds::IPBlock],
}

/// One end of a connection, as a person names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Party {
    /// A pod. Where both ends have both families, IPv4 is meant; name an address to mean the other.
    Pod(PodKey),
    /// An address: of a pod, of a node, or outside.
    Address(IpAddr),
}

impl FromStr for Party {
    type Err = String;

    /// `NAMESPACE/NAME` or an address.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self::Pod(PodKey { namespace: namespace.to_owned(), name: name.to_owned() }))
            }
            _ => Err(format!("{text:?} is neither NAMESPACE/POD nor an address")),
        }
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(key) => write!(f, "{key}"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

/// A question about a pod that is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no pod {0}; `twill get pods` lists them")]
pub struct UnknownParty(pub PodKey);

/// One end of a connection, found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// A pod with a network of its own.
    Pod {
        /// The pod.
        pod: Pod,
        /// The address that counts.
        address: IpAddr,
    },
    /// A node, or a pod in its network.
    Node {
        /// Name of the node.
        node: String,
        /// The hostNetwork pod that was meant, if it was one.
        pod: Option<PodKey>,
        /// The address that counts.
        address: IpAddr,
    },
    /// Outside the cluster.
    Outside(IpAddr),
    /// A pod that has no address, or none of the other end's family.
    Nowhere {
        /// The pod.
        pod: PodKey,
        /// Why, as the rest of a sentence.
        why: String,
    },
}

impl Side {
    /// Whether it is a node, or a pod that runs there.
    fn is_on(&self, node: &str) -> bool {
        match self {
            Self::Pod { pod, .. } => pod.node == node,
            Self::Node { node: own, .. } => own == node,
            Self::Outside(_) | Self::Nowhere { .. } => false,
        }
    }

    /// Its address, unless it is nowhere.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Pod { address, .. } | Self::Node { address, .. } | Self::Outside(address) => Some(*address),
            Self::Nowhere { .. } => None,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod { pod, address } => write!(f, "{} ({address})", pod.key),
            Self::Node { node, pod: Some(pod), address } => write!(f, "{pod} (hostNetwork on node {node}, {address})"),
            Self::Node { node, pod: None, address } => write!(f, "node {node} ({address})"),
            Self::Outside(address) => write!(f, "{address} (outside the cluster)"),
            Self::Nowhere { pod, .. } => write!(f, "{pod}"),
        }
    }
}

impl Universe {
    /// Reads everything.
    #[must_use]
    pub fn new(objects: &Objects<'_>) -> Self {
        let named = |namespace: &core::Namespace| namespace.metadata.name.clone().unwrap_or_default();
        let namespaces: BTreeMap<String, Labels> =
            objects.namespaces.iter().map(|one| (named(one), namespace_labels(one))).collect();
        let pods: Vec<Pod> = objects.pods.iter().map(Pod::read).collect();
        let isolations: Vec<Isolation> = objects.namespace_isolations.iter().map(namespace_isolation).collect();
        let policies = objects.network_policies.iter().map(network_policy);
        let policies = policies.chain(objects.cluster_network_policies.iter().map(cluster_network_policy));
        let policies: Vec<Policy> = policies.chain(isolating(&isolations, &namespaces, &pods)).collect();
        let problems = isolations.into_iter().flat_map(|one| one.problems).collect();
        let names = objects.cluster_network_policies.iter().flat_map(rule_names).collect();
        let mut host_policies: Vec<HostPolicy> = objects.host_policies.iter().map(host_policy).collect();
        host_policies.sort_by(|a, b| a.rules.order().cmp(&b.rules.order()));
        let blocks = objects.blocks.iter().map(|block| (block.spec.node.as_str(), block.spec.cidr));
        Self {
            problems,
            names,
            host_policies,
            host_ports: host_ports(objects.pods),
            ..Self::of(pods, namespaces, policies, nodes(objects.nodes.iter(), blocks))
        }
    }

    /// The same from the model's own values; policies may be of any tier.
    #[must_use]
    pub fn of(
        pods: impl IntoIterator<Item = Pod>,
        namespaces: BTreeMap<String, Labels>,
        policies: impl IntoIterator<Item = Policy>,
        nodes: impl IntoIterator<Item = Node>,
    ) -> Self {
        let pods: BTreeMap<PodKey, Pod> = pods.into_iter().map(|p| (p.key.clone(), p)).collect();
        let mut policies: Vec<Policy> = policies.into_iter().collect();
        policies.sort_by(|a, b| a.order().cmp(&b.order()));
        let nodes: BTreeMap<String, Node> = nodes.into_iter().map(|n| (n.name.clone(), n)).collect();
        let mut universe = Self { namespaces, policies, ..Self::default() };
        let mut by_age: Vec<&Pod> = pods.values().filter(|p| !p.completed).collect();
        by_age.sort_by_key(|p| (p.created, &p.uid, &p.key));
        for pod in by_age {
            for address in &pod.addresses {
                if pod.host_network {
                    universe.hosts.insert(*address, pod.node.clone());
                } else {
                    universe.owners.insert(*address, pod.key.clone());
                }
            }
        }
        for node in nodes.values() {
            let all = node.addresses.iter().chain(&node.tunnels);
            universe.hosts.extend(all.map(|a| (*a, node.name.clone())));
        }
        Self { pods, nodes, ..universe }
    }

    /// What is wrong with policies, one sentence each.
    pub fn problems(&self) -> impl Iterator<Item = &str> {
        let policies = self.policies.iter().chain(self.host_policies.iter().map(|policy| &policy.rules));
        policies.flat_map(|p| &p.problems).chain(&self.problems).map(String::as_str)
    }

    /// Whether an address is one of the selected nodes'.
    pub(super) fn is_node(&self, selector: &Selector, address: IpAddr) -> bool {
        self.nodes.values().any(|node| node.known_as.contains(&address) && selector.matches(&node.labels))
    }

    /// Whether one of the selected nodes may send from an address.
    pub(super) fn is_sender(&self, selector: &Selector, address: IpAddr) -> bool {
        self.nodes.values().any(|node| node.speaks_from(address) && selector.matches(&node.labels))
    }

    /// Whether a connection from `src` to `port` of `dst` may be opened, and why. For protocols without ports `port` does not
    /// count.
    ///
    /// # Errors
    /// A pod that is named does not exist.
    pub fn explain(
        &self,
        src: &Party,
        dst: &Party,
        port: u16,
        protocol: Protocol,
    ) -> Result<Explanation, UnknownParty> {
        self.explain_by(src, dst, port, protocol, &Crossing::default())
    }

    /// The same of one that takes this way.
    ///
    /// # Errors
    /// A pod that is named does not exist.
    pub fn explain_by(
        &self,
        src: &Party,
        dst: &Party,
        port: u16,
        protocol: Protocol,
        way: &Crossing,
    ) -> Result<Explanation, UnknownParty> {
        let led = if way.came_to.is_none() { self.led_to(dst, port, protocol) } else { None };
        if let Some(led) = led {
            let came_to = Some((led.node.clone(), port));
            let way = Crossing { came_to: came_to.clone(), ..way.clone() };
            let explained = self.explain_by(src, &led.to, led.port, protocol, &way)?;
            return Ok(Explanation { host_port: came_to, ..explained });
        }
        let (src, dst) = self.sides(src, dst)?;
        let interface = way.interface.as_deref();
        let egress = self.egress(&src, &dst, (port, protocol), way);
        let ingress = self.ingress(&src, &dst, (port, protocol), way);
        let through = way.came_to.as_ref().map(|(node, port)| self.through(&src, node, (*port, protocol), interface));
        let steps = [Some(&egress), Some(&ingress), through.as_ref()];
        let allowed = steps.into_iter().flatten().all(Judgement::allows);
        Ok(Explanation { allowed, src, dst, port, protocol, egress, ingress, through, host_port: None })
    }

    fn egress(&self, src: &Side, dst: &Side, (port, protocol): (u16, Protocol), way: &Crossing) -> Judgement {
        let interface = way.interface.as_deref();
        match (src, dst) {
            (Side::Nowhere { pod, why }, _) => Judgement::Impossible(format!("{pod} {why}")),
            (_, Side::Nowhere { .. }) => Judgement::NotJudged("nothing can be sent there".to_owned()),
            (Side::Pod { pod: a, .. }, Side::Pod { pod: b, .. }) if a.key == b.key && way.came_to.is_none() => {
                Judgement::NotJudged("a pod's packets to itself never leave it".to_owned())
            }
            (Side::Pod { pod, .. }, _) => judge(&self.packet(Direction::Egress, pod, dst, dst, (port, protocol))),
            (Side::Node { node, .. }, _) if dst.is_on(node) => {
                Judgement::NotJudged("it does not leave the node".to_owned())
            }
            (Side::Node { node, .. }, _) => {
                self.judge_at_host(&AtHost { node, way: Way::Out, port, protocol, interface }, dst)
            }
            (Side::Outside(_), _) => Judgement::NotJudged("the sender is outside the cluster".to_owned()),
        }
    }

    fn ingress(&self, src: &Side, dst: &Side, (port, protocol): (u16, Protocol), way: &Crossing) -> Judgement {
        match (src, dst) {
            (_, Side::Nowhere { pod, why }) => Judgement::Impossible(format!("{pod} {why}")),
            (Side::Nowhere { .. }, _) => Judgement::NotJudged("nothing arrives".to_owned()),
            (Side::Pod { pod: a, .. }, Side::Pod { pod: b, .. }) if a.key == b.key && way.came_to.is_none() => {
                Judgement::NotJudged("a pod's packets to itself never leave it".to_owned())
            }
            (Side::Node { node, .. }, Side::Pod { pod, .. }) if *node == pod.node => {
                Judgement::NotJudged("a node always reaches its own pods".to_owned())
            }
            (_, Side::Pod { pod, .. }) => judge(&self.packet(Direction::Ingress, pod, src, dst, (port, protocol))),
            (_, Side::Node { node, .. }) if src.is_on(node) => {
                Judgement::NotJudged("HostPolicies are not about what stays on the node".to_owned())
            }
            (_, Side::Node { node, .. }) => {
                let interface = way.interface.as_deref();
                self.judge_at_host(&AtHost { node, way: Way::In, port, protocol, interface }, src)
            }
            (_, Side::Outside(_)) => Judgement::NotJudged("the receiver is outside the cluster".to_owned()),
        }
    }

    /// At the node that sends it on to its receiver.
    fn through(&self, src: &Side, node: &str, (port, protocol): (u16, Protocol), interface: Option<&str>) -> Judgement {
        if !self.nodes.contains_key(node) {
            return Judgement::Impossible(format!("there is no node {node}"));
        }
        if src.is_on(node) {
            return Judgement::NotJudged("HostPolicies are not about what begins on the node".to_owned());
        }
        self.judge_at_host(&AtHost { node, way: Way::Through, port, protocol, interface }, src)
    }

    /// One direction of a connection, ready to be judged.
    pub(super) fn packet<'a>(
        &'a self,
        direction: Direction,
        subject: &'a Pod,
        peer: &'a Side,
        dst: &'a Side,
        (port, protocol): (u16, Protocol),
    ) -> Packet<'a> {
        Packet { universe: self, direction, subject: Some(subject), peer, dst, port, protocol }
    }

    /// Both ends with addresses of one family.
    fn sides(&self, src: &Party, dst: &Party) -> Result<(Side, Side), UnknownParty> {
        let (from, to) = (self.addresses(src)?, self.addresses(dst)?);
        let of_family = |all: &[IpAddr], v4: bool| all.iter().copied().find(|a| a.is_ipv4() == v4);
        let both = [true, false].into_iter().find_map(|v4| Some((of_family(&from, v4)?, of_family(&to, v4)?)));
        Ok(match both {
            Some((a, b)) => (self.side(src, a), self.side(dst, b)),
            None => (self.lone_side(src, &from, &to), self.lone_side(dst, &to, &from)),
        })
    }

    fn addresses(&self, party: &Party) -> Result<Vec<IpAddr>, UnknownParty> {
        let key = match party {
            Party::Address(address) => return Ok(vec![*address]),
            Party::Pod(key) => key,
        };
        let pod = self.pods.get(key).ok_or_else(|| UnknownParty(key.clone()))?;
        if pod.completed {
            return Ok(Vec::new());
        }
        if pod.host_network {
            let node = self.nodes.get(&pod.node).into_iter().flat_map(|n| n.addresses.iter());
            return Ok(pod.addresses.iter().chain(node).copied().collect());
        }
        Ok(pod.addresses.iter().filter(|a| self.owners.get(a) == Some(key)).copied().collect())
    }

    fn side(&self, party: &Party, address: IpAddr) -> Side {
        if let Party::Pod(key) = party
            && let Some(pod) = self.pods.get(key).filter(|p| p.host_network)
        {
            return Side::Node { node: pod.node.clone(), pod: Some(key.clone()), address };
        }
        self.behind(address)
    }

    /// Who has an address.
    pub(super) fn behind(&self, address: IpAddr) -> Side {
        if let Some(pod) = self.owners.get(&address).and_then(|key| self.pods.get(key)) {
            return Side::Pod { pod: pod.clone(), address };
        }
        match self.hosts.get(&address) {
            Some(node) => Side::Node { node: node.clone(), pod: None, address },
            None => Side::Outside(address),
        }
    }

    /// One end of a pair that has no common family.
    fn lone_side(&self, party: &Party, own: &[IpAddr], other: &[IpAddr]) -> Side {
        match (party, own.first()) {
            (Party::Pod(key), None) => {
                let pod = self.pods.get(key);
                let why = match pod {
                    Some(p) if p.completed => "has run to its end and owns no address",
                    Some(p) if p.addresses.is_empty() => "has no address yet",
                    _ => "claims an address that a newer pod owns",
                };
                Side::Nowhere { pod: key.clone(), why: why.to_owned() }
            }
            (Party::Pod(key), Some(own)) if !other.is_empty() => {
                let family = if own.is_ipv4() { "IPv4" } else { "IPv6" };
                Side::Nowhere { pod: key.clone(), why: format!("has only {family}, the other end has not") }
            }
            (_, Some(own)) => self.side(party, *own),
            (Party::Address(address), None) => self.side(party, *address),
        }
    }
}

/// The policies of NamespaceIsolations: of each namespace that there is, or that a pod is in.
fn isolating(isolations: &[Isolation], namespaces: &BTreeMap<String, Labels>, pods: &[Pod]) -> Vec<Policy> {
    let names: BTreeSet<&String> = namespaces.keys().chain(pods.iter().map(|pod| &pod.key.namespace)).collect();
    let selected = |name: &String| {
        let labels = namespaces.get(name).map(AsRef::as_ref);
        let of = isolations.iter().filter(move |one| one.selects(name, labels));
        of.map(|one| one.policy(name)).collect::<Vec<_>>()
    };
    names.into_iter().flat_map(selected).collect()
}

/// The names that a ClusterNetworkPolicy gives its rules.
pub(super) fn rule_names(raw: &ClusterNetworkPolicy) -> Vec<((PolicyKey, Direction, usize), String)> {
    let key = cluster_network_policy(raw).key;
    let ingress =
        raw.spec.ingress.iter().map(|rule| &rule.name).enumerate().map(|(i, name)| (Direction::Ingress, i, name));
    let egress =
        raw.spec.egress.iter().map(|rule| &rule.name).enumerate().map(|(i, name)| (Direction::Egress, i, name));
    let named = ingress.chain(egress).filter_map(|(direction, i, name)| {
        let name = name.clone().filter(|name| !name.is_empty())?;
        Some(((key.clone(), direction, i), name))
    });
    named.collect()
}
