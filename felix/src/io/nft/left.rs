//! Lists and sets that are out of use and still in the kernel, for as long as a packet may be on its way through them.

use super::steps::{self, restricted};
use crate::ruleset::{Delta, ElementChange, Key, Name, Part, Ruleset, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// No packet is on its way through a chain for so long after the last way to it has gone.
const STAYS: Duration = Duration::from_secs(1);

/// What is out of use.
#[derive(Clone, Debug, Default)]
pub(super) struct Left {
    ruleset: Ruleset,
    since: BTreeMap<Part, Instant>,
    /// Elements of sets that are in use.
    elements: BTreeMap<Name, BTreeMap<Key, Instant>>,
}

/// What may go.
#[derive(Debug, Default)]
pub(super) struct Due {
    pub(super) ruleset: Ruleset,
    pub(super) elements: BTreeMap<Name, BTreeSet<Key>>,
}

impl Left {
    /// As the kernel has it.
    pub(super) fn ruleset(&self) -> &Ruleset {
        &self.ruleset
    }

    /// These changes were made to what is in use, and left these elements behind.
    pub(super) fn follow(&mut self, change: &Delta, left: BTreeMap<Name, BTreeSet<Key>>, now: Instant) {
        for (name, change) in &change.elements {
            if let Some(elements) = self.elements.get_mut(name) {
                elements.retain(|key, _| !change.add.contains_key(key) && !change.remove.contains_key(key));
            }
        }
        for (name, keys) in left {
            self.elements.entry(name).or_default().extend(keys.into_iter().map(|key| (key, now)));
        }
        self.elements.retain(|_, elements| !elements.is_empty());
    }

    /// A change with what must go at once: of a selector that is wanted again, members that left meanwhile.
    pub(super) fn with_returning(&self, delta: &Delta) -> Delta {
        let mut delta = delta.clone();
        for (name, change) in &mut delta.elements {
            let Some(left) = self.elements.get(name) else { continue };
            let wanted: BTreeSet<Key> = change.add.keys().filter_map(Key::first_selector).collect();
            let is_wanted = |key: &&Key| key.first_selector().is_some_and(|selector| wanted.contains(&selector));
            let gone = left.keys().filter(|key| !change.add.contains_key(*key)).filter(is_wanted);
            change.remove.extend(gone.map(|key| (key.clone(), Value::Plain)));
        }
        delta
    }

    /// Takes out of a difference the elements that are out of use.
    pub(super) fn pass_over(&self, difference: &mut Delta) {
        for (name, change) in &mut difference.elements {
            if let Some(left) = self.elements.get(name) {
                change.remove.retain(|key, _| !left.contains_key(key));
            }
        }
        difference.elements.retain(|_, change| *change != ElementChange::default());
    }

    /// Whether this is out of use.
    pub(super) fn has(&self, part: &Part) -> bool {
        self.since.contains_key(part)
    }

    /// More of it. Whatever a chain looks into is out of use no sooner than the chain, so it never goes first.
    pub(super) fn put(&mut self, more: Ruleset, now: Instant) {
        for part in parts(&more) {
            self.since.insert(part, now);
        }
        self.ruleset.chains.extend(more.chains);
        for (name, mut set) in more.sets {
            // What was to go from it stands in it still.
            let elements = self.elements.remove(&name).unwrap_or_default();
            set.elements.extend(elements.into_keys().map(|key| (key, Value::Plain)));
            self.ruleset.sets.insert(name, set);
        }
    }

    /// These changes were made to it.
    pub(super) fn apply(&mut self, delta: &Delta, now: Instant) {
        self.ruleset.apply(delta);
        let sets = delta.add_sets.keys().chain(delta.elements.keys()).cloned().map(Part::Set);
        let chains = delta.add_chains.keys().chain(delta.replace_rules.keys()).cloned().map(Part::Chain);
        self.since.extend(sets.chain(chains).map(|part| (part, now)));
    }

    /// What has these names is in use again.
    pub(super) fn take_back(&mut self, names: &Ruleset) {
        for part in parts(&restricted(&self.ruleset, names)) {
            self.since.remove(&part);
        }
        self.ruleset.chains.retain(|name, _| !names.chains.contains_key(name));
        self.ruleset.sets.retain(|name, _| !names.sets.contains_key(name));
    }

    /// When something may go.
    pub(super) fn next(&self) -> Option<Instant> {
        let elements = self.elements.values().flat_map(BTreeMap::values);
        self.since.values().chain(elements).min().map(|since| *since + STAYS)
    }

    /// Takes out what may go.
    pub(super) fn due(&mut self, now: Instant) -> Due {
        let mut due = Due::default();
        for (name, elements) in &mut self.elements {
            let keys = elements.extract_if(.., |_, since| *since + STAYS <= now).map(|(key, _)| key);
            due.elements.insert(name.clone(), keys.collect());
        }
        self.elements.retain(|_, elements| !elements.is_empty());
        due.elements.retain(|_, keys| !keys.is_empty());
        let since = self.since.extract_if(.., |_, since| *since + STAYS <= now);
        for (part, _) in since.collect::<Vec<_>>() {
            match part {
                Part::Chain(name) => due.ruleset.chains.extend(self.ruleset.chains.remove_entry(&name)),
                Part::Set(name) => due.ruleset.sets.extend(self.ruleset.sets.remove_entry(&name)),
            }
        }
        due
    }
}

impl Due {
    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.ruleset.is_empty() && self.elements.is_empty()
    }

    /// What takes all of it away.
    pub(super) fn removal(self) -> Delta {
        let change = |keys: BTreeSet<Key>| {
            let remove = keys.into_iter().map(|key| (key, Value::Plain)).collect();
            ElementChange { remove, ..ElementChange::default() }
        };
        let elements = self.elements.into_iter().map(|(name, keys)| (name, change(keys))).collect();
        Delta { elements, ..steps::removal(&self.ruleset) }
    }
}

fn parts(ruleset: &Ruleset) -> impl Iterator<Item = Part> {
    let chains = ruleset.chains.keys().cloned().map(Part::Chain);
    chains.chain(ruleset.sets.keys().cloned().map(Part::Set)).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::{Chain, KeyType, Set};

    fn one(list: &str) -> Ruleset {
        let mut all = Ruleset::default();
        all.chains.insert(list.into(), Chain::default());
        all.sets.insert(format!("sel4_{list}").into(), Set::of([KeyType::V4]));
        all
    }

    #[test]
    fn each_goes_a_second_after_it_went_out_of_use_however_much_follows() {
        let (mut left, begin) = (Left::default(), Instant::now());
        let at = |tenths: u32| begin + STAYS * tenths / 10;
        assert_eq!(left.next(), None);
        left.put(one("list_a"), at(0));
        left.put(one("list_b"), at(5));
        assert_eq!(left.next(), Some(at(10)));
        assert!(left.due(at(9)).is_empty());
        assert!(left.due(at(10)).ruleset == one("list_a"));
        assert_eq!(left.next(), Some(at(15)));
        left.take_back(&one("list_b"));
        assert!(left.ruleset().is_empty() && left.next().is_none());
    }

    #[test]
    fn an_element_that_is_wanted_again_stays_and_one_goes_with_its_set() {
        let (mut left, begin) = (Left::default(), Instant::now());
        let name: Name = "sel4_all".into();
        let key = |selector: u64| Key::selector(selector).and_addr(std::net::IpAddr::from([10, 0, 0, 1]));
        left.follow(&Delta::default(), [(name.clone(), [key(1), key(2)].into())].into(), begin);
        let mut again = Delta::default();
        again.add_element(&name, key(1), Value::Plain);
        left.follow(&again, BTreeMap::new(), begin);
        assert!(left.due(begin).is_empty());
        assert!(left.with_returning(&again).elements[&name].remove.is_empty(), "nothing of that selector is left");
        let mut difference = Delta::default();
        difference.remove_element(&name, key(2), Value::Plain);
        difference.remove_element(&name, key(9), Value::Plain);
        left.pass_over(&mut difference);
        assert_eq!(difference.elements[&name].remove.keys().collect::<Vec<_>>(), [&key(9)]);
        let due = left.due(begin + STAYS).removal();
        assert_eq!(due.elements[&name].remove.keys().collect::<Vec<_>>(), [&key(2)]);
        assert_eq!(left.next(), None);

        // A selector comes back without a member that it had.
        let member = key(3).and_port(1);
        left.follow(&Delta::default(), [(name.clone(), [key(3), member.clone()].into())].into(), begin);
        let mut back = Delta::default();
        back.add_element(&name, key(3), Value::Plain);
        let back = left.with_returning(&back);
        assert_eq!(back.elements[&name].remove.keys().collect::<Vec<_>>(), [&member]);
        left.follow(&back, BTreeMap::new(), begin);
        assert_eq!(left.next(), None);

        left.follow(&Delta::default(), [(name.clone(), [key(3)].into())].into(), begin);
        let mut whole = Ruleset::default();
        whole.sets.insert(name.clone(), Set::of([KeyType::Selector, KeyType::V4]));
        left.put(whole, begin);
        assert!(left.ruleset().sets[&name].elements.contains_key(&key(3)), "as the kernel has it");
        assert!(left.due(begin + STAYS).removal().elements.is_empty());
    }
}
