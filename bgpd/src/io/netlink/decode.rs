//! rtnetlink messages as the FIB's words.

use crate::fib::Config;
use crate::fib::hosts::HostRoute;
use crate::fib::route::{Forward, Found, Hop, Tunnel};
use crate::fib::world::{ForeignRoute, Link, LinkKind, ReversePath, Way};
use ipnet::IpNet;
use netlink_packet_core::{NlasIterator, Parseable};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecUnspec, InfoData, InfoIpTunnel, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteIp6Tunnel, RouteIpTunnel, RouteLwTunnelEncap, RouteMessage,
    RouteMetric, RouteNextHopFlags, RouteType, RouteVia,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use twill_crds::names::{METRIC_LOCAL_V4, METRIC_LOCAL_V6, METRIC_UNREACHABLE, RTPROT_FELIX};

/// A route of the table, or nothing if it is of no interest.
pub(crate) enum Route {
    Ours(Found),
    Foreign(ForeignRoute),
    /// felix's, to a workload.
    Host(HostRoute),
}

pub(crate) fn route(payload: &[u8], config: &Config) -> Option<Route> {
    // A look at `struct rtmsg` first: most of a table can be left out before it is taken apart.
    let &[family, length, source_length, tos, _, protocol, _, kind] = payload.first_chunk::<8>()?;
    let ours = protocol == config.protocol;
    let felix = protocol == RTPROT_FELIX && !ours;
    let kind = RouteType::from(kind);
    let v6 = AddressFamily::from(family) == AddressFamily::Inet6;
    if source_length != 0 || tos != 0 {
        return None;
    }
    if felix && (kind != RouteType::Unicast || length != if v6 { 128 } else { 32 }) {
        return None;
    }
    if !matches!(kind, RouteType::Unicast | RouteType::Unreachable | RouteType::BlackHole | RouteType::Prohibit) {
        return None;
    }
    let message = RouteMessage::parse(payload).ok()?;
    if message.header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let attributes = &message.attributes;
    let table = attributes.iter().find_map(|a| if let RouteAttribute::Table(t) = a { Some(*t) } else { None });
    if table.unwrap_or(u32::from(message.header.table)) != config.table {
        return None;
    }
    let destination = attributes.iter().find_map(|a| if let RouteAttribute::Destination(d) = a { ip(d) } else { None });
    let unspecified = if v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    let prefix = IpNet::new(destination.unwrap_or(unspecified), message.header.destination_prefix_length).ok()?;
    if matches!(prefix, IpNet::V6(net) if net.addr().is_unicast_link_local() || net.addr().is_multicast()) {
        return None;
    }
    let metric =
        attributes.iter().find_map(|a| if let RouteAttribute::Priority(p) = a { Some(*p) } else { None }).unwrap_or(0);
    if felix {
        let link = hop(&message.attributes, None).map(|hop| hop.link)?;
        let is_local = metric == if v6 { METRIC_LOCAL_V6 } else { METRIC_LOCAL_V4 };
        return is_local.then_some(Route::Host(HostRoute { net: prefix, link }));
    }
    if !ours {
        let (mtu, ways) = (mtu(attributes), ways(kind, &message));
        return Some(Route::Foreign(ForeignRoute { prefix, metric, mtu, ways }));
    }
    if metric != config.metric && metric != METRIC_UNREACHABLE {
        return None;
    }
    let forward = if kind == RouteType::Unicast { unicast(&message) } else { Forward::Unreachable };
    Some(Route::Ours(Found { prefix, metric, forward }))
}

fn ways(kind: RouteType, message: &RouteMessage) -> Vec<Way> {
    if kind != RouteType::Unicast {
        return Vec::new();
    }
    let mut ways = Vec::new();
    for hop in hops(message, true) {
        ways.push(Way { gateway: hop.gateway, link: hop.link });
    }
    ways
}

fn unicast(message: &RouteMessage) -> Forward {
    let mut hops = hops(message, false);
    hops.sort();
    let source = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::PrefSource(address) => ip(address),
        _ => None,
    });
    Forward::Unicast { hops, mtu: mtu(&message.attributes), source }
}

fn mtu(attributes: &[RouteAttribute]) -> Option<u32> {
    let metrics = attributes.iter().find_map(|a| if let RouteAttribute::Metrics(m) = a { Some(m) } else { None })?;
    metrics.iter().find_map(|m| if let RouteMetric::Mtu(mtu) = m { Some(*mtu) } else { None })
}

/// Next hops of a message; without those on a link that is down if `alive`.
fn hops(message: &RouteMessage, alive: bool) -> Vec<Hop> {
    for attribute in &message.attributes {
        if let RouteAttribute::MultiPath(next_hops) = attribute {
            let usable = next_hops.iter().filter(|hop| !alive || !hop.flags.contains(RouteNextHopFlags::Dead));
            return usable.filter_map(|hop| self::hop(&hop.attributes, Some(hop.interface_index))).collect();
        }
    }
    if alive && message.header.flags.contains(RouteFlags::Dead) {
        return Vec::new();
    }
    hop(&message.attributes, None).into_iter().collect()
}

fn hop(attributes: &[RouteAttribute], link: Option<u32>) -> Option<Hop> {
    let mut link = link;
    let mut gateway = None;
    let mut tunnel = None;
    for attribute in attributes {
        match attribute {
            RouteAttribute::Oif(index) if link.is_none() => link = Some(*index),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Via(RouteVia::Inet6(address)) => gateway = Some(IpAddr::V6(*address)),
            RouteAttribute::Via(RouteVia::Inet(address)) => gateway = Some(IpAddr::V4(*address)),
            RouteAttribute::Encap(encap) => tunnel = Some(self::tunnel(encap)),
            _ => {}
        }
    }
    Some(Hop { gateway, link: link?, tunnel })
}

fn tunnel(encap: &[RouteLwTunnelEncap]) -> Tunnel {
    let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let mut tunnel = Tunnel { id: 0, source: nobody, remote: nobody, ttl: 0 };
    for attribute in encap {
        match attribute {
            RouteLwTunnelEncap::Ip(RouteIpTunnel::Id(id)) => tunnel.id = *id,
            RouteLwTunnelEncap::Ip(RouteIpTunnel::Source(source)) => tunnel.source = IpAddr::V4(*source),
            RouteLwTunnelEncap::Ip(RouteIpTunnel::Destination(remote)) => tunnel.remote = IpAddr::V4(*remote),
            RouteLwTunnelEncap::Ip(RouteIpTunnel::Ttl(ttl)) => tunnel.ttl = *ttl,
            RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Id(id)) => tunnel.id = *id,
            RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Source(source)) => tunnel.source = IpAddr::V6(*source),
            RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Destination(remote)) => tunnel.remote = IpAddr::V6(*remote),
            RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Hoplimit(ttl)) => tunnel.ttl = *ttl,
            _ => {}
        }
    }
    tunnel
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

pub(crate) fn link(payload: &[u8]) -> Option<Link> {
    let message = LinkMessage::parse(payload).ok()?;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        up: message.header.flags.contains(LinkFlags::Up),
        loopback: message.header.flags.contains(LinkFlags::Loopback),
        ..Link::default()
    };
    let elsewhere = message.attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::LinkNetNsId(_)));
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok(),
            LinkAttribute::Link(below) if !elsewhere => link.below = Some(below),
            LinkAttribute::Controller(master) => link.master = Some(master),
            LinkAttribute::LinkInfo(infos) => link.kind = link_kind(&infos),
            LinkAttribute::AfSpecUnspec(families) => link.reverse_path = reverse_path(&families),
            _ => {}
        }
    }
    Some(link)
}

fn reverse_path(families: &[AfSpecUnspec]) -> ReversePath {
    let inet = families.iter().find_map(|family| if let AfSpecUnspec::Inet(inet) = family { Some(inet) } else { None });
    let settings = inet.into_iter().flatten().find_map(|one| match one {
        AfSpecInet::DevConf(settings) => Some(settings.rp_filter),
        _ => None,
    });
    match settings {
        Some(1) => ReversePath::Strict,
        Some(2) => ReversePath::Loose,
        _ => ReversePath::Off,
    }
}

/// Whose settings a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settings {
    /// What counts for all links.
    OfAll,
    /// A link's, by index.
    Of(u32),
}

/// Whose check of sources a message of the group RTNLGRP_IPV4_NETCONF (`linux/netconf.h`) tells; none if it is about something else, or about links that are
/// still to come.
pub(crate) fn reverse_path_of(payload: &[u8]) -> Option<Settings> {
    const LINK: u16 = 1;
    const REVERSE_PATH: u16 = 3;
    const ALL: i32 = -1;
    // `struct netconfmsg` is one octet, padded.
    let values: Vec<(u16, i32)> = NlasIterator::new(payload.get(4..)?)
        .map_while(Result::ok)
        .filter_map(|one| Some((one.kind(), i32::from_ne_bytes(one.value().try_into().ok()?))))
        .collect();
    values.iter().find(|(kind, _)| *kind == REVERSE_PATH)?;
    match values.iter().find(|(kind, _)| *kind == LINK)?.1 {
        ALL => Some(Settings::OfAll),
        link => u32::try_from(link).ok().map(Settings::Of),
    }
}

fn link_kind(infos: &[LinkInfo]) -> LinkKind {
    let kind = infos.iter().find_map(|info| if let LinkInfo::Kind(kind) = info { Some(kind) } else { None });
    let data = infos.iter().find_map(|info| if let LinkInfo::Data(data) = info { Some(data) } else { None });
    match (kind, data) {
        (Some(InfoKind::Vxlan), Some(InfoData::Vxlan(data))) => {
            let mut found = (false, false, 0);
            for item in data {
                match item {
                    InfoVxlan::CollectMetadata(external) => found.0 = *external,
                    InfoVxlan::Learning(learning) => found.1 = *learning,
                    InfoVxlan::Port(port) => found.2 = *port,
                    _ => {}
                }
            }
            LinkKind::Vxlan { external: found.0, learning: found.1, port: found.2 }
        }
        (Some(InfoKind::IpIp), data) => {
            let external =
                matches!(data, Some(InfoData::IpTunnel(data)) if data.contains(&InfoIpTunnel::CollectMetadata));
            LinkKind::Ipip { external }
        }
        (Some(InfoKind::Bridge), _) => LinkKind::Bridge,
        (Some(InfoKind::Veth), _) => LinkKind::Veth,
        (Some(InfoKind::Tun), _) => LinkKind::Tun,
        _ => LinkKind::Other,
    }
}

pub(crate) fn address(payload: &[u8]) -> Option<(u32, IpNet)> {
    let message = AddressMessage::parse(payload).ok()?;
    let local =
        message.attributes.iter().find_map(|a| if let AddressAttribute::Local(a) = a { Some(*a) } else { None });
    let address =
        message.attributes.iter().find_map(|a| if let AddressAttribute::Address(a) = a { Some(*a) } else { None });
    let net = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
    Some((message.header.index, net))
}

/// A permanent neighbour of this link.
pub(crate) fn neighbour(payload: &[u8], link: u32) -> Option<(IpAddr, [u8; 6])> {
    let message = NeighbourMessage::parse(payload).ok()?;
    if message.header.ifindex != link || message.header.state != NeighbourState::Permanent {
        return None;
    }
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok(),
        _ => None,
    });
    destination(&message).zip(mac)
}

/// A neighbour that is being looked for, with its link.
pub(crate) fn sought_neighbour(payload: &[u8]) -> Option<(u32, IpAddr)> {
    let message = NeighbourMessage::parse(payload).ok()?;
    let is_sought = message.header.state == NeighbourState::Incomplete;
    destination(&message).filter(|_| is_sought).map(|address| (message.header.ifindex, address))
}

fn destination(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })
}
