//! Local workload routes, which felix alone writes, and what else it must know of the kernel's routes.

use crate::io::link::{KernelError, Trying};
use crate::io::rtnl::Rtnl;
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteIp6Tunnel, RouteIpTunnel, RouteLwTunnelEncap,
    RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use twill_crds::names::{
    METRIC_LEARNED, METRIC_LOCAL_V4, METRIC_LOCAL_V6, METRIC_UNREACHABLE, RTPROT_BGPD, RTPROT_FELIX,
};
use twill_ipam::range;

/// Adds the route of a pod's address to its interface, in place of whatever has its prefix and metric.
///
/// # Errors
/// What the kernel said.
pub fn add(rtnl: &mut Rtnl, address: IpAddr, index: u32) -> Result<(), KernelError> {
    let message = RouteNetlinkMessage::NewRoute(local(address, Some(index)));
    rtnl.change(message, NLM_F_CREATE | NLM_F_REPLACE).trying(|| format!("adding the local route of {address}"))
}

/// Removes the route of a pod's address; one that is not there is fine.
///
/// # Errors
/// What the kernel said.
pub fn delete(rtnl: &mut Rtnl, address: IpAddr) -> Result<(), KernelError> {
    match rtnl.change(RouteNetlinkMessage::DelRoute(local(address, None)), 0) {
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other.trying(|| format!("deleting the local route of {address}")),
    }
}

/// All routes of felix: address and interface index.
///
/// # Errors
/// What the kernel said.
pub fn locals(rtnl: &mut Rtnl) -> Result<BTreeMap<IpAddr, u32>, KernelError> {
    let mut found = BTreeMap::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let answers = rtnl
            .dump(RouteNetlinkMessage::GetRoute(filter(family, RTPROT_FELIX, RouteType::Unspec)))
            .trying(|| "listing local routes".into())?;
        for message in &answers {
            let RouteNetlinkMessage::NewRoute(message) = message else { continue };
            if let (Some(net), Some(index)) = (destination(message), oif(message))
                && message.header.protocol == RouteProtocol::Other(RTPROT_FELIX)
                && net.prefix_len() == net.max_prefix_len()
                && metric(message) == if net.addr().is_ipv6() { METRIC_LOCAL_V6 } else { METRIC_LOCAL_V4 }
            {
                found.insert(net.addr(), index);
            }
        }
    }
    Ok(found)
}

/// The blocks whose unreachable route bgpd has written.
///
/// # Errors
/// What the kernel said.
pub fn unreachable(rtnl: &mut Rtnl) -> Result<Vec<IpNet>, KernelError> {
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let answers = rtnl
            .dump(RouteNetlinkMessage::GetRoute(filter(family, RTPROT_BGPD, RouteType::Unreachable)))
            .trying(|| "listing unreachable routes".into())?;
        found.extend(answers.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewRoute(message) if is_unreachable(message) => destination(message),
            _ => None,
        }));
    }
    Ok(found)
}

/// Whether this is bgpd's unreachable route of a block.
pub(crate) fn is_unreachable(message: &RouteMessage) -> bool {
    message.header.kind == RouteType::Unreachable
        && message.header.protocol == RouteProtocol::Other(RTPROT_BGPD)
        && message.attributes.contains(&RouteAttribute::Priority(METRIC_UNREACHABLE))
}

/// Whether the node still has the address: its own, or a host route to it; `learned` ones may lead to it, where the address is known to be ours.
///
/// # Errors
/// What the kernel said.
pub fn in_use(rtnl: &mut Rtnl, address: IpAddr, learned: bool) -> Result<bool, KernelError> {
    Ok(lookup(rtnl, address)?.is_some_and(|found| {
        let counts = !(learned && is_learned(&found));
        found.header.kind == RouteType::Local || counts && destination(&found).is_some_and(is_host)
    }))
}

fn is_host(net: IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

/// Whether this is a route that bgpd has learned.
fn is_learned(message: &RouteMessage) -> bool {
    message.header.protocol == RouteProtocol::Other(RTPROT_BGPD)
        && message.header.kind == RouteType::Unicast
        && message.attributes.contains(&RouteAttribute::Priority(METRIC_LEARNED))
}

/// The route by which the kernel sends to an address; none if there is none, or an unreachable one: the block's own.
fn lookup(rtnl: &mut Rtnl, address: IpAddr) -> Result<Option<RouteMessage>, KernelError> {
    let mut message = RouteMessage::default();
    message.header.flags = RouteFlags::FibMatch;
    set_destination(&mut message, address);
    match rtnl.get(RouteNetlinkMessage::GetRoute(message)) {
        Ok(answers) => Ok(answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(found) => Some(found),
            _ => None,
        })),
        Err(e)
            if matches!(
                e.raw_os_error(),
                Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EINVAL | libc::EACCES | libc::ESRCH)
                    // A kernel without IPv6.
                    | Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT)
            ) =>
        {
            Ok(None)
        }
        Err(e) => Err(e).trying(|| format!("asking for the route of {address}")),
    }
}

/// The route by which the node sends to this address, of whatever length, if bgpd has learned it.
///
/// # Errors
/// What the kernel said.
pub fn leads_elsewhere(rtnl: &mut Rtnl, address: IpAddr) -> Result<Option<IpNet>, KernelError> {
    // The kernel leaves the destination of a default route out.
    let any = if address.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let found = lookup(rtnl, address)?.filter(is_learned);
    Ok(found.and_then(|found| destination(&found).or_else(|| IpNet::new(any, 0).ok())))
}

/// The links by which the node sends to this address, by index.
///
/// # Errors
/// What the kernel said.
pub fn ways(rtnl: &mut Rtnl, address: IpAddr) -> Result<Vec<u32>, KernelError> {
    let attributes = lookup(rtnl, address)?.map(|found| found.attributes).unwrap_or_default();
    let of = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Oif(index) => vec![*index],
        RouteAttribute::MultiPath(hops) => hops.iter().map(|hop| hop.interface_index).collect(),
        _ => vec![],
    };
    Ok(attributes.iter().flat_map(of).collect())
}

/// A route that bgpd has learned from somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// Where it leads to.
    pub prefix: IpNet,
    /// By way of whom, if the kernel says so.
    pub next_hop: Option<IpAddr>,
}

/// The first learned route for this block or for a part of it, but for addresses that are `kept` for a pod elsewhere. The kernel is asked for every address, because its table may hold
/// any number of other routes.
///
/// # Errors
/// What the kernel said.
pub fn learned(rtnl: &mut Rtnl, block: IpNet, kept: impl Fn(IpAddr) -> bool) -> Result<Option<Learned>, KernelError> {
    for ordinal in 0..u32::try_from(range::size(block)).unwrap_or(u32::MAX) {
        let Some(address) = range::address(block, ordinal) else { break };
        let Some(found) = lookup(rtnl, address)? else { continue };
        let counts =
            |prefix: &IpNet| is_learned(&found) && block.contains(prefix) && !(is_host(*prefix) && kept(address));
        let prefix = destination(&found).filter(counts);
        if let Some(prefix) = prefix {
            return Ok(Some(Learned { prefix, next_hop: next_hop(&found.attributes) }));
        }
    }
    Ok(None)
}

/// The narrowest learned route that leads to a block wider than this one of ours, which lies in `pool`. Beside our own route for the block no
/// question about an address would find it, so the kernel tells all.
///
/// # Errors
/// What the kernel said.
pub fn learned_around(rtnl: &mut Rtnl, block: IpNet, pool: IpNet) -> Result<Option<Learned>, KernelError> {
    let family = if matches!(block, IpNet::V4(_)) { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let all = RouteNetlinkMessage::GetRoute(filter(family, RTPROT_BGPD, RouteType::Unicast));
    let answers = rtnl.dump(all).trying(|| "listing learned routes".into())?;
    let around = answers.iter().filter_map(|answer| {
        let RouteNetlinkMessage::NewRoute(found) = answer else { return None };
        let prefix = destination(found)?;
        let counts = found.attributes.contains(&RouteAttribute::Priority(METRIC_LEARNED))
            && found.header.protocol == RouteProtocol::Other(RTPROT_BGPD)
            && prefix.contains(&block)
            && range::hinders(prefix, block, pool);
        counts.then(|| Learned { prefix, next_hop: next_hop(&found.attributes) })
    });
    Ok(around.max_by_key(|learned| learned.prefix.prefix_len()))
}

/// The far end of a route: of its tunnel if it has one, else its gateway; the first of several.
fn next_hop(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    let remote = attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Encap(parts) => parts.iter().find_map(|part| match part {
            RouteLwTunnelEncap::Ip(RouteIpTunnel::Destination(remote)) => Some(IpAddr::V4(*remote)),
            RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Destination(remote)) => Some(IpAddr::V6(*remote)),
            _ => None,
        }),
        _ => None,
    });
    remote.or_else(|| {
        attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
            RouteAttribute::Gateway(RouteAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
            RouteAttribute::MultiPath(hops) => hops.iter().find_map(|hop| next_hop(&hop.attributes)),
            _ => None,
        })
    })
}

/// A route's metric; IPv4 leaves 0 out.
fn metric(message: &RouteMessage) -> u32 {
    let priority = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    };
    message.attributes.iter().find_map(priority).unwrap_or(0)
}

/// Where a route leads to, as a prefix.
pub(crate) fn destination(message: &RouteMessage) -> Option<IpNet> {
    let len = message.header.destination_prefix_length;
    message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(v4)) => IpNet::new(IpAddr::V4(*v4), len).ok(),
        RouteAttribute::Destination(RouteAddress::Inet6(v6)) => IpNet::new(IpAddr::V6(*v6), len).ok(),
        _ => None,
    })
}

fn oif(message: &RouteMessage) -> Option<u32> {
    message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

fn filter(family: AddressFamily, protocol: u8, kind: RouteType) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.protocol = RouteProtocol::Other(protocol);
    message.header.kind = kind;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message
}

fn local(address: IpAddr, index: Option<u32>) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Other(RTPROT_FELIX);
    message.header.scope = if address.is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
    message.header.kind = RouteType::Unicast;
    let metric = if address.is_ipv4() { METRIC_LOCAL_V4 } else { METRIC_LOCAL_V6 };
    if metric != 0 {
        message.attributes.push(RouteAttribute::Priority(metric));
    }
    message.attributes.extend(index.map(RouteAttribute::Oif));
    set_destination(&mut message, address);
    message
}

fn set_destination(message: &mut RouteMessage, address: IpAddr) {
    let (family, len, destination) = match address {
        IpAddr::V4(v4) => (AddressFamily::Inet, 32, RouteAddress::Inet(v4)),
        IpAddr::V6(v6) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(v6)),
    };
    message.header.address_family = family;
    message.header.destination_prefix_length = len;
    message.attributes.push(RouteAttribute::Destination(destination));
}
