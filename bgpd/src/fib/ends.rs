//! Where this node's IP-in-IP routes lead. In flow the configuration and what the kernel has; out flow the other nodes at whose end such a
//! route comes out, each with an address behind it that belongs to the node itself.

use super::route::{Forward, Hop, Tunnel};
use super::world::World;
use super::{Config, NodeAddresses};
use ipnet::IpNet;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use twill_crds::Protocol;
use twill_crds::names::IPIP_DEVICE;

/// Where IP-in-IP leads from here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// This node's address, which is the outer source; none while nothing can be sent.
    pub outer: Option<Ipv4Addr>,
    /// Its tunnel address, which is the inner source.
    pub inner: Option<Ipv4Addr>,
    /// Names of the pools that ask for IP-in-IP.
    pub pools: Vec<String>,
    /// The other ends, in the order of their addresses.
    pub others: Vec<End>,
}

/// Another node that routes lead to by IP-in-IP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Its name.
    pub node: String,
    /// Its address.
    pub outer: Ipv4Addr,
    /// The first address of one of its blocks, which no pod has (ordinal 0): its own, or one that its kernel calls unreachable.
    pub inner: Ipv4Addr,
}

impl Ends {
    /// By routes that the kernel has.
    #[must_use]
    pub fn of<'a>(config: &Config, world: &World, routes: impl Iterator<Item = (IpNet, &'a Forward)>) -> Self {
        let mut ends = Self { outer: config.local.v4, ..Self::default() };
        ends.inner = config.tunnel_sources.iter().find_map(|source| match source {
            IpAddr::V4(source) => Some(*source),
            IpAddr::V6(_) => None,
        });
        let ipip = config.pools.iter().filter(|pool| pool.encapsulation.protocol == Protocol::IPIP);
        ends.pools = ipip.map(|pool| pool.name.clone()).collect();
        let device = world.link(IPIP_DEVICE).map(|link| link.index);
        let Some(device) = device.filter(|_| !ends.pools.is_empty() && ends.inner.is_some()) else { return ends };
        let names: FxHashMap<Ipv4Addr, &NodeAddresses> =
            config.nodes.iter().filter_map(|node| Some((node.v4?, node))).collect();
        let mut found: BTreeMap<Ipv4Addr, Ipv4Addr> = BTreeMap::new();
        for (prefix, forward) in routes {
            if let (IpNet::V4(block), Some(outer)) = (prefix, alone_through(forward, device))
                && block.prefix_len() < 32
            {
                let inner = block.network();
                found.entry(outer).and_modify(|known| *known = inner.min(*known)).or_insert(inner);
            }
        }
        let named = |(outer, inner): (Ipv4Addr, Ipv4Addr)| {
            names.get(&outer).map(|node| End { node: node.name.clone(), outer, inner })
        };
        ends.others = found.into_iter().filter_map(named).collect();
        ends
    }
}

/// The other end of the tunnel, if the route has one hop and that leads through `device`.
fn alone_through(forward: &Forward, device: u32) -> Option<Ipv4Addr> {
    match forward {
        Forward::Unicast { hops, .. } => match hops.as_slice() {
            [Hop { link, tunnel: Some(Tunnel { remote: IpAddr::V4(remote), .. }), .. }] if *link == device => {
                Some(*remote)
            }
            _ => None,
        },
        Forward::Unreachable => None,
    }
}
