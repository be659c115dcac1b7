//! Arithmetic of pools, blocks and ordinals. In flow prefixes, out flow prefixes and addresses; IPv4 and IPv6 alike,
//! counted in `u128`.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// First and last address of a prefix as numbers.
#[must_use]
pub fn span(net: IpNet) -> (u128, u128) {
    (number(net.network()), number(net.broadcast()))
}

/// Whether two prefixes of one family share an address.
#[must_use]
pub fn overlap(a: IpNet, b: IpNet) -> bool {
    matches!((a, b), (IpNet::V4(_), IpNet::V4(_)) | (IpNet::V6(_), IpNet::V6(_))) && (a.contains(&b) || b.contains(&a))
}

/// How many addresses a prefix has; one less than 2^128 for `::/0`.
#[must_use]
pub fn size(net: IpNet) -> u128 {
    let (first, last) = span(net);
    (last - first).saturating_add(1)
}

/// How many blocks of a length a pool has; 0 if the length is shorter than the pool's or longer than the family's.
#[must_use]
pub fn blocks(pool: IpNet, block_len: u8) -> u128 {
    if block_len < pool.prefix_len() || block_len > pool.max_prefix_len() {
        return 0;
    }
    1u128.checked_shl(u32::from(block_len - pool.prefix_len())).unwrap_or(u128::MAX)
}

/// The block of a length that begins at an address, if that address begins one.
#[must_use]
pub fn block_at(pool: IpNet, first: u128, block_len: u8) -> Option<IpNet> {
    let net = match pool {
        IpNet::V4(_) => IpNet::V4(Ipv4Net::new(Ipv4Addr::from(u32::try_from(first).ok()?), block_len).ok()?),
        IpNet::V6(_) => IpNet::V6(Ipv6Net::new(Ipv6Addr::from(first), block_len).ok()?),
    };
    (net.trunc() == net && pool.contains(&net)).then_some(net)
}

/// The address with this ordinal in a block.
#[must_use]
pub fn address(block: IpNet, ordinal: u32) -> Option<IpAddr> {
    let (first, last) = span(block);
    let number = first.checked_add(u128::from(ordinal)).filter(|n| *n <= last)?;
    match block {
        IpNet::V4(_) => Some(IpAddr::V4(Ipv4Addr::from(u32::try_from(number).ok()?))),
        IpNet::V6(_) => Some(IpAddr::V6(Ipv6Addr::from(number))),
    }
}

/// The ordinal of an address in a block, if it is inside.
#[must_use]
pub fn ordinal(block: IpNet, address: IpAddr) -> Option<u32> {
    if !block.contains(&address) {
        return None;
    }
    u32::try_from(number(address) - span(block).0).ok()
}

/// An address as a number.
#[must_use]
pub fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// The largest blocks that there are, of each family: no pool has larger ones.
const LARGEST: (u8, u8) = (20, 116);

/// Whether a route that others told keeps a block of ours from being used: somebody still has the block, a part of it, or, where blocks were
/// larger before, one that it is a part of. A route to the whole pool or beyond is somebody's summary.
#[must_use]
pub fn hinders(route: IpNet, block: IpNet, pool: IpNet) -> bool {
    let largest = if matches!(route, IpNet::V4(_)) { LARGEST.0 } else { LARGEST.1 };
    let may_be_a_block = || route.prefix_len() >= largest && route.prefix_len() > pool.prefix_len();
    block.contains(&route) || route.contains(&block) && may_be_a_block()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn ordinals_and_addresses_of_both_families_are_each_others_inverse() {
        for (block, ordinal_, text) in
            [("10.42.0.64/26", 0, "10.42.0.64"), ("10.42.0.64/26", 63, "10.42.0.127"), ("fd42::40/122", 5, "fd42::45")]
        {
            let at: IpAddr = text.parse().unwrap();
            assert_eq!(address(net(block), ordinal_), Some(at));
            assert_eq!(ordinal(net(block), at), Some(ordinal_));
        }
        assert_eq!(address(net("10.42.0.64/26"), 64), None);
        assert_eq!(ordinal(net("10.42.0.64/26"), "10.42.0.63".parse().unwrap()), None);
        assert_eq!(ordinal(net("10.42.0.64/26"), "fd42::45".parse().unwrap()), None);
    }

    #[test]
    fn a_pool_counts_its_blocks() {
        assert_eq!(blocks(net("10.42.0.0/16"), 26), 1024);
        assert_eq!(blocks(net("fd42::/48"), 122), 1 << 74);
        assert_eq!(blocks(net("10.42.0.0/28"), 26), 0);
        assert_eq!(blocks(net("::/0"), 128), u128::MAX);
        assert_eq!(size(net("::/0")), u128::MAX);
    }

    #[test]
    fn a_block_begins_only_at_its_own_boundary_and_inside_its_pool() {
        let pool = net("10.42.0.0/16");
        let first = number("10.42.1.0".parse().unwrap());
        assert_eq!(block_at(pool, first, 26), Some(net("10.42.1.0/26")));
        assert_eq!(block_at(pool, first + 1, 26), None);
        assert_eq!(block_at(pool, number("10.43.0.0".parse().unwrap()), 26), None);
    }

    #[test]
    fn prefixes_of_different_families_never_overlap() {
        assert!(overlap(net("10.42.0.0/16"), net("10.42.3.0/24")));
        assert!(!overlap(net("10.42.0.0/26"), net("10.42.0.64/26")));
        assert!(!overlap(net("0.0.0.0/0"), net("::/0")));
    }

    #[test]
    fn a_route_that_may_be_an_earlier_block_hinders_and_a_summary_does_not() {
        let stands_in_the_way = |route, block, pool| hinders(net(route), net(block), net(pool));
        for route in ["10.42.1.0/26", "10.42.1.7/32", "10.42.1.0/24", "10.42.0.0/20"] {
            assert!(stands_in_the_way(route, "10.42.1.0/26", "10.42.0.0/16"), "{route}");
        }
        for route in ["10.42.1.64/26", "10.42.0.0/16", "10.42.0.0/19", "0.0.0.0/0", "::/0"] {
            assert!(!stands_in_the_way(route, "10.42.1.0/26", "10.42.0.0/16"), "{route}");
        }
        assert!(!stands_in_the_way("10.42.0.0/24", "10.42.0.64/26", "10.42.0.0/24"), "the pool is no block");
        assert!(stands_in_the_way("10.42.0.0/24", "10.42.0.0/24", "10.42.0.0/24"), "but where it is");
        assert!(stands_in_the_way("fd42::/120", "fd42::40/122", "fd42::/112"));
        assert!(!stands_in_the_way("fd42::/64", "fd42::/122", "fd42::/48"));
    }
}
