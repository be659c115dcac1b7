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
pub(super) fn problems(config: &Config, world: &World) -> Vec<Problem> {
    if !is_judged(config, world) {
        return Vec::new();
    }
    let name = &config.local.name;
    let instead = |other: IpAddr| {
        format!(
            "Node {name} lists {other}, too, and is known by that once this has been so for 10 s and twill controller, which has to run, has told all nodes"
        )
    };
    let told = |address: IpAddr| {
        let Wrong { what, way_out } = wrong(config, world, address)?;
        let way_out = other(config, world, address.is_ipv4()).map_or(way_out, instead);
        Some(format!("{address}, the InternalIP of Node {name}, {what}; {way_out}"))
    };
    let texts = config.local.all().filter_map(told).chain(nobodys(config, world).into_iter().map(instead));
    texts.map(|text| Problem { condition: Condition::Address, text }).collect()
}

/// By what the node would better be known: each address that does not do, or that is another node's, replaced by the first that its Node lists and that does. Empty where that is
/// nothing else than now.
pub(super) fn better(config: &Config, world: &World) -> Vec<IpAddr> {
    if !is_judged(config, world) {
        return Vec::new();
    }
    let does = |address: IpAddr| wrong(config, world, address).is_none();
    let better = |address: IpAddr| {
        let other = (!does(address)).then(|| other(config, world, address.is_ipv4()));
        other.flatten().unwrap_or(address)
    };
    let better: Vec<IpAddr> = config.local.all().map(better).chain(nobodys(config, world)).collect();
    if config.local.all().eq(better.iter().copied()) { Vec::new() } else { better }
}

/// By what a node would take part that takes none, because what goes first in its Node's list is another node's: an address of each family that is listed. Nothing where one
/// family has none.
fn nobodys(config: &Config, world: &World) -> Vec<IpAddr> {
    if config.local.all().next().is_some() {
        return Vec::new();
    }
    let is_listed = |v4: &bool| config.candidates.iter().any(|address| address.is_ipv4() == *v4);
    let listed = [true, false].into_iter().filter(is_listed);
    listed.map(|v4| other(config, world, v4)).collect::<Option<_>>().unwrap_or_default()
}

fn is_judged(config: &Config, world: &World) -> bool {
    !config.alone && !world.links.is_empty()
}

/// The first address of a family that the node's Node lists, that no other node is known by, and that does. Of Services, and of bridges, many nodes have the same.
fn other(config: &Config, world: &World, v4: bool) -> Option<IpAddr> {
    let is_others = |address: IpAddr| config.nodes.iter().any(|node| node.all().any(|other| other == address));
    let mut all = config.candidates.iter().filter(|address| address.is_ipv4() == v4);
    all.find(|address| !is_others(**address) && wrong(config, world, **address).is_none()).copied()
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
    // One that stands on this machine, too, as those of Services and of bridges do, is no way to another.
    let is_here = |other: &IpAddr| world.addresses.iter().any(|(_, net)| net.addr() == *other);
    let of_family = |other: &IpAddr| other.is_ipv4() == address.is_ipv4() && !is_here(other);
    let others = || config.nodes.iter().flat_map(NodeAddresses::all).filter(of_family);
    let ways = || others().filter_map(|other| world.routes.longest_match(other, true)).flat_map(|route| &route.ways);
    // A bridge with a wire in it, and a veth whose other end is a machine's, are how a node in a namespace or container reaches the others.
    if ways().any(|way| links.iter().any(|link| link.index == way.link)) {
        return None;
    }
    let (uplink, better) = ways().find_map(|way| global(world, way.link, address.is_ipv4()))?;
    // One address there would end the other family.
    let way_out = match config.local.all().count() {
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
