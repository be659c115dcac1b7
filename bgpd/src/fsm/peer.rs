//! A peer: its configuration, its connections, and what happens to them.

use super::Time;
use super::config::PeerConfig;
use super::connection::{Connection, Phase, State};
use super::ending::{Blame, keeps_routes, knows_notification};
use super::negotiate::{Refused, open};
use super::output::{ConnId, Output, Reason, Received, Stop};
use super::retry::Backoff;
use crate::random::Random;
use crate::wire::{Code, Frame, MAX_MESSAGE, Negotiated, Notification, cease, encode_keepalive};
use std::sync::Arc;
use std::time::Duration;

/// How long an attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(20);
/// Hold timer before there is a negotiated one (RFC 4271 section 8.2.2).
const OPEN_SENT_HOLD: Duration = Duration::from_secs(240);
/// How long the KEEPALIVE of a connection that is not preferred waits for the preferred one.
pub(super) const HELD: Duration = Duration::from_secs(2);
/// How long a committed connection is young: another one that comes up meanwhile belongs to the same start of both
/// speakers. Later ones mean that the peer may have lost its end.
const YOUNG: Duration = Duration::from_secs(10);
/// How long such a later one waits for the old to prove dead.
const PARKED: Duration = Duration::from_secs(10);
/// How long we leave an incoming connection alone before we dial beside it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Least send hold time (RFC 9687 section 4).
const SEND_HOLD: Duration = Duration::from_secs(480);

/// The FSM of one peer. See the module for what it guarantees.
#[derive(Clone, Debug)]
pub struct Peer {
    pub(super) config: PeerConfig,
    pub(super) random: Random,
    backoff: Backoff,
    pub(super) refused: Refused,
    running: bool,
    next_id: u32,
    pub(super) connections: Vec<Connection>,
    /// When to dial.
    pub(super) connect_at: Option<Time>,
    /// Until when incoming connections are refused, after an error of the protocol.
    refuse_until: Option<Time>,
    /// When the state last changed, as [`Peer::since`] says.
    changed: (State, Time),
}

impl Peer {
    /// A peer that is stopped.
    #[must_use]
    pub fn new(config: PeerConfig, seed: u64) -> Self {
        Peer {
            config,
            random: Random::new(seed),
            backoff: Backoff::default(),
            refused: Refused::default(),
            running: false,
            next_id: 0,
            connections: Vec::with_capacity(2),
            connect_at: None,
            refuse_until: None,
            changed: (State::Idle, Time::ZERO),
        }
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &PeerConfig {
        &self.config
    }

    /// The configuration, to change what the next OPEN says.
    pub fn config_mut(&mut self) -> &mut PeerConfig {
        &mut self.config
    }

    /// State of the peer: that of its most advanced connection.
    #[must_use]
    pub fn state(&self) -> State {
        let idle = if self.running { State::Active } else { State::Idle };
        self.connections.iter().map(Connection::state).max().unwrap_or(idle).max(idle)
    }

    /// When [`Peer::state`] became what it is.
    #[must_use]
    pub fn since(&self) -> Time {
        self.changed.1
    }

    /// What the session agreed on, from `SessionUp` to `SessionDown`.
    #[must_use]
    pub fn negotiated(&self) -> Option<&Arc<Negotiated>> {
        self.connections.iter().find(|c| c.committed())?.negotiated.as_ref()
    }

    /// Octets that a message on `conn` may have now, for the framer.
    #[must_use]
    pub fn max_message(&self, conn: ConnId) -> usize {
        self.find(conn).map_or(MAX_MESSAGE, Connection::max_message)
    }

    /// Starts: the first attempt follows within a fraction of a second.
    pub fn start(&mut self, now: Time) {
        if self.running {
            return;
        }
        self.running = true;
        self.backoff.reset();
        self.refuse_until = None;
        if !self.config.passive {
            self.connect_at = Some(now + self.random.up_to(Duration::from_millis(200)));
        }
        self.note(now);
    }

    /// Stops, until the next `start`.
    pub fn stop(&mut self, now: Time, stop: &Stop, out: &mut Vec<Output>) {
        self.running = false;
        self.connect_at = None;
        while let Some(id) = self.connections.last().map(|c| c.id) {
            match stop {
                Stop::Notify(notification) => {
                    let hard = self.find(id).is_some_and(|connection| knows_notification(connection, &self.config));
                    let notification = if hard { notification.hard_reset() } else { notification.clone() };
                    self.notify(now, id, notification, out);
                }
                Stop::Reset(notification) => self.notify(now, id, notification.clone(), out),
                Stop::Silently => self.drop_connection(now, id, Reason::Stopped, out),
            }
        }
        self.connect_at = None;
        self.note(now);
    }

    /// The peer has connected to us. `None`: not wanted now, close it.
    pub fn accept(&mut self, now: Time, out: &mut Vec<Output>) -> Option<ConnId> {
        if !self.running || self.refuse_until.is_some_and(|until| now < until) {
            return None;
        }
        let phase = match self.connections.iter().find(|c| c.committed()) {
            Some(connection) => {
                // If the peer has lost its end, the answer to this is a reset.
                send_keepalive(connection.id, out);
                if now.saturating_sub(connection.committed_at) < YOUNG {
                    return None;
                }
                Phase::Parked
            }
            None => Phase::OpenSent,
        };
        let older = self.connections.iter().find(|c| !c.outgoing && !c.committed()).map(|c| c.id);
        let id = self.add(now, false, phase);
        match phase {
            Phase::Parked => {
                if let Some(connection) = self.find_mut(id) {
                    connection.hold_at = Some(now + PARKED);
                }
            }
            _ => self.send_open(now, id, out),
        }
        if let Some(older) = older {
            // A peer connects anew when it has lost what it had.
            self.notify(now, older, Notification::new(Code::Cease, cease::COLLISION), out);
        }
        self.note(now);
        Some(id)
    }

    /// The attempt that [`Output::Connect`] asked for has succeeded.
    pub fn tcp_connected(&mut self, now: Time, conn: ConnId, out: &mut Vec<Output>) {
        if !self.find(conn).is_some_and(|c| c.phase == Phase::Connecting) {
            return;
        }
        self.send_open(now, conn, out);
        self.note(now);
    }

    /// The attempt has failed.
    pub fn tcp_failed(&mut self, now: Time, conn: ConnId, out: &mut Vec<Output>) {
        self.drop_connection(now, conn, Reason::NotConnected, out);
        self.note(now);
    }

    /// The connection was closed by the other side, or reset.
    pub fn tcp_closed(&mut self, now: Time, conn: ConnId, out: &mut Vec<Output>) {
        self.drop_connection(now, conn, Reason::Closed, out);
        self.note(now);
    }

    /// Ends the connection with a NOTIFICATION: an error of the framer, or a decision of the speaker.
    pub fn reset(&mut self, now: Time, conn: ConnId, notification: Notification, out: &mut Vec<Output>) {
        self.notify(now, conn, notification, out);
        self.note(now);
    }

    /// A whole message has come. What is for the speaker is returned.
    pub fn receive<'a>(
        &mut self,
        now: Time,
        conn: ConnId,
        frame: Frame<'a>,
        out: &mut Vec<Output>,
    ) -> Option<Received<'a>> {
        let connection = self.find_mut(conn)?;
        connection.heard(now);
        let result = self.message(now, conn, frame, out);
        let received = result.unwrap_or_else(|notification| {
            self.notify(now, conn, notification, out);
            None
        });
        self.note(now);
        received
    }

    /// There are unread data on the connection: its hold timer is put off, at most by one hold time since the last
    /// message. To be asked of the socket before `handle_timeout`.
    pub fn data_pending(&mut self, conn: ConnId) {
        if let Some(connection) = self.find_mut(conn) {
            connection.unread = true;
        }
    }

    /// What the socket says after a write: whether it took some octets, and whether some are left over.
    pub fn send_state(&mut self, now: Time, conn: ConnId, progressed: bool, left_over: bool) {
        let Some(connection) = self.find_mut(conn) else { return };
        let limit = connection.hold_time().filter(|_| left_over).map(|hold| SEND_HOLD.max(hold * 2));
        connection.send_hold_at = match (limit, connection.send_hold_at) {
            (Some(_), Some(at)) if !progressed => Some(at),
            (limit, _) => limit.map(|limit| now + limit),
        };
    }

    /// When `handle_timeout` is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.connections.iter().filter_map(Connection::timeout).chain(self.connect_at).min()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.connect_at.is_some_and(|at| at <= now) {
            self.connect_at = None;
            self.dial(now, out);
        }
        let due: Vec<ConnId> =
            self.connections.iter().filter(|c| c.timeout().is_some_and(|at| at <= now)).map(|c| c.id).collect();
        for id in due {
            self.connection_timeout(now, id, out);
        }
        self.note(now);
    }

    fn dial(&mut self, now: Time, out: &mut Vec<Output>) {
        if !self.running || self.connections.iter().any(|c| c.committed() || c.outgoing) {
            return;
        }
        let busy = self.connections.iter().map(|c| c.born + PATIENCE).max();
        if let Some(later) = busy.filter(|later| *later > now) {
            self.connect_at = Some(later);
            return;
        }
        let conn = self.add(now, true, Phase::Connecting);
        if let Some(connection) = self.find_mut(conn) {
            connection.hold_at = Some(now + CONNECT);
        }
        out.push(Output::Connect { conn });
    }

    fn connection_timeout(&mut self, now: Time, id: ConnId, out: &mut Vec<Output>) {
        let Some(connection) = self.find_mut(id) else { return };
        let is_due = |at: Option<Time>| at.is_some_and(|at| at <= now);
        if is_due(connection.send_hold_at) {
            // RFC 9687 section 3.3: nothing more can be said to this peer.
            return self.drop_connection(now, id, Reason::SendHoldTimer, out);
        }
        if is_due(connection.hold_at) {
            if connection.unread && now < connection.unread_until {
                // Asked again soon, should those data be no whole message.
                connection.unread = false;
                connection.hold_at = Some(connection.unread_until.min(now + Duration::from_secs(1)));
            } else {
                return match connection.phase {
                    Phase::Connecting => self.drop_connection(now, id, Reason::NotConnected, out),
                    Phase::Parked => self.notify(now, id, Notification::new(Code::Cease, cease::COLLISION), out),
                    _ => self.notify(now, id, Notification::new(Code::HoldTimer, 0), out),
                };
            }
        }
        let Some(connection) = self.find_mut(id) else { return };
        if is_due(connection.keepalive_at) {
            if let Phase::Held { .. } = connection.phase {
                return self.commit(now, id, out);
            }
            send_keepalive(id, out);
            self.arm_keepalive(now, id);
        }
    }

    fn send_open(&mut self, now: Time, id: ConnId, out: &mut Vec<Output>) {
        let mut bytes = Vec::new();
        open(&self.config, &self.refused).encode(&mut bytes);
        if let Some(connection) = self.find_mut(id) {
            connection.phase = Phase::OpenSent;
            connection.hold_at = Some(now + OPEN_SENT_HOLD);
            out.push(Output::Send { conn: id, bytes });
        }
    }

    /// Decides for this connection: announces the session, sends our KEEPALIVE, and ends all others.
    pub(super) fn commit(&mut self, now: Time, id: ConnId, out: &mut Vec<Output>) {
        let Some(connection) = self.find_mut(id) else { return };
        let Some(negotiated) = connection.negotiated.clone() else { return };
        let confirmed = connection.phase == Phase::Held { confirmed: true };
        connection.phase = Phase::OpenConfirm;
        connection.committed_at = now;
        self.connect_at = None;
        let others: Vec<ConnId> = self.connections.iter().map(|c| c.id).filter(|other| *other != id).collect();
        for other in others {
            self.notify(now, other, Notification::new(Code::Cease, cease::COLLISION), out);
        }
        out.push(Output::SessionUp { conn: id, negotiated });
        send_keepalive(id, out);
        self.arm_keepalive(now, id);
        if confirmed {
            self.establish(now, id, out);
        }
    }

    pub(super) fn establish(&mut self, now: Time, id: ConnId, out: &mut Vec<Output>) {
        if let Some(connection) = self.find_mut(id) {
            connection.phase = Phase::Established { since: now };
            out.push(Output::Established { conn: id });
        }
    }

    fn arm_keepalive(&mut self, now: Time, id: ConnId) {
        let Some(interval) = self.find(id).map(|c| c.hold_time().map(|hold| hold / 3)) else { return };
        let at = interval.map(|interval| now + self.random.jitter(interval));
        if let Some(connection) = self.find_mut(id) {
            connection.keepalive_at = at;
        }
    }

    /// Sends a NOTIFICATION, if there is a connection to send it on, and ends the connection.
    pub(super) fn notify(&mut self, now: Time, id: ConnId, notification: Notification, out: &mut Vec<Output>) {
        match self.find(id).map(|c| c.phase) {
            None => return,
            Some(Phase::Connecting) => {}
            Some(_) => {
                let mut bytes = Vec::new();
                notification.encode(&mut bytes);
                out.push(Output::Send { conn: id, bytes });
            }
        }
        self.drop_connection(now, id, Reason::Sent(notification), out);
    }

    /// Forgets a connection, says so, and sees to it that there will be another one.
    pub(super) fn drop_connection(&mut self, now: Time, id: ConnId, reason: Reason, out: &mut Vec<Output>) {
        let Some(index) = self.connections.iter().position(|c| c.id == id) else { return };
        let connection = self.connections.remove(index);
        out.push(Output::Close { conn: id, flush: matches!(reason, Reason::Sent(_)) });
        let established = matches!(connection.phase, Phase::Established { .. });
        if let Phase::Established { since } = connection.phase {
            self.backoff.session_ended(since, now);
        }
        let blame = Blame::of(&reason);
        if connection.committed() {
            let negotiated = connection.negotiated.as_deref();
            let graceful = negotiated.is_some_and(|negotiated| keeps_routes(negotiated, &self.config, &reason));
            if graceful && established {
                // Its routes are kept: the sooner it is back the better, and it is no failure.
                self.backoff.reset();
            }
            out.push(Output::SessionDown { conn: id, reason, graceful, established });
        } else if blame != Blame::Collision && reason != Reason::Stopped {
            out.push(Output::Failed { conn: id, reason });
        }
        if self.running && !self.connections.iter().any(Connection::committed) {
            self.schedule(now, blame);
            self.promote(now, out);
        }
    }

    /// Sets the time of the next attempt.
    fn schedule(&mut self, now: Time, blame: Blame) {
        let at = match blame {
            Blame::Protocol => {
                let at = now + self.backoff.next_after_error(&mut self.random);
                self.refuse_until = Some(at);
                at
            }
            _ if self.connect_at.is_some() => return,
            Blame::Collision => now + self.random.jitter(Duration::from_millis(400)),
            Blame::Connection => now + self.backoff.next(&mut self.random),
        };
        if !self.config.passive && !self.connections.iter().any(|c| c.outgoing) {
            self.connect_at = Some(at);
        }
    }

    /// Until when connections of the peer are refused, if they are.
    #[must_use]
    pub fn refuses_until(&self) -> Option<Time> {
        self.refuse_until
    }

    /// Neither dials nor takes connections before `at`.
    pub(super) fn leave_alone(&mut self, at: Time) {
        self.refuse_until = Some(at);
        self.connect_at = self.connect_at.map(|_| at);
    }

    /// Goes on with what waited for the connection that has just gone.
    fn promote(&mut self, now: Time, out: &mut Vec<Output>) {
        let Some(connection) = self.connections.first() else { return };
        let id = connection.id;
        match connection.phase {
            Phase::Parked => self.send_open(now, id, out),
            Phase::Held { .. } if !self.has_rival(id) => self.commit(now, id, out),
            _ => {}
        }
    }

    /// Whether the other connection is preferred to this one and may still come up. The preferred one is that opened
    /// by the speaker with the larger identifier; equal ones in different AS: with the larger AS (RFC 6286).
    pub(super) fn has_rival(&self, id: ConnId) -> bool {
        let Some(peer) = self.find(id).and_then(|c| c.negotiated.as_ref()) else { return false };
        let ours = (u32::from(self.config.identifier), self.config.local_asn);
        let outgoing_preferred = ours > (u32::from(peer.peer_id), peer.peer_asn);
        self.connections.iter().any(|c| {
            c.id != id && c.outgoing == outgoing_preferred && matches!(c.phase, Phase::OpenSent | Phase::Held { .. })
        })
    }

    fn add(&mut self, now: Time, outgoing: bool, phase: Phase) -> ConnId {
        let id = ConnId(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        self.connections.push(Connection::new(id, outgoing, phase, now));
        id
    }

    pub(super) fn find(&self, id: ConnId) -> Option<&Connection> {
        self.connections.iter().find(|c| c.id == id)
    }

    pub(super) fn find_mut(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|c| c.id == id)
    }

    /// Remembers since when the state is what it is.
    pub(super) fn note(&mut self, now: Time) {
        let state = self.state();
        if self.changed.0 != state {
            self.changed = (state, now);
        }
    }
}

fn send_keepalive(conn: ConnId, out: &mut Vec<Output>) {
    let mut bytes = Vec::new();
    encode_keepalive(&mut bytes);
    out.push(Output::Send { conn, bytes });
}
