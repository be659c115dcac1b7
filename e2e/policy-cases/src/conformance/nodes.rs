//! Egress to nodes, which is where pods in the nodes' network answer.

use super::{Direction, HOST_SCTP, HOST_TCP, HOST_UDP, Tier, all_of, case, number, pods_of, policy, probe, rule, step};
use crate::manifest::label;
use crate::{Case, Change, Probe, Protocol};
use serde_json::{Value, json};

/// Five cases.
pub(super) fn cases() -> Vec<Case> {
    let (tcp, udp) = (number(Protocol::Tcp, HOST_TCP[0]), number(Protocol::Udp, HOST_UDP[0]));
    let range = json!({"tcp": {"destinationPort": {"range": {"start": HOST_TCP[0], "end": HOST_TCP[1]}}}});
    let admin = policy(
        "nodes",
        &json!({"tier": "Admin", "priority": 75, "subject": pods_of("north"), "egress": [
            rule(Direction::Egress, "Accept", &[linux()], &[tcp]),
            rule(Direction::Egress, "Pass", &[linux()], &[udp]),
            rule(Direction::Egress, "Deny", &[pods_of("south"), linux(), world()], &[])
        ]}),
    );
    let baseline = policy(
        "nodes",
        &json!({"tier": "Baseline", "priority": 10, "subject": all_of("north"), "egress": [
            rule(Direction::Egress, "Accept", &[linux()], &[range]),
            rule(Direction::Egress, "Deny", &[linux(), world()], &[])
        ]}),
    );
    let of = |tier: Tier, name: &str, about: &str, change: &Change, probes: Vec<Probe>| {
        case(tier.kebab(&format!("nodes-{name}")), about, vec![step(vec![change.clone()], probes)])
    };
    let accepted = "A node is accepted on a port.";
    let denied = "Nodes are denied on the rest.";
    let rest = vec![to_host(1, Protocol::Udp, HOST_UDP[1], false), to_host(1, Protocol::Sctp, HOST_SCTP[0], false)];
    let mut all_the_rest = vec![to_host(1, Protocol::Tcp, HOST_TCP[1], false)];
    all_the_rest.extend(rest.clone());
    let in_range = vec![to_host(0, Protocol::Tcp, HOST_TCP[0], true), to_host(1, Protocol::Tcp, HOST_TCP[1], true)];
    vec![
        of(Tier::Admin, "accept", accepted, &admin, vec![to_host(1, Protocol::Tcp, HOST_TCP[0], true)]),
        of(
            Tier::Admin,
            "pass",
            "A node is passed on a port; no later tier has a word.",
            &admin,
            vec![to_host(1, Protocol::Udp, HOST_UDP[0], true)],
        ),
        of(Tier::Admin, "deny", denied, &admin, all_the_rest),
        of(Tier::Baseline, "accept", "Nodes are accepted on a range of ports.", &baseline, in_range),
        of(Tier::Baseline, "deny", denied, &baseline, rest),
    ]
}

fn linux() -> Value {
    json!({"nodes": label("kubernetes.io/os", "linux")})
}

fn world() -> Value {
    json!({"networks": ["0.0.0.0/0", "::/0"]})
}

/// To the second node's network.
fn to_host(client: usize, protocol: Protocol, port: u16, reached: bool) -> Probe {
    probe(&format!("north/{client}"), "host/1", protocol, port, reached)
}
