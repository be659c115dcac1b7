//! Parts of a ruleset that the kernel does not take: found, left out, and tried again.
//!
//! In flow what is wanted and what the kernel said against a transaction; out flow what to leave out, and the [ruleset without
//! it](without), in which the pods of what is missing are closed. The kernel numbers what it refuses. Of these the first is at fault by
//! itself; the others may only depend on it, so they are left out with it and then tried by themselves. Where it gives no number, all that
//! was new is left out, and admitted again half by half. Either way no pod but those of a refused part is closed for longer than that takes.

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod without;

pub use without::{Cost, without};

use crate::base;
use crate::ruleset::{Part, Ruleset};
use std::collections::{BTreeMap, BTreeSet};

/// What was said against a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Complaint {
    /// About which parts, in the order of the transaction, and what. None: about the whole.
    pub named: Vec<(Part, String)>,
    /// What the transaction was to create or change.
    pub parts: BTreeSet<Part>,
    /// What was said first.
    pub why: String,
}

/// What is left out.
#[derive(Clone, Debug, Default)]
pub struct Refused {
    /// Refused by itself, and why.
    proven: BTreeMap<Part, String>,
    /// Left out with others until tried, the next at the end.
    doubtful: Vec<BTreeSet<Part>>,
    /// Proven before this round of trials: named again, they need no other proof.
    before: BTreeSet<Part>,
    /// What is being tried leads to each other, so it cannot be tried in smaller groups.
    entangled: bool,
}

impl Refused {
    /// Whether nothing is left out.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.proven.is_empty() && self.doubtful.is_empty()
    }

    /// Whether something is left out that may be innocent.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        !self.doubtful.is_empty()
    }

    /// What is refused by itself, and why.
    #[must_use]
    pub fn proven(&self) -> &BTreeMap<Part, String> {
        &self.proven
    }

    /// All that is left out.
    #[must_use]
    pub fn aside(&self) -> BTreeSet<Part> {
        self.proven.keys().chain(self.doubtful.iter().flatten()).cloned().collect()
    }

    /// Takes note of what was said against a transaction that was to make the table equal to `wanted` without what is left out. False
    /// if that is about nothing that can be left out.
    pub fn blame(&mut self, wanted: &Ruleset, complaint: &Complaint) -> bool {
        let aside = self.aside();
        let there = |part: &&Part| is_policy(part) && has(wanted, part) && !aside.contains(*part);
        let mut group: BTreeSet<Part> = complaint.named.iter().map(|(part, _)| part).filter(there).cloned().collect();
        if group.is_empty() {
            group = complaint.parts.iter().filter(there).cloned().collect();
        }
        if group.is_empty() {
            return false;
        }
        self.divide(group, complaint);
        true
    }

    /// What to try next: left out no more, unless [`Refused::tried`] says that it was refused. Nothing is tried while something that it
    /// needs is left out: that would prove nothing.
    pub fn next_trial(&mut self, wanted: &Ruleset) -> Option<BTreeSet<Part>> {
        self.entangled = false;
        let gone = Cost::of(wanted, &self.proven.keys().cloned().collect());
        self.doubtful.iter_mut().for_each(|group| group.retain(|part| !gone.hides(part)));
        self.doubtful.retain(|group| !group.is_empty());
        for _ in 0..self.doubtful.len() {
            let group = self.doubtful.pop()?;
            let others = Cost::of(wanted, &self.aside());
            let (hidden, open): (BTreeSet<Part>, _) = group.into_iter().partition(|part| others.hides(part));
            if !hidden.is_empty() {
                self.doubtful.insert(0, hidden);
            }
            if !open.is_empty() {
                return Some(open);
            }
        }
        let all: BTreeSet<Part> = std::mem::take(&mut self.doubtful).into_iter().flatten().collect();
        self.entangled = !all.is_empty();
        self.entangled.then_some(all)
    }

    /// What was tried is refused, with all that came back with it.
    pub fn tried(&mut self, group: BTreeSet<Part>, complaint: &Complaint) {
        let back = complaint.parts.iter().filter(|part| is_policy(part)).cloned();
        self.divide(group.into_iter().chain(back).collect(), complaint);
    }

    /// What was to be tried could not be.
    pub fn put_back(&mut self, group: BTreeSet<Part>) {
        self.doubtful.push(group);
    }

    /// All is to be tried again.
    pub fn again(&mut self) {
        self.before = std::mem::take(&mut self.proven).into_keys().collect();
        if !self.before.is_empty() {
            self.doubtful.insert(0, self.before.clone());
        }
    }

    /// Forgets what is not wanted any more.
    pub fn keep_wanted(&mut self, wanted: &Ruleset) {
        self.proven.retain(|part, _| has(wanted, part));
        self.doubtful.iter_mut().for_each(|group| group.retain(|part| has(wanted, part)));
        self.doubtful.retain(|group| !group.is_empty());
    }

    /// A group that is refused as a whole: who of it is at fault, and who must be tried in smaller groups.
    fn divide(&mut self, mut group: BTreeSet<Part>, complaint: &Complaint) {
        let mut named = complaint.named.iter().filter(|(part, _)| group.contains(part)).cloned().collect::<Vec<_>>();
        if named.is_empty() {
            return self.halve(group, complaint);
        }
        let (first, why) = named.remove(0);
        group.remove(&first);
        self.proven.insert(first, why);
        let mut dependent = BTreeSet::new();
        for (part, why) in named {
            if !group.remove(&part) {
                continue;
            }
            if self.before.contains(&part) {
                self.proven.insert(part, why);
            } else {
                dependent.insert(part);
            }
        }
        // Who was not named goes first.
        self.doubtful.extend([dependent, group].into_iter().filter(|group| !group.is_empty()));
    }

    fn halve(&mut self, group: BTreeSet<Part>, complaint: &Complaint) {
        if group.len() == 1 || self.entangled {
            return self.proven.extend(group.into_iter().map(|part| (part, complaint.why.clone())));
        }
        let half = group.len() / 2;
        let (first, second): (Vec<_>, Vec<_>) = group.into_iter().enumerate().partition(|(i, _)| *i < half);
        self.doubtful.extend([second, first].map(|half| half.into_iter().map(|(_, part)| part).collect()));
    }
}

/// Whether a part is of policy: the skeleton cannot do without its own.
fn is_policy(part: &Part) -> bool {
    match part {
        Part::Chain(name) => name.starts_with(base::LIST) && **name != *base::REFUSED,
        Part::Set(name) => !base::SETS.contains(&name.as_ref()),
    }
}

fn has(ruleset: &Ruleset, part: &Part) -> bool {
    match part {
        Part::Chain(name) => ruleset.chains.contains_key(name),
        Part::Set(name) => ruleset.sets.contains_key(name),
    }
}
