//! Shapes that cyclonus took from Kubernetes' own suite, all pods and ports instead of a few.

use super::{case, dns};
use crate::manifest::{delete_policy, egress, expression, ingress, label, label_namespace, label_pod, network_policy};
use crate::{Case, Change, Protocol};
use serde_json::{Value, json};

/// 13 cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = still();
    cases.push(named());
    cases.extend(changing());
    cases.extend(both_ends());
    cases.push(deleted());
    cases
}

fn into(subject: &Value, rules: &Value) -> Change {
    network_policy("x", "upstream", &ingress(subject, rules))
}

fn on_port(name: &str, port: u16) -> Change {
    let from_y = json!([{"namespaceSelector": label("ns", "y")}]);
    let rule = json!([{"from": from_y, "ports": [{"port": port, "protocol": "TCP"}]}]);
    network_policy("x", name, &ingress(&label("pod", "a"), &rule))
}

fn still() -> Vec<Case> {
    let all_but_dns =
        json!({"podSelector": {}, "policyTypes": ["Egress", "Ingress"], "ingress": [], "egress": [dns()]});
    let peer = json!({
        "namespaceSelector": expression("ns", "NotIn", &["x"]),
        "podSelector": expression("pod", "In", &["b", "c"])
    });
    vec![
        case("upstream-deny-ingress", "A namespace takes nothing in.", vec![vec![into(&json!({}), &json!([]))]]),
        case(
            "upstream-deny-all",
            "A namespace takes nothing in and sends nothing but DNS.",
            vec![vec![network_policy("x", "upstream", &all_but_dns)]],
        ),
        case(
            "upstream-several-values",
            "Pods by expression of namespaces by expression.",
            vec![vec![into(&label("pod", "a"), &json!([{"from": [peer]}]))]],
        ),
        case(
            "upstream-stacked",
            "Policies for one pod add up, one port each.",
            vec![vec![on_port("on-81", 81)], vec![], vec![on_port("on-80", 80)]],
        ),
        case(
            "upstream-allow-all",
            "A rule without peers and ports allows everything.",
            vec![vec![into(&json!({}), &json!([{}]))], vec![]],
        ),
    ]
}

fn named() -> Case {
    let rule = json!([{"ports": [{"port": "serve-81-tcp"}]}]);
    let mut case = case(
        "upstream-named-port",
        "One port by its name, asked for alone and then beside all others.",
        vec![vec![into(&json!({}), &rule)], vec![]],
    );
    case.steps[0].probes.retain(|probe| probe.port == 81 && probe.protocol == Protocol::Tcp);
    case
}

fn changing() -> Vec<Case> {
    let from_namespace = json!([{"from": [{"namespaceSelector": label("stage", "two")}]}]);
    let from_pod = json!([{"from": [{"podSelector": {"matchLabels": {"pod": "b", "stage": "two"}}}]}]);
    vec![
        case(
            "upstream-policy-tightened",
            "A policy that allowed everything is changed and allows nothing.",
            vec![vec![into(&json!({}), &json!([{}]))], vec![into(&json!({}), &json!([]))]],
        ),
        case(
            "upstream-namespace-gets-the-label",
            "A namespace becomes a peer by a new label.",
            vec![
                vec![into(&label("pod", "a"), &from_namespace)],
                vec![label_namespace("y", &[("ns", "y"), ("stage", "two")])],
            ],
        ),
        case(
            "upstream-sender-gets-the-label",
            "A pod becomes a peer by a new label.",
            vec![
                vec![into(&label("pod", "a"), &from_pod)],
                vec![label_pod("x", "b", &[("pod", "b"), ("stage", "two")])],
            ],
        ),
        case(
            "upstream-receiver-gets-the-label",
            "A pod becomes isolated by a new label, and loses the old one.",
            vec![vec![into(&label("stage", "shut"), &json!([]))], vec![label_pod("x", "a", &[("stage", "shut")])]],
        ),
    ]
}

fn both_ends() -> Vec<Case> {
    let both = json!({
        "podSelector": label("pod", "a"),
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [{"podSelector": label("pod", "b")}]}],
        "egress": [{"ports": [{"port": 80}, {"protocol": "UDP", "port": 53}]}]
    });
    let peer = |ns: &str| json!([{"namespaceSelector": label("ns", ns), "podSelector": label("pod", "a")}]);
    let out = json!([{"to": peer("y")}, {"ports": [{"protocol": "UDP", "port": 53}]}]);
    let from_x_a = json!([{"from": peer("x")}]);
    vec![
        case(
            "upstream-both-directions",
            "In from one neighbour on any port, out to everybody on one port.",
            vec![vec![network_policy("x", "upstream", &both)], vec![]],
        ),
        case(
            "upstream-senders-denial-wins",
            "Two receivers allow a sender whose own policy lets it out to only one of them.",
            vec![vec![
                network_policy("x", "to-y-a", &egress(&label("pod", "a"), &out)),
                network_policy("y", "into-a", &ingress(&label("pod", "a"), &from_x_a)),
                network_policy("y", "into-b", &ingress(&label("pod", "b"), &from_x_a)),
            ]],
        ),
    ]
}

fn deleted() -> Case {
    let nothing = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [], "egress": []});
    case(
        "upstream-policy-deleted",
        "What a policy forbade is open when the policy is gone.",
        vec![vec![network_policy("x", "upstream", &nothing)], vec![delete_policy("x", "upstream")]],
    )
}
