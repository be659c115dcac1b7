//! What this kernel refuses for real: a set that is full, rules that it cannot take, lists that lead in a circle. Each costs its own
//! workload alone.

use crate::packets::{Kept, isolate, with_pods};
use crate::world::{Host, Namespace, Pod, Responder, ping, sh, tcp, udp};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;
use twill_felix::base::{self, name};
use twill_felix::io::nft::Enforced;
use twill_felix::ruleset::{Action, Chain, End, Field, Key, KeyType, Match, Part, Rule, Ruleset, Set, Value, Verdict};

/// A list that leads a workload's packets to rules of its own.
fn lead(all: &mut Ruleset, pod: &Pod, list: &str, rules: Vec<Rule>) {
    all.chains.insert(list.into(), Chain { base: None, rules });
    let verdict = Value::Verdict(Verdict::Jump(list.into()));
    all.sets.get_mut(base::TO_POD).unwrap().elements.insert(Key::interface(&pod.veth), verdict);
}

fn to(list: &str) -> Vec<Rule> {
    vec![Rule::new(vec![], Action::Verdict(Verdict::Goto(list.into())))]
}

/// Whether port 80 answers, on a machine that may be busy.
fn reaches(from: &Namespace, to: IpAddr) -> bool {
    (0..10).any(|_| tcp(from, to, 80).is_some())
}

/// A way to make the list of a workload one that the kernel refuses, and one of the parts that are to blame.
type Spoil = fn(&mut Ruleset, &Pod) -> Part;

fn full_set(all: &mut Ruleset, pod: &Pod) -> Part {
    let full = Set { size: Some(1), ..Set::of([KeyType::V4]) };
    let elements = (1..9).map(|i| (Key::addr(IpAddr::from([10, 0, 0, i])), Value::Plain));
    all.sets.insert("sel4_full".into(), full.with(elements));
    let on = Match::Set { key: vec![Field::SourceV4], set: "sel4_full".into(), negated: false };
    lead(all, pod, "list_full", vec![Rule::allow(vec![on]), Rule::deny(vec![])]);
    Part::Set("sel4_full".into())
}

/// Source NAT has no place in a filter.
fn wrong_hook(all: &mut Ruleset, pod: &Pod) -> Part {
    lead(all, pod, "list_masquerade", vec![Rule::new(vec![], Action::Masquerade)]);
    Part::Chain("list_masquerade".into())
}

fn circle(all: &mut Ruleset, pod: &Pod) -> Part {
    all.chains.insert("list_round".into(), Chain { base: None, rules: to("list_about") });
    lead(all, pod, "list_about", to("list_round"));
    Part::Chain("list_round".into())
}

#[test]
#[ignore = "needs root: make test"]
fn what_this_kernel_refuses_closes_the_workload_that_needs_it_and_nothing_else() {
    let mut host = Host::new();
    let (a, b, c) = (host.pod("twla"), host.pod("twlb"), host.pod("twlc"));
    let kept = Kept::open(&host);
    let _servers = [&a, &b, &c].map(|pod| Responder::new(&pod.namespace, 80));
    for spoil in [full_set, wrong_hook, circle] as [Spoil; 3] {
        let free = with_pods(&[&a, &b, &c]);
        let mut enforced = Enforced::default();
        kept.wait(enforced.resync(&kept.table, &free)).unwrap();
        assert!(reaches(&a.namespace, c.v4) && reaches(&c.namespace, a.v4));
        // In one batch with a list that is fine and comes after it in the alphabet, and one before.
        let mut all = free.clone();
        let part = spoil(&mut all, &c);
        isolate(&mut all, base::TO_POD, &b, vec![Rule::allow(vec![tcp_ports(&[80..=80])])]);
        isolate(&mut all, base::FROM_POD, &a, vec![Rule::allow(vec![])]);
        all.check().unwrap();
        let commit = kept.wait(enforced.commit(&kept.table, free.difference(&all), &all)).unwrap();
        println!("{part}: {} messages, {:?}, {:?}", commit.messages, commit.took, enforced.refused());
        let proven = enforced.refused().proven();
        // Of a circle each part is to blame.
        let blamed = if part == Part::Chain("list_round".into()) { 2 } else { 1 };
        assert!(proven.len() == blamed && proven.contains_key(&part) && !enforced.refused().is_in_doubt());
        assert!(commit.resynced);
        for peer in [&a, &b] {
            assert_eq!(tcp(&peer.namespace, c.v4, 80), None, "{part}: nothing passes to it");
        }
        for (v4, other) in [(a.v4, a.v6), (b.v4, b.v6)] {
            assert!(
                tcp(&c.namespace, v4, 80).is_none() && udp(&c.namespace, other, 80).is_none(),
                "{part}: nor from it"
            );
        }
        assert!(reaches(&host.namespace, c.v4) && ping(&host.namespace, c.v6), "its node reaches it");
        assert!(reaches(&a.namespace, b.v4), "{part}: another's list is in force");
        assert_eq!(udp(&a.namespace, b.v4, 80), None);
        assert_eq!(kept.resync(enforced.held(&all)).messages, 0, "what it says it holds it holds");
        // Still, when tried again.
        kept.wait(enforced.retry(&kept.table, &all)).unwrap();
        assert_eq!(enforced.refused().proven().len(), blamed);
        // A change that has nothing to do with it, and one that mends it.
        let mut delta = twill_felix::ruleset::Delta::default();
        delta.add_element(&name(base::NODES_V4), Key::addr(IpAddr::from([192, 0, 2, 9])), Value::Plain);
        let mut more = all.clone();
        more.apply(&delta);
        kept.wait(enforced.commit(&kept.table, delta, &more)).unwrap();
        assert_eq!(tcp(&a.namespace, c.v4, 80), None);
        kept.wait(enforced.commit(&kept.table, more.difference(&free), &free)).unwrap();
        assert!(enforced.refused().is_none());
        assert!(reaches(&a.namespace, c.v4) && reaches(&c.namespace, a.v4));
        assert_eq!(kept.resync(&free).messages, 0);
    }
}

#[test]
#[ignore = "needs root: make test"]
fn a_hundred_lists_that_the_kernel_refuses_are_told_from_a_hundred_that_it_takes() {
    let mut host = Host::new();
    let pod = host.pod("twla");
    let kept = Kept::open(&host);
    let free = with_pods(&[&pod]);
    let mut all = free.clone();
    let element = |n: u32| Key::interface(&format!("twlx{n}"));
    for n in 0..200 {
        let rules = if n % 2 == 0 { vec![Rule::new(vec![], Action::Masquerade)] } else { vec![Rule::deny(vec![])] };
        let list = format!("list_{n:03}");
        all.chains.insert(list.as_str().into(), Chain { base: None, rules });
        let verdict = Value::Verdict(Verdict::Jump(list.as_str().into()));
        all.sets.get_mut(base::TO_POD).unwrap().elements.insert(element(n), verdict);
    }
    let mut enforced = Enforced::default();
    let began = std::time::Instant::now();
    kept.wait(enforced.resync(&kept.table, &all)).unwrap();
    let first = began.elapsed();
    let mut turns = 0;
    while enforced.refused().is_in_doubt() {
        kept.wait(enforced.retry(&kept.table, &all)).unwrap();
        turns += 1;
    }
    println!("in force after {first:?}, all told apart after {:?} in {turns} more turns", began.elapsed());
    assert!(first < Duration::from_secs(2), "the rest does not wait for the proof");
    assert_eq!(enforced.refused().proven().len(), 100, "{:?}", enforced.refused());
    let held = enforced.held(&all).clone();
    let closed = Value::Verdict(Verdict::Jump(base::REFUSED.into()));
    for n in 0..200 {
        assert_eq!(held.sets[base::TO_POD].elements[&element(n)] == closed, n % 2 == 0, "{n}");
    }
    assert_eq!(kept.resync(&held).messages, 0);
}

fn tcp_ports(ranges: &[RangeInclusive<u16>]) -> Match {
    Match::Ports { protocol: 6, side: End::Destination, ranges: ranges.to_vec() }
}

/// One message holds 1,500 ranges.
#[test]
#[ignore = "needs root: make test"]
fn a_rule_with_every_second_port_is_one_rule_and_means_what_it_says() {
    let mut host = Host::new();
    let (a, b) = (host.pod("twla"), host.pod("twlb"));
    let kept = Kept::open(&host);
    let servers = [80, 81, 40_000, 40_001, 65_534].map(|port| Responder::new(&b.namespace, port));
    let even: Vec<RangeInclusive<u16>> = (1..32_768).map(|n| 2 * n..=2 * n).collect();
    let pairs: Vec<RangeInclusive<u16>> = (0..13_000).map(|n| 5 * n + 1..=5 * n + 2).collect();
    for (ranges, open) in [(even, [80, 40_000, 65_534]), (pairs, [81, 40_001, 40_001])] {
        let mut all = with_pods(&[&a, &b]);
        isolate(&mut all, base::TO_POD, &b, vec![Rule::allow(vec![tcp_ports(&ranges)])]);
        kept.resync(&all);
        for port in [80, 81, 40_000, 40_001, 65_534] {
            assert_eq!(tcp(&a.namespace, b.v4, port).is_some(), open.contains(&port), "{port}");
        }
        assert_eq!(kept.resync(&all).messages, 0);
    }
    drop(servers);
    assert!(host.namespace.run(|| sh("nft list chains inet")).contains("list_to_pod"));
}
