//! Which of a node's blocks nobody needs any more. In flow its blocks of one family with their use; out flows one to give back, or none.
//!
//! Giving a block back takes several steps, for others must not have its addresses while anybody still sends to this node: nothing is
//! handed out of it any more, durably; the object says so (`status.releasing`); bgpd withdraws it and takes its route out of the kernel;
//! then the object is deleted as it was seen. Until that last step it can be taken back. What must hold at each step is stored, so a
//! crash only delays it.

use crate::ledger::Use;
use ipnet::IpNet;

/// How long the last block of a pool for some namespaces stays after its last pod has gone, in milliseconds.
pub const LAST: u64 = 15 * 60 * 1000;

/// A block of this node that can give addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// Its range.
    pub cidr: IpNet,
    /// The pool it lies in; none if there is none any more.
    pub pool: Option<Home>,
    /// Its use.
    pub usage: Use,
    /// For how long nobody has had an address of it, in milliseconds; a caller that does not know counts from when it began to look.
    pub quiet: u64,
}

/// The pool of a block, as it is for this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// Its name.
    pub name: String,
    /// Whether the node would claim this block today: the pool gives addresses here, in blocks of this size.
    pub current: bool,
    /// Whether it is for all namespaces, so that a block of it is kept ahead of need.
    pub for_all: bool,
}

impl Own {
    /// Whether nobody has an address of it, and all have rested.
    fn is_empty(&self) -> bool {
        self.usage.held == 0 && self.usage.cooling == 0
    }

    fn home(&self) -> Option<&Home> {
        self.pool.as_ref().filter(|home| home.current)
    }
}

/// The block to give back next; `blocks` are all of one family that are ours, uncontested and ready, the oldest first.
///
/// Kept are: what has pods; where it is the last one of its pool, a block ahead of need; the oldest block for all namespaces, for the node's
/// tunnel address is of it; and as many empty ones that a whole block is free without the one that goes, so that none is claimed again
/// at once ([`crate::warm`]). A block that the node would not claim today (its pool is disabled, excludes the node, or has blocks of another
/// size by now) goes unless it is the only one left; one of no pool in any case.
#[must_use]
pub fn surplus(blocks: &[Own]) -> Option<IpNet> {
    let stays = |own: &&Own| own.home().is_some_and(|home| home.for_all);
    let oldest = blocks
        .iter()
        .find(stays)
        .or(blocks.iter().find(|own| own.pool.as_ref().is_some_and(|home| home.for_all)))
        .map(|own| own.cidr);
    let may_go = |own: &&Own| {
        own.is_empty()
            && match (&own.pool, own.home()) {
                (None, _) => true,
                _ if Some(own.cidr) == oldest => false,
                (Some(_), None) => true,
                (Some(_), Some(home)) => is_spare(own, home, blocks),
            }
    };
    blocks.iter().rev().find(may_go).map(|own| own.cidr)
}

/// Whether the pool's other blocks here have a whole block's addresses free; the last one of a pool for some namespaces goes after a while.
fn is_spare(own: &Own, home: &Home, blocks: &[Own]) -> bool {
    let others =
        blocks.iter().filter(|other| other.cidr != own.cidr && other.home().is_some_and(|h| h.name == home.name));
    let (count, free) = others.fold((0, 0), |(count, free), other| (count + 1, free + other.usage.free));
    if count == 0 && !home.for_all {
        return own.quiet >= LAST;
    }
    count > 0 && free >= own.usage.free
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const FREE: Use = Use { free: 63, cooling: 0, held: 0 };

    fn own(cidr: &str, pool: Option<(&str, bool, bool)>, usage: Use) -> Own {
        let pool = pool.map(|(name, current, for_all)| Home { name: name.into(), current, for_all });
        Own { cidr: cidr.parse().unwrap(), pool, usage, quiet: 0 }
    }

    fn gone(blocks: &[Own]) -> Option<String> {
        surplus(blocks).map(|cidr| cidr.to_string())
    }

    #[test]
    fn a_warm_block_stays_and_further_empty_ones_go_the_youngest_first() {
        let all = Some(("p", true, true));
        let [a, b, c] = ["10.0.0.0/26", "10.0.0.64/26", "10.0.0.128/26"].map(|cidr| own(cidr, all, FREE));
        assert_eq!(gone(&[]), None);
        assert_eq!(gone(std::slice::from_ref(&a)), None);
        assert_eq!(gone(&[a.clone(), b.clone(), c]).as_deref(), Some("10.0.0.128/26"));
        assert_eq!(gone(&[a.clone(), b.clone()]).as_deref(), Some("10.0.0.64/26"));
        let full = Own { usage: Use { free: 10, cooling: 0, held: 53 }, ..a.clone() };
        assert_eq!(gone(&[full, b.clone()]), None, "the empty one is the warm one");
        for busy in [Use { free: 62, cooling: 1, held: 0 }, Use { free: 62, cooling: 0, held: 1 }] {
            assert_eq!(gone(&[a.clone(), Own { usage: busy, ..b.clone() }]), None);
        }
    }

    #[test]
    fn what_the_node_would_not_claim_today_goes_when_another_has_taken_its_place() {
        let old = own("10.0.0.0/26", Some(("p", false, true)), FREE);
        let new = own("10.1.0.0/26", Some(("q", true, true)), FREE);
        assert_eq!(gone(std::slice::from_ref(&old)), None);
        assert_eq!(gone(&[old.clone(), new]).as_deref(), Some("10.0.0.0/26"));
        let some = own("10.1.0.0/26", Some(("q", true, false)), FREE);
        assert_eq!(gone(&[old.clone(), some]), None, "one for some namespaces does not take its place");
        let older = own("10.2.0.0/26", Some(("p", false, true)), FREE);
        assert_eq!(gone(&[older, old.clone()]).as_deref(), Some("10.0.0.0/26"), "one is enough");
        assert_eq!(gone(&[own("10.0.0.0/26", None, FREE)]).as_deref(), Some("10.0.0.0/26"));
        let used = Use { free: 62, cooling: 0, held: 1 };
        assert_eq!(gone(&[own("10.0.0.0/26", None, used)]), None);
    }

    #[test]
    fn the_last_block_of_a_pool_for_some_namespaces_goes_after_a_while() {
        let last = own("10.0.0.0/26", Some(("p", true, false)), FREE);
        let after = |quiet| gone(&[Own { quiet, ..last.clone() }]);
        assert_eq!((after(0), after(LAST - 1)), (None, None));
        assert!(after(LAST).is_some());
    }
}
