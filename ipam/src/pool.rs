//! Which pools a node or a pod may use, and in which order. In flow pools and labels, out flow names and ranges.

use crate::idle::Home;
use crate::range;
use ipnet::IpNet;
use std::collections::BTreeMap;
use twill_crds::{IPPool, Object, selector};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of a prefix.
    #[must_use]
    pub fn of(net: IpNet) -> Self {
        if matches!(net, IpNet::V4(_)) { Self::V4 } else { Self::V6 }
    }
}

/// What the allocator must know of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Its range.
    pub cidr: IpNet,
    /// Prefix length of its blocks.
    pub block_len: u8,
}

impl Pool {
    /// Those of `blocks` that lie in this pool, whatever their size.
    #[must_use]
    pub fn own(&self, blocks: impl IntoIterator<Item = IpNet>) -> Vec<IpNet> {
        blocks.into_iter().filter(|block| self.cidr.contains(block)).collect()
    }

    /// Those of `blocks` that a node would claim of it today: inside it, and of its size.
    #[must_use]
    pub fn current(&self, blocks: impl IntoIterator<Item = IpNet>) -> Vec<IpNet> {
        self.own(blocks.into_iter().filter(|block| block.prefix_len() == self.block_len))
    }

    /// How many addresses one of its blocks has.
    #[must_use]
    pub fn block_addresses(&self) -> u128 {
        1u128.checked_shl(u32::from(self.cidr.max_prefix_len() - self.block_len)).unwrap_or(u128::MAX)
    }
}

/// The pools of one family that a node may claim from, for a pod in a namespace with these labels, or, without namespace,
/// ahead of any pod. Pools meant for some namespaces come before those meant for all, then by name. Ahead of need only
/// pools for all namespaces count.
#[must_use]
pub fn eligible<'a>(
    pools: impl IntoIterator<Item = &'a IPPool>,
    family: Family,
    node: &Labels,
    namespace: Option<&Labels>,
) -> Vec<Pool> {
    let mut found: Vec<(bool, Pool)> = pools
        .into_iter()
        .filter(|pool| !pool.spec.disabled && Family::of(pool.spec.cidr) == family)
        .filter(|pool| selector::matches_or_absent(pool.spec.node_selector.as_ref(), node))
        .filter_map(|pool| {
            let for_all = pool.spec.namespace_selector.as_ref().is_none_or(selector::is_everything);
            let fits = match namespace {
                Some(labels) => selector::matches_or_absent(pool.spec.namespace_selector.as_ref(), labels),
                None => for_all,
            };
            let len = pool.spec.block_prefix_len();
            // A block of one address has only ordinal 0, which nobody gets.
            let useful = len < pool.spec.cidr.max_prefix_len() && range::blocks(pool.spec.cidr, len) > 0;
            (fits && useful)
                .then(|| (for_all, Pool { name: pool.name().to_owned(), cidr: pool.spec.cidr, block_len: len }))
        })
        .collect();
    found.sort_by(|a, b| (a.0, &a.1.name).cmp(&(b.0, &b.1.name)));
    found.into_iter().map(|(_, pool)| pool).collect()
}

/// Why a pool gives no address to a pod, if so, in words that follow its name.
#[must_use]
pub fn hindrance(pool: &IPPool, node: &Labels, namespace: &Labels) -> Option<&'static str> {
    let spec = &pool.spec;
    let selects = |selector, labels| selector::matches_or_absent(selector, labels);
    if spec.disabled {
        Some("is disabled")
    } else if !selects(spec.node_selector.as_ref(), node) {
        Some("does not select the node (nodeSelector)")
    } else if !selects(spec.namespace_selector.as_ref(), namespace) {
        Some("does not select the namespace (namespaceSelector)")
    } else if spec.block_prefix_len() >= spec.cidr.max_prefix_len() {
        Some("has blocks of one address, which no pod gets (blockSize)")
    } else {
        None
    }
}

/// The pool that a block lies in, and whether a node with these labels would claim the block today.
#[must_use]
pub fn home<'a>(pools: impl IntoIterator<Item = &'a IPPool>, node: &Labels, block: IpNet) -> Option<Home> {
    let pool = pools.into_iter().find(|pool| pool.spec.cidr.contains(&block))?;
    let spec = &pool.spec;
    let selects = selector::matches_or_absent(spec.node_selector.as_ref(), node);
    Some(Home {
        name: pool.name().to_owned(),
        current: !spec.disabled && selects && spec.block_prefix_len() == block.prefix_len(),
        for_all: spec.namespace_selector.as_ref().is_none_or(selector::is_everything),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pool(name: &str, spec: serde_json::Value) -> IPPool {
        serde_json::from_value(json!({
            "apiVersion": "twill.network/v1", "kind": "IPPool", "metadata": {"name": name}, "spec": spec,
        }))
        .unwrap()
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn names(pools: &[Pool]) -> Vec<&str> {
        pools.iter().map(|pool| pool.name.as_str()).collect()
    }

    #[test]
    fn selectors_family_and_disabled_decide_and_special_pools_come_first() {
        let pools = [
            pool("a-all", json!({"cidr": "10.1.0.0/16"})),
            pool("b-rack", json!({"cidr": "10.2.0.0/16", "nodeSelector": {"matchLabels": {"rack": "r2"}}})),
            pool("c-blue", json!({"cidr": "10.3.0.0/16", "namespaceSelector": {"matchLabels": {"team": "blue"}}})),
            pool("d-off", json!({"cidr": "10.4.0.0/16", "disabled": true})),
            pool("e-six", json!({"cidr": "fd42::/48"})),
            pool("f-tiny", json!({"cidr": "10.5.0.0/24", "blockSize": 32})),
        ];
        let (r1, r2) = (labels(&[("rack", "r1")]), labels(&[("rack", "r2")]));
        let (blue, red) = (labels(&[("team", "blue")]), labels(&[("team", "red")]));
        assert_eq!(names(&eligible(&pools, Family::V4, &r1, Some(&red))), ["a-all"]);
        assert_eq!(names(&eligible(&pools, Family::V4, &r2, Some(&blue))), ["c-blue", "a-all", "b-rack"]);
        assert_eq!(names(&eligible(&pools, Family::V4, &r2, None)), ["a-all", "b-rack"]);
        assert_eq!(names(&eligible(&pools, Family::V6, &r1, Some(&red))), ["e-six"]);
    }

    #[test]
    fn a_block_is_current_where_it_would_be_claimed_today() {
        let pools = [
            pool("all", json!({"cidr": "10.1.0.0/16"})),
            pool("rack", json!({"cidr": "10.2.0.0/16", "nodeSelector": {"matchLabels": {"rack": "r2"}}})),
            pool("blue", json!({"cidr": "10.3.0.0/16", "namespaceSelector": {"matchLabels": {"team": "blue"}}})),
            pool("off", json!({"cidr": "10.4.0.0/16", "disabled": true})),
        ];
        let at = |block: &str| {
            let home = home(&pools, &labels(&[("rack", "r1")]), block.parse().unwrap());
            home.map(|home| (home.name, home.current, home.for_all))
        };
        assert_eq!(at("10.1.0.0/26"), Some(("all".into(), true, true)));
        assert_eq!(at("10.1.0.0/28"), Some(("all".into(), false, true)), "of another size");
        assert_eq!(at("10.2.0.0/26"), Some(("rack".into(), false, true)));
        assert_eq!(at("10.3.0.0/26"), Some(("blue".into(), true, false)));
        assert_eq!(at("10.4.0.0/26"), Some(("off".into(), false, true)));
        assert_eq!(at("10.5.0.0/26"), None);
    }
}
