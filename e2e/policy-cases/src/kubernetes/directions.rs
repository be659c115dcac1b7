//! Cases 25 to 33: egress, both directions together, several policies, none any more.

use super::{case, case_on, namespace, pod};
use crate::manifest::{delete_policy, egress, ingress, network_policy};
use crate::matrix::Matrix;
use crate::{Case, Protocol};
use serde_json::{Value, json};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = egress_alone();
    cases.extend(both_directions());
    cases.push(a_protocol());
    cases.extend(several_policies());
    cases.push(deleted());
    cases
}

fn egress_alone() -> Vec<Case> {
    let three = ["x/a", "x/b", "y/a"];
    vec![
        case("deny-egress-of-a-pod", "One pod sends nothing; its neighbour does.", &three, &[80]).then(
            vec![network_policy("x", "silent", &egress(&pod("a"), &json!([])))],
            80,
            &Matrix::open().deny("x/a", "*/*"),
        ),
        case("deny-egress-of-a-namespace", "No pod of the namespace sends, not even within it.", &three, &[80]).then(
            vec![network_policy("x", "silent", &egress(&json!({}), &json!([])))],
            80,
            &Matrix::open().deny("x/*", "*/*"),
        ),
    ]
}

fn to_y_a() -> Value {
    let peer = json!({"namespaceSelector": namespace("y"), "podSelector": pod("a")});
    egress(&pod("a"), &json!([{"to": [peer]}]))
}

fn both_directions() -> Vec<Case> {
    let both = json!({
        "podSelector": pod("a"),
        "policyTypes": ["Egress", "Ingress"],
        "ingress": [{"from": [{"podSelector": pod("b")}]}],
        "egress": [{"ports": [{"port": 80}]}]
    });
    let from_x_a = json!([{"from": [{"namespaceSelector": namespace("x"), "podSelector": pod("a")}]}]);
    let one_sender = Matrix::open().deny("*/*", "x/a").allow("x/b", "x/a");
    vec![
        case(
            "both-directions-in-one-policy",
            "In from one neighbour on any port, out to everybody on one port.",
            &["x/a", "x/b", "x/c", "y/a"],
            &[80, 81],
        )
        .then(vec![network_policy("x", "both", &both)], 80, &one_sender)
        .then(vec![], 81, &Matrix::open().deny("*/*", "x/a").deny("x/a", "*/*").allow("x/b", "x/a")),
        case(
            "senders-denial-wins",
            "Two receivers allow a sender whose own policy lets it out to only one of them.",
            &["x/a", "y/a", "y/b"],
            &[80],
        )
        .then(
            vec![
                network_policy("x", "to-y-a", &to_y_a()),
                network_policy("y", "into-a", &ingress(&pod("a"), &from_x_a)),
                network_policy("y", "into-b", &ingress(&pod("b"), &from_x_a)),
            ],
            80,
            &Matrix::open().deny("x/a", "*/*").deny("*/*", "y/a").allow("x/a", "y/a").deny("*/*", "y/b"),
        ),
        case(
            "egress-to-one-pod-elsewhere",
            "Out to exactly one pod of another namespace.",
            &["x/a", "y/a", "y/b"],
            &[80],
        )
        .then(
            vec![network_policy("x", "to-y-a", &to_y_a())],
            80,
            &Matrix::open().deny("x/a", "*/*").allow("x/a", "y/a"),
        ),
    ]
}

fn a_protocol() -> Case {
    let by_tcp = ingress(&pod("a"), &json!([{"ports": [{"protocol": "TCP"}]}]));
    case_on(
        &[Protocol::Tcp, Protocol::Udp],
        "protocol-without-port",
        "Every port of one protocol, and none of another.",
        &["x/a", "y/a"],
        &[80],
    )
    .then(vec![network_policy("x", "by-tcp", &by_tcp)], 80, &Matrix::open())
    .then_on(Protocol::Udp, vec![], 80, &Matrix::open().deny("*/*", "x/a"))
}

fn several_policies() -> Vec<Case> {
    let port = json!([{"ports": [{"port": 80}]}]);
    let everything = json!([{}]);
    vec![
        case(
            "allow-all-beside-a-narrow-ingress",
            "A policy that allows everything in outdoes a narrow one.",
            &["x/a", "y/a"],
            &[81],
        )
        .then(vec![network_policy("x", "narrow", &ingress(&json!({}), &port))], 81, &Matrix::open().deny("*/*", "x/*"))
        .then(vec![network_policy("x", "wide", &ingress(&json!({}), &everything))], 81, &Matrix::open()),
        case(
            "allow-all-beside-a-narrow-egress",
            "A policy that allows everything out outdoes a narrow one.",
            &["x/a", "y/a"],
            &[81],
        )
        .then(vec![network_policy("x", "narrow", &egress(&json!({}), &port))], 81, &Matrix::open().deny("x/*", "*/*"))
        .then(vec![network_policy("x", "wide", &egress(&json!({}), &everything))], 81, &Matrix::open()),
    ]
}

fn deleted() -> Case {
    let nothing = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [], "egress": []});
    case("policy-deleted", "What a policy forbade is open when the policy is gone.", &["x/a", "y/a"], &[80])
        .then(vec![network_policy("x", "deny", &nothing)], 80, &Matrix::open().deny("x/*", "*/*").deny("*/*", "x/*"))
        .then(vec![delete_policy("x", "deny")], 80, &Matrix::open())
}
