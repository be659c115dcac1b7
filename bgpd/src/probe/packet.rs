//! Echo requests as a raw socket sends them, and what comes back as an ICMP socket hears it (RFC 791, 792, 2003).

use std::net::Ipv4Addr;

/// IP protocol numbers.
const ICMP: u8 = 1;
const IP_IN_IP: u8 = 4;

const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const ECHO: u8 = 8;

/// Codes of [`UNREACHABLE`] by which firewalls refuse (RFC 1122 section 3.2.2.1, RFC 1812 section 5.2.7.1): network and host administratively prohibited,
/// communication administratively prohibited.
const PROHIBITED: [u8; 3] = [9, 10, 13];

/// Octets of an IPv4 header without options, and of ICMP's.
const HEADER: usize = 20;
const ICMP_HEADER: usize = 8;
const TTL: u8 = 64;
const DONT_FRAGMENT: u8 = 0x40;

/// What an echo request is known by when its answer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Identifier of this process.
    pub id: u16,
    /// Number of the request.
    pub sequence: u16,
    /// What nobody can guess, so that nobody else answers.
    pub token: u64,
}

/// What was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// An answer to an echo request.
    Reply {
        /// Who answers.
        from: Ipv4Addr,
        /// To what.
        mark: Mark,
    },
    /// An echo request came to a host that has no way to where it goes.
    NoWay {
        /// Who says so.
        from: Ipv4Addr,
        /// Identifier and number of the request.
        id: u16,
        /// See `id`.
        sequence: u16,
    },
    /// A packet of protocol 4 was refused.
    Refused {
        /// Who refuses it.
        from: Ipv4Addr,
        /// Where it was to go.
        to: Ipv4Addr,
        /// By a rule, not for want of the protocol.
        prohibited: bool,
    },
}

/// An echo request as an IPv4 packet.
#[must_use]
pub fn echo(source: Ipv4Addr, destination: Ipv4Addr, mark: Mark) -> Vec<u8> {
    let mut icmp = vec![ECHO, 0, 0, 0];
    icmp.extend(mark.id.to_be_bytes());
    icmp.extend(mark.sequence.to_be_bytes());
    icmp.extend(mark.token.to_be_bytes());
    let sum = checksum(&icmp).to_be_bytes();
    icmp[2..4].copy_from_slice(&sum);
    wrap(source, destination, ICMP, &icmp)
}

/// An IPv4 packet inside another.
#[must_use]
pub fn ip_in_ip(source: Ipv4Addr, destination: Ipv4Addr, packet: &[u8]) -> Vec<u8> {
    wrap(source, destination, IP_IN_IP, packet)
}

fn wrap(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = (HEADER + payload.len()) as u16;
    let [high, low] = length.to_be_bytes();
    let mut packet = vec![0x45, 0, high, low, 0, 0, DONT_FRAGMENT, 0, TTL, protocol, 0, 0];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    let sum = checksum(&packet).to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
    packet.extend(payload);
    packet
}

/// What an ICMP packet, IPv4 header included, says to this node; none if it is of no interest.
#[must_use]
pub fn read(packet: &[u8]) -> Option<Heard> {
    let (from, _, protocol, icmp) = open(packet)?;
    match (protocol, *icmp.first()?) {
        (ICMP, ECHO_REPLY) => {
            let (id, sequence) = numbers(icmp)?;
            let token = u64::from_be_bytes(*icmp.get(ICMP_HEADER..)?.first_chunk()?);
            Some(Heard::Reply { from, mark: Mark { id, sequence, token } })
        }
        (ICMP, UNREACHABLE) => match open(icmp.get(ICMP_HEADER..)?)? {
            (_, to, IP_IN_IP, _) => Some(Heard::Refused { from, to, prohibited: PROHIBITED.contains(icmp.get(1)?) }),
            (_, _, ICMP, quoted) if quoted.first() == Some(&ECHO) => {
                let (id, sequence) = numbers(quoted)?;
                Some(Heard::NoWay { from, id, sequence })
            }
            _ => None,
        },
        _ => None,
    }
}

/// Source, destination, protocol and payload of an IPv4 packet, or of the beginning of one.
fn open(packet: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr, u8, &[u8])> {
    let header = packet.first_chunk::<HEADER>()?;
    let address = |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
    let length = usize::from(header[0] & 0x0f) * 4;
    (header[0] >> 4 == 4 && length >= HEADER).then_some(())?;
    Some((address(12), address(16), header[9], packet.get(length..)?))
}

/// Identifier and number of an echo request or its answer.
fn numbers(icmp: &[u8]) -> Option<(u16, u16)> {
    let &[_, _, _, _, a, b, c, d] = icmp.first_chunk::<ICMP_HEADER>()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

/// RFC 1071.
fn checksum(octets: &[u8]) -> u16 {
    let word = |pair: &[u8]| (u32::from(pair[0]) << 8) | u32::from(pair.get(1).copied().unwrap_or(0));
    let mut sum: u32 = octets.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const N1: Ipv4Addr = Ipv4Addr::new(172, 31, 1, 11);
    const N3: Ipv4Addr = Ipv4Addr::new(172, 31, 2, 11);
    const TOR: Ipv4Addr = Ipv4Addr::new(172, 31, 1, 1);
    const MARK: Mark = Mark { id: 0x1234, sequence: 7, token: 0x0102_0304_0506_0708 };

    /// An ICMP packet from somebody to n1.
    fn icmp(from: Ipv4Addr, kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
        wrap(from, N1, ICMP, &[&[kind, code, 0, 0], rest].concat())
    }

    #[test]
    fn a_request_has_the_octets_that_ping_sends() {
        // Checksums by hand (RFC 1071), as tcpdump -v says them to be right.
        let packet = echo(N1, N3, MARK);
        assert_eq!(packet.len(), 36);
        assert_eq!(packet[..12], [0x45, 0, 0, 36, 0, 0, 0x40, 0, 64, 1, 0xdf, 0x84]);
        assert_eq!(packet[20..28], [8, 0, 0xd5, 0xb0, 0x12, 0x34, 0, 7]);
        assert_eq!((checksum(&packet[..20]), checksum(&packet[20..])), (0, 0));
        let outer = ip_in_ip(N1, N3, &packet);
        assert_eq!((outer.len(), outer[9], &outer[20..]), (56, 4, packet.as_slice()));
        assert_eq!(checksum(&[1]), !0x0100, "an odd octet is the high one of its word");
    }

    #[test]
    fn answers_and_refusals_are_told_apart() {
        let request = echo(N1, N3, MARK);
        let reply = icmp(N3, 0, 0, &request[24..]);
        assert_eq!(read(&reply), Some(Heard::Reply { from: N3, mark: MARK }));
        let quoted = |packet: &[u8], octets: usize| [&[0; 4], &packet[..octets]].concat();
        let nobody = icmp(N3, 3, 1, &quoted(&request, 28));
        assert_eq!(read(&nobody), Some(Heard::NoWay { from: N3, id: MARK.id, sequence: MARK.sequence }));
        // A router need not quote more than eight octets behind the header.
        let outer = quoted(&ip_in_ip(N1, N3, &request), 28);
        let refused = |from, prohibited| Some(Heard::Refused { from, to: N3, prohibited });
        assert_eq!(read(&icmp(TOR, 3, 13, &outer)), refused(TOR, true));
        // firewalld's and iptables' words beside those of a kernel that lacks the protocol, or the device.
        for (code, prohibited) in [(10, true), (9, true), (2, false), (3, false)] {
            assert_eq!(read(&icmp(N3, 3, code, &outer)), refused(N3, prohibited), "{code}");
        }
    }

    #[test]
    fn what_is_cut_short_or_of_no_interest_is_nothing() {
        let request = echo(N1, N3, MARK);
        let refused = icmp(TOR, 3, 13, &[&[0; 4], &ip_in_ip(N1, N3, &request)[..28]].concat());
        let reply = icmp(N3, 0, 0, &request[24..]);
        for (packet, least) in [(&refused, 48), (&reply, 36)] {
            for length in 0..least {
                assert_eq!(read(&packet[..length]), None, "{length}");
            }
        }
        assert_eq!(read(&request), None, "somebody's request");
        assert_eq!(read(&icmp(N3, 11, 0, &[0; 32])), None, "time exceeded");
        let options = [&[0x4f][..], &reply[1..]].concat();
        assert_eq!(read(&options), None, "options that are not there");
    }
}
