//! What a peer tells: announcements and withdrawals, and what it says of a family as a whole.

use super::event::{Batch, Then};
use super::import::Importer;
use super::limit::MaxPrefixes;
use super::state::Speaker;
use crate::rib::PeerId;
use crate::wire::{Families, Family};
use std::time::Instant;

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
                Then::Refresh(family) => self.tell_again(batch.peer, *family, now),
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
            session.refreshes.told(told);
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
}
