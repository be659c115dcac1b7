//! Label selectors, in one normal form, so that equal selectors are one selector.

use super::Few;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// Labels of an object.
pub type Labels = Arc<BTreeMap<String, String>>;

/// Requirements that all must hold, in ascending order; none: everything matches. Cheap to clone.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    requirements: Arc<[Requirement]>,
}

impl fmt::Debug for Selector {
    /// As of a set: names of the kernel's sets are made of this text, and must be the same after an upgrade.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requirements: BTreeSet<&Requirement> = self.requirements.iter().collect();
        f.debug_struct("Selector").field("requirements", &requirements).finish()
    }
}

/// One test of one label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What must hold of it.
    pub test: Test,
}

/// What a [`Requirement`] asks of the label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Test {
    /// It is there with one of these values.
    In(Few<String>),
    /// It is not there, or has none of these values.
    NotIn(Few<String>),
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

impl Selector {
    /// Reads a selector. A requirement that makes no sense is left out, which selects more, and told as a sentence.
    #[must_use]
    pub fn read(raw: &LabelSelector) -> (Self, Vec<String>) {
        let mut requirements = BTreeSet::new();
        let mut problems = Vec::new();
        for (key, value) in raw.match_labels.iter().flatten() {
            let test = Test::In(Few::from([value.clone()]));
            requirements.insert(Requirement { key: key.clone(), test });
        }
        for expression in raw.match_expressions.iter().flatten() {
            let values: Few<String> = expression.values.iter().flatten().cloned().collect();
            let test = match (expression.operator.as_str(), values.is_empty()) {
                ("In", false) => Test::In(values),
                ("NotIn", false) => Test::NotIn(values),
                ("Exists", true) => Test::Exists,
                ("DoesNotExist", true) => Test::DoesNotExist,
                (operator @ ("In" | "NotIn"), true) => {
                    problems.push(format!("matchExpressions: {operator} on key {:?} needs values", expression.key));
                    continue;
                }
                (operator @ ("Exists" | "DoesNotExist"), false) => {
                    problems.push(format!("matchExpressions: {operator} on key {:?} takes no values", expression.key));
                    continue;
                }
                (operator, _) => {
                    problems.push(format!(
                        "matchExpressions: operator {operator:?} on key {:?} is none of In, NotIn, Exists, DoesNotExist",
                        expression.key
                    ));
                    continue;
                }
            };
            requirements.insert(Requirement { key: expression.key.clone(), test });
        }
        (Self::of(requirements), problems)
    }

    /// Selects what all of these requirements hold for.
    #[must_use]
    pub fn of(requirements: impl IntoIterator<Item = Requirement>) -> Self {
        let sorted: BTreeSet<Requirement> = requirements.into_iter().collect();
        Self { requirements: sorted.into_iter().collect() }
    }

    /// The requirements, in their normal order.
    pub fn requirements(&self) -> impl Iterator<Item = &Requirement> {
        self.requirements.iter()
    }

    /// Whether it selects whatever there is.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether an object with these labels is selected.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements.iter().all(|r| r.holds(labels))
    }
}

impl Requirement {
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match &self.test {
            Test::In(values) => value.is_some_and(|v| values.contains(v)),
            Test::NotIn(values) => value.is_none_or(|v| !values.contains(v)),
            Test::Exists => value.is_some(),
            Test::DoesNotExist => value.is_none(),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |values: &Few<String>| values.join(",");
        match &self.test {
            Test::In(values) if values.len() == 1 => write!(f, "{}={}", self.key, list(values)),
            Test::In(values) => write!(f, "{} in ({})", self.key, list(values)),
            Test::NotIn(values) => write!(f, "{} notin ({})", self.key, list(values)),
            Test::Exists => f.write_str(&self.key),
            Test::DoesNotExist => write!(f, "!{}", self.key),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.requirements.is_empty() {
            return f.write_str("all");
        }
        let parts: Vec<String> = self.requirements.iter().map(Requirement::to_string).collect();
        f.write_str(&parts.join(","))
    }
}

/// In which namespaces a [`PodSelector`] looks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamespaceScope {
    /// In this one.
    Named(String),
    /// In those whose labels match. A namespace that is not known yet matches the empty selector only: its labels cannot be
    /// judged, and `NotIn` must not open what it will close.
    Matching(Selector),
}

impl NamespaceScope {
    /// Whether a namespace lies inside; `labels` is none if it is not known.
    #[must_use]
    pub fn contains(&self, namespace: &str, labels: Option<&BTreeMap<String, String>>) -> bool {
        match self {
            Self::Named(name) => name == namespace,
            Self::Matching(selector) => selector.is_everything() || labels.is_some_and(|l| selector.matches(l)),
        }
    }
}

/// Pods by their labels and their namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodSelector {
    /// Where to look.
    pub namespaces: NamespaceScope,
    /// What to look for.
    pub pods: Selector,
}

impl PodSelector {
    /// Every pod of every namespace.
    #[must_use]
    pub fn everything() -> Self {
        Self { namespaces: NamespaceScope::Matching(Selector::default()), pods: Selector::default() }
    }

    /// Whether a pod is selected; `namespace_labels` is none if its namespace is not known.
    #[must_use]
    pub fn matches(
        &self,
        namespace: &str,
        namespace_labels: Option<&BTreeMap<String, String>>,
        labels: &BTreeMap<String, String>,
    ) -> bool {
        self.namespaces.contains(namespace, namespace_labels) && self.pods.matches(labels)
    }
}

impl fmt::Display for PodSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespaces {
            NamespaceScope::Named(name) => write!(f, "pods {} in namespace {name}", self.pods),
            NamespaceScope::Matching(selector) => write!(f, "pods {} in namespaces {selector}", self.pods),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn selector(raw: serde_json::Value) -> (Selector, Vec<String>) {
        Selector::read(&serde_json::from_value(raw).unwrap())
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn not_in_and_does_not_exist_match_objects_that_lack_the_key() {
        let (not_in, _) = selector(json!({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["x"]}]}));
        assert!(not_in.matches(&labels(&[])));
        assert!(not_in.matches(&labels(&[("a", "y")])));
        assert!(!not_in.matches(&labels(&[("a", "x")])));
        let (absent, _) = selector(json!({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}));
        assert!(absent.matches(&labels(&[("b", "x")])));
        assert!(!absent.matches(&labels(&[("a", "")])));
    }

    #[test]
    fn match_labels_and_an_expression_of_one_value_are_the_same_selector() {
        let (a, _) = selector(json!({"matchLabels": {"a": "x"}}));
        let (b, _) = selector(json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["x"]}]}));
        assert_eq!(a, b);
    }

    #[test]
    fn a_requirement_that_makes_no_sense_is_told_and_widens_the_selector() {
        let (selector, problems) = selector(json!({
            "matchLabels": {"a": "x"},
            "matchExpressions": [
                {"key": "b", "operator": "Like", "values": ["y"]},
                {"key": "c", "operator": "In", "values": []},
                {"key": "d", "operator": "Exists", "values": ["z"]}
            ]
        }));
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(selector.matches(&labels(&[("a", "x")])));
        assert!(!selector.matches(&labels(&[("a", "y")])));
    }

    #[test]
    fn an_unknown_namespace_matches_the_empty_namespace_selector_only() {
        assert!(PodSelector::everything().matches("a", None, &labels(&[])));
        let (pods, _) = selector(json!({}));
        let (not_prod, _) =
            selector(json!({"matchExpressions": [{"key": "e", "operator": "NotIn", "values": ["prod"]}]}));
        let not_prod = PodSelector { namespaces: NamespaceScope::Matching(not_prod), pods };
        assert!(not_prod.matches("a", Some(&labels(&[])), &labels(&[])));
        assert!(!not_prod.matches("a", None, &labels(&[])));
    }
}
