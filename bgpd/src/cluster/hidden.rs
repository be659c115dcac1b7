//! Addresses of Services that no peer is told: those of a Service that says so by [`ADVERTISE`], and those of a proxy, which no node answers
//! for. Ranges are told around them. An address is that of the oldest Service that has it by the word of the cluster (its own, or a load balancer's),
//! else by a proxy's, else by `externalIPs`, which anybody may write; and this one alone says whether it is told: nobody hides what is another's, or
//! shows it.

use super::exposed::{Exposed, Kind};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;
use twill_crds::services::ADVERTISE;
use twill_datastore::Key;

/// Addresses that ranges are told around, at most: each may cost as many prefixes as its range has bits to spare.
const MOST: usize = 64;

/// The addresses that nobody is to tell, with the Service that has each.
pub(super) fn hidden<'a>(services: impl Iterator<Item = (&'a Key, &'a Exposed)>) -> BTreeMap<IpAddr, &'a Key> {
    let mut services: Vec<(&Key, &Exposed)> = services.collect();
    if !services.iter().any(|(_, service)| service.hides || service.has_proxy()) {
        // As nearly everywhere: then it does not matter whose an address is.
        return BTreeMap::new();
    }
    services.sort_by_key(|(key, service)| (service.created.is_none(), service.created, *key));
    let mut owners: BTreeMap<IpAddr, (&Key, bool)> = BTreeMap::new();
    for kinds in [&[Kind::Cluster, Kind::LoadBalancer][..], &[Kind::Proxy], &[Kind::External]] {
        for (key, service) in &services {
            for (address, kind) in service.addresses.iter().filter(|(_, kind)| kinds.contains(kind)) {
                owners.entry(*address).or_insert((*key, service.hides || *kind == Kind::Proxy));
            }
        }
    }
    owners.into_iter().filter(|(_, (_, hides))| *hides).map(|(address, (key, _))| (address, key)).collect()
}

/// Those first that go before others where they are too many: namespaces take turns, and so do the Services of each, so that no list is so
/// long that another's is not heeded.
pub(super) fn ranked(hidden: &BTreeMap<IpAddr, &Key>) -> Vec<IpAddr> {
    let by_service = in_turns(hidden, |(_, key)| **key);
    let all = in_turns(by_service, |(_, key)| key.namespace.as_str());
    all.into_iter().map(|(address, _)| *address).collect()
}

/// The first of each, then the second of each, and so on.
fn in_turns<T, K: Ord>(all: impl IntoIterator<Item = T>, of: impl Fn(&T) -> K) -> Vec<T> {
    let mut turns: BTreeMap<K, usize> = BTreeMap::new();
    let turn = |one: T| {
        let turn = turns.entry(of(&one)).or_default();
        *turn += 1;
        (*turn, one)
    };
    let mut all: Vec<(usize, T)> = all.into_iter().map(turn).collect();
    all.sort_by_key(|(turn, _)| *turn);
    all.into_iter().map(|(_, one)| one).collect()
}

/// Ranges without these addresses, of which the first count most, and what is to be said if there are too many.
pub(super) fn around(ranges: impl Iterator<Item = IpNet>, hidden: &[IpAddr]) -> (Vec<IpNet>, Option<String>) {
    let ranges: Vec<IpNet> = ranges.collect();
    let inside: Vec<IpAddr> =
        hidden.iter().copied().filter(|address| ranges.iter().any(|range| range.contains(address))).collect();
    let (left_out, more) = inside.split_at(inside.len().min(MOST));
    // No count and no address: what changes with each Service would have every node write its status.
    let problem = (!more.is_empty()).then(|| {
        format!(
            "BGPConfiguration default: spec.services: more than {MOST} addresses inside of its ranges are to be told by nobody ({ADVERTISE}), and \
             ranges are told around {MOST} only, by turns of namespaces: others are reached all the same; give such Services a range of their own, \
             which is not told"
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
        let hidden: Vec<IpAddr> = hidden.iter().map(|address| address.parse().unwrap()).collect();
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
        let hidden: Vec<IpAddr> = (0..500u16).map(|n| IpAddr::from([10, 96, (n >> 4) as u8, (n << 4) as u8])).collect();
        let (told, problem) = around(["10.96.0.0/12".parse().unwrap()].into_iter(), &hidden);
        assert!(told.len() <= MOST * 20, "{}", told.len());
        let reached = |address: &IpAddr| told.iter().any(|net| net.contains(address));
        assert_eq!(hidden.iter().filter(|address| !reached(address)).count(), MOST);
        assert_eq!(hidden.iter().position(reached), Some(MOST), "the first count");
        let problem = problem.unwrap();
        assert!(problem.contains("more than 64 addresses"), "{problem}");
        let (_, other) = around(["10.96.0.0/12".parse().unwrap()].into_iter(), &hidden[..400]);
        assert_eq!(other, Some(problem), "a Service more is no other sentence");
    }

    /// A Service of this second with these addresses, which it hides or not.
    fn service(second: i128, addresses: &[(&str, Kind)], hides: bool) -> Exposed {
        let addresses = addresses.iter().map(|(address, kind)| (address.parse().unwrap(), *kind)).collect();
        Exposed { created: Some(second), addresses, hides, ..Exposed::default() }
    }

    fn hidden_of(services: &[Exposed]) -> Vec<String> {
        let keys: Vec<Key> = (0..services.len()).map(|number| Key::namespaced("shop", format!("s{number}"))).collect();
        hidden(keys.iter().zip(services)).keys().map(ToString::to_string).collect()
    }

    #[test]
    fn an_address_is_that_of_the_oldest_service_that_has_it() {
        let (one, two) = (("192.0.2.1", Kind::External), ("192.0.2.2", Kind::LoadBalancer));
        let old = |hides| service(1, &[one], hides);
        let new = |hides| service(2, &[one, two], hides);
        assert_eq!(hidden_of(&[new(true), old(false)]), ["192.0.2.2"], "nobody hides what is another's");
        assert_eq!(hidden_of(&[new(false), old(true)]), ["192.0.2.1"], "nor shows it");
        let unborn = Exposed { created: None, ..old(true) };
        assert_eq!(hidden_of(&[unborn, new(false)]), [] as [&str; 0]);
        assert_eq!(hidden_of(&[service(1, &[one], true), service(1, &[one], false)]), ["192.0.2.1"], "then by name");
    }

    #[test]
    fn what_the_cluster_gave_goes_before_a_proxys_and_what_anybody_may_write_goes_last() {
        let all = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
        let proxy = service(1, &all.map(|address| (address, Kind::Proxy)), false);
        let direct = service(2, &[(all[1], Kind::LoadBalancer), (all[2], Kind::External)], false);
        assert_eq!(hidden_of(&[proxy, direct]), [all[0], all[2]]);
        let squatter = service(1, &all.map(|address| (address, Kind::External)), true);
        let given = service(2, &[(all[0], Kind::LoadBalancer), (all[1], Kind::Cluster)], false);
        assert_eq!(hidden_of(&[squatter, given]), [all[2]]);
    }

    #[test]
    fn a_long_list_of_one_namespace_pushes_no_other_out() {
        let many = |number: u8| -> Exposed {
            let addresses = (0..100).map(|host| (IpAddr::from([10, 0, number, host]), Kind::External)).collect();
            Exposed { addresses, ..service(1, &[], true) }
        };
        let mut services: BTreeMap<Key, Exposed> =
            (0..20).map(|number| (Key::namespaced("greedy", format!("s{number}")), many(number))).collect();
        services.insert(Key::namespaced("modest", "one"), service(2, &[("10.9.9.9", Kind::External)], true));
        services.insert(Key::namespaced("greedy", "s99"), service(2, &[("10.8.8.8", Kind::External)], true));
        let order = ranked(&hidden(services.iter()));
        assert_eq!(order.len(), 2002);
        let place = |address: &str| order.iter().position(|one| one.to_string() == address).unwrap();
        assert!(place("10.9.9.9") < 2 && place("10.8.8.8") < MOST, "{} {}", place("10.9.9.9"), place("10.8.8.8"));
    }
}
