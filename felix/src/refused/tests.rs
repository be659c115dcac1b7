//! What goes with a part that is left out.

use super::*;
use crate::base::{Settings, name, skeleton};
use crate::compile::interpret::{Fate, Packet, interpret};
use crate::ruleset::{Action, Chain, Field, Hook, Key, KeyType, Match, Rule, Set, Value, Verdict};
use std::net::IpAddr;

fn addr(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

/// Three workloads: the first's ingress looks into a set and leads on to the second's, the third has none.
fn ruleset() -> Ruleset {
    let mut all = skeleton(&Settings::default());
    let members = [(Key::addr(addr(3)), Value::Plain)];
    all.sets.insert("sel4_a".into(), Set::of([KeyType::V4]).with(members));
    let on = Match::Set { key: vec![Field::SourceV4], set: "sel4_a".into(), negated: false };
    let on_to = Rule::new(vec![], Action::Verdict(Verdict::Goto("list_b".into())));
    all.chains.insert("list_a".into(), Chain { base: None, rules: vec![Rule::allow(vec![on]), on_to] });
    all.chains.insert("list_b".into(), Chain { base: None, rules: vec![Rule::deny(vec![])] });
    for n in 1..=3 {
        let ifname = Key::interface(&format!("twl{n}"));
        let mut put = |set: &str, key, value| all.sets.get_mut(set).unwrap().elements.insert(key, value);
        put(base::KNOWN, ifname.clone(), Value::Plain);
        put(base::SOURCE_V4, ifname.clone().and_addr(addr(n)), Value::Plain);
        let list = match n {
            1 => "list_a",
            2 => "list_b",
            _ => continue,
        };
        put(base::TO_POD, ifname, Value::Verdict(Verdict::Jump(list.into())));
    }
    all.check().unwrap();
    all
}

fn passes(ruleset: &Ruleset, from: u8, to: u8) -> bool {
    let name = |n: u8| Some(format!("twl{n}"));
    let packet = Packet {
        in_interface: name(from),
        out_interface: name(to),
        src: addr(from),
        dst: addr(to),
        protocol: 6,
        src_port: 4000,
        dst_port: 80,
        came_to: None,
    };
    interpret(ruleset, Hook::Forward, &packet) == Fate::Passed
}

#[test]
fn who_needs_what_is_left_out_is_closed_both_ways_and_nobody_else() {
    let all = ruleset();
    assert!(passes(&all, 3, 1) && passes(&all, 1, 3) && passes(&all, 2, 3) && !passes(&all, 3, 2));
    let rest = without(&all, &BTreeSet::from([Part::Set("sel4_a".into())]));
    rest.check().unwrap();
    assert!(!rest.sets.contains_key("sel4_a") && !rest.chains.contains_key("list_a"));
    assert!(!passes(&rest, 3, 1) && !passes(&rest, 1, 3), "its own workload");
    assert!(passes(&rest, 2, 3), "another");
    let rest = without(&all, &BTreeSet::from([Part::Chain("list_b".into())]));
    rest.check().unwrap();
    assert!(!passes(&rest, 3, 1) && !passes(&rest, 2, 3), "the first one's list leads to it");
    assert_eq!(without(&all, &BTreeSet::new()), all);
}

#[test]
fn the_skeleton_is_never_left_out() {
    let all = ruleset();
    let about =
        |part: Part| Complaint { named: vec![(part.clone(), "no".into())], parts: [part].into(), why: "no".into() };
    for part in [Part::Set(name(base::KNOWN)), Part::Set(name(base::TO_POD)), Part::Chain(base::chain_name("forward"))]
    {
        assert!(!Refused::default().blame(&all, &about(part)));
    }
    assert!(!Refused::default().blame(&all, &about(Part::Set("sel4_unknown".into()))));
}
