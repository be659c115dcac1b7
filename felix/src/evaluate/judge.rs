//! One direction of one connection: which policies govern the pod, which rule decides, and what nearly did.

use super::fix::{Fix, fix};
use super::packet::Packet;
use crate::model::{Action, Direction, Peer, Peers, Policy, PolicyKey, Port, Ports, Rule, Tier};
use std::fmt;

/// What policy says of one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Policy has no say; why.
    NotJudged(String),
    /// There can be no such connection; why.
    Impossible(String),
    /// The table denies it before any policy; why.
    Guarded(String),
    /// It passes before all HostPolicies of a node, which cannot do without it.
    Needed {
        /// The node.
        node: String,
        /// Why it cannot.
        reason: String,
        /// Whether the node was not asked, and this is what nodes usually need.
        assumed: bool,
    },
    /// It differs between interfaces of a node.
    Depends {
        /// The node.
        node: String,
        /// Interfaces, as people call them, and what is said of each.
        interfaces: Vec<(String, Judgement)>,
    },
    /// No policy governs the pod in this direction: everything is allowed.
    NotIsolated,
    /// A rule allows it.
    Allowed {
        /// Policies that govern the pod in this direction, in order.
        isolating: Vec<Isolating>,
        /// Rules that passed it on to a later tier.
        passed: Vec<RuleRef>,
        /// The rule; none if every tier passed it on.
        by: Option<RuleRef>,
    },
    /// It is denied.
    Denied {
        /// Policies that govern the pod in this direction, in order.
        isolating: Vec<Isolating>,
        /// Rules that passed it on to a later tier.
        passed: Vec<RuleRef>,
        /// The rule; none if no rule allows it.
        by: Option<RuleRef>,
        /// The rule that came nearest to allowing it.
        nearest: Option<Miss>,
        /// What would let it go.
        fix: Option<Box<Fix>>,
    },
}

impl Judgement {
    /// How many policies have a say.
    pub(super) fn governed_by(&self) -> usize {
        match self {
            Self::Allowed { isolating, .. } | Self::Denied { isolating, .. } => isolating.len(),
            Self::Needed { .. } => 1,
            _ => 0,
        }
    }

    /// What would let it go.
    pub(super) fn fix(&self) -> Option<&Fix> {
        match self {
            Self::Denied { fix, .. } => fix.as_deref(),
            _ => None,
        }
    }

    /// Whether this direction lets the connection pass, by whichever interface.
    #[must_use]
    pub fn allows(&self) -> bool {
        matches!(self, Self::NotJudged(_) | Self::Needed { .. } | Self::NotIsolated | Self::Allowed { .. })
    }
}

/// A policy that governs a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isolating {
    /// The policy.
    pub policy: PolicyKey,
    /// Its tier.
    pub tier: Tier,
}

impl fmt::Display for Isolating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tier {
            Tier::Admin => write!(f, "{} (Admin)", self.policy),
            Tier::NetworkPolicy => self.policy.fmt(f),
            Tier::Baseline => write!(f, "{} (Baseline)", self.policy),
        }
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
    /// What it is called, if it has a name.
    pub name: Option<String>,
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}[{}]", self.policy, self.direction, self.index)?;
        self.name.as_ref().map_or(Ok(()), |name| write!(f, " {name:?}"))
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

/// Judges one direction.
pub(super) fn judge(packet: &Packet<'_>) -> Judgement {
    let governing = packet.subject.map(|subject| packet.universe.governing(packet.direction, subject));
    match governing {
        Some(governing) if !governing.is_empty() => judge_by(packet, &governing),
        _ => Judgement::NotIsolated,
    }
}

/// Judges one direction by these policies, at least one.
pub(super) fn judge_by(packet: &Packet<'_>, governing: &[(&Policy, &[Rule])]) -> Judgement {
    let isolating = governing.iter().map(|(p, _)| Isolating { policy: p.key.clone(), tier: p.tier }).collect();
    let decision = packet.decide(governing);
    let by = decision.by.map(|(policy, index)| packet.place(policy, index));
    let passed = decision.passed.iter().map(|(policy, index)| packet.place(policy, *index)).collect();
    if decision.allowed {
        return Judgement::Allowed { isolating, passed, by };
    }
    let rules = decision.tier.iter().flat_map(|(p, rules)| rules.iter().enumerate().map(move |(i, r)| (*p, i, r)));
    let misses = rules.filter(|(_, _, rule)| rule.action == Action::Allow).filter_map(|(policy, i, rule)| {
        let (score, why) = packet.miss(rule)?;
        Some((score, policy, i, why))
    });
    // The first of the nearest: max_by_key would give the last.
    let nearest = misses.reduce(|best, next| if next.0 > best.0 { next } else { best });
    let fix = fix(packet, &decision, nearest.as_ref().map(|(_, policy, i, _)| (*policy, *i)));
    let nearest = nearest.map(|(_, policy, i, why)| Miss { rule: packet.place(policy, i), why });
    Judgement::Denied { isolating, passed, by, nearest, fix: fix.map(Box::new) }
}

impl Packet<'_> {
    /// A rule, as people find it again.
    pub(super) fn place(&self, policy: &Policy, index: usize) -> RuleRef {
        let name = self.universe.names.get(&(policy.key.clone(), self.direction, index)).cloned();
        RuleRef { policy: policy.key.clone(), direction: self.direction, index, name }
    }

    /// How near a rule came that does not match (more is nearer), and what was missing.
    fn miss(&self, rule: &Rule) -> Option<(u8, String)> {
        if self.is_of(&rule.peers) {
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
