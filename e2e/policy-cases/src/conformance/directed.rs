//! One direction, one protocol, one tier at a time: order of rules and ports. And a port by its name.

use super::{Direction, Tier, all_of, case, number, policy, probe, rule, step};
use crate::{Case, Change, Probe, Protocol};
use serde_json::{Value, json};

/// 60 cases of rules and 4 of names.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for tier in [Tier::Admin, Tier::Baseline] {
        for direction in [Direction::Ingress, Direction::Egress] {
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                let set = Set::new(tier, direction, protocol);
                cases.extend(set.order());
                cases.extend(set.ports());
                if tier == Tier::Admin {
                    cases.extend(set.pass());
                }
            }
        }
    }
    cases.extend(named());
    cases
}

/// What one test of the suite is about.
struct Set {
    tier: Tier,
    direction: Direction,
    protocol: Protocol,
    /// Whose policy it is.
    subject: &'static str,
    /// The peer about which three rules (in the Baseline tier two) say different things.
    first: &'static str,
    /// The peer that is allowed on one port only.
    allowed: &'static str,
    /// That port.
    open: u16,
    /// The port on which south is denied.
    shut: u16,
    /// The two ports that are listened on.
    ports: [u16; 2],
}

impl Set {
    fn new(tier: Tier, direction: Direction, protocol: Protocol) -> Self {
        let (subject, first, allowed, open, shut, ports) = match (protocol, direction) {
            (Protocol::Tcp, Direction::Ingress) => ("north", "west", "east", 80, 80, [80, 8080]),
            (Protocol::Tcp, Direction::Egress) => ("north", "west", "east", 8080, 80, [80, 8080]),
            (Protocol::Udp, _) => ("east", "west", "north", 53, 5353, [53, 5353]),
            (Protocol::Sctp, _) => ("west", "north", "east", 9003, 9003, [9003, 9005]),
        };
        Self { tier, direction, protocol, subject, first, allowed, open, shut, ports }
    }

    /// The policy, with `orders` of its rules swapped, one after the other.
    fn policy(&self, swaps: &[(usize, usize)]) -> Change {
        let mut rules = self.rules();
        for (one, other) in swaps {
            rules.swap(*one, *other);
        }
        self.with(&rules)
    }

    fn with(&self, rules: &[Value]) -> Change {
        let spec = json!({
            "tier": self.tier.name(),
            "priority": 7,
            "subject": all_of(self.subject),
            self.direction.rules(): rules
        });
        policy("directed", &spec)
    }

    fn rules(&self) -> Vec<Value> {
        let rule = |action, peer, protocols: &[Value]| rule(self.direction, action, &[all_of(peer)], protocols);
        let (shut, open) = (number(self.protocol, self.shut), number(self.protocol, self.open));
        let mut rules = vec![rule("Accept", self.first, &[]), rule("Deny", self.first, &[])];
        if self.tier == Tier::Admin {
            rules.push(rule("Pass", self.first, &[]));
        }
        rules.push(rule("Deny", "south", std::slice::from_ref(&shut)));
        if self.tier == Tier::Admin {
            rules.push(rule("Pass", "south", &[shut]));
        }
        rules.push(rule("Accept", self.allowed, &[open]));
        rules.push(rule("Deny", self.allowed, &[]));
        rules
    }

    /// From the client with this ordinal to the server with that one.
    fn between(&self, peer: &str, client: usize, server: usize, port: u16, reached: bool) -> Probe {
        let (from, to) = match self.direction {
            Direction::Ingress => (peer, self.subject),
            Direction::Egress => (self.subject, peer),
        };
        probe(&format!("{from}/{client}"), &format!("{to}/{server}"), self.protocol, port, reached)
    }

    fn case(&self, name: &str, about: &str, steps: Vec<crate::Step>) -> Case {
        let protocol = self.protocol.to_string().to_lowercase();
        case(self.tier.kebab(&format!("{}-{protocol}-{name}", self.direction.rules())), about, steps)
    }

    fn order(&self) -> [Case; 2] {
        let [one, two] = self.ports;
        let all = |server, reached| {
            vec![self.between(self.first, 0, server, one, reached), self.between(self.first, 1, server, two, reached)]
        };
        [
            self.case(
                "accept-before-deny",
                "Of two rules about one peer the first decides: it accepts.",
                vec![step(vec![self.policy(&[])], all(0, true))],
            ),
            self.case(
                "deny-before-accept",
                "The two change places: now it is denied.",
                vec![step(vec![self.policy(&[])], vec![]), step(vec![self.policy(&[(0, 1)])], all(1, false))],
            ),
        ]
    }

    fn ports(&self) -> [Case; 2] {
        let other = |port| if self.ports[0] == port { self.ports[1] } else { self.ports[0] };
        let accepted = vec![
            self.between(self.allowed, 0, 1, self.open, true),
            self.between(self.allowed, 1, 1, other(self.open), false),
        ];
        let denied =
            vec![self.between("south", 0, 0, self.shut, false), self.between("south", 1, 0, other(self.shut), true)];
        [
            self.case(
                "accept-a-port",
                "A peer is accepted on one port, and denied on the rest by the next rule.",
                vec![step(vec![self.policy(&[])], accepted)],
            ),
            self.case(
                "deny-a-port",
                "A peer is denied on one port; no rule is about the rest.",
                vec![step(vec![self.policy(&[(0, 1)])], denied)],
            ),
        ]
    }

    fn pass(&self) -> [Case; 2] {
        let [one, two] = self.ports;
        // By TCP the suite asks the first pod, by the others the second one; by UDP the ports change places.
        let server = usize::from(self.protocol != Protocol::Tcp);
        let (one, two) = if self.protocol == Protocol::Udp { (two, one) } else { (one, two) };
        let passed =
            vec![self.between(self.first, 0, server, one, true), self.between(self.first, 1, server, two, true)];
        let other = if self.ports[0] == self.shut { self.ports[1] } else { self.ports[0] };
        let on_a_port = vec![self.between("south", 0, 0, self.shut, true), self.between("south", 1, 0, other, true)];
        [
            self.case(
                "pass-before-deny",
                "The rule that passes comes first: no later tier has a word, so it is open.",
                vec![step(vec![self.policy(&[(0, 1)])], vec![]), step(vec![self.policy(&[(0, 1), (0, 2)])], passed)],
            ),
            self.case(
                "pass-a-port",
                "A peer is passed on one port before the rule that denies it there.",
                vec![
                    step(vec![self.policy(&[(0, 1), (0, 2)])], vec![]),
                    step(vec![self.policy(&[(0, 1), (0, 2), (3, 4)])], on_a_port),
                ],
            ),
        ]
    }

    /// The rule for a port tells it by its name instead.
    fn by_name(&self, name: &str, open: u16, shut: u16) -> Case {
        let mut rules = self.rules();
        let at = rules.len() - 2;
        rules[at]["protocols"] = json!([{"destinationNamedPort": name}]);
        let probes = vec![self.between(self.allowed, 0, 1, open, true), self.between(self.allowed, 1, 1, shut, false)];
        self.case(
            "named-port",
            "A port by its name, which is the receiving pod's and says the protocol, too.",
            vec![step(vec![self.policy(&[])], vec![]), step(vec![self.with(&rules)], probes)],
        )
    }
}

fn named() -> [Case; 4] {
    use Direction::{Egress, Ingress};
    let web = |tier, direction| Set::new(tier, direction, Protocol::Tcp).by_name("web", 80, 8080);
    let dns = |tier, direction| Set::new(tier, direction, Protocol::Udp).by_name("dns", 53, 5353);
    [web(Tier::Admin, Egress), dns(Tier::Admin, Ingress), dns(Tier::Baseline, Egress), web(Tier::Baseline, Ingress)]
}
