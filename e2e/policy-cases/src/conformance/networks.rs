//! Egress to networks, which hold pods, too.

use super::{Direction, Tier, all_of, case, pods_of, policy, probe, rule, step};
use crate::address::host_bits;
use crate::manifest::label_namespace;
use crate::{Case, Change, Probe, Protocol};
use serde_json::{Value, json};

/// Four cases.
pub(super) fn cases() -> Vec<Case> {
    [Tier::Admin, Tier::Baseline].into_iter().flat_map(|tier| [denied(tier), accepted(tier)]).collect()
}

/// To south everything, to the rest of the world nothing; before that, what is asked for.
fn networks(tier: Tier, before: Option<Value>) -> Change {
    let subject = if tier == Tier::Admin { pods_of("north") } else { all_of("north") };
    let world = json!({"networks": ["0.0.0.0/0", "::/0"]});
    let mut rules: Vec<Value> = before.into_iter().collect();
    rules.push(rule(Direction::Egress, "Accept", &[pods_of("south")], &[]));
    rules.push(rule(Direction::Egress, "Deny", &[world], &[]));
    policy("networks", &json!({"tier": tier.name(), "priority": 85, "subject": subject, "egress": rules}))
}

/// North's second pod to a pod, by every protocol.
fn every_protocol(to: &str, reached: bool) -> [Probe; 3] {
    [(Protocol::Tcp, 80), (Protocol::Udp, 53), (Protocol::Sctp, 9003)]
        .map(|(protocol, port)| probe("north/1", to, protocol, port, reached))
}

fn denied(tier: Tier) -> Case {
    let mut first = Vec::new();
    for (to, reached) in [("west/0", false), ("east/0", false), ("south/0", true)] {
        first.extend(every_protocol(to, reached));
    }
    let label = |side| label_namespace("south", &[("side", side)]);
    case(
        tier.kebab("networks-deny"),
        "The whole world is denied, pods too; only one namespace is accepted before, as long as it has its label.",
        vec![
            step(vec![networks(tier, None)], first),
            step(vec![label("elsewhere")], every_protocol("south/0", false).to_vec()),
            step(vec![label("south")], every_protocol("south/0", true).to_vec()),
        ],
    )
}

fn accepted(tier: Tier) -> Case {
    let two = json!({"networks": [host_bits("west/west-0", 0), host_bits("east/east-0", 0)]});
    let before = rule(Direction::Egress, "Accept", &[two], &[]);
    let mut probes = Vec::new();
    for (to, reached) in [("west/0", true), ("east/0", true), ("west/1", false), ("east/1", false)] {
        probes.extend(every_protocol(to, reached));
    }
    case(
        tier.kebab("networks-accept"),
        "The addresses of two pods are accepted as networks; their neighbours stay denied.",
        vec![step(vec![networks(tier, None)], vec![]), step(vec![networks(tier, Some(before))], probes)],
    )
}
