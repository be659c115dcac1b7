//! One direction of one connection: which policies govern the pod, which rule decides, and what nearly did.

use super::universe::{Side, Universe};
use crate::model::{
    Action, Direction, Peer, Peers, Pod, PodSelector, Policy, PolicyKey, Port, PortNumber, Ports, Protocol, Rule, Tier,
};
use std::fmt;

/// What policy says of one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Policy has no say; why.
    NotJudged(String),
    /// There can be no such connection; why.
    Impossible(String),
    /// No policy governs the pod in this direction: everything is allowed.
    NotIsolated,
    /// A rule allows it.
    Allowed {
        /// Policies that govern the pod in this direction, in order.
        isolating: Vec<PolicyKey>,
        /// The rule; none if every tier passed it on.
        by: Option<RuleRef>,
    },
    /// It is denied.
    Denied {
        /// Policies that govern the pod in this direction, in order.
        isolating: Vec<PolicyKey>,
        /// The rule; none if no rule allows it.
        by: Option<RuleRef>,
        /// The rule that came nearest to allowing it.
        nearest: Option<Miss>,
    },
}

impl Judgement {
    /// Whether this direction lets the connection pass.
    #[must_use]
    pub fn allows(&self) -> bool {
        matches!(self, Self::NotJudged(_) | Self::NotIsolated | Self::Allowed { .. })
    }
}

/// A rule by its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRef {
    /// The policy.
    pub policy: PolicyKey,
    /// The list in it.
    pub direction: Direction,
    /// Position in the list.
    pub index: usize,
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}[{}]", self.policy, self.direction, self.index)
    }
}

/// A rule that would have allowed, but for one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    /// The rule.
    pub rule: RuleRef,
    /// What did not fit, as the rest of a sentence.
    pub why: String,
}

/// Judges one direction. `subject` is the governed pod, `peer` the other end, `dst` the end where ports are looked up.
pub(super) fn judge(
    universe: &Universe,
    direction: Direction,
    subject: &Pod,
    peer: &Side,
    dst: &Side,
    port: u16,
    protocol: Protocol,
) -> Judgement {
    let packet = Packet { universe, direction, subject, peer, dst, port, protocol };
    let governing: Vec<(&Policy, &[Rule])> = universe
        .policies
        .iter()
        .filter(|p| packet.selects(&p.subject, subject))
        .filter_map(|p| Some((p, p.rules(direction)?)))
        .collect();
    if governing.is_empty() {
        return Judgement::NotIsolated;
    }
    let isolating: Vec<PolicyKey> = governing.iter().map(|(p, _)| p.key.clone()).collect();
    for tier in [Tier::Admin, Tier::NetworkPolicy, Tier::Baseline] {
        let of_tier: Vec<_> = governing.iter().filter(|(p, _)| p.tier == tier).collect();
        if of_tier.is_empty() {
            continue;
        }
        let rules = of_tier.iter().flat_map(|(p, rules)| rules.iter().enumerate().map(move |(i, r)| (*p, i, r)));
        let hit = rules.clone().find(|(_, _, rule)| packet.is_matched(rule));
        let place = |policy: &Policy, index| RuleRef { policy: policy.key.clone(), direction, index };
        let action = hit.map_or(tier.end(), |(_, _, rule)| rule.action);
        let by = hit.map(|(policy, i, _)| place(policy, i));
        match action {
            Action::Pass => {}
            Action::Allow => return Judgement::Allowed { isolating, by },
            Action::Deny => {
                let misses = rules.filter(|(_, _, r)| r.action == Action::Allow).filter_map(|(policy, i, rule)| {
                    let (score, why) = packet.miss(rule)?;
                    Some((score, Miss { rule: place(policy, i), why }))
                });
                // The first of the nearest: max_by_key would give the last.
                let nearest = misses.reduce(|best, next| if next.0 > best.0 { next } else { best }).map(|(_, m)| m);
                return Judgement::Denied { isolating, by, nearest };
            }
        }
    }
    Judgement::Allowed { isolating, by: None }
}

struct Packet<'a> {
    universe: &'a Universe,
    direction: Direction,
    subject: &'a Pod,
    peer: &'a Side,
    dst: &'a Side,
    port: u16,
    protocol: Protocol,
}

impl Packet<'_> {
    fn selects(&self, selector: &PodSelector, pod: &Pod) -> bool {
        let namespace = self.universe.namespaces.get(&pod.key.namespace);
        selector.matches(&pod.key.namespace, namespace.map(AsRef::as_ref), &pod.labels)
    }

    fn is_matched(&self, rule: &Rule) -> bool {
        match &rule.peers {
            Peers::Any => self.ports_match(&rule.ports, true),
            Peers::Of(peers) => peers.iter().any(|p| {
                // Only a pod gives a port its name.
                let names_count = self.direction == Direction::Ingress || matches!(p, Peer::Pods(_));
                self.is_peer(p) && self.ports_match(&rule.ports, names_count)
            }),
        }
    }

    fn is_peer(&self, peer: &Peer) -> bool {
        match (peer, self.peer) {
            (Peer::Block(ranges), side) => side.address().is_some_and(|a| ranges.contains(a)),
            (Peer::Nodes(selector), side) => side.address().is_some_and(|a| self.universe.is_node(selector, a)),
            (Peer::Pods(selector), Side::Pod { pod, .. }) => self.selects(selector, pod),
            (Peer::Pods(_), _) => false,
        }
    }

    fn ports_match(&self, ports: &Ports, names_count: bool) -> bool {
        match ports {
            Ports::All => true,
            Ports::Of(ports) => ports.iter().any(|p| self.is_port(p, names_count)),
        }
    }

    fn is_port(&self, port: &Port, names_count: bool) -> bool {
        if port.protocol != self.protocol {
            return false;
        }
        match &port.number {
            PortNumber::Any => true,
            PortNumber::Range(first, last) => (*first..=*last).contains(&self.port),
            PortNumber::Named(name) => {
                let pod = match (self.direction, self.dst) {
                    (Direction::Ingress, _) => Some(self.subject),
                    (Direction::Egress, Side::Pod { pod, .. }) => Some(pod),
                    (Direction::Egress, _) => None,
                };
                let is_it = |p: &&crate::model::NamedPort| {
                    p.name == *name && p.protocol == self.protocol && p.port == self.port
                };
                names_count && pod.is_some_and(|p| p.ports.iter().any(|p| is_it(&p)))
            }
        }
    }

    /// How near a rule came that does not match (more is nearer), and what was missing.
    fn miss(&self, rule: &Rule) -> Option<(u8, String)> {
        let peer = match &rule.peers {
            Peers::Any => true,
            Peers::Of(peers) => peers.iter().any(|p| self.is_peer(p)),
        };
        if peer {
            let Ports::Of(ports) = &rule.ports else { return None };
            let list = ports.iter().map(Port::to_string).collect::<Vec<_>>().join(", ");
            return Some((2, format!("knows this peer, but allows it {list} only")));
        }
        if self.ports_match(&rule.ports, true) {
            let whom = if self.direction == Direction::Ingress { "from" } else { "to" };
            return Some((1, format!("allows this port, but only {whom} {}", peers_text(&rule.peers))));
        }
        None
    }
}

fn peers_text(peers: &Peers) -> String {
    match peers {
        Peers::Any => "anyone".to_owned(),
        Peers::Of(peers) if peers.is_empty() => "nobody".to_owned(),
        Peers::Of(peers) => peers.iter().map(Peer::to_string).collect::<Vec<_>>().join("; "),
    }
}
