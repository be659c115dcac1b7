//! Which nodes reflect. In flow what is known of nodes and who reflects now; out flow names.
//!
//! Who reflects goes on reflecting as long as it can: a change of reflectors is work for every node. New ones are taken from zones, and
//! then racks, that have the fewest, so that no one failure takes all; rather workers than nodes of the control plane, which have enough to
//! do; rather old nodes than young ones, which an autoscaler removes first.

use crate::world::{Network, Node, World};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use twill_crds::selector;
use twill_crds::topology::RouteReflectors;

/// The zone of a node, by Kubernetes' own label.
const ZONE: &str = "topology.kubernetes.io/zone";
/// The rack of a node, as most call it.
const RACK: &str = "topology.kubernetes.io/rack";

/// A node as far as reflecting matters.
#[derive(Clone, Copy, Debug)]
struct Candidate<'a> {
    name: &'a str,
    zone: &'a str,
    rack: &'a str,
    node: &'a Node,
    reflects: bool,
}

/// The nodes that are to reflect, by name; none: no node can.
#[must_use]
pub(crate) fn choose(world: &World, wanted: Option<&RouteReflectors>, now: &[&str]) -> Vec<String> {
    // Of most nodes nothing is heard: it is not they who are away.
    if world.nodes.iter().filter(|(_, node)| node.silent).count() * 2 > world.nodes.len() {
        return names(now.iter().filter(|name| world.has_node(name)).copied());
    }
    let selector = wanted.and_then(|wanted| wanted.node_selector.as_ref());
    let good = world.nodes.iter().filter(|(key, node)| {
        can_reflect(node, world.networks.get(key)) && selector::matches_or_absent(selector, &node.labels)
    });
    let label = |node: &'_ Node, key| node.labels.get(key).map_or("", String::as_str).to_owned();
    let labelled: Vec<_> =
        good.map(|(key, node)| (key.name.as_str(), node, label(node, ZONE), label(node, RACK))).collect();
    let all: Vec<Candidate<'_>> = labelled
        .iter()
        .map(|(name, node, zone, rack)| Candidate { name, zone, rack, node, reflects: now.contains(name) })
        .collect();
    let count = wanted.and_then(|wanted| wanted.count).map_or_else(|| usual(world.nodes.len()), usize::from);
    let mut chosen: Vec<Candidate<'_>> = Vec::new();
    while let Some(next) = best(&all, &chosen, |_| true).filter(|_| chosen.len() < count) {
        chosen.push(next);
    }
    spread(&all, &mut chosen);
    names(chosen.iter().map(|one| one.name))
}

/// How many reflect unless somebody says.
fn usual(nodes: usize) -> usize {
    match nodes {
        0..=500 => 3,
        501..=2000 => 4,
        _ => 5,
    }
}

/// Whether a node is there for good, and its speaker has said who it is. Who is cordoned or about to go is replaced before it goes.
fn can_reflect(node: &Node, network: Option<&Network>) -> bool {
    let speaks = network.is_some_and(|network| {
        !network.drained && !network.uninstall && network.bgp.asn.is_some() && !network.bgp.addresses.is_empty()
    });
    speaks && !node.silent && !node.leaving
}

/// The next one, of those that `may`.
fn best<'a>(
    all: &[Candidate<'a>],
    chosen: &[Candidate<'a>],
    may: impl Fn(&Candidate<'a>) -> bool,
) -> Option<Candidate<'a>> {
    let shared = |of: fn(&Candidate<'a>) -> &'a str, one: &Candidate<'a>| {
        chosen.iter().filter(|other| of(other) == of(one)).count()
    };
    let rank = |one: &&Candidate<'a>| {
        let near = (shared(|other| other.zone, one), shared(|other| other.rack, one));
        (Reverse(one.reflects), near, one.node.control_plane, one.node.created, one.name)
    };
    let free = all.iter().filter(|one| chosen.iter().all(|other| other.name != one.name) && may(one));
    free.min_by_key(rank).copied()
}

/// Gives up one of those that reflect, if all are in one zone, or one rack, and need not be. A rack is one of its zone, and what would have
/// all of them in one zone again is no gain.
fn spread<'a>(all: &[Candidate<'a>], chosen: &mut Vec<Candidate<'a>>) {
    let zones = |chosen: &[Candidate<'a>]| chosen.iter().map(|one| one.zone).collect::<BTreeSet<_>>();
    let racks = |chosen: &[Candidate<'a>]| chosen.iter().map(|one| (one.zone, one.rack)).collect::<BTreeSet<_>>();
    let (in_zones, in_racks) = (zones(chosen), racks(chosen));
    if chosen.len() < 2 {
        return;
    }
    let other = match (in_zones.len(), in_racks.len()) {
        (1, _) => best(all, chosen, |one| !in_zones.contains(one.zone)),
        _ => None,
    };
    let other = other.or_else(|| match in_racks.len() {
        1 => best(all, chosen, |one| !in_racks.contains(&(one.zone, one.rack))),
        _ => None,
    });
    if let Some(other) = other {
        chosen.pop();
        chosen.push(other);
    }
}

fn names<'a>(all: impl Iterator<Item = &'a str>) -> Vec<String> {
    all.map(str::to_owned).collect::<BTreeSet<_>>().into_iter().collect()
}
