//! What the kernel has that is not ours: links, addresses, neighbours of the tunnel device, and routes by which a next
//! hop can be resolved. Only remembers; read as a whole by a dump.

use super::hosts::HostRoute;
use ipnet::IpNet;
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use twill_crds::names::{IPIP_DEVICE, VXLAN_DEVICE};

/// The kernel as one dump saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    /// The kernel's release, if it could be read.
    pub release: Option<Release>,
    /// Links by index.
    pub links: BTreeMap<u32, Link>,
    /// Addresses with their link.
    pub addresses: BTreeSet<(u32, IpNet)>,
    /// Permanent neighbours of the VXLAN device.
    pub neighbours: BTreeMap<IpAddr, [u8; 6]>,
    /// Routes of others.
    pub routes: Foreign,
    /// felix's routes to single addresses.
    pub hosts: BTreeSet<HostRoute>,
}

/// A kernel's release by its first two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release(pub u16, pub u16);

impl Release {
    /// From what the kernel calls itself: `6.1.0-28-cloud-amd64`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().ok());
        Some(Self(numbers.next()??, numbers.next()??))
    }
}

/// One link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether it is `lo`, by which no packet leaves.
    pub loopback: bool,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its MAC address, if it has one of six octets.
    pub mac: Option<[u8; 6]>,
    /// What it is.
    pub kind: LinkKind,
    /// The link that it is a part or the other side of, as a VLAN is of an interface.
    pub below: Option<u32>,
    /// The bond or bridge that it belongs to.
    pub master: Option<u32>,
    /// Its driver, as ethtool names it.
    pub driver: Option<Arc<str>>,
    /// Whether it leaves checksums of what is sent to who comes after it; read of our tunnel devices alone.
    pub checksum_offload: Option<bool>,
    /// How the kernel checks the sources of IPv4 packets that come in by it (RFC 3704; `rp_filter`, the greater of its own and that of all).
    pub reverse_path: ReversePath,
}

/// How a source is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReversePath {
    /// Not at all.
    #[default]
    Off,
    /// The way back has to be by the same link.
    Strict,
    /// There has to be a way back.
    Loose,
}

/// What a link is, as far as tunnels and the node's address are concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkKind {
    /// A VXLAN device.
    Vxlan {
        /// Collect-metadata mode.
        external: bool,
        /// Whether it learns MAC addresses.
        learning: bool,
        /// UDP port.
        port: u16,
    },
    /// An IP-in-IP device.
    Ipip {
        /// Collect-metadata mode.
        external: bool,
    },
    /// A bridge.
    Bridge,
    /// One end of a veth.
    Veth,
    /// Of a process, such as a virtual machine: TUN or TAP.
    Tun,
    /// Anything else.
    #[default]
    Other,
}

/// A route that is not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignRoute {
    /// Its prefix.
    pub prefix: IpNet,
    /// Its metric; the lowest of a prefix counts.
    pub metric: u32,
    /// What its packets may have, where that is said (`mtu` of `ip route`): less than the link's where the way is narrower than its beginning.
    pub mtu: Option<u32>,
    /// Where it leads; empty for unreachable, blackhole and prohibit.
    pub ways: Vec<Way>,
}

/// One way out of a [`ForeignRoute`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Way {
    /// The gateway; none for a connected subnet.
    pub gateway: Option<IpAddr>,
    /// Index of the link.
    pub link: u32,
}

/// Routes of others, by prefix length for the longest match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Foreign {
    by_length: BTreeMap<(bool, u8), FxHashMap<IpNet, ForeignRoute>>,
}

impl Foreign {
    /// Remembers a route; of several with one prefix that of the lowest metric.
    pub fn insert(&mut self, route: ForeignRoute) {
        let slot = self.by_length.entry((is_v6(route.prefix.addr()), route.prefix.prefix_len())).or_default();
        match slot.get(&route.prefix) {
            Some(known) if known.metric <= route.metric => {}
            _ => {
                slot.insert(route.prefix, route);
            }
        }
    }

    /// The route by which the kernel would reach `address`, without ours; the default route only if `default`.
    #[must_use]
    pub fn longest_match(&self, address: IpAddr, default: bool) -> Option<&ForeignRoute> {
        let v6 = is_v6(address);
        let shortest = u8::from(!default);
        self.by_length.range((v6, shortest)..=(v6, 128)).rev().find_map(|((_, length), routes)| {
            let prefix = IpNet::new(address, *length).ok()?.trunc();
            routes.get(&prefix)
        })
    }
}

impl World {
    /// The link of this name.
    #[must_use]
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    /// The link that has this address.
    #[must_use]
    pub fn link_of(&self, address: IpAddr) -> Option<&Link> {
        let (index, _) = self.addresses.iter().find(|(_, net)| net.addr() == address)?;
        self.links.get(index)
    }

    /// Whether `link` is one of our tunnel devices.
    #[must_use]
    pub fn is_tunnel(&self, link: u32) -> bool {
        self.links.get(&link).is_some_and(|link| link.name == VXLAN_DEVICE || link.name == IPIP_DEVICE)
    }
}

fn is_v6(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(_))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn route(prefix: &str, metric: u32, gateway: Option<&str>, link: u32) -> ForeignRoute {
        let gateway = gateway.map(|g| g.parse().unwrap());
        ForeignRoute { prefix: prefix.parse().unwrap(), metric, mtu: None, ways: vec![Way { gateway, link }] }
    }

    #[test]
    fn the_longest_prefix_wins_and_the_default_route_counts_only_when_asked() {
        let mut routes = Foreign::default();
        routes.insert(route("0.0.0.0/0", 0, Some("172.31.1.1"), 2));
        routes.insert(route("172.31.0.0/16", 0, Some("172.31.1.2"), 2));
        routes.insert(route("172.31.1.0/24", 0, None, 2));
        let matched = |address: &str, default| {
            routes.longest_match(address.parse().unwrap(), default).map(|r| r.prefix.to_string())
        };
        assert_eq!(matched("172.31.1.9", false).as_deref(), Some("172.31.1.0/24"));
        assert_eq!(matched("172.31.9.9", false).as_deref(), Some("172.31.0.0/16"));
        assert_eq!(matched("10.0.0.1", true).as_deref(), Some("0.0.0.0/0"));
        assert_eq!(matched("10.0.0.1", false), None);
        assert_eq!(matched("fd00::1", true), None);
    }

    #[test]
    fn a_release_is_read_from_what_kernels_of_distributions_call_themselves() {
        for (text, release) in [
            ("6.1.0-28-cloud-amd64", Some(Release(6, 1))),
            ("5.15.0-1034-azure", Some(Release(5, 15))),
            ("4.18.0-513.el8.x86_64\n", Some(Release(4, 18))),
            ("6.18+", Some(Release(6, 18))),
            ("6", None),
            ("", None),
        ] {
            assert_eq!(Release::parse(text), release, "{text:?}");
        }
        assert!(Release(5, 7) > Release(5, 4) && Release(6, 0) > Release(5, 19));
    }

    #[test]
    fn of_one_prefix_the_lowest_metric_counts_in_either_order() {
        for metrics in [[5, 1], [1, 5]] {
            let mut routes = Foreign::default();
            for metric in metrics {
                routes.insert(route("10.0.0.0/8", metric, None, metric));
            }
            assert_eq!(routes.longest_match("10.1.1.1".parse().unwrap(), false).unwrap().metric, 1);
        }
    }
}
