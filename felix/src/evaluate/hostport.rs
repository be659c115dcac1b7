//! Ports of nodes that lead to pods (`hostPort`), as the pods' specs have them.

use super::party::{Party, Side};
use super::universe::Universe;
use crate::model::{PodKey, Protocol};
use k8s_openapi::api::core::v1 as core;
use std::net::IpAddr;

/// One port of a node that leads to a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostPort {
    pod: PodKey,
    /// The node's address that it is a port of; none: every address.
    at: Option<IpAddr>,
    host_port: u16,
    container_port: u16,
    protocol: Protocol,
}

/// Where a port of a node leads.
pub(super) struct Led {
    /// The node.
    pub(super) node: String,
    /// The pod's address, of the family that was asked for.
    pub(super) to: Party,
    /// The pod's port.
    pub(super) port: u16,
}

/// All of them; of pods in their node's network there are none, for these have the node's ports themselves.
pub(super) fn host_ports(pods: &[core::Pod]) -> Vec<HostPort> {
    let own = pods.iter().filter(|pod| pod.spec.as_ref().is_some_and(|spec| spec.host_network != Some(true)));
    own.flat_map(of_pod).collect()
}

fn of_pod(pod: &core::Pod) -> Vec<HostPort> {
    let key = PodKey {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        name: pod.metadata.name.clone().unwrap_or_default(),
    };
    // A runtime maps ports of init containers, too: it asks for the sandbox, which all share.
    let containers =
        pod.spec.iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let read = |port: &core::ContainerPort| {
        let number = |port: i32| u16::try_from(port).ok().filter(|port| *port > 0);
        let at = port.host_ip.as_deref().filter(|text| !text.is_empty()).map(str::parse::<IpAddr>).transpose().ok()?;
        Some(HostPort {
            pod: key.clone(),
            at,
            host_port: number(port.host_port?)?,
            container_port: number(port.container_port)?,
            protocol: Protocol::of_port(port.protocol.as_deref()).ok()?,
        })
    };
    ports.filter_map(read).collect()
}

impl Universe {
    /// Where a connection to a port of a node's address is sent on to; none if no pod there has that port.
    pub(super) fn led_to(&self, dst: &Side, port: u16, protocol: Protocol) -> Option<Led> {
        let Side::Node { node, pod: None, address } = dst else { return None };
        let specific = |one: &HostPort| one.at.is_some_and(|at| !at.is_unspecified());
        let about = |one: &&HostPort| {
            let at = one.at.is_none_or(|at| at == *address || at.is_unspecified() && at.is_ipv4() == address.is_ipv4());
            at && (one.host_port, one.protocol) == (port, protocol)
        };
        // One address before all; of two who claim the same, felix serves who came first.
        let live = self.host_ports.iter().filter(about).filter_map(|one| {
            let pod = self.pods.get(&one.pod).filter(|pod| !pod.completed && pod.node == *node)?;
            let mine = |own: &&IpAddr| own.is_ipv4() == address.is_ipv4() && self.owners.get(*own) == Some(&pod.key);
            Some((one, pod, *pod.addresses.iter().find(mine)?))
        });
        let (one, _, to) = live.min_by_key(|(one, pod, _)| (!specific(one), pod.created, &pod.uid))?;
        Some(Led { node: node.clone(), to: Party::Address(to), port: one.container_port })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::universe::Objects;
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, node: &str, ip: &str, port: Value) -> core::Pod {
        let pod = json!({
            "metadata": {"namespace": "shop", "name": name, "uid": name, "labels": {"app": name}},
            "spec": {"nodeName": node, "containers": [{"name": "c", "ports": [port]}]},
            "status": {"phase": "Running", "podIPs": [{"ip": ip}]},
        });
        serde_json::from_value(pod).unwrap()
    }

    fn explained(src: &str, dst: &str, port: u16) -> String {
        let pods = [
            pod("web", "n1", "10.42.1.5", json!({"hostPort": 80, "containerPort": 8080})),
            pod("one", "n1", "10.42.1.6", json!({"hostPort": 80, "containerPort": 1, "hostIP": "172.31.1.12"})),
            pod("away", "n2", "10.42.2.5", json!({"hostPort": 81, "containerPort": 8080})),
            pod("other", "n1", "10.42.1.7", json!({"containerPort": 80})),
        ];
        let node = |name: &str, ips: [&str; 2]| {
            let addresses: Vec<Value> = ips.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
            serde_json::from_value(json!({"metadata": {"name": name}, "status": {"addresses": addresses}})).unwrap()
        };
        let nodes = [node("n1", ["172.31.1.11", "172.31.1.12"]), node("n2", ["172.31.1.21", "172.31.1.22"])];
        let policy = json!({
            "metadata": {"namespace": "shop", "name": "web"},
            "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}], "ports": [{"port": 8080}]}]},
        });
        let policies = [serde_json::from_value(policy).unwrap()];
        let objects = Objects { pods: &pods, nodes: &nodes, network_policies: &policies, ..Objects::default() };
        let explanation =
            Universe::new(&objects).explain(&src.parse().unwrap(), &dst.parse().unwrap(), port, Protocol::TCP);
        explanation.unwrap().to_string()
    }

    #[test]
    fn a_port_of_a_node_is_judged_as_the_pod_that_it_leads_to() {
        let outside = explained("192.0.2.9", "172.31.1.11", 80);
        let first =
            "192.0.2.9 (outside the cluster) -> shop/web (10.42.1.5) 8080/TCP, the hostPort 80 of node n1: allowed";
        assert!(outside.starts_with(first), "{outside}");
        assert!(
            outside.contains("through  allowed") && outside.contains("allowed by NetworkPolicy shop/web ingress[0]"),
            "{outside}"
        );
        for (src, dst, port, says) in [
            ("203.0.113.9", "172.31.1.11", 80, "of node n1: denied"),
            ("shop/other", "172.31.1.11", 80, "of node n1: denied"),
            ("shop/web", "172.31.1.11", 80, "of node n1: denied"),
            ("172.31.1.11", "172.31.1.11", 80, "of node n1: allowed"),
            ("203.0.113.9", "172.31.1.12", 80, "shop/one (10.42.1.6) 1/TCP, the hostPort 80 of node n1: allowed"),
            ("203.0.113.9", "172.31.1.21", 81, "shop/away (10.42.2.5) 8080/TCP, the hostPort 81 of node n2: allowed"),
            ("203.0.113.9", "172.31.1.11", 81, "node n1 (172.31.1.11) 81/TCP: allowed"),
            ("203.0.113.9", "10.42.1.5", 80, "shop/web (10.42.1.5) 80/TCP: denied"),
        ] {
            let story = explained(src, dst, port);
            assert!(story.lines().next().unwrap().contains(says), "{story}");
        }
    }
}
