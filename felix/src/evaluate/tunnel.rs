//! Encapsulation: what comes from a node to a pod elsewhere through a tunnel leaves by a device that HostPolicies never close, in packets from
//! node to node that they judge like any other; and what the node itself sends there carries its address in tunnels.

use super::host::Crossing;
use super::judge::Judgement;
use super::party::Side;
use super::story::{Explanation, Note};
use super::universe::Universe;
use crate::host::ports::Ports;
use crate::model::Protocol;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;
use twill_crds::bgp::Topology;
use twill_crds::ippool::tunnel_addresses;
use twill_crds::{self as crds, BGPConfiguration, BGPConfigurationSpec, IPBlock, IPPool, Object, When, names};

/// Which pools have tunnels, and what nodes send from into these.
#[derive(Clone, Debug, Default)]
pub(super) struct Tunnels {
    pools: Vec<Pool>,
    /// Of each node, of each family at most one address.
    sources: BTreeMap<String, Vec<IpAddr>>,
    pub(super) fabric: Fabric,
}

/// A pool that has a tunnel.
#[derive(Clone, Debug)]
struct Pool {
    name: String,
    cidr: IpNet,
    protocol: crds::Protocol,
    when: When,
}

/// What all nodes share.
#[derive(Clone, Debug)]
pub(super) struct Fabric {
    /// The ports that are set.
    pub(super) ports: Ports,
    vxlan: u16,
    /// Whether nodes peer with routers alone: these may be next hops, and no tunnel leads there.
    routers: bool,
}

impl Default for Fabric {
    fn default() -> Self {
        Self::of(&[])
    }
}

impl Fabric {
    pub(super) fn of(configurations: &[BGPConfiguration]) -> Self {
        let found = configurations.iter().find(|one| one.name() == "default");
        let spec = found.map_or_else(BGPConfigurationSpec::default, |one| one.spec.clone());
        let decided = found.and_then(|one| one.status.as_ref()?.sessions.as_ref()).map(|sessions| sessions.topology);
        Self {
            ports: Ports { bgp: [spec.listen_port].into(), vxlan: [spec.vxlan_port].into() },
            vxlan: spec.vxlan_port,
            routers: decided.unwrap_or(spec.topology) == Topology::Fabric,
        }
    }
}

impl Tunnels {
    pub(super) fn of(pools: &[&IPPool], blocks: &[IPBlock], fabric: Fabric) -> Self {
        let tunnelled = pools.iter().filter(|pool| pool.spec.encapsulation.protocol != crds::Protocol::None);
        let read = |pool: &&IPPool| Pool {
            name: pool.name().to_owned(),
            cidr: pool.spec.cidr,
            protocol: pool.spec.encapsulation.protocol,
            when: pool.spec.encapsulation.when,
        };
        let mut of_node: BTreeMap<&str, Vec<&IPBlock>> = BTreeMap::new();
        blocks.iter().for_each(|block| of_node.entry(&block.spec.node).or_default().push(block));
        let sources = of_node.into_iter().map(|(node, blocks)| (node.to_owned(), tunnel_addresses(blocks)));
        Self { pools: tunnelled.map(read).collect(), sources: sources.collect(), fabric }
    }

    /// When what is sent to an address elsewhere goes through a tunnel; none: never.
    fn to(&self, address: IpAddr) -> Option<(&Pool, Taken)> {
        let pool = self.pools.iter().find(|pool| pool.cidr.contains(&address))?;
        let taken = match pool.when {
            When::Always if self.fabric.routers => Taken::WithoutRouter,
            When::Always => Taken::Always,
            When::CrossSubnet => Taken::CrossSubnet,
        };
        Some((pool, taken))
    }
}

/// When a tunnel is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// To every other node.
    Always,
    /// To nodes on another subnet, which only the nodes know.
    CrossSubnet,
    /// Where no router is the next hop.
    WithoutRouter,
}

/// A tunnel from one node to another.
#[derive(Clone, Debug)]
pub(super) struct Tunnel<'a> {
    pub(super) pool: &'a str,
    pub(super) from: &'a str,
    pub(super) to: &'a str,
    pub(super) device: &'static str,
    pub(super) taken: Taken,
    /// What carries it: port and protocol.
    pub(super) carrier: (u16, Protocol),
    /// What the sending node's own packets carry as their source.
    source: Option<IpAddr>,
}

impl Tunnel<'_> {
    /// Whether a connection takes it; none: that is not known.
    pub(super) fn is_taken(&self, way: &Crossing) -> Option<bool> {
        // What comes to a port of a node first is said to come by that interface.
        let interface = way.interface.as_deref().filter(|_| way.came_to.is_none());
        match (interface, self.taken) {
            (_, Taken::Always) => Some(true),
            (None, _) => None,
            (Some(name), _) => Some(name == self.device),
        }
    }

    /// The sending node as who judges beyond the tunnel sees it, if that is otherwise than here.
    pub(super) fn seen(&self, node: &Side) -> Option<Side> {
        let Side::Node { node, pod, address } = node else { return None };
        let source = self.source.filter(|source| source != address && node == self.from)?;
        Some(Side::Node { node: node.clone(), pod: pod.clone(), address: source })
    }
}

impl Tunnel<'_> {
    /// What to know where who judges elsewhere sees another address of the sending node.
    pub(super) fn note(&self, way: &Crossing, seen: &Side) -> Note {
        Note::Tunnelled {
            pool: self.pool.to_owned(),
            device: self.device,
            taken: self.taken,
            node: seen.to_string(),
            nameable: self.is_taken(way).is_none() && way.came_to.is_none(),
        }
    }
}

impl Explanation {
    /// What is so whether it goes as told or through a tunnel, which only the nodes know. A verdict that differs is none, as between interfaces.
    pub(super) fn or_through(self, other: Self, tunnel: &Tunnel<'_>) -> Self {
        let is_same = self.allowed == other.allowed && !self.depends() && !other.depends();
        if is_same {
            let note = self.reason_through(&other, tunnel);
            // The nodes that were asked, or were not, for the tunnel alone.
            let of_nodes = |note: &&Note| matches!(note, Note::Assumed { .. } | Note::Enforced(_));
            let more = other.notes.iter().filter(|note| of_nodes(note) && !self.notes.contains(note));
            let notes = self.notes.iter().chain(more).cloned().chain(note).collect();
            return Self { notes, ..self };
        }
        let plain = || Judgement::NotJudged("no tunnel carries it".to_owned());
        let outer = other.outer.map(|outer| tunnel.either(plain(), outer));
        let mut notes = self.notes;
        notes.extend(other.notes.into_iter().filter(|note| !notes.contains(note)).collect::<Vec<_>>());
        Self {
            allowed: false,
            egress: tunnel.either(self.egress, other.egress),
            outer,
            ingress: tunnel.either(self.ingress, other.ingress),
            notes,
            ..self
        }
    }

    /// The sentence about another reason for the same verdict.
    fn reason_through(&self, other: &Self, tunnel: &Tunnel<'_>) -> Option<Note> {
        let first = |judgement: &Judgement| {
            let line = judgement.to_string().lines().next().unwrap_or_default().to_owned();
            // What lets it go without a tunnel need not do so in one: the sender has another address there.
            judgement.fix().map_or(line.clone(), |fix| format!("{line} (fix: {fix})"))
        };
        let steps = [("egress", &self.egress, &other.egress), ("ingress", &self.ingress, &other.ingress)];
        let said = steps.into_iter().filter(|(_, own, other)| own != other);
        let said = said.map(|(step, _, other)| format!("{step} {}", first(other)));
        let said: Vec<String> =
            other.outer.iter().map(|outer| format!("tunnel {}", first(outer))).chain(said).collect();
        let (pool, device) = (tunnel.pool, tunnel.device);
        let sentence =
            || format!("the same through {device}, which IPPool {pool} may have it take: {}", said.join("; "));
        (!said.is_empty()).then(|| Note::SameThrough(sentence()))
    }
}

impl Tunnel<'_> {
    /// What is said of both ways, by the interfaces of the sending node.
    fn either(&self, plain: Judgement, tunnelled: Judgement) -> Judgement {
        let (node, mut interfaces) = match plain {
            Judgement::Depends { node, interfaces } => (node, interfaces),
            plain => {
                let node = match &tunnelled {
                    Judgement::Depends { node, .. } => node,
                    tunnelled if plain.allows() == tunnelled.allows() => return plain,
                    _ => self.from,
                };
                (node.to_owned(), vec![("other interfaces".to_owned(), plain)])
            }
        };
        match tunnelled {
            Judgement::Depends { interfaces: more, .. } => {
                let carried = |(name, judgement)| (format!("{}, carried by {name}", self.device), judgement);
                interfaces.extend(more.into_iter().map(carried));
            }
            tunnelled => interfaces.push((self.device.to_owned(), tunnelled)),
        }
        Judgement::Depends { node, interfaces }
    }
}

impl Universe {
    /// The tunnel by which what comes from a node to a pod elsewhere goes, or to what another node is in tunnels, or may go.
    pub(super) fn tunnel<'a>(&'a self, from: &'a str, to: &'a Side) -> Option<Tunnel<'a>> {
        let (home, address) = match to {
            Side::Pod { pod, address } => (&pod.node, address),
            Side::Node { node, address, .. } => (node, address),
            Side::Outside(_) | Side::Nowhere { .. } => return None,
        };
        let (pool, taken) = self.tunnels.to(*address).filter(|_| home != from && !home.is_empty())?;
        let (device, carrier) = match pool.protocol {
            crds::Protocol::IPIP => (names::IPIP_DEVICE, (0, Protocol::IP_IN_IP)),
            _ => (names::VXLAN_DEVICE, (self.tunnels.fabric.vxlan, Protocol::UDP)),
        };
        let sources = self.tunnels.sources.get(from).into_iter().flatten();
        let source = sources.copied().find(|source| source.is_ipv4() == address.is_ipv4());
        Some(Tunnel { pool: &pool.name, from, to: home, device, taken, carrier, source })
    }

    /// Whether what nodes send to an address elsewhere always goes through a tunnel, whose device no HostPolicy closes.
    pub(super) fn is_tunnelled(&self, address: IpAddr) -> bool {
        self.tunnels.to(address).is_some_and(|(_, taken)| taken == Taken::Always)
    }

    /// A node as the outer packets of tunnels name it.
    pub(super) fn tunnel_end(&self, node: &str) -> Option<Side> {
        // Tunnels are between IPv4 addresses where nodes have them, whatever is inside.
        let address = self.address_of_node(node, true).or_else(|| self.address_of_node(node, false))?;
        Some(Side::Node { node: node.to_owned(), pod: None, address })
    }
}
