//! What a change of HostPolicies opens and closes at the interfaces of nodes.
//!
//! Nodes with the same policies and needs are compared once, and what is the same for several such groups is told once: what is told grows
//! with the policies and what they tell apart, not with the nodes.

use super::classes::{Class, End, Predicates, Relabelled, classes_by};
use super::spans::{self, Span};
use super::{Group, Universe};
use crate::evaluate::host::{AtHost, governing, has_failsafes, kinds};
use crate::evaluate::party::Side;
use crate::host::Failsafe;
use crate::host::failsafe::Peers;
use crate::model::{HostPolicy, PolicyKey, Way};
use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::net::IpAddr;

/// Connections that open or close at interfaces of nodes. What a node says to itself and to its own pods is not meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostChange {
    /// Names of the nodes.
    pub nodes: BTreeSet<String>,
    /// Whether they come to the node, from it, or through it.
    pub way: Way,
    /// The interfaces, as people call them; none: all that are the node's own.
    pub interfaces: Vec<String>,
    /// The other ends.
    pub peers: Group,
    /// Whether they are allowed after the change and were not before; else it is the other way round.
    pub opens: bool,
    /// Ports at the destination, of what goes through those that it came to.
    pub ports: Vec<Span>,
    /// HostPolicies by whose change this comes about, by name; none: by other labels of namespaces that they tell apart.
    pub by: BTreeMap<String, Edit>,
    /// All interfaces that policies tell apart there.
    kinds: Vec<String>,
}

/// What becomes of a policy of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Edit {
    /// It is new there.
    Added,
    /// It is there no more.
    Removed,
    /// It says something else.
    Changed,
}

/// Nodes that nothing tells apart, by their policies before and after and by what they need.
type Likeness<'a> = ([Vec<&'a PolicyKey>; 2], &'a [Failsafe]);

/// Policies of nodes that are alike, before and after.
type Programs<'a> = [Vec<&'a HostPolicy>; 2];

/// All that changes at interfaces, in a fixed order.
pub(super) fn changes(universes: [&Universe; 2]) -> Vec<HostChange> {
    let mut alike: BTreeMap<Likeness<'_>, (Programs<'_>, Vec<&str>)> = BTreeMap::new();
    let relabelled = Relabelled::of(universes);
    for node in universes[1].nodes.keys() {
        let programs = universes.map(|universe| universe.program(node));
        // Other labels of a namespace may be another meaning of the same rule.
        if !says_the_same(&programs) || programs[1].iter().any(|policy| means_others(policy, &relabelled)) {
            let keys = programs.each_ref().map(|program| program.iter().map(|policy| &policy.rules.key).collect());
            let group = alike.entry((keys, universes[1].needed_by(node)));
            group.or_insert_with(|| (programs, Vec::new())).1.push(node);
        }
    }
    let all = alike.iter().flat_map(|((_, needs), (programs, nodes))| {
        Way::ALL.into_iter().flat_map(move |way| at(universes, programs, nodes, needs, way))
    });
    let mut all = groups_joined(all.collect());
    all.sort();
    all
}

/// What is the same for several groups of nodes is told once.
fn groups_joined(changes: Vec<HostChange>) -> Vec<HostChange> {
    let mut joined: BTreeMap<HostChange, BTreeSet<String>> = BTreeMap::new();
    for mut change in changes {
        let nodes = std::mem::take(&mut change.nodes);
        joined.entry(change).or_default().extend(nodes);
    }
    joined.into_iter().map(|(change, nodes)| HostChange { nodes, ..change }).collect()
}

fn says_the_same([before, after]: &Programs<'_>) -> bool {
    before.len() == after.len() && before.iter().zip(after).all(|(one, other)| one.says_what(other))
}

/// Whether its rules mean other pods after than before.
fn means_others(policy: &HostPolicy, relabelled: &Relabelled<'_>) -> bool {
    policy.rules.ingress.iter().chain(&policy.rules.egress).any(|rules| relabelled.changes(rules))
}

/// The policies about a way that are not before what they are after.
fn edits([before, after]: &Programs<'_>, way: Way) -> BTreeMap<String, Edit> {
    let name = |policy: &HostPolicy| policy.rules.key.name.clone();
    let removed = before.iter().filter(|old| old.closes(way) && find(after, &old.rules.key).is_none());
    let removed = removed.map(|old| (name(old), Edit::Removed));
    let others = after.iter().filter_map(|new| match find(before, &new.rules.key) {
        None => new.closes(way).then(|| (name(new), Edit::Added)),
        Some(old) => {
            let about = old.closes(way) || new.closes(way);
            (about && !old.says_what(new)).then(|| (name(new), Edit::Changed))
        }
    });
    removed.chain(others).collect()
}

fn find<'a>(program: &[&'a HostPolicy], key: &PolicyKey) -> Option<&'a HostPolicy> {
    program.iter().copied().find(|policy| policy.rules.key == *key)
}

/// What changes at the interfaces of nodes that are alike, of which there is one at least.
fn at(
    universes: [&Universe; 2],
    programs: &Programs<'_>,
    nodes: &[&str],
    needs: &[Failsafe],
    way: Way,
) -> Vec<HostChange> {
    let rules = || programs.iter().flatten().filter_map(|policy| policy.rules.rules(way.direction())).flatten();
    let predicates = Predicates::of_rules(rules()).with(needing(universes[1], needs));
    let kinds = kinds(programs.iter().flatten().copied(), way);
    let spans = spans::at_host(rules(), needs);
    // By the class of peers and everything but the interfaces.
    let mut found: BTreeMap<_, (HostChange, BTreeSet<usize>)> = BTreeMap::new();
    let classes = classes_by(&predicates, universes, |end| Some((seen(universes[1], way, end)?, end.pod.is_some()))).0;
    for (of, class) in classes.into_iter().enumerate() {
        let Some((node, peer)) = example(&class, nodes) else { continue };
        for (place, (_, interface)) in kinds.iter().enumerate() {
            for (opens, ports) in differing(universes, programs, (node, way), &peer, interface, &spans) {
                let change = HostChange {
                    nodes: nodes.iter().map(|name| (*name).to_owned()).collect(),
                    way,
                    interfaces: Vec::new(),
                    peers: Group::of(&class),
                    opens,
                    ports: spans::joined(ports),
                    by: edits(programs, way),
                    kinds: kinds.iter().map(|(name, _)| name.clone()).collect(),
                };
                let key = (of, opens, change.ports.clone());
                found.entry(key).or_insert_with(|| (change, BTreeSet::new())).1.insert(place);
            }
        }
    }
    let mut joined: BTreeMap<_, HostChange> = BTreeMap::new();
    for ((_, opens, ports), (mut change, places)) in found {
        if places.len() < kinds.len() {
            change.interfaces = places.iter().map(|place| kinds[*place].0.clone()).collect();
        }
        let key = (change.peers.name(), opens, ports, change.interfaces.clone());
        match joined.entry(key) {
            Entry::Occupied(mut known) => known.get_mut().peers.join(change.peers),
            Entry::Vacant(place) => {
                place.insert(change);
            }
        }
    }
    joined.into_values().collect()
}

/// An end as nodes elsewhere see it, as an explanation has it; none: what they send there leaves by a device that is never closed.
fn seen<'a>(universe: &Universe, way: Way, end: End<'a>) -> Option<End<'a>> {
    match (way, end.pod) {
        (Way::In | Way::Through, Some(pod)) => Some(End { behind: universe.translated(pod, end.address), ..end }),
        (Way::In | Way::Through, None) => Some(end),
        (Way::Out, _) => (!universe.is_tunnelled(end.address)).then_some(end),
    }
}

/// Addresses that what a node needs tells apart.
fn needing(universe: &Universe, needs: &[Failsafe]) -> Vec<BTreeSet<IpAddr>> {
    let addresses = |one: &Failsafe| match &one.peers {
        Peers::Addresses(all) => Some(all.clone()),
        Peers::Nodes | Peers::Any => None,
    };
    needs.iter().filter_map(addresses).chain([universe.node_addresses().clone()]).collect()
}

/// An end that is not on the node, and the node.
fn example<'n>(class: &Class<'_>, nodes: &[&'n str]) -> Option<(&'n str, Side)> {
    class.ends.iter().find_map(|end| {
        let home = end.node.filter(|_| end.is_host).or(end.pod.map(|pod| pod.node.as_str()));
        let node = nodes.iter().find(|node| home != Some(**node))?;
        Some((*node, end.side()))
    })
}

/// What closes and what opens at an interface, each if it is anything.
fn differing(
    universes: [&Universe; 2],
    programs: &Programs<'_>,
    (node, way): (&str, Way),
    peer: &Side,
    interface: &str,
    spans: &[Span],
) -> Vec<(bool, Vec<Span>)> {
    let governing = programs.each_ref().map(|program| governing(program, way, interface));
    let failsafes = programs.each_ref().map(|program| has_failsafes(program, way));
    let (mut closed, mut opened) = (Vec::new(), Vec::new());
    for span in spans {
        let (port, protocol) = span.sample_at_host();
        let at = AtHost { node, way, port, protocol, interface: Some(interface) };
        let allowed = [0, 1].map(|moment| {
            governing[moment].is_empty()
                || failsafes[moment] && universes[moment].is_needed_there(&at, peer)
                || universes[moment].packet_at_host(&at, peer).decide(&governing[moment]).allowed
        });
        match allowed {
            [true, false] => closed.push(*span),
            [false, true] => opened.push(*span),
            _ => {}
        }
    }
    [(false, closed), (true, opened)].into_iter().filter(|(_, spans)| !spans.is_empty()).collect()
}

impl HostChange {
    /// Whether a connection is meant; `inside`: the peer is a pod or a node.
    pub(super) fn has(&self, at: &AtHost<'_>, peer: IpAddr, inside: bool) -> bool {
        let meant = |interface| kind_of(&self.kinds, interface).is_some_and(|kind| self.interfaces.contains(kind));
        let about = self.interfaces.is_empty() || at.interface.is_some_and(meant);
        let ports = self.ports.iter().any(|span| span.contains_at_host(at.port, at.protocol));
        self.nodes.contains(at.node) && self.way == at.way && about && ports && self.peers.has(peer, inside)
    }
}

/// What people call an interface: the last kind is that of all others.
fn kind_of<'k>(kinds: &'k [String], interface: &str) -> Option<&'k String> {
    let beginning = |kind: &&String| kind.strip_suffix('*').is_some_and(|beginning| interface.starts_with(beginning));
    let exactly = kinds.iter().find(|kind| *kind == interface);
    exactly.or_else(|| kinds.iter().filter(beginning).max_by_key(|kind| kind.len())).or(kinds.last())
}
