//! Rules against a reading of them that is too simple to be wrong: one after the other, each whole, for every path.

use super::*;
use crate::speaker::PathAttributes;
use crate::wire::{Edits, Value};
use proptest::prelude::*;
use serde_json::json;

fn rules(value: serde_json::Value) -> Vec<FilterRule> {
    let rules: Vec<FilterRule> = serde_json::from_value(value).unwrap();
    twill_crds::validate::filter_rules("rules", &rules, true).unwrap();
    rules
}

fn filter(value: serde_json::Value) -> Filter {
    Filter::new(&[Part { name: "f", rules: &rules(value) }], false)
}

/// A path of the neighbour 65001, begun by 65009, with community 65000:1.
fn attributes() -> Vec<u8> {
    let mut canonical = Vec::new();
    let read = PathAttributes::own();
    let edits = Edits { prepend: Some((65009, 1)), communities: Value::Set(&[[0xfd, 0xe8, 0, 1]]), ..Edits::default() };
    read.read().export(&edits, true, &mut canonical);
    let mut longer = Vec::new();
    Attributes::from_canonical(&canonical).export(
        &Edits { prepend: Some((65001, 2)), ..Edits::default() },
        true,
        &mut longer,
    );
    longer
}

fn decision(filter: &Filter, prefix: &str) -> Option<Action> {
    let canonical = attributes();
    let read = Attributes::from_canonical(&canonical);
    let next_hop = Some("172.31.1.1".parse().unwrap());
    let subject = Subject { attributes: &read, next_hop, source: Source::Ebgp, family: Family::Ipv4Unicast };
    let outcome = match filter.judge(&subject) {
        Judged::Whole(outcome) => outcome,
        Judged::ByPrefix(left) => filter.judge_prefix(&left, prefix.parse().unwrap()),
    };
    outcome.decision.map(|(action, _)| action)
}

#[test]
fn every_condition_is_asked() {
    let accepts = |matches: serde_json::Value| {
        decision(&filter(json!([{"match": matches, "action": "Accept"}])), "10.42.1.0/26") == Some(Action::Accept)
    };
    let cases = [
        (json!({}), true),
        (json!({"family": "IPv4"}), true),
        (json!({"family": "IPv6"}), false),
        (json!({"source": "External"}), true),
        (json!({"source": "Internal"}), false),
        (json!({"communities": ["65000:1"]}), true),
        (json!({"communities": ["65001:*", "65000:*"]}), true),
        (json!({"communities": ["65000:2", "65000:1:1"]}), false),
        (json!({"nextHops": ["10.0.0.0/8", "172.31.1.0/24"]}), true),
        (json!({"nextHops": ["172.31.2.0/24"]}), false),
        (
            json!({"asPath": {"neighborASN": 65001, "originASN": 65009, "includesASN": 65001, "minLength": 3, "maxLength": 3}}),
            true,
        ),
        (json!({"asPath": {"neighborASN": 65009}}), false),
        (json!({"asPath": {"originASN": 65001}}), false),
        (json!({"asPath": {"includesASN": 65002}}), false),
        (json!({"asPath": {"minLength": 4}}), false),
        (json!({"asPath": {"maxLength": 2}}), false),
        (json!({"prefixes": [{"cidr": "10.42.1.0/26"}]}), true),
        (json!({"prefixes": [{"cidr": "10.42.0.0/16"}]}), false),
        (json!({"prefixes": [{"cidr": "10.42.0.0/16", "minLength": 24}]}), true),
        (json!({"prefixes": [{"cidr": "10.42.0.0/16", "minLength": 27}]}), false),
        (json!({"prefixes": [{"cidr": "10.42.0.0/16", "maxLength": 25}]}), false),
        (
            json!({"prefixes": [{"cidr": "10.43.0.0/16", "maxLength": 32}, {"cidr": "0.0.0.0/0", "maxLength": 26}]}),
            true,
        ),
        (json!({"prefixes": [{"cidr": "::/0", "maxLength": 128}]}), false),
    ];
    for (matches, expected) in cases {
        assert_eq!(accepts(matches.clone()), expected, "{matches}");
    }
}

#[test]
fn the_first_action_decides_and_has_a_name() {
    let parts = [
        rules(json!([{"set": {"med": 1}}])),
        rules(json!([{"match": {"prefixes": [{"cidr": "10.0.0.0/8"}]}, "action": "Reject"}, {"action": "Accept"}])),
    ];
    let parts: Vec<Part<'_>> = ["BGPFilter a: spec.import", "BGPFilter b: spec.import"]
        .iter()
        .zip(&parts)
        .map(|(name, rules)| Part { name, rules })
        .collect();
    let filter = Filter::new(&parts, false);
    assert_eq!(decision(&filter, "10.0.0.0/8"), Some(Action::Reject));
    assert_eq!(decision(&filter, "10.0.0.0/9"), Some(Action::Accept));
    assert_eq!((filter.name(1), filter.name(2)), ("BGPFilter b: spec.import[0]", "BGPFilter b: spec.import[1]"));
}

#[test]
fn a_rule_of_a_node_speaks_of_its_own_prefixes_unless_it_names_another_source() {
    let all = rules(json!([{"action": "Accept"}]));
    let parts = [Part { name: "f", rules: &all }];
    assert_eq!(decision(&Filter::new(&parts, true), "10.0.0.0/8"), None);
    let named = rules(json!([{"match": {"source": "External"}, "action": "Accept"}]));
    let parts = [Part { name: "f", rules: &named }];
    assert_eq!(decision(&Filter::new(&parts, true), "10.0.0.0/8"), Some(Action::Accept));
}

#[test]
fn changes_add_up_in_order() {
    let filter = filter(json!([
        {"set": {"localPref": 50, "med": 7, "addCommunities": ["65000:2", "1:2:3", "rt:65000:1"], "prepend": 1}},
        {"set": {"localPref": 200, "removeCommunities": ["65000:*"], "addCommunities": ["65000:3", "65000:3"], "prepend": 2}, "action": "Accept"},
        {"set": {"med": 9}, "action": "Accept"},
    ]));
    let canonical = attributes();
    let read = Attributes::from_canonical(&canonical);
    let subject = Subject { attributes: &read, next_hop: None, source: Source::Ebgp, family: Family::Ipv4Unicast };
    let Judged::Whole(outcome) = filter.judge(&subject) else { panic!("no rule asks for the prefix") };
    let changes = filter.changes(&outcome);
    assert_eq!((changes.local_pref, changes.med, changes.prepend), (Some(200), Some(7), 3));
    let mut edits = Edits::default();
    let communities = changes.communities(&read);
    changes.apply(communities.as_ref(), &mut edits);
    let mut out = Vec::new();
    read.export(&edits, true, &mut out);
    let read = Attributes::from_canonical(&out);
    assert_eq!((read.local_pref, read.med), (Some(200), Some(7)));
    assert_eq!(read.communities, [[0xfd, 0xe8, 0, 3]], "65000:1 and 65000:2 are gone");
    assert_eq!((read.large_communities.len(), read.extended_communities), (1, &[[0, 2, 0xfd, 0xe8, 0, 0, 0, 1]][..]));
}

fn rule() -> impl Strategy<Value = FilterRule> {
    let prefix = (8_u8..=12, 0_u8..=2, 0_u8..=24).prop_map(|(own, more, value)| {
        let range = format!("{}.0.0.0/{own}", 10 + (value & 1));
        json!({"cidr": range.parse::<IpNet>().unwrap().trunc(), "minLength": own, "maxLength": own + more * 4})
    });
    let matches =
        (proptest::collection::vec(prefix, 0..3), 0_u8..4, 0_u8..3).prop_map(|(prefixes, community, source)| {
            let communities =
                ["65000:1", "65000:2", "*:*"].get(usize::from(community)).map(|text| vec![*text]).unwrap_or_default();
            let mut matches = json!({"prefixes": prefixes, "communities": communities});
            if let Some(source) = ["Internal", "External"].get(usize::from(source)) {
                matches["source"] = (*source).into();
            }
            matches
        });
    let action = prop_oneof![Just(None), Just(Some("Accept")), Just(Some("Reject"))];
    (matches, action, 0_u32..3).prop_map(|(matches, action, med)| {
        serde_json::from_value(json!({"match": matches, "set": {"med": med, "prepend": 1}, "action": action})).unwrap()
    })
}

/// All rules in order: what decides, MED, and how often an AS is put before the path.
fn simple(
    rules: &[FilterRule],
    attributes: &Attributes<'_>,
    source: Source,
    prefix: IpNet,
) -> (Option<FilterAction>, Option<u32>, u8) {
    let (mut med, mut prepend) = (None, 0);
    for rule in rules {
        let m = &rule.r#match;
        let inside = |range: &twill_crds::bgp_filter::PrefixRange| {
            let (shortest, longest) = range.lengths();
            range.cidr.contains(&prefix) && shortest <= prefix.prefix_len() && prefix.prefix_len() <= longest
        };
        let one = m.communities.first().is_none_or(|text| {
            text == "*:*" && !attributes.communities.is_empty()
                || attributes.communities.iter().any(|c| Community::Standard(*c).to_string() == *text)
        });
        let from = m.source.is_none_or(|s| (s == RouteSource::External) == (source == Source::Ebgp));
        if (m.prefixes.is_empty() || m.prefixes.iter().any(inside)) && one && from {
            med = rule.set.med;
            prepend += 1;
            if rule.action.is_some() {
                return (rule.action, med, prepend);
            }
        }
    }
    (None, med, prepend)
}

proptest! {
    #[test]
    fn judging_in_two_steps_is_judging_each_path_by_all_rules(
        rules in proptest::collection::vec(rule(), 0..6),
        own in 6_u8..=20,
        second in 0_u8..=255,
        external in any::<bool>(),
        first in 9_u8..=12,
    ) {
        let canonical = attributes();
        let read = Attributes::from_canonical(&canonical);
        let source = if external { Source::Ebgp } else { Source::Ibgp };
        let prefix = IpNet::new([first, second, 0, 0].into(), own).unwrap().trunc();
        let filter = Filter::new(&[Part { name: "f", rules: &rules }], false);
        let subject = Subject { attributes: &read, next_hop: None, source, family: Family::Ipv4Unicast };
        let outcome = match filter.judge(&subject) {
            Judged::Whole(outcome) => outcome,
            Judged::ByPrefix(left) => filter.judge_prefix(&left, prefix),
        };
        let (action, med, prepend) = simple(&rules, &read, source, prefix);
        let expected = action.map(|action| if action == FilterAction::Accept { Action::Accept } else { Action::Reject });
        prop_assert_eq!(outcome.decision.map(|(action, _)| action), expected);
        let changes = filter.changes(&outcome);
        prop_assert_eq!((changes.med, changes.prepend), (med, prepend));
    }
}
