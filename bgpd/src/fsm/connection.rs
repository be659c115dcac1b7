//! One connection of a peer: its state and timers.

use super::Time;
use super::output::ConnId;
use crate::wire::{MAX_MESSAGE, Negotiated};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// State of a session (RFC 4271 section 8.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Stopped.
    Idle,
    /// Waiting for the peer, or for the time to try again.
    Active,
    /// Connecting.
    Connect,
    /// Our OPEN is sent.
    OpenSent,
    /// The peer's OPEN has come.
    OpenConfirm,
    /// The peer's KEEPALIVE has come.
    Established,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Outgoing, not there yet.
    Connecting,
    /// Incoming, while another one is committed: waits, without an OPEN, whether that one proves dead.
    Parked,
    /// Our OPEN is sent.
    OpenSent,
    /// The peer's OPEN has come, and our KEEPALIVE is held back for the preferred connection.
    Held {
        /// Whether the peer's KEEPALIVE has come.
        confirmed: bool,
    },
    /// Our KEEPALIVE is sent: committed.
    OpenConfirm,
    /// Both KEEPALIVEs.
    Established {
        /// Since when.
        since: Time,
    },
}

/// One connection.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) id: ConnId,
    pub(super) outgoing: bool,
    pub(super) phase: Phase,
    pub(super) born: Time,
    /// When our KEEPALIVE was sent, if it was.
    pub(super) committed_at: Time,
    /// When the hold timer expires; in `Connecting` and `Parked` the limit of that phase.
    pub(super) hold_at: Option<Time>,
    /// When the next KEEPALIVE is due; in `Held` the end of the wait.
    pub(super) keepalive_at: Option<Time>,
    /// When the send hold timer expires; runs while there are octets that the peer does not take.
    pub(super) send_hold_at: Option<Time>,
    /// Until when unread data may put off the hold timer.
    pub(super) unread_until: Time,
    /// Whether there are unread data.
    pub(super) unread: bool,
    pub(super) negotiated: Option<Arc<Negotiated>>,
}

impl Connection {
    pub(super) fn new(id: ConnId, outgoing: bool, phase: Phase, now: Time) -> Self {
        Connection {
            id,
            outgoing,
            phase,
            born: now,
            committed_at: now,
            hold_at: None,
            keepalive_at: None,
            send_hold_at: None,
            unread_until: now,
            unread: false,
            negotiated: None,
        }
    }

    /// Whether our KEEPALIVE is sent.
    pub(super) fn committed(&self) -> bool {
        matches!(self.phase, Phase::OpenConfirm | Phase::Established { .. })
    }

    pub(super) fn state(&self) -> State {
        match self.phase {
            Phase::Connecting => State::Connect,
            Phase::Parked => State::Active,
            Phase::OpenSent => State::OpenSent,
            Phase::Held { .. } | Phase::OpenConfirm => State::OpenConfirm,
            Phase::Established { .. } => State::Established,
        }
    }

    /// Octets that a message may have now.
    pub(super) fn max_message(&self) -> usize {
        match (&self.negotiated, self.phase) {
            (Some(negotiated), Phase::Established { .. } | Phase::OpenConfirm | Phase::Held { .. }) => {
                negotiated.max_message()
            }
            _ => MAX_MESSAGE,
        }
    }

    /// The negotiated hold time, if there is one.
    pub(super) fn hold_time(&self) -> Option<Duration> {
        let seconds = self.negotiated.as_ref()?.hold_time;
        (seconds > 0).then(|| Duration::from_secs(u64::from(seconds)))
    }

    /// A message has come: the hold timer starts again.
    pub(super) fn heard(&mut self, now: Time) {
        if let Some(hold) = self.hold_time() {
            self.hold_at = Some(now + hold);
            self.unread_until = now + hold * 2;
        } else if self.negotiated.is_some() {
            self.hold_at = None;
        }
        self.unread = false;
    }

    /// The earliest of its timers.
    pub(super) fn timeout(&self) -> Option<Time> {
        [self.hold_at, self.keepalive_at, self.send_hold_at].into_iter().flatten().min()
    }
}
