//! Lists and sets that are out of use and still in the kernel, for as long as a packet may be on its way through them.

use super::steps::restricted;
use crate::ruleset::{Delta, Part, Ruleset};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// No packet is on its way through a chain for so long after the last way to it has gone.
const STAYS: Duration = Duration::from_secs(1);

/// What is out of use.
#[derive(Debug, Default)]
pub(super) struct Left {
    ruleset: Ruleset,
    since: BTreeMap<Part, Instant>,
}

impl Left {
    /// As the kernel has it.
    pub(super) fn ruleset(&self) -> &Ruleset {
        &self.ruleset
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
        self.ruleset.sets.extend(more.sets);
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
        self.since.values().min().map(|since| *since + STAYS)
    }

    /// Takes out what may go.
    pub(super) fn due(&mut self, now: Instant) -> Ruleset {
        let mut due = Ruleset::default();
        let since = self.since.extract_if(.., |_, since| *since + STAYS <= now);
        for (part, _) in since.collect::<Vec<_>>() {
            match part {
                Part::Chain(name) => due.chains.extend(self.ruleset.chains.remove_entry(&name)),
                Part::Set(name) => due.sets.extend(self.ruleset.sets.remove_entry(&name)),
            }
        }
        due
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
        assert!(left.due(at(10)) == one("list_a"));
        assert_eq!(left.next(), Some(at(15)));
        left.take_back(&one("list_b"));
        assert!(left.ruleset().is_empty() && left.next().is_none());
    }
}
