//! Played kernels: what they refuse is found and left out, and nobody else pays for it.

use super::*;
use crate::base::{self, Settings, skeleton};
use crate::refused::Cost;
use crate::ruleset::{Chain, Field, Key, KeyType, Match, Rule, Set, Value, Verdict};
use std::cell::{Cell, RefCell};
use std::net::IpAddr;

/// Takes what it is given unless it dislikes a part of it.
struct Played {
    holds: RefCell<Ruleset>,
    dislikes: RefCell<Vec<(Part, Errno)>>,
    /// Whether it says which message it does not like.
    numbers: bool,
    transactions: Cell<usize>,
}

impl Played {
    fn new(numbers: bool) -> Self {
        let holds = RefCell::new(skeleton(&Settings::default()));
        Self { holds, dislikes: RefCell::default(), numbers, transactions: Cell::new(0) }
    }

    fn dislike(&self, parts: &[(Part, Errno)]) {
        *self.dislikes.borrow_mut() = parts.to_vec();
    }

    fn perform(&self, delta: &Delta) -> Result<Commit, Error> {
        self.transactions.set(self.transactions.get() + 1);
        let parts = delta.parts();
        let mut next = self.holds.borrow().clone();
        next.apply(delta);
        next.check().unwrap();
        let mut refusals = Vec::new();
        for (part, errno) in self.dislikes.borrow().iter().filter(|(part, _)| parts.contains(part)) {
            refusals.push(Refusal { object: part.to_string(), part: Some(part.clone()), errno: *errno });
        }
        if refusals.is_empty() {
            *self.holds.borrow_mut() = next;
            return Ok(Commit { messages: parts.len(), ..Commit::default() });
        }
        // What depends on it is refused as well, the skeleton's maps too.
        let aside = refusals.iter().filter_map(|one| one.part.clone()).collect();
        let depends = Cost::of(&next, &aside).chains.into_iter().map(Part::Chain);
        for part in depends.chain([Part::Set(base::name(base::TO_POD))]).filter(|part| !aside.contains(part)) {
            refusals.push(Refusal { object: part.to_string(), part: Some(part), errno: Errno::ENOENT });
        }
        if !self.numbers {
            refusals = vec![Refusal { object: "transaction".into(), part: None, errno: refusals[0].errno }];
        }
        Err(Error::Refused { refusals, parts })
    }
}

impl Kernel for Played {
    async fn commit(&self, delta: Delta) -> Result<Commit, Error> {
        self.perform(&delta)
    }

    async fn attempt(&self, delta: Delta) -> Result<Commit, Error> {
        self.perform(&delta)
    }

    async fn resync(&self, desired: Ruleset) -> Result<Commit, Error> {
        let delta = self.holds.borrow().difference(&desired);
        self.perform(&delta)
    }
}

fn now<T>(job: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(job)
}

fn list(n: u8) -> Part {
    Part::Chain(format!("list_{n}").into())
}

fn set(n: u8) -> Part {
    Part::Set(format!("sel4_{n}").into())
}

fn interface(n: u8) -> Key {
    Key::interface(&format!("twl{n}"))
}

/// Workloads, each with a list of its own that looks into a set of its own; the last one's list leads on to the first one's.
fn wanted(workloads: u8) -> Ruleset {
    let mut all = skeleton(&Settings::default());
    for n in 0..workloads {
        let members = [(Key::addr(IpAddr::from([10, 0, 0, n])), Value::Plain)];
        all.sets.insert(format!("sel4_{n}").into(), Set::of([KeyType::V4]).with(members));
        let name = format!("sel4_{n}");
        let on = Match::Set { key: vec![Field::SourceV4], set: name.as_str().into(), negated: false };
        let mut rules = vec![Rule::allow(vec![on]).comment("NetworkPolicy shop/web ingress[0]"), Rule::deny(vec![])];
        if n + 1 == workloads {
            rules[1].action = crate::ruleset::Action::Verdict(Verdict::Goto("list_0".into()));
        }
        all.chains.insert(format!("list_{n}").into(), Chain { base: None, rules });
        let mut put = |set: &str, value| all.sets.get_mut(set).unwrap().elements.insert(interface(n), value);
        put(base::KNOWN, Value::Plain);
        put(base::TO_POD, Value::Verdict(Verdict::Jump(format!("list_{n}").into())));
    }
    all.check().unwrap();
    all
}

/// Interfaces that nothing passes.
fn closed(ruleset: &Ruleset) -> Vec<Key> {
    let to = Value::Verdict(Verdict::Jump(base::REFUSED.into()));
    let of = |map: &str| -> Vec<Key> {
        ruleset.sets[map].elements.iter().filter(|(_, value)| **value == to).map(|(key, _)| key.clone()).collect()
    };
    assert_eq!(of(base::FROM_POD), of(base::TO_POD), "both ways");
    of(base::TO_POD)
}

/// All in doubt is tried, however often its turn ends.
fn settled(enforced: &mut Enforced, kernel: &Played, wanted: &Ruleset) {
    while enforced.refused().is_in_doubt() {
        now(enforced.retry(kernel, wanted)).unwrap();
    }
}

#[test]
fn what_the_kernel_dislikes_is_left_out_by_its_number_or_without_and_costs_its_own_workloads() {
    let wanted = wanted(5);
    let all: Vec<Part> = [list(1), list(2), set(0), set(1), set(3)].to_vec();
    for numbers in [true, false] {
        for chosen in 0..1_u32 << all.len() {
            let bad: Vec<(Part, Errno)> = all
                .iter()
                .enumerate()
                .filter(|(i, _)| chosen >> i & 1 == 1)
                .map(|(_, part)| (part.clone(), Errno::ENFILE))
                .collect();
            let kernel = Played::new(numbers);
            kernel.dislike(&bad);
            let mut enforced = Enforced::default();
            let commit = now(enforced.resync(&kernel, &wanted)).unwrap();
            settled(&mut enforced, &kernel, &wanted);
            let aside: BTreeSet<Part> = bad.iter().map(|(part, _)| part.clone()).collect();
            assert!(*kernel.holds.borrow() == without(&wanted, &aside), "{bad:?}: {:?}", enforced.refused());
            assert!(enforced.held(&wanted) == &*kernel.holds.borrow());
            assert!(commit.messages > 0);
            // A list that is closed for its set anyway is not tried by itself.
            let proven: BTreeSet<Part> = enforced.refused().proven().keys().cloned().collect();
            let hidden = |part: &Part| *part == list(1) && aside.contains(&set(1));
            assert!(proven.is_subset(&aside) && aside.difference(&proven).all(hidden), "{proven:?} for {bad:?}");
            assert!(kernel.transactions.get() <= 2 + 2 * 2 * all.len() * if numbers { 1 } else { 8 });
        }
    }
}

#[test]
fn a_change_that_is_refused_closes_its_workloads_and_all_other_changes_take_effect() {
    let (before, after) = (wanted(3), wanted(6));
    let kernel = Played::new(true);
    let mut enforced = Enforced::default();
    now(enforced.resync(&kernel, &before)).unwrap();
    assert!(enforced.refused().is_none() && kernel.transactions.get() == 1);
    kernel.dislike(&[(set(4), Errno::EINVAL)]);
    let commit = now(enforced.commit(&kernel, before.difference(&after), &after)).unwrap();
    assert!(commit.resynced, "whose connections must be judged again is not said by the delta");
    assert_eq!(closed(&kernel.holds.borrow()), [interface(4)]);
    let why = &enforced.refused().proven()[&set(4)];
    assert!(why.contains("EINVAL") && why.contains("limit"), "{why}");
    // Changes go on, with what expires.
    let mut later = after.clone();
    let element = (Key::addr(IpAddr::from([10, 0, 0, 99])), Value::Plain);
    later.sets.get_mut("sel4_1").unwrap().elements.extend([element]);
    let mut delta = after.difference(&later);
    let cut = Key::addr(IpAddr::from([10, 0, 0, 1])).and_addr(IpAddr::from([10, 0, 0, 2]));
    delta.add_element(&base::name(base::CUT_V4), cut.and_protocol(6).and_port(1).and_port(2), Value::Plain);
    let commit = now(enforced.commit(&kernel, delta, &later)).unwrap();
    assert!(!commit.resynced && commit.messages == 2, "{commit:?}");
    // It goes: everything is as wanted.
    let delta = later.difference(&before);
    now(enforced.commit(&kernel, delta, &before)).unwrap();
    assert!(enforced.refused().is_none());
    assert!(*kernel.holds.borrow() == before && enforced.held(&before) == &before);
}

#[test]
fn what_is_refused_is_tried_again_when_it_changes_and_when_it_is_due() {
    let wanted = wanted(3);
    let kernel = Played::new(true);
    kernel.dislike(&[(set(1), Errno::ENFILE), (list(2), Errno::EOPNOTSUPP)]);
    let mut enforced = Enforced::default();
    now(enforced.resync(&kernel, &wanted)).unwrap();
    settled(&mut enforced, &kernel, &wanted);
    assert_eq!(closed(&kernel.holds.borrow()), [interface(1), interface(2)]);
    assert!(!enforced.is_due(), "not at once");
    now(enforced.retry(&kernel, &wanted)).unwrap();
    assert_eq!(enforced.refused().proven().len(), 2, "still");
    kernel.dislike(&[(set(1), Errno::ENFILE)]);
    now(enforced.retry(&kernel, &wanted)).unwrap();
    assert_eq!(closed(&kernel.holds.borrow()), [interface(1)]);
    kernel.dislike(&[]);
    let mut changed = wanted.clone();
    let element = Key::addr(IpAddr::from([10, 0, 0, 99]));
    changed.sets.get_mut("sel4_1").unwrap().elements.insert(element, Value::Plain);
    now(enforced.commit(&kernel, wanted.difference(&changed), &changed)).unwrap();
    assert!(enforced.refused().is_none());
    assert!(*kernel.holds.borrow() == changed);
}

#[test]
fn a_whole_class_of_rules_that_the_kernel_lacks_costs_a_few_transactions_for_each() {
    let wanted = wanted(60);
    let kernel = Played::new(true);
    let bad: Vec<_> = (0..30).map(|n| (list(2 * n), Errno::ENOENT)).collect();
    kernel.dislike(&bad);
    let mut enforced = Enforced::default();
    now(enforced.resync(&kernel, &wanted)).unwrap();
    settled(&mut enforced, &kernel, &wanted);
    // The last one's list leads to the first one's.
    assert_eq!(closed(&kernel.holds.borrow()).len(), 31);
    assert!(kernel.transactions.get() < 3 * bad.len(), "{}", kernel.transactions.get());
    let tried = kernel.transactions.get();
    now(enforced.retry(&kernel, &wanted)).unwrap();
    assert!(kernel.transactions.get() - tried <= 2, "named again, they need no other proof");
}

#[test]
fn want_of_memory_is_the_moment_s_until_it_comes_twice_and_what_is_not_policy_is_left_to_the_caller() {
    let wanted = wanted(2);
    let kernel = Played::new(true);
    kernel.dislike(&[(set(1), Errno::ENOMEM)]);
    let mut enforced = Enforced::default();
    let error = now(enforced.resync(&kernel, &wanted)).unwrap_err();
    assert!(error.is_refused_with(Errno::ENOMEM) && enforced.refused().is_none(), "{error}");
    now(enforced.resync(&kernel, &wanted)).unwrap();
    assert_eq!(closed(&kernel.holds.borrow()), [interface(1)]);
    for errno in [Errno::EPERM, Errno::EINVAL] {
        let kernel = Played::new(true);
        kernel.dislike(&[(Part::Set(base::name(base::KNOWN)), errno)]);
        let mut enforced = Enforced::default();
        let error = now(enforced.resync(&kernel, &wanted)).unwrap_err();
        assert!(error.is_refused_with(errno) && enforced.refused().is_none(), "{error}");
        assert!(*kernel.holds.borrow() == skeleton(&Settings::default()), "nothing half done");
    }
}

#[test]
fn a_ruleset_that_is_no_good_in_itself_is_closed_without_asking_the_kernel() {
    let fault = Error::Fault(crate::ruleset::Fault { part: set(1), problem: "element overlaps".into() });
    let complaint = complaint(&fault).unwrap();
    let mut refused = Refused::default();
    assert!(refused.blame(&wanted(2), &complaint));
    assert_eq!(refused.proven()[&set(1)], "element overlaps");
}
