//! Whether a rule matches a packet, and which rule decides.

use super::party::Side;
use super::universe::Universe;
use crate::model::{Action, Direction, Peer, Peers, Pod, PodSelector, Policy, Port, PortNumber, Ports, Protocol, Rule};

/// One direction of one connection. `subject` is the governed pod, none where it is a node; `peer` the other end, `dst` the end where ports
/// are looked up.
pub(super) struct Packet<'a> {
    pub(super) universe: &'a Universe,
    pub(super) direction: Direction,
    pub(super) subject: Option<&'a Pod>,
    pub(super) peer: &'a Side,
    pub(super) dst: &'a Side,
    pub(super) port: u16,
    pub(super) protocol: Protocol,
}

/// Policies that govern a pod in one direction, in order, with their rules for it.
pub(super) type Governing<'a> = Vec<(&'a Policy, &'a [Rule])>;

/// A rule by the policy that has it and its place there.
pub(super) type Place<'a> = (&'a Policy, usize);

/// How the tiers end.
pub(super) struct Decision<'a> {
    /// Whether the packet may go.
    pub(super) allowed: bool,
    /// The rule that says so; none if the end of a tier does.
    pub(super) by: Option<Place<'a>>,
    /// Policies of the tier that decides; none if every tier passed the packet on.
    pub(super) tier: &'a [(&'a Policy, &'a [Rule])],
    /// Rules that passed it on to the next tier.
    pub(super) passed: Vec<Place<'a>>,
}

impl Universe {
    /// The policies that govern a pod in one direction.
    pub(super) fn governing(&self, direction: Direction, subject: &Pod) -> Governing<'_> {
        self.policies
            .of_namespace(&subject.key.namespace)
            .filter_map(|policy| Some((policy, policy.rules(direction)?)))
            .filter(|(policy, _)| self.selects(&policy.subject, subject))
            .collect()
    }

    pub(super) fn selects(&self, selector: &PodSelector, pod: &Pod) -> bool {
        let namespace = self.namespaces.get(&pod.key.namespace);
        selector.matches(&pod.key.namespace, namespace.map(AsRef::as_ref), &pod.labels)
    }
}

impl Packet<'_> {
    /// What the policies that govern the subject do with it, tier by tier.
    pub(super) fn decide<'g>(&self, governing: &'g [(&'g Policy, &'g [Rule])]) -> Decision<'g> {
        let mut passed = Vec::new();
        for of_tier in governing.chunk_by(|a, b| a.0.tier == b.0.tier) {
            let end = of_tier.first().map_or(Action::Pass, |(policy, _)| policy.tier.end());
            let mut rules =
                of_tier.iter().flat_map(|(p, rules)| rules.iter().enumerate().map(move |(i, r)| (*p, i, r)));
            let hit = rules.find(|(_, _, rule)| self.is_matched(rule));
            let by = hit.map(|(policy, i, _)| (policy, i));
            match hit.map_or(end, |(_, _, rule)| rule.action) {
                Action::Pass => passed.extend(by),
                action => return Decision { allowed: action == Action::Allow, by, tier: of_tier, passed },
            }
        }
        Decision { allowed: true, by: None, tier: &[], passed }
    }

    fn is_matched(&self, rule: &Rule) -> bool {
        match &rule.peers {
            Peers::Any => self.ports_match(&rule.ports, true),
            Peers::Of(peers) => {
                peers.iter().any(|peer| self.is_peer(peer) && self.ports_match(&rule.ports, self.names_count(peer)))
            }
        }
    }

    /// Whether a port's name says anything beside this peer: only a pod gives a port its name.
    pub(super) fn names_count(&self, peer: &Peer) -> bool {
        self.direction == Direction::Ingress || matches!(peer, Peer::Pods(_))
    }

    /// Whether the other end is one of these.
    pub(super) fn is_of(&self, peers: &Peers) -> bool {
        match peers {
            Peers::Any => true,
            Peers::Of(peers) => peers.iter().any(|peer| self.is_peer(peer)),
        }
    }

    fn is_peer(&self, peer: &Peer) -> bool {
        match (peer, self.peer) {
            (Peer::Block(ranges), side) => side.address().is_some_and(|a| ranges.contains(a)),
            (Peer::Nodes(selector), side) => side.address().is_some_and(|a| self.universe.is_node(selector, a)),
            (Peer::SentByNodes(selector), side) => side.address().is_some_and(|a| self.universe.is_sender(selector, a)),
            (Peer::Pods(selector), Side::Pod { pod, .. }) => self.universe.selects(selector, pod),
            (Peer::Pods(_), _) => false,
        }
    }

    /// Whether the port is one of these; named ones only if `names_count`.
    pub(super) fn ports_match(&self, ports: &Ports, names_count: bool) -> bool {
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
                    (Direction::Ingress, _) => self.subject,
                    (Direction::Egress, Side::Pod { pod, .. }) => Some(pod),
                    (Direction::Egress, _) => None,
                };
                let is_it =
                    |p: &crate::model::NamedPort| p.name == *name && p.protocol == self.protocol && p.port == self.port;
                names_count && pod.is_some_and(|p| p.ports.iter().any(is_it))
            }
        }
    }
}
