//! What two OPENs agreed on: the context of every later message of the session.

use super::{Families, GracefulRestart, LongLived, MAX_EXTENDED, MAX_MESSAGE};
use std::net::Ipv4Addr;

/// Result of the exchange of OPENs on one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// AS that we showed the peer.
    pub local_asn: u32,
    /// AS of the peer.
    pub peer_asn: u32,
    /// BGP Identifier of the peer.
    pub peer_id: Ipv4Addr,
    /// Whether the peer's AS differs from ours.
    pub ebgp: bool,
    /// Families that both sides announced.
    pub families: Families,
    /// Whether AS numbers take four octets in both directions (RFC 6793).
    pub four_octet_as: bool,
    /// Whether messages may have 65,535 octets in both directions (RFC 8654).
    pub extended_message: bool,
    /// Whether the peer understands ROUTE-REFRESH (RFC 2918).
    pub route_refresh: bool,
    /// Whether both sides demarcate refreshes (RFC 7313).
    pub enhanced_route_refresh: bool,
    /// Families whose NLRI from the peer carry path identifiers (RFC 7911).
    pub add_path_receive: Families,
    /// Families whose NLRI to the peer carry path identifiers.
    pub add_path_send: Families,
    /// Whether IPv4 prefixes may have an IPv6 next hop (RFC 8950).
    pub extended_next_hop: bool,
    /// Seconds; 0: neither KEEPALIVEs nor a hold timer.
    pub hold_time: u16,
    /// The peer's graceful restart capability, as far as it sent one.
    pub graceful_restart: Option<GracefulRestart>,
    /// The peer's long-lived graceful restart capability; without the other one it counts as not sent (RFC 9494 section 4.1).
    pub long_lived: Option<LongLived>,
}

impl Negotiated {
    /// Octets that a message to or from the peer may have.
    #[must_use]
    pub const fn max_message(&self) -> usize {
        if self.extended_message { MAX_EXTENDED } else { MAX_MESSAGE }
    }
}

#[cfg(test)]
impl Negotiated {
    /// A session of AS 65000 with both families, for tests.
    pub(crate) fn sample(ebgp: bool, four_octet_as: bool) -> Self {
        Negotiated {
            local_asn: 65000,
            peer_asn: if ebgp { 65001 } else { 65000 },
            peer_id: Ipv4Addr::new(10, 0, 0, 2),
            ebgp,
            families: Families::ALL,
            four_octet_as,
            extended_message: false,
            route_refresh: true,
            enhanced_route_refresh: true,
            add_path_receive: Families::NONE,
            add_path_send: Families::NONE,
            extended_next_hop: false,
            hold_time: 90,
            graceful_restart: None,
            long_lived: None,
        }
    }
}
