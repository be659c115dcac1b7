//! Whose connections may have become forbidden by a commit.

use crate::base;
use crate::ruleset::{Action, Delta, Key, Name, Ruleset, Verdict};
use rustc_hash::FxHashSet;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Addresses at an end of connections that must be judged again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Suspects {
    /// Nobody's.
    #[default]
    None,
    /// Those with an end here.
    Of(BTreeSet<IpAddr>),
    /// All.
    All,
}

/// More than this, and all connections are judged.
const MANY: usize = 4096;

impl Suspects {
    /// Who may not go on after a commit. `addresses_of` says which addresses an interface's workload has.
    #[must_use]
    pub fn after(delta: &Delta, ruleset: &Ruleset, addresses_of: impl Fn(&Key) -> Vec<IpAddr>) -> Self {
        if !delta.replace_rules.is_empty() {
            return Self::All;
        }
        let mut all = BTreeSet::new();
        let denying = denying(ruleset);
        let new = delta.elements.get(base::KNOWN);
        let had_none = |key: &&Key| new.is_some_and(|known| known.add.contains_key(*key));
        for (name, change) in &delta.elements {
            let keys = change.add.keys().chain(change.remove.keys());
            if [base::FROM_POD, base::TO_POD].contains(&name.as_ref()) {
                // A workload that is new here has no connections yet.
                all.extend(keys.filter(|key| !had_none(key)).flat_map(&addresses_of));
                continue;
            }
            let Some(set) = ruleset.sets.get(name).filter(|set| is_policy(name) && !set.interval) else { continue };
            let address = |key: &Key| key.address(&set.key);
            // Whoever leaves a set loses what it allowed; who enters loses something only if a rule on it does more than allow.
            all.extend(change.remove.keys().filter_map(address));
            if denying.contains(name) {
                all.extend(change.add.keys().filter_map(address));
            }
        }
        match all.len() {
            0 => Self::None,
            n if n > MANY => Self::All,
            _ => Self::Of(all),
        }
    }

    /// Takes these in, too.
    pub fn add(&mut self, more: Self) {
        *self = match (std::mem::take(self), more) {
            (Self::All, _) | (_, Self::All) => Self::All,
            (Self::None, one) | (one, Self::None) => one,
            (Self::Of(mut all), Self::Of(more)) => {
                all.extend(more);
                if all.len() > MANY { Self::All } else { Self::Of(all) }
            }
        };
    }

    /// Whether a connection with these ends must be judged.
    #[must_use]
    pub fn holds(&self, ends: [IpAddr; 2]) -> bool {
        match self {
            Self::None => false,
            Self::Of(all) => ends.iter().any(|end| all.contains(end)),
            Self::All => true,
        }
    }
}

/// Sets that lists look into; the skeleton's own sets are about interfaces, nodes and pools.
fn is_policy(name: &Name) -> bool {
    name.contains('_')
}

/// The sets on which a rule does more than allow: few, for a NetworkPolicy has none.
fn denying(ruleset: &Ruleset) -> FxHashSet<&Name> {
    let rules = ruleset.chains.values().flat_map(|chain| &chain.rules);
    rules.filter(|rule| rule.action != Action::Verdict(Verdict::Return)).flat_map(|rule| rule.sets()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::base::{Settings, name, skeleton};
    use crate::ruleset::{Chain, Field, KeyType, Match, Rule, Set, Value};

    fn addr(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// A ruleset with a set that allows and one that denies.
    fn ruleset() -> Ruleset {
        let mut all = skeleton(&Settings::default());
        for set in ["sel4_allow", "sel4_deny"] {
            all.sets.insert(set.into(), Set::of([KeyType::V4]));
        }
        let on = |set: &str| vec![Match::Set { key: vec![Field::SourceV4], set: set.into(), negated: false }];
        let rules = vec![Rule::deny(on("sel4_deny")), Rule::allow(on("sel4_allow")), Rule::deny(vec![])];
        all.chains.insert("list_a".into(), Chain { base: None, rules });
        all
    }

    fn after(change: impl Fn(&mut Delta)) -> Suspects {
        let mut delta = Delta::default();
        change(&mut delta);
        Suspects::after(&delta, &ruleset(), |_| vec![addr(9)])
    }

    #[test]
    fn who_leaves_a_set_is_suspect_and_who_enters_only_where_a_rule_denies() {
        let element = || Key::addr(addr(1));
        assert_eq!(after(|d| d.add_element(&"sel4_allow".into(), element(), Value::Plain)), Suspects::None);
        let one = Suspects::Of([addr(1)].into());
        assert_eq!(after(|d| d.remove_element(&"sel4_allow".into(), element(), Value::Plain)), one);
        assert_eq!(after(|d| d.add_element(&"sel4_deny".into(), element(), Value::Plain)), one);
    }

    #[test]
    fn another_list_makes_its_pod_suspect_and_what_is_about_interfaces_nobody() {
        let verdict = Value::Verdict(Verdict::Jump("list_a".into()));
        let change = |d: &mut Delta| d.add_element(&name(base::TO_POD), Key::interface("twl1"), verdict.clone());
        assert_eq!(after(change), Suspects::Of([addr(9)].into()));
        assert_eq!(after(|d| d.add_element(&name(base::KNOWN), Key::interface("twl1"), Value::Plain)), Suspects::None);
        assert_eq!(after(|d| drop(d.replace_rules.insert("list_a".into(), vec![]))), Suspects::All);
    }

    #[test]
    fn suspects_add_up() {
        let mut all = Suspects::None;
        all.add(Suspects::Of([addr(1)].into()));
        all.add(Suspects::Of([addr(2)].into()));
        assert!(all.holds([addr(2), addr(7)]) && !all.holds([addr(7), addr(8)]));
        all.add(Suspects::All);
        all.add(Suspects::None);
        assert_eq!(all, Suspects::All);
    }
}
