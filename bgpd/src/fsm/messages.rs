//! What messages do to a connection.

use super::Time;
use super::connection::{Connection, Phase, State};
use super::negotiate::{negotiate, open};
use super::output::{ConnId, Output, Reason, Received};
use super::peer::{HELD, Peer};
use crate::wire::{Code, Frame, MessageType, Notification, Open, RouteRefresh, Update, cease};
use std::sync::Arc;
use std::time::Duration;

impl Peer {
    /// When the last message of the session came, or earlier; none without a session, or where none is needed to keep it.
    #[must_use]
    pub fn heard(&self) -> Option<Time> {
        let connection = self.connections.iter().find(|connection| connection.state() == State::Established)?;
        Some(connection.hold_at?.saturating_sub(connection.hold_time()?))
    }

    /// Handles a message by its type.
    ///
    /// # Errors
    /// The NOTIFICATION that ends the connection.
    pub(super) fn message<'a>(
        &mut self,
        now: Time,
        id: ConnId,
        frame: Frame<'a>,
        out: &mut Vec<Output>,
    ) -> Result<Option<Received<'a>>, Notification> {
        match frame.kind {
            MessageType::Notification => self.notified(now, id, Notification::decode(frame.bytes), out),
            MessageType::Open => self.received_open(now, id, frame.bytes, out)?,
            MessageType::Keepalive => self.received_keepalive(now, id, out)?,
            MessageType::Update | MessageType::RouteRefresh => return self.received_other(now, id, frame, out),
        }
        Ok(None)
    }

    fn received_open(
        &mut self,
        now: Time,
        id: ConnId,
        message: &[u8],
        out: &mut Vec<Output>,
    ) -> Result<(), Notification> {
        let theirs = Open::decode(message)?;
        let ours = open(&self.config, &self.refused);
        let negotiated = negotiate(&self.config, &ours, &theirs);
        match self.find(id) {
            None => return Ok(()),
            Some(connection) if connection.phase == Phase::Parked => {
                negotiated.as_ref().map_err(Clone::clone)?;
                self.replace_session(now, out)?;
            }
            Some(connection) if connection.phase == Phase::OpenSent => {}
            Some(connection) => return Err(unexpected(connection, MessageType::Open)),
        }
        let negotiated = negotiated?;
        if let Some(connection) = self.find_mut(id) {
            connection.negotiated = Some(Arc::new(negotiated));
            connection.phase = Phase::Held { confirmed: false };
            connection.keepalive_at = Some(now + HELD);
            connection.heard(now);
        }
        if !self.has_rival(id) {
            self.commit(now, id, out);
        }
        Ok(())
    }

    /// The peer connects anew although its session lives here. If it knows graceful restart, the old session is lost
    /// (RFC 4724 section 5), else the new connection is (RFC 4271 section 6.8).
    fn replace_session(&mut self, now: Time, out: &mut Vec<Output>) -> Result<(), Notification> {
        let old = self.connections.iter().find(|c| c.committed());
        match old.and_then(|c| Some((c.id, c.negotiated.as_ref()?.graceful_restart.is_some()))) {
            Some((old, true)) => {
                // This sends our OPEN on the new one.
                self.drop_connection(now, old, Reason::Restarted, out);
                Ok(())
            }
            _ => Err(Notification::new(Code::Cease, cease::COLLISION)),
        }
    }

    fn received_keepalive(&mut self, now: Time, id: ConnId, out: &mut Vec<Output>) -> Result<(), Notification> {
        let Some(connection) = self.find_mut(id) else { return Ok(()) };
        match &mut connection.phase {
            Phase::Established { .. } => {}
            Phase::Held { confirmed } => *confirmed = true,
            Phase::OpenConfirm => self.establish(now, id, out),
            _ => return Err(unexpected(connection, MessageType::Keepalive)),
        }
        Ok(())
    }

    fn received_other<'a>(
        &mut self,
        now: Time,
        id: ConnId,
        frame: Frame<'a>,
        out: &mut Vec<Output>,
    ) -> Result<Option<Received<'a>>, Notification> {
        // The peer is in Established, although our KEEPALIVE is held back: it takes it for granted, so it has decided.
        if self.find(id).is_some_and(|c| c.phase == Phase::Held { confirmed: true }) {
            self.commit(now, id, out);
        }
        let Some(connection) = self.find(id) else { return Ok(None) };
        let (Phase::Established { .. }, Some(negotiated)) = (connection.phase, &connection.negotiated) else {
            return Err(unexpected(connection, frame.kind));
        };
        if frame.kind == MessageType::Update {
            return Update::decode(frame.bytes, negotiated).map(|update| Some(Received::Update(update)));
        }
        let refresh = RouteRefresh::decode(frame.bytes, negotiated.enhanced_route_refresh)?;
        Ok(refresh.map(Received::RouteRefresh))
    }

    /// The peer's NOTIFICATION.
    fn notified(&mut self, now: Time, id: ConnId, notification: Notification, out: &mut Vec<Output>) {
        let at_open = self.find(id).is_some_and(|c| !matches!(c.phase, Phase::Established { .. }));
        let learned = at_open && self.refused.learn(&notification);
        self.drop_connection(now, id, Reason::Received(notification), out);
        if learned && self.connect_at.is_some() {
            self.connect_at = Some(now + self.random.up_to(Duration::from_millis(200)));
        }
    }
}

/// Finite State Machine Error (RFC 6608).
fn unexpected(connection: &Connection, kind: MessageType) -> Notification {
    let subcode = match connection.phase {
        Phase::Connecting | Phase::Parked | Phase::OpenSent => 1,
        Phase::Held { .. } | Phase::OpenConfirm => 2,
        Phase::Established { .. } => 3,
    };
    Notification { data: vec![kind as u8], ..Notification::new(Code::Fsm, subcode) }
}
