//! NetworkPolicy, ClusterNetworkPolicy, NamespaceIsolation and HostPolicy, judged straight from the text of their APIs.
//!
//! In flow raw Kubernetes objects and one packet's ends; out flows whether it may go. See the crate's README for what the
//! APIs leave open. This shares no code with the compiler that it holds to account.

mod block;
mod cluster_policy;
pub mod host;
pub mod isolation;
mod labels;
mod limits;
mod policy;
mod ports;
pub mod v1alpha2;

use isolation::NamespaceIsolation;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use std::net::IpAddr;
use v1alpha2::ClusterNetworkPolicy;

/// Everything that there is.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// Namespaces.
    pub namespaces: Vec<Namespace>,
    /// Pods.
    pub pods: Vec<Pod>,
    /// NetworkPolicies.
    pub policies: Vec<NetworkPolicy>,
    /// ClusterNetworkPolicies of both tiers.
    pub cluster_policies: Vec<ClusterNetworkPolicy>,
    /// NamespaceIsolations.
    pub isolations: Vec<NamespaceIsolation>,
    /// Nodes, for their addresses and labels.
    pub nodes: Vec<Node>,
    /// Addresses that nodes, by name, have in Twill's tunnels.
    pub tunnels: Vec<(String, IpAddr)>,
    /// What is plugged in on the node that judges; empty means: nothing known but the objects.
    pub attachments: Vec<Attachment>,
}

/// An address that the judging node has given to one of its own pods. It counts before what any status says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The address.
    pub address: IpAddr,
    /// Namespace of the pod that has it.
    pub namespace: String,
    /// Name of the pod that has it.
    pub name: String,
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A pod. If both ends have both families, IPv4 is meant; say the address to mean the other.
    Pod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// An address: of a pod, of a node or outside.
    Address(IpAddr),
}

/// What the packet's transport is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// Anything without ports, such as ICMP.
    Other,
}

/// Whether a connection from `src` to `port` of `dst` may be opened. A pod that is not there, or owns no address, neither
/// reaches anything nor is reached.
#[must_use]
pub fn allowed(cluster: &Cluster, src: &Endpoint, dst: &Endpoint, protocol: Protocol, port: u16) -> bool {
    let Some((src, dst)) = addresses(cluster, src, dst) else { return false };
    if src == dst {
        return true;
    }
    let packet = Packet { src: End::at(cluster, src), dst: End::at(cluster, dst), protocol, port };
    let leaves = packet.src.place.pod().is_none_or(|pod| egress_allows(cluster, pod, &packet));
    let enters = match (&packet.src.place, &packet.dst.place) {
        (Place::Node(node), Place::Pod(pod)) if *node == node_of(pod) => true,
        (_, Place::Pod(pod)) => ingress_allows(cluster, pod, &packet),
        (_, Place::Node(_) | Place::Outside) => true,
    };
    leaves && enters
}

/// "Policy tiers are evaluated in the following order: Admin tier, NetworkPolicy tier, Baseline tier. … If a given connection
/// wasn't allowed or denied by any of the tiers, the default kubernetes policy is applied, which says that all pods can
/// communicate with each other."
fn ingress_allows(cluster: &Cluster, pod: &Pod, packet: &Packet<'_>) -> bool {
    cluster_policy::ingress_decides(cluster, "Admin", pod, packet)
        .or_else(|| {
            either(policy::ingress_decides(cluster, pod, packet), isolation::ingress_decides(cluster, pod, packet))
        })
        .or_else(|| cluster_policy::ingress_decides(cluster, "Baseline", pod, packet))
        .unwrap_or(true)
}

/// The same order, for what a pod sends: a decision here leaves the receiver's ingress to be judged.
fn egress_allows(cluster: &Cluster, pod: &Pod, packet: &Packet<'_>) -> bool {
    cluster_policy::egress_decides(cluster, "Admin", pod, packet)
        .or_else(|| {
            either(policy::egress_decides(cluster, pod, packet), isolation::egress_decides(cluster, pod, packet))
        })
        .or_else(|| cluster_policy::egress_decides(cluster, "Baseline", pod, packet))
        .unwrap_or(true)
}

/// Of what only allows beyond its isolation: it passes if one of both lets it, and is open where neither isolates.
fn either(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    a.max(b)
}

/// What is judged.
struct Packet<'a> {
    src: End<'a>,
    dst: End<'a>,
    protocol: Protocol,
    port: u16,
}

/// An address and who is behind it.
struct End<'a> {
    address: IpAddr,
    place: Place<'a>,
}

impl<'a> End<'a> {
    fn at(cluster: &'a Cluster, address: IpAddr) -> Self {
        Self { address, place: Place::at(cluster, address) }
    }
}

/// Who is behind an address.
enum Place<'a> {
    /// A pod with an address of its own.
    Pod(&'a Pod),
    /// The node of this name, or a hostNetwork pod on it.
    Node(&'a str),
    /// Nobody in the cluster.
    Outside,
}

impl<'a> Place<'a> {
    fn at(cluster: &'a Cluster, address: IpAddr) -> Self {
        if let Some(pod) = owner(cluster, address) {
            return Place::Pod(pod);
        }
        let node = cluster.nodes.iter().find(|n| node_addresses(n).contains(&address));
        if let Some(node) = node {
            return Place::Node(node.metadata.name.as_deref().unwrap_or_default());
        }
        if let Some((node, _)) = cluster.tunnels.iter().find(|(_, own)| *own == address) {
            return Place::Node(node);
        }
        let guest =
            cluster.pods.iter().find(|p| is_host_network(p) && !is_completed(p) && pod_addresses(p).contains(&address));
        guest.map_or(Place::Outside, |pod| Place::Node(node_of(pod)))
    }

    fn pod(&self) -> Option<&'a Pod> {
        if let Place::Pod(pod) = self { Some(pod) } else { None }
    }
}

/// The pod that owns an address: the one that is attached here with it, else of those that claim it and live the newest.
fn owner(cluster: &Cluster, address: IpAddr) -> Option<&Pod> {
    let own = |p: &&Pod| !is_host_network(p) && !is_completed(p);
    let attached = |p: &Pod| attachments(cluster, p).any(|a| a == address);
    let here = cluster.pods.iter().filter(own).find(|p| attached(p));
    here.or_else(|| {
        let claimants = cluster.pods.iter().filter(own).filter(|p| pod_addresses(p).contains(&address));
        claimants.max_by_key(|p| {
            let m = &p.metadata;
            (m.creation_timestamp.clone(), m.uid.clone(), m.namespace.clone(), m.name.clone())
        })
    })
}

fn attachments<'a>(cluster: &'a Cluster, pod: &'a Pod) -> impl Iterator<Item = IpAddr> + 'a {
    let is_it = |a: &&Attachment| {
        pod.metadata.namespace.as_ref() == Some(&a.namespace) && pod.metadata.name.as_ref() == Some(&a.name)
    };
    cluster.attachments.iter().filter(is_it).map(|a| a.address)
}

/// The addresses that a connection between both ends would carry; none if one of them has none.
fn addresses(cluster: &Cluster, src: &Endpoint, dst: &Endpoint) -> Option<(IpAddr, IpAddr)> {
    let (from, to) = (addresses_of(cluster, src), addresses_of(cluster, dst));
    let both = |v4: bool| Some((*from.iter().find(|a| a.is_ipv4() == v4)?, *to.iter().find(|a| a.is_ipv4() == v4)?));
    both(true).or_else(|| both(false))
}

fn addresses_of(cluster: &Cluster, end: &Endpoint) -> Vec<IpAddr> {
    let (namespace, name) = match end {
        Endpoint::Address(address) => return vec![*address],
        Endpoint::Pod { namespace, name } => (namespace, name),
    };
    let is_it = |p: &&Pod| {
        p.metadata.namespace.as_ref() == Some(namespace) && p.metadata.name.as_ref() == Some(name) && !is_completed(p)
    };
    let Some(pod) = cluster.pods.iter().find(is_it) else { return Vec::new() };
    if is_host_network(pod) {
        let node = cluster.nodes.iter().find(|n| n.metadata.name.as_deref() == Some(node_of(pod)));
        return pod_addresses(pod).into_iter().chain(node.map(node_addresses).unwrap_or_default()).collect();
    }
    let owns = |a: &IpAddr| owner(cluster, *a).is_some_and(|o| o.metadata == pod.metadata);
    attachments(cluster, pod).chain(pod_addresses(pod)).filter(owns).collect()
}

fn is_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.host_network) == Some(true)
}

fn is_completed(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    phase == Some("Succeeded") || phase == Some("Failed")
}

fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default()
}

/// `status.podIPs`, or `status.podIP` alone.
fn pod_addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else { return Vec::new() };
    let mut found: Vec<IpAddr> = Vec::new();
    for ip in status.pod_ips.iter().flatten() {
        found.extend(ip.ip.parse::<IpAddr>());
    }
    if let Some(ip) = &status.pod_ip {
        found.extend(ip.parse::<IpAddr>());
    }
    found
}

/// `status.addresses` of type InternalIP.
fn node_addresses(node: &Node) -> Vec<IpAddr> {
    let Some(status) = &node.status else { return Vec::new() };
    let internal = status.addresses.iter().flatten().filter(|a| a.type_ == "InternalIP");
    internal.flat_map(|a| a.address.parse::<IpAddr>()).collect()
}
