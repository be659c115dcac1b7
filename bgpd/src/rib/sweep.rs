//! What concerns all paths of a peer, or all by a next hop: walks over the whole table, in the order of its arenas.

use super::attributes::{AttrId, AttributeSet, Attributes, HopId};
use super::decision::PeerRank;
use super::key::Key;
use super::table::{Change, Path, PathId, PeerId, PrefixId, Table};

impl<K: Key> Table<K> {
    /// The paths of `peer` that `refuse` names go, all others stay.
    pub fn remove_where<A: AttributeSet>(
        &mut self,
        peer: PeerId,
        refuse: impl Fn(K, &Path) -> bool,
        sets: &mut Attributes<A>,
        peers: &[PeerRank],
        mut changed: impl FnMut(Change),
    ) {
        for prefix in 0..self.bound() {
            if self.received(peer) == 0 {
                return;
            }
            let key = self.key(prefix);
            self.remove_paths(prefix, |path| path.peer == peer && refuse(key, path), sets, peers)
                .into_iter()
                .for_each(&mut changed);
        }
    }

    /// All paths of `peer` become stale: used only where there is no fresh one.
    pub fn mark_stale<A: AttributeSet>(
        &mut self,
        peer: PeerId,
        sets: &Attributes<A>,
        peers: &[PeerRank],
        mut changed: impl FnMut(Change),
    ) {
        if self.received(peer) == 0 {
            return;
        }
        for prefix in 0..self.bound() {
            let before = self.selection(prefix);
            let mut any = false;
            for id in self.numbers(prefix, |path| path.peer == peer && !path.is_stale()) {
                self.paths[id].mark_stale();
                self.counts.add(peer, 0, 1);
                any = true;
            }
            if any {
                changed(self.decide(prefix, before, sets, peers));
            }
        }
    }

    /// `peer` begins to tell everything again: whether a path of its is there still is to be seen.
    pub fn doubt(&mut self, peer: PeerId) {
        if self.received(peer) == 0 {
            return;
        }
        // Straight through the arena, since a peer can ask for it as often as it likes. A number that is free has a new path when it is used.
        for id in 0..self.paths.bound() {
            let path = &mut self.paths[id];
            if path.peer == peer {
                path.mark_doubted();
            }
        }
    }

    /// The stale paths of `peer` have other attributes, and stay stale: what `becomes` makes of theirs, with a reference that is taken over;
    /// none: they go.
    pub fn replace_stale<A: AttributeSet>(
        &mut self,
        peer: PeerId,
        mut becomes: impl FnMut(AttrId, &mut Attributes<A>) -> Option<AttrId>,
        sets: &mut Attributes<A>,
        peers: &[PeerRank],
        mut changed: impl FnMut(Change),
    ) {
        for prefix in 0..self.bound() {
            let stale = self.numbers(prefix, |path| path.peer == peer && path.is_stale());
            if stale.is_empty() {
                continue;
            }
            let before = self.selection(prefix);
            let mut old = Vec::with_capacity(stale.len());
            for id in stale {
                let attributes = self.paths[id].attributes;
                old.push(attributes);
                match becomes(attributes, sets) {
                    Some(new) => self.paths[id].attributes = new,
                    None => drop(self.unlink(prefix, id)),
                }
            }
            changed(self.decide(prefix, before, sets, peers));
            old.into_iter().for_each(|attributes| sets.release(attributes));
        }
    }

    /// The next hop `hop` has become reachable, unreachable, nearer or farther.
    pub fn hop_changed<A: AttributeSet>(
        &mut self,
        hop: HopId,
        sets: &Attributes<A>,
        peers: &[PeerRank],
        mut changed: impl FnMut(Change),
    ) {
        for prefix in 0..self.bound() {
            if self.paths(prefix).any(|path| sets.hop(path.attributes) == hop) {
                let before = self.selection(prefix);
                changed(self.decide(prefix, before, sets, peers));
            }
        }
    }

    /// The paths of a prefix that `which` names go; none: there is no such.
    fn remove_paths<A: AttributeSet>(
        &mut self,
        prefix: PrefixId,
        which: impl Fn(&Path) -> bool,
        sets: &mut Attributes<A>,
        peers: &[PeerRank],
    ) -> Option<Change> {
        let mut next = self.numbered_paths(prefix).find(|(_, path)| which(path)).map(|(id, _)| id);
        next?;
        let before = self.selection(prefix);
        while let Some(id) = next {
            let path = self.unlink(prefix, id);
            sets.release(path.attributes);
            next = self.numbered_paths(prefix).find(|(_, path)| which(path)).map(|(id, _)| id);
        }
        Some(self.decide(prefix, before, sets, peers))
    }

    fn numbers(&self, prefix: PrefixId, which: impl Fn(&Path) -> bool) -> Vec<PathId> {
        self.numbered_paths(prefix).filter(|(_, path)| which(path)).map(|(id, _)| id).collect()
    }
}
