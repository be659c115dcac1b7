//! What a peer tells: announcements and withdrawals, and what it says of a family as a whole.

use super::event::{Batch, Then};
use super::import::Importer;
use super::limit::MaxPrefixes;
use super::state::Speaker;
use crate::rib::PeerId;
use crate::wire::{Families, Family};
use std::time::{Duration, Instant};

/// How long a peer may take to tell everything again before what it has not told goes (RFC 7313 section 4.1).
pub(super) const REFRESH_TIME: Duration = Duration::from_secs(600);
/// Beginnings of which each costs a walk over the table that a peer may make at once.
const BEGINNINGS: u32 = 4;
/// One more after each of these.
const BEGINNING: Duration = Duration::from_secs(1);

/// Beginnings of a peer that were heeded.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Beginnings {
    /// When all of them are allowed for.
    until: Option<Instant>,
}

impl Beginnings {
    /// Whether one more is heeded now.
    fn admit(&mut self, now: Instant) -> bool {
        let until = self.until.map_or(now, |until| until.max(now)) + BEGINNING;
        let is_heeded = until <= now + BEGINNING * BEGINNINGS;
        if is_heeded {
            self.until = Some(until);
        }
        is_heeded
    }
}

impl Speaker {
    /// Takes a batch in, unless its session is over.
    pub(super) fn receive(&mut self, batch: &Batch, now: Instant) {
        if self.sessions.get(&batch.peer).is_none_or(|session| session.id != batch.session) {
            return;
        }
        self.take_in(batch);
        self.has_room_again(batch.peer);
        for then in &batch.then {
            match then {
                Then::EndOfRib(family) => self.end_of_rib(batch.peer, *family),
                Then::Refresh(family) => self.tell_again(batch.peer, *family),
                Then::RefreshBegins(family) => self.refresh_begins(batch.peer, *family, now),
                Then::RefreshEnds(family) => self.refresh_ends(batch.peer, *family),
            }
        }
        self.refill(batch.peer, now);
    }

    /// The announcements and withdrawals of a batch.
    pub(super) fn take_in(&mut self, batch: &Batch) {
        let Some(session) = self.sessions.get(&batch.peer) else { return };
        let asn = self.plan.as_ref().map_or(0, |plan| plan.config.asn);
        let room = MaxPrefixes::room(session.peer.max_prefixes);
        let mut importer = Importer::new(&session.peer, &session.established, asn, room, batch);
        importer.apply((&batch.v4, &batch.v4_identifiers), &mut self.v4, &mut self.shared, &mut self.rejected);
        importer.apply((&batch.v6, &batch.v6_identifiers), &mut self.v6, &mut self.shared, &mut self.rejected);
        let (beyond, crowd) = importer.finish(&mut self.shared.attributes);
        if let Some(session) = self.sessions.get_mut(&batch.peer) {
            session.crowd.merge(crowd);
            let some = [(Family::Ipv4Unicast, batch.v4.is_empty()), (Family::Ipv6Unicast, batch.v6.is_empty())];
            let told = some.into_iter().filter(|(_, none)| !none).map(|(family, _)| family).collect();
            session.told = session.told.union(told);
        }
        self.went_beyond(batch.peer, beyond);
    }

    fn end_of_rib(&mut self, peer: PeerId, family: Family) {
        self.heard.entry(peer).or_default().insert(family);
        self.monitors.end_of_rib(peer, family);
        self.sweep(peer, Families::only(family));
        if self.has_told_all(peer) {
            self.restart.spoke(peer);
        }
        self.hold_to_limit(peer);
    }

    /// The peer wants to hear everything again.
    fn tell_again(&mut self, peer: PeerId, family: Family) {
        let Some(session) = self.sessions.get(&peer) else { return };
        let demarcated = session.established.negotiated.enhanced_route_refresh;
        let (shared, out) = (&mut self.shared, &mut self.requests);
        match family {
            Family::Ipv4Unicast => self.v4.again(peer, demarcated, shared, out),
            Family::Ipv6Unicast => self.v6.again(peer, demarcated, shared, out),
        }
    }

    /// Beginning of Route Refresh (RFC 7313 section 4.1): what it does not tell until the end is gone. A second one begins anew. Both ends of it are
    /// walks over the whole table, so that of a flood most mean nothing: then what it does not tell stays, until it withdraws it.
    fn refresh_begins(&mut self, peer: PeerId, family: Family, now: Instant) {
        let received = match family {
            Family::Ipv4Unicast => self.v4.table.received(peer),
            Family::Ipv6Unicast => self.v6.table.received(peer),
        };
        let has_nothing = received == 0 && self.rejected.count(peer) == 0;
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        if !session.established.negotiated.families.contains(family) {
            return;
        }
        if has_nothing {
            session.refreshing.remove(&family);
            return;
        }
        if let Some(until) = session.refreshing.get_mut(&family).filter(|_| !session.told.contains(family)) {
            // All is doubted already.
            *until = now + REFRESH_TIME;
            return;
        }
        if !session.beginnings.admit(now) {
            return;
        }
        session.refreshing.insert(family, now + REFRESH_TIME);
        session.told.remove(family);
        self.rejected.forget_family(peer, family);
        match family {
            Family::Ipv4Unicast => self.v4.table.doubt(peer),
            Family::Ipv6Unicast => self.v6.table.doubt(peer),
        }
    }

    /// End of Route Refresh; without a beginning it means nothing.
    fn refresh_ends(&mut self, peer: PeerId, family: Family) {
        let begun = self.sessions.get_mut(&peer).and_then(|session| session.refreshing.remove(&family));
        if begun.is_none() {
            return;
        }
        match family {
            Family::Ipv4Unicast => self.v4.remove(peer, &mut self.shared, |_, path| path.is_doubted()),
            Family::Ipv6Unicast => self.v6.remove(peer, &mut self.shared, |_, path| path.is_doubted()),
        }
        self.left_room(peer, Families::only(family));
        self.has_room_again(peer);
    }

    /// Peers that have not come to the end in time.
    pub(super) fn outwait_refreshes(&mut self, now: Instant) {
        let mut late = Vec::new();
        for (peer, session) in &self.sessions {
            late.extend(session.refreshing.iter().filter(|(_, at)| **at <= now).map(|(family, _)| (*peer, *family)));
        }
        for (peer, family) in late {
            self.refresh_ends(peer, family);
            self.refill(peer, now);
        }
    }
}
