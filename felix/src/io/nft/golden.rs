//! Our bytes judged by others: by `netlink-packet-netfilter`, which reads them and writes them again, and by what `nft` sent for
//! the same declarations.

use super::batch::{Batch, Extras, encode, everything, read_hash, rule_hash};
use super::set::{self, ElementReader};
use super::wire::{Attributes, Writer, messages};
use crate::base::{Settings, skeleton};
use crate::ruleset::{
    Action, Chain, CtStates, Delta, End, Field, Key, KeyType, Match, Rule, Ruleset, Set, Value, Verdict,
};
use netlink_packet_core::{Emitable, NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

fn batch(delta: &Delta) -> Batch {
    let declared = delta.add_sets.clone();
    let declared: &'static Ruleset = Box::leak(Box::new(Ruleset { sets: declared, ..Ruleset::default() }));
    let extras = Extras { table: Some(6), generation: Some(7), policies: &[] };
    encode(delta, extras, 1, |name| declared.sets.get(name))
}

/// The messages of a batch in the crate's words; each must come out of the crate as it went in.
fn read_by_the_crate(bytes: &[u8]) -> Vec<String> {
    let mut rest = bytes;
    let mut out = Vec::new();
    while !rest.is_empty() {
        let length = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
        let message = NetlinkMessage::<NetfilterMessage>::deserialize(&rest[..length]).unwrap();
        // Its batch messages have no attributes; all others it must write as we did.
        if messages(rest).next().and_then(|m| m.nft()).is_some() {
            let mut again = vec![0; message.buffer_len()];
            message.emit(&mut again);
            let plain = |bytes: &[u8]| messages(bytes).next().map(|m| format!("{:?}", m.attributes())).unwrap();
            assert_eq!(plain(&again), plain(&rest[..length]), "{message:?}");
        }
        if let NetlinkPayload::InnerMessage(NetfilterMessage { inner: NetfilterMessageInner::NfTables(m), .. }) =
            message.payload
        {
            out.push(format!("{m:?}"));
        }
        rest = &rest[length..];
    }
    out
}

#[test]
fn another_implementation_reads_the_whole_skeleton() {
    let all = skeleton(&Settings::default());
    let batch = batch(&everything(&all));
    let read = read_by_the_crate(&batch.bytes);
    assert_eq!(read.len(), batch.len());
    let count = |what: &str| read.iter().filter(|m| m.starts_with(what)).count();
    assert_eq!(count("NewTable"), 1);
    assert_eq!(count("NewChain"), all.chains.len());
    assert_eq!(count("NewRule"), all.chains.values().map(|c| c.rules.len()).sum::<usize>());
    assert!(count("NewSet(") > all.sets.len(), "anonymous sets besides");
}

#[test]
fn one_of_each_in_another_implementations_words() {
    let v4 = |last: u8| IpAddr::from(Ipv4Addr::new(10, 0, 0, last));
    let mut all = Ruleset::default();
    all.sets.insert("known".into(), Set::of([KeyType::Interface]).with([(Key::interface("eth0"), Value::Plain)]));
    let nets = Set::of([KeyType::V4]).interval().with([Key::net("10.0.0.0/8".parse().unwrap())]);
    all.sets.insert("nets".into(), nets);
    let expiring = Set::of([KeyType::V4, KeyType::Port]).expiring(Duration::from_secs(9));
    let element = (Key::addr(v4(1)).and_port(80), Value::Expires(Duration::from_secs(1)));
    all.sets.insert("short".into(), expiring.with([element]));
    let map = Set::of([KeyType::Interface]).verdict_map();
    let element = (Key::interface("eth0"), Value::Verdict(Verdict::Goto("list".into())));
    all.sets.insert("to".into(), map.with([element]));
    let ports = Match::Ports { protocol: 6, side: End::Destination, ranges: vec![80..=80, 90..=99] };
    let rules = vec![
        Rule::deny(vec![Match::CtState(CtStates::INVALID), ports]).comment("why"),
        Rule::new(vec![], Action::Map { key: vec![Field::InInterface], map: "to".into() }),
    ];
    all.chains.insert("list".into(), Chain { base: None, rules });
    insta::assert_snapshot!(read_by_the_crate(&batch(&everything(&all)).bytes).join("\n"));
}

/// Captured from `nft` 1.0.6 (`--debug=mnl`), attributes of NEWSET in table `inet twill`.
#[test]
fn declarations_are_byte_for_byte_what_nft_sends() {
    let hex = |text: &str| -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
    };
    let ours = |name: &str, id: u32, set: Set| {
        let mut w = Writer::default();
        set::declaration(&mut w, name, id, &set);
        w.into_bytes()
    };
    let known = hex(
        "0a000100 7477696c 6c000000 0a000200 6b6e6f77 6e000000 08000300 00000000 08000400 00000029 08000500 00000010
         08000a00 00000001 12000d00 00040100 00000706 68656c6c 6f000000",
    );
    assert_eq!(ours("known", 1, Set::of([KeyType::Interface]).comment("hello")), known);
    let pools4 = hex(
        "0a000100 7477696c 6c000000 0b000200 706f6f6c 73340000 08000300 00000004 08000400 00000007 08000500 00000004
         08000a00 00000006 0a000d00 00040200 00000000",
    );
    assert_eq!(ours("pools4", 6, Set::of([KeyType::V4]).interval()), pools4);
}

#[test]
fn lists_of_elements_stay_below_the_length_of_an_attribute() {
    let elements = (0..10_000).map(|n| (Key::addr(IpAddr::from(Ipv4Addr::from(n))), Value::Plain));
    let mut all = Ruleset::default();
    all.sets.insert("many".into(), Set::of([KeyType::V4]).with(elements));
    let batch = batch(&everything(&all));
    let mut elements = 0;
    for m in messages(&batch.bytes).filter(|m| m.nft() == Some(super::wire::message::NEW_ELEMENTS)) {
        let list = m.attributes().nested(set::LIST_ELEMENTS).unwrap();
        assert!(list.0.len() < usize::from(u16::MAX) - 4);
        elements += list.count();
    }
    assert_eq!(elements, 10_000);
    assert_eq!(batch.object(4).text, "elements of set many");
}

#[test]
fn the_hash_of_a_rule_is_found_behind_any_comment() {
    for comment in ["", "short", &"long ".repeat(50)] {
        let rule = Rule::deny(vec![]).comment(comment);
        let mut all = Ruleset::default();
        all.chains.insert("list".into(), Chain { base: None, rules: vec![rule.clone()] });
        let bytes = batch(&everything(&all)).bytes;
        let message = messages(&bytes).find(|m| m.nft() == Some(super::wire::message::NEW_RULE)).unwrap();
        let userdata = message.attributes().value(super::batch::RULE_USERDATA).unwrap();
        assert!(userdata.len() <= 256);
        assert_eq!(read_hash(userdata), Some(rule_hash(&rule)));
    }
    assert_eq!(read_hash(&[0, 200, 1]), None);
    assert_eq!(super::cut("\u{e9}\u{e9}", 3), "\u{e9}");
}

proptest! {
    #[test]
    fn ranges_survive_their_way_through_the_kernels_form(mut ends in prop::collection::btree_set(any::<u32>(), 2..40)) {
        if ends.len() % 2 == 1 {
            ends.pop_last();
        }
        let ends: Vec<u32> = ends.into_iter().collect();
        let addr = |n: u32| IpAddr::from(Ipv4Addr::from(n));
        let set = Set::of([KeyType::V4]).interval().with(ends.chunks(2).map(|e| Key::range(addr(e[0]), addr(e[1]))));
        let mut w = Writer::default();
        for (key, value) in &set.elements {
            set::element(&mut w, true, key, value);
        }
        let mut reader = ElementReader::new(&set);
        reader.read(Attributes(&w.into_bytes()));
        prop_assert_eq!(reader.finish(), set.elements);
    }
}
