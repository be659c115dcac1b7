//! Cases 20 to 24: what changes while a policy is in force; 23, which changes nothing, keeps its place.

use super::{case, pod};
use crate::Case;
use crate::manifest::{ingress, label, label_namespace, label_pod, network_policy};
use crate::matrix::Matrix;
use serde_json::json;

pub(super) fn cases() -> Vec<Case> {
    let everything = network_policy("x", "changing", &ingress(&json!({}), &json!([{}])));
    let nothing = network_policy("x", "changing", &ingress(&json!({}), &json!([])));
    let nobody = Matrix::open().deny("*/*", "x/a");
    let from_labelled = json!([{"from": [{"namespaceSelector": label("stage", "two")}]}]);
    let both_labels = json!({"matchLabels": {"pod": "b", "stage": "two"}});
    let from_both = json!([{"from": [{"podSelector": both_labels}]}]);
    let own = json!([{"from": [{"podSelector": {"matchLabels": {}}}]}]);
    vec![
        case(
            "policy-tightened",
            "A policy that allowed everything is changed and allows nothing.",
            &["x/a", "y/a"],
            &[81],
        )
        .then(vec![everything], 81, &Matrix::open())
        .then(vec![nothing], 81, &Matrix::open().deny("*/*", "x/*")),
        case("namespace-gets-the-label", "A namespace becomes a peer by a new label.", &["x/a", "y/a"], &[80])
            .then(vec![network_policy("x", "labelled", &ingress(&pod("a"), &from_labelled))], 80, &nobody)
            .then(
                vec![label_namespace("y", &[("ns", "y"), ("stage", "two")])],
                80,
                &nobody.clone().allow("y/*", "*/*"),
            ),
        case("sender-gets-the-label", "A pod becomes a peer by a new label.", &["x/a", "x/b"], &[80])
            .then(vec![network_policy("x", "labelled", &ingress(&pod("a"), &from_both))], 80, &nobody)
            .then(
                vec![label_pod("x", "b", &[("pod", "b"), ("stage", "two")])],
                80,
                &nobody.clone().allow("x/b", "x/a"),
            ),
        case(
            "own-namespace-only",
            "An empty pod selector as the peer means the own namespace and no other.",
            &["x/a", "x/b", "y/a", "z/a"],
            &[80],
        )
        .then(
            vec![network_policy("x", "own", &ingress(&json!({}), &own))],
            80,
            &Matrix::open().deny("y/*", "x/*").deny("z/*", "x/*"),
        ),
        case("receiver-gets-the-label", "A pod becomes isolated by a new label.", &["x/a", "y/a"], &[80])
            .then(
                vec![network_policy("x", "labelled", &ingress(&label("stage", "shut"), &json!([])))],
                80,
                &Matrix::open(),
            )
            .then(vec![label_pod("x", "a", &[("pod", "a"), ("stage", "shut")])], 80, &nobody),
    ]
}
