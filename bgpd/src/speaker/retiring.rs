//! Whether the node could do without the sessions of its topology that are to go. In flow what each peer will be
//! ([`super::Member`]) and the table; out flows why not.
//!
//! What counts is routes, not sessions: a prefix is safe if somebody tells it who will still tell it afterwards. Stale paths need a
//! replacement, too, since their peer is about to be back; those of a long absence (RFC 9494) are nobody's word any more.

use super::config::Member;
use super::routing::{Routing, Shared};
use super::state::Speaker;
use crate::rib::{Key, Path, PeerId};
use std::collections::BTreeMap;

impl Speaker {
    /// Number of the decision about sessions that is in force, and why the node still needs what that does away with, if it does.
    #[must_use]
    pub fn retiring(&self) -> (Option<u32>, Option<String>) {
        let Some(plan) = &self.plan else { return (None, None) };
        let members = plan.ids.iter().filter_map(|(id, name)| Some((*id, plan.config.peers.get(name)?.member)));
        let members: BTreeMap<PeerId, Member> = members.collect();
        let retires = |member: &Member| matches!(member, Member::FormerReflector | Member::Leaving);
        if !members.values().any(retires) {
            return (plan.config.step, None);
        }
        let silent = members.iter().find(|(id, member)| **member == Member::Reflector && !self.has_told_all(**id));
        let silent = silent.and_then(|(id, _)| plan.ids.get(id)).map(|name| {
            format!("{name}, which is to reflect, has not told everything yet; twill peers says why its session is not there")
        });
        let lost = || {
            unsafe_prefix(&self.v4, &members, &self.shared).or_else(|| unsafe_prefix(&self.v6, &members, &self.shared))
        };
        (plan.config.step, silent.or_else(lost))
    }
}

/// A sentence about the first prefix that nobody tells who will go on telling it.
fn unsafe_prefix<K: Key>(routing: &Routing<K>, members: &BTreeMap<PeerId, Member>, shared: &Shared) -> Option<String> {
    let table = &routing.table;
    let is_word = |path: &&Path| !shared.attributes.rank(path.attributes).long_stale;
    let stays = |path: &Path| match members.get(&path.peer) {
        Some(Member::Leaving) => false,
        _ if path.is_stale() => false,
        Some(Member::FormerReflector) => is_own_word(path, shared),
        _ => true,
    };
    let lost = table.prefixes().find(|id| {
        let mut paths = table.paths(*id).filter(is_word).peekable();
        paths.peek().is_some() && !paths.any(stays)
    })?;
    Some(format!("{} is known only by sessions that are to go", table.key(lost).net()))
}

/// Whether its peer told a prefix of its own, and not what it reflects (RFC 4456 section 8).
fn is_own_word(path: &Path, shared: &Shared) -> bool {
    shared.attributes.value(path.attributes).is_some_and(|set| set.read().originator_id.is_none())
}
