//! Connections of an address that changes hands. What the kernel still remembers of them would let their packets through to
//! the next owner as established, whatever policy says.
//!
//! ctnetlink by hand: a dump, and one delete per connection that has the address at either end, named by the kernel's own bytes.

use crate::io::link::{KernelError, Trying};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use std::io;
use std::net::IpAddr;

/// `NFNL_SUBSYS_CTNETLINK << 8`, with `IPCTNL_MSG_CT_NEW`, `_GET`, `_DELETE`.
const NEW: u16 = 0x100;
const GET: u16 = 0x101;
const DELETE: u16 = 0x102;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
/// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER` are not part of the type.
const TYPE: u16 = 0x3fff;
/// nlmsghdr and nfgenmsg.
const HEADERS: usize = 20;

/// Forgets every connection that has one of these addresses at an end. Returns how many.
///
/// # Errors
/// What the kernel said.
pub fn forget(addresses: &[IpAddr]) -> Result<usize, KernelError> {
    let mut forgotten = 0;
    if addresses.is_empty() {
        return Ok(0);
    }
    let mut socket = open().trying(|| "opening a netlink socket for connections".to_owned())?;
    for family in [libc::AF_INET, libc::AF_INET6] {
        let family = family as u8;
        let wanted: Vec<Vec<u8>> = addresses
            .iter()
            .filter(|address| address.is_ipv4() == (family == libc::AF_INET as u8))
            .map(bytes)
            .collect();
        if wanted.is_empty() {
            continue;
        }
        for name in find(&mut socket, family, &wanted).trying(|| "listing connections".to_owned())? {
            send(&socket, DELETE, REQUEST | ACK, family, &name).trying(|| "forgetting a connection".to_owned())?;
            match acknowledged(&mut socket) {
                Ok(()) => forgotten += 1,
                // It ended by itself meanwhile.
                Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
                Err(e) => return Err(e).trying(|| "forgetting a connection".to_owned()),
            }
        }
    }
    Ok(forgotten)
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// What names the connections with one of the addresses: original tuple, ID and zone as the kernel writes them.
fn find(socket: &mut Socket, family: u8, wanted: &[Vec<u8>]) -> io::Result<Vec<Vec<u8>>> {
    send(socket, GET, REQUEST | DUMP, family, &[])?;
    let mut found = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        for (kind, body) in messages(&datagram) {
            match kind {
                NLMSG_DONE => return Ok(found),
                NLMSG_ERROR => return errno(body).map(|()| found),
                NEW => found.extend(body.get(4..).and_then(|attributes| name(attributes, wanted))),
                _ => {}
            }
        }
    }
}

fn acknowledged(socket: &mut Socket) -> io::Result<()> {
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        if let Some((_, body)) = messages(&datagram).find(|(kind, _)| *kind == NLMSG_ERROR) {
            return errno(body);
        }
    }
}

fn name(connection: &[u8], wanted: &[Vec<u8>]) -> Option<Vec<u8>> {
    let has = |tuple: &[u8]| {
        attributes(tuple)
            .filter(|(kind, _, _)| *kind == CTA_TUPLE_IP)
            .any(|(_, ends, _)| attributes(ends).any(|(_, end, _)| wanted.iter().any(|address| address == end)))
    };
    let (mut name, mut ours) = (Vec::new(), false);
    for (kind, value, whole) in attributes(connection) {
        if matches!(kind, CTA_TUPLE_ORIG | CTA_TUPLE_REPLY) {
            ours |= has(value);
        }
        if matches!(kind, CTA_TUPLE_ORIG | CTA_ID | CTA_ZONE) {
            name.extend_from_slice(whole);
            name.resize(name.len().next_multiple_of(4), 0);
        }
    }
    ours.then_some(name)
}

fn send(socket: &Socket, kind: u16, flags: u16, family: u8, attributes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(HEADERS + attributes.len()).map_err(io::Error::other)?;
    let mut message = Vec::with_capacity(HEADERS + attributes.len());
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([family, 0, 0, 0]);
    message.extend(attributes);
    socket.send(&message, 0).map(|_| ())
}

/// Type and body of every message of a datagram.
fn messages(datagram: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*rest.first_chunk()?) as usize;
        let kind = u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?);
        let body = rest.get(16..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// Type, value, and value with its header, of every attribute.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8], &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = u16::from_ne_bytes(*rest.first_chunk()?) as usize;
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?) & TYPE;
        let (value, whole) = (rest.get(4..length)?, &rest[..length]);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value, whole))
    })
}

fn errno(body: &[u8]) -> io::Result<()> {
    match body.first_chunk().map(|code| i32::from_ne_bytes(*code)) {
        None | Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
    }
}

fn bytes(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut all = (u16::try_from(value.len() + 4).unwrap()).to_ne_bytes().to_vec();
        all.extend(kind.to_ne_bytes());
        all.extend(value);
        all.resize(all.len().next_multiple_of(4), 0);
        all
    }

    #[test]
    fn a_connection_is_named_if_either_end_of_either_direction_has_the_address() {
        let tuple = |kind, from: [u8; 4], to: [u8; 4]| {
            let ends = [attribute(1, &from), attribute(2, &to)].concat();
            attribute(kind | 0x8000, &attribute(CTA_TUPLE_IP | 0x8000, &ends))
        };
        let (a, b, nat) = ([10, 0, 0, 1], [10, 0, 0, 2], [172, 31, 0, 1]);
        let connection = [
            tuple(CTA_TUPLE_ORIG, a, b),
            tuple(CTA_TUPLE_REPLY, b, nat),
            attribute(7, &[1]),
            attribute(CTA_ID, &[1, 2, 3, 4]),
        ]
        .concat();
        let expected = [tuple(CTA_TUPLE_ORIG, a, b), attribute(CTA_ID, &[1, 2, 3, 4])].concat();
        for end in [a, b, nat] {
            assert_eq!(name(&connection, &[end.to_vec()]), Some(expected.clone()));
        }
        assert_eq!(name(&connection, &[vec![10, 0, 0, 3]]), None);
    }

    #[test]
    fn bytes_that_are_no_message_end_the_walk() {
        assert_eq!(messages(&[1, 0, 0]).count(), 0);
        assert_eq!(messages(&[0; 64]).count(), 0);
        assert_eq!(attributes(&[0, 0, 1, 0, 9, 9]).count(), 0);
        assert_eq!(attributes(&[200, 0, 1, 0, 9, 9]).count(), 0);
    }
}
