//! An attribute set as the RIB keeps it: the codec's canonical bytes and the next hop.

use crate::rib::{AttributeSet, Rank};
use crate::scoped::ScopedAddr;
use crate::wire::{Attributes, Edits, NextHop, Value};

/// GRACEFUL_SHUTDOWN (RFC 8326 section 3): whoever tells the path is about to go.
pub(super) const GRACEFUL_SHUTDOWN: [u8; 4] = [0xff, 0xff, 0, 0];
/// LLGR_STALE (RFC 9494 section 3.2.2).
pub(super) const LLGR_STALE: [u8; 4] = [0xff, 0xff, 0, 6];
/// NO_LLGR: not to be kept in its sender's long absence (RFC 9494 section 3.2.3).
pub(super) const NO_LLGR: [u8; 4] = [0xff, 0xff, 0, 7];

/// ORIGIN IGP and an empty AS_PATH: what a prefix of our own has.
const OWN: [u8; 7] = [0x40, 1, 1, 0, 0x40, 2, 0];

/// An attribute set. Two with the same meaning are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathAttributes {
    /// Canonical bytes.
    pub canonical: Box<[u8]>,
    /// Next hop; none for a prefix of our own.
    pub next_hop: Option<NextHop>,
    /// Index of the interface on which the link-local address of the next hop is meant; 0: the other address is.
    pub zone: u32,
}

/// Where a session runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Index of the interface; 0 if it is not known.
    pub zone: u32,
    /// Whether it runs between link-local addresses: then the same address of a next hop goes before its global one.
    pub unnumbered: bool,
}

impl PathAttributes {
    /// Attributes of a prefix of our own.
    #[must_use]
    pub fn own() -> Self {
        Self { canonical: OWN.into(), next_hop: None, zone: 0 }
    }

    /// Attributes that came over a link, with this next hop (RFC 2545 section 3).
    #[must_use]
    pub fn heard(canonical: Box<[u8]>, next_hop: NextHop, link: Link) -> Self {
        let zone = match next_hop {
            NextHop::V6 { global, .. } if global.is_unicast_link_local() => link.zone,
            NextHop::V6 { link_local: Some(_), .. } if link.unnumbered => link.zone,
            _ => 0,
        };
        Self { canonical, next_hop: Some(next_hop), zone }
    }

    /// The typed view.
    #[must_use]
    pub fn read(&self) -> Attributes<'_> {
        Attributes::from_canonical(&self.canonical)
    }
}

impl PathAttributes {
    /// The set as it is told on in the long absence of its sender (RFC 9494 section 4.2); none: it may not be.
    #[must_use]
    pub(super) fn long_stale(&self) -> Option<Self> {
        let read = self.read();
        if read.communities.contains(&NO_LLGR) {
            return None;
        }
        let mut communities = read.communities.to_vec();
        if !communities.contains(&LLGR_STALE) {
            communities.push(LLGR_STALE);
        }
        let mut canonical = Vec::new();
        let edits = Edits { communities: Value::Set(&communities), ..Edits::default() };
        read.export(&edits, true, &mut canonical);
        Some(Self { canonical: canonical.into(), ..self.clone() })
    }
}

impl AttributeSet for PathAttributes {
    fn rank(&self) -> Rank {
        let read = self.read();
        Rank {
            long_stale: read.communities.contains(&LLGR_STALE),
            local_pref: read.local_pref.unwrap_or(100),
            as_path_length: u16::try_from(read.as_path.length()).unwrap_or(u16::MAX),
            origin: read.origin as u8,
            med: read.med.unwrap_or(0),
            neighbour_as: read.as_path.first().unwrap_or(0),
            originator: read.originator_id.map(u32::from),
            cluster_length: u16::try_from(read.cluster_list.len()).unwrap_or(u16::MAX),
        }
    }

    fn next_hop(&self) -> Option<ScopedAddr> {
        Some(match self.next_hop? {
            NextHop::V6 { global, link_local } if self.zone > 0 => {
                ScopedAddr::new(link_local.unwrap_or(global).into(), self.zone)
            }
            next_hop => next_hop.address().into(),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    const GLOBAL: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

    fn hop(global: Ipv6Addr, link_local: Option<Ipv6Addr>, link: Link) -> ScopedAddr {
        PathAttributes::heard(OWN.into(), NextHop::V6 { global, link_local }, link).next_hop().unwrap()
    }

    #[test]
    fn a_link_local_next_hop_counts_where_there_is_no_other_and_on_unnumbered_links() {
        let (numbered, unnumbered) = (Link { zone: 3, unnumbered: false }, Link { zone: 3, unnumbered: true });
        let (global, local) = (ScopedAddr::new(GLOBAL.into(), 0), ScopedAddr::new(LINK_LOCAL.into(), 3));
        assert_eq!(hop(GLOBAL, Some(LINK_LOCAL), numbered), global);
        assert_eq!(hop(GLOBAL, Some(LINK_LOCAL), unnumbered), local);
        assert_eq!((hop(GLOBAL, None, unnumbered), hop(LINK_LOCAL, None, unnumbered)), (global, local));
        assert_eq!(hop(LINK_LOCAL, None, numbered), local);
        let elsewhere = Link { zone: 4, unnumbered: true };
        assert_ne!(hop(LINK_LOCAL, None, elsewhere), local, "another link, another router");
    }
}
