//! Cases 38 to 48: protocols that are not meant, the label that every namespace has, and the basic cases by UDP and SCTP.

use super::{NAME, case, case_on, namespace, pod};
use crate::manifest::{egress, expression, ingress, label, network_policy};
use crate::matrix::Matrix;
use crate::{Case, Protocol};
use serde_json::{Value, json};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = other_protocols();
    cases.extend(the_default_label());
    cases.extend(basics(Protocol::Udp));
    cases.extend(basics(Protocol::Sctp));
    cases
}

fn on_port(protocol: &str, port: u16) -> Value {
    ingress(&pod("a"), &json!([{"ports": [{"port": port, "protocol": protocol}]}]))
}

fn other_protocols() -> Vec<Case> {
    let two = ["x/a", "y/a"];
    let shut = network_policy("x", "shut", &ingress(&json!({}), &json!([])));
    vec![
        case("sctp-is-not-tcp", "A rule for SCTP opens no port of TCP.", &two, &[81]).then(
            vec![shut, network_policy("x", "by-sctp", &on_port("SCTP", 81))],
            81,
            &Matrix::open().deny("*/*", "x/*"),
        ),
        case("sctp-isolates", "A policy with nothing but a rule for SCTP isolates all the same.", &two, &[81]).then(
            vec![network_policy("x", "by-sctp", &on_port("SCTP", 80))],
            81,
            &Matrix::open().deny("*/*", "x/a"),
        ),
        case("udp-is-not-tcp", "A rule for UDP opens no port of TCP.", &two, &[81]).then(
            vec![network_policy("x", "by-udp", &on_port("UDP", 81))],
            81,
            &Matrix::open().deny("*/*", "x/a"),
        ),
    ]
}

fn the_default_label() -> Vec<Case> {
    let four = ["x/a", "x/b", "y/a", "z/a"];
    let from = json!([{"from": [{"namespaceSelector": label(NAME, "y")}]}]);
    let to = json!([{"to": [{"namespaceSelector": expression(NAME, "NotIn", &["y"])}]}]);
    vec![
        case("default-label", "In from one namespace, by the label that every namespace has.", &four, &[80]).then(
            vec![network_policy("x", "by-name", &ingress(&pod("a"), &from))],
            80,
            &Matrix::open().deny("x/*", "x/a").deny("z/*", "x/a"),
        ),
        case(
            "default-label-not-in",
            "Out to every namespace but one, by the label that every namespace has.",
            &four,
            &[80],
        )
        .then(
            vec![network_policy("x", "by-name", &egress(&pod("a"), &to))],
            80,
            &Matrix::open().deny("x/a", "y/*"),
        ),
    ]
}

/// Deny all, one port from one namespace, one pod of another namespace: by a protocol that is not TCP.
fn basics(protocol: Protocol) -> Vec<Case> {
    let shown = protocol.to_string();
    let kebab = |name: &str| format!("{}-{name}", shown.to_lowercase());
    let ports = json!([{"from": [{"namespaceSelector": namespace("y")}], "ports": [{"port": 81, "protocol": shown}]}]);
    let peer = json!([{"from": [{"namespaceSelector": namespace("y"), "podSelector": pod("a")}]}]);
    vec![
        case_on(
            &[protocol],
            &kebab("deny-ingress"),
            &format!("A namespace takes nothing in by {shown}."),
            &["x/a", "x/b", "y/a", "y/b"],
            &[80],
        )
        .then_on(
            protocol,
            vec![network_policy("x", "deny", &ingress(&json!({}), &json!([])))],
            80,
            &Matrix::open().deny("*/*", "x/*"),
        ),
        case_on(
            &[protocol],
            &kebab("one-port"),
            &format!("From one namespace, on one port of {shown}."),
            &["x/a", "x/b", "y/a", "z/a"],
            &[81],
        )
        .then_on(
            protocol,
            vec![network_policy("x", "on-81", &ingress(&pod("a"), &ports))],
            81,
            &Matrix::open().deny("x/*", "x/a").deny("z/*", "x/a"),
        ),
        case_on(
            &[protocol],
            &kebab("one-pod-of-another-namespace"),
            &format!("One pod elsewhere, by {shown}, without a word on ports."),
            &["x/a", "x/b", "y/a"],
            &[80],
        )
        .then_on(
            protocol,
            vec![network_policy("x", "from-y-a", &ingress(&pod("a"), &peer))],
            80,
            &Matrix::open().deny("*/*", "x/a").allow("y/a", "x/a"),
        ),
    ]
}
