//! What a node cannot do without, found out from what it does: in flow facts of the node, out flow what passes before all rules, each with
//! its reason.

use super::known::Known;
use super::ports::Ports;
use crate::model::Direction;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

const TCP: u8 = 6;
const UDP: u8 = 17;
const IP_IN_IP: u8 = 4;
/// RFC 5881 and RFC 7880's echo, RFC 5883 for several hops.
const BFD: [(u16, u16); 2] = [(3784, 3785), (4784, 4784)];
const DNS: u16 = 53;
const SSH: u16 = 22;
const KUBELET: u16 = 10250;
const API_SERVER: u16 = 6443;
const ETCD: (u16, u16) = (2379, 2380);

/// What is known of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// TCP ports on which something listens at another address than loopback.
    pub listening: BTreeSet<u16>,
    /// Those of them where SSH is served, as far as processes can be seen.
    pub ssh: BTreeSet<u16>,
    /// Where the datastore and those who answer for names are, and BGP's peers, or were when that was seen last.
    pub known: Known,
    /// The fabric's ports.
    pub ports: Ports,
    /// BGP peers with which there is a session; none: that is not known, as while bgpd should answer and does not.
    pub established: Option<BTreeSet<IpAddr>>,
    /// Addresses of the nodes of the control plane.
    pub control_plane: BTreeSet<IpAddr>,
}

/// Something that passes before all rules.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failsafe {
    /// To the node or from it.
    #[serde(with = "as_text")]
    pub direction: Direction,
    /// Layer 4 protocol.
    pub protocol: u8,
    /// Destination ports, first and last; none: the protocol has none.
    pub ports: Option<(u16, u16)>,
    /// The other end.
    pub peers: Peers,
    /// Why.
    pub reason: String,
}

/// The other end of a failsafe.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Peers {
    /// Anyone.
    Any,
    /// All nodes.
    Nodes,
    /// These.
    Addresses(BTreeSet<IpAddr>),
}

impl fmt::Display for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("anyone"),
            Self::Nodes => f.write_str("nodes"),
            Self::Addresses(all) => f.write_str(&all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        }
    }
}

/// A direction as people call it.
mod as_text {
    use crate::model::Direction;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    #[allow(clippy::trivially_copy_pass_by_ref)] // As serde calls it.
    pub(super) fn serialize<S: Serializer>(value: &Direction, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Direction, D::Error> {
        let text = String::deserialize(deserializer)?;
        let all = [Direction::Ingress, Direction::Egress];
        let found = all.into_iter().find(|direction| direction.to_string() == text);
        found.ok_or_else(|| D::Error::custom(format!("{text:?} is neither ingress nor egress")))
    }
}

/// What must pass on a node of which this is known.
#[must_use]
pub fn failsafes(facts: &Facts) -> Vec<Failsafe> {
    let mut all = Vec::new();
    local_servers(facts, &mut all);
    datastore(facts, &mut all);
    routing(facts, &mut all);
    if !facts.known.resolvers.is_empty() {
        let resolvers = || Peers::Addresses(facts.known.resolvers.keys().copied().collect());
        for protocol in [UDP, TCP] {
            all.push(outbound(protocol, (DNS, DNS), resolvers(), "names are asked for there"));
        }
    }
    all.sort();
    all.dedup();
    all
}

/// Who of the node itself serves one of its TCP ports, if it is one that the node cannot do without; `is_own` tells the node's addresses.
#[must_use]
pub fn server_at(facts: &Facts, port: u16, is_own: impl FnOnce(IpAddr) -> bool) -> Option<&'static str> {
    let listens = |port: u16| facts.listening.contains(&port);
    let datastore = || facts.known.datastore.keys().find(|at| at.port() == port).map(SocketAddr::ip);
    match port {
        _ if facts.ssh.contains(&port) || port == SSH && listens(SSH) => Some("SSH is served there"),
        KUBELET if listens(KUBELET) => Some("the kubelet listens there"),
        API_SERVER if listens(API_SERVER) => Some("the API server listens there"),
        2379..=2380 if listens(ETCD.0) || listens(ETCD.1) => Some("etcd listens there"),
        _ => datastore().is_some_and(|at| at.is_loopback() || is_own(at)).then_some("the datastore is there"),
    }
}

/// What others must reach here.
fn local_servers(facts: &Facts, all: &mut Vec<Failsafe>) {
    let listens = |port: u16| facts.listening.contains(&port);
    let well_known = Some(SSH).filter(|port| listens(*port));
    for port in facts.ssh.iter().copied().chain(well_known) {
        all.push(inbound(TCP, (port, port), Peers::Any, "SSH is served here"));
    }
    if listens(KUBELET) {
        all.push(inbound(
            TCP,
            (KUBELET, KUBELET),
            Peers::Any,
            "the kubelet listens here, for logs, exec and the API server",
        ));
    }
    if listens(API_SERVER) {
        all.push(inbound(TCP, (API_SERVER, API_SERVER), Peers::Any, "the API server listens here"));
    }
    if listens(ETCD.0) || listens(ETCD.1) {
        all.push(inbound(TCP, ETCD, Peers::Nodes, "etcd listens here"));
        all.push(outbound(TCP, ETCD, Peers::Nodes, "etcd listens here and speaks to its other members"));
    }
}

/// What the node must reach to hear of the cluster.
fn datastore(facts: &Facts, all: &mut Vec<Failsafe>) {
    for at in facts.known.datastore.keys() {
        let peer = Peers::Addresses([at.ip()].into());
        all.push(outbound(TCP, (at.port(), at.port()), peer, "the datastore is there"));
    }
    if !facts.control_plane.is_empty() {
        let peers = Peers::Addresses(facts.control_plane.clone());
        all.push(outbound(TCP, (API_SERVER, API_SERVER), peers, "nodes of the control plane serve the API"));
    }
}

/// What routes and tunnels need, both ways.
fn routing(facts: &Facts, all: &mut Vec<Failsafe>) {
    let bgp_peers = &facts.known.bgp_peers;
    for port in facts.ports.bgp.iter().copied() {
        all.push(inbound(TCP, (port, port), Peers::Nodes, "BGP with nodes"));
        all.push(outbound(TCP, (port, port), Peers::Nodes, "BGP with nodes"));
    }
    for peer in bgp_peers {
        let address = || Peers::Addresses([peer.ip()].into());
        for port in facts.ports.bgp.iter().copied() {
            all.push(inbound(TCP, (port, port), address(), "BGP with a configured peer"));
        }
        all.push(outbound(TCP, (peer.port(), peer.port()), address(), "BGP with a configured peer"));
    }
    let routers: BTreeSet<IpAddr> = bgp_peers.iter().map(SocketAddr::ip).collect();
    let routers = Some(routers).filter(|all| !all.is_empty()).map(Peers::Addresses);
    for ports in BFD {
        for peers in [Some(Peers::Nodes), routers.clone()].into_iter().flatten() {
            all.push(inbound(UDP, ports, peers.clone(), "BFD"));
            all.push(outbound(UDP, ports, peers, "BFD"));
        }
    }
    for port in facts.ports.vxlan.iter().copied() {
        all.push(inbound(UDP, (port, port), Peers::Nodes, "VXLAN between nodes"));
        all.push(outbound(UDP, (port, port), Peers::Nodes, "VXLAN between nodes"));
    }
    for direction in [Direction::Ingress, Direction::Egress] {
        let reason = "IP-in-IP between nodes".to_owned();
        all.push(Failsafe { direction, protocol: IP_IN_IP, ports: None, peers: Peers::Nodes, reason });
    }
}

fn inbound(protocol: u8, ports: (u16, u16), peers: Peers, reason: &str) -> Failsafe {
    Failsafe { direction: Direction::Ingress, protocol, ports: Some(ports), peers, reason: reason.to_owned() }
}

fn outbound(protocol: u8, ports: (u16, u16), peers: Peers, reason: &str) -> Failsafe {
    Failsafe { direction: Direction::Egress, ..inbound(protocol, ports, peers, reason) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::host::known::{By, Sighting};

    fn shown(facts: &Facts) -> Vec<String> {
        let text = |one: &Failsafe| {
            let ports = one.ports.map(|(first, last)| format!(" {first}-{last}")).unwrap_or_default();
            format!("{} {}{ports} {}", one.direction, one.protocol, one.peers)
        };
        failsafes(facts).iter().map(text).collect()
    }

    #[test]
    fn a_port_is_the_nodes_own_where_something_that_it_needs_listens() {
        use crate::host::known::{By, Sighting};
        let listening = [22, 80, 2222, 2380, 6443, 10250].into();
        let places = ["192.0.2.1:3306", "10.96.0.1:443", "[::1]:9000"];
        let sighting = Sighting { seen: 1, by: By::Name };
        let datastore = places.map(|at| (at.parse().unwrap(), sighting)).into();
        let known = Known { datastore, ..Known::default() };
        let facts = Facts { listening, ssh: [2222].into(), known, ..Facts::default() };
        let own: IpAddr = "192.0.2.1".parse().unwrap();
        let who = |port| server_at(&facts, port, |at| at == own).unwrap_or("nobody");
        for (port, word) in [(22, "SSH"), (2222, "SSH"), (10250, "kubelet"), (6443, "API server"), (2379, "etcd")] {
            assert!(who(port).contains(word), "{port}: {}", who(port));
        }
        assert_eq!([3306, 9000].map(who), ["the datastore is there"; 2]);
        assert_eq!([80, 443].map(who), ["nobody"; 2], "a server that the node can do without, and a Service's port");
        assert_eq!(server_at(&Facts::default(), 22, |_| true), None, "nothing listens");
    }

    #[test]
    fn a_node_that_nothing_is_known_of_keeps_its_routes_and_tunnels_alone() {
        let all = shown(&Facts::default());
        assert!(all.iter().all(|line| line.ends_with("nodes")), "{all:?}");
        for line in
            ["ingress 6 179-179 nodes", "egress 6 179-179 nodes", "ingress 17 4789-4789 nodes", "egress 4 nodes"]
        {
            assert!(all.contains(&line.to_owned()), "{line}: {all:?}");
        }
        assert_eq!(all.len(), 10);
    }

    #[test]
    fn ports_of_the_fabric_pass_as_they_are_set_and_were_a_moment_ago() {
        let ports = Ports { bgp: [179, 1790].into(), vxlan: [4789, 8472].into() };
        let all = shown(&Facts { ports, ..Facts::default() });
        for port in ["6 179-179", "6 1790-1790", "17 4789-4789", "17 8472-8472"] {
            for direction in ["ingress", "egress"] {
                assert!(all.contains(&format!("{direction} {port} nodes")), "{direction} {port}: {all:?}");
            }
        }
    }

    #[test]
    fn what_a_node_does_it_goes_on_doing() {
        let bare: BTreeSet<String> = shown(&Facts::default()).into_iter().collect();
        let more =
            |facts: Facts| -> Vec<String> { shown(&facts).into_iter().filter(|line| !bare.contains(line)).collect() };
        let listening = |ports: &[u16]| Facts { listening: ports.iter().copied().collect(), ..Facts::default() };
        assert_eq!(more(listening(&[22, 80])), ["ingress 6 22-22 anyone"]);
        let ssh = Facts { ssh: [2222].into(), ..listening(&[22, 2222]) };
        assert_eq!(more(ssh), ["ingress 6 22-22 anyone", "ingress 6 2222-2222 anyone"]);
        assert_eq!(more(listening(&[10250, 6443])), ["ingress 6 6443-6443 anyone", "ingress 6 10250-10250 anyone"]);
        assert_eq!(more(listening(&[2380])), ["ingress 6 2379-2380 nodes", "egress 6 2379-2380 nodes"]);
        let seen = |by| Sighting { seen: 1, by };
        let resolvers = [("192.0.2.53".parse().unwrap(), seen(By::Resolver))].into();
        let resolvers = Facts { known: Known { resolvers, ..Known::default() }, ..Facts::default() };
        assert_eq!(more(resolvers), ["egress 6 53-53 192.0.2.53", "egress 17 53-53 192.0.2.53"]);
        let datastore = [("192.0.2.1:2379".parse().unwrap(), seen(By::Name))].into();
        let datastore = Facts {
            known: Known { datastore, ..Known::default() },
            control_plane: ["192.0.2.2".parse().unwrap()].into(),
            ..Facts::default()
        };
        assert_eq!(more(datastore), ["egress 6 2379-2379 192.0.2.1", "egress 6 6443-6443 192.0.2.2"]);
        let bgp_peers = ["192.0.2.9:1790".parse().unwrap()].into();
        let peer = Facts { known: Known { bgp_peers, ..Known::default() }, ..Facts::default() };
        let routed = more(peer);
        assert!(routed.contains(&"ingress 6 179-179 192.0.2.9".to_owned()), "{routed:?}");
        assert!(routed.contains(&"egress 6 1790-1790 192.0.2.9".to_owned()), "{routed:?}");
        assert!(routed.contains(&"ingress 17 3784-3785 192.0.2.9".to_owned()), "{routed:?}");
    }
}
