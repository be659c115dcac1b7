//! Services, with the rules that kube-proxy has for them in its mode nftables: in flow Services, out flow objects and rules.

use serde_json::{Value, json};
use std::fmt::Write;
use std::net::IpAddr;

/// A Service with one port, and one endpoint in each family.
pub(crate) struct Service {
    pub(crate) name: &'static str,
    pub(crate) namespace: &'static str,
    pub(crate) pod: &'static str,
    pub(crate) addresses: [&'static str; 2],
    /// By which it is known outside (`externalIPs`).
    pub(crate) external: [&'static str; 2],
    /// `tcp` or `udp`.
    pub(crate) protocol: &'static str,
    pub(crate) port: u16,
    pub(crate) target: u16,
    pub(crate) node_port: u16,
    /// Whether its `externalTrafficPolicy` is `Local`.
    pub(crate) local: bool,
}

pub(crate) const SERVICES: [Service; 3] = [
    Service {
        name: "web",
        namespace: "shop",
        pod: "front-3",
        addresses: ["10.96.0.10", "fd96::10"],
        external: ["198.51.100.10", "2001:db8:51::10"],
        protocol: "tcp",
        port: 80,
        target: 8080,
        node_port: 30080,
        local: false,
    },
    Service {
        name: "sql",
        namespace: "store",
        pod: "db-1",
        addresses: ["10.96.0.20", "fd96::20"],
        external: ["198.51.100.20", "2001:db8:51::20"],
        protocol: "tcp",
        port: 5432,
        target: 5432,
        node_port: 30432,
        local: true,
    },
    Service {
        name: "dns",
        namespace: "shop",
        pod: "front-2",
        addresses: ["10.96.0.30", "fd96::30"],
        external: ["198.51.100.30", "2001:db8:51::30"],
        protocol: "udp",
        port: 53,
        target: 5353,
        node_port: 30053,
        local: false,
    },
];

impl Service {
    /// The Service, and its endpoint at each of these addresses.
    pub(crate) fn objects(&self, endpoints: &[IpAddr], node: &str) -> Vec<Value> {
        let Self { name, namespace, port, target, node_port, addresses, .. } = self;
        let protocol = self.protocol.to_uppercase();
        let policy = if self.local { "Local" } else { "Cluster" };
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
            "spec": {"type": "NodePort", "clusterIP": addresses[0], "clusterIPs": addresses, "externalIPs": self.external, "externalTrafficPolicy": policy,
                "ports": [{"name": "p", "port": port, "targetPort": target, "nodePort": node_port, "protocol": protocol}]},
        });
        let slice = |address: &IpAddr| {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
                "metadata": {"name": format!("{name}-{}", family.to_lowercase()), "namespace": namespace,
                    "labels": {"kubernetes.io/service-name": name}},
                "ports": [{"name": "p", "port": target, "protocol": protocol}],
                "endpoints": [{"addresses": [address.to_string()], "nodeName": node, "conditions": {"ready": true}}],
            })
        };
        std::iter::once(service).chain(endpoints.iter().map(slice)).collect()
    }

    /// Its chains in one family; `here`: whether the endpoint is on this node.
    fn chains(&self, endpoint: IpAddr, here: bool) -> String {
        let Self { name, protocol, port, target, node_port, .. } = self;
        let (ip, cluster, address, known) = family(endpoint, self);
        let to = std::net::SocketAddr::new(endpoint, *target);
        let external = match (self.local, here) {
            (false, _) => format!("jump mark-for-masquerade; goto endpoint-{name};"),
            (true, here) => {
                let others = if here { format!("goto endpoint-{name};") } else { "drop;".to_owned() };
                format!(
                    "{ip} saddr {cluster} goto endpoint-{name}; fib saddr type local jump mark-for-masquerade; fib saddr type local goto endpoint-{name}; {others}"
                )
            }
        };
        format!(
            "chain endpoint-{name} {{ {ip} saddr {endpoint} jump mark-for-masquerade; meta l4proto {protocol} dnat to {to}; }}
            chain cluster-{name} {{ {ip} saddr != {cluster} jump mark-for-masquerade; goto endpoint-{name}; }}
            chain external-{name} {{ {external} }}
            chain services {{
                {ip} daddr {address} {protocol} dport {port} goto cluster-{name}
                {ip} daddr {known} {protocol} dport {port} goto external-{name}
                fib daddr type local {protocol} dport {node_port} goto external-{name}
            }}\n"
        )
    }
}

/// What nftables calls the family, what kube-proxy is told that pods have, and the Service's addresses, its own and the external one.
fn family(endpoint: IpAddr, service: &Service) -> (&'static str, &'static str, &'static str, &'static str) {
    match endpoint {
        IpAddr::V4(_) => ("ip", "10.42.0.0/15", service.addresses[0], service.external[0]),
        IpAddr::V6(_) => ("ip6", "fd42::/48", service.addresses[1], service.external[1]),
    }
}

/// The rules of a node. `endpoint`: addresses of a Service's pod, and whether that is on the node.
pub(crate) fn rules(endpoint: impl Fn(&Service) -> (Vec<IpAddr>, bool)) -> String {
    let mut text = String::new();
    for (index, table) in ["ip", "ip6"].into_iter().enumerate() {
        let chains: String = SERVICES
            .iter()
            .map(|service| {
                let (addresses, here) = endpoint(service);
                let of_family = addresses.into_iter().find(|address| address.is_ipv4() == (index == 0));
                service.chains(of_family.unwrap(), here)
            })
            .collect();
        let _ = write!(
            text,
            "table {table} kube-proxy {{
                chain mark-for-masquerade {{ meta mark set meta mark or 0x4000; }}
                {chains}
                chain masquerading {{ meta mark & 0x4000 == 0 return; meta mark set meta mark ^ 0x4000; masquerade fully-random; }}
                chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump services; }}
                chain nat-output {{ type nat hook output priority -100; jump services; }}
                chain nat-postrouting {{ type nat hook postrouting priority srcnat; jump masquerading; }}
            }}\n"
        );
    }
    text
}
