//! Captured frames as what they are between nodes: plain, or in a tunnel's header, with the addresses outside and inside.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How a packet travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Form {
    Plain,
    /// RFC 7348, with its VNI.
    Vxlan(u32),
    /// RFC 2003.
    Ipip,
}

/// A packet on a wire.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Packet {
    pub(crate) form: Form,
    /// Source and destination of the first header.
    pub(crate) outer: [IpAddr; 2],
    /// The same of the last: a plain packet's are both.
    pub(crate) inner: [IpAddr; 2],
    /// It is a part of one that was too long, outside or inside.
    pub(crate) fragment: bool,
}

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ICMP: u8 = 1;
const IP_IN_IP: u8 = 4;
const UDP: u8 = 17;
/// Of IPv6.
const FRAGMENT: u8 = 44;
const VXLAN_PORT: u16 = 4789;
/// Little endian, microseconds, as tcpdump writes on every machine that tests run on.
const PCAP: [u8; 4] = [0xd4, 0xc3, 0xb2, 0xa1];

/// The IP packets of a capture of Ethernet frames.
pub(crate) fn packets(pcap: &[u8]) -> Vec<Packet> {
    assert_eq!(pcap[..4], PCAP, "a capture of this machine");
    let (mut rest, mut found) = (&pcap[24..], Vec::new());
    // One that is cut off was being written when the capture ended.
    while let Some((header, after)) = rest.split_at_checked(16) {
        let length = u32::from_le_bytes(header[8..12].try_into().unwrap());
        let Some((frame, after)) = after.split_at_checked(usize::try_from(length).unwrap()) else { break };
        found.extend(ethernet(frame));
        rest = after;
    }
    found
}

fn ethernet(frame: &[u8]) -> Option<Packet> {
    let outer = network(frame)?;
    let inner = match outer.protocol {
        // What is inside is in another one.
        _ if outer.fragment => None,
        // Nodes ask each other by echo requests whether it gets through.
        IP_IN_IP => Some((Form::Ipip, ipv4(outer.payload).filter(|inner| inner.protocol != ICMP)?)),
        UDP if word(outer.payload, 2)? == VXLAN_PORT => {
            let header = outer.payload.get(8..16)?;
            let vni = u32::from_be_bytes(header[4..].try_into().unwrap()) >> 8;
            Some((Form::Vxlan(vni), network(&outer.payload[16..])?))
        }
        _ => None,
    };
    let (form, inner) = inner.unwrap_or((Form::Plain, outer));
    Some(Packet { form, outer: outer.ends, inner: inner.ends, fragment: outer.fragment || inner.fragment })
}

#[derive(Clone, Copy)]
struct Header<'a> {
    ends: [IpAddr; 2],
    protocol: u8,
    fragment: bool,
    payload: &'a [u8],
}

/// Of an Ethernet frame.
fn network(frame: &[u8]) -> Option<Header<'_>> {
    match word(frame, 12)? {
        IPV4 => ipv4(&frame[14..]),
        IPV6 => ipv6(&frame[14..]),
        _ => None,
    }
}

fn ipv4(packet: &[u8]) -> Option<Header<'_>> {
    let address = |at: usize| {
        let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(IpAddr::V4(Ipv4Addr::from(octets)))
    };
    let length = usize::from(packet.first()? & 0xf) * 4;
    // More fragments, or an offset.
    let fragment = word(packet, 6)? & 0x3fff != 0;
    Some(Header { ends: [address(12)?, address(16)?], protocol: packet[9], fragment, payload: packet.get(length..)? })
}

fn ipv6(packet: &[u8]) -> Option<Header<'_>> {
    let address = |at: usize| {
        let octets: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
        Some(IpAddr::V6(Ipv6Addr::from(octets)))
    };
    let protocol = *packet.get(6)?;
    Some(Header {
        ends: [address(8)?, address(24)?],
        protocol,
        fragment: protocol == FRAGMENT,
        payload: packet.get(40..)?,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}
