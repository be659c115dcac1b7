//! The typed view of canonical attribute bytes: what the decision process, filters and export read.

use super::as_path::AsPath;
use super::block::{Walk, kind};
use std::net::Ipv4Addr;

/// ORIGIN (RFC 4271 section 5.1.1); smaller is preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum Origin {
    /// Interior to the originating AS.
    #[default]
    Igp = 0,
    /// Learned by EGP.
    Egp = 1,
    /// Anything else.
    Incomplete = 2,
}

impl Origin {
    /// The origin with this number.
    #[must_use]
    pub const fn from_octet(octet: u8) -> Option<Self> {
        match octet {
            0 => Some(Origin::Igp),
            1 => Some(Origin::Egp),
            2 => Some(Origin::Incomplete),
            _ => None,
        }
    }
}

/// AGGREGATOR (RFC 4271 section 5.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Aggregator {
    /// AS of the aggregating speaker.
    pub asn: u32,
    /// Its BGP Identifier.
    pub address: Ipv4Addr,
}

/// One attribute set, borrowed from its canonical bytes. Cheap to make again, so only the bytes are kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes<'a> {
    /// ORIGIN.
    pub origin: Origin,
    /// AS_PATH.
    pub as_path: AsPath<'a>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF; never present on what an eBGP peer sent.
    pub local_pref: Option<u32>,
    /// ATOMIC_AGGREGATE.
    pub atomic_aggregate: bool,
    /// AGGREGATOR.
    pub aggregator: Option<Aggregator>,
    /// COMMUNITIES (RFC 1997), each in network byte order.
    pub communities: &'a [[u8; 4]],
    /// EXTENDED COMMUNITIES (RFC 4360).
    pub extended_communities: &'a [[u8; 8]],
    /// LARGE_COMMUNITY (RFC 8092).
    pub large_communities: &'a [[u8; 12]],
    /// ORIGINATOR_ID (RFC 4456); only from iBGP peers.
    pub originator_id: Option<Ipv4Addr>,
    /// CLUSTER_LIST (RFC 4456), nearest cluster first; only from iBGP peers.
    pub cluster_list: &'a [[u8; 4]],
    /// Only to Customer (RFC 9234 section 5): the AS that told the route to a customer, a peer or a client of a route server.
    pub only_to_customer: Option<u32>,
    /// The canonical bytes, attributes that Twill does not know included.
    pub(super) bytes: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// Reads canonical bytes, as written by `AttributeBlock::write_canonical` or [`Attributes::export`]. Total: bytes
    /// of another origin give whatever can be read of them.
    #[must_use]
    pub fn from_canonical(bytes: &'a [u8]) -> Self {
        let mut attributes = Attributes { bytes, ..Attributes::default() };
        for attribute in Walk::new(bytes).flatten() {
            let value = attribute.value;
            let word = || value.first_chunk::<4>().map(|octets| u32::from_be_bytes(*octets));
            match attribute.kind {
                kind::ORIGIN => {
                    attributes.origin = value.first().and_then(|o| Origin::from_octet(*o)).unwrap_or_default();
                }
                kind::AS_PATH => attributes.as_path = AsPath(value),
                kind::MULTI_EXIT_DISC => attributes.med = word(),
                kind::LOCAL_PREF => attributes.local_pref = word(),
                kind::ATOMIC_AGGREGATE => attributes.atomic_aggregate = true,
                kind::AGGREGATOR => {
                    attributes.aggregator = word()
                        .zip(value.last_chunk::<4>())
                        .map(|(asn, address)| Aggregator { asn, address: Ipv4Addr::from(*address) });
                }
                kind::COMMUNITIES => attributes.communities = value.as_chunks().0,
                kind::ORIGINATOR_ID => attributes.originator_id = word().map(Ipv4Addr::from),
                kind::CLUSTER_LIST => attributes.cluster_list = value.as_chunks().0,
                kind::EXTENDED_COMMUNITIES => attributes.extended_communities = value.as_chunks().0,
                kind::LARGE_COMMUNITIES => attributes.large_communities = value.as_chunks().0,
                kind::ONLY_TO_CUSTOMER => attributes.only_to_customer = word(),
                _ => {}
            }
        }
        attributes
    }

    /// The canonical bytes.
    #[must_use]
    pub fn canonical(&self) -> &'a [u8] {
        self.bytes
    }
}
