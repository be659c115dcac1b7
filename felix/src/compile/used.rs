//! The sets that some list looks into, and who stands in them.

use super::desired::Desired;
use super::sets::{SetSpec, Slot};
use crate::index::{Index, SelectorId};
use crate::ruleset::Name;
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};

/// Contents in use. Each stands where its [`Slot`] says from its first user to its last.
#[derive(Debug, Default)]
pub(super) struct UsedSets {
    used: BTreeMap<Slot, Use>,
    by_selector: FxHashMap<SelectorId, BTreeSet<Slot>>,
    /// How many contents stand in each shared set.
    shared: BTreeMap<Name, usize>,
    /// How many contents could share a set, whether they do or not.
    sharable: usize,
}

#[derive(Debug)]
struct Use {
    users: usize,
    spec: SetSpec,
    selector: Option<SelectorId>,
}

impl UsedSets {
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.used.is_empty() && self.by_selector.is_empty() && self.shared.is_empty() && self.sharable == 0
    }

    /// How many sets there would be if each content that could share one had its own.
    pub(super) fn sharable(&self) -> usize {
        self.sharable
    }

    /// What follows a selector of pods.
    pub(super) fn of_selector(&self, selector: SelectorId) -> impl Iterator<Item = &SetSpec> {
        let slots = self.by_selector.get(&selector).into_iter().flatten();
        slots.filter_map(|slot| Some(&self.used.get(slot)?.spec))
    }

    /// One more user.
    pub(super) fn acquire(&mut self, spec: SetSpec, index: &mut Index, desired: &mut Desired) {
        if let Some(used) = self.used.get_mut(spec.slot()) {
            used.users += 1;
            return;
        }
        let slot = spec.slot().clone();
        let selector = spec.selector().map(|selector| index.follow(selector));
        if let Some(selector) = selector {
            self.by_selector.entry(selector).or_default().insert(slot.clone());
        }
        let shared_with = slot.selector.map(|_| self.shared.entry(slot.set.clone()).or_default());
        if shared_with.as_ref().is_none_or(|others| **others == 0) {
            desired.add_set(&slot.set, spec.declare());
        }
        shared_with.into_iter().for_each(|others| *others += 1);
        let of_pods = selector.map(|selector| spec.fill(index, index.peers.members(selector)));
        if let Some(elements) = of_pods.or_else(|| spec.of_nodes(index)) {
            desired.replace(&slot, elements);
        }
        self.sharable += usize::from(spec.may_share());
        self.used.insert(slot, Use { users: 1, spec, selector });
    }

    /// One user less; with the last it goes.
    pub(super) fn release(&mut self, slot: &Slot, index: &mut Index, desired: &mut Desired) {
        let Some(used) = self.used.get_mut(slot) else { return };
        used.users -= 1;
        if used.users > 0 {
            return;
        }
        let Some(Use { spec, selector, .. }) = self.used.remove(slot) else { return };
        self.sharable -= usize::from(spec.may_share());
        let others = slot.selector.and_then(|_| self.shared.get_mut(&slot.set)).map_or(0, |all| {
            *all -= 1;
            *all
        });
        if others == 0 {
            self.shared.remove(&slot.set);
            desired.remove_set(&slot.set);
        } else {
            desired.replace(slot, BTreeMap::new());
        }
        let Some(selector) = selector else { return };
        if let Some(slots) = self.by_selector.get_mut(&selector) {
            slots.remove(slot);
            if slots.is_empty() {
                self.by_selector.remove(&selector);
            }
        }
        index.unfollow(selector);
    }

    /// Nodes came, went, or changed.
    pub(super) fn update_nodes(&self, index: &Index, desired: &mut Desired) {
        for (slot, used) in &self.used {
            if let Some(elements) = used.spec.of_nodes(index) {
                desired.replace(slot, elements);
            }
        }
    }
}
