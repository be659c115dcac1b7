//! Own blocks that are on their way back: one that is as good as a new one is taken back before another is claimed, and one that is not makes
//! room soon.

use super::Supply;
use ipnet::IpNet;
use twill_ipam::{Pool, PoolFull, Step};

impl Supply {
    /// The block to take back in place of a claim of this pool: one that the node would claim today. A block of another size would be
    /// surplus again at once.
    #[must_use]
    pub fn regained(&self, pool: &Pool) -> Option<IpNet> {
        pool.current(self.giving.iter().copied()).into_iter().next()
    }

    /// A block of this pool whose place becomes free when it is gone.
    pub(super) fn going(&self, pool: &Pool) -> Option<IpNet> {
        pool.own(self.giving.iter().copied()).into_iter().next()
    }

    /// The use of a pool that has no place left for this node; its own block that can be taken back is one.
    #[must_use]
    pub fn full(&self, pool: &Pool) -> Option<PoolFull> {
        if self.regained(pool).is_some() {
            return None;
        }
        match self.claim(pool).step() {
            Step::Full(full) => Some(full),
            _ => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::{NOW, SHOP, block, node, pool, store, supply, synced};
    use super::super::{Choice, NoAddress};
    use super::*;
    use twill_ipam::{Family, idle};

    /// Of a pool with room for one block of its size, which this node has begun to give back.
    fn giving(cidr: &str) -> Supply {
        let mut supply = supply(vec![pool("p4", "10.42.1.0/26")], vec![block(cidr, "n1")]);
        supply.nodes = synced(vec![node("n1")]);
        supply.giving = [cidr.parse().unwrap()].into();
        supply
    }

    #[test]
    fn a_block_of_a_full_pool_is_taken_back_when_there_is_need() {
        let supply = giving("10.42.1.0/26");
        let (_d, store) = store(&[("10.42.1.0/26", false)]);
        let choice = supply.choose(SHOP, &[], store.ledger(), NOW, |_| false);
        assert!(matches!(&choice, Ok(Choice::Claim(pool)) if supply.regained(pool) == Some(pool.cidr)), "{choice:?}");
        assert_eq!(supply.wanted(store.ledger(), NOW).len(), 1, "ahead of need, too");
        let asked = supply.choose(SHOP, &["10.42.1.7".parse().unwrap()], store.ledger(), NOW, |_| false);
        assert!(matches!(&asked, Ok(Choice::Claim(pool)) if supply.regained(pool) == Some(pool.cidr)), "{asked:?}");
    }

    #[test]
    fn a_block_of_another_size_is_waited_for_and_not_taken_back() {
        let old = "10.42.1.0/28";
        let mut supply = giving(old);
        let (_d, store) = store(&[(old, true)]);
        for asked in [vec![], vec!["10.42.1.7".parse().unwrap()], vec!["10.42.1.40".parse().unwrap()]] {
            let choice = supply.choose(SHOP, &asked, store.ledger(), NOW, |_| false);
            assert!(matches!(&choice, Ok(Choice::Until(what)) if what.contains(old)), "{choice:?}");
        }
        assert!(supply.wanted(store.ledger(), NOW).is_empty());
        // Taken back it would be the next to go.
        supply.giving.clear();
        let own = supply.usable(Family::V4, store.ledger(), NOW, |_| 0);
        let home = Some(idle::Home { name: "q".into(), current: true, for_all: true });
        let warm = idle::Own { cidr: "10.43.0.0/26".parse().unwrap(), pool: home, ..own[0].clone() };
        assert_eq!(idle::surplus(&[own[0].clone(), warm]), Some(own[0].cidr));
    }

    #[test]
    fn a_full_pool_of_others_stays_full() {
        let full = supply(vec![pool("p4", "10.42.1.0/26")], vec![block("10.42.1.0/26", "n2")]);
        let (_d, store) = store(&[]);
        let choice = full.choose(SHOP, &[], store.ledger(), NOW, |_| false);
        assert!(matches!(choice, Err(NoAddress::Full(_))));
    }
}
