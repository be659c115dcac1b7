//! Sessions that end for reasons outside their FSM: the path to the peer, and what it told.

use super::Time;
use super::ending::knows_notification;
use super::output::{Output, Reason};
use super::peer::Peer;
use crate::wire::{Notification, cease};
use std::time::Duration;

impl Peer {
    /// BFD has found the path to the peer dead (RFC 5882 section 4.2, RFC 9384): its session ends at once and for good, also where both know
    /// graceful restart, because packets sent to it are lost. Connections that are no session yet stay: they time out by themselves.
    pub fn path_down(&mut self, now: Time, out: &mut Vec<Output>) {
        self.end_for_good(now, Notification::cease(cease::BFD_DOWN, ""), out);
    }

    /// The session ends with this NOTIFICATION, also where both know graceful restart, and the peer is left alone until `retry` is over.
    pub fn suspend(&mut self, now: Time, notification: Notification, retry: Duration, out: &mut Vec<Output>) {
        self.end_for_good(now, notification, out);
        while let Some(id) = self.connections.last().map(|connection| connection.id) {
            self.drop_connection(now, id, Reason::Stopped, out);
        }
        self.leave_alone(now + retry);
        self.note(now);
    }

    fn end_for_good(&mut self, now: Time, notification: Notification, out: &mut Vec<Output>) {
        let Some(connection) = self.connections.iter().find(|connection| connection.committed()) else { return };
        let (id, hard) = (connection.id, knows_notification(connection, &self.config));
        self.notify(now, id, if hard { notification.hard_reset() } else { notification }, out);
        self.note(now);
    }
}
