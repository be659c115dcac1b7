//! Attribute sets, each stored once and named by a number, with what decision needs of them; and their next hops.

use crate::scoped::ScopedAddr;
use hashbrown::{HashMap, HashTable};
use rustc_hash::FxBuildHasher;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

/// An attribute set as decision sees it.
pub trait AttributeSet: Eq + Hash {
    /// What paths with this set are compared by.
    fn rank(&self) -> Rank;
    /// Where packets go; none for a prefix of our own.
    fn next_hop(&self) -> Option<ScopedAddr>;
}

/// What of an attribute set RFC 4271 section 9.1.2.2 and RFC 4456 section 9 compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rank {
    /// Whether its sender, or somebody before, is away for long (LLGR_STALE, RFC 9494 section 4.3): goes after all that are not.
    pub long_stale: bool,
    /// LOCAL_PREF, or 100.
    pub local_pref: u32,
    /// Length of AS_PATH; an AS_SET counts once.
    pub as_path_length: u16,
    /// ORIGIN: 0 IGP, 1 EGP, 2 INCOMPLETE.
    pub origin: u8,
    /// MULTI_EXIT_DISC, or 0.
    pub med: u32,
    /// First AS of AS_PATH, 0 if it is empty: MED is compared only where this is equal.
    pub neighbour_as: u32,
    /// ORIGINATOR_ID, in place of the peer's BGP identifier.
    pub originator: Option<u32>,
    /// Length of CLUSTER_LIST.
    pub cluster_length: u16,
}

/// Number of an attribute set. Valid while a path refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttrId(u32);

impl AttrId {
    /// The bare number, for tables indexed by it.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Number of a next hop. Valid while an attribute set refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HopId(u32);

/// The one HopId of sets without next hop.
const OWN: HopId = HopId(0);

struct Slot<A> {
    value: Option<Arc<A>>,
    rank: Rank,
    hop: HopId,
    references: u32,
    serial: u32,
}

struct Hop {
    address: Option<ScopedAddr>,
    /// Interior cost; none: unreachable.
    cost: Option<u32>,
    references: u32,
}

/// All attribute sets in use.
pub struct Attributes<A> {
    slots: Vec<Slot<A>>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hops: Vec<Hop>,
    free_hops: Vec<u32>,
    hop_index: HashMap<ScopedAddr, u32, FxBuildHasher>,
    tracking: bool,
    new_hops: Vec<ScopedAddr>,
    /// Next hops out of use that the last caller of [`Attributes::hop_changes`] still follows, with their cost: he says
    /// it once only, and they may come back.
    old_hops: Vec<(ScopedAddr, Option<u32>)>,
    serial: u32,
}

impl<A: AttributeSet> Attributes<A> {
    /// Nothing yet. With `tracking` a next hop counts as unreachable until [`Attributes::set_cost`] says otherwise.
    #[must_use]
    pub fn new(tracking: bool) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            hops: vec![Hop { address: None, cost: Some(0), references: 1 }],
            free_hops: Vec::new(),
            hop_index: HashMap::default(),
            tracking,
            new_hops: Vec::new(),
            old_hops: Vec::new(),
            serial: 0,
        }
    }

    /// The number of the set equal to `value`, with one reference more.
    pub fn intern(&mut self, value: &Arc<A>) -> AttrId {
        let hash = FxBuildHasher.hash_one(value.as_ref());
        let equal = |id: &u32| self.slots[*id as usize].value.as_deref() == Some(value.as_ref());
        if let Some(id) = self.index.find(hash, equal) {
            let id = AttrId(*id);
            self.retain(id);
            return id;
        }
        let hop = self.intern_hop(value.next_hop());
        self.serial = self.serial.wrapping_add(1);
        let slot = Slot { rank: value.rank(), value: Some(Arc::clone(value)), hop, references: 1, serial: self.serial };
        let id = match self.free.pop() {
            Some(id) => {
                self.slots[id as usize] = slot;
                id
            }
            None => {
                self.slots.push(slot);
                self.slots.len() as u32 - 1
            }
        };
        let slots = &self.slots;
        let rehash = |id: &u32| slots[*id as usize].value.as_deref().map_or(0, |value| FxBuildHasher.hash_one(value));
        self.index.insert_unique(hash, id, rehash);
        AttrId(id)
    }

    /// One reference more.
    pub fn retain(&mut self, id: AttrId) {
        self.slots[id.index()].references += 1;
    }

    /// One reference less; the last one frees the number.
    pub fn release(&mut self, id: AttrId) {
        let slot = &mut self.slots[id.index()];
        slot.references -= 1;
        if slot.references > 0 {
            return;
        }
        let hop = slot.hop;
        if let Some(value) = slot.value.take() {
            let hash = FxBuildHasher.hash_one(value.as_ref());
            if let Ok(entry) = self.index.find_entry(hash, |other| *other == id.0) {
                entry.remove();
            }
        }
        self.free.push(id.0);
        self.release_hop(hop);
    }

    /// The set itself. `None` only for a number that is no longer valid.
    #[must_use]
    pub fn value(&self, id: AttrId) -> Option<&Arc<A>> {
        self.slots[id.index()].value.as_ref()
    }

    /// Tells one life of a number from the next, for caches keyed by number.
    #[must_use]
    pub fn serial(&self, id: AttrId) -> u32 {
        self.slots[id.index()].serial
    }

    /// What paths with this set are compared by.
    #[must_use]
    pub fn rank(&self, id: AttrId) -> &Rank {
        &self.slots[id.index()].rank
    }

    /// Its next hop's number.
    #[must_use]
    pub fn hop(&self, id: AttrId) -> HopId {
        self.slots[id.index()].hop
    }

    /// Its next hop.
    #[must_use]
    pub fn next_hop(&self, id: AttrId) -> Option<ScopedAddr> {
        self.hops[self.slots[id.index()].hop.0 as usize].address
    }

    /// Interior cost to its next hop; none if that cannot be reached.
    #[must_use]
    pub fn cost(&self, id: AttrId) -> Option<u32> {
        self.hops[self.slots[id.index()].hop.0 as usize].cost
    }

    /// Takes note of the interior cost to `address`, none if it cannot be reached; its number if that changes anything.
    pub fn set_cost(&mut self, address: ScopedAddr, cost: Option<u32>) -> Option<HopId> {
        let Some(id) = self.hop_index.get(&address).copied() else {
            if let Some((_, known)) = self.old_hops.iter_mut().find(|(old, _)| *old == address) {
                *known = cost;
            }
            return None;
        };
        let hop = &mut self.hops[id as usize];
        if hop.cost == cost {
            return None;
        }
        hop.cost = cost;
        Some(HopId(id))
    }

    /// Next hops that came into use and that went out of use since the last call, in that order.
    pub fn hop_changes(&mut self) -> (Vec<ScopedAddr>, Vec<ScopedAddr>) {
        let old = std::mem::take(&mut self.old_hops).into_iter().map(|(address, _)| address).collect();
        (std::mem::take(&mut self.new_hops), old)
    }

    /// How many sets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no set at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    fn intern_hop(&mut self, address: Option<ScopedAddr>) -> HopId {
        let Some(address) = address else { return OWN };
        if let Some(id) = self.hop_index.get(&address) {
            self.hops[*id as usize].references += 1;
            return HopId(*id);
        }
        let known = self.old_hops.iter().position(|(old, _)| *old == address);
        let known = known.map(|at| self.old_hops.swap_remove(at).1);
        if self.tracking && known.is_none() {
            self.new_hops.push(address);
        }
        let cost = if self.tracking { known.flatten() } else { Some(0) };
        let hop = Hop { address: Some(address), cost, references: 1 };
        let id = match self.free_hops.pop() {
            Some(id) => {
                self.hops[id as usize] = hop;
                id
            }
            None => {
                self.hops.push(hop);
                self.hops.len() as u32 - 1
            }
        };
        self.hop_index.insert(address, id);
        HopId(id)
    }

    fn release_hop(&mut self, id: HopId) {
        if id == OWN {
            return;
        }
        let hop = &mut self.hops[id.0 as usize];
        hop.references -= 1;
        if hop.references > 0 {
            return;
        }
        if let Some(address) = hop.address.take() {
            self.hop_index.remove(&address);
            match self.new_hops.iter().position(|new| *new == address) {
                Some(at) => drop(self.new_hops.swap_remove(at)),
                None if self.tracking => self.old_hops.push((address, hop.cost)),
                None => {}
            }
        }
        self.free_hops.push(id.0);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    #[derive(PartialEq, Eq, Hash)]
    struct Set(u8, Option<ScopedAddr>);

    impl AttributeSet for Set {
        fn rank(&self) -> Rank {
            Rank { local_pref: u32::from(self.0), ..Rank::default() }
        }
        fn next_hop(&self) -> Option<ScopedAddr> {
            self.1
        }
    }

    #[test]
    fn equal_sets_share_a_number_until_the_last_reference_is_gone() {
        let hop = Some(IpAddr::from([10, 0, 0, 1]).into());
        let mut attributes = Attributes::new(false);
        let first = attributes.intern(&Arc::new(Set(1, hop)));
        assert_eq!(attributes.intern(&Arc::new(Set(1, hop))), first);
        assert_ne!(attributes.intern(&Arc::new(Set(2, hop))), first);
        let serial = attributes.serial(first);
        attributes.release(first);
        assert_eq!(attributes.rank(first).local_pref, 1);
        attributes.release(first);
        assert!(attributes.value(first).is_none());
        let again = attributes.intern(&Arc::new(Set(3, None)));
        assert_eq!((again, attributes.serial(again) == serial, attributes.len()), (first, false, 2));
    }

    #[test]
    fn a_tracked_next_hop_is_unreachable_until_told_and_is_reported_once() {
        let hop: ScopedAddr = IpAddr::from([10, 0, 0, 1]).into();
        let mut attributes = Attributes::new(true);
        let one = attributes.intern(&Arc::new(Set(1, Some(hop))));
        let two = attributes.intern(&Arc::new(Set(2, Some(hop))));
        assert_eq!(attributes.hop_changes(), (vec![hop], vec![]));
        assert!(attributes.cost(one).is_none());
        assert_eq!(attributes.set_cost(hop, Some(7)), Some(attributes.hop(two)));
        assert!(attributes.set_cost(hop, Some(7)).is_none() && attributes.cost(two) == Some(7));
        attributes.release(one);
        attributes.release(two);
        // Back before anybody was told that it went: what was said of it holds, and meanwhile something else was said.
        assert_eq!(attributes.set_cost(hop, Some(9)), None);
        let again = attributes.intern(&Arc::new(Set(1, Some(hop))));
        assert_eq!((attributes.cost(again), attributes.hop_changes()), (Some(9), (vec![], vec![])));
        attributes.release(again);
        assert_eq!(attributes.hop_changes(), (vec![], vec![hop]));
        let again = attributes.intern(&Arc::new(Set(1, Some(hop))));
        assert_eq!(attributes.cost(again), None, "forgotten by both sides");
        attributes.release(again);
        assert_eq!(attributes.hop_changes(), (vec![], vec![]));
        let own = attributes.intern(&Arc::new(Set(1, None)));
        assert_eq!(attributes.cost(own), Some(0));
    }
}
