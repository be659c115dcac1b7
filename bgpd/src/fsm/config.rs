//! What a session is to be.

use crate::wire::{Families, GracefulRestart, LongLived, Role};
use std::net::Ipv4Addr;

/// Which AS the peer may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteAs {
    /// This one; our own makes the session internal.
    Exactly(u32),
    /// Any but ours.
    External,
}

/// Configuration of a session; a change of any field but `hold_time`, `graceful_restart` and `long_lived` needs a new session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// AS that we show this peer.
    pub local_asn: u32,
    /// AS of the peer.
    pub remote_asn: RemoteAs,
    /// Our BGP Identifier.
    pub identifier: Ipv4Addr,
    /// Hold time that we propose, in seconds: 0, or at least 3.
    pub hold_time: u16,
    /// Families that we offer.
    pub families: Families,
    /// Whether we offer IPv6 next hops of IPv4 prefixes (RFC 8950).
    pub extended_next_hop: bool,
    /// Whether we only wait for the peer to connect.
    pub passive: bool,
    /// Our graceful restart capability, with the bits as they are true now. `None`: not offered.
    pub graceful_restart: Option<GracefulRestart>,
    /// Our long-lived graceful restart capability. `None`: not offered.
    pub long_lived: Option<LongLived>,
    /// What we are to the peer, in another AS. `None`: not said.
    pub role: Option<LocalRole>,
    /// Whether we take several paths to a prefix (RFC 7911).
    pub add_path_receive: bool,
    /// Whether we send several paths to a prefix.
    pub add_path_send: bool,
}

/// What we are to a peer (RFC 9234 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalRole {
    /// Our part.
    pub ours: Role,
    /// Whether the peer has to say its own.
    pub strict: bool,
}
