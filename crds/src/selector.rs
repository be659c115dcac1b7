//! Label selectors, exactly as Kubernetes matches them.
//!
//! In flow a selector and an object's labels; out flows yes or no. [`crate::validate`] refuses selectors that are not well
//! formed; one that slips through matches nothing.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use std::collections::BTreeMap;

/// Labels as objects carry them.
pub type Labels = BTreeMap<String, String>;

/// Whether an object with these labels is selected. An empty selector selects everything; all parts must hold.
#[must_use]
pub fn matches(selector: &LabelSelector, labels: &Labels) -> bool {
    let equal = |(key, value): (&String, &String)| labels.get(key) == Some(value);
    selector.match_labels.iter().flatten().all(equal)
        && selector.match_expressions.iter().flatten().all(|expression| requirement(expression, labels))
}

/// As [`matches`]; no selector selects everything, which is what our own kinds mean by leaving one out.
#[must_use]
pub fn matches_or_absent(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
    selector.is_none_or(|selector| matches(selector, labels))
}

/// Whether the selector selects every object, labels or not.
#[must_use]
pub fn is_everything(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

/// `NotIn` holds for objects that lack the key, as `DoesNotExist` does (`labels.Requirement.Matches` of apimachinery).
fn requirement(requirement: &LabelSelectorRequirement, labels: &Labels) -> bool {
    let value = labels.get(&requirement.key);
    let among = |value: &String| requirement.values.as_ref().is_some_and(|values| values.contains(value));
    match requirement.operator.as_str() {
        "In" => value.is_some_and(among),
        "NotIn" => !value.is_some_and(among),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn expression(key: &str, operator: &str, values: &[&str]) -> LabelSelector {
        LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: key.into(),
                operator: operator.into(),
                values: Some(values.iter().map(|v| (*v).to_owned()).collect()),
            }]),
            match_labels: None,
        }
    }

    #[test]
    fn every_operator_on_present_other_and_absent() {
        let cases = [
            ("In", [true, false, false]),
            ("NotIn", [false, true, true]),
            ("Exists", [true, true, false]),
            ("DoesNotExist", [false, false, true]),
            ("Like", [false, false, false]),
        ];
        let objects = [labels(&[("app", "a")]), labels(&[("app", "z")]), labels(&[("other", "a")])];
        for (operator, expected) in cases {
            let values: &[&str] = if operator.contains("In") { &["a", "b"] } else { &[] };
            let selector = expression("app", operator, values);
            assert_eq!(objects.each_ref().map(|object| matches(&selector, object)), expected, "{operator}");
        }
    }

    #[test]
    fn empty_selects_all_and_an_empty_value_is_a_value() {
        assert!(matches(&LabelSelector::default(), &labels(&[])));
        assert!(is_everything(&LabelSelector::default()));
        assert!(matches_or_absent(None, &labels(&[("a", "b")])));
        assert!(matches(&expression("app", "In", &[""]), &labels(&[("app", "")])));
        assert!(!matches(&expression("app", "In", &[""]), &labels(&[])));
    }

    #[test]
    fn all_parts_must_hold() {
        let mut selector = expression("tier", "NotIn", &["db"]);
        selector.match_labels = Some(labels(&[("app", "a")]));
        assert!(matches(&selector, &labels(&[("app", "a")])));
        assert!(!matches(&selector, &labels(&[("app", "a"), ("tier", "db")])));
        assert!(!matches(&selector, &labels(&[("tier", "web")])));
    }

    proptest! {
        #[test]
        fn negated_operators_are_complements(
            key in "[ab]", values in prop::collection::vec("[xyz]", 1..3),
            object in prop::collection::btree_map("[ab]", "[xyz]", 0..3),
        ) {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            let is = |operator: &str| matches(&expression(&key, operator, &values), &object);
            prop_assert_eq!(is("In"), !is("NotIn"));
            prop_assert_eq!(is("Exists"), !is("DoesNotExist"));
            prop_assert!(!is("In") || is("Exists"));
        }
    }
}
