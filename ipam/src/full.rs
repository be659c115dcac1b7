//! Pools that have no place for a further block, for people: how full they are, and who holds blocks that are idle.

use crate::claim::Seen;
use crate::range;
use ipnet::IpNet;

/// A pool without a place for a further block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "IPPool {pool} ({cidr}) is full: {taken} of its {total} blocks of /{block_len} are claimed{}{}; add an IPPool, or remove \
     nodes or pods that no longer need theirs",
    kept(*.reserved),
    holders(.idle)
)]
pub struct PoolFull {
    /// Name of the pool.
    pub pool: String,
    /// Its range.
    pub cidr: IpNet,
    /// Prefix length of its blocks.
    pub block_len: u8,
    /// Blocks inside the pool.
    pub taken: u128,
    /// Blocks that the pool has room for.
    pub total: u128,
    /// Blocks of which every address is reserved, and that nobody has claimed.
    pub reserved: u64,
    /// Nodes that hold idle blocks, most first: name, idle blocks, blocks; five at most.
    pub idle: Vec<(String, usize, usize)>,
}

fn kept(reserved: u64) -> String {
    if reserved == 0 { String::new() } else { format!(", {reserved} more wholly reserved by IPReservations") }
}

fn holders(idle: &[(String, usize, usize)]) -> String {
    if idle.is_empty() {
        return ", none of them idle".to_owned();
    }
    let list: Vec<String> = idle.iter().map(|(node, idle, all)| format!("{node} {idle} of its {all}")).collect();
    format!(", idle ones are held by {}", list.join(", "))
}

/// The use of a pool, for people: how many blocks are taken, and who holds idle ones.
#[must_use]
pub fn full(pool: &str, cidr: IpNet, block_len: u8, known: &[Seen]) -> PoolFull {
    let mut holders = std::collections::BTreeMap::<&str, (usize, usize)>::new();
    let inside: Vec<&Seen> = known.iter().filter(|seen| range::overlap(seen.cidr, cidr)).collect();
    for seen in &inside {
        let entry = holders.entry(&seen.node).or_default();
        entry.0 += usize::from(seen.used == Some(0));
        entry.1 += 1;
    }
    let mut idle: Vec<(String, usize, usize)> = holders
        .into_iter()
        .filter(|(_, (idle, _))| *idle > 0)
        .map(|(n, (idle, all))| (n.to_owned(), idle, all))
        .collect();
    idle.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    idle.truncate(5);
    let total = range::blocks(cidr, block_len);
    PoolFull {
        pool: pool.to_owned(),
        cidr,
        block_len,
        taken: (inside.len() as u128).min(total),
        total,
        reserved: 0,
        idle,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{Claim, Owner, Reserved, Step};
    use std::collections::BTreeSet;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn seen(cidr: &str, node: &str, used: Option<u32>) -> Seen {
        Seen { cidr: net(cidr), node: node.to_owned(), claimant: Some("c".into()), used }
    }

    fn owner(node: &str) -> Owner {
        Owner { node: node.to_owned(), claimant: "c".into() }
    }

    #[test]
    fn a_full_pool_is_named_with_its_use_and_the_holders_of_idle_blocks() {
        let known = vec![
            seen("10.42.0.0/26", "n1", Some(0)),
            seen("10.42.0.64/26", "n2", Some(12)),
            seen("10.42.0.128/26", "n3", Some(0)),
            seen("10.42.0.192/26", "n3", Some(0)),
        ];
        let Step::Full(full) = Claim::new("small", net("10.42.0.0/24"), 26, &owner("n9"), known).step() else {
            panic!()
        };
        let text = full.to_string();
        assert!(
            text.starts_with("IPPool small (10.42.0.0/24) is full: 4 of its 4 blocks of /26 are claimed"),
            "{text}"
        );
        assert!(text.contains("idle ones are held by n3 2 of its 2, n1 1 of its 1;"), "{text}");
    }

    #[test]
    fn what_is_wholly_reserved_is_not_claimed_and_a_full_pool_says_so() {
        let spec = twill_crds::IPReservationSpec {
            reserved_cidrs: vec![net("10.42.0.0/25"), net("10.42.0.128/28")],
            ..Default::default()
        };
        let reserved = Reserved::new(&[twill_crds::IPReservation::new("r", spec)]);
        let known = vec![seen("10.42.0.64/26", "n2", Some(1))];
        let mut claim = Claim::new("p", net("10.42.0.0/24"), 26, &owner("n1"), known).beside(&reserved);
        let mut found = BTreeSet::new();
        while let Step::Create(block) = claim.step() {
            found.insert(block.to_string());
            claim.taken(block);
        }
        assert_eq!(found, ["10.42.0.128/26".to_owned(), "10.42.0.192/26".into()].into());
        let Step::Full(full) = claim.step() else { panic!() };
        assert!(
            full.to_string().contains("1 of its 4 blocks of /26 are claimed, 1 more wholly reserved by IPReservations"),
            "{full}"
        );
    }
}
