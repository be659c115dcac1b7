//! What a change of policies opens and closes.
//!
//! In flow two universes with the same pods and nodes, before and after; out flows a [`Diff`], exact for every pod, node and address,
//! every port and protocol. Ends that no policy of either moment tells apart are one class, so the work is classes², and of those only
//! pairs where a policy about one of the two ends has changed. HostPolicies are compared for themselves ([`HostChange`]).

mod classes;
mod group;
mod host;
mod signature;
mod spans;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use group::Group;
pub use host::{Edit, HostChange};
pub use spans::Span;

use super::host::AtHost;
use super::party::Side;
use super::universe::Universe;
use crate::model::{Direction, PodKey, Protocol};
use classes::{Class, End};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// All that changes, in a fixed order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// What policies about pods open and close.
    pub changes: Vec<Change>,
    /// What HostPolicies open and close, whatever policies about pods say.
    pub at_hosts: Vec<HostChange>,
    /// Addresses of pods and nodes: what is not outside though its range is.
    inside: BTreeSet<IpAddr>,
}

/// Connections that open or close.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Senders.
    pub from: Group,
    /// Receivers.
    pub to: Group,
    /// Whether they are allowed after the change and were not before; else it is the other way round.
    pub opens: bool,
    /// Ports and protocols, ascending, neighbours joined.
    pub ports: Vec<Span>,
    /// How many pairs of sender and receiver; outside counts as one.
    pub pairs: usize,
}

/// Compares what two universes allow. Their pods and nodes are taken to be the same.
#[must_use]
pub fn diff(before: &Universe, after: &Universe) -> Diff {
    let (classes, inside) = classes::classes(before, after);
    let mut changes = Vec::new();
    for from in &classes {
        for to in &classes {
            if from.v4 == to.v4 && (from.changed(Direction::Egress) || to.changed(Direction::Ingress)) {
                changes.extend(between(from, to));
            }
        }
    }
    let mut changes = families_joined(changes);
    changes.sort();
    Diff { changes, at_hosts: host::changes([before, after]), inside }
}

impl Diff {
    /// The change at a node's interface that a connection between the node and an address is part of. The interface has to be named.
    #[must_use]
    pub fn at_host(&self, at: &AtHost<'_>, peer: IpAddr) -> Option<&HostChange> {
        let inside = self.inside.contains(&peer);
        self.at_hosts.iter().find(|change| change.has(at, peer, inside))
    }

    /// The change that a connection is part of, if its verdict changes.
    #[must_use]
    pub fn of(&self, src: IpAddr, dst: IpAddr, port: u16, protocol: Protocol) -> Option<&Change> {
        let is_in = |group: &Group, address| group.has(address, self.inside.contains(&address));
        self.changes.iter().find(|change| {
            is_in(&change.from, src)
                && is_in(&change.to, dst)
                && change.ports.iter().any(|span| span.contains(port, protocol))
        })
    }
}

/// What opens and what closes between two classes.
fn between(from: &Class<'_>, to: &Class<'_>) -> Vec<Change> {
    let Some((src, dst)) = example(from, to) else { return Vec::new() };
    let (mut opened, mut closed) = (Vec::new(), Vec::new());
    for span in spans::of_pair(from, to) {
        let [before, after] = [0, 1].map(|moment| allows(moment, (from, &src), (to, &dst), span));
        match (before, after) {
            (false, true) => opened.push(span),
            (true, false) => closed.push(span),
            _ => {}
        }
    }
    let pairs = pairs(from, to);
    let change = |opens, ports: Vec<Span>| {
        let ports = spans::joined(ports);
        (!ports.is_empty()).then(|| Change { from: Group::of(from), to: Group::of(to), opens, ports, pairs })
    };
    [change(false, closed), change(true, opened)].into_iter().flatten().collect()
}

/// Whether a universe (0: before, 1: after) lets the first port of a span through.
fn allows(moment: usize, (from, src): (&Class<'_>, &Side), (to, dst): (&Class<'_>, &Side), span: Span) -> bool {
    let judge = |class: &Class<'_>, direction, subject: &Side, peer: &Side| {
        let Side::Pod { pod, .. } = subject else { return true };
        let governing = class.governing(direction, moment);
        let packet = class.universes[moment].packet(direction, pod, peer, dst, span.sample());
        packet.decide(governing).allowed
    };
    judge(from, Direction::Egress, src, dst) && judge(to, Direction::Ingress, dst, src)
}

/// Two ends of which policy decides whether they may talk: one of them is a pod, and they are not the same, nor a node and its own pod.
fn example(from: &Class<'_>, to: &Class<'_>) -> Option<(Side, Side)> {
    from.ends.iter().find_map(|src| {
        let dst = to.ends.iter().find(|dst| is_judged(src, dst))?;
        Some((src.side(), dst.side()))
    })
}

fn is_judged(src: &End<'_>, dst: &End<'_>) -> bool {
    match (src.pod, dst.pod) {
        (Some(a), Some(b)) => a.key != b.key,
        (None, Some(pod)) => src.node != Some(pod.node.as_str()) || !src.is_host,
        (Some(_), None) => true,
        (None, None) => false,
    }
}

fn pairs(from: &Class<'_>, to: &Class<'_>) -> usize {
    let all = from.ends.len() * to.ends.len();
    let same = keys(from).intersection(&keys(to)).count();
    let mut by_node: BTreeMap<&str, usize> = BTreeMap::new();
    to.ends.iter().filter_map(|end| end.pod).for_each(|pod| *by_node.entry(pod.node.as_str()).or_default() += 1);
    let hosts = from.ends.iter().filter(|end| end.pod.is_none() && end.is_host).filter_map(|end| end.node);
    let own: usize = hosts.filter_map(|node| by_node.get(node)).sum();
    all - same - own
}

fn keys<'a>(class: &Class<'a>) -> BTreeSet<&'a PodKey> {
    class.ends.iter().filter_map(|end| Some(&end.pod?.key)).collect()
}

/// What is the same for IPv4 and IPv6 is told once.
fn families_joined(changes: Vec<Change>) -> Vec<Change> {
    let mut joined: Vec<Change> = Vec::new();
    let mut at = BTreeMap::new();
    for change in changes {
        let key = (change.from.name(), change.to.name(), change.opens, change.ports.clone());
        if let Some(index) = at.get(&key).copied() {
            let known: &mut Change = &mut joined[index];
            known.from.join(change.from);
            known.to.join(change.to);
            known.pairs = known.pairs.max(change.pairs);
        } else {
            at.insert(key, joined.len());
            joined.push(change);
        }
    }
    joined
}
