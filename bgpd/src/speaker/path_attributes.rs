//! An attribute set as the RIB keeps it: the codec's canonical bytes and the next hop.

use crate::rib::{AttributeSet, Rank};
use crate::wire::{Attributes, Edits, NextHop, Value};
use std::net::IpAddr;

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
}

impl PathAttributes {
    /// Attributes of a prefix of our own.
    #[must_use]
    pub fn own() -> Self {
        Self { canonical: OWN.into(), next_hop: None }
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
        Some(Self { canonical: canonical.into(), next_hop: self.next_hop })
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

    fn next_hop(&self) -> Option<IpAddr> {
        self.next_hop.map(NextHop::address)
    }
}
