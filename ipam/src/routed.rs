//! What learned routes say of addresses that are kept for a pod. In flow a route, and what there is around an address; out flows whether the route
//! says that somebody has it.

use crate::range;
use ipnet::IpNet;
use std::net::IpAddr;
use twill_crds::ip_reservation::Holder;

/// What an address lies in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Around<'a> {
    /// The block, with the name of its node.
    pub block: Option<(IpNet, &'a str)>,
    /// The pool.
    pub pool: Option<IpNet>,
}

impl Around<'_> {
    /// Whether a learned route by which an address is reached says that somebody has it. Its own does. Where it lies in a block, the block's says
    /// so only of the one who is said to have it, if the block is his; a wider one may be of a block that there was before.
    #[must_use]
    pub fn tells(&self, route: IpNet, address: IpAddr, holder: Option<&Holder>) -> bool {
        if route.prefix_len() == route.max_prefix_len() {
            return true;
        }
        if self.block.is_some_and(|(_, node)| holder.is_some_and(|holder| holder.node == node)) {
            return true;
        }
        let Some(pool) = self.pool else { return false };
        self.block.is_none_or(|(cidr, _)| cidr != route) && range::hinders(route, address.into(), pool)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_route_tells_of_who_has_an_address_unless_it_is_that_of_its_block_or_a_summary() {
        let pool = Some("10.42.0.0/16".parse().unwrap());
        let inside = Around { block: Some(("10.42.2.0/26".parse().unwrap(), "n2")), pool };
        let tells = |around: Around<'_>, route: &str, node: Option<&str>| {
            let holder = node.map(|node| Holder { node: node.into(), ..Holder::default() });
            around.tells(route.parse().unwrap(), "10.42.2.7".parse().unwrap(), holder.as_ref())
        };
        assert!(tells(inside, "10.42.2.7/32", None));
        assert!(!tells(inside, "10.42.2.0/26", None) && !tells(inside, "10.42.2.0/26", Some("n3")));
        assert!(tells(inside, "10.42.2.0/26", Some("n2")) && tells(inside, "10.42.0.0/16", Some("n2")));
        assert!(tells(inside, "10.42.2.0/25", None), "of a block that there was before");
        let outside = Around { block: None, pool };
        assert!(tells(outside, "10.42.2.0/26", None), "of a block that was freed");
        assert!(!tells(outside, "10.42.0.0/16", Some("n2")), "a summary");
        assert!(!tells(Around::default(), "10.42.2.0/26", Some("n2")), "in no pool");
    }
}
