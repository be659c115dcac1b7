//! `metav1.LabelSelector`, from its text.

use crate::Cluster;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use std::collections::BTreeMap;

type Labels = BTreeMap<String, String>;

/// Whether the selector picks a pod by the pod's own labels.
pub(crate) fn selects_pod(selector: &LabelSelector, pod: &Pod) -> bool {
    selects(selector, &pod.metadata.labels.clone().unwrap_or_default())
}

/// Whether the selector picks the pod's namespace, by the namespace's labels and the one that the API server sets on every
/// namespace. Of a namespace whose object is missing nothing is known but that it is one.
pub(crate) fn selects_namespace_of(cluster: &Cluster, selector: &LabelSelector, pod: &Pod) -> bool {
    if is_empty(selector) {
        return true;
    }
    let Some(namespace) = cluster.namespaces.iter().find(|n| n.metadata.name == pod.metadata.namespace) else {
        return false;
    };
    let mut labels = namespace.metadata.labels.clone().unwrap_or_default();
    labels.insert("kubernetes.io/metadata.name".to_owned(), namespace.metadata.name.clone().unwrap_or_default());
    selects(selector, &labels)
}

/// "matchLabels is a map of {key,value} pairs … The requirements are ANDed." A requirement that is not valid is left out.
pub(crate) fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    for (key, value) in selector.match_labels.iter().flatten() {
        if labels.get(key) != Some(value) {
            return false;
        }
    }
    for requirement in selector.match_expressions.iter().flatten() {
        if is_valid_requirement(requirement) && !holds(requirement, labels) {
            return false;
        }
    }
    true
}

/// "An empty label selector matches all objects." What is left out makes no selector less empty.
fn is_empty(selector: &LabelSelector) -> bool {
    let expressions = selector.match_expressions.iter().flatten();
    selector.match_labels.iter().flatten().count() == 0 && !expressions.into_iter().any(is_valid_requirement)
}

/// Whether the API would accept it.
pub(crate) fn is_valid(selector: &LabelSelector) -> bool {
    selector.match_expressions.iter().flatten().all(is_valid_requirement)
}

/// "If the operator is In or NotIn, the values array must be non-empty. If the operator is Exists or DoesNotExist, the values
/// array must be empty."
fn is_valid_requirement(requirement: &LabelSelectorRequirement) -> bool {
    let given = requirement.values.as_ref().map_or(0, Vec::len);
    match requirement.operator.as_str() {
        "In" | "NotIn" => given > 0,
        "Exists" | "DoesNotExist" => given == 0,
        _ => false,
    }
}

fn holds(requirement: &LabelSelectorRequirement, labels: &Labels) -> bool {
    let listed = |value: &String| requirement.values.as_ref().is_some_and(|values| values.contains(value));
    match (requirement.operator.as_str(), labels.get(&requirement.key)) {
        ("In", Some(value)) => listed(value),
        ("NotIn", Some(value)) => !listed(value),
        ("NotIn" | "DoesNotExist", None) | ("Exists", Some(_)) => true,
        _ => false,
    }
}
