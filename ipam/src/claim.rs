//! The steps of claiming a block of one pool for one node. In flow the blocks known and the answers of the datastore; out
//! flows one [`Step`] at a time, to be performed and answered.
//!
//! Creating the object is the claim. Block sizes change and pools overlap, so a consistent list after the create must show
//! no other block that shares an address; otherwise our own is given back and another place is tried.

use crate::full::{PoolFull, full};
use crate::owner::Owner;
use crate::range;
use crate::reservation::Reserved;
use ipnet::IpNet;

/// A block as the datastore has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Seen {
    /// Its range.
    pub cidr: IpNet,
    /// Name of its owner.
    pub node: String,
    /// Which store of addresses claimed it, if it says so.
    pub claimant: Option<String>,
    /// Addresses in use at its owner's last checkpoint; none if there was none.
    pub used: Option<u32>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Create the IPBlock of this range for this node; answer with [`Claim::created`] or [`Claim::taken`].
    Create(IpNet),
    /// Read all IPBlocks, consistently; answer with [`Claim::listed`].
    List,
    /// Delete our IPBlock of this range as it was created; answer with [`Claim::deleted`].
    Delete(IpNet),
    /// The claim stands.
    Claimed(IpNet),
    /// No place is left.
    Full(PoolFull),
}

/// The claim of one block under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    pool: String,
    cidr: IpNet,
    block_len: u8,
    owner: Owner,
    /// Ranges that are no longer a choice, ordered: claimed by anybody, or tried in vain.
    taken: Vec<(u128, u128)>,
    /// Places that are wholly reserved.
    reserved: Vec<(u128, u128)>,
    known: Vec<Seen>,
    next: Next,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Next {
    Choose,
    Verify(IpNet),
    GiveBack(IpNet),
    Done(IpNet),
}

impl Claim {
    /// Begins a claim for `owner`; `known` are the blocks as far as they have been heard of.
    #[must_use]
    pub fn new(pool: &str, cidr: IpNet, block_len: u8, owner: &Owner, known: Vec<Seen>) -> Self {
        let taken =
            known.iter().filter(|seen| range::overlap(seen.cidr, cidr)).map(|seen| range::span(seen.cidr)).collect();
        let (pool, owner, reserved) = (pool.to_owned(), owner.clone(), Vec::new());
        let mut claim = Self { pool, cidr, block_len, owner, taken, reserved, known, next: Next::Choose };
        claim.taken.sort_unstable();
        claim
    }

    /// The same without places of which no pod could have an address.
    #[must_use]
    pub fn beside(mut self, reserved: &Reserved) -> Self {
        self.reserved = reserved.places(self.cidr, self.block_len);
        self.taken.extend(&self.reserved);
        self.taken.sort_unstable();
        self.taken.dedup();
        self
    }

    /// For whom.
    #[must_use]
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// What to do now. Asking twice changes nothing.
    #[must_use]
    pub fn step(&self) -> Step {
        match self.next {
            Next::Choose => self.candidate().map_or_else(|| Step::Full(self.full()), Step::Create),
            Next::Verify(_) => Step::List,
            Next::GiveBack(block) => Step::Delete(block),
            Next::Done(block) => Step::Claimed(block),
        }
    }

    /// The object has been created.
    pub fn created(&mut self, block: IpNet) {
        self.next = Next::Verify(block);
    }

    /// The name was taken: somebody was faster.
    pub fn taken(&mut self, block: IpNet) {
        self.exclude(block);
        self.next = Next::Choose;
    }

    /// The consistent list that [`Step::List`] asked for.
    pub fn listed(&mut self, all: Vec<Seen>) {
        let Next::Verify(block) = self.next else { return };
        let alone = !all.iter().any(|seen| seen.cidr != block && range::overlap(seen.cidr, block));
        // Another node cannot have our name; a missing one means that somebody deleted it, and the claim with it.
        let ours = all.iter().any(|seen| seen.cidr == block && self.owner.owns(seen));
        for seen in &all {
            if seen.cidr != block && range::overlap(seen.cidr, self.cidr) {
                self.exclude(seen.cidr);
            }
        }
        self.known = all;
        self.next = match (ours, alone) {
            (true, true) => Next::Done(block),
            (true, false) => Next::GiveBack(block),
            (false, _) => {
                self.exclude(block);
                Next::Choose
            }
        };
    }

    /// Our own block has been deleted, or was gone already.
    pub fn deleted(&mut self) {
        if let Next::GiveBack(block) = self.next {
            self.exclude(block);
            self.next = Next::Choose;
        }
    }

    fn exclude(&mut self, block: IpNet) {
        let span = range::span(block);
        if let Err(at) = self.taken.binary_search(&span) {
            self.taken.insert(at, span);
        }
    }

    /// The first free place from a start that depends on the node's name, so that nodes which begin together seldom collide.
    fn candidate(&self) -> Option<IpNet> {
        let total = range::blocks(self.cidr, self.block_len);
        let start = hash(&self.owner.node).checked_rem(total)?;
        let width = 1u128.checked_shl(u32::from(self.cidr.max_prefix_len() - self.block_len)).unwrap_or(u128::MAX);
        let (pool_first, pool_last) = range::span(self.cidr);
        let begin = pool_first + start * width;
        self.free_from(begin, pool_last, width).or_else(|| self.free_from(pool_first, begin.checked_sub(1)?, width))
    }

    /// The first block of `width` that lies between `from` and `last` and shares no address with a taken range.
    fn free_from(&self, from: u128, last: u128, width: u128) -> Option<IpNet> {
        let mut at = from;
        let mut reach = 0;
        for &(taken_first, taken_last) in &self.taken {
            // Ranges are ordered by their first address; one may lie inside another.
            reach = taken_last.max(reach);
            if reach < at {
                continue;
            }
            if at.checked_add(width - 1)? < taken_first {
                break;
            }
            let past = reach.checked_add(1)?;
            let misaligned = past % width;
            at = if misaligned == 0 { past } else { past.checked_add(width - misaligned)? };
        }
        if at.checked_add(width - 1)? > last {
            return None;
        }
        range::block_at(self.cidr, at, self.block_len)
    }

    fn full(&self) -> PoolFull {
        let full = full(&self.pool, self.cidr, self.block_len, &self.known);
        let width = 1u128.checked_shl(u32::from(self.cidr.max_prefix_len() - self.block_len)).unwrap_or(u128::MAX);
        let places: u128 = self.reserved.iter().map(|(first, last)| (last - first) / width + 1).sum();
        let inside = |(first, last): (u128, u128)| self.reserved.iter().any(|(from, to)| *from <= first && last <= *to);
        let claimed = self.known.iter().filter(|seen| self.cidr.contains(&seen.cidr) && inside(range::span(seen.cidr)));
        let reserved = u64::try_from(places.saturating_sub(claimed.count() as u128)).unwrap_or(u64::MAX);
        PoolFull { reserved, ..full }
    }
}

/// FNV-1a with a final mix: stable between releases, which the start of the search need not be but may as well.
fn hash(name: &str) -> u128 {
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    for byte in name.bytes() {
        state = (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    state ^= state >> 33;
    state = state.wrapping_mul(0xff51_afd7_ed55_8ccd);
    u128::from(state ^ (state >> 33))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn by(cidr: IpNet, node: &str) -> Seen {
        Seen { cidr, node: node.to_owned(), claimant: Some("c".into()), used: None }
    }

    fn owner(node: &str) -> Owner {
        Owner { node: node.to_owned(), claimant: "c".into() }
    }

    fn create(claim: &Claim) -> IpNet {
        match claim.step() {
            Step::Create(block) => block,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_claim_stands_only_after_a_list_without_overlap() {
        let mut claim = Claim::new("p", net("10.42.0.0/16"), 26, &owner("n1"), vec![]);
        let block = create(&claim);
        claim.created(block);
        assert_eq!(claim.step(), Step::List);
        claim.listed(vec![by(block, "n1")]);
        assert_eq!(claim.step(), Step::Claimed(block));
    }

    #[test]
    fn an_overlap_makes_it_give_its_own_back_and_try_elsewhere() {
        let mut claim = Claim::new("p", net("10.42.0.0/16"), 26, &owner("n1"), vec![]);
        let block = create(&claim);
        claim.created(block);
        let wide = IpNet::new(block.network(), 24).unwrap().trunc();
        claim.listed(vec![by(block, "n1"), by(wide, "n2")]);
        assert_eq!(claim.step(), Step::Delete(block));
        claim.deleted();
        let other = create(&claim);
        assert!(!range::overlap(other, wide), "{other} in {wide}");
    }

    #[test]
    fn a_block_that_vanished_before_the_list_is_not_ours() {
        let mut claim = Claim::new("p", net("10.42.0.0/16"), 26, &owner("n1"), vec![]);
        let block = create(&claim);
        claim.created(block);
        claim.listed(vec![]);
        assert_ne!(create(&claim), block);
    }

    #[test]
    fn a_block_that_another_machine_of_the_same_name_has_by_the_time_of_the_list_is_not_ours() {
        let mut claim = Claim::new("p", net("10.42.0.0/16"), 26, &owner("n1"), vec![]);
        let block = create(&claim);
        claim.created(block);
        claim.listed(vec![Seen { claimant: Some("d".into()), ..by(block, "n1") }]);
        assert_ne!(create(&claim), block);
    }

    #[test]
    fn nodes_begin_in_different_places() {
        let places: BTreeSet<IpNet> = (0..100)
            .map(|n| create(&Claim::new("p", net("10.42.0.0/16"), 26, &owner(&format!("node-{n}")), vec![])))
            .collect();
        assert!(places.len() > 90, "{} different places", places.len());
    }

    #[test]
    fn a_pool_smaller_than_its_block_is_full_from_the_start() {
        assert!(matches!(Claim::new("p", net("10.42.0.0/28"), 26, &owner("n1"), vec![]).step(), Step::Full(_)));
    }

    #[test]
    fn the_last_addresses_of_ipv6_do_not_overflow() {
        let mut claim = Claim::new("p", net("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00/120"), 122, &owner("n1"), vec![]);
        for _ in 0..4 {
            let block = create(&claim);
            claim.taken(block);
        }
        assert!(matches!(claim.step(), Step::Full(_)));
    }

    proptest! {
        /// Every free place is found whatever the taken ranges are, and none twice; compared with a linear search.
        #[test]
        fn every_place_is_found_exactly_once(
            name in "[a-z]{1,6}",
            taken in proptest::collection::vec((0u32..256, 20u8..=32), 0..12),
        ) {
            let pool = net("10.42.0.0/20");
            let known: Vec<Seen> = taken
                .iter()
                .map(|(at, len)| {
                    let address = std::net::Ipv4Addr::from(u32::from(std::net::Ipv4Addr::new(10, 42, 0, 0)) + at * 16);
                    by(IpNet::new(address.into(), *len).unwrap().trunc(), "x")
                })
                .collect();
            let free: BTreeSet<IpNet> = pool
                .subnets(26)
                .unwrap()
                .filter(|block| !known.iter().any(|seen| range::overlap(seen.cidr, *block)))
                .collect();
            let mut claim = Claim::new("p", pool, 26, &owner(&name), known);
            let mut found = BTreeSet::new();
            for _ in 0..=64 {
                match claim.step() {
                    Step::Create(block) => {
                        prop_assert!(found.insert(block), "{block} twice");
                        claim.taken(block);
                    }
                    Step::Full(_) => break,
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            prop_assert_eq!(found, free);
        }

        /// Nodes that claim over one datastore, every step of every node in any order, lists stale or not at the start: no
        /// two standing claims overlap, and nothing that was given back stays.
        #[test]
        fn racing_nodes_never_hold_overlapping_blocks(
            order in proptest::collection::vec(0usize..4, 0..200),
            lengths in proptest::collection::vec(25u8..=28, 4),
        ) {
            let pool = net("10.42.0.0/23");
            let mut store: std::collections::BTreeMap<IpNet, String> = Default::default();
            let mut claims: Vec<Claim> = lengths
                .iter()
                .enumerate()
                .map(|(n, len)| Claim::new("p", pool, *len, &owner(&format!("n{n}")), vec![]))
                .collect();
            // Whatever the order was, every node ends by running alone; both must be safe.
            let tail = (0..4).flat_map(|n| std::iter::repeat_n(n, 60));
            for n in order.into_iter().chain(tail) {
                let claim = &mut claims[n];
                match claim.step() {
                    Step::Create(block) => match store.entry(block) {
                        std::collections::btree_map::Entry::Vacant(free) => {
                            free.insert(format!("n{n}"));
                            claim.created(block);
                        }
                        std::collections::btree_map::Entry::Occupied(_) => claim.taken(block),
                    },
                    Step::List => {
                        let all = store.iter().map(|(c, n)| by(*c, n)).collect();
                        claim.listed(all);
                    }
                    Step::Delete(block) => {
                        store.remove(&block);
                        claim.deleted();
                    }
                    Step::Claimed(_) | Step::Full(_) => {}
                }
            }
            let held: Vec<IpNet> = claims
                .iter()
                .filter_map(|claim| match claim.step() {
                    Step::Claimed(block) => Some(block),
                    _ => None,
                })
                .collect();
            for (i, a) in held.iter().enumerate() {
                for b in &held[i + 1..] {
                    prop_assert!(!range::overlap(*a, *b), "{a} and {b}");
                }
            }
            prop_assert_eq!(held.len(), store.len());
        }
    }
}
