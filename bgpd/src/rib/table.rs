//! One family's prefixes and paths.

use super::arena::Arena;
use super::attributes::{AttrId, AttributeSet, Attributes, HopId};
use super::decision::{Candidate, PeerRank, choose};
use super::dirty::DirtyList;
use super::key::Key;
use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;
use std::hash::BuildHasher;

const NONE: u32 = u32::MAX;
const BEST: u8 = 1;
const SHARES: u8 = 2;
const STALE: u8 = 4;

/// Number of a prefix; it stays the prefix's until [`Table::sweep_empty`] gives it up.
pub type PrefixId = u32;

/// Number of a peer, given out by the speaker; an index into the slice of [`PeerRank`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u16);

impl PeerId {
    /// Prefixes of our own.
    pub const OWN: PeerId = PeerId(0);
}

/// One peer's path to a prefix.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// Its attributes; the path holds one reference.
    pub attributes: AttrId,
    next: u32,
    /// Who sent it.
    pub peer: PeerId,
    flags: u8,
}

impl Path {
    /// Whether decision chose it over all others.
    #[must_use]
    pub fn is_best(&self) -> bool {
        self.flags & BEST != 0
    }

    /// Whether it is the best or shares its load.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.flags & SHARES != 0
    }

    /// Whether its peer restarts and has not sent it again yet (RFC 4724).
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.flags & STALE != 0
    }
}

/// What an event changed about one prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The prefix.
    pub prefix: PrefixId,
    /// The best path is another one or has other attributes, or there is none any more: peers want to know.
    pub best: bool,
    /// So has the set of paths that share load: the FIB wants to know. Holds whenever `best` does.
    pub used: bool,
}

#[derive(Clone, Copy, Debug)]
struct Prefix<K> {
    key: K,
    head: u32,
}

/// Which paths are used, in a form that can be compared.
#[derive(PartialEq, Eq)]
struct Selection {
    best: Option<(PeerId, AttrId)>,
    used: u64,
}

/// Paths by prefix, for one family.
#[derive(Debug)]
pub struct Table<K> {
    index: HashTable<u32>,
    prefixes: Arena<Prefix<K>>,
    paths: Arena<Path>,
    per_peer: Vec<u32>,
    empty: DirtyList,
}

impl<K: Key> Default for Table<K> {
    fn default() -> Self {
        Self {
            index: HashTable::new(),
            prefixes: Arena::default(),
            paths: Arena::default(),
            per_peer: Vec::new(),
            empty: DirtyList::default(),
        }
    }
}

impl<K: Key> Table<K> {
    /// `peer` announces `key`. Takes over the caller's reference to `attributes`.
    pub fn announce<A: AttributeSet>(
        &mut self,
        key: K,
        peer: PeerId,
        attributes: AttrId,
        sets: &mut Attributes<A>,
        peers: &[PeerRank],
    ) -> Option<Change> {
        let prefix = self.prefix_or_new(key);
        let before = self.selection(prefix);
        match self.find(prefix, peer) {
            Some(id) => {
                let path = &mut self.paths[id];
                let was_stale = path.flags & STALE != 0;
                let old = std::mem::replace(&mut path.attributes, attributes);
                path.flags &= !STALE;
                sets.release(old);
                if old == attributes && !was_stale {
                    return None;
                }
            }
            None => {
                let next = self.prefixes[prefix].head;
                self.prefixes[prefix].head = self.paths.insert(Path { attributes, next, peer, flags: 0 });
                self.count(peer, 1);
            }
        }
        self.decide(prefix, before, sets, peers)
    }

    /// `peer` withdraws `key`.
    pub fn withdraw<A: AttributeSet>(
        &mut self,
        key: K,
        peer: PeerId,
        sets: &mut Attributes<A>,
        peers: &[PeerRank],
    ) -> Option<Change> {
        let prefix = self.prefix(key)?;
        self.remove_path(prefix, |path| path.peer == peer, sets, peers)
    }

    /// All paths of `peer` go.
    pub fn peer_down<A: AttributeSet>(
        &mut self,
        peer: PeerId,
        sets: &mut Attributes<A>,
        peers: &[PeerRank],
        mut changed: impl FnMut(Change),
    ) {
        self.remove_where(peer, |_, _| true, sets, peers, &mut changed);
    }

    /// The paths of `peer` that were marked stale and not sent again go (RFC 4724 section 4.2).
    pub fn sweep_stale<A: AttributeSet>(
        &mut self,
        peer: PeerId,
        sets: &mut Attributes<A>,
        peers: &[PeerRank],
        mut changed: impl FnMut(Change),
    ) {
        self.remove_where(peer, |_, path| path.is_stale(), sets, peers, &mut changed);
    }

    /// All paths of `peer` become stale: used only where there is no fresh one.
    pub fn mark_stale<A: AttributeSet>(
        &mut self,
        peer: PeerId,
        sets: &Attributes<A>,
        peers: &[PeerRank],
        mut changed: impl FnMut(Change),
    ) {
        for prefix in 0..self.prefixes.bound() {
            let before = self.selection(prefix);
            if let Some(id) = self.find(prefix, peer) {
                self.paths[id].flags |= STALE;
                self.decide(prefix, before, sets, peers).into_iter().for_each(&mut changed);
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
        for prefix in 0..self.prefixes.bound() {
            let Some(id) = self.find(prefix, peer).filter(|id| self.paths[*id].is_stale()) else { continue };
            let before = self.selection(prefix);
            let old = self.paths[id].attributes;
            let change = match becomes(old, sets) {
                Some(new) => {
                    self.paths[id].attributes = new;
                    let change = self.decide(prefix, before, sets, peers);
                    sets.release(old);
                    change
                }
                None => self.remove_path(prefix, |path| path.peer == peer, sets, peers),
            };
            change.into_iter().for_each(&mut changed);
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
        for prefix in 0..self.prefixes.bound() {
            if self.paths(prefix).any(|path| sets.hop(path.attributes) == hop) {
                let before = self.selection(prefix);
                self.decide(prefix, before, sets, peers).into_iter().for_each(&mut changed);
            }
        }
    }

    /// The paths of `peer` that `refuse` names go, all others stay.
    pub fn remove_where<A: AttributeSet>(
        &mut self,
        peer: PeerId,
        refuse: impl Fn(K, &Path) -> bool,
        sets: &mut Attributes<A>,
        peers: &[PeerRank],
        changed: &mut impl FnMut(Change),
    ) {
        for prefix in 0..self.prefixes.bound() {
            if self.received(peer) == 0 {
                return;
            }
            let key = self.key(prefix);
            self.remove_path(prefix, |path| path.peer == peer && refuse(key, path), sets, peers)
                .into_iter()
                .for_each(&mut *changed);
        }
    }

    /// Number of `key`, if it is known.
    #[must_use]
    pub fn prefix(&self, key: K) -> Option<PrefixId> {
        self.index.find(hash(key), |id| self.prefixes[*id].key == key).copied()
    }

    /// The prefix with number `id`.
    #[must_use]
    pub fn key(&self, id: PrefixId) -> K {
        self.prefixes[id].key
    }

    /// The best path.
    #[must_use]
    pub fn best(&self, id: PrefixId) -> Option<&Path> {
        let head = self.prefixes[id].head;
        (head != NONE).then(|| &self.paths[head]).filter(|path| path.is_best())
    }

    /// All paths, the best first.
    pub fn paths(&self, id: PrefixId) -> impl Iterator<Item = &Path> {
        let mut next = self.prefixes[id].head;
        std::iter::from_fn(move || {
            let path = (next != NONE).then(|| &self.paths[next])?;
            next = path.next;
            Some(path)
        })
    }

    /// Numbers of all prefixes that have a path.
    pub fn prefixes(&self) -> impl Iterator<Item = PrefixId> {
        (0..self.prefixes.bound()).filter(|id| self.prefixes[*id].head != NONE)
    }

    /// Attribute sets of the paths of `peer`, each as often as it is used.
    pub fn sets_of(&self, peer: PeerId, each: &mut impl FnMut(AttrId)) {
        if self.received(peer) > 0 {
            let paths = self.prefixes().flat_map(|prefix| self.paths(prefix));
            paths.filter(|path| path.peer == peer).for_each(|path| each(path.attributes));
        }
    }

    /// How many paths `peer` has.
    #[must_use]
    pub fn received(&self, peer: PeerId) -> u32 {
        self.per_peer.get(usize::from(peer.0)).copied().unwrap_or(0)
    }

    /// Gives up the numbers of prefixes that have no path and about which `settled` says that nobody needs to hear
    /// any more; their numbers may come back as other prefixes.
    pub fn sweep_empty(&mut self, settled: impl Fn(PrefixId) -> bool) {
        let mut empty = Vec::new();
        self.empty.take(usize::MAX, &mut empty);
        for id in empty {
            if self.prefixes[id].head != NONE {
                continue;
            }
            if !settled(id) {
                self.empty.push(id);
                continue;
            }
            let key = self.prefixes[id].key;
            if let Ok(entry) = self.index.find_entry(hash(key), |other| *other == id) {
                entry.remove();
            }
            self.prefixes.remove(id);
        }
        if self.index.is_empty() {
            self.index = HashTable::new();
        }
    }

    /// Whether [`Table::sweep_empty`] has something to look at.
    #[must_use]
    pub fn has_empty(&self) -> bool {
        !self.empty.is_empty()
    }

    fn prefix_or_new(&mut self, key: K) -> PrefixId {
        let hashed = hash(key);
        if let Some(id) = self.index.find(hashed, |id| self.prefixes[*id].key == key) {
            return *id;
        }
        let id = self.prefixes.insert(Prefix { key, head: NONE });
        self.index.insert_unique(hashed, id, |id| hash(self.prefixes[*id].key));
        id
    }

    fn find(&self, prefix: PrefixId, peer: PeerId) -> Option<u32> {
        let mut next = self.prefixes[prefix].head;
        while next != NONE {
            if self.paths[next].peer == peer {
                return Some(next);
            }
            next = self.paths[next].next;
        }
        None
    }

    fn count(&mut self, peer: PeerId, by: i32) {
        let index = usize::from(peer.0);
        if index >= self.per_peer.len() {
            self.per_peer.resize(index + 1, 0);
        }
        self.per_peer[index] = self.per_peer[index].wrapping_add_signed(by);
    }

    /// Unlinks the first path that `which` names.
    fn remove_path<A: AttributeSet>(
        &mut self,
        prefix: PrefixId,
        which: impl Fn(&Path) -> bool,
        sets: &mut Attributes<A>,
        peers: &[PeerRank],
    ) -> Option<Change> {
        let (mut previous, mut id) = (NONE, self.prefixes[prefix].head);
        while id != NONE && !which(&self.paths[id]) {
            (previous, id) = (id, self.paths[id].next);
        }
        if id == NONE {
            return None;
        }
        let before = self.selection(prefix);
        let path = self.paths[id];
        match previous {
            NONE => self.prefixes[prefix].head = path.next,
            _ => self.paths[previous].next = path.next,
        }
        self.paths.remove(id);
        self.count(path.peer, -1);
        if self.prefixes[prefix].head == NONE {
            self.empty.push(prefix);
        }
        let change = self.decide(prefix, before, sets, peers);
        sets.release(path.attributes);
        change
    }

    fn selection(&self, prefix: PrefixId) -> Selection {
        let mut used = 0u64;
        for path in self.paths(prefix).filter(|path| path.is_used()) {
            used = used.wrapping_add(FxBuildHasher.hash_one((path.peer, path.attributes)) | 1);
        }
        Selection { best: self.best(prefix).map(|path| (path.peer, path.attributes)), used }
    }

    fn decide<A: AttributeSet>(
        &mut self,
        prefix: PrefixId,
        before: Selection,
        sets: &Attributes<A>,
        peers: &[PeerRank],
    ) -> Option<Change> {
        let head = self.prefixes[prefix].head;
        if head != NONE && self.paths[head].next == NONE {
            let used = if sets.cost(self.paths[head].attributes).is_some() { BEST | SHARES } else { 0 };
            let path = &mut self.paths[head];
            path.flags = path.flags & STALE | used;
        } else if head != NONE {
            self.decide_among(prefix, sets, peers);
        }
        let after = self.selection(prefix);
        let best = before.best != after.best;
        (before != after).then_some(Change { prefix, best, used: best || before.used != after.used })
    }

    fn decide_among<A: AttributeSet>(&mut self, prefix: PrefixId, sets: &Attributes<A>, peers: &[PeerRank]) {
        let mut candidates = Vec::with_capacity(8);
        let mut next = self.prefixes[prefix].head;
        while next != NONE {
            let path = &mut self.paths[next];
            path.flags &= STALE;
            if let Some(cost) = sets.cost(path.attributes) {
                let (rank, peer) = (sets.rank(path.attributes), &peers[usize::from(path.peer.0)]);
                candidates.push(Candidate { rank, peer, stale: path.is_stale(), cost, path: next });
            }
            next = path.next;
        }
        choose(&mut candidates);
        for candidate in &candidates {
            self.paths[candidate.path].flags |= SHARES;
        }
        if let Some(best) = candidates.first() {
            self.paths[best.path].flags |= BEST;
            self.move_to_front(prefix, best.path);
        }
    }

    fn move_to_front(&mut self, prefix: PrefixId, path: u32) {
        let head = self.prefixes[prefix].head;
        if head == path {
            return;
        }
        let mut previous = head;
        while self.paths[previous].next != path {
            previous = self.paths[previous].next;
        }
        self.paths[previous].next = self.paths[path].next;
        self.paths[path].next = head;
        self.prefixes[prefix].head = path;
    }
}

fn hash<K: Key>(key: K) -> u64 {
    FxBuildHasher.hash_one(key)
}
