//! Cases 1 to 13: whom a policy selects, and whom its peers are.

use super::{NAME, case, namespace, pod};
use crate::Case;
use crate::manifest::{expression, ingress, network_policy};
use crate::matrix::Matrix;
use serde_json::{Value, json};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = whole_namespaces();
    cases.extend(one_selector());
    cases.extend(two_selectors());
    cases
}

/// Only these peers reach x/a.
fn only(name: &str, about: &str, pods: &[&str], peers: &Value, matrix: &Matrix) -> Case {
    let policy = network_policy("x", name, &ingress(&pod("a"), &json!([{"from": peers}])));
    case(name, about, pods, &[80]).then(vec![policy], 80, matrix)
}

fn whole_namespaces() -> Vec<Case> {
    let deny = network_policy("x", "deny", &ingress(&json!({}), &json!([])));
    let both = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [], "egress": []});
    let to_a = ingress(&pod("a"), &json!([{"from": [{"podSelector": {}, "namespaceSelector": {}}]}]));
    vec![
        case(
            "deny-ingress",
            "A namespace takes nothing in; what it sends and what others say to each other is left alone.",
            &["x/a", "x/b", "y/a", "y/b"],
            &[80],
        )
        .then(vec![deny.clone()], 80, &Matrix::open().deny("*/*", "x/*")),
        case("deny-all", "A namespace neither takes in nor sends.", &["x/a", "x/b", "y/a"], &[80]).then(
            vec![network_policy("x", "deny-both", &both)],
            80,
            &Matrix::open().deny("*/*", "x/*").deny("x/*", "*/*"),
        ),
        only(
            "from-a-pod-of-the-namespace",
            "A pod selector alone means pods of the policy's own namespace.",
            &["x/a", "x/b", "x/c", "y/a"],
            &json!([{"podSelector": pod("b")}]),
            &Matrix::open().deny("*/*", "x/a").allow("x/b", "x/a"),
        ),
        case(
            "open-one-of-a-closed-namespace",
            "Beside a policy that closes a namespace another opens one of its pods to everybody.",
            &["x/a", "x/b", "y/a"],
            &[80],
        )
        .then(vec![deny, network_policy("x", "to-a", &to_a)], 80, &Matrix::open().deny("*/*", "x/b")),
    ]
}

fn one_selector() -> Vec<Case> {
    let others = Matrix::open().deny("x/*", "x/a").deny("z/*", "x/a");
    let four = ["x/a", "x/b", "y/a", "z/a"];
    vec![
        only(
            "from-all-namespaces",
            "An empty namespace selector means every namespace, the own one too.",
            &four,
            &json!([{"namespaceSelector": {"matchLabels": {}}}]),
            &Matrix::open(),
        ),
        only(
            "from-one-other-namespace",
            "A namespace selector alone means all pods there, and none of the own namespace.",
            &four,
            &json!([{"namespaceSelector": namespace("y")}]),
            &others,
        ),
        only(
            "pods-by-expression",
            "Pods of the own namespace, selected by an expression.",
            &["x/a", "x/b", "y/a"],
            &json!([{"podSelector": expression("pod", "In", &["b"])}]),
            &Matrix::open().deny("*/*", "x/a").allow("x/b", "x/a"),
        ),
        only(
            "namespaces-by-expression",
            "Another namespace, selected by an expression.",
            &four,
            &json!([{"namespaceSelector": expression(NAME, "In", &["y"])}]),
            &others,
        ),
    ]
}

fn two_selectors() -> Vec<Case> {
    let not_x = expression(NAME, "NotIn", &["x"]);
    vec![
        only(
            "namespaces-or-pods",
            "Two peers: either of them is enough.",
            &["x/a", "x/b", "x/c", "y/a"],
            &json!([{"namespaceSelector": not_x}, {"podSelector": pod("b")}]),
            &Matrix::open().deny("x/c", "x/a"),
        ),
        only(
            "namespaces-and-pods",
            "Two selectors in one peer: both have to hold.",
            &["x/a", "x/b", "y/a", "y/b", "z/b"],
            &json!([{"namespaceSelector": not_x, "podSelector": pod("b")}]),
            &Matrix::open().deny("*/*", "x/a").allow("y/b", "x/a").allow("z/b", "x/a"),
        ),
        only(
            "several-values-of-both",
            "Both selectors by expressions, one of them with several values.",
            &["x/a", "x/b", "y/a", "y/b", "y/c"],
            &json!([{"namespaceSelector": not_x, "podSelector": expression("pod", "In", &["b", "c"])}]),
            &Matrix::open().deny("x/*", "x/a").deny("y/a", "x/a"),
        ),
        only(
            "either-of-two-pods",
            "Two peers, each a pod of the own namespace.",
            &["x/a", "x/b", "x/c"],
            &json!([{"podSelector": pod("b")}, {"podSelector": pod("c")}]),
            &Matrix::open().deny("*/*", "x/a").allow("x/b", "x/a").allow("x/c", "x/a"),
        ),
        only(
            "one-pod-of-another-namespace",
            "Exactly one pod elsewhere: not its neighbour, not its namesake in a third namespace.",
            &["x/a", "x/b", "y/a", "y/b", "z/a"],
            &json!([{"namespaceSelector": namespace("y"), "podSelector": pod("a")}]),
            &Matrix::open().deny("*/*", "x/a").allow("y/a", "x/a"),
        ),
    ]
}
