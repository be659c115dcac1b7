//! Rules of BGPFilter, and of the filters in the file of a speaker that runs alone.

use super::Problem;
use crate::BGPFilter;
use crate::bgp_filter::{AsPathMatch, FilterMatch, FilterRule, FilterSet, PrefixRange, RouteSource};
use crate::community::{Community, CommunityPattern};

/// Rules that a filter has at most in one direction.
const RULES: usize = 32;
/// Prefixes that a rule has at most.
const PREFIXES: usize = 128;
/// Communities that a list has at most: an API server prices the check of each in every rule that there could be.
const COMMUNITIES: usize = 16;
/// Next hops that a rule has at most.
const NEXT_HOPS: usize = 32;
/// How often an AS is put before a path at most.
const PREPEND: u8 = 32;

/// Rules of the object.
pub(super) fn check(new: &BGPFilter) -> Result<(), Problem> {
    rules("spec.import", &new.spec.import, true)?;
    rules("spec.export", &new.spec.export, false)
}

/// Rules of the rules of one direction, which stands at `field`.
///
/// # Errors
/// The first rule that breaks one.
pub fn rules(field: &str, rules: &[FilterRule], import: bool) -> Result<(), Problem> {
    at_most(field, "rules", rules.len(), RULES)?;
    for (index, rule) in rules.iter().enumerate() {
        let at = format!("{field}[{index}]");
        matches(&format!("{at}.match"), &rule.r#match, import)?;
        set(&format!("{at}.set"), &rule.set)?;
        if rule.action.is_none() && rule.set.is_empty() {
            return Err(Problem::new(at, "does nothing; give it an action (Accept or Reject) or something to set"));
        }
    }
    Ok(())
}

fn matches(field: &str, matches: &FilterMatch, import: bool) -> Result<(), Problem> {
    at_most(&format!("{field}.prefixes"), "prefixes", matches.prefixes.len(), PREFIXES)?;
    for (index, range) in matches.prefixes.iter().enumerate() {
        prefix(&format!("{field}.prefixes[{index}]"), range)?;
    }
    patterns(&format!("{field}.communities"), &matches.communities)?;
    at_most(&format!("{field}.nextHops"), "ranges", matches.next_hops.len(), NEXT_HOPS)?;
    if import && matches.source == Some(RouteSource::Own) {
        return Err(Problem::new(
            format!("{field}.source"),
            "is Own, but no peer tells our own routes; leave the rule out",
        ));
    }
    matches.as_path.as_ref().map_or(Ok(()), |path| as_path(&format!("{field}.asPath"), path))
}

fn prefix(field: &str, range: &PrefixRange) -> Result<(), Problem> {
    let cidr = range.cidr;
    if cidr.trunc() != cidr {
        let problem = format!("{cidr} has host bits; did you mean {}?", cidr.trunc());
        return Err(Problem::new(format!("{field}.cidr"), problem));
    }
    let (shortest, longest) = range.lengths();
    let (own, most) = (cidr.prefix_len(), cidr.max_prefix_len());
    if shortest < own || shortest > most {
        let problem = format!("is {shortest}; prefixes inside of {cidr} have {own} to {most}");
        return Err(Problem::new(format!("{field}.minLength"), problem));
    }
    if longest < shortest || longest > most {
        let problem = format!("is {longest}; use {shortest} to {most}");
        return Err(Problem::new(format!("{field}.maxLength"), problem));
    }
    Ok(())
}

fn as_path(field: &str, path: &AsPathMatch) -> Result<(), Problem> {
    let numbers =
        [("neighborASN", path.neighbor_asn), ("originASN", path.origin_asn), ("includesASN", path.includes_asn)];
    if let Some((name, _)) = numbers.iter().find(|(_, number)| *number == Some(0)) {
        return Err(Problem::new(format!("{field}.{name}"), "is 0, which is nobody's (RFC 7607); use 1 to 4294967295"));
    }
    match (path.min_length, path.max_length) {
        (Some(least), Some(most)) if most < least => {
            Err(Problem::new(format!("{field}.maxLength"), format!("is {most}, less than minLength {least}; raise it")))
        }
        _ => Ok(()),
    }
}

fn set(field: &str, set: &FilterSet) -> Result<(), Problem> {
    let added = format!("{field}.addCommunities");
    at_most(&added, "communities", set.add_communities.len(), COMMUNITIES)?;
    for (index, text) in set.add_communities.iter().enumerate() {
        text.parse::<Community>().map_err(|error| Problem::new(format!("{added}[{index}]"), error.to_string()))?;
    }
    patterns(&format!("{field}.removeCommunities"), &set.remove_communities)?;
    match set.prepend {
        Some(times @ (0 | 33..)) => {
            Err(Problem::new(format!("{field}.prepend"), format!("is {times}; use 1 to {PREPEND}, or leave it out")))
        }
        _ => Ok(()),
    }
}

fn patterns(field: &str, texts: &[String]) -> Result<(), Problem> {
    at_most(field, "communities", texts.len(), COMMUNITIES)?;
    for (index, text) in texts.iter().enumerate() {
        text.parse::<CommunityPattern>()
            .map_err(|error| Problem::new(format!("{field}[{index}]"), error.to_string()))?;
    }
    Ok(())
}

fn at_most(field: &str, what: &str, number: usize, most: usize) -> Result<(), Problem> {
    if number <= most {
        return Ok(());
    }
    Err(Problem::new(
        field,
        format!("has {number} {what}; at most {most} are taken, the rest can stand in another filter or rule"),
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::Object;
    use crate::validate::admit;
    use serde_json::{Value, json};

    fn problem(rule: Value) -> Option<(String, String)> {
        let mut object = json!({"metadata": {"name": "f"}, "spec": {"import": [rule]}});
        admit(&crate::BGPFilter::kind(), &mut object, None).err().map(|invalid| (invalid.field, invalid.problem))
    }

    #[test]
    fn a_rule_with_all_that_there_is() {
        let rule = json!({
            "match": {
                "family": "IPv4", "communities": ["65000:*", "no-export", "rt:65000:1"], "nextHops": ["172.31.1.0/24"],
                "source": "External", "prefixes": [{"cidr": "10.0.0.0/8", "minLength": 16}, {"cidr": "0.0.0.0/0"}],
                "asPath": {"neighborASN": 65001, "originASN": 65002, "includesASN": 65003, "minLength": 1, "maxLength": 9},
            },
            "set": {"localPref": 200, "med": 0, "addCommunities": ["65000:1:2"], "removeCommunities": ["*:*"], "prepend": 3},
            "action": "Accept",
        });
        assert_eq!(problem(rule), None);
        assert_eq!(problem(json!({"action": "Reject"})), None);
    }

    #[test]
    fn what_means_nothing_is_refused_by_its_field() {
        let cases = [
            (json!({}), "spec.import[0]", "does nothing"),
            (
                json!({"match": {"prefixes": [{"cidr": "10.0.0.1/8"}]}, "action": "Accept"}),
                "spec.import[0].match.prefixes[0].cidr",
                "10.0.0.0/8",
            ),
            (
                json!({"match": {"prefixes": [{"cidr": "10.0.0.0/8", "minLength": 7}]}, "action": "Accept"}),
                "spec.import[0].match.prefixes[0].minLength",
                "8 to 32",
            ),
            (
                json!({"match": {"prefixes": [{"cidr": "10.0.0.0/8", "minLength": 24, "maxLength": 20}]}, "action": "Accept"}),
                "spec.import[0].match.prefixes[0].maxLength",
                "24 to 32",
            ),
            (
                json!({"match": {"prefixes": [{"cidr": "10.0.0.0/8", "maxLength": 33}]}, "action": "Accept"}),
                "spec.import[0].match.prefixes[0].maxLength",
                "8 to 32",
            ),
            (
                json!({"match": {"communities": ["65000"]}, "action": "Accept"}),
                "spec.import[0].match.communities[0]",
                "no community",
            ),
            (json!({"set": {"addCommunities": ["65000:*"]}}), "spec.import[0].set.addCommunities[0]", "no community"),
            (json!({"set": {"prepend": 33}}), "spec.import[0].set.prepend", "1 to 32"),
            (
                json!({"match": {"asPath": {"originASN": 0}}, "action": "Accept"}),
                "spec.import[0].match.asPath.originASN",
                "nobody's",
            ),
            (
                json!({"match": {"asPath": {"minLength": 2, "maxLength": 1}}, "action": "Accept"}),
                "spec.import[0].match.asPath.maxLength",
                "less than",
            ),
            (json!({"match": {"source": "Own"}, "action": "Accept"}), "spec.import[0].match.source", "no peer"),
            (json!({"match": {"nextHops": ["here"]}, "action": "Accept"}), "spec.import[0].match.nextHops", "no range"),
        ];
        for (rule, field, word) in cases {
            let (at, text) = problem(rule.clone()).unwrap_or_else(|| panic!("{rule} is taken"));
            assert!(at == field && text.contains(word), "{at}: {text}");
        }
    }
}
