//! The addresses of the machine: which subnets a session's two ends share, and what our next hop is on it.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the interface of a session is good for.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) v4: Option<Ipv4Addr>,
    pub(super) v6: Option<Ipv6Addr>,
    /// Connected subnets, if the peer is on one of them.
    pub(super) shared: Vec<IpNet>,
}

/// The interface that has `local`, as the peer at `remote` sees it.
pub(super) fn link(local: IpAddr, remote: IpAddr) -> Link {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Link::default() };
    let addresses: Vec<(String, IpNet)> =
        interfaces.filter_map(|interface| Some((interface.interface_name.clone(), net(&interface)?))).collect();
    let Some((name, _)) = addresses.iter().find(|(_, net)| net.addr() == local) else { return Link::default() };
    let here: Vec<IpNet> = addresses.iter().filter(|(other, _)| other == name).map(|(_, net)| *net).collect();
    let is_global = |address: &Ipv6Addr| !address.is_unicast_link_local() && !address.is_loopback();
    let v4 = here.iter().find_map(|net| match net.addr() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    let v6 = here.iter().find_map(|net| match net.addr() {
        IpAddr::V6(address) => Some(address).filter(is_global),
        IpAddr::V4(_) => None,
    });
    let connected = here.iter().any(|net| net.contains(&remote));
    let shared = here.iter().filter(|_| connected).map(IpNet::trunc).collect();
    Link {
        v4: if let IpAddr::V4(local) = local { Some(local) } else { v4 },
        v6: if let IpAddr::V6(local) = local { Some(local) } else { v6 },
        shared,
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
