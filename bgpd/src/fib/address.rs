//! Whether the node's addresses are where other nodes reach them. In flow the configuration and what the kernel has, out flow a sentence for each that is not, and what would do.

use super::world::{Link, LinkKind, World};
use super::{Condition, Config, NodeAddresses, Problem};
use std::net::IpAddr;

/// Links on which nothing but addresses of Services stands: of the node's cache of names, and of kube-proxy.
const OF_SERVICES: [&str; 2] = ["nodelocaldns", "kube-ipvs0"];

/// Why an address does not do.
struct Wrong {
    what: String,
    way_out: String,
}

/// What is wrong with the node's addresses; nothing before links are known, and of a router without a cluster.
pub(super) fn problems<'a>(config: &'a Config, world: &'a World) -> impl Iterator<Item = Problem> + 'a {
    let all = both(&config.local).filter(|_| is_judged(config, world));
    all.filter_map(|address| {
        let Wrong { what, way_out } = wrong(config, world, address)?;
        let way_out = match other(config, world, address) {
            Some(other) => format!("its Node lists {other}, too, by which it is known once that has been so for 10 s and the controller has told all nodes"),
            None => way_out,
        };
        let text = format!("{address}, the InternalIP of Node {}, {what}; {way_out}", config.local.name);
        Some(Problem { condition: Condition::Address, text })
    })
}

/// By what the node would better be known: each address that does not do replaced by the first that its Node lists and that does. Empty where that is nothing else than now.
pub(super) fn better(config: &Config, world: &World) -> Vec<IpAddr> {
    let now: Vec<IpAddr> = both(&config.local).collect();
    let does = |address: &IpAddr| !is_judged(config, world) || wrong(config, world, *address).is_none();
    let better = |address: IpAddr| {
        let other = (!does(&address)).then(|| other(config, world, address));
        other.flatten().unwrap_or(address)
    };
    let better: Vec<IpAddr> = now.iter().copied().map(better).collect();
    if better == now { Vec::new() } else { better }
}

fn is_judged(config: &Config, world: &World) -> bool {
    !config.alone && !world.links.is_empty()
}

/// The first address of that family that the node's Node lists and that does.
fn other(config: &Config, world: &World, address: IpAddr) -> Option<IpAddr> {
    let mut others = config.candidates.iter().filter(|other| other.is_ipv4() == address.is_ipv4());
    others.find(|other| wrong(config, world, **other).is_none()).copied()
}

fn wrong(config: &Config, world: &World, address: IpAddr) -> Option<Wrong> {
    let with = || world.addresses.iter().filter(|(_, net)| net.addr() == address);
    let links: Vec<&Link> = with().filter_map(|(index, _)| world.links.get(index)).collect();
    let Some(link) = links.first() else {
        let name = &config.local.name;
        let way_out = format!("correct status.addresses, or make sure that no other machine runs as {name}");
        return Some(Wrong { what: "is on no interface here".to_owned(), way_out });
    };
    // An address by itself is told by a routing protocol, whatever it stands on.
    if with().any(|(_, net)| net.prefix_len() == net.max_prefix_len()) && !is_of_services(&link.name) {
        return None;
    }
    let kind = links.iter().map(|link| inner(world, link)).collect::<Option<Vec<_>>>()?.remove(0);
    let others = || config.nodes.iter().flat_map(both).filter(|other| other.is_ipv4() == address.is_ipv4());
    let ways = || others().filter_map(|other| world.routes.longest_match(other, true)).flat_map(|route| &route.ways);
    // A bridge with a wire in it, and a veth whose other end is a machine's, are how a node in a namespace or container reaches the others.
    if ways().any(|way| links.iter().any(|link| link.index == way.link)) {
        return None;
    }
    let (uplink, better) = ways().find_map(|way| global(world, way.link, address.is_ipv4()))?;
    // One address there would end the other family.
    let way_out = match both(&config.local).count() {
        1 => format!("start the kubelet with --node-ip={better}"),
        _ => format!("have {better} in the kubelet's --node-ip, beside the address of the other family"),
    };
    let name = &link.name;
    Some(Wrong {
        what: format!(
            "is on {name}, {kind}, by which nothing leaves to other nodes: that leaves by {uplink}, which has {better}"
        ),
        way_out: format!("{way_out}, or correct status.addresses"),
    })
}

fn is_of_services(link: &str) -> bool {
    OF_SERVICES.contains(&link)
}

/// Why nothing that other machines send comes in by a link, as far as its kind says.
fn inner(world: &World, link: &Link) -> Option<&'static str> {
    let is_wire = |port: &Link| port.master == Some(link.index) && !matches!(port.kind, LinkKind::Veth | LinkKind::Tun);
    match link.kind {
        _ if is_of_services(&link.name) => Some("where addresses of Services stand"),
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
