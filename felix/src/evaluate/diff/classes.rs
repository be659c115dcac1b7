//! Ends of connections that no policy tells apart.

use super::signature::Signatures;
use crate::evaluate::packet::Governing;
use crate::evaluate::party::Side;
use crate::evaluate::universe::Universe;
use crate::model::{
    Direction, Labels, NamedPort, NamespaceScope, Peer, Peers, Pod, PodSelector, Policy, Ranges, Rule, Selector,
};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address and who is behind it.
#[derive(Clone, Copy)]
pub(super) struct End<'a> {
    /// The pod, if it has a network of its own.
    pub(super) pod: Option<&'a Pod>,
    /// The node, if it is an address of one.
    pub(super) node: Option<&'a str>,
    /// Whether packets from there count as that node's own.
    pub(super) is_host: bool,
    pub(super) address: IpAddr,
    /// Its node's address, where others see that node in the place of the pod.
    pub(super) behind: Option<IpAddr>,
}

impl End<'_> {
    pub(super) fn side(&self) -> Side {
        let address = self.behind.unwrap_or(self.address);
        match (self.pod, self.node) {
            (Some(pod), _) if self.behind.is_some() => Side::Node { node: pod.node.clone(), pod: None, address },
            (Some(pod), _) => Side::Pod { pod: pod.clone(), address },
            (None, Some(node)) if self.is_host => Side::Node { node: node.to_owned(), pod: None, address },
            (None, _) => Side::Outside(address),
        }
    }
}

/// Ends of one family that fare alike.
pub(super) struct Class<'a> {
    pub(super) v4: bool,
    /// At least one; outside, one for all.
    pub(super) ends: Vec<End<'a>>,
    /// The addresses, where it is outside the cluster.
    pub(super) outside: Option<Ranges>,
    /// Whether no policy names its addresses.
    pub(super) unnamed: bool,
    pub(super) universes: [&'a Universe; 2],
    /// Policies about it: egress before and after, ingress before and after.
    governing: [[Governing<'a>; 2]; 2],
    changed: [bool; 2],
}

impl<'a> Class<'a> {
    pub(super) fn governing(&self, direction: Direction, moment: usize) -> &Governing<'a> {
        &self.governing[place(direction)][moment]
    }

    /// Whether what is said about it in this direction may have changed.
    pub(super) fn changed(&self, direction: Direction) -> bool {
        self.changed[place(direction)]
    }

    /// Ports that its pods have names for.
    pub(super) fn named_ports(&self) -> &[NamedPort] {
        self.ends.first().and_then(|end| end.pod).map_or(&[], |pod| &pod.ports)
    }
}

fn place(direction: Direction) -> usize {
    usize::from(direction == Direction::Ingress)
}

/// Everything that a policy of either moment tells ends apart by.
#[derive(Default)]
pub(super) struct Predicates<'a> {
    pub(super) pods: BTreeSet<&'a PodSelector>,
    pub(super) nodes: BTreeSet<&'a Selector>,
    pub(super) senders: BTreeSet<&'a Selector>,
    pub(super) blocks: BTreeSet<Cow<'a, Ranges>>,
}

impl<'a> Predicates<'a> {
    fn of(universes: [&'a Universe; 2]) -> Self {
        let policies = || universes.into_iter().flat_map(|universe| &universe.policies);
        let mut all =
            Self::of_rules(policies().flat_map(|policy| policy.ingress.iter().chain(&policy.egress).flatten()));
        all.pods.extend(policies().map(|policy| &policy.subject));
        all
    }

    /// Everything that rules tell the other end by.
    pub(super) fn of_rules(rules: impl IntoIterator<Item = &'a Rule>) -> Self {
        let mut all = Self::default();
        let peers = rules.into_iter().filter_map(|rule| match &rule.peers {
            Peers::Of(peers) => Some(peers),
            Peers::Any => None,
        });
        for peer in peers.flatten() {
            match peer {
                Peer::Pods(selector) => all.pods.insert(selector),
                Peer::Nodes(selector) => all.nodes.insert(selector),
                Peer::SentByNodes(selector) => all.senders.insert(selector),
                Peer::Block(ranges) => all.blocks.insert(Cow::Borrowed(ranges)),
            };
        }
        all
    }

    /// Addresses more that are told apart, each of these sets from all others.
    pub(super) fn with(mut self, addresses: impl IntoIterator<Item = BTreeSet<IpAddr>>) -> Self {
        let block = |addresses: BTreeSet<IpAddr>| {
            let each: Vec<Ranges> = addresses.into_iter().map(|address| Ranges::network(address.into())).collect();
            Cow::Owned(Ranges::union(&each))
        };
        self.blocks.extend(addresses.into_iter().map(block));
        self
    }

    /// Where in a family of addresses ranges begin, or have just ended.
    pub(super) fn bounds(&self, v4: bool) -> BTreeSet<u128> {
        let ranges = self.blocks.iter().flat_map(|ranges| ranges.bounds(v4));
        ranges.flat_map(|(from, to)| [Some(*from), to.checked_add(1)]).flatten().collect()
    }
}

/// All classes of two universes with the same pods and nodes, and all addresses of these.
pub(super) fn classes<'a>(before: &'a Universe, after: &'a Universe) -> (Vec<Class<'a>>, BTreeSet<IpAddr>) {
    let universes = [before, after];
    // What policies of pods say of a pod depends on what its ports are called, and people look for it by its namespace.
    let place = |pod: &'a Pod| (pod.key.namespace.as_str(), &pod.ports);
    classes_by(&Predicates::of(universes), universes, |end| Some((end, end.pod.map(place))))
}

/// The same as far as these, and what it is `seen` as beside itself, tell an end apart; none: it is none.
pub(super) fn classes_by<'a, A: Ord>(
    predicates: &Predicates<'_>,
    universes: [&'a Universe; 2],
    seen: impl Fn(End<'a>) -> Option<(End<'a>, A)>,
) -> (Vec<Class<'a>>, BTreeSet<IpAddr>) {
    let ends = ends(universes[1]);
    let inside: BTreeSet<IpAddr> = ends.iter().map(|end| end.address).collect();
    let ends = ends.into_iter().filter_map(seen);
    let (mut alike, mut signatures): (BTreeMap<_, Vec<End<'_>>>, _) = (BTreeMap::new(), Signatures::of(predicates));
    for (end, of) in ends {
        let key = (end.address.is_ipv4(), of, end.is_host, signatures.holding(&end, universes));
        alike.entry(key).or_default().push(end);
    }
    let relabelled = Relabelled::of(universes);
    let mut classes: Vec<Class<'_>> =
        alike.into_values().map(|ends| class(ends, None, false, universes, &relabelled)).collect();
    for v4 in [true, false] {
        for (signature, (ranges, address)) in outside(predicates, v4, &inside) {
            let end = End { pod: None, node: None, is_host: false, address, behind: None };
            let unnamed = !signature.contains(&true);
            classes.push(class(vec![end], Some(ranges), unnamed, universes, &relabelled));
        }
    }
    (classes, inside)
}

/// Namespaces whose labels are others, with these before and after.
pub(super) struct Relabelled<'a>(Vec<(&'a str, [Option<&'a Labels>; 2])>);

impl<'a> Relabelled<'a> {
    pub(super) fn of(universes: [&'a Universe; 2]) -> Self {
        let names: BTreeSet<&String> = universes.into_iter().flat_map(|universe| universe.namespaces.keys()).collect();
        let labels = |name: &'a String| (name.as_str(), universes.map(|universe| universe.namespaces.get(name)));
        Self(names.into_iter().map(labels).filter(|(_, [before, after])| before != after).collect())
    }

    /// Whether the same rules mean others after than before.
    pub(super) fn changes(&self, rules: &[Rule]) -> bool {
        let peers = rules.iter().filter_map(|rule| match &rule.peers {
            Peers::Of(peers) => Some(peers),
            Peers::Any => None,
        });
        let flips = |scope: &NamespaceScope| {
            let has = |name, labels: Option<&Labels>| scope.contains(name, labels.map(AsRef::as_ref));
            self.0.iter().any(|(name, [before, after])| has(name, *before) != has(name, *after))
        };
        peers.flatten().any(|peer| matches!(peer, Peer::Pods(selector) if flips(&selector.namespaces)))
    }
}

fn ends(universe: &Universe) -> Vec<End<'_>> {
    let pods = universe.owners.iter().filter_map(|(address, key)| {
        let pod = Some(universe.pods.get(key)?);
        Some(End { pod, node: None, is_host: false, address: *address, behind: None })
    });
    let own = |address: &IpAddr| universe.owners.contains_key(address);
    let hosts = universe.hosts.iter().filter(|(address, _)| !own(address));
    let of_node = |address, node, is_host| End { pod: None, node: Some(node), is_host, address, behind: None };
    let hosts = hosts.map(|(address, node)| of_node(*address, node.as_str(), true));
    // Addresses by which policy knows nodes, but from which their packets do not come.
    let mut other: BTreeMap<IpAddr, &str> = BTreeMap::new();
    for node in universe.nodes.values() {
        let known = node.known_as.iter().filter(|address| !own(address) && !universe.hosts.contains_key(address));
        other.extend(known.map(|address| (*address, node.name.as_str())));
    }
    let other = other.into_iter().map(|(address, node)| of_node(address, node, false));
    pods.chain(hosts).chain(other).collect()
}

fn class<'a>(
    ends: Vec<End<'a>>,
    outside: Option<Ranges>,
    unnamed: bool,
    universes: [&'a Universe; 2],
    relabelled: &Relabelled<'_>,
) -> Class<'a> {
    let pod = ends.first().and_then(|end| end.pod);
    let governing = [Direction::Egress, Direction::Ingress].map(|direction| {
        universes.map(|universe| pod.map(|pod| universe.governing(direction, pod)).unwrap_or_default())
    });
    let tiers = |governing: &Governing<'a>| -> Vec<_> { governing.iter().map(|(p, rules)| (p.tier, *rules)).collect() };
    let changed = [0, 1].map(|i| {
        let [before, after] = &governing[i];
        tiers(before) != tiers(after) || after.iter().any(|(_, rules)| relabelled.changes(rules))
    });
    let v4 = ends.first().is_some_and(|end| end.address.is_ipv4());
    Class { v4, ends, outside, unnamed, universes, governing, changed }
}

/// Addresses outside the cluster by the blocks that they are in, each with one that is nobody's.
fn outside(predicates: &Predicates<'_>, v4: bool, inside: &BTreeSet<IpAddr>) -> BTreeMap<Vec<bool>, (Ranges, IpAddr)> {
    let last = if v4 { u128::from(u32::MAX) } else { u128::MAX };
    let mut starts = predicates.bounds(v4);
    starts.insert(0);
    let starts: Vec<u128> = starts.into_iter().filter(|start| *start <= last).collect();
    let mut alike = BTreeMap::new();
    for (i, from) in starts.iter().enumerate() {
        let to = starts.get(i + 1).map_or(last, |next| next - 1);
        let Some(address) = (*from..=to).map(|number| address(v4, number)).find(|a| !inside.contains(a)) else {
            continue;
        };
        let signature: Vec<bool> = predicates.blocks.iter().map(|ranges| ranges.contains(address)).collect();
        alike.entry(signature).or_insert((Vec::new(), address)).0.push((*from, to));
    }
    alike.into_iter().map(|(signature, (bounds, a))| (signature, (Ranges::from_bounds(v4, bounds), a))).collect()
}

fn address(v4: bool, number: u128) -> IpAddr {
    match u32::try_from(number) {
        Ok(number) if v4 => Ipv4Addr::from_bits(number).into(),
        _ => Ipv6Addr::from_bits(number).into(),
    }
}

/// Rules of all policies about a class in one direction, at both moments.
pub(super) fn rules<'c>(class: &'c Class<'_>, direction: Direction) -> impl Iterator<Item = &'c Rule> {
    let all = class.governing[place(direction)].iter().flatten();
    all.flat_map(|(_, rules): &(&Policy, &[Rule])| rules.iter())
}
