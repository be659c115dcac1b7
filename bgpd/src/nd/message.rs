//! Router solicitations and advertisements (RFC 4861 sections 4.1 and 4.2), checked as section 6.1 asks. The kernel has checked the ICMPv6
//! checksum already, and writes it.

use std::net::Ipv6Addr;

/// ICMPv6 type of a solicitation.
pub const SOLICITATION: u8 = 133;
/// ICMPv6 type of an advertisement.
pub const ADVERTISEMENT: u8 = 134;
/// No router forwards such a packet, so it is from the link.
pub const HOP_LIMIT: u8 = 255;
/// Source Link-Layer Address option.
const SOURCE_LINK_LAYER: u8 = 1;

/// A message that is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Somebody asks for routers; its address, unless it has none yet.
    Solicitation(Option<Ipv6Addr>),
    /// A router says that it is there, by its link-local address.
    Advertisement(Ipv6Addr),
}

/// Reads what came from `source`; none: not valid, and to be ignored (RFC 4861 sections 6.1.1 and 6.1.2).
#[must_use]
pub fn decode(octets: &[u8], source: Ipv6Addr, hop_limit: u8) -> Option<Message> {
    let (&[kind, code, ..], _) = octets.split_first_chunk::<4>()?;
    if hop_limit != HOP_LIMIT || code != 0 {
        return None;
    }
    match kind {
        SOLICITATION => {
            let named = options(octets.get(8..)?)?;
            let asker = (!source.is_unspecified()).then_some(source);
            // Who has no address yet may not be remembered under one.
            (asker.is_some() || !named).then_some(Message::Solicitation(asker))
        }
        ADVERTISEMENT => {
            options(octets.get(16..)?)?;
            source.is_unicast_link_local().then_some(Message::Advertisement(source))
        }
        _ => None,
    }
}

/// Whether there is a Source Link-Layer Address among the options; none if they are malformed.
fn options(mut rest: &[u8]) -> Option<bool> {
    let mut named = false;
    while let [kind, units, ..] = rest {
        // In units of eight octets; 0 would never end.
        let length = usize::from(*units) * 8;
        if length == 0 {
            return None;
        }
        named |= *kind == SOURCE_LINK_LAYER;
        rest = rest.get(length..)?;
    }
    rest.is_empty().then_some(named)
}

/// A solicitation, with the MAC address of the interface if it has one.
#[must_use]
pub fn solicitation(mac: Option<[u8; 6]>) -> Vec<u8> {
    let mut octets = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    put_mac(mac, &mut octets);
    octets
}

/// An advertisement by which nobody gets a default route, an address or a hop limit: all of its values are 0, which means "not said".
#[must_use]
pub fn advertisement(mac: Option<[u8; 6]>) -> Vec<u8> {
    let mut octets = vec![0; 16];
    octets[0] = ADVERTISEMENT;
    put_mac(mac, &mut octets);
    octets
}

fn put_mac(mac: Option<[u8; 6]>, octets: &mut Vec<u8>) {
    if let Some(mac) = mac {
        octets.extend_from_slice(&[SOURCE_LINK_LAYER, 1]);
        octets.extend_from_slice(&mac);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

    /// As FRR 8.4 sends it: hop limit 64, lifetime 30 s, its MAC address.
    const FRR: &[u8] = &[134, 0, 0x12, 0x34, 64, 0, 0, 30, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0x02, 0, 0, 0, 0, 1];

    #[test]
    fn what_we_write_is_what_we_read() {
        for mac in [None, Some([2, 0, 0, 0, 0, 1])] {
            assert_eq!(decode(&advertisement(mac), ROUTER, 255), Some(Message::Advertisement(ROUTER)));
            assert_eq!(decode(&solicitation(mac), ROUTER, 255), Some(Message::Solicitation(Some(ROUTER))));
        }
        assert_eq!(decode(FRR, ROUTER, 255), Some(Message::Advertisement(ROUTER)));
        assert_eq!(decode(&solicitation(None), Ipv6Addr::UNSPECIFIED, 255), Some(Message::Solicitation(None)));
        assert_eq!(advertisement(None)[6..8], [0, 0], "no host makes us its default router");
    }

    #[test]
    fn what_is_not_from_the_link_or_malformed_is_ignored() {
        let global: Ipv6Addr = "2001:db8::1".parse().unwrap();
        assert_eq!(decode(FRR, ROUTER, 254), None, "it has passed a router");
        assert_eq!(decode(FRR, global, 255), None, "a router advertises by its link-local address");
        assert_eq!(decode(&solicitation(Some([2; 6])), Ipv6Addr::UNSPECIFIED, 255), None);
        let changed = |at: usize, octet: u8| {
            let mut octets = FRR.to_vec();
            octets[at] = octet;
            decode(&octets, ROUTER, 255)
        };
        assert_eq!((changed(1, 1), changed(17, 0), changed(17, 2), changed(0, 135)), (None, None, None, None));
        for length in 0..FRR.len() {
            let whole = length == 16;
            assert_eq!(decode(&FRR[..length], ROUTER, 255).is_some(), whole, "{length}");
        }
    }
}
