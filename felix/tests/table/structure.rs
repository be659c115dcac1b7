//! What stands in the kernel is what was meant: judged by `nft`, and by reading it back.

use crate::world::{Namespace, nft, sh, try_sh};
use nftables::schema::NfListObject;
use nftables::stmt::Statement;
use nftables::types::NfChainPolicy;
use serde_json::Value as Json;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use twill_felix::base::{self, Settings, chain_name, name, skeleton};
use twill_felix::io::nft::{Error, Table};
use twill_felix::ruleset::{
    Action, Base, BaseKind, Chain, Direction, End, Family, Field, Hook, Interface, Key, KeyType, Match, Rate, Rule,
    Ruleset, Set, Value, Verdict,
};

/// The skeleton with something of everything that the types can say.
pub(crate) fn rich() -> Ruleset {
    let mut all = skeleton(&Settings::default());
    let v6 = |last: u16| IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last));
    let v4 = |last: u8| IpAddr::from(Ipv4Addr::new(10, 0, 0, last));
    let mut set = |set: &str, elements: Vec<(Key, Value)>| {
        all.sets.get_mut(set).unwrap().elements = elements.into_iter().collect();
    };
    set(base::KNOWN, vec![(Key::interface("twl0123456789a"), Value::Plain), (Key::interface("twlb"), Value::Plain)]);
    set(base::SOURCE_V4, vec![(Key::interface("twlb").and_addr(v4(7)), Value::Plain)]);
    set(base::SOURCE_V6, vec![(Key::interface("twlb").and_addr(v6(7)), Value::Plain)]);
    let nets = ["0.0.0.0/8", "10.42.0.0/24", "10.42.1.0/24", "192.0.2.1/32", "255.0.0.0/8"];
    set(base::POOLS_V4, nets.iter().map(|n| Key::net(n.parse().unwrap())).collect());
    set(base::NAT_V6, vec![Key::net("fd00::/8".parse().unwrap()), Key::range(v6(1), v6(9))][..1].to_vec());
    set(base::FROM_POD, vec![(Key::interface("twlb"), Value::Verdict(Verdict::Jump("list_a".into())))]);
    set(base::TO_POD, vec![(Key::interface("twlb"), Value::Verdict(Verdict::Goto("list_b".into())))]);
    let port = |protocol, port| Key::protocol(protocol).and_port(port);
    let to = |address, port| Value::Mapped(Key::addr(address).and_port(port));
    set(base::HOSTPORT_V4, vec![(port(6, 80), to(v4(7), 8080)), (port(17, 53), to(v4(7), 5353))]);
    set(base::HOSTPORT_V6, vec![(port(132, 80), to(v6(7), 8080))]);
    set(base::HOSTPORT_AT_V4, vec![(Key::addr(v4(1)).and(&port(6, 80)), to(v4(8), 80))]);
    set(base::HOSTPORT_AT_V6, vec![(Key::addr(v6(1)).and(&port(6, 80)), to(v6(8), 80))]);
    set(base::HAIRPIN_V4, vec![(Key::addr(v4(7)).and_addr(v4(7)), Value::Plain)]);
    let ports = Set { size: Some(64), ..Set::of([KeyType::V4, KeyType::Protocol, KeyType::Port]) };
    all.sets.insert("np_1".into(), ports.with([(Key::addr(v4(1)).and_protocol(17).and_port(53), Value::Plain)]));
    let many: Vec<(Key, Value)> = [1..=1, 3..=9, 80..=80, 1000..=65535].iter().map(Key::ports).collect();
    all.sets.insert("ports_1".into(), Set::of([KeyType::Port]).interval().with(many));
    all.sets.insert("sel_6".into(), Set::of([KeyType::V6]).with((1..50).map(|i| (Key::addr(v6(i)), Value::Plain))));
    all.chains.insert("list_a".into(), Chain { base: None, rules: rich_rules() });
    let rules = vec![Rule::new(vec![], Action::Verdict(Verdict::Goto("list_a".into())))];
    all.chains.insert("list_b".into(), Chain { base: None, rules });
    all.check().unwrap();
    all
}

/// The same with a set of families, which nft lists and the crate that reads its lists does not know, and a base chain at the postrouting hook.
fn richer() -> Ruleset {
    let mut all = rich();
    let families = [Family::V4, Family::V6].map(|family| (Key::family(family), Value::Plain));
    all.sets.insert("host_trial_1".into(), Set::of([KeyType::Family]).with(families));
    let sends = Some(Base { kind: BaseKind::Filter, hook: Hook::Postrouting, priority: 0 });
    let gated = Match::Set { key: vec![Field::Family], set: "host_trial_1".into(), negated: false };
    let rules = vec![Rule::new(vec![gated], Action::Verdict(Verdict::Goto("list_a".into()))).comment("gated")];
    all.chains.insert(chain_name(base::HOST_SENDS), Chain { base: sends, rules });
    all.check().unwrap();
    all
}

fn rich_rules() -> Vec<Rule> {
    let ports = |protocol, ranges: &[(u16, u16)]| Match::Ports {
        protocol,
        side: End::Destination,
        ranges: ranges.iter().map(|(a, b)| *a..=*b).collect(),
    };
    let lookup = |key: &[Field], set: &str, negated| Match::Set { key: key.to_vec(), set: name(set), negated };
    let net = |net: &str, side, negated| Match::Address { side, net: net.parse().unwrap(), negated };
    let opened = |source: &str, destination: &str, port| Match::Opened {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        port,
    };
    let np = [Field::DestinationV4, Field::Protocol, Field::DestinationPort];
    vec![
        Rule::allow(vec![ports(6, &[(80, 80)])]).comment("one port"),
        Rule::allow(vec![ports(17, &[(1000, 2000)])]).comment("a range"),
        Rule::allow(vec![ports(132, &[(80, 80), (8080, 8090), (443, 443)])]).comment("several"),
        Rule::allow(vec![ports(6, &[(1, 65535), (7, 7)])]).comment("all"),
        Rule::allow(vec![ports(6, &[(3, 3), (5, 5), (9, 9)])]).comment("several single"),
        Rule::allow(vec![lookup(&np, "np_1", false)]).comment("named port"),
        Rule::allow(vec![Match::Protocol(6), lookup(&[Field::DestinationPort], "ports_1", false)])
            .comment("many ports"),
        Rule::deny(vec![lookup(&[Field::SourceV6], "sel_6", true), Match::Protocol(6)]).comment("not selected"),
        Rule::allow(vec![net("10.0.0.0/9", End::Source, false), net("10.1.2.3/32", End::Destination, true)]),
        Rule::allow(vec![net("fd00::/33", End::Destination, false), net("fe80::/10", End::Source, true)]),
        Rule::allow(vec![Match::OriginalPorts { protocol: 6, range: 80..=80 }]).comment("it came to"),
        Rule::allow(vec![Match::Translated, Match::OriginalPorts { protocol: 17, range: 7..=9 }]),
        Rule::allow(vec![Match::ForeignSource]),
        Rule::allow(vec![Match::Icmpv6Types(vec![133])]),
        Rule::allow(vec![Match::TcpFlags { mask: 0x12, value: 0x02, negated: true }]),
        Rule::allow(vec![Match::Interface {
            side: Direction::In,
            name: Interface::Named("eth0".into()),
            negated: true,
        }]),
        Rule::new(vec![Match::Family(Family::V6)], Action::Verdict(Verdict::Accept))
            .comment("with \u{e9} and \u{1f600}"),
        base::log(vec![ports(17, &[(53, 53)])], "list_a no rule allows it"),
        Rule::new(vec![ports(6, &[(80, 80)]), Match::Within(Rate { per_second: 20, burst: 7 })], Action::Trace),
        Rule::new(vec![opened("10.0.0.1", "10.96.0.10", Some((6, 80)))], Action::Trace),
        Rule::new(vec![opened("fd00::1", "fd96::10", Some((58, 0)))], Action::Trace),
        Rule::new(vec![opened("fd00::1", "fd96::10", None)], Action::Trace),
        Rule::deny(vec![]).comment("x".repeat(300)),
    ]
}

/// Opens the table with `ruleset` in the calling thread's namespace and gives it to `f`.
pub(crate) fn with_table<T>(ruleset: &Ruleset, f: impl AsyncFnOnce(Table) -> T) -> T {
    runtime().block_on(async {
        let (table, _events) = Table::open(skeleton(&Settings::default())).await.unwrap();
        table.resync(ruleset.clone()).await.unwrap();
        let result = f(table.clone()).await;
        hold_to_what_is_meant(&table).await;
        result
    })
}

/// The kernel holds what is meant, by our reading of netlink and by `nft`'s: at the end of every test, whatever it was about. In the
/// table's namespace.
pub(crate) async fn hold_to_what_is_meant(table: &Table) {
    let end = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        let verified = match table.verify().await {
            // Adopted, and nothing asked of it.
            Err(Error::NotSynced) => return,
            other => other.unwrap(),
        };
        let (_, kernel) = try_sh("nft -j list table inet twill");
        let found = twill_table_check::differences(&kernel, &verified.meant.to_string());
        if matches!(&found, Ok(found) if found.is_empty()) && verified.differs.is_empty() {
            return;
        }
        assert!(std::time::Instant::now() < end, "{found:?}, {:?}", verified.differs);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// What `nft -j list table` shows of the structure, without what differs between two tables of equal meaning.
pub(crate) fn listed() -> Vec<String> {
    let json: Json = serde_json::from_str(&sh("nft -j list table inet twill")).unwrap();
    // Objects sorted; rules by chain, in their order.
    let (mut objects, mut rules) = (Vec::new(), std::collections::BTreeMap::<String, Vec<String>>::new());
    for object in json["nftables"].as_array().unwrap() {
        let (kind, body) = object.as_object().unwrap().iter().next().unwrap();
        let mut body = body.clone();
        for volatile in ["handle", "index"] {
            body.as_object_mut().unwrap().remove(volatile);
        }
        match kind.as_str() {
            "metainfo" | "table" => {}
            "rule" => rules.entry(body["chain"].to_string()).or_default().push(format!("{kind} {body}")),
            _ => objects.push(format!("{kind} {body}")),
        }
    }
    objects.sort();
    objects.into_iter().chain(rules.into_values().flatten()).collect()
}

/// The objects as the `nftables` crate reads them. It reads neither maps to verdicts nor a single flag of masquerade, so those
/// are left out.
pub(crate) fn typed() -> Vec<NfListObject<'static>> {
    let json: Json = serde_json::from_str(&sh("nft -j list table inet twill")).unwrap();
    let objects = json["nftables"].as_array().unwrap().iter();
    let known = objects.filter(|o| {
        o.get("map").is_none() && o.get("metainfo").is_none() && !o["rule"]["expr"].to_string().contains("masquerade")
    });
    known.map(|o| serde_json::from_value(o.clone()).unwrap_or_else(|e| panic!("{e}: {o}"))).collect()
}

#[test]
#[ignore = "needs root: make test"]
fn every_chain_rule_and_set_is_there_under_its_name() {
    Namespace::new().run(|| {
        with_table(&rich(), async |_table| {
            let wanted = rich();
            let objects = typed();
            for (name, chain) in wanted.chains.iter().filter(|(n, _)| !n.starts_with("postrouting")) {
                let found = objects.iter().find_map(|o| match o {
                    NfListObject::Chain(c) if c.name == **name => Some(c),
                    _ => None,
                });
                let found = found.unwrap_or_else(|| panic!("chain {name}"));
                assert_eq!(found.prio, chain.base.map(|b| b.priority), "{name}");
                assert_eq!(found.policy, chain.base.map(|_| NfChainPolicy::Accept), "{name}");
                let rules: Vec<_> = objects
                    .iter()
                    .filter_map(|o| match o {
                        NfListObject::Rule(r) if r.chain == **name => Some(r),
                        _ => None,
                    })
                    .collect();
                assert_eq!(rules.len(), chain.rules.len(), "{name}");
                for (found, rule) in rules.iter().zip(&chain.rules) {
                    let comment: String = rule.comment.chars().take(127).collect();
                    assert_eq!(found.comment.as_deref().unwrap_or_default(), comment);
                    assert_eq!(found.expr.iter().any(|s| matches!(s, Statement::Counter(_))), rule.counter);
                }
            }
            for (name, set) in wanted.sets.iter().filter(|(_, s)| !s.map) {
                let found = objects.iter().find_map(|o| match o {
                    NfListObject::Set(c) if c.name == **name => Some(c),
                    _ => None,
                });
                let found = found.unwrap_or_else(|| panic!("set {name}"));
                assert_eq!(found.comment.as_deref().unwrap_or_default(), set.comment);
                assert_eq!(found.elem.as_ref().map_or(0, |e| e.len()), set.elements.len(), "{name}");
            }
        });
    });
}

#[test]
#[ignore = "needs root: make test"]
fn nft_lists_what_we_wrote_as_it_lists_the_same_text_written_by_itself() {
    let ours = Namespace::new().run(|| with_table(&richer(), async |_table| listed()));
    let theirs = Namespace::new().run(|| {
        // Comments beyond nft's limit it refuses; we cut them.
        let mut ruleset = richer();
        for rule in ruleset.chains.values_mut().flat_map(|c| &mut c.rules) {
            rule.comment = rule.comment.chars().take(127).collect();
        }
        nft(&script(&ruleset));
        listed()
    });
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.len(), theirs.len());
}

/// nft wants chains declared before rules lead to them, and `th` only after a protocol, which our key brings itself.
fn script(ruleset: &Ruleset) -> String {
    let mut declared = String::from("add table inet twill\n");
    for name in ruleset.chains.keys() {
        declared += &format!("add chain inet twill {name}\n");
    }
    let bases = ruleset.chains.iter().filter(|(_, c)| c.base.is_some());
    for (name, _) in bases {
        declared = declared.replace(&format!("add chain inet twill {name}\n"), "");
    }
    format!("{declared}table inet twill {{\n{ruleset}\n}}\n")
}

#[test]
#[ignore = "needs root: make test"]
fn what_is_read_back_is_what_was_wanted() {
    Namespace::new().run(|| {
        with_table(&richer(), async |table| {
            let again = table.resync(richer()).await.unwrap();
            assert_eq!(again.messages, 0, "nothing differs");
        });
    });
}

#[test]
#[ignore = "needs root: make test"]
fn any_road_of_deltas_ends_in_the_state_that_a_resync_finds_right() {
    Namespace::new().run(|| {
        with_table(&skeleton(&Settings::default()), async |table| {
            let mut now = skeleton(&Settings::default());
            for next in states() {
                let delta = now.difference(&next);
                table.commit(delta.clone()).await.unwrap();
                now.apply(&delta);
                assert_eq!(now, next);
                assert_eq!(table.resync(next).await.unwrap().messages, 0);
            }
        });
    });
}

/// Rulesets that differ from each other in every way that a delta knows.
fn states() -> Vec<Ruleset> {
    let mut other_verdict = rich();
    let to = Value::Verdict(Verdict::Jump("list_b".into()));
    other_verdict.sets.get_mut(base::FROM_POD).unwrap().elements.insert(Key::interface("twlb"), to);
    let mut other_nets = rich();
    other_nets.sets.get_mut(base::POOLS_V4).unwrap().elements =
        ["0.0.0.0/0"].iter().map(|n| Key::net(n.parse().unwrap())).collect();
    let mut other_declaration = rich();
    other_declaration.sets.get_mut("np_1").unwrap().size = Some(128);
    let mut other_rules = rich();
    other_rules.chains.get_mut("list_a").unwrap().rules.reverse();
    let mut other_base = rich();
    other_base.chains.get_mut(&chain_name("forward")).unwrap().rules.pop();
    vec![rich(), other_verdict, other_nets, other_declaration, other_rules, other_base, skeleton(&Settings::default())]
}

#[test]
#[ignore = "needs root: make test"]
fn any_ranges_follow_any_others_in_one_transaction() {
    Namespace::new().run(|| {
        with_table(&skeleton(&Settings::default()), async |table| {
            let mut now = skeleton(&Settings::default());
            let mut seed = 1_u32;
            for round in 0..200 {
                // Few distinct addresses, so that ranges touch, contain and follow each other, from the first to the last.
                let mut ends = std::collections::BTreeSet::new();
                for _ in 0..round % 12 {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    ends.insert((seed >> 28).wrapping_mul(0x1111_1111));
                }
                let ends: Vec<u32> = ends.into_iter().collect();
                let addr = |n: u32| IpAddr::from(Ipv4Addr::from(n));
                let ranges = ends.windows(2).filter(|e| e[0] & 0x10 == 0 || round % 2 == 0);
                let last = |n: u32| if n == u32::MAX { n } else { n - 1 };
                let mut next = now.clone();
                next.sets.get_mut(base::POOLS_V4).unwrap().elements =
                    ranges.map(|e| Key::range(addr(e[0]), addr(last(e[1])))).collect();
                next.check().unwrap();
                let delta = now.difference(&next);
                let commit = table.commit(delta.clone()).await.unwrap();
                assert!(!commit.resynced, "round {round}: {delta:?}");
                now = next;
                assert_eq!(table.resync(now.clone()).await.unwrap().messages, 0, "round {round}");
            }
        });
    });
}

#[test]
#[ignore = "needs root: make test"]
fn elements_of_expiring_sets_come_with_a_delta_and_go_by_themselves() {
    Namespace::new().run(|| {
        with_table(&rich(), async |table| {
            let mut delta = twill_felix::ruleset::Delta::default();
            let v4 = |last: u8| IpAddr::from(Ipv4Addr::new(10, 0, 0, last));
            let key = |last| Key::addr(v4(last)).and_addr(v4(9)).and_protocol(6).and_port(1).and_port(80);
            delta.add_element(&name(base::CUT_V4), key(1), Value::Plain);
            delta.add_element(&name(base::CUT_V4), key(2), Value::Expires(Duration::from_millis(1)));
            table.commit(delta).await.unwrap();
            assert_eq!(table.resync(rich()).await.unwrap().messages, 0, "a resync leaves them alone");
            let deadline = std::time::Instant::now() + Duration::from_secs(5);
            loop {
                let list = sh("nft list set inet twill cut4");
                assert!(list.contains("10.0.0.1 . 10.0.0.9 . tcp . 1 . 80"), "{list}");
                if !list.contains("10.0.0.2") {
                    break;
                }
                assert!(std::time::Instant::now() < deadline, "{list}");
            }
        });
    });
}

#[test]
#[ignore = "needs root: make test"]
fn a_refused_object_is_named_and_nothing_else_happens() {
    Namespace::new().run(|| {
        with_table(&rich(), async |table| {
            let full = Set { size: Some(1), ..Set::of([KeyType::V4]) };
            let elements = (1..9).map(|i| (Key::addr(IpAddr::from(Ipv4Addr::new(10, 0, 0, i))), Value::Plain));
            let mut wanted = rich();
            wanted.sets.insert("full".into(), full.with(elements));
            wanted.chains.insert("innocent".into(), Chain::default());
            let error = table.commit(rich().difference(&wanted)).await.unwrap_err().to_string();
            assert!(error.contains("set full") && error.contains("ENFILE"), "{error}");
            assert!(!sh("nft list table inet twill").contains("innocent"));

            let mut dangling = twill_felix::ruleset::Delta::default();
            dangling.remove_chains.insert(chain_name("cut"));
            let error = table.commit(dangling).await.unwrap_err().to_string();
            assert!(error.contains("cut_v1"), "{error}");
            assert_eq!(table.resync(rich()).await.unwrap().messages, 0, "all is as it was");
        });
    });
}
