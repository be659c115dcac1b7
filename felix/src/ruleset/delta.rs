//! The difference of two rulesets, which is what one commit carries.
//!
//! A delta says what, not in which order: the order inside a batch (sets, chains and rules, map elements, removals) is the
//! encoder's, since it follows from what the kernel refers to.

use super::{Chain, Family, Key, Log, Match, Name, Rule, Ruleset, Set, Value, Verdict};
use crate::ruleset::{Action, KeyType};
use std::collections::{BTreeMap, BTreeSet};

/// Longest prefix of a log (NF_LOG_PREFIXLEN, less the final zero).
pub const LOG_PREFIX: usize = 127;

/// Changes to a table. Empty: nothing to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Sets to create, with their elements.
    pub add_sets: BTreeMap<Name, Set>,
    /// Chains to create, with their rules.
    pub add_chains: BTreeMap<Name, Chain>,
    /// Existing chains, base chains too, whose rules are to be these. Old and new change over in one instant.
    pub replace_rules: BTreeMap<Name, Vec<Rule>>,
    /// Changes to the elements of existing sets.
    pub elements: BTreeMap<Name, ElementChange>,
    /// Chains to delete. Nothing that stays may refer to them.
    pub remove_chains: BTreeSet<Name>,
    /// Sets to delete. Nothing that stays may refer to them.
    pub remove_sets: BTreeSet<Name>,
}

/// Changes to the elements of one set. Removals happen before additions: the same key in both changes its value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ElementChange {
    /// Elements to remove, each with the value that it has (an interval's end is part of its identity). One that is not there
    /// fails the batch.
    pub remove: BTreeMap<Key, Value>,
    /// Elements to add. One that is there already with the same value is fine, with another value fails the batch.
    pub add: BTreeMap<Key, Value>,
}

/// What a table is made of: a chain with its rules, or a set with its elements.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// A chain.
    Chain(Name),
    /// A set or a map.
    Set(Name),
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Chain(name) => write!(f, "chain {name}"),
            Self::Set(name) => write!(f, "set {name}"),
        }
    }
}

/// A ruleset that the kernel would refuse, or that would not mean what it says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{part}: {problem}")]
pub struct Fault {
    /// Where.
    pub part: Part,
    /// What is wrong.
    pub problem: String,
}

impl Delta {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.add_sets.is_empty()
            && self.add_chains.is_empty()
            && self.replace_rules.is_empty()
            && self.elements.is_empty()
            && self.remove_chains.is_empty()
            && self.remove_sets.is_empty()
    }

    /// What it creates or changes, and the chains that its elements lead to.
    #[must_use]
    pub fn parts(&self) -> BTreeSet<Part> {
        let sets = self.add_sets.keys().chain(self.elements.keys()).cloned().map(Part::Set);
        let new = self.add_sets.values().map(|set| &set.elements);
        let values = new.chain(self.elements.values().map(|change| &change.add)).flat_map(BTreeMap::values);
        let led_to =
            values.filter_map(|value| if let Value::Verdict(verdict) = value { verdict.chain() } else { None });
        let chains = self.add_chains.keys().chain(self.replace_rules.keys()).chain(led_to);
        sets.chain(chains.cloned().map(Part::Chain)).collect()
    }

    /// Adds an element to an existing set.
    pub fn add_element(&mut self, set: &Name, key: Key, value: Value) {
        self.elements.entry(set.clone()).or_default().add.insert(key, value);
    }

    /// Removes an element, which has this value, from an existing set.
    pub fn remove_element(&mut self, set: &Name, key: Key, value: Value) {
        self.elements.entry(set.clone()).or_default().remove.insert(key, value);
    }
}

impl Ruleset {
    /// What must change so that this becomes `desired`. A set whose declaration changed cannot become the other in place: it is
    /// removed and added under the same name, and so are the rules that refer to it (see [`Delta`]); elements of expiring sets
    /// are left to the kernel.
    #[must_use]
    pub fn difference(&self, desired: &Ruleset) -> Delta {
        let mut delta = Delta::default();
        let mut recreated = BTreeSet::new();
        for (name, set) in &desired.sets {
            match self.sets.get(name) {
                Some(actual) if actual.same_declaration(set) => {
                    let change = if set.timeout.is_some() { ElementChange::default() } else { changed(actual, set) };
                    if change != ElementChange::default() {
                        delta.elements.insert(name.clone(), change);
                    }
                }
                Some(_) => {
                    recreated.insert(name.clone());
                    delta.remove_sets.insert(name.clone());
                    delta.add_sets.insert(name.clone(), set.clone());
                }
                None => {
                    delta.add_sets.insert(name.clone(), set.clone());
                }
            }
        }
        delta.remove_sets.extend(self.sets.keys().filter(|n| !desired.sets.contains_key(*n)).cloned());
        for (name, chain) in &desired.chains {
            match self.chains.get(name) {
                Some(actual) if actual.base == chain.base => {
                    if actual.rules != chain.rules || chain.refers_to_any(&recreated) {
                        delta.replace_rules.insert(name.clone(), chain.rules.clone());
                    }
                }
                Some(_) => {
                    delta.remove_chains.insert(name.clone());
                    delta.add_chains.insert(name.clone(), chain.clone());
                }
                None => {
                    delta.add_chains.insert(name.clone(), chain.clone());
                }
            }
        }
        delta.remove_chains.extend(self.chains.keys().filter(|n| !desired.chains.contains_key(*n)).cloned());
        delta
    }

    /// Performs a delta on the typed form. Elements of expiring sets are not remembered: the kernel forgets them, too.
    pub fn apply(&mut self, delta: &Delta) {
        for name in &delta.remove_chains {
            self.chains.remove(name);
        }
        for name in &delta.remove_sets {
            self.sets.remove(name);
        }
        for (name, set) in &delta.add_sets {
            let mut set = set.clone();
            if set.timeout.is_some() {
                set.elements.clear();
            }
            self.sets.insert(name.clone(), set);
        }
        self.chains.extend(delta.add_chains.iter().map(|(n, c)| (n.clone(), c.clone())));
        for (name, rules) in &delta.replace_rules {
            if let Some(chain) = self.chains.get_mut(name) {
                chain.rules.clone_from(rules);
            }
        }
        for (name, change) in &delta.elements {
            let Some(set) = self.sets.get_mut(name).filter(|s| s.timeout.is_none()) else { continue };
            for key in change.remove.keys() {
                set.elements.remove(key);
            }
            set.elements.extend(change.add.iter().map(|(k, v)| (k.clone(), v.clone())));
        }
    }

    /// Puts in the elements with which a delta begins sets that expire.
    pub fn begin(&mut self, delta: &Delta) {
        for (name, new) in delta.add_sets.iter().filter(|(_, set)| set.timeout.is_some()) {
            if let Some(set) = self.sets.get_mut(name) {
                set.elements.clone_from(&new.elements);
            }
        }
    }

    /// Every reference has its object, every key its set's type. What passes here, the kernel accepts.
    ///
    /// # Errors
    /// The first fault found.
    pub fn check(&self) -> Result<(), Fault> {
        for (name, set) in &self.sets {
            check_set(self, set).map_err(|problem| Fault { part: Part::Set(name.clone()), problem })?;
        }
        for (name, chain) in &self.chains {
            for (i, rule) in chain.rules.iter().enumerate() {
                check_rule(self, rule).map_err(|problem| {
                    let problem = format!("rule {}: {problem}", i + 1);
                    Fault { part: Part::Chain(name.clone()), problem }
                })?;
            }
        }
        Ok(())
    }
}

impl Chain {
    fn refers_to_any(&self, sets: &BTreeSet<Name>) -> bool {
        !sets.is_empty() && self.rules.iter().any(|r| r.sets().any(|s| sets.contains(s)))
    }
}

impl Rule {
    /// Names of the sets and maps that it looks into.
    pub fn sets(&self) -> impl Iterator<Item = &Name> {
        let looked_up = self.matches.iter().filter_map(|m| match m {
            Match::Set { set, .. } => Some(set),
            _ => None,
        });
        looked_up.chain(match &self.action {
            Action::Map { map, .. } | Action::Translate { map, .. } => Some(map),
            Action::Log(log) => Some(&log.rates),
            _ => None,
        })
    }
}

impl Verdict {
    /// The chain that it leads to.
    #[must_use]
    pub fn chain(&self) -> Option<&Name> {
        match self {
            Verdict::Jump(name) | Verdict::Goto(name) => Some(name),
            _ => None,
        }
    }
}

fn changed(actual: &Set, desired: &Set) -> ElementChange {
    let differs = |from: &Set, key: &Key, value: &Value| from.elements.get(key) != Some(value);
    let pick = |of: &Set, from: &Set| {
        let picked = of.elements.iter().filter(|(k, v)| differs(from, k, v));
        picked.map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    ElementChange { remove: pick(actual, desired), add: pick(desired, actual) }
}

fn check_set(all: &Ruleset, set: &Set) -> Result<(), String> {
    if set.key.is_empty() {
        return Err("the key has no part".into());
    }
    let bytes = width(&set.key);
    if bytes > 64 {
        return Err(format!("the key has {bytes} bytes, the kernel takes 64"));
    }
    if set.interval && !matches!(set.key.as_slice(), [KeyType::V4 | KeyType::V6 | KeyType::Port]) {
        return Err("only a set of addresses or ports can have intervals".into());
    }
    let mut last: Option<&Key> = None;
    for (key, value) in &set.elements {
        let name = || key.text(&set.key);
        if key.bytes().len() != bytes {
            return Err(format!("element {} has {} bytes, the key {bytes}", name(), key.bytes().len()));
        }
        let fits = match value {
            Value::Plain => !set.map,
            Value::Through(end) => set.interval && end.bytes().len() == bytes && end > key,
            Value::Verdict(verdict) => {
                if let Some(chain) = verdict.chain().filter(|c| !all.chains.contains_key(*c)) {
                    return Err(format!("element {} leads to chain {chain}, which does not exist", name()));
                }
                set.map && set.data.is_empty()
            }
            Value::Mapped(to) => set.map && !set.data.is_empty() && to.bytes().len() == width(&set.data),
            Value::Expires(_) => set.timeout.is_some(),
        };
        if !fits {
            return Err(format!("element {} has a value that this kind of set cannot hold", name()));
        }
        if set.interval && last.is_some_and(|last| last >= key) {
            return Err(format!("element {} overlaps the one before", name()));
        }
        last = Some(if let Value::Through(end) = value { end } else { key });
    }
    Ok(())
}

/// Bytes of a key or of a map's value.
fn width(types: &[KeyType]) -> usize {
    match types {
        [one] => one.width(),
        parts => parts.iter().map(|part| part.padded()).sum(),
    }
}

fn check_rule(all: &Ruleset, rule: &Rule) -> Result<(), String> {
    for m in &rule.matches {
        match m {
            Match::Set { key, set, .. } => check_lookup(all, key, set, None)?,
            Match::Ports { ranges, .. } if ranges.is_empty() || ranges.iter().any(|r| r.is_empty()) => {
                return Err("a port match without ports".into());
            }
            Match::OriginalPorts { range, .. } if range.is_empty() => return Err("a port match without ports".into()),
            Match::Icmpv6Types(types) if types.is_empty() => return Err("an ICMPv6 match without types".into()),
            _ => {}
        }
    }
    match &rule.action {
        Action::Map { key, map } => check_lookup(all, key, map, Some(&[])),
        Action::Translate { key, map, family } => {
            let address = if *family == Family::V4 { KeyType::V4 } else { KeyType::V6 };
            check_lookup(all, key, map, Some(&[address, KeyType::Port]))
        }
        Action::Verdict(verdict) => match verdict.chain().filter(|c| !all.chains.contains_key(*c)) {
            Some(chain) => Err(format!("leads to chain {chain}, which does not exist")),
            None => Ok(()),
        },
        Action::Log(log) => check_log(all, log),
        Action::Masquerade | Action::ClampMss | Action::Trace => Ok(()),
    }
}

fn check_log(all: &Ruleset, log: &Log) -> Result<(), String> {
    check_lookup(all, &log.key, &log.rates, None)?;
    if all.sets.get(&log.rates).is_none_or(|set| !set.dynamic || set.timeout.is_none()) {
        return Err(format!("set {} holds rates and neither grows nor shrinks by itself", log.rates));
    }
    if log.prefix.len() > LOG_PREFIX || log.prefix.contains(['"', '\\']) {
        return Err(format!("the prefix {:?} is longer than {LOG_PREFIX} bytes or has quotes", log.prefix));
    }
    Ok(())
}

/// `data`: types of the values of a map, nothing of one to verdicts; none: it is a set.
fn check_lookup(all: &Ruleset, key: &[super::Field], set: &Name, data: Option<&[KeyType]>) -> Result<(), String> {
    let Some(found) = all.sets.get(set) else { return Err(format!("looks into set {set}, which does not exist")) };
    if found.map != data.is_some() {
        return Err(format!("set {set} is {} map", if found.map { "a" } else { "no" }));
    }
    if data.is_some_and(|data| found.data != data) {
        return Err(format!("map {set} leads to something else than this rule needs"));
    }
    if found.key != key.iter().map(|f| f.key_type()).collect::<Vec<_>>() {
        return Err(format!("looks into set {set} with a key of another type"));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::base::{FROM_POD, KNOWN, POOLS_V4, SOURCE_V4, Settings, chain_name, name, skeleton};
    use std::net::{IpAddr, Ipv4Addr};

    fn states() -> Vec<Ruleset> {
        let empty = skeleton(&Settings::default());
        let mut known = empty.clone();
        known.sets.get_mut(KNOWN).unwrap().elements.insert(Key::interface("twla"), Value::Plain);
        let mut isolated = known.clone();
        isolated.chains.insert("list_a".into(), Chain { base: None, rules: vec![Rule::deny(vec![])] });
        let verdict = Value::Verdict(Verdict::Jump("list_a".into()));
        isolated.sets.get_mut(FROM_POD).unwrap().elements.insert(Key::interface("twla"), verdict);
        let mut other = isolated.clone();
        other.chains.get_mut("list_a").unwrap().rules.insert(0, Rule::allow(vec![]));
        let pools = &mut other.sets.get_mut(POOLS_V4).unwrap().elements;
        pools.extend([Key::net("10.0.0.0/8".parse().unwrap())]);
        let mut redeclared = other.clone();
        redeclared.sets.get_mut(KNOWN).unwrap().size = Some(7);
        vec![Ruleset::default(), empty, known, isolated, other, redeclared]
    }

    #[test]
    fn the_difference_applied_is_the_other_state() {
        for from in states() {
            from.check().unwrap();
            for to in states() {
                let delta = from.difference(&to);
                assert_eq!(delta.is_empty(), from == to);
                let mut now = from.clone();
                now.apply(&delta);
                assert_eq!(now, to);
            }
        }
    }

    #[test]
    fn a_set_that_must_be_made_anew_takes_the_rules_that_look_into_it_along() {
        let all = states();
        let delta = all[4].difference(&all[5]);
        assert!(delta.remove_sets.contains(KNOWN) && delta.add_sets.contains_key(KNOWN));
        let with: Vec<String> = delta.replace_rules.keys().map(ToString::to_string).collect();
        assert_eq!(with, ["forward", "passed_on", "workload_input"].map(|chain| chain_name(chain).to_string()));
    }

    #[test]
    fn what_expires_is_not_compared_and_not_remembered() {
        let mut all = skeleton(&Settings::default());
        let flow = Key::addr(IpAddr::from(Ipv4Addr::LOCALHOST)).and_addr(IpAddr::from(Ipv4Addr::LOCALHOST));
        let mut delta = Delta::default();
        delta.add_element(&name(crate::base::CUT_V4), flow.and_protocol(6).and_port(1).and_port(2), Value::Plain);
        all.apply(&delta);
        assert_eq!(all, skeleton(&Settings::default()));
    }

    #[test]
    fn faults_are_found_before_the_kernel_does() {
        let fault = |change: &dyn Fn(&mut Ruleset)| {
            let mut all = states().remove(4);
            change(&mut all);
            all.check().unwrap_err().to_string()
        };
        let v4 = |last: u8| IpAddr::from(Ipv4Addr::new(10, 0, 0, last));
        let put = |set: &'static str, key: Key, value: Value| {
            fault(&move |all| drop(all.sets.get_mut(set).unwrap().elements.insert(key.clone(), value.clone())))
        };
        let rule = |rule: Rule| fault(&move |all| all.chains.get_mut("list_a").unwrap().rules.push(rule.clone()));
        assert!(fault(&|all| drop(all.chains.remove("list_a"))).contains("leads to chain list_a"));
        assert!(fault(&|all| drop(all.sets.remove(KNOWN))).contains("looks into set known, which does not exist"));
        assert!(put(SOURCE_V4, Key::addr(v4(1)), Value::Plain).contains("4 bytes, the key 20"));
        assert!(put(KNOWN, Key::interface("x"), Value::Verdict(Verdict::Drop)).contains("cannot hold"));
        assert!(put(POOLS_V4, Key::addr(v4(1)), Value::Plain).contains("overlaps"));
        let lookup = |key, set: &str| Match::Set { key, set: name(set), negated: false };
        assert!(
            rule(Rule::allow(vec![lookup(vec![super::super::Field::SourceV6], POOLS_V4)])).contains("another type")
        );
        assert!(rule(Rule::allow(vec![lookup(vec![super::super::Field::InInterface], FROM_POD)])).contains("is a map"));
        assert!(rule(Rule::allow(vec![Match::Icmpv6Types(vec![])])).contains("rule 3"));
    }
}
