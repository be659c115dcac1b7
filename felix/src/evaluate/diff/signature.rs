//! What tells ends apart: of each end which predicates of policies hold, asked of those alone that can hold.

use super::classes::{End, Predicates};
use crate::evaluate::universe::Universe;
use crate::model::{NamespaceScope, PodSelector};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Predicates, numbered and filed.
pub(super) struct Signatures<'p> {
    predicates: &'p Predicates<'p>,
    /// Selectors of pods of one namespace, by that, with their numbers.
    of_one: BTreeMap<&'p str, Vec<(usize, &'p PodSelector)>>,
    /// The others.
    of_many: Vec<(usize, &'p PodSelector)>,
    /// Where in IPv4 and in IPv6 blocks begin or have just ended. Between two of these no block tells addresses apart.
    bounds: [Vec<u128>; 2],
    /// The blocks that hold between two of them.
    known: BTreeMap<(bool, usize), Vec<usize>>,
}

impl<'p> Signatures<'p> {
    pub(super) fn of(predicates: &'p Predicates<'p>) -> Self {
        let (mut of_one, mut of_many): (BTreeMap<_, Vec<_>>, Vec<_>) = Default::default();
        for (number, selector) in predicates.pods.iter().enumerate() {
            match &selector.namespaces {
                NamespaceScope::Named(name) => of_one.entry(name.as_str()).or_default().push((number, *selector)),
                NamespaceScope::Matching(_) => of_many.push((number, *selector)),
            }
        }
        let bounds = [true, false].map(|v4| predicates.bounds(v4).into_iter().collect());
        Self { predicates, of_one, of_many, bounds, known: BTreeMap::new() }
    }

    /// The numbers of those that hold: of the address, then of the pod at both moments.
    pub(super) fn holding(&mut self, end: &End<'_>, universes: [&Universe; 2]) -> Vec<usize> {
        let address = end.behind.unwrap_or(end.address);
        let mut all = self.blocks(address).to_vec();
        let Predicates { pods, nodes, senders, blocks } = self.predicates;
        let mut next = blocks.len();
        all.extend((next..).zip(nodes).filter(|(_, one)| universes[1].is_node(one, address)).map(|(number, _)| number));
        next += nodes.len();
        let sends = |(_, one): &(usize, &&_)| universes[1].is_sender(one, address);
        all.extend((next..).zip(senders).filter(sends).map(|(number, _)| number));
        next += senders.len();
        let Some(pod) = end.pod.filter(|_| end.behind.is_none()) else { return all };
        let own = self.of_one.get(pod.key.namespace.as_str()).into_iter().flatten();
        for (number, selector) in own.chain(&self.of_many) {
            for (moment, universe) in universes.into_iter().enumerate() {
                all.extend(universe.selects(selector, pod).then_some(next + moment * pods.len() + number));
            }
        }
        all
    }

    /// The numbers of the blocks that an address is in.
    fn blocks(&mut self, address: IpAddr) -> &[usize] {
        let (v4, number) = match address {
            IpAddr::V4(address) => (true, u128::from(address.to_bits())),
            IpAddr::V6(address) => (false, address.to_bits()),
        };
        let cell = self.bounds[usize::from(!v4)].partition_point(|bound| *bound <= number);
        let blocks = &self.predicates.blocks;
        let here =
            || (0..).zip(blocks).filter(|(_, ranges)| ranges.contains(address)).map(|(number, _)| number).collect();
        self.known.entry((v4, cell)).or_insert_with(here)
    }
}
