//! Whether the node's addresses are where other nodes reach them. In flow the configuration and what the kernel has, out flows a sentence for each that is not.

use super::world::{Link, LinkKind, World};
use super::{Condition, Config, NodeAddresses, Problem};
use std::net::IpAddr;

/// Links on which nothing but addresses of Services stands: of the node's cache of names, and of kube-proxy.
const OF_SERVICES: [&str; 2] = ["nodelocaldns", "kube-ipvs0"];

/// What is wrong with the node's addresses; nothing before links are known, and of a router without a cluster.
pub(super) fn problems<'a>(config: &'a Config, world: &'a World) -> impl Iterator<Item = Problem> + 'a {
    let judged = !config.alone && !world.links.is_empty();
    let all = both(&config.local).filter(move |_| judged);
    let wrong = all.filter_map(|address| Some((address, wrong(config, world, address)?)));
    wrong.map(|(address, text)| Problem {
        condition: Condition::Address,
        text: format!("{address}, the InternalIP of Node {}, {text}", config.local.name),
    })
}

fn wrong(config: &Config, world: &World, address: IpAddr) -> Option<String> {
    let with = world.addresses.iter().filter(|(_, net)| net.addr() == address);
    let links: Vec<&Link> = with.filter_map(|(index, _)| world.links.get(index)).collect();
    let Some(link) = links.first() else {
        let name = &config.local.name;
        return Some(format!(
            "is on no interface here; correct status.addresses, or make sure that no other machine runs as {name}"
        ));
    };
    let what = links.iter().map(|link| inner(world, link)).collect::<Option<Vec<_>>>()?.remove(0);
    let others = || config.nodes.iter().flat_map(both).filter(|other| other.is_ipv4() == address.is_ipv4());
    let ways = || others().filter_map(|other| world.routes.longest_match(other, true)).flat_map(|route| &route.ways);
    // A bridge with a wire in it, and a veth whose other end is a machine's, are how a node in a namespace or container reaches the others.
    if ways().any(|way| links.iter().any(|link| link.index == way.link)) {
        return None;
    }
    let (uplink, better) = ways().find_map(|way| global(world, way.link, address.is_ipv4()))?;
    Some(format!(
        "is on {}, {what}, by which nothing leaves to other nodes: that leaves by {uplink}, which has {better}; start the kubelet with \
         --node-ip={better}, or correct status.addresses",
        link.name
    ))
}

/// Why nothing that other machines send comes in by a link, as far as its kind says.
fn inner(world: &World, link: &Link) -> Option<&'static str> {
    let is_wire = |port: &Link| port.master == Some(link.index) && !matches!(port.kind, LinkKind::Veth | LinkKind::Tun);
    match link.kind {
        _ if OF_SERVICES.contains(&link.name.as_str()) => Some("where addresses of Services stand"),
        LinkKind::Bridge if !world.links.values().any(is_wire) => Some("a bridge without a wire"),
        LinkKind::Veth => Some("a veth"),
        _ => None,
    }
}

/// The first address of a link that other machines may know, with its name.
fn global(world: &World, index: u32, v4: bool) -> Option<(&str, IpAddr)> {
    let link = world.links.get(&index).filter(|link| !link.loopback && !world.is_tunnel(index))?;
    let mut own = world.addresses.iter().filter(|(on, _)| *on == index).map(|(_, net)| net.addr());
    let known = |address: &IpAddr| match address {
        IpAddr::V4(address) => v4 && !address.is_link_local(),
        IpAddr::V6(address) => !v4 && !address.is_unicast_link_local(),
    };
    own.find(known).map(|address| (link.name.as_str(), address))
}

fn both(node: &NodeAddresses) -> impl Iterator<Item = IpAddr> + use<> {
    node.v4.map(IpAddr::V4).into_iter().chain(node.v6.map(IpAddr::V6))
}
