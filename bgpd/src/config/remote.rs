//! Who a peer is: an address, the router on an interface, or whoever calls from a range.

use super::FilePeer;
use crate::scoped::is_link_local;
use ipnet::IpNet;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// Callers of one range unless configured otherwise: as many as FRR takes.
const MOST: u16 = 100;

/// The other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Remote {
    Address(IpAddr),
    Interface(String, Option<Ipv6Addr>),
    Range(IpNet, u16),
}

/// What two peers must not have in common.
impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "address, {address}"),
            Self::Interface(name, _) => write!(f, "interface, {name}"),
            Self::Range(prefix, _) => write!(f, "range, {prefix}"),
        }
    }
}

impl Remote {
    /// Its address, unspecified if it is found out.
    pub(super) fn address(&self) -> IpAddr {
        match self {
            Self::Address(address) => *address,
            Self::Interface(..) | Self::Range(..) => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    /// Whether sessions run over IPv6.
    pub(super) fn is_ipv6(&self) -> bool {
        match self {
            Self::Address(address) => address.is_ipv6(),
            Self::Interface(..) => true,
            Self::Range(prefix, _) => prefix.addr().is_ipv6(),
        }
    }
}

/// Reads `address`, `interface`, `range` and `maxPeers`.
pub(super) fn remote(file: &FilePeer) -> Result<Remote, String> {
    if file.max_peers.is_some() && file.range.is_none() {
        return Err("maxPeers is for a range".to_owned());
    }
    match (file.address, &file.interface, file.range) {
        (Some(address), None, None) => no_router(address).map_or(Ok(Remote::Address(address)), Err),
        (address, Some(interface), None) => on_interface(file, interface, address),
        (None, None, Some(prefix)) => range(file, prefix),
        _ => Err(
            "give one of address, interface (the router that is found there) and range (whoever calls from it); a link-local address needs \
             its interface"
                .to_owned(),
        ),
    }
}

fn on_interface(file: &FilePeer, interface: &str, address: Option<IpAddr>) -> Result<Remote, String> {
    // `linux/if.h`, IFNAMSIZ.
    if interface.is_empty() || interface.len() > 15 || interface.contains(['/', ' ']) {
        return Err(format!("interface \"{interface}\" is no name of an interface; it has 1 to 15 characters"));
    }
    let address = match address {
        Some(IpAddr::V6(address)) if address.is_unicast_link_local() => Some(address),
        Some(address) => {
            return Err(format!("{address} is not link-local, and found without interface; leave one of the two out"));
        }
        None => None,
    };
    if file.source.is_some() {
        return Err("source is the interface's own link-local address; leave it out".to_owned());
    }
    if file.multihop.is_some() || file.ttl_security.is_some_and(|hops| hops > 1) {
        return Err("a peer on an interface is one hop away; leave multihop out, and ttlSecurity at 1".to_owned());
    }
    Ok(Remote::Interface(interface.to_owned(), address))
}

fn range(file: &FilePeer, prefix: IpNet) -> Result<Remote, String> {
    if prefix.trunc() != prefix {
        return Err(format!("range {prefix}: did you mean {}?", prefix.trunc()));
    }
    if prefix.addr().is_multicast() || is_link_local(prefix.addr()) {
        return Err(format!("range {prefix} holds no addresses that could call; use global unicast ones"));
    }
    if file.max_peers == Some(0) {
        return Err("maxPeers must not be 0; leave the key out for 100".to_owned());
    }
    if file.port.is_some() {
        return Err("port is where we call, and a range is called from; leave it out".to_owned());
    }
    Ok(Remote::Range(prefix, file.max_peers.unwrap_or(MOST)))
}

/// Why nobody can be spoken to at this address.
fn no_router(address: IpAddr) -> Option<String> {
    let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    if address.is_unspecified() || address.is_multicast() || is_broadcast {
        return Some(format!("{address} is no address of a single router"));
    }
    if let IpAddr::V6(v6) = address {
        if let Some(v4) = v6.to_ipv4_mapped() {
            return Some(format!("{address} is an IPv4 address; write {v4}"));
        }
        if v6.is_unicast_link_local() {
            return Some(format!(
                "{address} is link-local and says nothing without an interface; give interface, too, or a global address"
            ));
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::LoneConfig;
    use crate::speaker::{Config, PeerAsn};

    fn read(peers: &str) -> Result<Config, String> {
        let text = format!("asn: 65000\nrouterID: 1.1.1.1\npeers:\n{peers}\n");
        LoneConfig::parse(&text).map(|config| config.speaker).map_err(|error| error.to_string())
    }

    #[test]
    fn peers_without_address_are_templates() {
        let config = read(
            "- {name: tor, interface: eth0, asn: external}\n- {name: given, interface: eth1, address: 'fe80::2', asn: 65001}\n\
             - {name: leafs, range: 10.0.0.0/16, asn: external, password: secret, maxPeers: 7, extendedNextHop: true}\n\
             - {name: six, range: 'fd00::/64', asn: internal}\n- {name: plain, address: 10.1.0.1, asn: 1}",
        )
        .unwrap();
        assert_eq!(config.peers.keys().collect::<Vec<_>>(), ["plain"]);
        let (tor, given) = (&config.templates.unnumbered["tor"], &config.templates.unnumbered["given"]);
        assert_eq!((tor.interface.as_str(), tor.address, tor.peer.asn), ("eth0", None, PeerAsn::External));
        assert_eq!(given.address, Some("fe80::2".parse().unwrap()));
        let (leafs, six) = (&config.templates.ranges["leafs"], &config.templates.ranges["six"]);
        assert_eq!((leafs.prefix.to_string().as_str(), leafs.most), ("10.0.0.0/16", 7));
        assert_eq!((leafs.peer.password.as_deref(), leafs.peer.passive), (Some("secret"), true));
        assert_eq!((six.most, six.peer.asn), (100, PeerAsn::Number(65000)));
        let next_hops = [&tor.peer, &leafs.peer, &six.peer, &config.peers["plain"]].map(|peer| peer.extended_next_hop);
        assert_eq!(next_hops, [true, true, true, false], "where the session runs over IPv6, or it is asked for");
    }

    #[test]
    fn who_is_nobody_or_two_is_refused_in_one_sentence() {
        for (peer, word) in [
            ("asn: 1", "give one of address"),
            ("asn: 1, address: 10.0.0.1, range: 10.0.0.0/8", "give one of address"),
            ("asn: 1, interface: eth0, range: 10.0.0.0/8", "give one of address"),
            ("asn: 1, interface: eth0, address: 10.0.0.1", "not link-local"),
            ("asn: 1, address: 'fe80::1'", "give interface, too"),
            ("asn: 1, interface: ''", "no name of an interface"),
            ("asn: 1, interface: eth0, source: 'fe80::1'", "source"),
            ("asn: 1, interface: eth0, multihop: 2", "one hop away"),
            ("asn: 1, range: 10.0.0.1/8", "did you mean 10.0.0.0/8?"),
            ("asn: 1, range: 10.0.0.0/8, maxPeers: 0", "maxPeers"),
            ("asn: 1, address: 10.0.0.1, maxPeers: 3", "maxPeers is for a range"),
            ("asn: 1, range: 10.0.0.0/8, port: 1179", "port"),
            ("asn: 1, range: 'fe80::/10'", "global unicast"),
        ] {
            let error = read(&format!("- {{name: a, {peer}}}")).unwrap_err();
            assert!(error.contains("line 4: peer a") && error.contains(word), "{peer}: {error}");
        }
        let twice = read("- {name: a, interface: eth0, asn: 1}\n- {name: b, interface: eth0, asn: 1}").unwrap_err();
        assert!(twice.contains("line 5") && twice.contains("a and b"), "{twice}");
    }
}
