//! Shapes of peers: none, each kind alone, each kind beside each other kind, and a namespace by the label that all have.

use super::{Direction, shape, with_peers};
use crate::Case;
use crate::address::host_bits;
use crate::manifest::label;
use serde_json::{Value, json};

/// Every combination of an absent, an empty and a telling selector, but the one without any; and two blocks.
fn kinds() -> Vec<(&'static str, Value)> {
    let (pods, namespaces) = (label("pod", "c"), label("ns", "x"));
    let wide = host_bits("z/c", 8);
    vec![
        ("all-pods", json!({"podSelector": {}})),
        ("some-pods", json!({"podSelector": pods})),
        ("all-namespaces", json!({"namespaceSelector": {}})),
        ("all-pods-of-all-namespaces", json!({"podSelector": {}, "namespaceSelector": {}})),
        ("some-pods-of-all-namespaces", json!({"podSelector": pods, "namespaceSelector": {}})),
        ("some-namespaces", json!({"namespaceSelector": namespaces})),
        ("all-pods-of-some-namespaces", json!({"podSelector": {}, "namespaceSelector": namespaces})),
        ("some-pods-of-some-namespaces", json!({"podSelector": pods, "namespaceSelector": namespaces})),
        ("block", json!({"ipBlock": {"cidr": wide}})),
        ("block-with-exception", json!({"ipBlock": {"cidr": wide, "except": [host_bits("z/c", 4)]}})),
    ]
}

/// 112 cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for direction in Direction::BOTH {
        let name = format!("{}-no-peers", direction.rules());
        cases.push(shape(&name, "An empty list of peers.", &with_peers(direction, &json!([]))));
    }
    for direction in Direction::BOTH {
        for (name, peer) in kinds() {
            let name = format!("{}-peer-{name}", direction.rules());
            cases.push(shape(&name, "One peer of one kind.", &with_peers(direction, &json!([peer]))));
        }
    }
    for direction in Direction::BOTH {
        for (i, (first, one)) in kinds().into_iter().enumerate() {
            for (second, other) in kinds().into_iter().skip(i + 1) {
                let name = format!("{}-peers-{first}-or-{second}", direction.rules());
                let spec = with_peers(direction, &json!([one, other]));
                cases.push(shape(&name, "Two peers of different kinds.", &spec));
            }
        }
    }
    cases
}

/// Two cases.
pub(super) fn by_default_label() -> Vec<Case> {
    let peers = json!([{"namespaceSelector": label("kubernetes.io/metadata.name", "z")}]);
    let of = |direction: Direction| {
        let name = format!("{}-peer-by-default-label", direction.rules());
        shape(&name, "A namespace by the label that every namespace has.", &with_peers(direction, &peers))
    };
    Direction::BOTH.map(of).to_vec()
}
