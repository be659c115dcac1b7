//! Which addresses are reserved, for whomever. In flow IPReservations, out flow answers about one address, one block, or one pool's blocks.

use crate::range;
use ipnet::IpNet;
use std::net::IpAddr;
use twill_crds::{IPReservation, Object};

/// All reserved addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    /// Each range with the name of its reservation, as they are written.
    ranges: Vec<(IpNet, String)>,
    /// First and last of each run of reserved addresses, ordered, none touching another; IPv4, then IPv6.
    runs: [Vec<(u128, u128)>; 2],
}

impl Reserved {
    /// What these reserve.
    #[must_use]
    pub fn new<'a>(reservations: impl IntoIterator<Item = &'a IPReservation>) -> Self {
        let mut ranges: Vec<(IpNet, String)> = reservations
            .into_iter()
            .flat_map(|one| {
                let kept = one.spec.addresses.iter().map(|address| IpNet::from(*address));
                let all = one.spec.reserved_cidrs.iter().map(IpNet::trunc).chain(kept);
                all.map(|cidr| (cidr, one.name().to_owned()))
            })
            .collect();
        ranges.sort();
        let runs = [false, true].map(|v6| {
            let spans =
                ranges.iter().filter(|(cidr, _)| cidr.addr().is_ipv6() == v6).map(|(cidr, _)| range::span(*cidr));
            merged(spans.collect())
        });
        Self { ranges, runs }
    }

    /// The reservation that an address is kept by, and its range, the narrowest if there are several; for sentences.
    #[must_use]
    pub fn by(&self, address: IpAddr) -> Option<(IpNet, &str)> {
        if !self.has(address) {
            return None;
        }
        let around = self.ranges.iter().filter(|(cidr, _)| cidr.contains(&address));
        around.max_by_key(|(cidr, _)| cidr.prefix_len()).map(|(cidr, name)| (*cidr, name.as_str()))
    }

    /// Whether an address is reserved.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        let number = range::number(address);
        let runs = &self.runs[usize::from(address.is_ipv6())];
        let after = runs.partition_point(|(first, _)| *first <= number);
        after.checked_sub(1).is_some_and(|at| runs[at].1 >= number)
    }

    /// How many addresses of a range are reserved.
    #[must_use]
    pub fn count(&self, cidr: IpNet) -> u128 {
        let inside = self.inside(cidr).map(|(first, last)| last - first);
        inside.fold(0, |sum, more| sum.saturating_add(more).saturating_add(1))
    }

    /// Whether no pod can get an address of this block.
    #[must_use]
    pub fn covers(&self, block: IpNet) -> bool {
        let (first, last) = range::span(block);
        first < last && self.inside(block).any(|(from, to)| from <= first + 1 && to == last)
    }

    /// The places of a pool's blocks that nobody needs to claim, as runs of addresses: those that [`Reserved::covers`].
    #[must_use]
    pub fn places(&self, pool: IpNet, block_len: u8) -> Vec<(u128, u128)> {
        let Some(width) = 1u128.checked_shl(u32::from(pool.max_prefix_len().saturating_sub(block_len))) else {
            return Vec::new();
        };
        let (begin, end) = range::span(pool);
        let whole = |(first, last): (u128, u128)| {
            // Ordinal 0 of the first block need not be reserved.
            let from = first.saturating_sub(1).max(begin).checked_next_multiple_of(width)?;
            let past =
                if last == end { end - (width - 1) } else { (last.checked_add(1)? / width).checked_sub(1)? * width };
            (width > 1 && from <= past).then(|| (from, past + (width - 1)))
        };
        self.inside(pool).filter_map(whole).collect()
    }

    /// The parts of runs that lie in a range.
    fn inside(&self, cidr: IpNet) -> impl Iterator<Item = (u128, u128)> + use<'_> {
        let (first, last) = range::span(cidr);
        let runs = &self.runs[usize::from(cidr.addr().is_ipv6())];
        let from = runs.partition_point(|(_, to)| *to < first);
        let touching = runs[from..].iter().take_while(move |(from, _)| *from <= last);
        touching.map(move |(from, to)| ((*from).max(first), (*to).min(last)))
    }
}

/// Spans that are ordered by their first address, with those that touch as one.
fn merged(mut spans: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    spans.sort_unstable();
    let mut runs: Vec<(u128, u128)> = Vec::new();
    for (first, last) in spans {
        match runs.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => runs.push((first, last)),
        }
    }
    runs
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use twill_crds::IPReservationSpec;

    fn reserved(all: &[(&str, &[&str])]) -> Reserved {
        let make = |(name, cidrs): &(&str, &[&str])| {
            let reserved_cidrs = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
            IPReservation::new(name, IPReservationSpec { reserved_cidrs, ..Default::default() })
        };
        Reserved::new(&all.iter().map(make).collect::<Vec<_>>())
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_reserved_by_the_narrowest_range_of_its_family() {
        let all = reserved(&[("wide", &["10.0.0.0/24", "fd42::/120"]), ("narrow", &["10.0.0.8/31"])]);
        let by = |text: &str| all.by(text.parse().unwrap()).map(|(cidr, name)| (cidr.to_string(), name.to_owned()));
        assert_eq!(by("10.0.0.9"), Some(("10.0.0.8/31".into(), "narrow".into())));
        assert_eq!(by("10.0.0.10"), Some(("10.0.0.0/24".into(), "wide".into())));
        assert_eq!(by("fd42::ff"), Some(("fd42::/120".into(), "wide".into())));
        assert_eq!((by("10.0.1.0"), by("fd42::100"), by("9.255.255.255")), (None, None, None));
    }

    #[test]
    fn ranges_that_overlap_or_touch_count_once() {
        let all = reserved(&[("a", &["10.0.0.0/28", "10.0.0.8/29"]), ("b", &["10.0.0.16/28", "::/0"])]);
        assert_eq!(all.count(net("10.0.0.0/24")), 32);
        assert_eq!(all.count(net("10.0.0.24/29")), 8);
        assert_eq!(all.count(net("10.0.0.32/27")), 0);
        assert_eq!(all.count(net("::/0")), u128::MAX);
    }

    #[test]
    fn a_block_is_covered_if_all_but_its_first_address_is_reserved() {
        let all = reserved(&[("a", &["10.0.0.1/32", "10.0.0.2/31", "10.0.0.16/28"])]);
        let covered = ["10.0.0.0/30", "10.0.0.16/28", "10.0.0.16/30", "10.0.0.20/30"];
        assert!(covered.iter().all(|cidr| all.covers(net(cidr))));
        assert!(!["10.0.0.0/29", "10.0.0.16/27", "10.0.0.2/32"].iter().any(|cidr| all.covers(net(cidr))));
    }

    proptest! {
        /// The places left out are exactly the blocks that are covered.
        #[test]
        fn places_are_the_covered_blocks(
            ranges in proptest::collection::vec((0u8..=255, 24u8..=32), 0..12), len in 26u8..=31,
        ) {
            let cidrs: Vec<String> = ranges.iter().map(|(host, len)| IpNet::new(IpAddr::from([10, 0, 0, *host]), *len).unwrap().trunc().to_string()).collect();
            let all = reserved(&[("r", &cidrs.iter().map(String::as_str).collect::<Vec<_>>())]);
            for pool in [net("10.0.0.0/24"), net("10.0.0.64/26")] {
                let places = all.places(pool, len);
                for block in pool.subnets(len).unwrap() {
                    let (first, last) = range::span(block);
                    let left_out = places.iter().any(|(from, to)| *from <= first && last <= *to);
                    prop_assert_eq!(left_out, all.covers(block), "{} of {} among {:?}", block, pool, cidrs);
                }
            }
        }
    }
}
