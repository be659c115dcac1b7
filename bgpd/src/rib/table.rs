//! One family's prefixes and paths.

use super::arena::Arena;
use super::attributes::{AttrId, AttributeSet, Attributes};
use super::counts::Counts;
use super::decision::{Candidate, PeerRank, Ranked, choose};
use super::dirty::DirtyList;
use super::key::Key;
use hashbrown::{HashMap, HashTable};
use rustc_hash::FxBuildHasher;
use std::hash::BuildHasher;

pub use twill_crds::add_path::MAX_PATHS;

const NONE: u32 = u32::MAX;
const BEST: u8 = 1;
const SHARES: u8 = 2;
const STALE: u8 = 4;
/// The identifier of the path is not 0, and stands in [`Table::identifiers`].
const IDENTIFIED: u8 = 8;
/// Its peer tells everything again, and has not told this yet.
const DOUBTED: u8 = 16;
/// What decision leaves as it is.
const KEPT: u8 = STALE | IDENTIFIED | DOUBTED;

/// Number of a prefix; it stays the prefix's until [`Table::sweep_empty`] gives it up.
pub type PrefixId = u32;

/// Number of a peer, given out by the speaker; an index into the slice of [`PeerRank`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u16);

impl PeerId {
    /// Prefixes of our own.
    pub const OWN: PeerId = PeerId(0);
}

/// Number of a path: no two paths of a table have the same at one time, and a path keeps its own for as long as its sender tells it, with
/// whatever attributes. One that is gone may come back as another path's.
pub type PathId = u32;

/// Who tells a path, and under which of his identifiers (RFC 7911): 0 where the session carries none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Teller {
    /// The peer.
    pub peer: PeerId,
    /// The identifier.
    pub identifier: u32,
}

impl From<PeerId> for Teller {
    fn from(peer: PeerId) -> Self {
        Self { peer, identifier: 0 }
    }
}

/// A path to a prefix.
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

    /// Marks it as one whose peer restarts.
    pub(super) fn mark_stale(&mut self) {
        self.flags |= STALE;
    }

    /// Marks it as one that its peer may have forgotten to withdraw.
    pub(super) fn mark_doubted(&mut self) {
        self.flags |= DOUBTED;
    }

    /// Whether its peer has begun to tell everything again and has not told this yet (RFC 7313). It counts like any other until that ends.
    #[must_use]
    pub fn is_doubted(&self) -> bool {
        self.flags & DOUBTED != 0
    }

    /// Whether its peer restarts and has not sent it again yet (RFC 4724).
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.flags & STALE != 0
    }
}

/// What an event changed about one prefix: its paths, and perhaps more.
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
pub(super) struct Selection {
    best: Option<(PeerId, AttrId)>,
    used: u64,
}

/// Paths by prefix, for one family.
#[derive(Debug)]
pub struct Table<K> {
    index: HashTable<u32>,
    prefixes: Arena<Prefix<K>>,
    pub(super) paths: Arena<Path>,
    /// Identifiers other than 0, by number of the path: who does not use them does not pay for them.
    identifiers: HashMap<PathId, u32, FxBuildHasher>,
    pub(super) counts: Counts,
    empty: DirtyList,
}

impl<K: Key> Default for Table<K> {
    fn default() -> Self {
        Self {
            index: HashTable::new(),
            prefixes: Arena::default(),
            paths: Arena::default(),
            identifiers: HashMap::default(),
            counts: Counts::default(),
            empty: DirtyList::default(),
        }
    }
}

impl<K: Key> Table<K> {
    /// `from` announces `key`. Takes over the caller's reference to `attributes`.
    pub fn announce<A: AttributeSet>(
        &mut self,
        key: K,
        from: impl Into<Teller>,
        attributes: AttrId,
        sets: &mut Attributes<A>,
        peers: &[PeerRank],
    ) -> Option<Change> {
        let from = from.into();
        let prefix = self.prefix_or_new(key);
        let before = self.selection(prefix);
        match self.find(prefix, from) {
            Some(id) => {
                let path = &mut self.paths[id];
                let was_stale = path.flags & STALE != 0;
                let old = std::mem::replace(&mut path.attributes, attributes);
                path.flags &= !(STALE | DOUBTED);
                self.counts.add(from.peer, 0, -i32::from(was_stale));
                sets.release(old);
                if old == attributes && !was_stale {
                    return None;
                }
            }
            None => self.link(prefix, from, attributes),
        }
        Some(self.decide(prefix, before, sets, peers))
    }

    /// `from` withdraws `key`.
    pub fn withdraw<A: AttributeSet>(
        &mut self,
        key: K,
        from: impl Into<Teller>,
        sets: &mut Attributes<A>,
        peers: &[PeerRank],
    ) -> Option<Change> {
        let prefix = self.prefix(key)?;
        let id = self.find(prefix, from.into())?;
        let before = self.selection(prefix);
        let path = self.unlink(prefix, id);
        let change = self.decide(prefix, before, sets, peers);
        sets.release(path.attributes);
        Some(change)
    }

    /// Whether `from` may announce `key`: it has done so already, or has not reached [`MAX_PATHS`] with its other identifiers. Stale paths,
    /// which are about to be told again or to go, take no room.
    #[must_use]
    pub fn has_room(&self, key: K, from: Teller) -> bool {
        let Some(prefix) = self.prefix(key) else { return true };
        let of_peer = self.paths(prefix).filter(|path| path.peer == from.peer && !path.is_stale()).count();
        of_peer < usize::from(MAX_PATHS) || self.has_fresh(key, from)
    }

    /// Whether there is a path of `from` to `key` that is not stale.
    #[must_use]
    pub fn has_fresh(&self, key: K, from: Teller) -> bool {
        let found = self.prefix(key).and_then(|prefix| self.find(prefix, from));
        found.is_some_and(|id| !self.paths[id].is_stale())
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
        self.numbered_paths(id).map(|(_, path)| path)
    }

    /// All paths with their numbers, the best first.
    pub fn numbered_paths(&self, id: PrefixId) -> impl Iterator<Item = (PathId, &Path)> {
        let mut next = self.prefixes[id].head;
        std::iter::from_fn(move || {
            let (number, path) = (next != NONE).then(|| (next, &self.paths[next]))?;
            next = path.next;
            Some((number, path))
        })
    }

    /// The path with this number.
    #[must_use]
    pub fn path(&self, id: PathId) -> &Path {
        &self.paths[id]
    }

    /// The identifier by which its sender tells a path.
    #[must_use]
    pub fn identifier(&self, id: PathId) -> u32 {
        match self.paths[id].flags & IDENTIFIED {
            0 => 0,
            _ => self.identifiers.get(&id).copied().unwrap_or(0),
        }
    }

    /// Numbers of the paths that can be used, in order of preference: the best and those that share its load, then what would be chosen
    /// without them, and so on.
    pub fn ranked<'a, A: AttributeSet>(
        &self,
        prefix: PrefixId,
        sets: &'a Attributes<A>,
        peers: &'a [PeerRank],
    ) -> impl Iterator<Item = PathId> + use<'a, K, A> {
        Ranked::new(self.candidates(prefix, sets, peers))
    }

    /// All numbers of prefixes are below this.
    pub(super) fn bound(&self) -> PrefixId {
        self.prefixes.bound()
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
        self.counts.all(peer)
    }

    /// How many paths `peer` has that are not stale.
    #[must_use]
    pub fn fresh(&self, peer: PeerId) -> u32 {
        self.counts.fresh(peer)
    }

    /// Gives up the numbers of prefixes that have no path and about which `settled` says that nobody needs to hear
    /// any more; their numbers may come back as other prefixes.
    pub fn sweep_empty(&mut self, mut settled: impl FnMut(PrefixId) -> bool) {
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

    /// How many prefixes [`Table::sweep_empty`] has to look at.
    #[must_use]
    pub fn empty(&self) -> usize {
        self.empty.len()
    }

    /// How many prefixes have numbers.
    #[must_use]
    pub fn numbers_in_use(&self) -> u32 {
        self.prefixes.live()
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

    fn find(&self, prefix: PrefixId, from: Teller) -> Option<PathId> {
        let mut all = self.numbered_paths(prefix);
        let is_it = |(id, path): &(PathId, &Path)| path.peer == from.peer && self.identifier(*id) == from.identifier;
        all.find(is_it).map(|(id, _)| id)
    }

    fn link(&mut self, prefix: PrefixId, from: Teller, attributes: AttrId) {
        let Teller { peer, identifier } = from;
        let flags = if identifier == 0 { 0 } else { IDENTIFIED };
        let next = self.prefixes[prefix].head;
        let id = self.paths.insert(Path { attributes, next, peer, flags });
        self.prefixes[prefix].head = id;
        if identifier != 0 {
            self.identifiers.insert(id, identifier);
        }
        self.counts.add(peer, 1, 0);
    }

    /// Takes a path out; its reference to its attributes is the caller's.
    pub(super) fn unlink(&mut self, prefix: PrefixId, id: PathId) -> Path {
        let path = self.paths[id];
        let head = self.prefixes[prefix].head;
        if head == id {
            self.prefixes[prefix].head = path.next;
        } else {
            let mut previous = head;
            while self.paths[previous].next != id {
                previous = self.paths[previous].next;
            }
            self.paths[previous].next = path.next;
        }
        self.paths.remove(id);
        if path.flags & IDENTIFIED != 0 {
            self.identifiers.remove(&id);
        }
        if self.identifiers.is_empty() && self.identifiers.capacity() > 4096 {
            self.identifiers = HashMap::default();
        }
        self.counts.add(path.peer, -1, -i32::from(path.is_stale()));
        if self.prefixes[prefix].head == NONE {
            self.empty.push(prefix);
        }
        path
    }

    pub(super) fn selection(&self, prefix: PrefixId) -> Selection {
        let mut used = 0u64;
        for path in self.paths(prefix).filter(|path| path.is_used()) {
            used = used.wrapping_add(FxBuildHasher.hash_one((path.peer, path.attributes)) | 1);
        }
        Selection { best: self.best(prefix).map(|path| (path.peer, path.attributes)), used }
    }

    /// Chooses anew among the paths of a prefix that has had `before`.
    pub(super) fn decide<A: AttributeSet>(
        &mut self,
        prefix: PrefixId,
        before: Selection,
        sets: &Attributes<A>,
        peers: &[PeerRank],
    ) -> Change {
        let head = self.prefixes[prefix].head;
        if head != NONE && self.paths[head].next == NONE {
            let used = if sets.cost(self.paths[head].attributes).is_some() { BEST | SHARES } else { 0 };
            let path = &mut self.paths[head];
            path.flags = path.flags & KEPT | used;
        } else if head != NONE {
            self.decide_among(prefix, sets, peers);
        }
        let after = self.selection(prefix);
        let best = before.best != after.best;
        Change { prefix, best, used: best || before.used != after.used }
    }

    fn decide_among<A: AttributeSet>(&mut self, prefix: PrefixId, sets: &Attributes<A>, peers: &[PeerRank]) {
        let mut candidates = self.candidates(prefix, sets, peers);
        let mut next = self.prefixes[prefix].head;
        while next != NONE {
            let path = &mut self.paths[next];
            path.flags &= KEPT;
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

    /// Paths that can be used: their next hop can be reached.
    fn candidates<'a, A: AttributeSet>(
        &self,
        prefix: PrefixId,
        sets: &'a Attributes<A>,
        peers: &'a [PeerRank],
    ) -> Vec<Candidate<'a>> {
        let mut candidates = Vec::with_capacity(8);
        for (path, of) in self.numbered_paths(prefix) {
            if let Some(cost) = sets.cost(of.attributes) {
                let (rank, peer) = (sets.rank(of.attributes), &peers[usize::from(of.peer.0)]);
                let identifier = self.identifier(path);
                candidates.push(Candidate { rank, peer, stale: of.is_stale(), cost, identifier, path });
            }
        }
        candidates
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
