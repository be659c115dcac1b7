//! How many prefixes a peer may make us keep, and what happens beyond.

use super::event::Output;
use super::state::Speaker;
use crate::rib::PeerId;
use crate::wire::{Families, Family};
use std::time::Duration;

/// A bound of the paths that are taken from a peer, for each family on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxPrefixes {
    /// So many are taken.
    pub limit: u32,
    /// What happens when one more is told.
    pub then: Beyond,
}

/// What happens to a peer that tells more than is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beyond {
    /// Its session ends with Cease, Maximum Number of Prefixes Reached (RFC 4486), as a Hard Reset, and is sought again after this time.
    Close(Duration),
    /// What it has told before stays, what is more is not taken.
    Refuse,
    /// It is taken, and said.
    Warn,
}

impl MaxPrefixes {
    /// How many paths are taken of a peer, beside those that are stale: it has told them before it went away, and tells them again or not.
    #[must_use]
    pub(super) fn room(limit: Option<Self>) -> u32 {
        match limit {
            Some(Self { limit, then: Beyond::Close(_) | Beyond::Refuse }) => limit,
            Some(Self { then: Beyond::Warn, .. }) | None => u32::MAX,
        }
    }
}

impl Speaker {
    /// `peer` has told more of these families than is taken.
    pub(super) fn went_beyond(&mut self, peer: PeerId, families: Families) {
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        let before = session.beyond;
        session.beyond = before.union(families);
        let Some(MaxPrefixes { limit, then: Beyond::Close(retry) }) = session.peer.max_prefixes else { return };
        // Said once: the session ends.
        if let Some(family) = families.iter().next().filter(|_| before.is_empty()) {
            self.requests.push(Output::Exceeded { peer, session: session.id, family, limit, retry });
        }
    }

    /// Something of `peer` has gone: where there is room again, and not for a handful only, it is asked for what was refused.
    pub(super) fn has_room_again(&mut self, peer: PeerId) {
        let Some(session) = self.sessions.get_mut(&peer).filter(|session| !session.beyond.is_empty()) else { return };
        let Some(MaxPrefixes { limit, then: Beyond::Refuse }) = session.peer.max_prefixes else { return };
        let enough = limit - limit / 10;
        let (v4, v6) = (self.v4.table.fresh(peer), self.v6.table.fresh(peer));
        let roomy = |family: &Family| match family {
            Family::Ipv4Unicast => v4 < enough,
            Family::Ipv6Unicast => v6 < enough,
        };
        let again: Families = session.beyond.iter().filter(roomy).collect();
        session.beyond = session.beyond.without(again);
        // Without route refresh only a new session would tell them.
        if session.established.negotiated.route_refresh {
            let id = session.id;
            self.requests.extend(again.iter().map(|family| Output::Refresh(peer, id, family)));
        }
    }

    /// What is there of `peer` is held against its limit: that has changed, or the peer has told everything.
    pub(super) fn hold_to_limit(&mut self, peer: PeerId) {
        let Some(session) = self.sessions.get(&peer) else { return };
        let Some(MaxPrefixes { limit, then: Beyond::Close(_) }) = session.peer.max_prefixes else { return };
        let received =
            [(Family::Ipv4Unicast, self.v4.table.fresh(peer)), (Family::Ipv6Unicast, self.v6.table.fresh(peer))];
        let beyond = received.into_iter().filter(|(_, received)| *received > limit).map(|(family, _)| family);
        self.went_beyond(peer, beyond.collect());
    }

    /// The limit of `peer` has changed.
    pub(super) fn relimit(&mut self, peer: PeerId) {
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        let refused = std::mem::take(&mut session.beyond);
        if session.established.negotiated.route_refresh {
            let id = session.id;
            self.requests.extend(refused.iter().map(|family| Output::Refresh(peer, id, family)));
        }
        self.hold_to_limit(peer);
    }

    /// A sentence for each peer that tells more than it should and is not closed for it.
    #[must_use]
    pub(super) fn beyond_limits(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (peer, session) in &self.sessions {
            let Some(MaxPrefixes { limit, then }) = session.peer.max_prefixes else { continue };
            let name = self.plan.as_ref().and_then(|plan| plan.peer(*peer)).map_or("", |(name, _)| name);
            for family in session.established.negotiated.families.iter() {
                let received = match family {
                    Family::Ipv4Unicast => self.v4.table.fresh(*peer),
                    Family::Ipv6Unicast => self.v6.table.fresh(*peer),
                };
                let what = match then {
                    Beyond::Warn if received > limit => format!("has told {received} {family} prefixes"),
                    Beyond::Refuse if session.beyond.contains(family) => {
                        format!("has told more {family} prefixes than the {received} that are taken")
                    }
                    _ => continue,
                };
                problems.push(format!(
                    "peer {name}: {what}, and maxPrefixes is {limit}; look at what it leaks, or raise it"
                ));
            }
        }
        problems
    }
}
