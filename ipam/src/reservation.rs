//! Which addresses are reserved, for whomever. In flow IPReservations, out flow answers about one address, one block, or one pool's blocks.

use crate::range;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use twill_crds::{IPReservation, Object};

/// All reserved addresses. A reservation that comes or goes costs what it reserves itself, and the run of addresses that it is a part of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    /// Names of the reservations of each range.
    ranges: BTreeMap<IpNet, BTreeSet<String>>,
    /// First and last of each run of reserved addresses, none touching another; IPv4, then IPv6.
    runs: [BTreeMap<u128, u128>; 2],
}

impl Reserved {
    /// What these reserve.
    #[must_use]
    pub fn new<'a>(reservations: impl IntoIterator<Item = &'a IPReservation>) -> Self {
        let mut all = Self::default();
        reservations.into_iter().for_each(|one| all.add(one));
        all
    }

    /// Takes in a reservation.
    pub fn add(&mut self, one: &IPReservation) {
        for cidr in ranges(one) {
            let names = self.ranges.entry(cidr).or_default();
            names.insert(one.name().to_owned());
            if names.len() == 1 {
                self.join(cidr);
            }
        }
    }

    /// Forgets a reservation, given as it was taken in.
    pub fn remove(&mut self, one: &IPReservation) {
        for cidr in ranges(one) {
            let Some(names) = self.ranges.get_mut(&cidr) else { continue };
            names.remove(one.name());
            if names.is_empty() {
                self.ranges.remove(&cidr);
                self.part(cidr);
            }
        }
    }

    /// Adds a range to the runs, as one with those that it touches.
    fn join(&mut self, cidr: IpNet) {
        let (mut first, mut last) = range::span(cidr);
        let runs = &mut self.runs[family(cidr.addr())];
        while let Some((from, to)) = runs.range(..=last.saturating_add(1)).next_back().map(|(from, to)| (*from, *to)) {
            if to.saturating_add(1) < first {
                break;
            }
            runs.remove(&from);
            (first, last) = (first.min(from), last.max(to));
        }
        runs.insert(first, last);
    }

    /// Makes the run anew that a range was a part of, of the ranges that are left in it.
    fn part(&mut self, cidr: IpNet) {
        let runs = &mut self.runs[family(cidr.addr())];
        let Some((first, last)) = runs.range(..=range::span(cidr).0).next_back().map(|(from, to)| (*from, *to)) else {
            return;
        };
        runs.remove(&first);
        let whole = IpNet::new_assert(cidr.addr(), 0).trunc();
        let Some(from) = range::block_at(whole, first, cidr.max_prefix_len()) else { return };
        // The widest range at an address comes before the others there.
        let from = IpNet::new_assert(from.addr(), 0);
        let inside = self.ranges.range(from..).map(|(cidr, _)| *cidr);
        let left: Vec<IpNet> =
            inside.take_while(|one| family(one.addr()) == family(cidr.addr()) && range::span(*one).0 <= last).collect();
        left.into_iter().for_each(|one| self.join(one));
    }

    /// The reservation that an address is kept by, and its range, the narrowest if there are several; for sentences.
    #[must_use]
    pub fn by(&self, address: IpAddr) -> Option<(IpNet, &str)> {
        let most = IpNet::from(address).prefix_len();
        let around = (0..=most).rev().filter_map(|len| IpNet::new(address, len).ok());
        around.filter_map(|cidr| self.ranges.get_key_value(&cidr.trunc())).find_map(|(cidr, names)| {
            let name = names.first()?;
            Some((*cidr, name.as_str()))
        })
    }

    /// Whether an address is reserved.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        let number = range::number(address);
        let before = self.runs[family(address)].range(..=number).next_back();
        before.is_some_and(|(_, last)| *last >= number)
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
        let runs = &self.runs[family(cidr.addr())];
        let from = runs.range(..first).next_back().filter(|(_, to)| **to >= first);
        from.into_iter().chain(runs.range(first..=last)).map(move |(from, to)| ((*from).max(first), (*to).min(last)))
    }
}

/// What one reservation reserves, for whomever.
fn ranges(one: &IPReservation) -> impl Iterator<Item = IpNet> {
    let kept = one.spec.addresses.iter().map(|address| IpNet::from(*address));
    one.spec.reserved_cidrs.iter().map(IpNet::trunc).chain(kept)
}

/// Where the runs of an address's family are.
fn family(address: IpAddr) -> usize {
    usize::from(address.is_ipv6())
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
        /// Whatever came and went before, it is the same as if only what is left had come.
        #[test]
        fn what_is_left_is_what_counts(
            steps in proptest::collection::vec((0usize..4, proptest::collection::vec((0u8..32, 26u8..=32, any::<bool>()), 0..4)), 0..24),
        ) {
            let mut known: BTreeMap<usize, IPReservation> = BTreeMap::new();
            let mut all = Reserved::default();
            for (name, ranges) in steps {
                let cidr = |(at, len, v6): (u8, u8, bool)| match v6 {
                    false => IpNet::new(IpAddr::from([255, 255, 255, 224 + at]), len).unwrap(),
                    true => IpNet::new(IpAddr::from([0, 0, 0, 0, 0, 0, 0, u16::from(at)]), 96 + len).unwrap(),
                };
                let spec = IPReservationSpec { reserved_cidrs: ranges.into_iter().map(cidr).collect(), ..Default::default() };
                let one = IPReservation::new(&name.to_string(), spec);
                if let Some(old) = known.remove(&name) {
                    all.remove(&old);
                }
                all.add(&one);
                known.insert(name, one);
                prop_assert_eq!(&all, &Reserved::new(known.values()));
                let around = |n: u8| {
                    let address = IpAddr::from([255, 255, 255, n]);
                    let cidrs = known.values().flat_map(|one| &one.spec.reserved_cidrs);
                    (address, cidrs.filter(|cidr| cidr.contains(&address)).map(IpNet::prefix_len).max())
                };
                for (address, longest) in (0..=255).map(around) {
                    prop_assert_eq!(all.has(address), longest.is_some());
                    prop_assert_eq!(all.by(address).map(|(cidr, _)| cidr.prefix_len()), longest);
                }
            }
        }

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
