//! What HostPolicies say of a connection at a node's own interface.
//!
//! They are judged as the datastore has them, confirmed or not, but of a node that was asked as it enforces them ([`Universe::told`]). What
//! a node needs is the node's own word, too; where it has not been asked, it is what nodes usually need ([`Usual`]).

use super::judge::{Judgement, judge_by};
use super::packet::{Governing, Packet};
use super::party::Side;
use super::told::By;
use super::universe::Universe;
use crate::host::Failsafe;
use crate::host::failsafe::{Facts, Peers, failsafes};
use crate::host::ports::Ports;
use crate::model::{CONTROL_PLANE, HostPolicy, InterfaceName, Node, Protocol, Way};
use std::collections::BTreeSet;
use std::net::IpAddr;
use twill_crds::names;

/// What a connection meets on its way that its ends do not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Crossing {
    /// The node's interface by which it comes or goes; none: any that is the node's own.
    pub interface: Option<String>,
    /// The node and its port that it came to before it was sent on to its receiver.
    pub came_to: Option<(String, u16)>,
    /// The address of that node that it was sent to; none: the first of the receiver's family.
    pub sent_to: Option<IpAddr>,
    /// Whether that node puts its own address in place of the sender's for receivers elsewhere, as proxies of Services do.
    pub hidden: bool,
    /// Whether its sender's node led it to its receiver: it was sent to a Service's address.
    pub led: bool,
}

/// A connection at an interface of a node.
#[derive(Clone, Copy, Debug)]
pub struct AtHost<'a> {
    /// Name of the node.
    pub node: &'a str,
    /// Whether it comes to the node, from it, or through it.
    pub way: Way,
    /// The port at its destination; of what goes through, the one that it came to. 0 for protocols without ports.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// The interface by which it comes or goes; none: any that is the node's own.
    pub interface: Option<&'a str>,
}

/// Interfaces that HostPolicies do not tell apart, by what people call them, and one of them.
pub(super) type Kind = (String, String);

/// What a node needs of which no more is known than its labels.
#[derive(Clone, Debug, Default)]
pub(super) struct Usual {
    worker: Vec<Failsafe>,
    control_plane: Vec<Failsafe>,
    /// Addresses from which nodes hear each other.
    nodes: BTreeSet<IpAddr>,
}

impl Usual {
    pub(super) fn of<'n>(nodes: impl Iterator<Item = &'n Node>, ports: &Ports) -> Self {
        let nodes: Vec<&Node> = nodes.collect();
        let leaders = nodes.iter().filter(|node| leads(node)).flat_map(|node| node.addresses.iter().copied());
        let leaders: BTreeSet<IpAddr> = leaders.collect();
        let of = |listening: &[u16]| {
            let listening = listening.iter().copied().collect();
            let (control_plane, ports) = (leaders.clone(), ports.clone());
            failsafes(&Facts { listening, control_plane, ports, ..Facts::default() })
        };
        let (worker, control_plane) = (of(&[22, 10250]), of(&[22, 2379, 6443, 10250]));
        Self { worker, control_plane, nodes: nodes.iter().flat_map(|node| node.addresses.iter().copied()).collect() }
    }
}

fn leads(node: &Node) -> bool {
    node.labels.contains_key(CONTROL_PLANE)
}

impl Universe {
    /// What HostPolicies say of a new connection between a node and an address.
    #[must_use]
    pub fn at_host(&self, at: &AtHost<'_>, peer: IpAddr) -> Judgement {
        self.judge_at_host(at, &self.behind(peer))
    }

    pub(super) fn judge_at_host(&self, at: &AtHost<'_>, peer: &Side) -> Judgement {
        self.judge_by_program(at, peer, &self.program(at.node))
    }

    pub(super) fn judge_by_program(&self, at: &AtHost<'_>, peer: &Side, program: &[&HostPolicy]) -> Judgement {
        if !program.iter().any(|policy| policy.closes(at.way)) {
            let what = match at.way {
                Way::In => "what comes to it",
                Way::Out => "what it sends",
                Way::Through => "what it sends on to others",
            };
            return Judgement::NotJudged(format!("no HostPolicy of node {} closes {what}", at.node));
        }
        if let Some(interface) = at.interface {
            return self.judge_at_interface(at, peer, program, (interface, interface));
        }
        let kinds = kinds(program.iter().copied(), at.way);
        let judge = |(name, one): (String, String)| {
            let judgement = self.judge_at_interface(at, peer, program, (&name, &one));
            (name, judgement)
        };
        let judged: Vec<(String, Judgement)> = kinds.into_iter().map(judge).collect();
        let differ = judged.windows(2).any(|two| two[0].1.allows() != two[1].1.allows());
        if differ {
            return Judgement::Depends { node: at.node.to_owned(), interfaces: judged };
        }
        // The one with the most to say stands for all.
        let told = judged.into_iter().map(|(_, judgement)| judgement).max_by_key(Judgement::governed_by);
        told.unwrap_or(Judgement::NotIsolated)
    }

    /// At an interface, which people call `name`.
    fn judge_at_interface(
        &self,
        at: &AtHost<'_>,
        peer: &Side,
        program: &[&HostPolicy],
        (name, interface): (&str, &str),
    ) -> Judgement {
        if is_spared(interface) {
            return Judgement::NotJudged(format!("HostPolicies never close {name}"));
        }
        let governing = governing(program, at.way, interface);
        if governing.is_empty() {
            return Judgement::NotJudged(format!("no HostPolicy of node {} is about {name}", at.node));
        }
        if let Some(failsafe) = self.need(at, peer).filter(|_| has_failsafes(program, at.way)) {
            let (node, reason) = (at.node.to_owned(), failsafe.reason.clone());
            return Judgement::Needed { node, reason, assumed: !self.told.contains_key(at.node) };
        }
        judge_by(&self.packet_at_host(at, peer), &governing)
    }

    pub(super) fn packet_at_host<'a>(&'a self, at: &AtHost<'_>, peer: &'a Side) -> Packet<'a> {
        let (direction, port, protocol) = (at.way.direction(), at.port, at.protocol);
        Packet { universe: self, direction, subject: None, peer, dst: peer, port, protocol }
    }

    /// Whether a node cannot do without it.
    pub(super) fn is_needed_there(&self, at: &AtHost<'_>, peer: &Side) -> bool {
        self.need(at, peer).is_some()
    }

    fn need(&self, at: &AtHost<'_>, peer: &Side) -> Option<&Failsafe> {
        self.needed_by(at.node).iter().find(|one| self.is_needed(one, at, peer))
    }

    /// What a node needs, by its own word where that was asked for.
    pub(super) fn needed_by(&self, node: &str) -> &[Failsafe] {
        match self.told.get(node) {
            Some(told) => &told.failsafes,
            None if self.nodes.get(node).is_some_and(leads) => &self.usual.control_plane,
            None => &self.usual.worker,
        }
    }

    fn is_needed(&self, failsafe: &Failsafe, at: &AtHost<'_>, peer: &Side) -> bool {
        let ports = failsafe.ports.is_none_or(|(first, last)| (first..=last).contains(&at.port));
        let Some(address) = peer.address() else { return false };
        let peers = match &failsafe.peers {
            Peers::Any => true,
            Peers::Nodes => self.usual.nodes.contains(&address),
            Peers::Addresses(all) => all.contains(&address),
        };
        (failsafe.direction, failsafe.protocol) == (at.way.direction(), at.protocol.0) && ports && peers
    }

    /// Addresses from which nodes hear each other.
    pub(super) fn node_addresses(&self) -> &BTreeSet<IpAddr> {
        &self.usual.nodes
    }

    /// HostPolicies of a node, in the order in which they are judged.
    pub(super) fn program(&self, node: &str) -> Vec<&HostPolicy> {
        match self.told.get(node).map(|told| &told.by) {
            Some(By::Enforced(enforced)) => enforced.now.iter().collect(),
            _ => self.stored_program(node),
        }
    }

    /// The same as the datastore has them.
    pub(super) fn stored_program(&self, node: &str) -> Vec<&HostPolicy> {
        let Some(node) = self.nodes.get(node) else { return Vec::new() };
        self.host_policies.iter().filter(|policy| policy.selects(&node.labels)).collect()
    }
}

/// Whether what the node needs passes before these policies. What goes through serves others.
pub(super) fn has_failsafes(program: &[&HostPolicy], way: Way) -> bool {
    way != Way::Through && program.iter().any(|policy| policy.failsafes)
}

/// Policies that are about an interface, with their rules for a way; none: everything passes there.
pub(super) fn governing<'a>(program: &[&'a HostPolicy], way: Way, interface: &str) -> Governing<'a> {
    let about = program.iter().filter(|policy| policy.closes(way) && is_about(policy, interface));
    about.filter_map(|policy| Some((&policy.rules, policy.rules.rules(way.direction())?))).collect()
}

fn is_about(policy: &HostPolicy, interface: &str) -> bool {
    let is_it = |name: &InterfaceName| match name {
        InterfaceName::Exactly(name) => name == interface,
        InterfaceName::Beginning(beginning) => interface.starts_with(beginning.as_str()),
    };
    policy.interfaces.is_empty() || policy.interfaces.iter().any(is_it)
}

fn is_spared(interface: &str) -> bool {
    ["lo", names::VXLAN_DEVICE, names::IPIP_DEVICE].contains(&interface)
        || interface.starts_with(names::WORKLOAD_PREFIX)
}

/// Interfaces of a node as far as policies tell them apart for a way.
pub(super) fn kinds<'a>(program: impl IntoIterator<Item = &'a HostPolicy>, way: Way) -> Vec<Kind> {
    let closing = program.into_iter().filter(|policy| policy.closes(way));
    let named: BTreeSet<&InterfaceName> = closing.flat_map(|policy| &policy.interfaces).collect();
    // No interface is called so, and no sentence says it.
    const ANY_END: &str = "\u{2026}";
    let mut kinds: Vec<Kind> = Vec::new();
    for name in named {
        match name {
            InterfaceName::Exactly(name) if !is_spared(name) => kinds.push((name.clone(), name.clone())),
            InterfaceName::Beginning(beginning) if !is_spared(beginning) => {
                kinds.push((format!("{beginning}*"), format!("{beginning}{ANY_END}")));
            }
            _ => {}
        }
    }
    let other = if kinds.is_empty() { "its interfaces" } else { "other interfaces" };
    kinds.push((other.to_owned(), ANY_END.to_owned()));
    kinds
}
