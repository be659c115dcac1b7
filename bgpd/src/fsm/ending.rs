//! What the end of a connection means: for the next attempt, and for the routes of both sides.

use super::config::PeerConfig;
use super::connection::Connection;
use super::output::Reason;
use crate::wire::{Negotiated, cease};

/// What an end of a connection says about the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// There were two connections.
    Collision,
    /// The speakers do not agree: unlikely to heal soon.
    Protocol,
    /// Anything else.
    Connection,
}

impl Blame {
    pub(super) fn of(reason: &Reason) -> Self {
        match reason {
            Reason::Sent(n) | Reason::Received(n) => match (n.code, n.subcode) {
                (6, cease::COLLISION) => Blame::Collision,
                (4 | 6, _) => Blame::Connection,
                _ => Blame::Protocol,
            },
            _ => Blame::Connection,
        }
    }
}

/// Whether a NOTIFICATION that is no hard reset leaves the routes of both sides (RFC 8538 section 4).
pub(super) fn knows_notification(connection: &Connection, config: &PeerConfig) -> bool {
    connection.negotiated.as_ref().is_some_and(|negotiated| both_notify(negotiated, config))
}

fn both_notify(negotiated: &Negotiated, config: &PeerConfig) -> bool {
    let theirs = negotiated.graceful_restart.as_ref();
    config.graceful_restart.as_ref().is_some_and(|ours| ours.notification) && theirs.is_some_and(|t| t.notification)
}

/// RFC 4724 section 4.2: the connection just ended. RFC 8538 section 4: after a NOTIFICATION too, if both sides said so
/// and it is no hard reset.
pub(crate) fn keeps_routes(negotiated: &Negotiated, config: &PeerConfig, reason: &Reason) -> bool {
    if config.graceful_restart.is_none() || negotiated.graceful_restart.is_none() {
        return false;
    }
    match reason {
        Reason::Closed | Reason::NotConnected | Reason::Restarted => true,
        Reason::SendHoldTimer => both_notify(negotiated, config),
        Reason::Received(n) | Reason::Sent(n) => both_notify(negotiated, config) && !n.is_hard_reset(),
        Reason::Stopped => false,
    }
}
