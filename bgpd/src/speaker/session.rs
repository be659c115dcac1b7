//! What the configuration makes of a session: what its OPEN says.

use super::config::{Config, Peer, PeerAsn};
use crate::fsm::{PeerConfig, RemoteAs};
use crate::wire::{AfiSafi, GracefulRestart, LongLived};

/// What of the past an OPEN has to say (RFC 4724 section 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// The kernel has forwarded by our routes since the peer last heard of us.
    pub forwarding: bool,
    /// We have restarted, and this is the first that the peer hears since.
    pub restarting: bool,
}

impl Config {
    /// The session with `peer`.
    #[must_use]
    pub fn session(&self, peer: &Peer, past: Past) -> PeerConfig {
        let families = peer.families.iter().map(|family| (AfiSafi::from(family), past.forwarding)).collect();
        let long =
            |seconds| peer.families.iter().map(|family| (AfiSafi::from(family), past.forwarding, seconds)).collect();
        PeerConfig {
            local_asn: peer.local_asn.unwrap_or(self.asn),
            remote_asn: match peer.asn {
                PeerAsn::Number(asn) => RemoteAs::Exactly(asn),
                PeerAsn::External => RemoteAs::External,
            },
            identifier: self.router_id,
            hold_time: peer.hold_time,
            families: peer.families,
            extended_next_hop: peer.extended_next_hop,
            passive: peer.passive,
            graceful_restart: peer.graceful_restart.map(|restart_time| GracefulRestart {
                restarting: past.restarting,
                notification: true,
                restart_time,
                families,
            }),
            long_lived: peer.long_lived.map(|seconds| LongLived { families: long(seconds) }),
            role: peer.role,
            add_path_receive: peer.add_path.receive,
            add_path_send: peer.add_path.send > 0,
        }
    }
}
