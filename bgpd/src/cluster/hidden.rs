//! Addresses of Services that no peer is told: those of a Service that says so by [`ADVERTISE`], and those of a proxy, which no node answers
//! for. Ranges are told around them.

use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use twill_crds::Service;
use twill_crds::services::ADVERTISE;
use twill_datastore::Key;

/// Addresses that ranges are told around, at most: each may cost as many prefixes as its range has bits to spare.
const MOST: usize = 64;

/// What is known of them, by Service.
#[derive(Debug, Default)]
pub(super) struct Hidden {
    of: BTreeMap<Key, BTreeSet<IpAddr>>,
    /// How many Services hide an address.
    counts: BTreeMap<IpAddr, usize>,
    /// Values of [`ADVERTISE`] that mean nothing.
    odd: BTreeMap<Key, String>,
}

impl Hidden {
    /// Takes in a Service; whether that hides or shows anything.
    pub(super) fn hear(&mut self, key: Key, service: &Service) -> bool {
        let odd = match word(service) {
            None | Some("true" | "false") => self.odd.remove(&key).is_some(),
            Some(other) => self.odd.insert(key.clone(), other.to_owned()).is_none_or(|old| old != other),
        };
        self.set(key, addresses(service)) | odd
    }

    /// The Service is gone.
    pub(super) fn forget(&mut self, key: &Key) -> bool {
        let odd = self.odd.remove(key).is_some();
        self.set(key.clone(), BTreeSet::new()) | odd
    }

    /// Others are gone.
    pub(super) fn retain(&mut self, is_there: impl Fn(&Key) -> bool) -> bool {
        let gone: Vec<Key> = self.of.keys().chain(self.odd.keys()).filter(|key| !is_there(key)).cloned().collect();
        gone.iter().fold(false, |any, key| self.forget(key) | any)
    }

    /// Whether nobody is to tell an address. Of one that several Services share any of them may say so.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.counts.contains_key(&address)
    }

    /// All addresses.
    pub(super) fn addresses(&self) -> BTreeSet<IpAddr> {
        self.counts.keys().copied().collect()
    }

    /// What is wrong, one sentence each.
    pub(super) fn problems(&self) -> impl Iterator<Item = String> {
        self.odd.iter().map(|(key, value)| {
            format!(
                "Service {key}: {ADVERTISE} is \"{value}\", which means nothing; write \"false\" for addresses that no peer is to hear of, or leave \
                 it out"
            )
        })
    }

    fn set(&mut self, key: Key, new: BTreeSet<IpAddr>) -> bool {
        let old = if new.is_empty() { self.of.remove(&key) } else { self.of.insert(key, new.clone()) };
        let old = old.unwrap_or_default();
        for address in new.difference(&old) {
            *self.counts.entry(*address).or_default() += 1;
        }
        for address in old.difference(&new) {
            let count = self.counts.entry(*address).or_default();
            *count -= 1;
            if *count == 0 {
                self.counts.remove(address);
            }
        }
        old != new
    }
}

/// What the Service says. An annotation goes before a label.
fn word(service: &Service) -> Option<&str> {
    let (annotations, labels) = (&service.metadata.annotations, &service.metadata.labels);
    [annotations, labels].into_iter().flatten().find_map(|all| all.get(ADVERTISE)).map(String::as_str)
}

fn addresses(service: &Service) -> BTreeSet<IpAddr> {
    let ingress = service.status.iter().filter_map(|status| status.load_balancer.as_ref()?.ingress.as_ref()).flatten();
    let parsed = |text: &String| text.parse().ok();
    if word(service) != Some("false") {
        let proxies = ingress.filter(|ingress| ingress.ip_mode.as_deref() == Some("Proxy"));
        return proxies.filter_map(|ingress| ingress.ip.as_ref()).filter_map(parsed).collect();
    }
    let ingress = ingress.filter_map(|ingress| ingress.ip.as_ref());
    let spec = service.spec.iter();
    let own = spec.flat_map(|spec| {
        let cluster = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
        cluster.chain(spec.external_ips.iter().flatten())
    });
    own.chain(ingress).filter_map(parsed).collect()
}

/// Ranges without these addresses, and what is to be said if there are too many.
pub(super) fn around(ranges: impl Iterator<Item = IpNet>, hidden: &BTreeSet<IpAddr>) -> (Vec<IpNet>, Option<String>) {
    let ranges: Vec<IpNet> = ranges.collect();
    let inside: Vec<IpAddr> =
        hidden.iter().copied().filter(|address| ranges.iter().any(|range| range.contains(address))).collect();
    let (left_out, more) = inside.split_at(inside.len().min(MOST));
    let problem = more.first().map(|first| {
        format!(
            "BGPConfiguration default: spec.services: {} addresses inside of its ranges are to be told by nobody ({ADVERTISE}), and ranges are told \
             around {MOST} only: {first} and those above it are reached all the same; give such Services a range of their own, which is not told",
            inside.len()
        )
    });
    let mut told = Vec::new();
    ranges.into_iter().for_each(|range| split(range, left_out, &mut told));
    (told, problem)
}

/// Appends the parts of a range in which no address is hidden.
fn split(range: IpNet, hidden: &[IpAddr], told: &mut Vec<IpNet>) {
    if !hidden.iter().any(|address| range.contains(address)) {
        told.push(range);
    } else if let Ok(halves) = range.subnets(range.prefix_len() + 1) {
        // Of a single address nothing is left.
        halves.for_each(|half| split(half, hidden, told));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn split_around(range: &str, hidden: &[&str]) -> Vec<String> {
        let hidden = hidden.iter().map(|address| address.parse().unwrap()).collect();
        let (told, problem) = around([range.parse().unwrap()].into_iter(), &hidden);
        assert_eq!(problem, None);
        told.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_range_is_told_around_what_is_hidden() {
        assert_eq!(split_around("10.0.0.0/24", &["10.0.1.1"]), ["10.0.0.0/24"]);
        assert_eq!(split_around("10.0.0.0/30", &["10.0.0.1"]), ["10.0.0.0/32", "10.0.0.2/31"]);
        assert_eq!(split_around("10.0.0.0/30", &["10.0.0.1", "10.0.0.2"]), ["10.0.0.0/32", "10.0.0.3/32"]);
        assert!(split_around("10.0.0.7/32", &["10.0.0.7"]).is_empty());
        assert_eq!(split_around("10.96.0.0/12", &["10.97.3.4"]).len(), 20);
        assert_eq!(split_around("fd00::/108", &["fd00::9"]).len(), 20);
    }

    #[test]
    fn too_many_are_said_and_bounded() {
        let hidden: BTreeSet<IpAddr> =
            (0..500u16).map(|n| IpAddr::from([10, 96, (n >> 4) as u8, (n << 4) as u8])).collect();
        let (told, problem) = around(["10.96.0.0/12".parse().unwrap()].into_iter(), &hidden);
        assert!(told.len() <= MOST * 20, "{}", told.len());
        let reached = |address: &IpAddr| told.iter().any(|net| net.contains(address));
        assert_eq!(hidden.iter().filter(|address| !reached(address)).count(), MOST);
        let problem = problem.unwrap();
        assert!(problem.contains("500 addresses") && problem.contains("10.96.4.0 and those above"), "{problem}");
    }
}
