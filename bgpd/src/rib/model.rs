//! The table against a model that is too simple to be wrong: all paths in one list, decided afresh after every step by
//! the RFC's text read literally.

use super::*;
use crate::scoped::ScopedAddr;
use ipnet::IpNet;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Set {
    local_pref: u32,
    as_path_length: u16,
    neighbour_as: u32,
    med: u32,
    hop: u8,
}

impl AttributeSet for Set {
    fn rank(&self) -> Rank {
        let Self { local_pref, as_path_length, neighbour_as, med, .. } = *self;
        Rank { local_pref, as_path_length, neighbour_as, med, ..Rank::default() }
    }
    fn next_hop(&self) -> Option<ScopedAddr> {
        Some(IpAddr::from([10, 0, 0, self.hop]).into())
    }
}

#[derive(Clone, Debug)]
enum Step {
    Announce(u8, (u16, u32), Set),
    Withdraw(u8, (u16, u32)),
    Down(u16),
    Stale(u16),
    Sweep(u16),
    Hop(u8, bool),
    SweepEmpty,
}

#[derive(Clone, PartialEq)]
struct ModelPath {
    set: Set,
    stale: bool,
}

/// Peer and identifier.
type From = (u16, u32);

/// (prefix, from whom) → path, and which next hops are unreachable.
#[derive(Default)]
struct Model {
    paths: BTreeMap<(u8, From), ModelPath>,
    unreachable: Vec<u8>,
}

/// The best path, and those that are used.
type Chosen = (Option<(u16, Set)>, Vec<(u16, Set)>);

impl Model {
    fn apply(&mut self, step: &Step) {
        match step {
            Step::Announce(prefix, from, set) => {
                self.paths.insert((*prefix, *from), ModelPath { set: set.clone(), stale: false });
            }
            Step::Withdraw(prefix, from) => {
                self.paths.remove(&(*prefix, *from));
            }
            Step::Down(peer) => self.paths.retain(|(_, (other, _)), _| other != peer),
            Step::Sweep(peer) => self.paths.retain(|(_, (other, _)), path| other != peer || !path.stale),
            Step::Stale(peer) => {
                let of_peer = self.paths.iter_mut().filter(|((_, (other, _)), _)| other == peer);
                of_peer.for_each(|(_, path)| path.stale = true)
            }
            Step::Hop(hop, reachable) => {
                self.unreachable.retain(|other| other != hop);
                // A next hop that nobody uses is not remembered.
                if !reachable && self.paths.values().any(|path| path.set.hop == *hop) {
                    self.unreachable.push(*hop);
                }
            }
            Step::SweepEmpty => {}
        }
        let paths = &self.paths;
        self.unreachable.retain(|hop| paths.values().any(|path| path.set.hop == *hop));
    }

    /// Paths of a prefix, whether they can be used or not.
    fn all(&self, prefix: u8) -> Vec<(From, ModelPath)> {
        let of_prefix = self.paths.iter().filter(|((other, _), _)| *other == prefix);
        of_prefix.map(|((_, from), path)| (*from, path.clone())).collect()
    }

    fn usable(&self, prefix: u8) -> Vec<(From, ModelPath)> {
        let mut all = self.all(prefix);
        all.retain(|(_, path)| !self.unreachable.contains(&path.set.hop));
        all
    }

    fn chosen(&self, prefix: u8) -> Chosen {
        let name = |(from, path): (From, ModelPath)| (from.0, path.set);
        let mut used: Vec<_> = choose(self.usable(prefix)).into_iter().map(name).collect();
        let best = used.first().cloned();
        used.sort();
        (best, used)
    }

    fn ranked(&self, prefix: u8) -> Vec<From> {
        let (mut left, mut ranked) = (self.usable(prefix), Vec::new());
        while !left.is_empty() {
            let chosen = choose(left.clone());
            left.retain(|(from, _)| !chosen.iter().any(|(other, _)| other == from));
            ranked.extend(chosen.into_iter().map(|(from, _)| from));
        }
        ranked
    }
}

/// The paths that share load, the best first.
fn choose(mut left: Vec<(From, ModelPath)>) -> Vec<(From, ModelPath)> {
    let peers = peers();
    let own = |from: &From| peers[usize::from(from.0)].source == Source::Own;
    let ebgp = |from: &From| peers[usize::from(from.0)].source == Source::Ebgp;
    keep_if_any(&mut left, |(from, _)| own(from));
    keep_if_any(&mut left, |(_, path)| !path.stale);
    let highest = left.iter().map(|(_, path)| path.set.local_pref).max();
    left.retain(|(_, path)| Some(path.set.local_pref) == highest);
    let shortest = left.iter().map(|(_, path)| path.set.as_path_length).min();
    left.retain(|(_, path)| Some(path.set.as_path_length) == shortest);
    let all = left.clone();
    left.retain(|(_, m)| !all.iter().any(|(_, n)| n.set.neighbour_as == m.set.neighbour_as && n.set.med < m.set.med));
    keep_if_any(&mut left, |(from, _)| ebgp(from));
    left.sort_by_key(|(from, _)| (peers[usize::from(from.0)].router_id, from.1));
    left
}

fn keep_if_any<T>(left: &mut Vec<T>, which: impl Fn(&T) -> bool) {
    if left.iter().any(&which) {
        left.retain(which);
    }
}

fn peers() -> Vec<PeerRank> {
    let sources = [Source::Own, Source::Ebgp, Source::Ebgp, Source::Ibgp, Source::Ibgp, Source::Ebgp];
    let rank = |(id, source)| PeerRank { source, router_id: 100 - id, address: [10, 9, 9, id as u8].into() };
    (0u32..).zip(sources).map(rank).collect()
}

fn key(prefix: u8) -> V4 {
    V4::of(IpNet::new([10, prefix, 0, 0].into(), 16).unwrap()).unwrap()
}

fn read(table: &Table<V4>, sets: &Attributes<Set>, prefix: u8) -> Chosen {
    let Some(id) = table.prefix(key(prefix)) else { return (None, Vec::new()) };
    let name = |path: &Path| (path.peer.0, sets.value(path.attributes).unwrap().as_ref().clone());
    let mut used: Vec<_> = table.paths(id).filter(|path| path.is_used()).map(name).collect();
    used.sort();
    (table.best(id).map(name), used)
}

fn from(table: &Table<V4>, id: PathId) -> From {
    (table.path(id).peer.0, table.identifier(id))
}

/// Numbers of all paths of a prefix, by who tells them.
fn numbers(table: &Table<V4>, prefix: u8) -> BTreeMap<From, PathId> {
    let ids =
        table.prefix(key(prefix)).map(|id| table.numbered_paths(id).map(|(id, _)| (from(table, id), id)).collect());
    ids.unwrap_or_default()
}

fn teller((peer, identifier): From) -> Teller {
    Teller { peer: PeerId(peer), identifier }
}

fn perform(
    step: &Step,
    table: &mut Table<V4>,
    sets: &mut Attributes<Set>,
    peers: &[PeerRank],
    changes: &mut Vec<Change>,
) {
    let mut changed = |change| changes.push(change);
    match step {
        Step::Announce(prefix, from, set) => {
            let id = sets.intern(&Arc::new(set.clone()));
            table.announce(key(*prefix), teller(*from), id, sets, peers).into_iter().for_each(changed);
        }
        Step::Withdraw(prefix, from) => {
            table.withdraw(key(*prefix), teller(*from), sets, peers).into_iter().for_each(changed);
        }
        Step::Down(peer) => table.remove_where(PeerId(*peer), |_, _| true, sets, peers, changed),
        Step::Stale(peer) => table.mark_stale(PeerId(*peer), sets, peers, changed),
        Step::Sweep(peer) => table.remove_where(PeerId(*peer), |_, path| path.is_stale(), sets, peers, changed),
        Step::Hop(hop, reachable) => {
            if let Some(hop) = sets.set_cost(IpAddr::from([10, 0, 0, *hop]).into(), reachable.then_some(0)) {
                table.hop_changed(hop, sets, peers, &mut changed);
            }
        }
        Step::SweepEmpty => table.sweep_empty(|_| true),
    }
}

fn set() -> impl Strategy<Value = Set> {
    (100..102u32, 1..3u16, 1..3u32, 0..2u32, 1..4u8).prop_map(|(local_pref, as_path_length, neighbour_as, med, hop)| {
        Set { local_pref, as_path_length, neighbour_as, med, hop }
    })
}

fn step() -> impl Strategy<Value = Step> {
    let peer = 0..6u16;
    // Half of what peers tell has an identifier.
    let from = || (0..6u16, prop_oneof![3 => Just(0u32), 3 => 1..4u32]);
    prop_oneof![
        8 => (0..4u8, from(), set()).prop_map(|(prefix, from, set)| Step::Announce(prefix, from, set)),
        3 => (0..4u8, from()).prop_map(|(prefix, from)| Step::Withdraw(prefix, from)),
        1 => peer.clone().prop_map(Step::Down),
        1 => peer.clone().prop_map(Step::Stale),
        1 => peer.prop_map(Step::Sweep),
        2 => (1..4u8, any::<bool>()).prop_map(|(hop, reachable)| Step::Hop(hop, reachable)),
        1 => Just(Step::SweepEmpty),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_table_chooses_what_the_model_chooses_and_reports_exactly_what_changed(
        steps in prop::collection::vec(step(), 1..80)
    ) {
        let (mut table, mut sets, mut model) = (Table::<V4>::default(), Attributes::new(false), Model::default());
        let (peers, mut known) = (peers(), vec![(None, Vec::new()); 4]);
        for step in &steps {
            let mut changes = Vec::new();
            let paths: Vec<_> = (0..4).map(|prefix| (model.all(prefix), numbers(&table, prefix))).collect();
            perform(step, &mut table, &mut sets, &peers, &mut changes);
            model.apply(step);
            for (prefix, (before, numbered)) in (0..4u8).zip(paths) {
                let expected = model.chosen(prefix);
                prop_assert_eq!(&read(&table, &sets, prefix), &expected, "prefix {} after {:?}", prefix, step);
                let id = table.prefix(key(prefix));
                let change = changes.iter().find(|change| Some(change.prefix) == id);
                let chosen = std::mem::replace(&mut known[usize::from(prefix)], expected.clone());
                prop_assert_eq!(change.is_some_and(|change| change.used), chosen != expected);
                prop_assert_eq!(change.is_some_and(|change| change.best), chosen.0 != expected.0);
                prop_assert!(change.is_some() || before == model.all(prefix), "a change of paths was not reported");
                let ranked = id.map(|id| table.ranked(id, &sets, &peers).map(|id| from(&table, id)).collect());
                prop_assert_eq!(ranked.unwrap_or_else(Vec::new), model.ranked(prefix));
                let now = numbers(&table, prefix);
                let moved = now.iter().find(|(from, id)| numbered.get(*from).is_some_and(|known| known != *id));
                prop_assert!(moved.is_none(), "a path has got another number");
            }
        }
        for peer in 0..6 {
            table.remove_where(PeerId(peer), |_, _| true, &mut sets, &peers, |_| ());
            prop_assert_eq!((table.received(PeerId(peer)), table.fresh(PeerId(peer))), (0, 0));
        }
        table.sweep_empty(|_| true);
        prop_assert!(sets.is_empty() && table.prefixes().next().is_none() && table.empty() == 0);
    }
}

#[test]
fn a_peer_has_room_for_so_many_paths_and_for_new_attributes_of_those() {
    let (mut table, mut sets, peers) = (Table::<V4>::default(), Attributes::new(false), peers());
    let set = Arc::new(Set { local_pref: 1, as_path_length: 1, neighbour_as: 1, med: 1, hop: 1 });
    for identifier in 1..=u32::from(MAX_PATHS) {
        assert!(table.has_room(key(1), teller((1, identifier))));
        let id = sets.intern(&set);
        table.announce(key(1), teller((1, identifier)), id, &mut sets, &peers);
    }
    assert!(!table.has_room(key(1), teller((1, 0))) && table.has_room(key(1), teller((1, 1))));
    assert!(table.has_room(key(1), teller((2, 1))) && table.has_room(key(2), teller((1, 99))));
    table.mark_stale(PeerId(1), &sets, &peers, |_| ());
    assert!(table.has_room(key(1), teller((1, 0))), "stale ones take none");
    assert_eq!((table.received(PeerId(1)), table.fresh(PeerId(1))), (u32::from(MAX_PATHS), 0));
    assert_eq!(size_of::<Path>(), 12, "who does not use identifiers does not pay for them");
}
