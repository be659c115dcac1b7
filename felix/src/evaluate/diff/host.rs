//! What a change of HostPolicies opens and closes at the interfaces of nodes.

use super::classes::{Class, Predicates, classes_by};
use super::spans::{self, Span};
use super::{Group, Universe};
use crate::evaluate::host::{AtHost, governing, kinds};
use crate::evaluate::universe::Side;
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
    /// All interfaces that policies tell apart there.
    kinds: Vec<String>,
}

/// Nodes that nothing tells apart, by their policies before and after and by what they need.
type Likeness = ([Vec<PolicyKey>; 2], Vec<Failsafe>);

/// All that changes at interfaces, in a fixed order.
pub(super) fn changes(universes: [&Universe; 2]) -> Vec<HostChange> {
    let mut alike: BTreeMap<Likeness, Vec<&str>> = BTreeMap::new();
    for node in universes[1].nodes.keys() {
        let programs = universes.map(|universe| universe.program(node));
        if !says_the_same(&programs) {
            let keys = programs.map(|program| program.iter().map(|policy| policy.rules.key.clone()).collect());
            alike.entry((keys, universes[1].needed_by(node))).or_default().push(node);
        }
    }
    let mut all: Vec<HostChange> = alike
        .iter()
        .flat_map(|((_, needs), nodes)| Way::ALL.map(|way| at(universes, nodes, needs, way)))
        .flatten()
        .collect();
    all.sort();
    all
}

fn says_the_same([before, after]: &[Vec<&HostPolicy>; 2]) -> bool {
    before.len() == after.len() && before.iter().zip(after).all(|(one, other)| one.says_what(other))
}

/// What changes at the interfaces of nodes that are alike, of which there is one at least.
fn at(universes: [&Universe; 2], nodes: &[&str], needs: &[Failsafe], way: Way) -> Vec<HostChange> {
    let programs = universes.map(|universe| universe.program(nodes[0]));
    let rules = || programs.iter().flatten().filter_map(|policy| policy.rules.rules(way.direction())).flatten();
    let predicates = Predicates::of_rules(rules()).with(needing(universes[1], needs));
    let kinds = kinds(programs.iter().flatten().copied(), way);
    let spans = spans::at_host(rules(), needs);
    // By the class of peers and everything but the interfaces.
    let mut found: BTreeMap<_, (HostChange, BTreeSet<usize>)> = BTreeMap::new();
    for (of, class) in classes_by(&predicates, universes).0.into_iter().enumerate() {
        let Some((node, peer)) = example(&class, nodes) else { continue };
        for (place, (_, interface)) in kinds.iter().enumerate() {
            for (opens, ports) in differing(universes, (node, way), &peer, interface, &spans) {
                let change = HostChange {
                    nodes: nodes.iter().map(|name| (*name).to_owned()).collect(),
                    way,
                    interfaces: Vec::new(),
                    peers: Group::of(&class),
                    opens,
                    ports: spans::joined(ports),
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

/// Addresses that what a node needs tells apart.
fn needing(universe: &Universe, needs: &[Failsafe]) -> Vec<BTreeSet<IpAddr>> {
    let addresses = |one: &Failsafe| match &one.peers {
        Peers::Addresses(all) => Some(all.clone()),
        Peers::Nodes | Peers::Any => None,
    };
    let nodes = universe.nodes.values().flat_map(|node| node.addresses.iter().copied()).collect();
    needs.iter().filter_map(addresses).chain([nodes]).collect()
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
    (node, way): (&str, Way),
    peer: &Side,
    interface: &str,
    spans: &[Span],
) -> Vec<(bool, Vec<Span>)> {
    let (mut closed, mut opened) = (Vec::new(), Vec::new());
    for span in spans {
        let (port, protocol) = span.sample_at_host();
        let at = AtHost { node, way, port, protocol, interface: Some(interface) };
        match universes.map(|universe| allows(universe, &at, peer, interface)) {
            [true, false] => closed.push(*span),
            [false, true] => opened.push(*span),
            _ => {}
        }
    }
    [(false, closed), (true, opened)].into_iter().filter(|(_, spans)| !spans.is_empty()).collect()
}

fn allows(universe: &Universe, at: &AtHost<'_>, peer: &Side, interface: &str) -> bool {
    let program = universe.program(at.node);
    let governing = governing(&program, at.way, interface);
    governing.is_empty()
        || universe.needs(&program, at, peer).is_some()
        || universe.packet_at_host(at, peer).decide(&governing).allowed
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
