//! Priorities within a tier, and the tiers one after the other.

use super::{Direction, Tier, case, pods_of, policy, probe, rule, step};
use crate::manifest::{delete_policy, label, network_policy};
use crate::{Case, Change, Probe, Protocol, Step};
use serde_json::{Value, json};

/// Nine cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = priority();
    cases.extend(integration());
    cases
}

/// South's pods to north's first one.
fn from_south(reached: bool) -> Vec<Probe> {
    pair("south", "north", reached)
}

/// North's pods to south's first one.
fn to_south(reached: bool) -> Vec<Probe> {
    pair("north", "south", reached)
}

fn pair(from: &str, to: &str, reached: bool) -> Vec<Probe> {
    let server = format!("{to}/0");
    vec![
        probe(&format!("{from}/0"), &server, Protocol::Tcp, 80, reached),
        probe(&format!("{from}/1"), &server, Protocol::Tcp, 8080, reached),
    ]
}

/// One rule about south in each direction.
fn about_south(name: &str, tier: Tier, priority: u16, subject: &Value, peer: &Value, actions: [&str; 2]) -> Change {
    let of = |direction, action| json!([rule(direction, action, std::slice::from_ref(peer), &[])]);
    let spec = json!({
        "tier": tier.name(),
        "priority": priority,
        "subject": subject,
        "ingress": of(Direction::Ingress, actions[0]),
        "egress": of(Direction::Egress, actions[1])
    });
    policy(name, &spec)
}

fn priority() -> Vec<Case> {
    let of = |name, tier, priority, action| {
        about_south(name, tier, priority, &pods_of("north"), &pods_of("south"), [action, action])
    };
    let start = vec![
        of("fifty", Tier::Admin, 50, "Deny"),
        of("sixty-then-forty", Tier::Admin, 60, "Pass"),
        of("baseline", Tier::Baseline, 10, "Accept"),
    ];
    let moved = of("sixty-then-forty", Tier::Admin, 40, "Pass");
    let about = "The policy with the lower number denies before the other one passes.";
    let mut both = from_south(true);
    both.extend(to_south(true));
    vec![
        case("priority-ingress".to_owned(), about, vec![step(start.clone(), from_south(false))]),
        case("priority-egress".to_owned(), about, vec![step(start.clone(), to_south(false))]),
        case(
            "priority-changes".to_owned(),
            "The other one gets a lower number and passes to the Baseline tier, which accepts.",
            vec![step(start, vec![]), step(vec![moved], both)],
        ),
    ]
}

/// All three tiers about north and south: Admin as told, NetworkPolicy opens, Baseline denies.
fn all_tiers(actions: [&str; 2]) -> Vec<Change> {
    let peer = json!([{"namespaceSelector": label("side", "south")}]);
    let open = json!({
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": peer}],
        "egress": [{"to": peer}]
    });
    vec![
        admin(actions),
        network_policy("north", "open", &open),
        about_south("baseline", Tier::Baseline, 10, &by_label("north"), &by_label("south"), ["Deny", "Deny"]),
    ]
}

fn admin(actions: [&str; 2]) -> Change {
    about_south("admin", Tier::Admin, 10, &by_label("north"), &by_label("south"), actions)
}

fn by_label(side: &str) -> Value {
    json!({"namespaces": label("side", side)})
}

fn integration() -> Vec<Case> {
    let denied = "Admin denies, whatever NetworkPolicy allows.";
    let passed = "Admin passes, and NetworkPolicy, which isolates the pod, allows.";
    let baseline = "Admin passes, no NetworkPolicy isolates the pod any more, and Baseline denies.";
    let gone = || delete_policy("north", "open");
    let of = |name: &str, about: &str, steps: Vec<Step>| case(format!("tiers-{name}"), about, steps);
    vec![
        of("admin-denies-ingress", denied, vec![step(all_tiers(["Deny", "Deny"]), from_south(false))]),
        of("admin-denies-egress", denied, vec![step(all_tiers(["Deny", "Deny"]), to_south(false))]),
        of(
            "network-policy-allows-ingress",
            passed,
            vec![step(all_tiers(["Deny", "Deny"]), vec![]), step(vec![admin(["Pass", "Deny"])], from_south(true))],
        ),
        of(
            "network-policy-allows-egress",
            passed,
            vec![step(all_tiers(["Pass", "Deny"]), vec![]), step(vec![admin(["Pass", "Pass"])], to_south(true))],
        ),
        of(
            "baseline-denies-ingress",
            baseline,
            vec![step(all_tiers(["Pass", "Pass"]), vec![]), step(vec![gone()], from_south(false))],
        ),
        of(
            "baseline-denies-egress",
            baseline,
            vec![step(all_tiers(["Pass", "Pass"]), vec![]), step(vec![gone()], to_south(false))],
        ),
    ]
}
