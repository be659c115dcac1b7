//! NetworkPolicy, judged straight from the text of the API.
//!
//! In flow raw Kubernetes objects and one packet's ends; out flows whether it may go. See the crate's README for what the
//! API leaves open. This shares no code with the compiler that it holds to account.

mod block;
mod labels;
mod policy;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use std::net::IpAddr;

/// Everything that there is.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// Namespaces.
    pub namespaces: Vec<Namespace>,
    /// Pods.
    pub pods: Vec<Pod>,
    /// Policies.
    pub policies: Vec<NetworkPolicy>,
    /// Nodes, for their addresses.
    pub nodes: Vec<Node>,
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
    let from = Place::at(cluster, src);
    let to = Place::at(cluster, dst);
    if src == dst {
        return true;
    }
    let leaves = match &from {
        Place::Pod(pod) => policy::egress_allows(cluster, pod, dst, &to, protocol, port),
        Place::Node(_) | Place::Outside => true,
    };
    let enters = match (&from, &to) {
        (Place::Node(node), Place::Pod(pod)) if *node == node_of(pod) => true,
        (_, Place::Pod(pod)) => policy::ingress_allows(cluster, pod, src, &from, protocol, port),
        (_, Place::Node(_) | Place::Outside) => true,
    };
    leaves && enters
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
        let guest =
            cluster.pods.iter().find(|p| is_host_network(p) && !is_completed(p) && pod_addresses(p).contains(&address));
        guest.map_or(Place::Outside, |pod| Place::Node(node_of(pod)))
    }
}

/// The pod that owns an address: of those that claim it and live, the newest.
fn owner(cluster: &Cluster, address: IpAddr) -> Option<&Pod> {
    let claimants =
        cluster.pods.iter().filter(|p| !is_host_network(p) && !is_completed(p) && pod_addresses(p).contains(&address));
    claimants.max_by_key(|p| {
        let m = &p.metadata;
        (m.creation_timestamp.clone(), m.uid.clone(), m.namespace.clone(), m.name.clone())
    })
}

/// The addresses that a connection between both ends would carry; none if one of them has none.
fn addresses(cluster: &Cluster, src: &Endpoint, dst: &Endpoint) -> Option<(IpAddr, IpAddr)> {
    let of = |end: &Endpoint| -> Vec<IpAddr> {
        match end {
            Endpoint::Address(address) => vec![*address],
            Endpoint::Pod { namespace, name } => {
                let is_it = |p: &&Pod| {
                    p.metadata.namespace.as_ref() == Some(namespace)
                        && p.metadata.name.as_ref() == Some(name)
                        && !is_completed(p)
                };
                let Some(pod) = cluster.pods.iter().find(is_it) else { return Vec::new() };
                if is_host_network(pod) {
                    let node = cluster.nodes.iter().find(|n| n.metadata.name.as_deref() == Some(node_of(pod)));
                    let own = pod_addresses(pod);
                    return own.into_iter().chain(node.map(node_addresses).unwrap_or_default()).collect();
                }
                let owns = |a: &IpAddr| owner(cluster, *a).is_some_and(|o| o.metadata == pod.metadata);
                pod_addresses(pod).into_iter().filter(owns).collect()
            }
        }
    };
    let (from, to) = (of(src), of(dst));
    let both = |v4: bool| Some((*from.iter().find(|a| a.is_ipv4() == v4)?, *to.iter().find(|a| a.is_ipv4() == v4)?));
    both(true).or_else(|| both(false))
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
