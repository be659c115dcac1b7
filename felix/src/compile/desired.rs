//! The ruleset as it should be, and a journal of what changed since the last delta was taken.
//!
//! The journal keeps what was there at the first touch, so that there and back again yields no change.

use super::sets::Slot;
use crate::ruleset::{Chain, Delta, ElementChange, Key, Name, Ruleset, Set, Value};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// A ruleset with a journal.
#[derive(Debug, Default)]
pub(super) struct Desired {
    ruleset: Ruleset,
    elements: FxHashMap<Name, BTreeMap<Key, Option<Value>>>,
    new_sets: BTreeSet<Name>,
    gone_sets: BTreeSet<Name>,
    new_chains: BTreeSet<Name>,
    gone_chains: BTreeSet<Name>,
}

impl Desired {
    /// Starts from what the kernel is given first.
    pub(super) fn new(ruleset: Ruleset) -> Self {
        Self { ruleset, ..Self::default() }
    }

    /// The whole, as it should be now.
    pub(super) fn ruleset(&self) -> &Ruleset {
        &self.ruleset
    }

    /// Adds an element, or gives it another value.
    pub(super) fn put(&mut self, set: &Name, key: Key, value: Value) {
        let Some(target) = self.ruleset.sets.get_mut(set) else { return };
        if target.elements.get(&key) == Some(&value) {
            return;
        }
        let before = target.elements.insert(key.clone(), value);
        if !self.new_sets.contains(set) {
            self.elements.entry(set.clone()).or_default().entry(key).or_insert(before);
        }
    }

    /// Removes an element if it is there.
    pub(super) fn remove(&mut self, set: &Name, key: &Key) {
        let Some(target) = self.ruleset.sets.get_mut(set) else { return };
        let Some(before) = target.elements.remove(key) else { return };
        if !self.new_sets.contains(set) {
            self.elements.entry(set.clone()).or_default().entry(key.clone()).or_insert(Some(before));
        }
    }

    /// Makes these the elements of a set, or of the part of it that is one content's.
    pub(super) fn replace(&mut self, slot: &Slot, elements: BTreeMap<Key, Value>) {
        let gone: Vec<Key> = self.keys_of(slot).filter(|key| !elements.contains_key(*key)).cloned().collect();
        gone.iter().for_each(|key| self.remove(&slot.set, key));
        elements.into_iter().for_each(|(key, value)| self.put(&slot.set, key, value));
    }

    fn keys_of(&self, slot: &Slot) -> impl Iterator<Item = &Key> {
        let first = slot.selector.map_or(Bound::Unbounded, |selector| Bound::Included(Key::selector(selector)));
        let next = slot.selector.and_then(|selector| selector.checked_add(1));
        let end = next.map_or(Bound::Unbounded, |next| Bound::Excluded(Key::selector(next)));
        let set = self.ruleset.sets.get(&slot.set);
        set.into_iter().flat_map(move |set| set.elements.range((first.clone(), end.clone()))).map(|(key, _)| key)
    }

    /// Adds a set; its name must be new.
    pub(super) fn add_set(&mut self, name: &Name, set: Set) {
        self.ruleset.sets.insert(name.clone(), set);
        self.new_sets.insert(name.clone());
    }

    /// Removes a set that nothing refers to any more.
    pub(super) fn remove_set(&mut self, name: &Name) {
        self.ruleset.sets.remove(name);
        self.elements.remove(name);
        if !self.new_sets.remove(name) {
            self.gone_sets.insert(name.clone());
        }
    }

    /// Adds a chain; its name must be new.
    pub(super) fn add_chain(&mut self, name: &Name, chain: Chain) {
        self.ruleset.chains.insert(name.clone(), chain);
        self.new_chains.insert(name.clone());
    }

    /// Removes a chain that nothing leads to any more.
    pub(super) fn remove_chain(&mut self, name: &Name) {
        self.ruleset.chains.remove(name);
        if !self.new_chains.remove(name) {
            self.gone_chains.insert(name.clone());
        }
    }

    /// What changed since the last call.
    pub(super) fn take_delta(&mut self) -> Delta {
        let mut delta = Delta {
            remove_sets: std::mem::take(&mut self.gone_sets),
            remove_chains: std::mem::take(&mut self.gone_chains),
            ..Delta::default()
        };
        for name in std::mem::take(&mut self.new_sets) {
            delta.add_sets.extend(self.ruleset.sets.get(&name).map(|set| (name, set.clone())));
        }
        for name in std::mem::take(&mut self.new_chains) {
            delta.add_chains.extend(self.ruleset.chains.get(&name).map(|chain| (name, chain.clone())));
        }
        for (name, journal) in std::mem::take(&mut self.elements) {
            let Some(set) = self.ruleset.sets.get(&name) else { continue };
            let mut change = ElementChange::default();
            for (key, before) in journal {
                let after = set.elements.get(&key);
                if before.as_ref() == after {
                    continue;
                }
                change.add.extend(after.map(|value| (key.clone(), value.clone())));
                change.remove.extend(before.map(|value| (key, value)));
            }
            if change != ElementChange::default() {
                delta.elements.insert(name, change);
            }
        }
        delta
    }
}
