//! UPDATE (RFC 4271 section 4.3), decoded without a copy and judged by RFC 7606.

use super::block::{self, Attribute, AttributeBlock, AttributeSet, Context, Fault, kind};
use super::frame::HEADER_LEN;
use super::{AfiSafi, Families, Family, Negotiated, NextHop, Notification, Prefixes};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Prefixes that share a next hop.
#[derive(Clone, Copy, Debug)]
pub struct Reach<'a> {
    /// Where they lead.
    pub next_hop: NextHop,
    /// The prefixes.
    pub prefixes: Prefixes<'a>,
}

/// What becomes of the announced prefixes.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::large_enum_variant, reason = "lives on the stack for one message")]
pub enum Outcome<'a> {
    /// Nothing is announced.
    Nothing,
    /// They have these attributes, and the next hops of [`Update::announced`].
    Routes(AttributeBlock<'a>),
    /// They are to be treated as withdrawn (RFC 7606 section 2); [`Update::withdrawn`] contains them.
    TreatAsWithdraw(Fault),
}

/// A decoded UPDATE. Withdrawals come before announcements: a prefix in both is announced (RFC 4271 section 4.3).
#[derive(Clone, Copy, Debug)]
pub struct Update<'a> {
    withdrawn: [Option<Prefixes<'a>>; 4],
    announced: [Option<Reach<'a>>; 2],
    /// What becomes of the announced prefixes.
    pub outcome: Outcome<'a>,
    /// Attributes that were dropped as malformed, doubled or out of place; for the log.
    pub discarded: AttributeSet,
    /// The family whose End-of-RIB this is (RFC 4724 section 2); then there is nothing else in it.
    pub end_of_rib: Option<Family>,
}

/// The prefix fields of an UPDATE, checked but not yet judged.
struct Fields<'a> {
    withdrawn: [Option<Prefixes<'a>>; 2],
    announced: [Option<(Option<NextHop>, Prefixes<'a>)>; 2],
    /// Whether there is any reachable NLRI, that of families we do not have included.
    reachable: bool,
}

impl<'a> Update<'a> {
    /// Reads a whole message.
    ///
    /// # Errors
    /// The NOTIFICATION with which the session ends: the lengths do not add up, or a prefix cannot be read, so that not
    /// even a withdrawal is possible (RFC 7606 sections 3 j and 5).
    pub fn decode(message: &'a [u8], session: &Negotiated) -> Result<Self, Notification> {
        let malformed_list = || Notification::update(1, Vec::new());
        let body = message.get(HEADER_LEN..).unwrap_or(&[]);
        let (withdrawn, rest) = counted(body).ok_or_else(malformed_list)?;
        let (attributes, nlri) = counted(rest).ok_or_else(malformed_list)?;
        let context = Context { ebgp: session.ebgp, four_octet_as: session.four_octet_as };
        let checked = block::check(attributes, context)?;
        let fields = Fields::read(withdrawn, nlri, &checked, session)?;
        let mut update = Update {
            withdrawn: [fields.withdrawn[0], fields.withdrawn[1], None, None],
            announced: [None; 2],
            outcome: Outcome::Nothing,
            discarded: checked.discarded,
            end_of_rib: end_of_rib(withdrawn, attributes, nlri, checked.mp_unreach.as_ref()),
        };
        let fault = checked.fault.or_else(|| fields.fault(&checked.block).map(|fault| (fault, &[][..])));
        match fault {
            // RFC 7606 section 5.2: without reachable NLRI there is no telling whether it was lost in the error.
            Some((fault, whole)) if !fields.reachable => {
                return Err(Notification::update(fault.subcode, whole.to_vec()));
            }
            Some((fault, _)) => {
                update.outcome = Outcome::TreatAsWithdraw(fault);
                for (place, announced) in update.withdrawn[2..].iter_mut().zip(fields.announced) {
                    *place = announced.map(|(_, prefixes)| prefixes);
                }
            }
            None => {
                for (place, announced) in update.announced.iter_mut().zip(fields.announced) {
                    *place = announced.and_then(|(next_hop, prefixes)| Some(Reach { next_hop: next_hop?, prefixes }));
                    if place.is_some() {
                        update.outcome = Outcome::Routes(checked.block);
                    }
                }
            }
        }
        Ok(update)
    }

    /// Prefixes that are withdrawn, those to be treated so included.
    pub fn withdrawn(&self) -> impl Iterator<Item = Prefixes<'a>> + use<'a> {
        self.withdrawn.into_iter().flatten()
    }

    /// Prefixes that are announced; empty unless the outcome is [`Outcome::Routes`].
    pub fn announced(&self) -> impl Iterator<Item = Reach<'a>> + use<'a> {
        self.announced.into_iter().flatten()
    }
}

/// A field preceded by its length in two octets, and what follows.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

impl<'a> Fields<'a> {
    fn read(
        withdrawn: &'a [u8],
        nlri: &'a [u8],
        checked: &block::Checked<'a>,
        session: &Negotiated,
    ) -> Result<Self, Notification> {
        let v4 = Family::Ipv4Unicast;
        let mut fields = Fields { withdrawn: [None; 2], announced: [None; 2], reachable: !nlri.is_empty() };
        for (bytes, announced) in [(withdrawn, false), (nlri, true)] {
            if bytes.is_empty() {
                continue;
            }
            let prefixes = Prefixes::check(v4, bytes, session.add_path_receive.contains(v4))
                .ok_or_else(|| Notification::update(10, Vec::new()))?;
            match session.families.contains(v4) {
                // RFC 4760 section 8: what was not negotiated is ignored.
                false => {}
                true if announced => fields.announced[0] = Some((checked.block.next_hop(), prefixes)),
                true => fields.withdrawn[0] = Some(prefixes),
            }
        }
        if let Some(attribute) = &checked.mp_unreach {
            fields.withdrawn[1] = mp_unreach(attribute, session)?;
        }
        if let Some(attribute) = &checked.mp_reach {
            fields.reachable = true;
            fields.announced[1] = mp_reach(attribute, session)?.map(|(next_hop, prefixes)| (Some(next_hop), prefixes));
        }
        Ok(fields)
    }

    /// What is missing, or not usable, given that the attributes themselves are well-formed.
    fn fault(&self, block: &AttributeBlock<'a>) -> Option<Fault> {
        if !self.announced.iter().any(Option::is_some) {
            return None;
        }
        if let Some(attribute) = block.missing() {
            return Some(Fault { attribute, subcode: 3 });
        }
        self.announced.iter().flatten().find_map(|(next_hop, prefixes)| match next_hop {
            None => Some(Fault { attribute: kind::NEXT_HOP, subcode: 3 }),
            Some(next_hop) if is_host(*next_hop) => None,
            Some(NextHop::V4(_)) if prefixes.family() == Family::Ipv4Unicast => {
                Some(Fault { attribute: kind::NEXT_HOP, subcode: 8 })
            }
            Some(_) => Some(Fault { attribute: kind::MP_REACH_NLRI, subcode: 8 }),
        })
    }
}

/// Whether a next hop can be an address of a host (RFC 4271 section 6.3).
fn is_host(next_hop: NextHop) -> bool {
    match next_hop {
        NextHop::V4(address) => {
            let first = address.octets()[0];
            first != 0 && first != 127 && first < 224
        }
        NextHop::V6 { global, .. } => !(global.is_unspecified() || global.is_loopback() || global.is_multicast()),
    }
}

/// MP_REACH_NLRI (RFC 4760 section 3); `None`: not of a negotiated family.
fn mp_reach<'a>(
    attribute: &Attribute<'a>,
    session: &Negotiated,
) -> Result<Option<(NextHop, Prefixes<'a>)>, Notification> {
    let malformed = || Notification::update(9, attribute.whole.to_vec());
    let (&[afi_high, afi_low, safi, length], rest) = attribute.value.split_first_chunk::<4>().ok_or_else(malformed)?;
    let (next_hop, rest) = rest.split_at_checked(usize::from(length)).ok_or_else(malformed)?;
    // One reserved octet.
    let (_, nlri) = rest.split_first().ok_or_else(malformed)?;
    let Some(family) = negotiated(AfiSafi { afi: u16::from_be_bytes([afi_high, afi_low]), safi }, session.families)
    else {
        return Ok(None);
    };
    let next_hop = match (family, next_hop.len()) {
        (Family::Ipv4Unicast, 4) => next_hop.first_chunk().map(|v4: &[u8; 4]| NextHop::V4(Ipv4Addr::from(*v4))),
        (Family::Ipv4Unicast, 16 | 32) if session.extended_next_hop => ipv6_next_hop(next_hop),
        (Family::Ipv6Unicast, 16 | 32) => ipv6_next_hop(next_hop),
        // RFC 7606 section 7.11: the prefixes cannot be located.
        _ => None,
    }
    .ok_or_else(malformed)?;
    let prefixes = Prefixes::check(family, nlri, session.add_path_receive.contains(family)).ok_or_else(malformed)?;
    Ok(Some((next_hop, prefixes)))
}

fn ipv6_next_hop(octets: &[u8]) -> Option<NextHop> {
    let (global, rest) = octets.split_first_chunk::<16>()?;
    let global = Ipv6Addr::from(*global);
    // Some send `::` as the second address when they mean none.
    let link_local = rest.first_chunk::<16>().map(|second| Ipv6Addr::from(*second));
    let link_local = link_local.filter(Ipv6Addr::is_unicast_link_local);
    // Who has no global address sends its link-local one alone, twice, or behind `::`.
    Some(match link_local {
        Some(only) if global.is_unspecified() || global == only => NextHop::V6 { global: only, link_local: None },
        link_local => NextHop::V6 { global, link_local },
    })
}

/// MP_UNREACH_NLRI (RFC 4760 section 4); `None`: not of a negotiated family.
fn mp_unreach<'a>(attribute: &Attribute<'a>, session: &Negotiated) -> Result<Option<Prefixes<'a>>, Notification> {
    let malformed = || Notification::update(9, attribute.whole.to_vec());
    let (&[afi_high, afi_low, safi], nlri) = attribute.value.split_first_chunk::<3>().ok_or_else(malformed)?;
    let family = AfiSafi { afi: u16::from_be_bytes([afi_high, afi_low]), safi };
    let Some(family) = negotiated(family, session.families) else { return Ok(None) };
    Prefixes::check(family, nlri, session.add_path_receive.contains(family)).map(Some).ok_or_else(malformed)
}

fn negotiated(family: AfiSafi, families: Families) -> Option<Family> {
    family.family().filter(|family| families.contains(*family))
}

/// RFC 4724 section 2: an empty UPDATE for IPv4, or nothing but an empty MP_UNREACH_NLRI.
fn end_of_rib(withdrawn: &[u8], attributes: &[u8], nlri: &[u8], mp_unreach: Option<&Attribute<'_>>) -> Option<Family> {
    if !withdrawn.is_empty() || !nlri.is_empty() {
        return None;
    }
    if attributes.is_empty() {
        return Some(Family::Ipv4Unicast);
    }
    let attribute = mp_unreach.filter(|attribute| attribute.whole.len() == attributes.len())?;
    match *attribute.value {
        [afi_high, afi_low, safi] => AfiSafi { afi: u16::from_be_bytes([afi_high, afi_low]), safi }.family(),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::wire::encode_end_of_rib;

    fn message(withdrawn: &[u8], attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
        let field = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
        let body = [field(withdrawn), field(attributes), nlri.to_vec()].concat();
        let length = u16::try_from(19 + body.len()).unwrap().to_be_bytes();
        [&[0xff; 16][..], &length, &[2], &body].concat()
    }

    const SET: &[u8] = &[0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9];
    const HOP: &[u8] = &[0x40, 3, 4, 192, 0, 2, 1];
    const REACH: &[u8] =
        &[0x80, 14, 23, 0, 2, 1, 16, 0x20, 1, 13, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 8, 0xfd];
    const UNREACH: &[u8] = &[0x80, 15, 5, 0, 2, 1, 8, 0xfe];

    #[test]
    fn both_families_in_both_directions_share_one_message() {
        let bytes = message(&[8, 11], &[SET, HOP, REACH, UNREACH].concat(), &[8, 10]);
        let update = Update::decode(&bytes, &Negotiated::sample(true, true)).unwrap();
        let families: Vec<Family> = update.withdrawn().map(|prefixes| prefixes.family()).collect();
        assert_eq!(families, Family::ALL);
        let hops: Vec<String> = update.announced().map(|reach| reach.next_hop.address().to_string()).collect();
        assert_eq!(hops, ["192.0.2.1", "2001:db8::1"]);
        assert!(matches!(update.outcome, Outcome::Routes(_)) && update.end_of_rib.is_none());
    }

    #[test]
    fn what_was_not_negotiated_is_ignored() {
        let bytes = message(&[8, 11], &[SET, HOP, REACH, UNREACH].concat(), &[8, 10]);
        for family in Family::ALL {
            let session = Negotiated { families: Families::only(family), ..Negotiated::sample(true, true) };
            let update = Update::decode(&bytes, &session).unwrap();
            assert!(update.withdrawn().all(|prefixes| prefixes.family() == family));
            assert_eq!(update.announced().map(|reach| reach.prefixes.family()).collect::<Vec<_>>(), [family]);
        }
    }

    #[test]
    fn treat_as_withdraw_withdraws_all_families() {
        let bad = [0x80, 4, 3, 0, 0, 0];
        let bytes = message(&[], &[SET, HOP, REACH, &bad].concat(), &[8, 10]);
        let update = Update::decode(&bytes, &Negotiated::sample(true, true)).unwrap();
        assert!(matches!(update.outcome, Outcome::TreatAsWithdraw(Fault { attribute: 4, subcode: 5 })));
        assert_eq!((update.announced().count(), update.withdrawn().count()), (0, 2));
    }

    #[test]
    fn end_of_rib_is_recognised_and_nothing_else_is_one() {
        for family in Family::ALL {
            let mut bytes = Vec::new();
            encode_end_of_rib(family, &mut bytes);
            let update = Update::decode(&bytes, &Negotiated::sample(true, true)).unwrap();
            assert_eq!(update.end_of_rib, Some(family));
            assert_eq!(update.withdrawn().map(|prefixes| prefixes.len()).sum::<usize>(), 0);
        }
        // BIRD sends the flags with extended length; it is one all the same.
        let long = message(&[], &[0x90, 15, 0, 3, 0, 2, 1], &[]);
        let end_of_rib = |bytes: &[u8]| Update::decode(bytes, &Negotiated::sample(true, true)).unwrap().end_of_rib;
        assert_eq!(end_of_rib(&long), Some(Family::Ipv6Unicast));
        assert_eq!(end_of_rib(&message(&[8, 10], &[], &[])), None);
        assert_eq!(end_of_rib(&message(&[], UNREACH, &[])), None);
        assert_eq!(end_of_rib(&message(&[], &[0x80, 15, 3, 0, 1, 128], &[])), None);
    }

    #[test]
    fn an_ipv6_next_hop_of_ipv4_is_taken_where_it_was_negotiated() {
        let mut reach = REACH.to_vec();
        reach[4] = 1;
        let bytes = message(&[], &[SET, &reach].concat(), &[]);
        assert!(Update::decode(&bytes, &Negotiated::sample(true, true)).is_err());
        let session = Negotiated { extended_next_hop: true, ..Negotiated::sample(true, true) };
        let update = Update::decode(&bytes, &session).unwrap();
        let reach = update.announced().next().unwrap();
        assert!(matches!((reach.next_hop, reach.prefixes), (NextHop::V6 { .. }, Prefixes::V4(_))));
    }

    #[test]
    fn who_has_only_a_link_local_address_says_so_in_three_ways() {
        let (global, local): (Ipv6Addr, Ipv6Addr) = ("2001:db8::1".parse().unwrap(), "fe80::1".parse().unwrap());
        let only = NextHop::V6 { global: local, link_local: None };
        let none = Ipv6Addr::UNSPECIFIED;
        for (octets, meant) in [
            (vec![local], only),
            (vec![local, local], only),
            (vec![none, local], only),
            (vec![global, local], NextHop::V6 { global, link_local: Some(local) }),
            (vec![global, none], NextHop::V6 { global, link_local: None }),
            (vec![global, global], NextHop::V6 { global, link_local: None }),
        ] {
            let octets: Vec<u8> = octets.iter().flat_map(Ipv6Addr::octets).collect();
            assert_eq!(ipv6_next_hop(&octets), Some(meant));
        }
    }
}
