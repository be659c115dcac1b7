//! When a further block is claimed ahead of need, so that a new pod never waits for a route to spread.

use crate::ledger::Use;
use ipnet::IpNet;

/// How many withheld blocks of a pool are replaced by others.
const REPLACED: usize = 2;

/// Those of a node's blocks of one pool that count. Not those that are withheld because others still have a route for them, so that others are
/// claimed in their place; of a few only, or somebody's wrong routes would make a node claim all there is.
#[must_use]
pub fn counted(mut own: Vec<IpNet>, withheld: impl Fn(&IpNet) -> bool) -> Vec<IpNet> {
    if own.iter().filter(|cidr| withheld(cidr)).count() <= REPLACED {
        own.retain(|cidr| !withheld(cidr));
    }
    own
}

/// Whether a node with this use of a pool needs a further block of it: less than a quarter of a block is free.
#[must_use]
pub fn needs_block(usage: Use, block_addresses: u128) -> bool {
    (usage.free as u128) < block_addresses.div_ceil(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_claimed_when_less_than_a_quarter_is_free() {
        assert!(needs_block(Use::default(), 64));
        assert!(needs_block(Use { free: 15, cooling: 40, held: 8 }, 64));
        assert!(!needs_block(Use { free: 16, cooling: 0, held: 47 }, 64));
    }
}
