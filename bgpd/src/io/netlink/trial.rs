//! What a kernel has for our routes and tunnels, tried in the calling thread's network namespace: a fresh one, which goes afterwards.

use super::kernel::Kernel;
use crate::fib::Config;
use crate::fib::route::{Forward, Hop, Step, Transport, Tunnel};
use crate::fib::tunnel::{self, Failure};
use crate::fib::world::{LinkKind, World};
use ipnet::IpNet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use twill_crds::names::{METRIC_LEARNED, METRIC_UNREACHABLE, TUNNEL_TTL, VXLAN_PORT, VXLAN_VNI, vxlan_mac};

/// What the kernel said to each: none if it works, else its words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trial {
    /// The VXLAN device.
    pub vxlan: Option<String>,
    /// The IP-in-IP device.
    pub ipip: Option<String>,
    /// A route over several tunnels at once; where there is no VXLAN it was not tried.
    pub multipath: Option<String>,
    /// A route of IPv6.
    pub ipv6: Option<String>,
}

/// Blocks and addresses of nobody (RFC 5737, RFC 3849).
const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const REMOTES: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 2), Ipv4Addr::new(192, 0, 2, 3)];
const BLOCK: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 0));
const BLOCK_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0));
const MTU: u32 = 1400;

/// Makes the devices and routes that bgpd makes.
///
/// # Errors
/// The kernel's netlink does not answer.
pub fn trial() -> io::Result<Trial> {
    let mut kernel = Kernel::open()?;
    let config = Config::default();
    let vxlan = tunnel::Step::CreateVxlan { mac: vxlan_mac(LOCAL), port: VXLAN_PORT, mtu: MTU };
    let ipip = tunnel::Step::CreateIpip { mtu: MTU };
    let mut trial =
        Trial { vxlan: device(&mut kernel, &vxlan)?, ipip: device(&mut kernel, &ipip)?, ..Trial::default() };
    let (world, _) = kernel.read(&config)?;
    if let Some(link) = world.links.values().find(|link| matches!(link.kind, LinkKind::Vxlan { external: true, .. })) {
        trial.vxlan = trial.vxlan.or(device(&mut kernel, &tunnel::Step::SetUp(Transport::Vxlan, link.index))?);
        // With the first address a namespace gets its table of local addresses, without which no gateway is valid.
        kernel.device(&tunnel::Step::AddAddress(link.index, IpAddr::V4(LOCAL)))?;
        let hops = REMOTES.map(|remote| through(link.index, remote)).to_vec();
        let route = Forward::Unicast { hops, mtu: Some(MTU), source: None };
        trial.multipath = routed(&mut kernel, &config, BLOCK, METRIC_LEARNED, route)?;
    }
    trial.ipv6 = routed(&mut kernel, &config, BLOCK_V6, METRIC_UNREACHABLE, Forward::Unreachable)?;
    Ok(trial)
}

/// The UDP ports of VXLAN devices that are not ours, each with the device's name.
///
/// # Errors
/// The kernel's netlink does not answer.
pub fn vxlan_ports() -> io::Result<Vec<(String, u16)>> {
    let world: World = Kernel::open()?.read_devices(&World::default())?;
    let port = |kind: LinkKind| if let LinkKind::Vxlan { port, .. } = kind { Some(port) } else { None };
    let foreign = world.links.values().filter(|link| link.name != twill_crds::names::VXLAN_DEVICE);
    Ok(foreign.filter_map(|link| Some((link.name.clone(), port(link.kind)?))).collect())
}

fn through(link: u32, remote: Ipv4Addr) -> Hop {
    let remote = IpAddr::V4(remote);
    let tunnel = Tunnel { id: u64::from(VXLAN_VNI), source: IpAddr::V4(LOCAL), remote, ttl: TUNNEL_TTL };
    Hop { gateway: Some(remote), link, tunnel: Some(tunnel) }
}

fn device(kernel: &mut Kernel, step: &tunnel::Step) -> io::Result<Option<String>> {
    Ok(kernel.device(step)?.map(|failure| match failure {
        Failure::Unsupported => "this kernel lacks it".to_owned(),
        Failure::PortInUse => "its name or port is taken".to_owned(),
        Failure::Other(words) => words,
    }))
}

fn routed(kernel: &mut Kernel, config: &Config, to: IpAddr, metric: u32, way: Forward) -> io::Result<Option<String>> {
    let length = if to.is_ipv4() { 26 } else { 64 };
    let prefix = IpNet::new(to, length).map_err(io::Error::other)?;
    let step = [Step::Replace(prefix, metric, Arc::new(way))];
    Ok(kernel.write(&step, config, || ())?.into_iter().next().map(|(_, words)| words))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::io::netns::Netns;

    #[test]
    #[ignore = "needs root: make test"]
    fn what_this_kernel_has_is_found_and_what_it_has_not_is_told() {
        let fresh = Netns::new("trial");
        // What `ip` can make by itself is there.
        let has = |add: &str| Netns::new("trial-ip").succeeds(add);
        let vxlan = has("ip link add t0 type vxlan external dstport 4789");
        let ipip = has("ip link add t0 type ipip external");
        let trial = fresh.enter(trial).unwrap();
        assert_eq!((trial.vxlan.is_none(), trial.ipip.is_none()), (vxlan, ipip), "{trial:?}");
        assert_eq!((trial.multipath, trial.ipv6), (None, None));
        let route = fresh.ip("route show 198.51.100.0/26");
        assert!(route.contains("192.0.2.2") && route.contains("192.0.2.3"), "{route}");
    }

    #[test]
    #[ignore = "needs root: make test"]
    fn a_vxlan_device_of_others_is_seen_with_its_port() {
        let node = Netns::new("trial-others");
        node.ip("link add flannel.1 type vxlan id 1 dstport 8472 local 192.0.2.1");
        node.ip("link add twill-vxlan type vxlan external dstport 4789");
        assert_eq!(node.enter(vxlan_ports).unwrap(), [("flannel.1".to_owned(), 8472)]);
    }
}
