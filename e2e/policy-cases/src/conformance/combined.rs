//! Both directions and all protocols in one policy of north.

use super::{Direction, Tier, all_of, case, number, policy, probe, rule, step};
use crate::{Case, Change, Probe, Protocol};
use serde_json::{Value, json};

const TCP: Protocol = Protocol::Tcp;
const UDP: Protocol = Protocol::Udp;
const SCTP: Protocol = Protocol::Sctp;

/// Ten cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = basics(Tier::Admin);
    cases.extend(pass());
    cases.extend(basics(Tier::Baseline));
    cases
}

/// The policy, with rules of both directions swapped, one swap after the other.
fn combined(tier: Tier, swaps: &[(usize, usize)]) -> Change {
    let mut spec = json!({"tier": tier.name(), "priority": 15, "subject": all_of("north")});
    for direction in [Direction::Egress, Direction::Ingress] {
        let mut rules = rules(tier, direction);
        for (one, other) in swaps {
            rules.swap(*one, *other);
        }
        spec[direction.rules()] = json!(rules);
    }
    policy("combined", &spec)
}

fn rules(tier: Tier, direction: Direction) -> Vec<Value> {
    let web = if direction == Direction::Egress { 8080 } else { 80 };
    let shut = [number(TCP, 80), number(UDP, 53), number(SCTP, 9003)];
    let open = [number(TCP, web), number(UDP, 5353), number(SCTP, 9003)];
    let of = |action, peer, protocols: &[Value]| rule(direction, action, &[all_of(peer)], protocols);
    let mut rules = vec![of("Accept", "west", &[]), of("Deny", "west", &[])];
    if tier == Tier::Admin {
        rules.push(of("Pass", "west", &[]));
    }
    rules.push(of("Deny", "south", &shut));
    if tier == Tier::Admin {
        rules.push(of("Pass", "south", &shut));
    }
    rules.extend([of("Accept", "east", &open), of("Deny", "east", &[])]);
    rules
}

fn basics(tier: Tier) -> Vec<Case> {
    let start = || step(vec![combined(tier, &[])], vec![]);
    let swapped = combined(tier, &[(0, 1)]);
    vec![
        case(
            tier.kebab("combined-accept"),
            "Accepted in both directions, by every protocol.",
            vec![step(vec![combined(tier, &[])], west(0, 53, true))],
        ),
        case(
            tier.kebab("combined-accept-ports"),
            "Accepted on some ports of every protocol, denied on the rest by the next rule.",
            vec![step(vec![combined(tier, &[])], east())],
        ),
        case(
            tier.kebab("combined-deny"),
            "The denying rules come first.",
            vec![start(), step(vec![swapped.clone()], west_denied())],
        ),
        case(
            tier.kebab("combined-deny-ports"),
            "Denied on some ports of every protocol; no rule is about the rest.",
            vec![step(vec![swapped], south(false))],
        ),
    ]
}

fn pass() -> Vec<Case> {
    let of = |swaps: &[(usize, usize)]| combined(Tier::Admin, swaps);
    let mut passed = west(0, 53, true);
    passed[1] = probe("north/0", "west/0", UDP, 5353, true);
    vec![
        case(
            Tier::Admin.kebab("combined-pass"),
            "The passing rules come first.",
            vec![step(vec![of(&[(0, 1)])], vec![]), step(vec![of(&[(0, 1), (0, 2)])], passed)],
        ),
        case(
            Tier::Admin.kebab("combined-pass-ports"),
            "Passed on some ports of every protocol before the rules that deny there.",
            vec![step(vec![of(&[(0, 1), (0, 2)])], vec![]), step(vec![of(&[(0, 1), (0, 2), (3, 4)])], south(true))],
        ),
    ]
}

fn west(server: usize, dns: u16, reached: bool) -> Vec<Probe> {
    let (there, here) = (format!("west/{server}"), format!("north/{server}"));
    vec![
        probe("north/0", &there, TCP, 80, reached),
        probe("north/1", &there, UDP, dns, reached),
        probe("north/0", &there, SCTP, 9003, reached),
        probe("west/0", &here, TCP, 80, reached),
        probe("west/1", &here, UDP, 53, reached),
        probe("west/1", &here, SCTP, 9003, reached),
    ]
}

fn west_denied() -> Vec<Probe> {
    west(1, 53, false)
}

fn east() -> Vec<Probe> {
    vec![
        probe("north/0", "east/1", TCP, 8080, true),
        probe("north/1", "east/1", TCP, 80, false),
        probe("north/0", "east/1", UDP, 5353, true),
        probe("north/1", "east/1", UDP, 53, false),
        probe("north/0", "east/1", SCTP, 9003, true),
        probe("north/1", "east/1", SCTP, 9005, false),
        probe("east/0", "north/1", TCP, 80, true),
        probe("east/1", "north/1", TCP, 8080, false),
        probe("east/0", "north/1", UDP, 5353, true),
        probe("east/1", "north/1", UDP, 53, false),
        probe("east/0", "north/1", SCTP, 9003, true),
        probe("east/1", "north/1", SCTP, 9005, false),
    ]
}

/// On the ports that rules are about, and on the rest.
fn south(reached: bool) -> Vec<Probe> {
    let mut probes = Vec::new();
    for (from, to) in [("north", "south"), ("south", "north")] {
        let (first, second, server) = (format!("{from}/0"), format!("{from}/1"), format!("{to}/0"));
        for (protocol, told, rest) in [(TCP, 80, 8080), (UDP, 53, 5353), (SCTP, 9003, 9005)] {
            probes.push(probe(&first, &server, protocol, told, reached));
            probes.push(probe(&second, &server, protocol, rest, true));
        }
    }
    probes
}
