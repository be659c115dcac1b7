//! Ranges of prefixes. A prefix is looked up once per length of range that there is, not once per range.

use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use twill_crds::bgp_filter::PrefixRange;

/// Prefixes inside ranges; without any range, all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Prefixes {
    /// By range, the shortest and the longest prefix that is meant.
    ranges: BTreeMap<IpNet, Vec<(u8, u8)>>,
    /// Lengths of the ranges.
    lengths: BTreeSet<u8>,
}

impl Prefixes {
    pub(super) fn new(ranges: &[PrefixRange]) -> Self {
        let mut prefixes = Self::default();
        for range in ranges {
            let net = range.cidr.trunc();
            prefixes.lengths.insert(net.prefix_len());
            prefixes.ranges.entry(net).or_default().push(range.lengths());
        }
        prefixes
    }

    pub(super) fn is_all(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(super) fn contain(&self, prefix: IpNet) -> bool {
        let own = prefix.prefix_len();
        self.is_all()
            || self.lengths.range(..=own).any(|length| {
                let range = IpNet::new(prefix.addr(), *length).ok().and_then(|net| self.ranges.get(&net.trunc()));
                range.is_some_and(|lengths| {
                    lengths.iter().any(|(shortest, longest)| (*shortest..=*longest).contains(&own))
                })
            })
    }
}
