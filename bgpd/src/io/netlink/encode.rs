//! Steps of the FIB as rtnetlink messages.

use super::socket::Request;
use crate::fib::Config;
use crate::fib::route::{Forward, Hop, Step, Tunnel};
use crate::fib::tunnel;
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecUnspec, InetDevConf, InfoData, InfoIpTunnel, InfoKind, InfoVxlan, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteIp6Tunnel, RouteIp6TunnelFlags, RouteIpTunnel, RouteLwEnCapType,
    RouteLwTunnelEncap, RouteMessage, RouteMetric, RouteNextHop, RouteNextHopFlags, RouteProtocol, RouteScope,
    RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::net::IpAddr;
use twill_crds::names::{IPIP_DEVICE, VXLAN_DEVICE};

/// The message for a change of a route.
pub(crate) fn route(step: &Step, config: &Config) -> Request {
    match step {
        Step::Replace(prefix, metric, forward) => {
            let mut message = bare_route(*prefix, *metric, config);
            forward_attributes(&mut message, forward);
            Request { message: RouteNetlinkMessage::NewRoute(message), flags: NLM_F_CREATE | NLM_F_REPLACE }
        }
        Step::Delete(prefix, metric) => {
            let mut message = bare_route(*prefix, *metric, config);
            message.header.scope = RouteScope::NoWhere;
            Request { message: RouteNetlinkMessage::DelRoute(message), flags: 0 }
        }
    }
}

/// The message for a change of a device; none for what is not rtnetlink's.
pub(crate) fn device(step: &tunnel::Step) -> Option<Request> {
    Some(match step {
        tunnel::Step::CreateVxlan { mac, port, mtu } => create_vxlan(*mac, *port, *mtu),
        tunnel::Step::CreateIpip { mtu } => {
            let data = InfoData::IpTunnel(vec![InfoIpTunnel::CollectMetadata]);
            create(IPIP_DEVICE, InfoKind::IpIp, data, vec![LinkAttribute::Mtu(*mtu)])
        }
        tunnel::Step::Remove(_, index) => Request { message: RouteNetlinkMessage::DelLink(link(*index)), flags: 0 },
        tunnel::Step::SetMac(index, mac) => set(*index, vec![LinkAttribute::Address(mac.to_vec())]),
        tunnel::Step::SetMtu(_, index, mtu) => set(*index, vec![LinkAttribute::Mtu(*mtu)]),
        tunnel::Step::SetUp(_, index) => {
            let mut message = link(*index);
            message.header.flags = LinkFlags::Up;
            message.header.change_mask = LinkFlags::Up;
            Request { message: RouteNetlinkMessage::SetLink(message), flags: 0 }
        }
        tunnel::Step::DisableChecksumOffload { .. } => return None,
        tunnel::Step::Loosen(index, _) => {
            let mut settings = InetDevConf::default();
            settings.rp_filter = 2;
            let family = AfSpecUnspec::Inet(vec![AfSpecInet::DevConfRequest(settings)]);
            set(*index, vec![LinkAttribute::AfSpecUnspec(vec![family])])
        }
        tunnel::Step::AddAddress(index, address) => {
            let message = RouteNetlinkMessage::NewAddress(self::address(*index, IpNet::from(*address)));
            Request { message, flags: NLM_F_CREATE | NLM_F_REPLACE }
        }
        tunnel::Step::RemoveAddress(index, net) => {
            Request { message: RouteNetlinkMessage::DelAddress(address(*index, *net)), flags: 0 }
        }
        tunnel::Step::AddNeighbour(index, address, mac) => {
            let mut message = neighbour(*index, *address);
            message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
            Request { message: RouteNetlinkMessage::NewNeighbour(message), flags: NLM_F_CREATE | NLM_F_REPLACE }
        }
        tunnel::Step::RemoveNeighbour(index, address) => {
            Request { message: RouteNetlinkMessage::DelNeighbour(neighbour(*index, *address)), flags: 0 }
        }
    })
}

pub(crate) fn family(v6: bool) -> AddressFamily {
    if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet }
}

fn bare_route(prefix: IpNet, metric: u32, config: &Config) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(matches!(prefix, IpNet::V6(_)));
    message.header.destination_prefix_length = prefix.prefix_len();
    message.header.table = u8::try_from(config.table).unwrap_or_default();
    message.header.protocol = RouteProtocol::from(config.protocol);
    message.attributes = vec![
        RouteAttribute::Destination(RouteAddress::from(prefix.addr())),
        RouteAttribute::Table(config.table),
        RouteAttribute::Priority(metric),
    ];
    message
}

fn forward_attributes(message: &mut RouteMessage, forward: &Forward) {
    match forward {
        Forward::Unreachable => message.header.kind = RouteType::Unreachable,
        Forward::Unicast { hops, mtu, source } => {
            let family = message.header.address_family;
            message.header.kind = RouteType::Unicast;
            if hops.iter().all(|hop| hop.gateway.is_none()) {
                message.header.scope = RouteScope::Link;
            }
            message.attributes.extend(mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])));
            message.attributes.extend(source.map(|source| RouteAttribute::PrefSource(RouteAddress::from(source))));
            match hops.as_slice() {
                [hop] => {
                    message.attributes.push(RouteAttribute::Oif(hop.link));
                    message.attributes.extend(hop_attributes(hop, family));
                    if onlink(hop) {
                        message.header.flags |= netlink_packet_route::route::RouteFlags::Onlink;
                    }
                }
                hops => message
                    .attributes
                    .push(RouteAttribute::MultiPath(hops.iter().map(|hop| next_hop(hop, family)).collect())),
            }
        }
    }
}

fn next_hop(hop: &Hop, family: AddressFamily) -> RouteNextHop {
    let mut next_hop = RouteNextHop::default();
    next_hop.interface_index = hop.link;
    next_hop.attributes = hop_attributes(hop, family);
    if onlink(hop) {
        next_hop.flags = RouteNextHopFlags::Onlink;
    }
    next_hop
}

/// A tunnel's gateway is on no subnet of its device; without a gateway the kernel refuses the flag.
fn onlink(hop: &Hop) -> bool {
    hop.tunnel.is_some() && hop.gateway.is_some()
}

fn hop_attributes(hop: &Hop, family: AddressFamily) -> Vec<RouteAttribute> {
    let mut attributes: Vec<RouteAttribute> = Vec::with_capacity(3);
    attributes.extend(hop.gateway.map(|gateway| match gateway {
        // A gateway of the other family (`linux/rtnetlink.h`, RTA_VIA).
        IpAddr::V6(gateway) if family == AddressFamily::Inet => RouteAttribute::Via(RouteVia::Inet6(gateway)),
        gateway => RouteAttribute::Gateway(RouteAddress::from(gateway)),
    }));
    if let Some(tunnel) = &hop.tunnel {
        attributes.extend(tunnel_attributes(tunnel));
    }
    attributes
}

fn tunnel_attributes(Tunnel { id, source, remote, ttl }: &Tunnel) -> [RouteAttribute; 2] {
    let mut v4 = vec![RouteIpTunnel::Id(*id), RouteIpTunnel::Ttl(*ttl)];
    let mut v6 = vec![
        RouteIp6Tunnel::Id(*id),
        RouteIp6Tunnel::Hoplimit(*ttl),
        // Over IPv6 nobody takes UDP without.
        RouteIp6Tunnel::Flags(RouteIp6TunnelFlags::Checksum),
    ];
    match source {
        IpAddr::V4(source) => v4.push(RouteIpTunnel::Source(*source)),
        IpAddr::V6(source) => v6.push(RouteIp6Tunnel::Source(*source)),
    }
    let (kind, parts) = match remote {
        IpAddr::V4(remote) => {
            v4.push(RouteIpTunnel::Destination(*remote));
            (RouteLwEnCapType::Ip, v4.into_iter().map(RouteLwTunnelEncap::Ip).collect())
        }
        IpAddr::V6(remote) => {
            v6.push(RouteIp6Tunnel::Destination(*remote));
            (RouteLwEnCapType::Ip6, v6.into_iter().map(RouteLwTunnelEncap::Ip6).collect())
        }
    };
    [RouteAttribute::EncapType(kind), RouteAttribute::Encap(parts)]
}

fn create_vxlan(mac: [u8; 6], port: u16, mtu: u32) -> Request {
    let data =
        InfoData::Vxlan(vec![InfoVxlan::CollectMetadata(true), InfoVxlan::Learning(false), InfoVxlan::Port(port)]);
    create(VXLAN_DEVICE, InfoKind::Vxlan, data, vec![LinkAttribute::Address(mac.to_vec()), LinkAttribute::Mtu(mtu)])
}

fn create(name: &str, kind: InfoKind, data: InfoData, more: Vec<LinkAttribute>) -> Request {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind), LinkInfo::Data(data)]),
    ];
    message.attributes.extend(more);
    Request { message: RouteNetlinkMessage::NewLink(message), flags: NLM_F_CREATE | NLM_F_EXCL }
}

fn set(index: u32, attributes: Vec<LinkAttribute>) -> Request {
    let mut message = link(index);
    message.attributes = attributes;
    Request { message: RouteNetlinkMessage::SetLink(message), flags: 0 }
}

fn link(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

fn address(index: u32, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(matches!(net, IpNet::V6(_)));
    message.header.prefix_len = net.prefix_len();
    message.header.index = index;
    message.header.scope = AddressScope::Universe;
    message.attributes = vec![AddressAttribute::Local(net.addr()), AddressAttribute::Address(net.addr())];
    if matches!(net, IpNet::V6(_)) {
        // Ours by construction, and a tentative address cannot be a preferred source.
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message
}

/// The message that has the kernel find a neighbour, as if a packet went to it; one that is known stays as it is.
pub(crate) fn find_neighbour(index: u32, address: IpAddr) -> Request {
    let mut message = neighbour(index, address);
    message.header.state = NeighbourState::None;
    message.header.flags = NeighbourFlags::Use;
    Request { message: RouteNetlinkMessage::NewNeighbour(message), flags: NLM_F_CREATE }
}

fn neighbour(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address.is_ipv6());
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    let destination = match address {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    };
    message.attributes.push(NeighbourAttribute::Destination(destination));
    message
}
