//! What is learned of the path to the peer beside BGP.

use super::Time;
use super::output::Output;
use super::peer::{Peer, knows_notification};
use crate::wire::{Notification, cease};

impl Peer {
    /// BFD has found the path to the peer dead (RFC 5882 section 4.2, RFC 9384): its session ends at once and for good, also where both know
    /// graceful restart, because packets sent to it are lost. Connections that are no session yet stay: they time out by themselves.
    pub fn path_down(&mut self, now: Time, out: &mut Vec<Output>) {
        let Some(connection) = self.connections.iter().find(|connection| connection.committed()) else { return };
        let (id, hard) = (connection.id, knows_notification(connection, &self.config));
        let notification = Notification::cease(cease::BFD_DOWN, "");
        self.notify(now, id, if hard { notification.hard_reset() } else { notification }, out);
        self.note(now);
    }
}
