//! A ruleset without some of its parts: what depends on them goes as well, and the pods that had it are closed.

use super::is_policy;
use crate::base;
use crate::ruleset::{Action, Chain, Key, Name, Part, Rule, Ruleset, Value, Verdict};
use std::collections::BTreeSet;

/// What goes with parts that are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Lists that cannot be without them, and they themselves.
    pub chains: BTreeSet<Name>,
    /// Sets that are left out.
    pub sets: BTreeSet<Name>,
    /// Interfaces of the workloads that are closed for it.
    pub interfaces: BTreeSet<Key>,
}

impl Cost {
    /// What goes with these parts of `wanted`.
    #[must_use]
    pub fn of(wanted: &Ruleset, aside: &BTreeSet<Part>) -> Cost {
        let mut cost = Cost::default();
        for part in aside {
            match part {
                Part::Chain(name) => drop(cost.chains.insert(name.clone())),
                Part::Set(name) => drop(cost.sets.insert(name.clone())),
            }
        }
        // A list leads to the next tier's at most, so this ends soon.
        loop {
            let lists = wanted.chains.iter().filter(|(name, _)| is_policy(&Part::Chain((*name).clone())));
            let more: Vec<Name> = lists
                .filter(|(name, chain)| !cost.chains.contains(*name) && chain.rules.iter().any(|rule| cost.hits(rule)))
                .map(|(name, _)| name.clone())
                .collect();
            if more.is_empty() {
                break;
            }
            cost.chains.extend(more);
        }
        for map in [base::FROM_POD, base::TO_POD] {
            let elements = wanted.sets.get(map).into_iter().flat_map(|map| &map.elements);
            let closed = elements.filter(|(_, value)| cost.is_gone(value)).map(|(interface, _)| interface.clone());
            let closed: Vec<Key> = closed.collect();
            cost.interfaces.extend(closed);
        }
        cost
    }

    /// Whether this cannot be in the ruleset either.
    pub(super) fn hides(&self, part: &Part) -> bool {
        matches!(part, Part::Chain(name) if self.chains.contains(name))
    }

    fn hits(&self, rule: &Rule) -> bool {
        let next = if let Action::Verdict(verdict) = &rule.action { verdict.chain() } else { None };
        rule.sets().any(|set| self.sets.contains(set)) || next.is_some_and(|next| self.chains.contains(next))
    }

    fn is_gone(&self, value: &Value) -> bool {
        matches!(value, Value::Verdict(verdict) if verdict.chain().is_some_and(|chain| self.chains.contains(chain)))
    }
}

/// `wanted` without these parts. The workloads whose lists need them are closed in both directions, as by a policy that allows nothing:
/// their node still reaches them, and they answer it.
#[must_use]
pub fn without(wanted: &Ruleset, aside: &BTreeSet<Part>) -> Ruleset {
    let mut ruleset = wanted.clone();
    if aside.is_empty() {
        return ruleset;
    }
    let cost = Cost::of(wanted, aside);
    ruleset.chains.retain(|name, _| !cost.chains.contains(name));
    ruleset.sets.retain(|name, _| !cost.sets.contains(name));
    // The host's own interfaces stay open where their list is left out: closed, nobody could come and mend it.
    let leads_nowhere = |rule: &Rule| matches!(&rule.action, Action::Verdict(verdict) if verdict.chain().is_some_and(|to| cost.chains.contains(to)));
    ruleset.chains.values_mut().for_each(|chain| chain.rules.retain(|rule| !leads_nowhere(rule)));
    if cost.interfaces.is_empty() {
        return ruleset;
    }
    let closed = Rule::deny(Vec::new()).comment("the kernel refuses its policy");
    let log = ruleset.sets.contains_key(base::LOGGED).then(|| {
        let prefix = format!("{} {}", base::REFUSED, closed.comment);
        base::log(Vec::new(), &prefix)
    });
    let rules = log.into_iter().chain([closed]).collect();
    ruleset.chains.insert(base::name(base::REFUSED), Chain { base: None, rules });
    for map in [base::FROM_POD, base::TO_POD] {
        let Some(map) = ruleset.sets.get_mut(map) else { continue };
        let closed = Value::Verdict(Verdict::Jump(base::name(base::REFUSED)));
        map.elements.extend(cost.interfaces.iter().map(|interface| (interface.clone(), closed.clone())));
    }
    ruleset
}
