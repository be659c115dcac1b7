//! Which TCP MD5 keys a listening socket needs, from the configuration.
//!
//! The kernel takes the key of the longest prefix that holds an address, and then insists on a signature. So who is to have none, a
//! configured peer or a narrower range inside one with a password, must lie outside of every prefix that has a key: what is around him is
//! put together from smaller prefixes.

use crate::speaker::Config;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};

/// Passwords by prefix.
pub(super) fn keys(config: &Config) -> BTreeMap<IpNet, String> {
    let mut keys = BTreeMap::new();
    let mut open = BTreeSet::new();
    for peer in config.peers.values().filter(|peer| peer.range.is_none()) {
        match &peer.password {
            Some(password) => drop(keys.insert(IpNet::from(peer.address), password.clone())),
            None => drop(open.insert(IpNet::from(peer.address))),
        }
    }
    let mut ranges: Vec<_> = config.templates.ranges.values().collect();
    // The key of the narrowest range that holds an address counts: pieces of wider ones do not take its place.
    ranges.sort_by_key(|range| std::cmp::Reverse(range.prefix.prefix_len()));
    open.extend(ranges.iter().filter(|range| range.peer.password.is_none()).map(|range| range.prefix));
    for range in ranges {
        let Some(password) = &range.peer.password else { continue };
        let inside: Vec<IpNet> = open.iter().filter(|net| range.prefix.contains(*net)).copied().collect();
        for piece in around(range.prefix, &inside) {
            keys.entry(piece).or_insert_with(|| password.clone());
        }
    }
    keys
}

/// The prefixes that hold all of `net` but `holes`.
fn around(net: IpNet, holes: &[IpNet]) -> Vec<IpNet> {
    let inside: Vec<IpNet> = holes.iter().filter(|hole| net.contains(*hole)).copied().collect();
    if inside.is_empty() {
        return vec![net];
    }
    if inside.contains(&net) {
        return Vec::new();
    }
    let halves = net.subnets(net.prefix_len() + 1).into_iter().flatten();
    halves.flat_map(|half| around(half, &inside)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::speaker::{Peer, Range, sample_config, sample_peer as peer};

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn around_an_address_lie_as_many_prefixes_as_it_has_bits_below_the_range() {
        assert_eq!(around(net("10.0.0.0/16"), &[]), [net("10.0.0.0/16")]);
        assert_eq!(around(net("10.0.0.0/30"), &[net("10.0.0.1/32")]), [net("10.0.0.0/32"), net("10.0.0.2/31")]);
        assert_eq!(around(net("fd00::/64"), &[net("fd00::1/128")]).len(), 64);
        assert!(around(net("10.0.0.0/30"), &[net("10.0.0.0/30")]).is_empty());
    }

    #[test]
    fn a_narrower_ranges_key_is_not_that_of_the_range_around_it() {
        let range = |prefix: &str, word: &str| Range {
            prefix: net(prefix),
            most: 9,
            peer: Peer { password: Some(word.to_owned()), ..peer("0.0.0.0", 1) },
        };
        let mut config = sample_config(&[("open", peer("10.0.1.0", 1))]);
        let ranges = [("all", range("10.0.0.0/16", "wide")), ("racks", range("10.0.0.0/24", "narrow"))];
        config.templates.ranges = ranges.map(|(name, range)| (name.to_owned(), range)).into();
        let keys = keys(&config);
        assert_eq!(keys[&net("10.0.0.0/24")], "narrow");
        assert!(keys.values().any(|key| key == "wide") && !keys.contains_key(&net("10.0.1.0/32")));
    }

    #[test]
    fn a_configured_peer_and_a_narrower_range_go_before_the_range_around_them() {
        let password = |text: &str| Some(text.to_owned());
        let template = |prefix: &str, word: Option<String>| Range {
            prefix: net(prefix),
            most: 9,
            peer: Peer { password: word, ..peer("0.0.0.0", 1) },
        };
        let mut config = sample_config(&[
            ("secret", Peer { password: password("own"), ..peer("10.0.0.1", 1) }),
            ("open", peer("10.0.0.3", 1)),
        ]);
        config.templates.ranges = [
            ("all".to_owned(), template("10.0.0.0/29", password("all"))),
            ("none".to_owned(), template("10.0.0.4/31", None)),
        ]
        .into();
        let keys = keys(&config);
        let of = |address: &str| {
            let holding = keys.iter().filter(|(prefix, _)| prefix.contains(&net(address)));
            holding.max_by_key(|(prefix, _)| prefix.prefix_len()).map(|(_, key)| key.as_str())
        };
        let found: Vec<_> = (0..8).map(|host| of(&format!("10.0.0.{host}/32"))).collect();
        assert_eq!(found, [Some("all"), Some("own"), Some("all"), None, None, None, Some("all"), Some("all")]);
    }
}
