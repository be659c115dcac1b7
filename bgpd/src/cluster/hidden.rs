//! Addresses of Services that no peer is told: those of a Service that says so by [`ADVERTISE`], and those of a proxy, which no node answers
//! for. Ranges are told around them. An address that several Services have is hidden while all of them say so: nobody hides what is another's.

use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use twill_crds::Service;
use twill_crds::services::ADVERTISE;
use twill_datastore::Key;

/// Addresses that ranges are told around, at most: each may cost as many prefixes as its range has bits to spare.
const MOST: usize = 64;

/// Services that are named in a sentence.
const NAMED: usize = 3;

/// What is known of them, by Service.
#[derive(Debug, Default)]
pub(super) struct Hidden {
    of: BTreeMap<Key, Addresses>,
    /// Services that hide an address.
    hiders: BTreeMap<IpAddr, BTreeSet<Key>>,
    /// How many Services have an address and do not hide it.
    showers: BTreeMap<IpAddr, usize>,
    /// Whose value of [`ADVERTISE`] means nothing.
    odd: BTreeSet<Key>,
}

/// Addresses of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Addresses {
    hidden: BTreeSet<IpAddr>,
    shown: BTreeSet<IpAddr>,
}

impl Hidden {
    /// Takes in a Service; whether that hides or shows anything.
    pub(super) fn hear(&mut self, key: Key, service: &Service) -> bool {
        match word(service) {
            None | Some("true" | "false") => self.odd.remove(&key),
            Some(_) => self.odd.insert(key.clone()),
        };
        self.set(key, addresses(service))
    }

    /// The Service is gone.
    pub(super) fn forget(&mut self, key: &Key) -> bool {
        self.odd.remove(key);
        self.set(key.clone(), Addresses::default())
    }

    /// Others are gone.
    pub(super) fn retain(&mut self, is_there: impl Fn(&Key) -> bool) -> bool {
        let gone: Vec<Key> = self.of.keys().chain(&self.odd).filter(|key| !is_there(key)).cloned().collect();
        gone.iter().fold(false, |any, key| self.forget(key) | any)
    }

    /// Whether this Service hides an address, whatever others do that have it.
    pub(super) fn hides(&self, key: &Key, address: IpAddr) -> bool {
        self.hiders.get(&address).is_some_and(|hiders| hiders.contains(key))
    }

    /// All addresses that nobody is to tell, those first that go before others where they are too many: namespaces take turns, and so do the
    /// Services of each, so that no list is so long that another's is not heeded.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        let mut of_service: BTreeMap<&Key, usize> = BTreeMap::new();
        let hidden = self.hiders.iter().filter(|(address, _)| !self.showers.contains_key(*address));
        let mut all: Vec<(&str, usize, &Key, IpAddr)> = hidden
            .filter_map(|(address, hiders)| {
                let key = hiders.first()?;
                let turn = of_service.entry(key).or_default();
                *turn += 1;
                Some((key.namespace.as_str(), *turn, key, *address))
            })
            .collect();
        all.sort_unstable();
        let mut of_namespace: BTreeMap<&str, usize> = BTreeMap::new();
        let mut all: Vec<(usize, &str, IpAddr)> = all
            .into_iter()
            .map(|(namespace, _, _, address)| {
                let turn = of_namespace.entry(namespace).or_default();
                *turn += 1;
                (*turn, namespace, address)
            })
            .collect();
        all.sort_unstable();
        all.into_iter().map(|(.., address)| address).collect()
    }

    /// What is odd, in one sentence. It names few and repeats no value: anybody who has a Service may write there what he likes.
    pub(super) fn remark(&self) -> Option<String> {
        let names: Vec<String> = self.odd.iter().take(NAMED).map(ToString::to_string).collect();
        let (noun, more) = if self.odd.len() == 1 { ("Service", "") } else { ("Services", ", and more") };
        let more = if self.odd.len() > NAMED { more } else { "" };
        (!names.is_empty()).then(|| {
            format!(
                "{} {noun} ({}{more}): {ADVERTISE} has a value that means nothing; write \"false\" for addresses that no peer is to hear of, or \
                 leave it out",
                self.odd.len(),
                names.join(", ")
            )
        })
    }

    fn set(&mut self, key: Key, new: Addresses) -> bool {
        let old = self.of.remove(&key).unwrap_or_default();
        if old == new {
            if new != Addresses::default() {
                self.of.insert(key, new);
            }
            return false;
        }
        let touched: BTreeSet<IpAddr> =
            [&old, &new].into_iter().flat_map(|one| one.hidden.union(&one.shown)).copied().collect();
        let hidden = |this: &Self| -> Vec<IpAddr> {
            touched.iter().copied().filter(|address| this.is_hidden(*address)).collect()
        };
        let before = hidden(self);
        for address in new.hidden.difference(&old.hidden) {
            self.hiders.entry(*address).or_default().insert(key.clone());
        }
        for address in old.hidden.difference(&new.hidden) {
            let hiders = self.hiders.entry(*address).or_default();
            hiders.remove(&key);
            if hiders.is_empty() {
                self.hiders.remove(address);
            }
        }
        for address in new.shown.difference(&old.shown) {
            *self.showers.entry(*address).or_default() += 1;
        }
        for address in old.shown.difference(&new.shown) {
            let count = self.showers.entry(*address).or_default();
            *count -= 1;
            if *count == 0 {
                self.showers.remove(address);
            }
        }
        let changed = before != hidden(self) || old.hidden != new.hidden;
        if new != Addresses::default() {
            self.of.insert(key, new);
        }
        changed
    }

    fn is_hidden(&self, address: IpAddr) -> bool {
        self.hiders.contains_key(&address) && !self.showers.contains_key(&address)
    }
}

/// What the Service says. An annotation goes before a label.
fn word(service: &Service) -> Option<&str> {
    let (annotations, labels) = (&service.metadata.annotations, &service.metadata.labels);
    [annotations, labels].into_iter().flatten().find_map(|all| all.get(ADVERTISE)).map(String::as_str)
}

fn addresses(service: &Service) -> Addresses {
    let ingress = service.status.iter().filter_map(|status| status.load_balancer.as_ref()?.ingress.as_ref()).flatten();
    let (proxies, direct): (Vec<_>, Vec<_>) = ingress.partition(|ingress| ingress.ip_mode.as_deref() == Some("Proxy"));
    let parsed = |text: &String| text.parse().ok();
    let spec = service.spec.iter();
    let own = spec.flat_map(|spec| {
        let cluster = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
        cluster.chain(spec.external_ips.iter().flatten())
    });
    let own: BTreeSet<IpAddr> =
        own.chain(direct.into_iter().filter_map(|ingress| ingress.ip.as_ref())).filter_map(parsed).collect();
    let of_proxies = proxies.into_iter().filter_map(|ingress| ingress.ip.as_ref()).filter_map(parsed);
    match word(service) {
        Some("false") => Addresses { hidden: own.into_iter().chain(of_proxies).collect(), shown: BTreeSet::new() },
        // What nodes answer for besides is theirs.
        _ => Addresses { hidden: of_proxies.filter(|address| !own.contains(address)).collect(), shown: own },
    }
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

    fn service(external: &[String], value: &str) -> Service {
        let metadata = serde_json::json!({"annotations": {ADVERTISE: value}});
        serde_json::from_value(serde_json::json!({"metadata": metadata, "spec": {"externalIPs": external}})).unwrap()
    }

    #[test]
    fn an_address_of_several_services_is_hidden_while_all_say_so() {
        let (mut hidden, address) = (Hidden::default(), ["192.0.2.1".to_owned()]);
        let [mine, theirs] = ["mine", "theirs"].map(|namespace| Key::namespaced(namespace, "web"));
        assert!(!hidden.hear(mine.clone(), &service(&address, "true")));
        assert!(hidden.hear(theirs.clone(), &service(&address, "false")), "its own endpoints do not count");
        assert_eq!(hidden.addresses(), [] as [IpAddr; 0]);
        assert!(hidden.hear(mine.clone(), &service(&address, "false")));
        assert_eq!(hidden.addresses().len(), 1);
        assert!(!hidden.hear(mine.clone(), &service(&address, "false")), "as before");
        assert!(hidden.forget(&theirs) && hidden.addresses().len() == 1);
        assert!(hidden.hear(mine.clone(), &service(&address, "")) && hidden.addresses().is_empty());
        assert!(!hidden.forget(&mine) && hidden.of.is_empty() && hidden.hiders.is_empty() && hidden.showers.is_empty());
    }

    #[test]
    fn a_long_list_of_one_namespace_pushes_no_other_out() {
        let mut hidden = Hidden::default();
        for number in 0..20u8 {
            let many: Vec<String> = (0..100).map(|host| format!("10.0.{number}.{host}")).collect();
            hidden.hear(Key::namespaced("greedy", format!("s{number}")), &service(&many, "false"));
        }
        hidden.hear(Key::namespaced("modest", "one"), &service(&["10.9.9.9".to_owned()], "false"));
        hidden.hear(Key::namespaced("greedy", "s99"), &service(&["10.8.8.8".to_owned()], "false"));
        let order = hidden.addresses();
        assert_eq!(order.len(), 2002);
        let place = |address: &str| order.iter().position(|one| one.to_string() == address).unwrap();
        assert!(place("10.9.9.9") < 2 && place("10.8.8.8") < MOST, "{} {}", place("10.9.9.9"), place("10.8.8.8"));
    }

    #[test]
    fn odd_values_are_one_short_sentence_without_them() {
        let mut hidden = Hidden::default();
        assert_eq!(hidden.remark(), None);
        let value = "x".repeat(40_000);
        for number in 0..1000 {
            assert!(!hidden.hear(Key::namespaced("shop", format!("s{number}")), &service(&[], &value)));
        }
        let remark = hidden.remark().unwrap();
        assert!(remark.starts_with("1000 Services (shop/s0, shop/s1, shop/s10, and more): "), "{remark}");
        assert!(remark.len() < 300 && !remark.contains('x'), "{remark}");
        hidden.retain(|key| key.name == "s7");
        assert!(hidden.remark().unwrap().starts_with("1 Service (shop/s7): "));
    }
}
