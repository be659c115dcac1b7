//! Everything that counts for policy, and who is behind an address.

use super::host::Usual;
use super::hostport::{HostPort, host_ports};
use super::nat::Pools;
use super::policies::Policies;
use super::service::{ServicePort, service_ports};
use super::told::Told;
use super::tunnel::{Fabric, Tunnels};
use crate::host::ports::Ports;
use crate::model::{
    Direction, HostPolicy, Isolation, Labels, Node, Pod, PodKey, Policy, PolicyKey, Selector, cluster_network_policy,
    host_policy, namespace_isolation, namespace_labels, network_policy, nodes,
};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use twill_crds::node_address::internal_ips;
use twill_crds::{self as crds, ClusterNetworkPolicy, NamespaceIsolation, Object as _};

/// All pods, namespaces, policies and nodes at one moment.
#[derive(Clone, Debug, Default)]
pub struct Universe {
    pub(super) pods: BTreeMap<PodKey, Pod>,
    pub(super) namespaces: BTreeMap<String, Labels>,
    pub(super) policies: Policies,
    /// What rules are called that have a name.
    pub(super) names: BTreeMap<(PolicyKey, Direction, usize), String>,
    pub(super) nodes: BTreeMap<String, Node>,
    /// Their own addresses, those by which they are known first.
    pub(super) known_by: BTreeMap<String, Vec<IpAddr>>,
    pub(super) owners: BTreeMap<IpAddr, PodKey>,
    pub(super) hosts: BTreeMap<IpAddr, String>,
    /// Nodes by all addresses by which policy means them.
    pub(super) known_as: BTreeMap<IpAddr, BTreeSet<String>>,
    /// Nodes by all addresses from which they may send.
    senders: BTreeMap<IpAddr, BTreeSet<String>>,
    /// In the order in which they are judged.
    pub(super) host_policies: Vec<HostPolicy>,
    /// Ports of nodes that lead to pods.
    pub(super) host_ports: Vec<HostPort>,
    /// Where ports of Services lead.
    pub(super) services: Vec<ServicePort>,
    /// What of pods is hidden behind their nodes.
    pub(super) pools: Pools,
    /// What travels between nodes in other packets.
    pub(super) tunnels: Tunnels,
    /// What nodes say of themselves.
    pub(super) told: BTreeMap<String, Told>,
    /// What nodes need that have not been asked.
    pub(super) usual: Usual,
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
    /// Pools, for natOutgoing and encapsulation.
    pub pools: &'a [crds::IPPool],
    /// The one named `default` counts, for the ports of VXLAN and BGP and for who the next hops are.
    pub bgp_configurations: &'a [crds::BGPConfiguration],
    /// Services, for their addresses and NodePorts.
    pub services: &'a [core::Service],
    /// Where these lead; without any for a Service, to the pods that it selects.
    pub endpoint_slices: &'a [crds::EndpointSlice],
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
        let of_model = Self::of(pods, namespaces, policies, nodes(objects.nodes.iter(), blocks));
        let fabric = Fabric::of(objects.bgp_configurations);
        let status =
            objects.bgp_configurations.iter().find(|one| one.name() == "default").and_then(|one| one.status.as_ref());
        let chosen = |node: &core::Node| status.map(|status| status.chosen_by(node.name())).unwrap_or_default();
        let known_by =
            objects.nodes.iter().map(|node| (node.name().to_owned(), internal_ips(node, chosen(node)))).collect();
        // Of pools that overlap, the oldest, as for nodes.
        let pools = crds::ippool::accepted(objects.pools).0;
        Self {
            usual: Usual::of(of_model.nodes.values(), &fabric.ports),
            tunnels: Tunnels::of(&pools, objects.blocks, fabric),
            known_by,
            problems,
            names,
            host_policies,
            pools: Pools::of(&pools),
            host_ports: host_ports(objects.pods),
            services: service_ports(objects.services, objects.endpoint_slices, &of_model.pods),
            ..of_model
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
        let policies = policies.into_iter().collect();
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
            universe.known_by.insert(node.name.clone(), node.addresses.iter().copied().collect());
            let all = node.addresses.iter().chain(&node.tunnels);
            universe.hosts.extend(all.map(|a| (*a, node.name.clone())));
            for address in &node.known_as {
                universe.known_as.entry(*address).or_default().insert(node.name.clone());
            }
            for address in node.known_as.iter().chain(&node.tunnels) {
                universe.senders.entry(*address).or_default().insert(node.name.clone());
            }
        }
        Self { usual: Usual::of(nodes.values(), &Ports::default()), pods, nodes, ..universe }
    }

    /// What is wrong with policies, one sentence each.
    pub fn problems(&self) -> impl Iterator<Item = &str> {
        let policies = self.policies.iter().chain(self.host_policies.iter().map(|policy| &policy.rules));
        policies.flat_map(|p| &p.problems).chain(&self.problems).map(String::as_str)
    }

    /// Whether an address is one of the selected nodes'.
    pub(super) fn is_node(&self, selector: &Selector, address: IpAddr) -> bool {
        self.is_one_of(&self.known_as, selector, address)
    }

    /// The address of a family by which a node is known.
    pub(super) fn address_of_node(&self, node: &str, v4: bool) -> Option<IpAddr> {
        self.known_by.get(node)?.iter().copied().find(|address| address.is_ipv4() == v4)
    }

    /// Whether one of the selected nodes may send from an address.
    pub(super) fn is_sender(&self, selector: &Selector, address: IpAddr) -> bool {
        self.is_one_of(&self.senders, selector, address)
    }

    fn is_one_of(&self, all: &BTreeMap<IpAddr, BTreeSet<String>>, selector: &Selector, address: IpAddr) -> bool {
        let named = all.get(&address).into_iter().flatten();
        named.filter_map(|name| self.nodes.get(name)).any(|node| selector.matches(&node.labels))
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
