//! What the FSM asks for, and what it says about the session.

use crate::wire::{Negotiated, Notification, RouteRefresh, Update};
use std::sync::Arc;

/// One TCP connection, or the attempt at one; never used twice by a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u32);

/// Something to be done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Connect to the peer; then `tcp_connected` or `tcp_failed`.
    Connect {
        /// The attempt.
        conn: ConnId,
    },
    /// Write these octets.
    Send {
        /// Where.
        conn: ConnId,
        /// Whole messages.
        bytes: Vec<u8>,
    },
    /// Close the connection or give up the attempt; it is forgotten already. `flush`: after what was sent has left, or
    /// a second has passed; otherwise at once.
    Close {
        /// Which.
        conn: ConnId,
        /// Whether a NOTIFICATION is on its way.
        flush: bool,
    },
    /// The OPENs agree. The next output sends our KEEPALIVE on `conn`: UPDATEs appended to that very write reach the peer
    /// in Established. `SessionDown` follows sooner or later, `Established` before it unless the session fails.
    SessionUp {
        /// The connection of the session.
        conn: ConnId,
        /// What was agreed.
        negotiated: Arc<Negotiated>,
    },
    /// The peer's KEEPALIVE has come too: its UPDATEs are next.
    Established {
        /// The connection of the session.
        conn: ConnId,
    },
    /// The session that `SessionUp` announced is over.
    SessionDown {
        /// Its connection.
        conn: ConnId,
        /// Why.
        reason: Reason,
        /// Whether the peer's routes may be kept as stale (RFC 4724 section 4.2, RFC 8538 section 4). For BFD and link
        /// down see [`Stop`].
        graceful: bool,
        /// Whether [`Output::Established`] came before.
        established: bool,
    },
    /// An attempt failed before there was a session; for the log and the peer's status.
    Failed {
        /// Its connection.
        conn: ConnId,
        /// Why.
        reason: Reason,
    },
}

/// Why a connection or a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The peer sent a NOTIFICATION.
    Received(Notification),
    /// We sent one.
    Sent(Notification),
    /// The connection was closed or reset.
    Closed,
    /// The connection could not be made.
    NotConnected,
    /// Nothing could be written for the send hold time (RFC 9687).
    SendHoldTimer,
    /// The peer connected anew: it has lost the old session (RFC 4724 section 5).
    Restarted,
    /// We closed without a NOTIFICATION ([`Stop::Silently`]).
    Stopped,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reason::Received(notification) => write!(f, "the peer sent {notification}"),
            Reason::Sent(notification) => write!(f, "we sent {notification}"),
            Reason::Closed => f.write_str("the peer closed the connection"),
            Reason::NotConnected => f.write_str("no connection to the peer"),
            Reason::SendHoldTimer => f.write_str("the peer took no data for the send hold time"),
            Reason::Restarted => f.write_str("the peer connected anew"),
            Reason::Stopped => f.write_str("closed without NOTIFICATION"),
        }
    }
}

/// How a peer is stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// With this NOTIFICATION, and for good: as a Hard Reset where the peer would keep our routes otherwise (RFC 8538 section 3).
    Notify(Notification),
    /// With this NOTIFICATION, to begin again at once: the peer keeps our routes if both know RFC 8538.
    Reset(Notification),
    /// Without: the peer keeps our routes if it knows graceful restart.
    Silently,
}

/// What the peer said in Established that is not the FSM's business.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::large_enum_variant, reason = "lives on the stack for one message")]
pub enum Received<'a> {
    /// An UPDATE.
    Update(Update<'a>),
    /// A ROUTE-REFRESH.
    RouteRefresh(RouteRefresh),
}
