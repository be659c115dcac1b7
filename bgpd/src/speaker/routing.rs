//! One family: its table, its update groups, and what the FIB has yet to hear.

use super::event::{Output, SessionId};
use super::export::{ExportPolicy, Exporter, Provenance};
use super::group::{Advertised, Group, Surroundings, identifier};
use super::path_attributes::PathAttributes;
use super::restart::Held;
use super::watch::Views;
use crate::fib;
use crate::rib::{
    AttrId, Attributes, Change, DirtyList, HopId, Key, Path, PathId, PeerId, PeerRank, PrefixId, Table, Teller,
};
use crate::scoped::ScopedAddr;
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;

/// Prefixes without paths that may keep their numbers. Tests want to see numbers come back as others' as often as can be.
const GIVE_UP: usize = if cfg!(test) { 1 } else { 1024 };

/// What both families share: attribute sets and, by peer number, what decision and export know of peers.
pub(super) struct Shared {
    pub(super) attributes: Attributes<PathAttributes>,
    pub(super) ranks: Vec<PeerRank>,
    pub(super) provenance: Vec<Provenance>,
    /// Octets on the way to each peer's socket.
    pub(super) outstanding: Vec<usize>,
}

/// A path as a peer has been told it.
pub(super) struct ToldPath {
    pub(super) prefix: IpNet,
    /// By which identifier, if by any.
    pub(super) identifier: Option<u32>,
    /// The attributes that it sees.
    pub(super) set: PathAttributes,
}

/// One family.
pub(super) struct Routing<K> {
    pub(super) table: Table<K>,
    groups: Vec<Group<K>>,
    fib: Option<DirtyList>,
    /// What monitoring stations know.
    pub(super) views: Views,
    /// So many prefixes without paths are looked at again: each is, in the mean, once.
    give_up_at: usize,
}

impl<K: Key> Routing<K> {
    pub(super) fn new(install: bool) -> Self {
        Self {
            table: Table::default(),
            groups: Vec::new(),
            fib: install.then(DirtyList::default),
            views: Views::default(),
            give_up_at: 0,
        }
    }

    pub(super) fn announce(&mut self, key: K, from: impl Into<Teller>, attributes: AttrId, shared: &mut Shared) {
        let change = self.table.announce(key, from, attributes, &mut shared.attributes, &shared.ranks);
        change.into_iter().for_each(|change| note(&mut self.groups, &mut self.fib, &mut self.views, change));
    }

    /// Whether there was such a path.
    pub(super) fn withdraw(&mut self, key: K, from: impl Into<Teller>, shared: &mut Shared) -> bool {
        let change = self.table.withdraw(key, from, &mut shared.attributes, &shared.ranks);
        change.into_iter().for_each(|change| note(&mut self.groups, &mut self.fib, &mut self.views, change));
        change.is_some()
    }

    /// The paths of `peer` that `refuse` names go; whether there were any.
    pub(super) fn remove(&mut self, peer: PeerId, shared: &mut Shared, refuse: impl Fn(K, &Path) -> bool) -> bool {
        let Self { table, groups, fib, views, .. } = self;
        let (sets, ranks) = (&mut shared.attributes, &shared.ranks);
        let before = table.received(peer);
        table.remove_where(peer, refuse, sets, ranks, |change| note(groups, fib, views, change));
        table.received(peer) < before
    }

    /// The stale paths of `peer` go; whether there were any. Without any it costs nothing: a peer can say End-of-RIB as often as it likes.
    pub(super) fn sweep(&mut self, peer: PeerId, shared: &mut Shared) -> bool {
        let has_stale = self.table.fresh(peer) < self.table.received(peer);
        has_stale && self.remove(peer, shared, |_, path| path.is_stale())
    }

    pub(super) fn mark_stale(&mut self, peer: PeerId, shared: &Shared) {
        let Self { table, groups, fib, views, .. } = self;
        table.mark_stale(peer, &shared.attributes, &shared.ranks, |change| note(groups, fib, views, change));
    }

    /// The stale paths of `peer` are kept in its long absence (RFC 9494 section 4.2), or go.
    pub(super) fn keep_for_long(&mut self, peer: PeerId, shared: &mut Shared) {
        let Self { table, groups, fib, views, .. } = self;
        let becomes = |id: AttrId, sets: &mut Attributes<PathAttributes>| {
            let set = sets.value(id)?.long_stale()?;
            Some(sets.intern(&Arc::new(set)))
        };
        let (sets, ranks) = (&mut shared.attributes, &shared.ranks);
        table.replace_stale(peer, becomes, sets, ranks, |change| note(groups, fib, views, change));
    }

    pub(super) fn hop_changed(&mut self, hop: HopId, shared: &Shared) {
        let Self { table, groups, fib, views, .. } = self;
        table.hop_changed(hop, &shared.attributes, &shared.ranks, |change| note(groups, fib, views, change));
    }

    /// A peer is to be told everything, as `policy` has it; after that End-of-RIB, unless it has been told already what
    /// `advertised` says.
    pub(super) fn join(
        &mut self,
        peer: PeerId,
        address: IpAddr,
        session: SessionId,
        policy: ExportPolicy,
        advertised: Option<Advertised>,
    ) {
        let all = self.everything(advertised.as_ref());
        let known = self.groups.iter().position(|group| *group.exporter().policy() == policy);
        let at = known.unwrap_or_else(|| {
            self.groups.push(Group::new(Exporter::new(policy)));
            self.groups.len() - 1
        });
        self.groups[at].join(peer, address, session, all, advertised);
    }

    /// A peer is told nothing any more; returns what it has been told.
    pub(super) fn leave(&mut self, peer: PeerId) -> Option<Advertised> {
        let advertised = self.groups.iter_mut().find_map(|group| group.leave(peer));
        self.groups.retain(|group| !group.is_empty());
        advertised
    }

    #[cfg(test)]
    pub(super) fn translations(&self) -> usize {
        self.groups.iter().map(|group| group.exporter().translations()).sum()
    }

    pub(super) fn policy_of(&self, peer: PeerId) -> Option<&ExportPolicy> {
        Some(self.group_of(peer)?.exporter().policy())
    }

    pub(super) fn group_of(&self, peer: PeerId) -> Option<&Group<K>> {
        self.groups.iter().find(|group| group.advertised(peer).is_some())
    }

    /// Groups in which somebody is not told of a prefix since its attributes are too long.
    pub(super) fn groups_with_too_long(&self) -> impl Iterator<Item = &Group<K>> {
        self.groups.iter().filter(|group| group.has_too_long())
    }

    pub(super) fn advertised(&self, peer: PeerId) -> u32 {
        self.groups.iter().find_map(|group| group.advertised(peer)).unwrap_or(0)
    }

    /// What `peer` has been told and not been told otherwise since, with the attributes that it sees.
    pub(super) fn told(&self, peer: PeerId, shared: &Shared) -> Vec<ToldPath> {
        let Some(group) = self.group_of(peer) else { return Vec::new() };
        let policy = group.exporter().policy();
        let shown = |(id, number): (PrefixId, PathId)| {
            let (path, prefix) = (self.table.path(number), self.table.key(id).net());
            let set = shared.attributes.value(path.attributes)?;
            let set = policy.verdict(prefix, shared.provenance[usize::from(path.peer.0)], set).ok()?;
            Some(ToldPath { prefix, identifier: group.tells_paths().then(|| identifier(number)), set })
        };
        group.told(peer, &self.table).into_iter().filter_map(shown).collect()
    }

    /// A peer asks to hear everything again.
    pub(super) fn again(&mut self, peer: PeerId, demarcated: bool, shared: &mut Shared, out: &mut Vec<Output>) {
        let all = self.everything(None);
        let Shared { attributes, ranks, provenance, outstanding } = shared;
        // Nothing that is sent here is an End-of-RIB.
        let held = Held::All;
        let mut around = Surroundings { table: &self.table, attributes, provenance, ranks, outstanding, held, out };
        if let Some(group) = self.groups.iter_mut().find(|group| group.advertised(peer).is_some()) {
            group.again(peer, all, demarcated, &mut around);
        }
    }

    /// All peers are to hear again of what they have been told of `peer`'s paths: what it is to us has changed.
    pub(super) fn retell(&mut self, peer: PeerId) {
        let Self { table, groups, fib, views, .. } = self;
        for prefix in table.prefixes() {
            if table.paths(prefix).any(|path| path.peer == peer) {
                let best = table.best(prefix).is_some_and(|path| path.peer == peer);
                note(groups, fib, views, Change { prefix, best, used: false });
            }
        }
    }

    /// Builds what can be sent now.
    pub(super) fn flush(&mut self, held: Held, shared: &mut Shared, out: &mut Vec<Output>) {
        let Shared { attributes, ranks, provenance, outstanding } = shared;
        let mut around = Surroundings { table: &self.table, attributes, provenance, ranks, outstanding, held, out };
        self.groups.iter_mut().for_each(|group| group.flush(&mut around));
        self.give_up_numbers();
    }

    /// Prefixes that are gone lose their numbers, once nobody refers to them any more. Where somebody is slow, and there are many such, those
    /// of which he has not heard: what he cannot take must not make anything grow.
    fn give_up_numbers(&mut self) {
        let Self { table, groups, fib, views, give_up_at } = self;
        // Those that came back, or went with the others, are no reason to wait for more.
        *give_up_at = (*give_up_at).min(2 * table.empty());
        if table.empty() == 0 {
            return;
        }
        if fib.as_ref().is_none_or(DirtyList::is_empty) && views.is_settled() && groups.iter().all(Group::is_settled) {
            table.sweep_empty(|_| true);
        } else if table.empty() >= (*give_up_at).max(GIVE_UP) {
            table.sweep_empty(|id| {
                let awaited = fib.as_ref().is_some_and(|fib| fib.has(id));
                let nobody = !awaited && !views.know(id) && !groups.iter().any(|group| group.knows(id));
                if nobody {
                    views.leave_out(id);
                    groups.iter_mut().for_each(|group| group.leave_out(id));
                }
                nobody
            });
            *give_up_at = 2 * table.empty();
        }
    }

    /// What the FIB has to change, at most `limit` prefixes.
    pub(super) fn fib_changes(&mut self, limit: usize, shared: &Shared, into: &mut Vec<fib::Change>) {
        let Some(dirty) = &mut self.fib else { return };
        let mut ids = Vec::new();
        dirty.take(limit, &mut ids);
        for id in ids {
            let mut next_hops: Vec<ScopedAddr> = Vec::new();
            for path in self.table.paths(id).filter(|path| path.is_used()) {
                next_hops.extend(shared.attributes.next_hop(path.attributes));
            }
            next_hops.sort_unstable();
            next_hops.dedup();
            into.push(fib::Change { prefix: self.table.key(id).net(), next_hops });
        }
    }

    /// Own prefixes first, so that they are the first to leave; then all others, and what is known to be told.
    fn everything(&self, advertised: Option<&Advertised>) -> DirtyList {
        let mut all = DirtyList::default();
        let own = |id: &u32| self.table.best(*id).is_some_and(|path| path.peer == PeerId::OWN);
        if self.table.received(PeerId::OWN) > 0 {
            self.table.prefixes().filter(own).for_each(|id| all.push(id));
        }
        self.table.prefixes().for_each(|id| all.push(id));
        if let Some(advertised) = advertised {
            advertised.prefixes().for_each(|id| all.push(id));
        }
        all
    }
}

/// Whoever wants to know of a change is to hear of it.
fn note<K: Key>(groups: &mut [Group<K>], fib: &mut Option<DirtyList>, views: &mut Views, change: Change) {
    views.changed(change.prefix);
    for group in groups {
        if change.best || group.tells_paths() {
            group.changed(change.prefix);
        }
    }
    if let (true, Some(fib)) = (change.used, fib) {
        fib.push(change.prefix);
    }
}
