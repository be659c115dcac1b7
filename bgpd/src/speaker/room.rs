//! Peers that tell more paths to a prefix than are kept (RFC 7911). What was refused for want of room is taken once others have gone,
//! from what is remembered of it; the peer is asked again only for what was too much to remember.

use super::event::{Batch, Op, Output};
use super::import::Refusal;
use super::rejected::Entry;
use super::routing::Routing;
use super::state::{Session, Speaker};
use crate::rib::{Key, PeerId, Teller};
use crate::wire::{Families, Family};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pause before a peer is asked once more to tell everything because of this: one whose paths come and go would tell nothing else.
const PAUSE: Duration = Duration::from_secs(60);
/// One that is asked again as soon as its pause is over is left alone twice as long from then on, this long at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// Whether a peer's paths are too many, by family.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Crowd {
    /// Of these paths were refused for want of room, and are remembered.
    refused: Families,
    /// Of these some are not.
    forgotten: Families,
    /// Of these paths have gone since that was last looked at.
    left: Families,
    /// Of these the peer is to be asked again when the pause is over.
    awaited: Families,
    /// When the peer was asked again, and how long it is left alone from then on.
    asked: Option<(Instant, Duration)>,
}

impl Crowd {
    /// A path was refused.
    pub(super) fn refused(&mut self, family: Family, is_kept: bool) {
        if is_kept { self.refused.insert(family) } else { self.forgotten.insert(family) }
    }

    /// A path has gone, if `gone`.
    pub(super) fn left(&mut self, family: Family, gone: bool) {
        if gone {
            self.left.insert(family);
        }
    }

    /// When the peer is to be asked again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.asked.filter(|_| !self.awaited.is_empty()).map(|(at, pause)| at + pause)
    }

    /// Of which families the peer is to be asked again now, since some paths of them are not remembered and others have gone, `left`.
    fn ask(&mut self, left: Families, now: Instant) -> Families {
        let again = self.awaited.union(left).intersection(self.forgotten);
        if again.is_empty() || self.asked.is_some_and(|(at, pause)| now < at + pause) {
            self.awaited = again;
            return Families::NONE;
        }
        self.awaited = Families::NONE;
        let was_just_asked = |(at, pause): &(Instant, Duration)| now < *at + *pause * 2;
        let pause = self.asked.filter(was_just_asked).map_or(PAUSE, |(_, pause)| (pause * 2).min(LONGEST_PAUSE));
        self.asked = Some((now, pause));
        self.forgotten = self.forgotten.without(again);
        again
    }

    /// Adds what happened in a batch.
    pub(super) fn merge(&mut self, batch: Self) {
        self.refused = self.refused.union(batch.refused);
        self.forgotten = self.forgotten.union(batch.forgotten);
        self.left = self.left.union(batch.left);
    }
}

impl Speaker {
    /// Paths of `peer` have gone.
    pub(super) fn left_room(&mut self, peer: PeerId, families: Families) {
        if let Some(session) = self.sessions.get_mut(&peer) {
            session.crowd.left = session.crowd.left.union(families);
        }
    }

    /// Takes what was refused for want of room and has some now.
    pub(super) fn refill(&mut self, peer: PeerId, now: Instant) {
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        let left = std::mem::take(&mut session.crowd.left);
        if !left.intersection(session.crowd.refused).is_empty() {
            let batch = Batch { peer, session: session.id, ..self.refused_of(peer) };
            self.take_in(&batch);
            self.still_refused(peer);
        }
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        if session.established.negotiated.route_refresh {
            let id = session.id;
            let again = session.crowd.ask(left, now);
            self.requests.extend(again.iter().map(|family| Output::Refresh(peer, id, family)));
        }
    }

    /// Asks those again whose pause is over.
    pub(super) fn refill_awaited(&mut self, now: Instant) {
        let is_due = |session: &Session| session.crowd.due().is_some_and(|at| at <= now);
        let due: Vec<PeerId> =
            self.sessions.iter().filter(|(_, session)| is_due(session)).map(|(peer, _)| *peer).collect();
        due.into_iter().for_each(|peer| self.refill(peer, now));
    }

    /// What was refused of `peer` for want of room, and may have some now.
    fn refused_of(&self, peer: PeerId) -> Batch {
        let mut batch = Batch::default();
        for (prefix, identifier, Entry { set, .. }) in self.rejected.of(peer).filter(|(.., entry)| is_crowded(entry)) {
            let (from, attributes) = (Teller { peer, identifier }, batch.attributes.len() as u32);
            let pushed = match Family::of(prefix) {
                Family::Ipv4Unicast => {
                    push(&self.v4, prefix, from, attributes, (&mut batch.v4, &mut batch.v4_identifiers))
                }
                Family::Ipv6Unicast => {
                    push(&self.v6, prefix, from, attributes, (&mut batch.v6, &mut batch.v6_identifiers))
                }
            };
            if pushed {
                batch.attributes.push(Arc::clone(set));
            }
        }
        batch
    }

    fn still_refused(&mut self, peer: PeerId) {
        let crowded = self.rejected.of(peer).filter(|(.., entry)| is_crowded(entry));
        let refused = crowded.map(|(prefix, ..)| Family::of(prefix)).collect();
        if let Some(session) = self.sessions.get_mut(&peer) {
            session.crowd.refused = refused;
        }
    }
}

fn is_crowded(entry: &Entry) -> bool {
    entry.refusal == Refusal::Room
}

/// Adds a path if there is room for it.
fn push<K: Key>(
    routing: &Routing<K>,
    prefix: ipnet::IpNet,
    from: Teller,
    attributes: u32,
    (ops, identifiers): (&mut Vec<Op<K>>, &mut Vec<u32>),
) -> bool {
    let Some(key) = K::of(prefix).filter(|key| routing.table.has_room(*key, from)) else { return false };
    ops.push(Op { key, attributes });
    identifiers.push(from.identifier);
    true
}
