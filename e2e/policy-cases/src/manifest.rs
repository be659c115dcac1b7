//! Short hands for policies.

use crate::{Change, Reference};
use serde_json::{Value, json};

pub(crate) fn network_policy(namespace: &str, name: &str, spec: &Value) -> Change {
    Change::Apply(json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": name},
        "spec": spec
    }))
}

pub(crate) fn cluster_network_policy(name: &str, spec: &Value) -> Change {
    Change::Apply(json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name},
        "spec": spec
    }))
}

pub(crate) fn delete_policy(namespace: &str, name: &str) -> Change {
    Change::Delete(object("NetworkPolicy", namespace, name))
}

pub(crate) fn object(kind: &str, namespace: &str, name: &str) -> Reference {
    Reference { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
}

/// Replaces the labels of a pod.
pub(crate) fn label_pod(namespace: &str, name: &str, labels: &[(&str, &str)]) -> Change {
    Change::Label(object("Pod", namespace, name), owned(labels))
}

/// Replaces the labels of a namespace.
pub(crate) fn label_namespace(name: &str, labels: &[(&str, &str)]) -> Change {
    Change::Label(object("Namespace", "", name), owned(labels))
}

fn owned(labels: &[(&str, &str)]) -> std::collections::BTreeMap<String, String> {
    labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

/// A NetworkPolicy's spec that governs ingress.
pub(crate) fn ingress(subject: &Value, rules: &Value) -> Value {
    json!({"podSelector": subject, "policyTypes": ["Ingress"], "ingress": rules})
}

/// A NetworkPolicy's spec that governs egress.
pub(crate) fn egress(subject: &Value, rules: &Value) -> Value {
    json!({"podSelector": subject, "policyTypes": ["Egress"], "egress": rules})
}

/// A selector by one label.
pub(crate) fn label(key: &str, value: &str) -> Value {
    json!({"matchLabels": {key: value}})
}

/// A selector by one expression.
pub(crate) fn expression(key: &str, operator: &str, values: &[&str]) -> Value {
    json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]})
}
