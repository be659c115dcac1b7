//! An attribute set as the RIB keeps it: the codec's canonical bytes and the next hop.

use crate::rib::{AttributeSet, Rank};
use crate::wire::{Attributes, NextHop};
use std::net::IpAddr;

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

impl AttributeSet for PathAttributes {
    fn rank(&self) -> Rank {
        let read = self.read();
        Rank {
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
