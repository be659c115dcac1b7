//! What a change costs: how many messages, which does not depend on the machine, and how long, where the kernel's own work counts. Those bounds are
//! loose, they catch an order of magnitude; the figures are printed with `--nocapture`.

use crate::structure::with_table;
use crate::world::Namespace;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};
use twill_felix::base::{self, Settings, name, skeleton};
use twill_felix::io::nft::Table;
use twill_felix::ruleset::{Chain, Delta, End, Field, Key, KeyType, Match, Name, Rule, Ruleset, Set, Value, Verdict};

fn addr(n: u32) -> IpAddr {
    Ipv4Addr::from(0x0a2a_0000 + n).into()
}

fn veth(n: u32) -> String {
    format!("twl{n:011x}")
}

/// The elements of pod `n`, which has list `list_{n}`.
fn pod(n: u32) -> [(&'static str, Key, Value); 4] {
    let list: Name = format!("list_{n}").into();
    [
        (base::KNOWN, Key::interface(&veth(n)), Value::Plain),
        (base::SOURCE_V4, Key::interface(&veth(n)).and_addr(addr(n)), Value::Plain),
        (base::FROM_POD, Key::interface(&veth(n)), Value::Verdict(Verdict::Jump(list.clone()))),
        (base::TO_POD, Key::interface(&veth(n)), Value::Verdict(Verdict::Jump(list))),
    ]
}

fn list() -> Chain {
    let rule = |port: u16| {
        Rule::allow(vec![
            Match::Set { key: vec![Field::SourceV4], set: name("sel"), negated: false },
            Match::Ports { protocol: 6, side: End::Destination, ranges: std::iter::once(port..=port).collect() },
        ])
        .comment("np shop/frontend")
    };
    let rules = (1..10).map(rule).chain([Rule::deny(vec![]).comment("end of tier")]);
    Chain { base: None, rules: rules.collect() }
}

/// A table of pods with a list of ten rules each, and a selector with `members`.
fn cluster(pods: u32, members: u32) -> Ruleset {
    let mut all = skeleton(&Settings::default());
    all.sets.insert(name("sel"), Set::of([KeyType::V4]).with((0..members).map(|n| (Key::addr(addr(n)), Value::Plain))));
    for n in 0..pods {
        all.chains.insert(format!("list_{n}").into(), list());
        for (set, key, value) in pod(n) {
            all.sets.get_mut(set).unwrap().elements.insert(key, value);
        }
    }
    all.check().unwrap();
    all
}

/// Of a pod with a list of its own, of one with a list that is there, and of a resync that takes 20 of each away.
const MESSAGES: (usize, usize, usize) = (15, 4, 4);

/// Median of the commits of `deltas`, and the messages of the largest.
async fn costs(table: &Table, deltas: impl Iterator<Item = Delta>) -> (Duration, usize) {
    let (mut took, mut messages) = (Vec::new(), 0);
    for delta in deltas {
        let begun = Instant::now();
        messages = table.commit(delta).await.unwrap().messages.max(messages);
        took.push(begun.elapsed());
    }
    took.sort();
    (took[took.len() / 2], messages)
}

/// Median of the commits of `deltas`, as the caller sees it.
async fn median(table: &Table, deltas: impl Iterator<Item = Delta>) -> Duration {
    costs(table, deltas).await.0
}

#[test]
#[ignore = "needs root: make test"]
fn one_element_into_a_large_set_does_not_cost_its_size() {
    Namespace::new().run(|| {
        let begun = Instant::now();
        with_table(&cluster(100, 100_000), async |table| {
            println!("100k elements and 100 chains written: {:?}", begun.elapsed());
            let set = name("sel");
            let one = |n: u32, add: bool| {
                let mut delta = Delta::default();
                let (key, value) = (Key::addr(addr(1_000_000 + n)), Value::Plain);
                if add {
                    delta.add_element(&set, key, value)
                } else {
                    delta.remove_element(&set, key, value)
                }
                delta
            };
            let added = median(&table, (0..200).map(|n| one(n, true))).await;
            let removed = median(&table, (0..200).map(|n| one(n, false))).await;
            println!("one element into a set of 100k: {added:?}, out of it: {removed:?}");
            assert!(added < Duration::from_millis(5) && removed < Duration::from_millis(5));
        });
    });
}

#[test]
#[ignore = "needs root: make test"]
fn adding_a_pod_and_a_resync_cost_what_they_change() {
    for pods in [100, 250, 1000] {
        Namespace::new().run(move || {
            let begun = Instant::now();
            with_table(&cluster(pods, 1000), async |table| {
                println!("{pods} pods written: {:?}", begun.elapsed());
                let add = |n: u32| {
                    let mut delta = Delta::default();
                    delta.add_chains.insert(format!("list_{n}").into(), list());
                    for (set, key, value) in pod(n) {
                        delta.add_element(&name(set), key, value);
                    }
                    delta
                };
                let shared = |n: u32| {
                    let mut delta = Delta::default();
                    for (set, key, value) in pod(n) {
                        let value = if value == Value::Plain { value } else { to_first() };
                        delta.add_element(&name(set), key, value);
                    }
                    delta
                };
                let own = costs(&table, (0..20).map(|n| add(pods + n))).await;
                let existing = costs(&table, (0..20).map(|n| shared(pods + 20 + n))).await;
                println!("one pod beside {pods}: with a list of its own {own:?}, with an existing one {existing:?}");
                let begun = Instant::now();
                let commit = table.resync(cluster(pods, 1000)).await.unwrap();
                println!("resync that takes 40 pods away: {:?}, {} messages", begun.elapsed(), commit.messages);
                let begun = Instant::now();
                assert_eq!(table.resync(cluster(pods, 1000)).await.unwrap().messages, 0);
                println!("resync that finds nothing: {:?}", begun.elapsed());
                // The same whatever else the table holds.
                assert_eq!((own.1, existing.1, commit.messages), MESSAGES);
            });
        });
    }
}

fn to_first() -> Value {
    Value::Verdict(Verdict::Jump(name("list_0")))
}
