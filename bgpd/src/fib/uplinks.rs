//! The links by which packets of other nodes come. In flow the configuration and what the kernel has, out flow links.

use super::Config;
use super::route::Transport;
use super::world::World;
use std::collections::BTreeSet;

/// The link that has the node's address, and those of the routes to other nodes, by index: a machine may be reached by several, and its address may be routed and
/// stand on `lo`. Of the family of tunnels between nodes: IPv4 if this one has it. None before the node has an address.
#[must_use]
pub fn uplinks(config: &Config, world: &World) -> BTreeSet<u32> {
    let Some(local) = config.local.outer() else { return BTreeSet::new() };
    let own = world.link_of(local).map(|link| link.index);
    let others = config.nodes.iter().filter_map(|node| config.local.ends(node, Transport::Vxlan));
    let routes = others.filter_map(|(_, node)| world.routes.longest_match(node, true));
    let ways = routes.flat_map(|route| route.ways.iter().map(|way| way.link));
    let is_wire = |index: &u32| world.links.get(index).is_some_and(|link| !link.loopback) && !world.is_tunnel(*index);
    own.into_iter().chain(ways).filter(is_wire).collect()
}

/// What the link with the node's address carries; where that is `lo`, the widest uplink: the tunnels' routes say what their own way carries.
#[must_use]
pub fn mtu(config: &Config, world: &World, uplinks: &BTreeSet<u32>) -> Option<u32> {
    let own = config.local.outer().and_then(|address| world.link_of(address)).filter(|link| !link.loopback);
    let widest = || uplinks.iter().filter_map(|index| Some(world.links.get(index)?.mtu)).max();
    own.map(|link| link.mtu).or_else(widest)
}
