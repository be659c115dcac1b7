//! The internal form of policy.

use super::{PodSelector, Protocol, Ranges, Selector};
use std::fmt;

/// Where in the order a policy is judged; earlier tiers first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Before every NetworkPolicy.
    Admin,
    /// `networking.k8s.io/v1 NetworkPolicy`.
    NetworkPolicy,
    /// After every NetworkPolicy.
    Baseline,
}

impl Tier {
    /// What happens to a packet that no rule of the tier has decided, if any policy of the tier governs its pod and
    /// direction. After the last tier, [`Action::Pass`] allows.
    #[must_use]
    pub fn end(self) -> Action {
        match self {
            Self::NetworkPolicy => Action::Deny,
            Self::Admin | Self::Baseline => Action::Pass,
        }
    }
}

/// What a rule does with a packet that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// It may go, as far as this direction is concerned.
    Allow,
    /// It is dropped.
    Deny,
    /// The next tier decides.
    Pass,
}

/// From the pod or to the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// To the pod.
    Ingress,
    /// From the pod.
    Egress,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

/// The object that a policy came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyKey {
    /// Its kind.
    pub kind: &'static str,
    /// Its namespace; empty if it has none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// A policy. A pod that `subject` selects is governed by it in each direction that is `Some`, even with no rule in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The object that it came from.
    pub key: PolicyKey,
    /// Its tier.
    pub tier: Tier,
    /// Its place in the tier, lower first; ties go by key.
    pub priority: i32,
    /// Pods that it governs.
    pub subject: PodSelector,
    /// Rules about packets to the pod; position is the position in the object.
    pub ingress: Option<Vec<Rule>>,
    /// Rules about packets from the pod.
    pub egress: Option<Vec<Rule>>,
    /// What is wrong with the object, one sentence each. If it could not be read its rules are empty: it denies.
    pub problems: Vec<String>,
}

impl Policy {
    /// Its rules for a direction; none if it does not govern that direction.
    #[must_use]
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }

    /// The order in which policies are judged.
    #[must_use]
    pub fn order(&self) -> (Tier, i32, &PolicyKey) {
        (self.tier, self.priority, &self.key)
    }
}

/// A rule: matches if any peer and any port match.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// What happens then.
    pub action: Action,
    /// The other side of the connection.
    pub peers: Peers,
    /// The destination port.
    pub ports: Ports,
}

/// The other side of a connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peers {
    /// Anyone, inside and outside.
    Any,
    /// One of these; nobody if there is none.
    Of(Vec<Peer>),
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// Addresses of these pods.
    Pods(PodSelector),
    /// Addresses of these nodes.
    Nodes(Selector),
    /// What these nodes send, also into tunnels.
    SentByNodes(Selector),
    /// Addresses, those of pods included.
    Block(Ranges),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pods(selector) => selector.fmt(f),
            Self::Nodes(selector) => write!(f, "nodes {selector}"),
            Self::SentByNodes(selector) => write!(f, "nodes {selector}, also by tunnel"),
            Self::Block(ranges) => ranges.fmt(f),
        }
    }
}

/// The destination port of a connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ports {
    /// Every port of every protocol, also those without ports.
    All,
    /// One of these.
    Of(Vec<Port>),
}

/// One port, or many of one protocol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// The protocol.
    pub protocol: Protocol,
    /// The number.
    pub number: PortNumber,
}

/// Which ports of a protocol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortNumber {
    /// All of them.
    Any,
    /// From first to last, both included.
    Range(u16, u16),
    /// What the destination pod's containers call by this name; never a port of an address outside the pods.
    Named(String),
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.number {
            PortNumber::Any => write!(f, "any {} port", self.protocol),
            PortNumber::Range(first, last) if first == last => write!(f, "{first}/{}", self.protocol),
            PortNumber::Range(first, last) => write!(f, "{first}-{last}/{}", self.protocol),
            PortNumber::Named(name) => write!(f, "{name}/{}", self.protocol),
        }
    }
}
