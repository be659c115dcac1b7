//! ctnetlink's bytes (`linux/netfilter/nfnetlink_conntrack.h`).

use crate::cut::Flow;
use crate::io::netfilter::attributes;
use std::net::{IpAddr, SocketAddr};

const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const ID: u16 = 12;
const ZONE: u16 = 18;
/// Inside a tuple.
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
/// Inside the IP part: IPv4 source and destination, IPv6 source and destination.
const SOURCES: [u16; 2] = [1, 3];
const DESTINATIONS: [u16; 2] = [2, 4];
/// Inside the protocol part.
const PROTO_NUM: u16 = 1;
const PROTO_SRC_PORT: u16 = 2;
const PROTO_DST_PORT: u16 = 3;
/// `IPS_EXPECTED`: a helper opened it for another connection.
const EXPECTED: u32 = 1;

/// A connection that the kernel knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// As policy sees it.
    pub flow: Flow,
    /// Belongs to another connection, which policy allowed.
    pub expected: bool,
    /// Sources and destinations of both directions.
    pub(super) addresses: [IpAddr; 4],
    /// Original tuple, ID and zone in the kernel's own bytes: what names it to the kernel.
    pub(super) name: Vec<u8>,
}

/// One direction.
struct Tuple {
    source: SocketAddr,
    destination: SocketAddr,
    protocol: u8,
}

impl Connection {
    /// Reads the attributes of a message; none if it lacks what every connection has.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (mut original, mut reply, mut expected, mut name) = (None, None, false, Vec::new());
        for (kind, value, whole) in attributes(bytes) {
            match kind {
                TUPLE_ORIG => original = tuple(value),
                TUPLE_REPLY => reply = tuple(value),
                STATUS => {
                    expected = value.first_chunk().is_some_and(|status| u32::from_be_bytes(*status) & EXPECTED != 0);
                }
                _ => {}
            }
            if matches!(kind, TUPLE_ORIG | ID | ZONE) {
                name.extend_from_slice(whole);
                name.resize(name.len().next_multiple_of(4), 0);
            }
        }
        let (original, reply) = (original?, reply?);
        // The reply's sender is where destination NAT led; the original's sender is who it was before source NAT.
        let flow = Flow { source: original.source, destination: reply.source, protocol: original.protocol };
        let addresses = [original.source, original.destination, reply.source, reply.destination].map(|end| end.ip());
        Some(Self { flow, expected, addresses, name })
    }
}

fn tuple(bytes: &[u8]) -> Option<Tuple> {
    let (mut source, mut destination, mut protocol, mut ports) = (None, None, None, [0, 0]);
    for (kind, value, _) in attributes(bytes) {
        for (part, value, _) in attributes(value) {
            match (kind, part) {
                (TUPLE_IP, part) if SOURCES.contains(&part) => source = address(value),
                (TUPLE_IP, part) if DESTINATIONS.contains(&part) => destination = address(value),
                (TUPLE_PROTO, PROTO_NUM) => protocol = value.first().copied(),
                (TUPLE_PROTO, PROTO_SRC_PORT) => ports[0] = port(value),
                (TUPLE_PROTO, PROTO_DST_PORT) => ports[1] = port(value),
                _ => {}
            }
        }
    }
    Some(Tuple {
        source: SocketAddr::new(source?, ports[0]),
        destination: SocketAddr::new(destination?, ports[1]),
        protocol: protocol?,
    })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}

fn port(bytes: &[u8]) -> u16 {
    bytes.first_chunk().map_or(0, |port| u16::from_be_bytes(*port))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const NESTED: u16 = 0x8000;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut all = (u16::try_from(value.len() + 4).unwrap()).to_ne_bytes().to_vec();
        all.extend(kind.to_ne_bytes());
        all.extend(value);
        all.resize(all.len().next_multiple_of(4), 0);
        all
    }

    fn tuple(kind: u16, from: ([u8; 4], u16), to: ([u8; 4], u16)) -> Vec<u8> {
        let ends = [attribute(1, &from.0), attribute(2, &to.0)].concat();
        let ports = [attribute(2, &from.1.to_be_bytes()), attribute(3, &to.1.to_be_bytes())].concat();
        let protocol = [attribute(1, &[17]), ports].concat();
        let parts = [attribute(TUPLE_IP | NESTED, &ends), attribute(TUPLE_PROTO | NESTED, &protocol)].concat();
        attribute(kind | NESTED, &parts)
    }

    #[test]
    fn a_connection_is_read_as_policy_sees_it_and_named_as_the_kernel_does() {
        let (pod, service, backend, node) = ([10, 0, 0, 1], [10, 96, 0, 1], [10, 0, 0, 2], [172, 31, 0, 1]);
        let original = tuple(TUPLE_ORIG, (pod, 4000), (service, 53));
        let reply = tuple(TUPLE_REPLY, (backend, 5353), (node, 61000));
        let id = attribute(ID, &[1, 2, 3, 4]);
        let bytes =
            [original.clone(), reply, attribute(STATUS, &[0, 0, 0, 0x0e]), attribute(7, &[1]), id.clone()].concat();
        let found = Connection::read(&bytes).unwrap();
        let end = |address: [u8; 4], port| SocketAddr::new(address.into(), port);
        assert_eq!(found.flow, Flow { source: end(pod, 4000), destination: end(backend, 5353), protocol: 17 });
        assert_eq!(found.addresses, [pod, service, backend, node].map(IpAddr::from));
        assert_eq!((found.expected, found.name), (false, [original.clone(), id].concat()));
        assert_eq!(Connection::read(&original), None);
    }
}
