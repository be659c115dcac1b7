//! What the first bytes of a packet say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A packet that was denied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// What the rule that denied it says.
    pub prefix: String,
    /// Index of the interface that it came in on.
    pub in_interface: Option<u32>,
    /// Index of the interface that it would have left by.
    pub out_interface: Option<u32>,
    /// Whether it was for this host.
    pub to_host: bool,
    /// From whom and to whom.
    pub headers: Option<Headers>,
}

/// Who wants what of whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// The sender; port 0 for protocols without ports and for later fragments.
    pub source: SocketAddr,
    /// The receiver.
    pub destination: SocketAddr,
    /// Layer 4 protocol, after extension headers.
    pub protocol: u8,
}

/// Extension headers that may stand before layer 4: hop-by-hop, routing, fragment, destination options.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;
/// More of them than any packet has that means well.
const EXTENSIONS: usize = 8;

/// The headers of a packet of either family; none if it ends too early.
pub(crate) fn headers(bytes: &[u8]) -> Option<Headers> {
    match bytes.first()? >> 4 {
        4 => v4(bytes),
        6 => v6(bytes),
        _ => None,
    }
}

fn v4(bytes: &[u8]) -> Option<Headers> {
    let length = usize::from(bytes.first()? & 0xf) * 4;
    let address = |at: usize| bytes.get(at..)?.first_chunk::<4>().map(|octets| IpAddr::V4(Ipv4Addr::from(*octets)));
    let is_first = u16::from_be_bytes(*bytes.get(6..)?.first_chunk()?) & 0x1fff == 0;
    let rest = bytes.get(length..).filter(|_| is_first).unwrap_or_default();
    Some(ended(*bytes.get(9)?, address(12)?, address(16)?, rest))
}

fn v6(bytes: &[u8]) -> Option<Headers> {
    let address = |at: usize| bytes.get(at..)?.first_chunk::<16>().map(|octets| IpAddr::V6(Ipv6Addr::from(*octets)));
    let (source, destination) = (address(8)?, address(24)?);
    let (mut next, mut rest) = (*bytes.get(6)?, bytes.get(40..)?);
    for _ in 0..EXTENSIONS {
        let length = match next {
            HOP_BY_HOP | ROUTING | DESTINATION => 8 * (1 + usize::from(*rest.get(1)?)),
            FRAGMENT if rest.get(2..4).is_some_and(|at| u16::from_be_bytes([at[0], at[1]]) >> 3 > 0) => {
                return Some(ended(*rest.first()?, source, destination, &[]));
            }
            FRAGMENT => 8,
            _ => break,
        };
        next = *rest.first()?;
        rest = rest.get(length..).unwrap_or_default();
    }
    Some(ended(next, source, destination, rest))
}

fn ended(protocol: u8, source: IpAddr, destination: IpAddr, layer4: &[u8]) -> Headers {
    let port = |at: usize| {
        let bytes = layer4.get(at..).filter(|_| crate::cut::has_ports(protocol)).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |port| u16::from_be_bytes(*port))
    };
    Headers { source: SocketAddr::new(source, port(0)), destination: SocketAddr::new(destination, port(2)), protocol }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
    }

    fn told(bytes: &[u8]) -> Option<(String, String, u8)> {
        headers(bytes).map(|h| (h.source.to_string(), h.destination.to_string(), h.protocol))
    }

    fn is(from: &str, to: &str, protocol: u8) -> Option<(String, String, u8)> {
        Some((from.to_owned(), to.to_owned(), protocol))
    }

    #[test]
    fn ports_stand_after_options_and_later_fragments_have_none() {
        let udp = hex("4500001d 00004000 4011f2a0 0a2a0001 0a2a0002 1388 1f90 0009 0000 78");
        assert_eq!(told(&udp), is("10.42.0.1:5000", "10.42.0.2:8080", 17));
        let options = hex("46000020 00004000 4006f2a0 0a2a0001 0a2a0002 01010101 1388 1f90");
        assert_eq!(told(&options), is("10.42.0.1:5000", "10.42.0.2:8080", 6));
        let fragment = hex("4500001d 00000001 4011f2a0 0a2a0001 0a2a0002 1388 1f90 0009 0000 78");
        assert_eq!(told(&fragment), is("10.42.0.1:0", "10.42.0.2:0", 17));
        let icmp = hex("45000054 00004000 4001f2a0 0a2a0001 0a2a0002 0800 1234 0001 0001");
        assert_eq!(told(&icmp), is("10.42.0.1:0", "10.42.0.2:0", 1));
    }

    #[test]
    fn extension_headers_are_passed_over() {
        let ends = "fd000000000000000000000000000001 fd000000000000000000000000000002";
        let plain = hex(&format!("60000000 0008 11 40 {ends} 1388 1f90 0008 0000"));
        assert_eq!(told(&plain), is("[fd00::1]:5000", "[fd00::2]:8080", 17));
        let options = hex(&format!("60000000 0018 00 40 {ends} 3c00000000000000 0600000000000000 1388 1f90"));
        assert_eq!(told(&options), is("[fd00::1]:5000", "[fd00::2]:8080", 6));
        let fragment = hex(&format!("60000000 0018 2c 40 {ends} 1100 0009 00000001 1388 1f90"));
        assert_eq!(told(&fragment), is("[fd00::1]:0", "[fd00::2]:0", 17));
    }

    #[test]
    fn bytes_that_end_too_early_are_no_packet_or_one_without_ports() {
        let whole = hex("4500001d 00004000 4011f2a0 0a2a0001 0a2a0002 1388 1f90 0009 0000 78");
        for end in 0..20 {
            assert_eq!(told(&whole[..end]), None, "{end}");
        }
        assert_eq!(told(&whole[..20]), is("10.42.0.1:0", "10.42.0.2:0", 17));
        assert_eq!(told(&[0x50; 60]), None);
        // Extension headers without end.
        let looped = [hex("60000000 ffff 00 40"), vec![0; 1000]].concat();
        assert_eq!(told(&looped).map(|told| told.2), Some(0));
    }
}
