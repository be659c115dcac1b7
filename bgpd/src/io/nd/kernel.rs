//! What the kernel says of interfaces: whether they are up, our link-local address, and who is on the link.

use crate::io::netlink::socket::{Requests, enlarge, messages, retry};
use crate::nd::Condition;
use netlink_packet_core::Parseable;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};

/// Multicast groups (`linux/rtnetlink.h`, RTNLGRP_*): link, neigh, IPv6 address.
const GROUPS: [u32; 3] = [1, 3, 9];
/// RTM_NEWLINK and RTM_DELLINK.
const LINK: [u16; 2] = [16, 17];

/// The netlink sockets.
pub(super) struct Kernel {
    requests: Requests,
    events: Socket,
    buffer: Vec<u8>,
    /// Indices of the interfaces that were last read.
    known: BTreeSet<u32>,
    /// Our address on each, as it was chosen.
    own: BTreeMap<u32, Ipv6Addr>,
}

/// One interface.
#[derive(Clone, Debug, Default)]
pub(super) struct Interface {
    index: u32,
    up: bool,
    pub(super) mac: Option<[u8; 6]>,
    own: Option<Ipv6Addr>,
    pub(super) neighbours: BTreeSet<Ipv6Addr>,
}

impl Interface {
    /// Its index, if it is there and up.
    pub(super) fn index(&self) -> Option<u32> {
        (self.index > 0 && self.up).then_some(self.index)
    }

    pub(super) fn condition(&self) -> Condition {
        match (self.index, self.up, self.own) {
            (0, ..) => Condition::Missing,
            (_, false, _) => Condition::Down,
            (_, true, None) => Condition::NoAddress,
            (index, true, Some(own)) => Condition::Ready { index, own },
        }
    }
}

impl Kernel {
    pub(super) fn open() -> io::Result<Self> {
        let mut events = Socket::new(NETLINK_ROUTE)?;
        events.bind(&SocketAddr::new(0, 0))?;
        for group in GROUPS {
            events.add_membership(group)?;
        }
        events.set_non_blocking(true)?;
        enlarge(&events);
        let buffer = Vec::with_capacity(64 * 1024);
        Ok(Self { requests: Requests::open()?, events, buffer, known: BTreeSet::new(), own: BTreeMap::new() })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Reads all notifications that wait; whether one of them is about an interface of these names.
    pub(super) fn changed(&mut self, wanted: impl Fn(&str) -> bool) -> bool {
        let mut changed = false;
        loop {
            self.buffer.clear();
            self.buffer.reserve(64 * 1024);
            match retry(|| self.events.recv(&mut self.buffer, 0)) {
                Ok(_) => {
                    changed |= messages(&self.buffer).any(|(kind, _, _, body)| {
                        // `struct ifinfomsg`, `ifaddrmsg` and `ndmsg` all have the index there.
                        let index = body.get(4..8).and_then(|octets| octets.try_into().ok()).map(u32::from_ne_bytes);
                        let known = index.is_some_and(|index| self.known.contains(&index));
                        known || LINK.contains(&kind) && name(body).is_some_and(|name| wanted(&name))
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return changed,
                // Events were lost: what they said can only be found by looking. Any other error says so again when it is read.
                Err(_) => return true,
            }
        }
    }

    /// Reads the interfaces of these names.
    pub(super) fn read(&mut self, names: &BTreeSet<&str>) -> io::Result<BTreeMap<String, Interface>> {
        let mut found: BTreeMap<u32, (String, Interface)> = BTreeMap::new();
        self.requests.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), |_, body| {
            if let Some((name, interface)) = link(body).filter(|(name, _)| names.contains(name.as_str())) {
                found.insert(interface.index, (name, interface));
            }
        })?;
        let mut own: BTreeMap<u32, BTreeSet<Ipv6Addr>> = BTreeMap::new();
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet6;
        self.requests.dump(RouteNetlinkMessage::GetAddress(message), |_, body| {
            if let Some((index, address)) = own_address(body)
                && found.contains_key(&index)
            {
                own.entry(index).or_default().insert(address);
            }
        })?;
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet6;
        self.requests.dump(RouteNetlinkMessage::GetNeighbour(message), |_, body| {
            if let Some((index, address)) = neighbour(body)
                && let Some((_, interface)) = found.get_mut(&index)
            {
                interface.neighbours.insert(address);
            }
        })?;
        for (index, (_, interface)) in &mut found {
            interface.own = own.get(index).and_then(|all| in_use(self.own.get(index), all));
        }
        self.own = found.iter().filter_map(|(index, (_, interface))| Some((*index, interface.own?))).collect();
        self.known = found.keys().copied().collect();
        Ok(found.into_values().collect())
    }
}

fn name(body: &[u8]) -> Option<String> {
    let message = LinkMessage::parse(body).ok()?;
    message.attributes.into_iter().find_map(|a| if let LinkAttribute::IfName(name) = a { Some(name) } else { None })
}

fn link(body: &[u8]) -> Option<(String, Interface)> {
    let message = LinkMessage::parse(body).ok()?;
    // Without a carrier, IFF_RUNNING is off.
    let up = message.header.flags.contains(LinkFlags::Up | LinkFlags::Running);
    let mut interface = Interface { index: message.header.index, up, ..Interface::default() };
    let mut name = None;
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text),
            LinkAttribute::Address(octets) => interface.mac = octets.try_into().ok(),
            _ => {}
        }
    }
    Some((name?, interface))
}

/// Which of our addresses is used: the one that is, while it is there. Another one, such as VRRP's, comes and goes.
fn in_use(before: Option<&Ipv6Addr>, all: &BTreeSet<Ipv6Addr>) -> Option<Ipv6Addr> {
    before.filter(|before| all.contains(*before)).or_else(|| all.first()).copied()
}

/// A link-local address that may be used: not one that is still being checked, or is another's.
fn own_address(body: &[u8]) -> Option<(u32, Ipv6Addr)> {
    let message = AddressMessage::parse(body).ok()?;
    let (mut address, mut flags) = (None, AddressFlags::empty());
    for attribute in message.attributes {
        match attribute {
            AddressAttribute::Address(IpAddr::V6(found)) => address = Some(found),
            AddressAttribute::Flags(found) => flags = found,
            _ => {}
        }
    }
    let usable = !flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed);
    let address = address.filter(|address| usable && address.is_unicast_link_local())?;
    Some((message.header.index, address))
}

/// A link-local address that answers, or did.
fn neighbour(body: &[u8]) -> Option<(u32, Ipv6Addr)> {
    let message = NeighbourMessage::parse(body).ok()?;
    let there = [
        NeighbourState::Reachable,
        NeighbourState::Stale,
        NeighbourState::Delay,
        NeighbourState::Probe,
        NeighbourState::Permanent,
    ];
    if !there.contains(&message.header.state) {
        return None;
    }
    message.attributes.into_iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) if address.is_unicast_link_local() => {
            Some((message.header.ifindex, address))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_address_of_ours_changes_nothing_while_the_one_in_use_is_there() {
        let [one, two] = [1, 2].map(|number| Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, number));
        assert_eq!(in_use(None, &[two].into()), Some(two));
        assert_eq!(in_use(Some(&two), &[one, two].into()), Some(two));
        assert_eq!(in_use(Some(&two), &[one].into()), Some(one));
        assert_eq!(in_use(Some(&two), &BTreeSet::new()), None);
    }
}
