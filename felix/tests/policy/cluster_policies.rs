//! Random ClusterNetworkPolicies, from the alphabet of [`crate::universe`].

use crate::universe::selector;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

/// The spec of one.
pub fn cluster_policy() -> impl Strategy<Value = Value> {
    let subject = prop_oneof![
        4 => selector().prop_map(|n| json!({"namespaces": n})),
        4 => pods(),
        1 => Just(json!({"planets": {}})),
    ];
    let first = (select(vec!["Admin", "Baseline"]), 0..3_i32, subject);
    (first, vec(rule("from"), 0..3), vec(rule("to"), 0..3)).prop_map(|((tier, priority, subject), ingress, egress)| {
        json!({"tier": tier, "priority": priority, "subject": subject, "ingress": ingress, "egress": egress})
    })
}

fn pods() -> impl Strategy<Value = Value> {
    (selector(), selector()).prop_map(|(n, p)| json!({"pods": {"namespaceSelector": n, "podSelector": p}}))
}

fn peer(list: &'static str) -> impl Strategy<Value = Value> {
    let all = vec!["0.0.0.0/0", "10.0.0.0/29", "10.0.0.2/31", "192.0.2.0/24", "::/0", "fd00::/125"];
    let networks = proptest::sample::subsequence(all, 1..3);
    let nodes = prop_oneof![
        Just(json!({})),
        select(vec!["1", "2"]).prop_map(|rack| json!({"matchLabels": {"rack": rack}})),
        Just(json!({"matchExpressions": [{"key": "rack", "operator": "NotIn", "values": ["1"]}]})),
    ];
    let inside = prop_oneof![4 => selector().prop_map(|n| json!({"namespaces": n})), 4 => pods()];
    if list == "from" {
        prop_oneof![12 => inside, 1 => Just(json!({"galaxies": {}}))].boxed()
    } else {
        prop_oneof![
            8 => inside,
            4 => networks.prop_map(|all| json!({"networks": all})),
            3 => nodes.prop_map(|n| json!({"nodes": n})),
            1 => Just(json!({"galaxies": {}})),
        ]
        .boxed()
    }
}

fn protocol() -> impl Strategy<Value = Value> {
    let port = prop_oneof![
        4 => select(vec![80, 81, 8080]).prop_map(|p| json!({"number": p})),
        2 => select(vec![(79, 80), (81, 9000), (1, 65535)]).prop_map(|(a, b)| json!({"range": {"start": a, "end": b}})),
    ];
    prop_oneof![
        8 => (select(vec!["tcp", "udp", "sctp"]), port).prop_map(|(of, port)| json!({of: {"destinationPort": port}})),
        4 => select(vec!["web", "alt", "none"]).prop_map(|name| json!({"destinationNamedPort": name})),
        1 => Just(json!({"quic": {}})),
    ]
}

fn rule(list: &'static str) -> impl Strategy<Value = Value> {
    let action = select(vec!["Accept", "Deny", "Pass"]);
    (action, vec(peer(list), 1..3), option::weighted(0.6, vec(protocol(), 1..3))).prop_map(
        move |(action, peers, protocols)| {
            // A server refuses a name of a port beside peers that are no pods.
            let outside = peers.iter().any(|peer| peer.get("networks").or(peer.get("nodes")).is_some());
            let mut rule = json!({"action": action, list: peers});
            if let Some(mut protocols) = protocols {
                protocols.retain(|protocol| !(outside && protocol.get("destinationNamedPort").is_some()));
                if !protocols.is_empty() {
                    rule["protocols"] = json!(protocols);
                }
            }
            rule
        },
    )
}
