//! The sets that some list looks into, and who stands in them.

use super::desired::Desired;
use super::sets::{SetSpec, Slot};
use crate::index::{Changes, Index, ItemId, SelectorId};
use crate::model::{Few, Pod};
use crate::ruleset::{Name, Value};
use rustc_hash::FxHashMap;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Contents in use. Each stands where its [`Slot`] says from its first user to its last.
#[derive(Debug, Default)]
pub(super) struct UsedSets {
    used: BTreeMap<Slot, Use>,
    by_selector: FxHashMap<SelectorId, BTreeSet<Slot>>,
    /// What each pod that a selector in use selects has contributed to the sets that follow it.
    contributed: FxHashMap<ItemId, Contribution>,
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

#[derive(Debug)]
struct Contribution {
    addresses: Few<IpAddr>,
    /// For its ports.
    pod: Arc<Pod>,
}

impl Contribution {
    /// What a pod contributes now.
    fn of(index: &Index, id: ItemId) -> Option<Contribution> {
        let (pod, addresses) = index.owned(id).filter(|(_, addresses)| !addresses.is_empty())?;
        Some(Contribution { addresses, pod: pod.clone() })
    }
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

    /// Moves elements of the sets that there are. All that goes, goes first: an address may change hands inside one set.
    pub(super) fn update(&mut self, changes: &Changes, index: &Index, desired: &mut Desired) {
        let touched = changes.memberships.keys().map(|(_, pod)| *pod);
        let pods: BTreeSet<ItemId> = changes.pods.iter().copied().chain(touched).collect();
        let mut was: FxHashMap<ItemId, Vec<SelectorId>> = FxHashMap::default();
        for ((selector, pod), member) in &changes.memberships {
            if *member {
                was.entry(*pod).or_default().push(*selector);
            }
        }
        let (mut gone, mut come) = (Vec::new(), Vec::new());
        for id in pods {
            let new = Contribution::of(index, id);
            let old = self.contributed.remove(&id);
            let left = was.get(&id).into_iter().flatten().copied();
            let followed: BTreeSet<SelectorId> = index.peers.matched(id).chain(left).collect();
            for selector in &followed {
                let is = index.peers.is_member(*selector, id);
                let was = changes.memberships.get(&(*selector, id)).copied().unwrap_or(is);
                for spec in self.of_selector(*selector) {
                    let set = &spec.slot().set;
                    let keys = |member: bool, c: &Option<Contribution>| match c {
                        Some(c) if member => spec.elements(&c.addresses, &c.pod.ports),
                        _ => Vec::new(),
                    };
                    gone.extend(keys(was, &old).into_iter().map(|key| (set.clone(), key)));
                    come.extend(keys(is, &new).into_iter().map(|key| (set.clone(), key)));
                }
            }
            if let Some(new) = new.filter(|_| !followed.is_empty()) {
                self.contributed.insert(id, new);
            }
        }
        gone.iter().for_each(|(set, key)| desired.remove(set, key));
        come.into_iter().for_each(|(set, key)| desired.put(&set, key, Value::Plain));
    }

    /// What follows a selector of pods.
    fn of_selector(&self, selector: SelectorId) -> impl Iterator<Item = &SetSpec> {
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
        let members = selector.into_iter().flat_map(|selector| index.peers.members(selector));
        for id in members {
            if let Entry::Vacant(unknown) = self.contributed.entry(id) {
                Contribution::of(index, id).map(|new| unknown.insert(new));
            }
        }
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
