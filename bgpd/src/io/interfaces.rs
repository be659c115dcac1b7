//! The addresses of the machine: which subnets a session's two ends share, and what our next hop is on it.

use crate::scoped::{ScopedAddr, is_link_local};
use ipnet::IpNet;
use nix::net::if_::if_nametoindex;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the interface of a session is good for.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) v4: Option<Ipv4Addr>,
    pub(super) v6: Option<Ipv6Addr>,
    /// Connected subnets, if the peer is on one of them; not the one of link-local addresses, which every link has.
    pub(super) shared: Vec<IpNet>,
    /// Index of the interface.
    pub(super) index: u32,
    /// Its link-local address.
    pub(super) link_local: Option<Ipv6Addr>,
}

/// The interface that has `local`, as the peer at `remote` sees it.
pub(super) fn link(local: ScopedAddr, remote: IpAddr) -> Link {
    let (own_v4, own_v6) = match local.address {
        IpAddr::V4(address) => (Some(address), None),
        IpAddr::V6(address) => (None, Some(address)),
    };
    let own_global = own_v6.filter(|address| !address.is_unicast_link_local());
    // An address may be ours by a route alone, and no interface have it.
    let alone = Link { v4: own_v4, v6: own_global, ..Link::default() };
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return alone };
    let addresses: Vec<(String, IpNet)> =
        interfaces.filter_map(|interface| Some((interface.interface_name.clone(), net(&interface)?))).collect();
    let index = |name: &String| if_nametoindex(name.as_str()).unwrap_or(0);
    // Every interface may have the same link-local address.
    let is_local =
        |(name, net): &&(String, IpNet)| net.addr() == local.address && (local.zone == 0 || index(name) == local.zone);
    let Some((name, _)) = addresses.iter().find(is_local) else { return alone };
    let here: Vec<IpNet> = addresses.iter().filter(|(other, _)| other == name).map(|(_, net)| *net).collect();
    let v4 = here.iter().find_map(|net| match net.addr() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    let v6 = |wanted: fn(&Ipv6Addr) -> bool| {
        here.iter().find_map(|net| match net.addr() {
            IpAddr::V6(address) => Some(address).filter(wanted),
            IpAddr::V4(_) => None,
        })
    };
    let global = v6(|address| !address.is_unicast_link_local() && !address.is_loopback());
    let connected = here.iter().any(|net| net.contains(&remote));
    let shared = here.iter().filter(|net| connected && !is_link_local(net.addr())).map(IpNet::trunc).collect();
    let own_link_local = own_v6.filter(Ipv6Addr::is_unicast_link_local);
    Link {
        v4: own_v4.or(v4),
        v6: own_global.or(global),
        shared,
        index: index(name),
        link_local: own_link_local.or_else(|| v6(Ipv6Addr::is_unicast_link_local)).filter(|_| connected),
    }
}

fn net(interface: &nix::ifaddrs::InterfaceAddress) -> Option<IpNet> {
    let (address, mask) = (interface.address.as_ref()?, interface.netmask.as_ref()?);
    if let (Some(address), Some(mask)) = (address.as_sockaddr_in(), mask.as_sockaddr_in()) {
        return IpNet::with_netmask(address.ip().into(), mask.ip().into()).ok();
    }
    let (address, mask) = (address.as_sockaddr_in6()?, mask.as_sockaddr_in6()?);
    IpNet::with_netmask(address.ip().into(), mask.ip().into()).ok()
}
