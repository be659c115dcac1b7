//! ROUTE-REFRESH (RFC 2918) and its markers (RFC 7313): a peer wants to hear everything again, or tells it.
//!
//! Each is a walk over the table, and a peer can say it as often as it likes: of either a few are heeded at once, and then one a second.

use super::state::{Session, Speaker};
use crate::bucket::Bucket;
use crate::rib::PeerId;
use crate::wire::{Families, Family};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a peer may take to tell everything again before what it has not told goes (RFC 7313 section 4.1).
const REFRESH_TIME: Duration = Duration::from_secs(600);
/// Walks over the table that a peer may cause at once.
const WALKS: u32 = 4;
/// One more after each of these.
const WALK: Duration = Duration::from_secs(1);

/// What became of a peer's refreshes.
#[derive(Clone, Debug)]
pub(super) struct Refreshes {
    /// Families of which it has asked to hear everything again and does not yet.
    asked: Families,
    /// Its requests that may be heeded.
    requests: Bucket,
    /// Families of which it tells everything again, and until when it may take.
    begun: BTreeMap<Family, Instant>,
    /// Its beginnings that may be heeded.
    beginnings: Bucket,
    /// Families of which it has told anything since it last began to.
    told: Families,
}

impl Default for Refreshes {
    fn default() -> Self {
        let bucket = Bucket::new(WALKS, WALK);
        let (asked, told) = (Families::NONE, Families::NONE);
        Self { asked, requests: bucket, begun: BTreeMap::new(), beginnings: bucket, told }
    }
}

impl Refreshes {
    /// The peer has told something of these families.
    pub(super) fn told(&mut self, families: Families) {
        self.told = self.told.union(families);
    }

    /// When there is something to do, whether the peer says anything or not.
    pub(super) fn due(&self) -> Option<Instant> {
        let answer = self.requests.next().filter(|_| !self.asked.is_empty());
        self.begun.values().copied().chain(answer).min()
    }

    /// The families of which the peer hears everything again now.
    fn answer(&mut self, now: Instant) -> Families {
        let heeded = !self.asked.is_empty() && self.requests.take(now);
        if heeded { std::mem::take(&mut self.asked) } else { Families::NONE }
    }
}

impl Speaker {
    /// The peer wants to hear everything again. Where it has asked too often it hears it later, once for all that it has asked meanwhile.
    pub(super) fn tell_again(&mut self, peer: PeerId, family: Family, now: Instant) {
        if let Some(session) = self.sessions.get_mut(&peer) {
            session.refreshes.asked.insert(family);
        }
        self.answer_refreshes(peer, now);
    }

    fn answer_refreshes(&mut self, peer: PeerId, now: Instant) {
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        let demarcated = session.established.negotiated.enhanced_route_refresh;
        let (shared, out) = (&mut self.shared, &mut self.requests);
        for family in session.refreshes.answer(now).iter() {
            match family {
                Family::Ipv4Unicast => self.v4.again(peer, demarcated, shared, out),
                Family::Ipv6Unicast => self.v6.again(peer, demarcated, shared, out),
            }
        }
    }

    /// Beginning of Route Refresh (RFC 7313 section 4.1): what it does not tell until the end is gone. A second one begins anew. Of a flood most mean
    /// nothing: then what it does not tell stays, until it withdraws it.
    pub(super) fn refresh_begins(&mut self, peer: PeerId, family: Family, now: Instant) {
        let received = match family {
            Family::Ipv4Unicast => self.v4.table.received(peer),
            Family::Ipv6Unicast => self.v6.table.received(peer),
        };
        let has_nothing = received == 0 && self.rejected.count(peer) == 0;
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        if !session.established.negotiated.families.contains(family) {
            return;
        }
        let refreshes = &mut session.refreshes;
        if has_nothing {
            refreshes.begun.remove(&family);
            return;
        }
        if let Some(until) = refreshes.begun.get_mut(&family).filter(|_| !refreshes.told.contains(family)) {
            // All is doubted already.
            *until = now + REFRESH_TIME;
            return;
        }
        if !refreshes.beginnings.take(now) {
            return;
        }
        refreshes.begun.insert(family, now + REFRESH_TIME);
        refreshes.told.remove(family);
        self.rejected.forget_family(peer, family);
        match family {
            Family::Ipv4Unicast => self.v4.table.doubt(peer),
            Family::Ipv6Unicast => self.v6.table.doubt(peer),
        }
    }

    /// End of Route Refresh; without a beginning it means nothing.
    pub(super) fn refresh_ends(&mut self, peer: PeerId, family: Family) {
        let begun = self.sessions.get_mut(&peer).and_then(|session| session.refreshes.begun.remove(&family));
        if begun.is_none() {
            return;
        }
        let gone = match family {
            Family::Ipv4Unicast => self.v4.remove(peer, &mut self.shared, |_, path| path.is_doubted()),
            Family::Ipv6Unicast => self.v6.remove(peer, &mut self.shared, |_, path| path.is_doubted()),
        };
        if gone {
            self.left_room(peer, Families::only(family));
        }
        self.has_room_again(peer);
    }

    /// Peers that have not come to the end in time, and those that have waited long enough to hear everything again.
    pub(super) fn outwait_refreshes(&mut self, now: Instant) {
        let is_due = |session: &Session| session.refreshes.due().is_some_and(|at| at <= now);
        let due: Vec<PeerId> = self.sessions.iter().filter(|(_, one)| is_due(one)).map(|(peer, _)| *peer).collect();
        for peer in due {
            self.answer_refreshes(peer, now);
            let Some(session) = self.sessions.get(&peer) else { continue };
            let late = session.refreshes.begun.iter().filter(|(_, at)| **at <= now);
            let late: Families = late.map(|(family, _)| *family).collect();
            late.iter().for_each(|family| self.refresh_ends(peer, family));
            self.refill(peer, now);
        }
    }
}
