//! From a prefix and its next hops to the route that the kernel should have, or the reason why it gets none.
//!
//! Depends on [`Config`] and [`World`] alone, never on what was installed before.

use super::outer::overhead;
use super::route::{Forward, Hop, Transport, Tunnel};
use super::world::{ForeignRoute, Way, World};
use super::{Config, NodeAddresses, Pool, Reach};
use crate::scoped::ScopedAddr;
use ipnet::IpNet;
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use twill_crds::names::{IPIP_DEVICE, TUNNEL_TTL, VXLAN_DEVICE, VXLAN_VNI};
use twill_crds::{Protocol, When};

/// What became of a prefix.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The route, if there is one.
    pub forward: Option<Arc<Forward>>,
    /// What became of each next hop, in the order given.
    pub hops: Vec<(ScopedAddr, Result<Transport, Refusal>)>,
}

/// Why a next hop is not used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// A node takes no learned default route.
    DefaultRoute,
    /// The prefix covers the address of a node or peer, which must stay reachable without us.
    Covers(IpAddr),
    /// The prefix lies in a range of Services.
    Service(IpNet),
    /// Nothing but the default route leads there.
    Unresolved {
        /// The next hop.
        next_hop: ScopedAddr,
        /// Name of the node, if it is one.
        node: Option<String>,
        /// Name of the pool that holds the prefix, if one does.
        pool: Option<String>,
    },
    /// The next hop is an address of this node.
    Own(IpAddr),
    /// An IPv6 prefix with an IPv4 next hop.
    OtherFamily(IpAddr),
    /// The next hop is link-local, and its interface is gone or down.
    LinkDown(IpAddr),
    /// Nothing at all leads to the node that is the tunnel's other end.
    NoWayToNode(IpAddr, String),
    /// The other end of the tunnel has no IPv4 address, or this node has none, and IP-in-IP needs both.
    NoOuterAddress(String),
    /// The other end of the tunnel has no address of a family that this node has.
    NoOuterFamily(String),
    /// The tunnel device is missing.
    NoDevice(Transport),
    /// Another next hop of this prefix is used, and one route carries one kind of transport.
    OtherTransport,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DefaultRoute => write!(f, "a node installs no learned default route"),
            Self::Covers(address) => {
                write!(f, "it covers {address}, a node's or peer's address, which must not depend on a learned route")
            }
            Self::Service(range) => {
                write!(f, "it is in {range}, a range of Services, which every node handles itself")
            }
            Self::Unresolved { next_hop, node, pool } => {
                write!(f, "next hop {next_hop}")?;
                if let Some(node) = node {
                    write!(f, " (node {node})")?;
                }
                write!(
                    f,
                    " is on no connected subnet and no route but the default one leads to it; add a route to it"
                )?;
                match pool {
                    Some(pool) => write!(f, ", or set encapsulation.protocol of IPPool {pool} to VXLAN"),
                    None => Ok(()),
                }
            }
            Self::Own(address) => write!(f, "next hop {address} is this node itself"),
            Self::OtherFamily(address) => write!(f, "next hop {address} is not of the prefix's address family"),
            Self::LinkDown(address) => write!(f, "next hop {address} is on an interface that is gone or down"),
            Self::NoWayToNode(address, node) => {
                write!(f, "no route leads to {address}, the tunnel's end at node {node}")
            }
            Self::NoOuterAddress(node) => {
                write!(f, "node {node} has no IPv4 InternalIP for the outer header of IPIP; give it one, or use VXLAN")
            }
            Self::NoOuterFamily(node) => write!(
                f,
                "node {node} and this one have no InternalIP of the same family for the tunnel's outer header; give one of them another"
            ),
            Self::NoDevice(transport) => write!(f, "the {} device cannot be used", transport.name()),
            Self::OtherTransport => write!(f, "another next hop of the prefix travels otherwise and is preferred"),
        }
    }
}

/// How a next hop is used.
struct Usable {
    transport: Transport,
    /// The kernel's hops.
    hops: Vec<Hop>,
    /// What packets may have, if that is known.
    mtu: Option<u32>,
}

/// How a next hop is reached without a tunnel.
struct Plain {
    hops: Vec<Hop>,
    /// 0 on a connected subnet, else 1 and the route's metric.
    cost: u32,
    mtu: Option<u32>,
}

/// Resolves prefixes by one configuration and one state of the kernel.
pub struct Resolver<'a> {
    config: &'a Config,
    world: &'a World,
    nodes: FxHashMap<IpAddr, &'a NodeAddresses>,
    guarded: BTreeSet<IpAddr>,
    vxlan: Option<u32>,
    ipip: Option<u32>,
}

impl<'a> Resolver<'a> {
    /// A resolver for this configuration and kernel.
    #[must_use]
    pub fn new(config: &'a Config, world: &'a World) -> Self {
        let mut nodes = FxHashMap::default();
        for node in &config.nodes {
            nodes.extend(node.v4.map(|a| (IpAddr::V4(a), node)));
            nodes.extend(node.v6.map(|a| (IpAddr::V6(a), node)));
        }
        let mut guarded: BTreeSet<IpAddr> = nodes.keys().copied().collect();
        guarded.extend(&config.peers);
        let device = |name| world.link(name).filter(|link| link.up).map(|link| link.index);
        Self { config, world, nodes, guarded, vxlan: device(VXLAN_DEVICE), ipip: device(IPIP_DEVICE) }
    }

    /// Why no learned route for `prefix` is wanted whatever its next hops, if so.
    #[must_use]
    pub fn refused(&self, prefix: IpNet) -> Option<Refusal> {
        if self.config.alone {
            return None;
        }
        if prefix.prefix_len() == 0 {
            return Some(Refusal::DefaultRoute);
        }
        if let Some(range) = self.config.services.iter().find(|range| range.contains(&prefix)) {
            return Some(Refusal::Service(*range));
        }
        self.guarded.range(prefix.network()..=prefix.broadcast()).next().map(|address| Refusal::Covers(*address))
    }

    /// Index of the pool that holds `prefix`.
    #[must_use]
    pub fn pool(&self, prefix: IpNet) -> Option<usize> {
        self.config.pools.iter().position(|pool| pool.cidr.contains(&prefix))
    }

    /// The route over `next_hops` for a prefix of the family `v6` inside the pool with this index.
    #[must_use]
    pub fn resolve(&self, v6: bool, pool: Option<usize>, next_hops: &[ScopedAddr]) -> Outcome {
        let pool = pool.and_then(|index| self.config.pools.get(index));
        let mut ways: Vec<(ScopedAddr, Result<Usable, Refusal>)> =
            next_hops.iter().map(|address| (*address, self.one(v6, pool, *address))).collect();
        let chosen = ways.iter().filter_map(|(_, way)| way.as_ref().ok().map(|usable| usable.transport)).min();
        for (_, way) in &mut ways {
            if matches!(way, Ok(usable) if Some(usable.transport) != chosen) {
                *way = Err(Refusal::OtherTransport);
            }
        }
        let usable = || ways.iter().filter_map(|(_, way)| way.as_ref().ok());
        let mut hops: Vec<Hop> = usable().flat_map(|usable| usable.hops.clone()).collect();
        hops.sort();
        hops.dedup();
        let mtu = usable().filter_map(|usable| usable.mtu).min();
        let forward = chosen.map(|transport| Arc::new(self.forward(v6, transport, hops, mtu)));
        let hops = ways.into_iter().map(|(address, way)| (address, way.map(|usable| usable.transport))).collect();
        Outcome { forward, hops }
    }

    /// Whether a path through `next_hop` is eligible at all.
    #[must_use]
    pub fn reach(&self, next_hop: ScopedAddr) -> Reach {
        if let Some(cost) = self.plain(next_hop).map(|plain| plain.cost) {
            return Reach::Reachable { cost };
        }
        let tunnelled = self.config.pools.iter().any(|pool| {
            pool.encapsulation.protocol != Protocol::None
                && self.one(pool.cidr.addr().is_ipv6(), Some(pool), next_hop).is_ok()
        });
        // A tunnel is farther than anything connected and nearer than nothing; among tunnels there is no difference.
        if tunnelled { Reach::Reachable { cost: 1 } } else { Reach::Unreachable }
    }

    /// Why nothing leads to `next_hop`, in the words of the first pool that could have prefixes behind it.
    #[must_use]
    pub fn why_unreachable(&self, next_hop: ScopedAddr) -> Option<Refusal> {
        let v6 = next_hop.address.is_ipv6();
        let pool = self.config.pools.iter().find(|pool| pool.cidr.addr().is_ipv6() == v6);
        let refusal = self.one(v6, pool, next_hop).err()?;
        // A missing device has a sentence of its own.
        (!matches!(refusal, Refusal::NoDevice(_))).then_some(refusal)
    }

    /// IPv4 prefixes may have IPv6 next hops (RFC 8950).
    fn one(&self, v6: bool, pool: Option<&Pool>, next_hop: ScopedAddr) -> Result<Usable, Refusal> {
        let address = next_hop.address;
        if v6 && address.is_ipv4() {
            return Err(Refusal::OtherFamily(address));
        }
        if [self.config.local.v4.map(IpAddr::V4), self.config.local.v6.map(IpAddr::V6)].contains(&Some(address)) {
            return Err(Refusal::Own(address));
        }
        let plain = self.plain(next_hop);
        let connected = matches!(&plain, Some(plain) if plain.cost == 0);
        let node = self.nodes.get(&address);
        if let (Some(pool), Some(node), false) = (pool, node, self.config.alone) {
            let transport = Transport::of(pool.encapsulation.protocol);
            let wanted = match pool.encapsulation.when {
                When::Always => true,
                When::CrossSubnet => !connected,
            };
            if transport != Transport::Plain && wanted {
                return self.tunnel(v6, transport, address, node);
            }
        }
        match plain {
            Some(Plain { hops, mtu, .. }) => Ok(Usable { transport: Transport::Plain, hops, mtu }),
            None if next_hop.zone > 0 => Err(Refusal::LinkDown(address)),
            None => Err(Refusal::Unresolved {
                next_hop,
                node: node.map(|node| node.name.clone()),
                pool: pool.filter(|_| node.is_some()).map(|pool| pool.name.clone()),
            }),
        }
    }

    /// A link-local address is on its link while that is up; no route says more about it.
    fn plain(&self, next_hop: ScopedAddr) -> Option<Plain> {
        let ScopedAddr { address, zone } = next_hop;
        if zone > 0 {
            let link = self.world.links.get(&zone).filter(|link| link.up)?;
            let hop = Hop { gateway: Some(address), link: link.index, tunnel: None };
            return Some(Plain { hops: vec![hop], cost: 0, mtu: Some(link.mtu) });
        }
        let route = self.world.routes.longest_match(address, false)?;
        let usable: Vec<&Way> = route.ways.iter().filter(|way| !self.world.is_tunnel(way.link)).collect();
        let connected = usable.iter().any(|way| way.gateway.is_none());
        let hops: Vec<Hop> = usable
            .iter()
            .filter(|way| way.gateway.is_none() == connected)
            .map(|way| Hop { gateway: Some(way.gateway.unwrap_or(address)), link: way.link, tunnel: None })
            .collect();
        let cost = if connected { 0 } else { route.metric.saturating_add(1) };
        let mtu = self.mtu(route, hops.iter().map(|hop| hop.link));
        if hops.is_empty() { None } else { Some(Plain { hops, cost, mtu }) }
    }

    /// What fits through all of these links of a route, and through what the route itself says of its way.
    fn mtu(&self, route: &ForeignRoute, links: impl Iterator<Item = u32>) -> Option<u32> {
        links.filter_map(|link| self.mtu_of(link)).chain(route.mtu).min()
    }

    fn mtu_of(&self, link: u32) -> Option<u32> {
        self.world.links.get(&link).map(|link| link.mtu)
    }

    fn tunnel(
        &self,
        v6: bool,
        transport: Transport,
        next_hop: IpAddr,
        node: &NodeAddresses,
    ) -> Result<Usable, Refusal> {
        let local = &self.config.local;
        let (source, remote) = local.ends(node, transport).ok_or_else(|| match transport {
            Transport::Ipip if local.v4.is_none() => Refusal::NoOuterAddress(local.name.clone()),
            Transport::Ipip => Refusal::NoOuterAddress(node.name.clone()),
            _ => Refusal::NoOuterFamily(node.name.clone()),
        })?;
        let outer = self.world.routes.longest_match(remote, true).filter(|route| !route.ways.is_empty());
        let outer = outer.ok_or_else(|| Refusal::NoWayToNode(next_hop, node.name.clone()))?;
        let mtu = self.mtu(outer, outer.ways.iter().map(|way| way.link));
        let by_itself = Some(remote).filter(|remote| !v6 && remote.is_ipv4());
        let (device, gateway, id) = match transport {
            Transport::Vxlan => {
                let gateway = by_itself.or_else(|| node.vxlan_neighbour().map(IpAddr::V6));
                let wide = |link: &u32| by_itself.is_some() || self.mtu_of(*link) >= Some(LEAST_MTU_V6);
                (self.vxlan.filter(wide), gateway, u64::from(VXLAN_VNI))
            }
            Transport::Ipip | Transport::Plain => (self.ipip, None, 0),
        };
        let link = device.ok_or(Refusal::NoDevice(transport))?;
        let hop = Hop { gateway, link, tunnel: Some(Tunnel { id, source, remote, ttl: TUNNEL_TTL }) };
        Ok(Usable {
            transport,
            hops: vec![hop],
            mtu: mtu.map(|mtu| mtu - overhead(transport, remote.is_ipv6()).min(mtu)),
        })
    }

    fn forward(&self, v6: bool, transport: Transport, hops: Vec<Hop>, mtu: Option<u32>) -> Forward {
        // A plain route that has the MTU of all its links keeps theirs, so that a later change of a link needs no route change.
        let as_links = transport == Transport::Plain && hops.iter().all(|hop| self.mtu_of(hop.link) == mtu);
        let source = (transport != Transport::Plain).then(|| self.inner_source(v6)).flatten();
        Forward::Unicast { hops, mtu: mtu.filter(|_| !as_links), source }
    }

    /// The tunnel address, once a device has it: the kernel refuses a preferred source that is not local.
    fn inner_source(&self, v6: bool) -> Option<IpAddr> {
        let source = self.config.tunnel_sources.iter().copied().find(|address| address.is_ipv6() == v6)?;
        self.world.link_of(source).map(|_| source)
    }
}

/// What IPv6 needs at least (RFC 8200 section 5); the kernel has none on a device with less.
pub const LEAST_MTU_V6: u32 = 1280;
