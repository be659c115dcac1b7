//! Shapes of change: policies, namespaces and pods that come, change and go.

use super::{Direction, PORTS, PROTOCOLS, base, case, in_x, with_peers, with_ports};
use crate::manifest::{delete_policy, expression, ingress, label, label_namespace, label_pod, network_policy, object};
use crate::matrix::every_pair;
use crate::universe::{NODES, namespace, served};
use crate::{Case, Change, Protocol, Step};
use serde_json::json;

fn new_namespace(name: &str, ns: &str) -> Change {
    Change::Apply(namespace(name, &json!({"ns": ns})))
}

fn new_pod(namespace: &str, name: &str) -> Change {
    Change::Apply(served(namespace, name, NODES[0], &PORTS, &PROTOCOLS))
}

fn gone(kind: &str, namespace: &str, name: &str) -> Change {
    Change::Delete(object(kind, namespace, name))
}

/// A policy by a port's name, and a namespace and a pod that come and go.
pub(super) fn example() -> Case {
    let named = ingress(&json!({}), &json!([{"ports": [{"port": "serve-81-tcp"}]}]));
    let steps = vec![
        vec![network_policy("x", "named", &named)],
        vec![new_namespace("w", "w"), new_pod("w", "a")],
        vec![gone("Pod", "w", "a")],
        vec![gone("Namespace", "", "w")],
        vec![],
    ];
    let mut case = case(
        "example",
        "One port by name, while a namespace and a pod come and go; then by number and by name alone.",
        steps,
    );
    for _ in ["number", "name"] {
        let probes = every_pair(&case.universe.pod_names(), 81, Protocol::Tcp);
        case.steps.push(Step { changes: vec![], probes });
    }
    case
}

/// Six cases.
pub(super) fn cases() -> Vec<Case> {
    let by_name = with_ports(Direction::Ingress, &json!([{"protocol": "UDP", "port": "serve-81-udp"}]));
    let from_new = with_peers(Direction::Ingress, &json!([{"namespaceSelector": label("fresh", "yes")}]));
    let pods =
        json!([{"podSelector": label("fresh", "yes"), "namespaceSelector": expression("ns", "In", &["y", "z"])}]);
    let from_fresh = with_peers(Direction::Ingress, &pods);
    vec![
        case(
            "policy-comes-and-goes",
            "A policy is created and deleted.",
            vec![vec![in_x(&base())], vec![delete_policy("x", "base")]],
        ),
        case(
            "policy-changes",
            "A policy gets another port, of another protocol and by name.",
            vec![vec![in_x(&base())], vec![in_x(&by_name)]],
        ),
        case(
            "namespace-comes-and-goes",
            "A namespace with the label of another and two pods comes and goes.",
            vec![
                vec![in_x(&base())],
                vec![new_namespace("y-2", "y"), new_pod("y-2", "a"), new_pod("y-2", "b")],
                vec![gone("Pod", "y-2", "a"), gone("Pod", "y-2", "b"), gone("Namespace", "", "y-2")],
            ],
        ),
        case(
            "namespace-label-comes-and-goes",
            "A namespace becomes a peer, and is none again.",
            vec![
                vec![in_x(&from_new)],
                vec![label_namespace("y", &[("ns", "y"), ("fresh", "yes")])],
                vec![label_namespace("y", &[("ns", "y")])],
            ],
        ),
        case(
            "pod-comes-and-goes",
            "A pod comes and goes in the policy's namespace.",
            vec![vec![in_x(&base())], vec![new_pod("x", "d")], vec![gone("Pod", "x", "d")]],
        ),
        case(
            "pod-label-comes-and-goes",
            "A pod becomes a peer, and is none again.",
            vec![
                vec![in_x(&from_fresh)],
                vec![label_pod("y", "b", &[("pod", "b"), ("fresh", "yes")])],
                vec![label_pod("y", "b", &[("pod", "b")])],
            ],
        ),
    ]
}
