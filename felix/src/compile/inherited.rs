//! What an earlier felix left in the table, and what may be done to it before the datastore has been heard.
//!
//! In flows the table as it was found and, at any time, the ruleset that follows from what is remembered; out flows what the table shall
//! hold meanwhile. What is remembered may lag behind what the earlier felix enforced. So its word opens nothing that was closed and
//! closes nothing that was open: an interface of before keeps what it had, and only one attached since is judged by what is
//! remembered. An address that was given or taken since is nowhere but where it is remembered to belong.

use crate::base::{self, HOST};
use crate::ruleset::{Action, Chain, Key, KeyType, Name, Ruleset, Set, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Sets that are neither about interfaces nor about pods.
const OF_THE_CLUSTER: [&str; 8] = [
    base::POOLS_V4,
    base::POOLS_V6,
    base::NAT_V4,
    base::NAT_V6,
    base::NODES_V4,
    base::NODES_V6,
    base::SERVICES_V4,
    base::SERVICES_V6,
];

/// The table as it was found.
#[derive(Debug, Default)]
pub struct Inherited {
    /// None: there was none, so nothing is enforced yet.
    left: Option<Ruleset>,
    /// Interfaces attached since.
    attached: BTreeSet<Key>,
    /// Interfaces of before whose pods have ended since.
    ended: BTreeSet<Key>,
    /// Addresses that were given or taken since.
    moved: BTreeSet<Key>,
}

impl Inherited {
    /// What was found in the kernel; none if there was no table.
    #[must_use]
    pub fn new(left: Option<Ruleset>) -> Self {
        Self { left, ..Self::default() }
    }

    /// Whether there was a table.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.left.is_some()
    }

    /// Whether an interface is open in the way it was before.
    #[must_use]
    pub fn is_open(&self, ifname: &str) -> bool {
        let key = Key::interface(ifname);
        let known = self.left.as_ref().and_then(|left| left.sets.get(base::KNOWN));
        known.is_some_and(|known| known.elements.contains_key(&key)) && !self.ended.contains(&key)
    }

    /// An interface that is not open is attached now.
    pub fn attach(&mut self, ifname: &str, addresses: &[IpAddr]) {
        self.attached.insert(Key::interface(ifname));
        self.moved.extend(addresses.iter().map(|address| Key::addr(*address)));
    }

    /// An interface is no longer there, and its pod has no address any more.
    pub fn end(&mut self, ifname: &str, addresses: &[IpAddr]) {
        let key = Key::interface(ifname);
        self.attached.remove(&key);
        self.ended.insert(key);
        self.moved.extend(addresses.iter().map(|address| Key::addr(*address)));
    }

    /// What the table shall hold, if this is what follows from what is remembered.
    #[must_use]
    pub fn with(&self, remembered: &Ruleset) -> Ruleset {
        let mut wanted = remembered.clone();
        let Some(left) = &self.left else { return wanted };
        for (name, chain) in
            left.chains.iter().filter(|(name, chain)| chain.base.is_none() && name.starts_with(base::LIST))
        {
            wanted.chains.entry(name.clone()).or_insert_with(|| chain.clone());
        }
        // The host's own interfaces stay as they are. A table of a release without HostPolicies has no such chains.
        let of_the_host = || left.chains.iter().filter(|(name, _)| name.starts_with(HOST));
        if of_the_host().next().is_some() {
            // One that an earlier release did not have begins as it is here.
            let is_new = |name: &Name, chain: &Chain| chain.base.is_none() && !left.chains.contains_key(name);
            wanted.chains.retain(|name, chain| !name.starts_with(HOST) || is_new(name, chain));
            wanted.chains.extend(of_the_host().map(|(name, chain)| (name.clone(), chain.clone())));
            renew_failsafes(&mut wanted, remembered);
        }
        for (name, before) in &left.sets {
            let elements = match remembered.sets.get(name) {
                Some(set) if set.same_declaration(before) => self.elements(name, before, Some(set)),
                // Of another skeleton: what is looked up in it is this one's.
                Some(_) => continue,
                None => self.elements(name, before, None),
            };
            wanted.sets.entry(name.clone()).or_insert_with(|| before.clone()).elements = elements;
        }
        keep_used(&mut wanted, left);
        wanted
    }

    fn elements(&self, name: &Name, before: &Set, now: Option<&Set>) -> BTreeMap<Key, Value> {
        if OF_THE_CLUSTER.contains(&name.as_ref()) || before.interval || before.timeout.is_some() {
            return before.elements.clone();
        }
        if !before.data.is_empty() {
            return self.mapped(before, now);
        }
        let by_interface = base::BY_INTERFACE.contains(&name.as_ref());
        let comes = |key: &Key| {
            let Some((_, about)) = key.about(&before.key) else { return false };
            if by_interface { self.attached.contains(&about) } else { self.moved.contains(&about) }
        };
        let ended = |key: &Key| key.about(&before.key).is_some_and(|(_, about)| self.ended.contains(&about));
        let goes = |key: &Key| comes(key) || by_interface && ended(key);
        // A selector that nobody used before comes whole, as a set that nobody used before does.
        let selectors: BTreeSet<Key> = before.elements.keys().filter_map(|key| selector(before, key)).collect();
        let is_new = |key: &Key| selector(before, key).is_some_and(|selector| !selectors.contains(&selector));
        let stays = before.elements.iter().filter(|(key, _)| !goes(key));
        let new = now.into_iter().flat_map(|set| &set.elements).filter(|(key, _)| comes(key) || is_new(key));
        stays.chain(new).map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// What leads to an address that was given or taken since is as it is remembered.
    fn mapped(&self, before: &Set, now: Option<&Set>) -> BTreeMap<Key, Value> {
        let moved = |value: &Value| {
            let Value::Mapped(to) = value else { return false };
            to.about(&before.data).is_some_and(|(_, address)| self.moved.contains(&address))
        };
        let stays = before.elements.iter().filter(|(_, value)| !moved(value));
        let new = now.into_iter().flat_map(|set| &set.elements).filter(|(_, value)| moved(value));
        stays.chain(new).map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

/// What passes before policies follows from the node itself, not from memory: the way to a datastore that is somewhere else by now must be
/// open before it can be heard. What the kernel lets pass beside that stays until then: memory may know less, as one that an earlier release
/// wrote does.
fn renew_failsafes(wanted: &mut Ruleset, now: &Ruleset) {
    for name in [base::HOST_FAILSAFE_IN, base::HOST_FAILSAFE_OUT].map(base::chain_name) {
        let Some(now) = now.chains.get(&name) else { continue };
        let chain = wanted.chains.entry(name).or_insert_with(|| now.clone());
        let before = std::mem::replace(&mut chain.rules, now.rules.clone());
        chain.rules.extend(before.into_iter().filter(|rule| !now.rules.contains(rule)));
    }
}

/// Of the policy that is remembered only what an interface attached since uses: the rest stands in the kernel, or is not needed yet.
fn keep_used(wanted: &mut Ruleset, left: &Ruleset) {
    let verdicts = wanted.sets.values().flat_map(|set| set.elements.values());
    let mapped = verdicts.filter_map(|value| if let Value::Verdict(verdict) = value { verdict.chain() } else { None });
    let mut due: Vec<Name> =
        mapped.chain(wanted.chains.keys().filter(|name| !name.starts_with(base::LIST))).cloned().collect();
    let (mut chains, mut sets) = (BTreeSet::new(), BTreeSet::new());
    while let Some(name) = due.pop() {
        let Some(chain) = wanted.chains.get(&name).filter(|_| chains.insert(name.clone())) else { continue };
        for rule in &chain.rules {
            sets.extend(rule.sets().cloned());
            if let Action::Verdict(verdict) = &rule.action {
                due.extend(verdict.chain().cloned());
            }
        }
    }
    wanted.chains.retain(|name, _| chains.contains(name) || left.chains.contains_key(name));
    wanted.sets.retain(|name, _| sets.contains(name) || left.sets.contains_key(name));
}

/// Which of the selectors that share a set an element is of. Each has an element at least, its marker.
fn selector(set: &Set, key: &Key) -> Option<Key> {
    let shared = set.key.first() == Some(&KeyType::Selector);
    key.first_selector().filter(|_| shared)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::base::{Settings, skeleton};
    use crate::ruleset::{Field, Match, Rule, Verdict};

    const OLD: &str = "twl00000000001";
    const CUT: &str = "twl00000000002";
    const NEW: &str = "twl00000000003";

    fn addr(last: u8) -> IpAddr {
        IpAddr::from([10, 42, 0, last])
    }

    fn put(ruleset: &mut Ruleset, set: &str, key: Key, value: Value) {
        ruleset.sets.get_mut(set).unwrap().elements.insert(key, value);
    }

    /// One interface with a list that refers to a set.
    fn attach(ruleset: &mut Ruleset, ifname: &str, last: u8, list: &str) {
        let key = Key::interface(ifname);
        put(ruleset, base::KNOWN, key.clone(), Value::Plain);
        put(ruleset, base::SOURCE_V4, key.clone().and_addr(addr(last)), Value::Plain);
        ruleset.chains.insert(list.into(), Chain { base: None, rules: vec![Rule::deny(vec![])] });
        put(ruleset, base::TO_POD, key, Value::Verdict(Verdict::Jump(list.into())));
    }

    fn peers(ruleset: &mut Ruleset, name: &str, lasts: &[u8]) {
        let elements = lasts.iter().map(|last| (Key::addr(addr(*last)), Value::Plain));
        ruleset.sets.insert(name.into(), Set::of([KeyType::V4]).with(elements));
    }

    /// The kernel: one open interface with a tighter list than is remembered, and a cut one. Remembered: both open.
    fn found() -> (Inherited, Ruleset) {
        let mut left = skeleton(&Settings::default());
        attach(&mut left, OLD, 1, "list_tight");
        peers(&mut left, "sel4_a", &[1, 2]);
        put(&mut left, base::NODES_V4, Key::addr(addr(200)), Value::Plain);
        let mut remembered = skeleton(&Settings::default());
        attach(&mut remembered, OLD, 1, "list_loose");
        attach(&mut remembered, CUT, 2, "list_loose");
        peers(&mut remembered, "sel4_a", &[1, 2, 7]);
        (Inherited::new(Some(left)), remembered)
    }

    fn known(ruleset: &Ruleset) -> Vec<String> {
        ruleset.sets[base::KNOWN].elements.keys().map(|key| key.text(&[KeyType::Interface])).collect()
    }

    fn members(ruleset: &Ruleset, set: &str) -> Vec<String> {
        ruleset.sets[set].elements.keys().map(|key| key.text(&[KeyType::V4])).collect()
    }

    fn list(ruleset: &Ruleset, ifname: &str) -> Option<Value> {
        ruleset.sets[base::TO_POD].elements.get(&Key::interface(ifname)).cloned()
    }

    fn jump(to: &str) -> Option<Value> {
        Some(Value::Verdict(Verdict::Jump(to.into())))
    }

    #[test]
    fn what_the_node_needs_now_passes_beside_what_it_needed_and_the_rest_of_the_host_stays() {
        let (out, list) = (base::chain_name(base::HOST_FAILSAFE_OUT), base::chain_name(base::HOST_EGRESS));
        let named = |texts: &[&str]| -> Vec<Rule> {
            texts.iter().map(|text| Rule::allow(vec![]).comment((*text).to_owned())).collect()
        };
        let rules = |text: &str| named(&[text]);
        let mut left = skeleton(&Settings::default());
        for name in [&out, &list] {
            left.chains.insert(name.clone(), Chain { base: None, rules: rules("before") });
        }
        let inherited = Inherited::new(Some(left));
        let mut remembered = skeleton(&Settings::default());
        let held = inherited.with(&remembered);
        assert_eq!((&held.chains[&out].rules, &held.chains[&list].rules), (&rules("before"), &rules("before")));
        for name in [&out, &list] {
            remembered.chains.insert(name.clone(), Chain { base: None, rules: rules("now") });
        }
        let held = inherited.with(&remembered);
        assert_eq!(held.chains[&out].rules, named(&["now", "before"]));
        assert_eq!(held.chains[&list].rules, rules("before"));
        // The same again is there once, and what stands in the kernel is what is wanted.
        let again = Inherited::new(Some(held.clone())).with(&remembered);
        assert_eq!(again.chains, held.chains);
        remembered.chains.get_mut(&out).unwrap().rules = named(&["before", "now"]);
        assert_eq!(inherited.with(&remembered).chains[&out].rules, named(&["before", "now"]));
    }

    #[test]
    fn what_is_remembered_neither_opens_nor_closes_what_was_there() {
        let (inherited, remembered) = found();
        let wanted = inherited.with(&remembered);
        assert!(inherited.is_open(OLD) && !inherited.is_open(CUT));
        assert_eq!(known(&wanted), [format!("\"{OLD}\"")]);
        assert_eq!(list(&wanted, OLD), jump("list_tight"));
        assert_eq!(members(&wanted, "sel4_a"), ["10.42.0.1", "10.42.0.2"], "10.42.0.7 may be another's by now");
        assert_eq!(members(&wanted, base::NODES_V4), ["10.42.0.200"]);
        assert!(!wanted.chains.contains_key("list_loose"), "nobody here uses it");
        wanted.check().unwrap();
        // And nothing remembered about it closes it.
        let wanted = inherited.with(&skeleton(&Settings::default()));
        assert_eq!((known(&wanted).len(), list(&wanted, OLD)), (1, jump("list_tight")));
        wanted.check().unwrap();
    }

    #[test]
    fn an_interface_attached_since_is_judged_by_what_is_remembered_with_its_addresses() {
        let (mut inherited, mut remembered) = found();
        attach(&mut remembered, NEW, 7, "list_new");
        peers(&mut remembered, "sel4_b", &[7, 8]);
        peers(&mut remembered, "sel4_c", &[7, 8]);
        let source = Match::Set { key: vec![Field::SourceV4], set: "sel4_b".into(), negated: false };
        let end = Rule::new(vec![], Action::Verdict(Verdict::Goto("list_next".into())));
        remembered.chains.insert("list_new".into(), Chain { base: None, rules: vec![Rule::allow(vec![source]), end] });
        remembered.chains.insert("list_next".into(), Chain { base: None, rules: vec![Rule::deny(vec![])] });
        inherited.attach(NEW, &[addr(7)]);
        let wanted = inherited.with(&remembered);
        assert_eq!(known(&wanted), [format!("\"{OLD}\""), format!("\"{NEW}\"")]);
        assert_eq!((list(&wanted, NEW), list(&wanted, OLD)), (jump("list_new"), jump("list_tight")));
        assert_eq!(members(&wanted, "sel4_a"), ["10.42.0.1", "10.42.0.2", "10.42.0.7"]);
        assert_eq!(members(&wanted, "sel4_b"), ["10.42.0.7", "10.42.0.8"]);
        assert!(wanted.chains.contains_key("list_next") && !wanted.sets.contains_key("sel4_c"));
        wanted.check().unwrap();
    }

    #[test]
    fn what_ended_leaves_nothing_and_its_address_has_no_rights_left() {
        let (mut inherited, mut remembered) = found();
        inherited.end(OLD, &[addr(1)]);
        peers(&mut remembered, "sel4_a", &[2]);
        remembered.sets.get_mut(base::KNOWN).unwrap().elements.clear();
        let wanted = inherited.with(&remembered);
        assert!(!inherited.is_open(OLD) && known(&wanted).is_empty() && list(&wanted, OLD).is_none());
        assert!(wanted.sets[base::SOURCE_V4].elements.is_empty());
        assert_eq!(members(&wanted, "sel4_a"), ["10.42.0.2"]);
        // The same name again, by the same container: a new attachment.
        attach(&mut remembered, OLD, 9, "list_loose");
        inherited.attach(OLD, &[addr(9)]);
        assert_eq!(list(&inherited.with(&remembered), OLD), jump("list_loose"));
    }

    #[test]
    fn in_a_set_that_selectors_share_only_a_new_selector_comes_whole() {
        let shared = |ruleset: &mut Ruleset, members: &[(u64, u8)]| {
            let key = |(selector, last): &(u64, u8)| (Key::selector(*selector).and_addr(addr(*last)), Value::Plain);
            let set = Set::of([KeyType::Selector, KeyType::V4]).with(members.iter().map(key));
            ruleset.sets.insert("sel4_all".into(), set);
        };
        let mut left = skeleton(&Settings::default());
        shared(&mut left, &[(1, 0), (1, 5), (2, 0)]);
        let mut remembered = skeleton(&Settings::default());
        attach(&mut remembered, NEW, 7, "list_new");
        shared(&mut remembered, &[(1, 0), (1, 6), (1, 7), (2, 0), (2, 6), (3, 0), (3, 6)]);
        let mut inherited = Inherited::new(Some(left));
        inherited.attach(NEW, &[addr(7)]);
        let wanted = inherited.with(&remembered);
        let types = &wanted.sets["sel4_all"].key;
        let shown = |key: &Key| (key.bytes()[7], key.address(types).unwrap().to_string());
        let members: Vec<(u8, String)> = wanted.sets["sel4_all"].elements.keys().map(shown).collect();
        let expected =
            [(1, 0), (1, 5), (1, 7), (2, 0), (3, 0), (3, 6)].map(|(selector, last)| (selector, addr(last).to_string()));
        assert_eq!(members, expected);
    }

    #[test]
    fn without_a_table_there_is_only_what_is_remembered() {
        let (_, remembered) = found();
        assert_eq!(Inherited::new(None).with(&remembered), remembered);
    }
}
