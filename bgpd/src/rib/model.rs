//! The table against a model that is too simple to be wrong: all paths in one list, decided afresh after every step by
//! the RFC's text read literally.

use super::*;
use ipnet::IpNet;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
    fn next_hop(&self) -> Option<IpAddr> {
        Some([10, 0, 0, self.hop].into())
    }
}

#[derive(Clone, Debug)]
enum Step {
    Announce(u8, u16, Set),
    Withdraw(u8, u16),
    Down(u16),
    Stale(u16),
    Sweep(u16),
    Hop(u8, bool),
    SweepEmpty,
}

#[derive(Clone)]
struct ModelPath {
    set: Set,
    stale: bool,
}

/// (prefix, peer) → path, and which next hops are unreachable.
#[derive(Default)]
struct Model {
    paths: BTreeMap<(u8, u16), ModelPath>,
    unreachable: Vec<u8>,
}

type Chosen = (Option<(u16, Set)>, Vec<(u16, Set)>);

impl Model {
    fn apply(&mut self, step: &Step) {
        match step {
            Step::Announce(prefix, peer, set) => {
                self.paths.insert((*prefix, *peer), ModelPath { set: set.clone(), stale: false });
            }
            Step::Withdraw(prefix, peer) => {
                self.paths.remove(&(*prefix, *peer));
            }
            Step::Down(peer) => self.paths.retain(|(_, other), _| other != peer),
            Step::Sweep(peer) => self.paths.retain(|(_, other), path| other != peer || !path.stale),
            Step::Stale(peer) => {
                self.paths.iter_mut().filter(|((_, other), _)| other == peer).for_each(|(_, path)| path.stale = true)
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

    fn chosen(&self, prefix: u8) -> Chosen {
        let peers = peers();
        let mut left: Vec<(u16, ModelPath)> = self
            .paths
            .iter()
            .filter(|((other, _), path)| *other == prefix && !self.unreachable.contains(&path.set.hop))
            .map(|((_, peer), path)| (*peer, path.clone()))
            .collect();
        let own = |peer: &u16| peers[usize::from(*peer)].source == Source::Own;
        let ebgp = |peer: &u16| peers[usize::from(*peer)].source == Source::Ebgp;
        keep_if_any(&mut left, |(peer, _)| own(peer));
        keep_if_any(&mut left, |(_, path)| !path.stale);
        let highest = left.iter().map(|(_, path)| path.set.local_pref).max();
        left.retain(|(_, path)| Some(path.set.local_pref) == highest);
        let shortest = left.iter().map(|(_, path)| path.set.as_path_length).min();
        left.retain(|(_, path)| Some(path.set.as_path_length) == shortest);
        let all = left.clone();
        left.retain(|(_, m)| {
            !all.iter().any(|(_, n)| n.set.neighbour_as == m.set.neighbour_as && n.set.med < m.set.med)
        });
        keep_if_any(&mut left, |(peer, _)| ebgp(peer));
        let best = left.iter().min_by_key(|(peer, _)| peers[usize::from(*peer)].router_id);
        let best = best.map(|(peer, path)| (*peer, path.set.clone()));
        (best, left.into_iter().map(|(peer, path)| (peer, path.set)).collect())
    }
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
    used.sort_by_key(|(peer, _)| *peer);
    (table.best(id).map(name), used)
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
        Step::Announce(prefix, peer, set) => {
            let id = sets.intern(&Arc::new(set.clone()));
            table.announce(key(*prefix), PeerId(*peer), id, sets, peers).into_iter().for_each(changed);
        }
        Step::Withdraw(prefix, peer) => {
            table.withdraw(key(*prefix), PeerId(*peer), sets, peers).into_iter().for_each(changed);
        }
        Step::Down(peer) => table.peer_down(PeerId(*peer), sets, peers, changed),
        Step::Stale(peer) => table.mark_stale(PeerId(*peer), sets, peers, changed),
        Step::Sweep(peer) => table.sweep_stale(PeerId(*peer), sets, peers, changed),
        Step::Hop(hop, reachable) => {
            if let Some(hop) = sets.set_cost([10, 0, 0, *hop].into(), reachable.then_some(0)) {
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
    prop_oneof![
        8 => (0..4u8, peer.clone(), set()).prop_map(|(prefix, peer, set)| Step::Announce(prefix, peer, set)),
        3 => (0..4u8, peer.clone()).prop_map(|(prefix, peer)| Step::Withdraw(prefix, peer)),
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
            perform(step, &mut table, &mut sets, &peers, &mut changes);
            model.apply(step);
            for prefix in 0..4u8 {
                let expected = model.chosen(prefix);
                prop_assert_eq!(&read(&table, &sets, prefix), &expected, "prefix {} after {:?}", prefix, step);
                let id = table.prefix(key(prefix));
                let change = changes.iter().find(|change| Some(change.prefix) == id);
                let before = std::mem::replace(&mut known[usize::from(prefix)], expected.clone());
                prop_assert_eq!(change.is_some_and(|change| change.used), before != expected);
                prop_assert_eq!(change.is_some_and(|change| change.best), before.0 != expected.0);
            }
        }
        for peer in 0..6 {
            table.peer_down(PeerId(peer), &mut sets, &peers, |_| ());
            prop_assert_eq!(table.received(PeerId(peer)), 0);
        }
        table.sweep_empty(|_| true);
        prop_assert!(sets.is_empty() && table.prefixes().next().is_none() && !table.has_empty());
    }
}
