//! Who is at the ends of a connection: as people name them, and as they are found.

use super::universe::Universe;
use crate::model::{Pod, PodKey, Protocol};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// One end of a connection, as a person names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Party {
    /// A pod. Where both ends have both families, IPv4 is meant; name an address to mean the other.
    Pod(PodKey),
    /// A node, the same.
    Node(String),
    /// An address: of a pod, of a node, or outside.
    Address(IpAddr),
}

impl FromStr for Party {
    type Err = String;

    /// `NAMESPACE/NAME`, the name of a node, or an address.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self::Pod(PodKey { namespace: namespace.to_owned(), name: name.to_owned() }))
            }
            None if is_name(text) => Ok(Self::Node(text.to_owned())),
            _ => Err(format!("{text:?} is neither NAMESPACE/POD, nor the name of a node, nor an address")),
        }
    }
}

/// Whether a node can be called so (RFC 1123's subdomains), and it is no address with a slip of the pen.
fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !label.is_empty() && label.chars().all(inside) && !label.starts_with('-') && !label.ends_with('-')
    };
    // A name of digits alone is one; with dots between them it is meant to be an address.
    let is_address = text.contains('.') && !text.contains(|c: char| c.is_ascii_lowercase());
    text.len() <= 253 && text.split('.').all(label) && !is_address
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(key) => write!(f, "{key}"),
            Self::Node(name) => f.write_str(name),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

/// A question about somebody who is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownParty {
    /// A pod.
    #[error("there is no pod {0}; `twill get pods -n {ns}` lists those of its namespace", ns = .0.namespace)]
    Pod(PodKey),
    /// A node.
    #[error("there is no node {0}; `twill get nodes` lists them, and a pod is written NAMESPACE/POD")]
    Node(String),
    /// A Service, by its name.
    #[error(
        "{service} is a Service, and there is no pod of that name; write {address} and a port of the Service, or one of its pods"
    )]
    Service {
        /// NAMESPACE/NAME.
        service: String,
        /// Its first address.
        address: IpAddr,
    },
    /// A Service has an address, and not that port of it.
    #[error("{address} is an address of Service {service}, which has no port {port}/{protocol}; it has {has}")]
    NoPort {
        /// The address that is asked for.
        address: IpAddr,
        /// The port that is asked for.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
        /// NAMESPACE/NAME.
        service: String,
        /// The ports that it has.
        has: String,
    },
    /// What comes from outside to a Service's own address.
    #[error(
        "{address} is the own address of Service {service}, for pods and nodes: what proxies do with a connection from outside is not followed; ask for a port of \
         a node, an external address of it, or its pods"
    )]
    OwnAddress {
        /// The address that is asked for.
        address: IpAddr,
        /// NAMESPACE/NAME.
        service: String,
    },
    /// The node that something from outside comes to, which routers or a balancer choose.
    #[error(
        "{address} is an address of Service {service}, and routers or a balancer choose the node that a connection from outside comes to; name one with \
         --through NODE:{port} (in a test: through: NODE:{port})"
    )]
    SomeNode {
        /// The address that is asked for.
        address: IpAddr,
        /// The port there.
        port: u16,
        /// NAMESPACE/NAME.
        service: String,
    },
}

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
    /// A pod or a node that has no address, or none of the other end's family.
    Nowhere {
        /// Who.
        who: String,
        /// Why, as the rest of a sentence.
        why: String,
    },
}

impl Side {
    /// Whether it is a node, or a pod that runs there.
    pub(super) fn is_on(&self, node: &str) -> bool {
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
            Self::Nowhere { who, .. } => f.write_str(who),
        }
    }
}

impl Universe {
    /// Both ends with addresses of one family.
    pub(super) fn sides(&self, src: &Party, dst: &Party) -> Result<(Side, Side), UnknownParty> {
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
            Party::Node(name) => return self.addresses_of_node(name),
            Party::Pod(key) => key,
        };
        let pod = self.pods.get(key).ok_or_else(|| self.no_pod(key))?;
        if pod.completed {
            return Ok(Vec::new());
        }
        if pod.host_network {
            let node = self.known_by.get(&pod.node).into_iter().flatten();
            return Ok(pod.addresses.iter().chain(node).copied().collect());
        }
        Ok(pod.addresses.iter().filter(|a| self.owners.get(a) == Some(key)).copied().collect())
    }

    /// Those from which other nodes hear it before all others.
    fn addresses_of_node(&self, name: &str) -> Result<Vec<IpAddr>, UnknownParty> {
        let node = self.nodes.get(name).ok_or_else(|| UnknownParty::Node(name.to_owned()))?;
        let own = self.known_by.get(name).into_iter().flatten();
        Ok(own.chain(&node.known_as).copied().collect())
    }

    fn side(&self, party: &Party, address: IpAddr) -> Side {
        match party {
            Party::Node(name) => Side::Node { node: name.clone(), pod: None, address },
            Party::Pod(key) => match self.pods.get(key).filter(|pod| pod.host_network) {
                Some(pod) => Side::Node { node: pod.node.clone(), pod: Some(key.clone()), address },
                None => self.behind(address),
            },
            Party::Address(_) => self.behind(address),
        }
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
        let who = match party {
            Party::Node(name) => format!("node {name}"),
            party => party.to_string(),
        };
        match own.first() {
            Some(own) if other.is_empty() || matches!(party, Party::Address(_)) => self.side(party, *own),
            Some(own) => {
                let family = if own.is_ipv4() { "IPv4" } else { "IPv6" };
                Side::Nowhere { who, why: format!("has only {family}, the other end has not") }
            }
            None => Side::Nowhere { who, why: self.without_address(party).to_owned() },
        }
    }

    /// Why somebody has no address.
    fn without_address(&self, party: &Party) -> &'static str {
        match party {
            Party::Pod(key) => match self.pods.get(key) {
                Some(pod) if pod.completed => "has run to its end and owns no address",
                Some(pod) if pod.addresses.is_empty() => "has no address yet",
                _ => "claims an address that a newer pod owns",
            },
            Party::Node(_) | Party::Address(_) => "has no address in its status",
        }
    }
}
