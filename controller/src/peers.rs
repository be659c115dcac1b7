//! The status of each BGPPeer: how many nodes have it, and how many of them have a session with it.

use crate::conditions::{Judged, conditions};
use crate::turns::Nodes;
use crate::world::{Network, Node, World};
use jiff::Timestamp;
use std::collections::BTreeMap;
use twill_crds::bgp::BGPPeerStatus;
use twill_crds::validate::admit;
use twill_crds::{BGPPeer, Object, selector};
use twill_datastore::Key;

/// Names in a message.
const NAMED: usize = 5;

/// A node as far as peers matter.
struct Candidate<'a> {
    name: &'a str,
    node: &'a Node,
    network: Option<&'a Network>,
}

/// Nodes, by their place among the candidates, in order.
type Chosen = Vec<usize>;

/// What is found of a peer.
pub(crate) struct Verdict {
    /// The status that it should have.
    pub(crate) status: BGPPeerStatus,
    /// Who has a session with it, and who should have one, of those that are heard of.
    pub(crate) nodes: Nodes,
}

/// What is found of each peer, by name.
#[must_use]
pub(crate) fn statuses(world: &World, now: Timestamp) -> BTreeMap<String, Verdict> {
    let network = |key: &Key| world.networks.get(key);
    let nodes = world.nodes.iter().map(|(key, node)| Candidate { name: &key.name, node, network: network(key) });
    // One that is drained has no session with anybody.
    let nodes: Vec<Candidate<'_>> = nodes.filter(|one| one.network.is_none_or(|network| !network.drained)).collect();
    // Of several with one remote the first by name counts on a node.
    let mut earlier: BTreeMap<String, Vec<(&str, Chosen)>> = BTreeMap::new();
    let mut all = BTreeMap::new();
    for (key, peer) in world.peers.iter() {
        let chosen = choose(&nodes, peer);
        let others = place(peer).map(|(field, place)| earlier.entry(format!("{field}: {place}")).or_default());
        let taken = others.as_ref().map(|others| taken(others, &chosen)).unwrap_or_default();
        all.insert(key.name.clone(), verdict(&nodes, peer, &chosen, &taken, now));
        others.into_iter().for_each(|others| others.push((&key.name, chosen.clone())));
    }
    all
}

/// Where there can be one peer only: the field that says it, and what it says. None if nodes are the peers.
fn place(peer: &BGPPeer) -> Option<(&'static str, String)> {
    let remote = &peer.spec.remote;
    let address = remote.address.map(|address| ("spec.remote.address", address.to_string()));
    address.or_else(|| Some(("spec.remote.interface", remote.interface.clone()?)))
}

/// The nodes that are to have a session with a peer: not the peer itself. Where nodes are the peers, both ends are to have one.
fn choose(nodes: &[Candidate<'_>], peer: &BGPPeer) -> Chosen {
    let selector = peer.spec.node_selector.as_ref();
    if let Some(peers) = &peer.spec.remote.node_selector {
        let ends = |one: &Candidate<'_>| {
            (selector::matches_or_absent(selector, &one.node.labels), selector::matches(peers, &one.node.labels))
        };
        let all: Vec<(bool, bool)> = nodes.iter().map(ends).collect();
        let is_met = |place: usize| {
            let (has, is_peer) = all[place];
            let others = all.iter().enumerate().filter(|(other, _)| *other != place);
            others.into_iter().any(|(_, (theirs_has, theirs_is))| has && *theirs_is || is_peer && *theirs_has)
        };
        return (0..nodes.len()).filter(|place| is_met(*place)).collect();
    }
    let is_itself = |one: &Candidate<'_>| {
        one.network.zip(peer.spec.remote.address).is_some_and(|(network, address)| network.has(address))
    };
    let selected = nodes.iter().enumerate();
    let selected =
        selected.filter(|(_, one)| selector::matches_or_absent(selector, &one.node.labels) && !is_itself(one));
    selected.map(|(place, _)| place).collect()
}

/// Who has the remote already, and on how many of these nodes.
fn taken<'a>(others: &[(&'a str, Chosen)], chosen: &Chosen) -> Vec<(&'a str, usize)> {
    let shared = |theirs: &Chosen| chosen.iter().filter(|place| theirs.binary_search(place).is_ok()).count();
    others.iter().map(|(name, theirs)| (*name, shared(theirs))).filter(|(_, count)| *count > 0).collect()
}

fn verdict(
    nodes: &[Candidate<'_>],
    peer: &BGPPeer,
    chosen: &Chosen,
    taken: &[(&str, usize)],
    now: Timestamp,
) -> Verdict {
    let all = chosen.iter().map(|place| &nodes[*place]);
    let (up, down): (Vec<_>, Vec<_>) = all.partition(|one| is_established(one, peer.name()));
    let names: Vec<&str> = down.iter().map(|one| one.name).collect();
    let judged = [accepted(peer, taken), sessions(chosen.len(), up.len(), &names)];
    let old = peer.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let status = BGPPeerStatus {
        nodes: u32::try_from(chosen.len()).unwrap_or(u32::MAX),
        established: u32::try_from(up.len()).unwrap_or(u32::MAX),
        conditions: conditions(&judged, old, peer.metadata.generation, now),
    };
    // Of one that is silent nobody knows whether its sessions are up: it has no news.
    let heard = |some: Vec<&Candidate<'_>>| {
        some.into_iter().filter(|one| !one.node.silent).map(|one| one.name.to_owned()).collect()
    };
    Verdict { status, nodes: Nodes { up: heard(up), down: heard(down), ..Nodes::default() } }
}

/// What a node that is not heard of said last is no news.
fn is_established(one: &Candidate<'_>, peer: &str) -> bool {
    !one.node.silent && one.network.is_some_and(|network| network.bgp.is_established(peer))
}

fn accepted(peer: &BGPPeer, taken: &[(&str, usize)]) -> Judged {
    let no = |reason, message| Judged::new("Accepted", false, reason, message);
    // Where an API server has not refused it, and for what this release refuses and an earlier one did not.
    let mut value = serde_json::to_value(peer).unwrap_or_default();
    if let Err(invalid) = admit(&BGPPeer::kind(), &mut value, None) {
        return no("Invalid", format!("{}: {}", invalid.field, invalid.problem));
    }
    match taken.first() {
        None => Judged::new("Accepted", true, "Valid", ""),
        Some((other, count)) => {
            let (noun, verb) = if *count == 1 { ("node", "does") } else { ("nodes", "do") };
            let (field, place) = place(peer).unwrap_or_default();
            no(
                "Duplicate",
                format!(
                    "{field}: {place} is the peer of BGPPeer {other} already, so {count} {noun} {verb} not use this one; remove \
                     one of the two"
                ),
            )
        }
    }
}

fn sessions(nodes: usize, established: usize, down: &[&str]) -> Judged {
    if nodes == 0 {
        return Judged::new(
            "Established",
            false,
            "NoNode",
            "spec.nodeSelector selects no node that takes part in routing",
        );
    }
    if down.is_empty() {
        return Judged::new("Established", true, "AllEstablished", "");
    }
    let mut named = down.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    if down.len() > NAMED {
        named.push_str(&format!(" and {} more", down.len() - NAMED));
    }
    let message =
        format!("{established} of {nodes} nodes have a session; without one: {named}; twill peers says why there");
    Judged::new("Established", false, "SessionsDown", message)
}
