//! What policy needs to know of pods, namespaces and nodes.

use super::{Few, Labels, Protocol};
use crate::workload::supply::PoolNames;
use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Name of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A port that a container declares under a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedPort {
    /// The name.
    pub name: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The number.
    pub port: u16,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub key: PodKey,
    /// Its UID; empty if it has none.
    pub uid: String,
    /// Its labels.
    pub labels: Labels,
    /// The node it runs on; empty while it is not scheduled.
    pub node: String,
    /// Whether it uses its node's network. No policy ever selects such a pod, as subject or as peer.
    pub host_network: bool,
    /// Whether it has run to its end: it owns no address any more, whatever its status says.
    pub completed: bool,
    /// Addresses from its status, both families.
    pub addresses: Few<IpAddr>,
    /// Named ports of its containers.
    pub ports: Few<NamedPort>,
    /// When it was created, in nanoseconds since 1970.
    pub created: i128,
    /// The pools that it asks for; few pods do.
    pub pools: Option<Box<PoolNames>>,
}

impl Pod {
    /// Reads a pod.
    #[must_use]
    pub fn read(raw: &core::Pod) -> Self {
        let meta = &raw.metadata;
        let spec = raw.spec.as_ref();
        let status = raw.status.as_ref();
        Self {
            key: PodKey {
                namespace: meta.namespace.clone().unwrap_or_default(),
                name: meta.name.clone().unwrap_or_default(),
            },
            uid: meta.uid.clone().unwrap_or_default(),
            labels: Arc::new(meta.labels.clone().unwrap_or_default()),
            node: spec.and_then(|s| s.node_name.clone()).unwrap_or_default(),
            host_network: spec.and_then(|s| s.host_network).unwrap_or_default(),
            completed: matches!(status.and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed")),
            addresses: status.map(addresses).unwrap_or_default(),
            ports: spec.map(ports).unwrap_or_default(),
            created: meta.creation_timestamp.as_ref().map_or(0, |t| t.0.as_nanosecond()),
            pools: meta.annotations.as_ref().and_then(|all| PoolNames::read(|key| all.get(key))).map(Box::new),
        }
    }

    /// Whether policies can select it and sets may hold its addresses.
    #[must_use]
    pub fn is_governed(&self) -> bool {
        !self.host_network && !self.completed
    }
}

/// `podIPs` has both families; `podIP` alone is what old writers leave.
fn addresses(status: &core::PodStatus) -> Few<IpAddr> {
    let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    all.chain(status.pod_ip.as_deref()).filter_map(|ip| ip.parse().ok()).collect()
}

/// Ports of the containers that run as long as the pod does: an init container counts if it is a sidecar.
fn ports(spec: &core::PodSpec) -> Few<NamedPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let all = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    all.filter_map(|port| {
        Some(NamedPort {
            name: port.name.clone().filter(|n| !n.is_empty())?,
            protocol: Protocol::of_port(port.protocol.as_deref()).ok()?,
            port: u16::try_from(port.container_port).ok().filter(|p| *p > 0)?,
        })
    })
    .collect()
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// Its internal addresses, from which other nodes hear it.
    pub addresses: BTreeSet<IpAddr>,
    /// All its addresses, where policy means the node by them.
    pub known_as: BTreeSet<IpAddr>,
    /// Addresses from which it may speak into tunnels.
    pub tunnels: BTreeSet<IpAddr>,
}

/// All nodes, with the addresses that their blocks (owner, range) give them in tunnels: ordinal 0 of a block is no pod's. Which of its blocks
/// it takes the address from is its speaker's affair.
pub fn nodes<'a>(
    nodes: impl Iterator<Item = &'a core::Node>,
    blocks: impl Iterator<Item = (&'a str, IpNet)>,
) -> Vec<Node> {
    let mut tunnels: BTreeMap<&str, BTreeSet<IpAddr>> = BTreeMap::new();
    for (node, block) in blocks {
        tunnels.entry(node).or_default().insert(block.network());
    }
    let with_tunnels = |raw| {
        let node = Node::read(raw);
        Node { tunnels: tunnels.get(node.name.as_str()).cloned().unwrap_or_default(), ..node }
    };
    nodes.map(with_tunnels).collect()
}

impl Node {
    /// Whether its packets may come from there.
    #[must_use]
    pub fn speaks_from(&self, address: IpAddr) -> bool {
        self.known_as.contains(&address) || self.tunnels.contains(&address)
    }

    /// Reads a node. What its blocks give it is not known here: see [`nodes`].
    #[must_use]
    pub fn read(raw: &core::Node) -> Self {
        let all = || raw.status.iter().flat_map(|s| s.addresses.iter().flatten());
        Self {
            name: raw.metadata.name.clone().unwrap_or_default(),
            labels: Arc::new(raw.metadata.labels.clone().unwrap_or_default()),
            addresses: all().filter(|a| a.type_ == "InternalIP").filter_map(|a| a.address.parse().ok()).collect(),
            known_as: all().filter_map(|a| a.address.parse().ok()).collect(),
            tunnels: BTreeSet::new(),
        }
    }
}

/// Labels of a namespace, with the name's own label that an API server sets on every namespace.
#[must_use]
pub fn namespace_labels(raw: &core::Namespace) -> Labels {
    let mut labels: BTreeMap<String, String> = raw.metadata.labels.clone().unwrap_or_default();
    labels.insert("kubernetes.io/metadata.name".to_owned(), raw.metadata.name.clone().unwrap_or_default());
    Arc::new(labels)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value, status: serde_json::Value) -> Pod {
        let raw = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"},
            "spec": spec, "status": status});
        Pod::read(&serde_json::from_value(raw).unwrap())
    }

    #[test]
    fn both_families_count_and_a_completed_pod_is_not_governed() {
        let containers = json!({"containers": [{"name": "c"}]});
        let running =
            pod(containers.clone(), json!({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}));
        assert_eq!(running.addresses.len(), 2);
        assert!(running.is_governed());
        for phase in ["Succeeded", "Failed"] {
            assert!(!pod(containers.clone(), json!({"podIP": "10.0.0.1", "phase": phase})).is_governed());
        }
        assert!(!pod(json!({"hostNetwork": true, "containers": [{"name": "c"}]}), json!({})).is_governed());
    }

    #[test]
    fn named_ports_default_to_tcp_and_come_from_containers_and_sidecars_only() {
        let pod = pod(
            json!({
                "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 80}, {"containerPort": 81}]}],
                "initContainers": [
                    {"name": "i", "ports": [{"name": "init", "containerPort": 82}]},
                    {"name": "s", "restartPolicy": "Always",
                     "ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}]}
                ]
            }),
            json!({}),
        );
        let names: Vec<_> = pod.ports.iter().map(|p| (p.name.as_str(), p.protocol, p.port)).collect();
        assert_eq!(names, [("dns", Protocol::UDP, 53), ("web", Protocol::TCP, 80)]);
    }
}
