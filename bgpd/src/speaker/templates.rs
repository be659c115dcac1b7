//! Peers whose address is not written down: found on an interface, or calling from a range. In flow the configuration, what is known of
//! interfaces, and who calls; out flow the configuration with a peer for each of them, and a sentence for each that is missing.
//!
//! All else of the speaker knows peers with addresses only: a neighbour that is found, or another one, is a change of configuration like any
//! other, and one that is lost, with its link, is removed: what it told is void at once.

use super::config::{Config, Interface, Peer};
use crate::nd::Sight;
use crate::scoped::ScopedAddr;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

/// Peers that follow from what is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Templates {
    /// By name: the router on the other end of an interface.
    pub unnumbered: BTreeMap<String, Unnumbered>,
    /// By name: whoever calls from a range.
    pub ranges: BTreeMap<String, Range>,
}

/// A peer on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unnumbered {
    /// Name of the interface.
    pub interface: String,
    /// Its link-local address; none: that of the router that is found there.
    pub address: Option<Ipv6Addr>,
    /// All else.
    pub peer: Peer,
}

/// Peers that call from a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Where they call from.
    pub prefix: IpNet,
    /// How many at once, at most.
    pub most: u16,
    /// What each of them is.
    pub peer: Peer,
}

/// A peer that is configured and not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    /// Its name.
    pub name: String,
    /// Name of its interface.
    pub interface: String,
    /// Its AS, if it is configured.
    pub asn: Option<u32>,
    /// What is missing, in one sentence.
    pub reason: String,
}

/// What is known beyond the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Of interfaces, by name.
    pub sights: BTreeMap<String, Sight>,
    /// Who calls, and under which range.
    pub callers: BTreeMap<ScopedAddr, String>,
}

impl Templates {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.unnumbered.is_empty() && self.ranges.is_empty()
    }

    /// The range that `address` calls from: the narrowest, if several hold it.
    #[must_use]
    pub fn range_of(&self, address: IpAddr) -> Option<(&str, &Range)> {
        let holding = self.ranges.iter().filter(|(_, range)| range.prefix.contains(&address));
        holding.max_by_key(|(_, range)| range.prefix.prefix_len()).map(|(name, range)| (name.as_str(), range))
    }
}

impl Seen {
    /// The configuration with the peers that are found. Those that are configured by address go before callers.
    #[must_use]
    pub fn expand(&self, config: &Config) -> Config {
        let mut expanded = config.clone();
        for (name, template) in &config.templates.unnumbered {
            if let Some(peer) = self.found(template) {
                expanded.peers.insert(name.clone(), peer);
            }
        }
        for address in self.callers.keys() {
            let taken = expanded.peers.values().any(|peer| peer.remote() == *address);
            // By what the ranges are now: a caller may be outside of the one that took him.
            let range = config.templates.range_of(address.address).filter(|_| !taken);
            if let Some((range, template)) = range {
                let peer = Peer {
                    address: address.address,
                    passive: true,
                    range: Some(range.to_owned()),
                    ..template.peer.clone()
                };
                expanded.peers.insert(format!("{range}/{}", address.address), peer);
            }
        }
        expanded
    }

    /// Callers that are no peers by this configuration: from no range any more, or peers by address. Nobody would say that they are gone.
    pub fn forget_strangers(&mut self, config: &Config) {
        let fixed: BTreeSet<ScopedAddr> = config.peers.values().map(Peer::remote).collect();
        let is_caller =
            |address: &ScopedAddr| config.templates.range_of(address.address).is_some() && !fixed.contains(address);
        self.callers.retain(|address, _| is_caller(address));
    }

    /// Peers on interfaces that are not found, and what is missing.
    #[must_use]
    pub fn absent(&self, config: &Config) -> Vec<Absent> {
        let missing = config.templates.unnumbered.iter().filter_map(|(name, template)| {
            let interface = template.interface.clone();
            let sight = self.sights.get(&interface);
            let reason = match sight {
                Some(sight) => sight.missing(&interface, template.address.is_some())?,
                None => format!("interface {interface} is being looked at"),
            };
            Some(Absent { name: name.clone(), interface, asn: template.peer.asn.number(), reason })
        });
        missing.collect()
    }

    /// What is odd though it works: one sentence each.
    #[must_use]
    pub fn problems(&self, config: &Config) -> Vec<String> {
        let crowded = config.templates.unnumbered.iter().filter_map(|(name, template)| {
            let Sight::Up { router: Some(router), others: others @ 1.., .. } = self.sights.get(&template.interface)? else {
                return None;
            };
            let Unnumbered { interface, address: None, .. } = template else { return None };
            Some(format!(
                "peer {name}: {} routers advertise themselves on {interface}, and {router} was heard first; where another one is \
                 meant, give its link-local address",
                others + 1
            ))
        });
        let full = config.templates.ranges.iter().filter_map(|(name, range)| {
            let calling = self.callers.values().filter(|of| *of == name).count();
            (calling >= usize::from(range.most)).then(|| {
                format!(
                    "peers {name}: {calling} call from {}, which is maxPeers; all others are turned away",
                    range.prefix
                )
            })
        });
        crowded.chain(full).collect()
    }

    /// Whether every interface that can be used has shown its router.
    #[must_use]
    pub fn is_settled(&self, config: &Config) -> bool {
        config.templates.unnumbered.values().all(|template| match self.sights.get(&template.interface) {
            Some(Sight::Up { router, .. }) => router.or(template.address).is_some(),
            sight => sight.is_some(),
        })
    }

    fn found(&self, template: &Unnumbered) -> Option<Peer> {
        let Sight::Up { index, own, router, .. } = self.sights.get(&template.interface)? else { return None };
        let address = template.address.or(*router)?;
        Some(Peer {
            address: address.into(),
            interface: Some(Interface { name: template.interface.clone(), index: *index }),
            source: Some((*own).into()),
            ..template.peer.clone()
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::config::tests::peer;
    use super::super::plan::tests::config;
    use super::super::plan::{PeerChange, Plan};
    use super::*;
    use crate::rib::PeerId;

    fn link_local(number: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, number)
    }

    fn on(interface: &str) -> Unnumbered {
        Unnumbered { interface: interface.to_owned(), address: None, peer: peer("::", 65001) }
    }

    fn up(index: u32, router: Option<u16>) -> Sight {
        Sight::Up { index, own: link_local(0xff), router: router.map(link_local), others: 0 }
    }

    fn unnumbered() -> Config {
        let mut config = config(&[]);
        config.templates.unnumbered = [("a".to_owned(), on("eth0")), ("b".to_owned(), on("eth1"))].into();
        config
    }

    fn seen(sights: &[(&str, Sight)]) -> Seen {
        let sights = sights.iter().map(|(name, sight)| ((*name).to_owned(), sight.clone())).collect();
        Seen { sights, callers: BTreeMap::new() }
    }

    #[test]
    fn neighbours_with_one_address_on_two_links_are_two_peers() {
        let seen = seen(&[("eth0", up(2, Some(1))), ("eth1", up(3, Some(1)))]);
        let expanded = seen.expand(&unnumbered());
        let [a, b] = ["a", "b"].map(|name| &expanded.peers[name]);
        assert_eq!((a.address, b.address), (link_local(1).into(), link_local(1).into()));
        assert_ne!(a.remote(), b.remote());
        assert_eq!(a.source, Some(link_local(0xff).into()));
        assert!(seen.absent(&unnumbered()).is_empty() && seen.is_settled(&unnumbered()));
    }

    #[test]
    fn a_link_that_goes_removes_its_peer_and_another_router_resets_it() {
        let plan = |sights: &[(&str, Sight)]| seen(sights).expand(&unnumbered());
        let first = Plan::first(plan(&[("eth0", up(2, Some(1)))]));
        assert_eq!(first.changes, [PeerChange::Added(PeerId(1))]);
        let other = first.next(plan(&[("eth0", up(2, Some(9)))]));
        assert_eq!(other.changes, [PeerChange::Reset(PeerId(1))]);
        let again = other.next(plan(&[("eth0", up(7, Some(9)))]));
        assert_eq!(again.changes, [PeerChange::Reset(PeerId(1))], "an interface made anew");
        assert_eq!(again.next(plan(&[("eth0", Sight::Down)])).changes, [PeerChange::Removed(PeerId(1))]);
    }

    #[test]
    fn what_is_missing_is_one_sentence_per_peer() {
        let config = unnumbered();
        for (sight, word) in [
            (Sight::Missing, "no interface eth0"),
            (Sight::Down, "down"),
            (Sight::NoAddress, "link-local"),
            (up(2, None), "no router advertisement"),
            (Sight::Deaf("CAP_NET_RAW".to_owned()), "CAP_NET_RAW"),
        ] {
            let seen = seen(&[("eth0", sight), ("eth1", up(3, Some(1)))]);
            let absent = seen.absent(&config);
            assert!(absent.len() == 1 && absent[0].name == "a" && absent[0].reason.contains(word), "{absent:?}");
            assert!(!seen.expand(&config).peers.contains_key("a"));
        }
        let mut given = unnumbered();
        given.templates.unnumbered.get_mut("a").unwrap().address = Some(link_local(5));
        let silent = seen(&[("eth0", up(2, None)), ("eth1", Sight::Down)]);
        assert_eq!(silent.expand(&given).peers["a"].address, IpAddr::from(link_local(5)));
        assert!(silent.is_settled(&given) && !silent.is_settled(&config) && !Seen::default().is_settled(&config));
    }

    #[test]
    fn callers_have_the_name_of_their_range_and_go_behind_configured_peers() {
        let mut config = config(&[("fixed", peer("10.0.0.9", 65009))]);
        let range = |prefix: &str, most| Range { prefix: prefix.parse().unwrap(), most, peer: peer("0.0.0.0", 65001) };
        config.templates.ranges =
            [("leafs".to_owned(), range("10.0.0.0/16", 2)), ("few".to_owned(), range("10.0.1.0/24", 9))].into();
        let range_of =
            |address: &str| config.templates.range_of(address.parse().unwrap()).map(|(name, _)| name.to_owned());
        assert_eq!(range_of("10.0.1.7").as_deref(), Some("few"), "the narrowest");
        assert_eq!((range_of("10.0.2.7").as_deref(), range_of("10.1.0.1")), (Some("leafs"), None));

        let address = |text: &str| ScopedAddr::from(text.parse::<IpAddr>().unwrap());
        let callers = [(address("10.0.0.9"), "leafs".to_owned()), (address("10.0.0.1"), "leafs".to_owned())].into();
        let seen = Seen { sights: BTreeMap::new(), callers };
        let expanded = seen.expand(&config);
        assert_eq!(expanded.peers.keys().collect::<Vec<_>>(), ["fixed", "leafs/10.0.0.1"]);
        let caller = &expanded.peers["leafs/10.0.0.1"];
        assert!(caller.passive && caller.range.as_deref() == Some("leafs"));
        assert!(seen.problems(&config)[0].contains("maxPeers"), "2 of 2");
        let mut seen = seen;
        seen.forget_strangers(&config);
        assert_eq!(seen.callers.len(), 1, "one is a peer by address");
        config.templates.ranges.clear();
        assert_eq!(seen.expand(&config).peers.len(), 1, "the range is gone, and so are they");
        seen.forget_strangers(&config);
        assert!(seen.callers.is_empty(), "who is called by nobody any more takes no room when it is back");
    }
}
