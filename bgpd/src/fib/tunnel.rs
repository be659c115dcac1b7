//! Tunnel devices, their addresses and neighbours: what to do so that the kernel has what the configuration asks for.
//!
//! One collect-metadata device per protocol serves all remotes. A node always has the VXLAN device, and the IPIP device
//! where the kernel knows the protocol, so that it receives either kind at any moment of a change of encapsulation.

use super::offload;
use super::outer::overhead;
use super::resolve::LEAST_MTU_V6;
use super::route::Transport;
use super::uplinks::{self, uplinks};
use super::world::{Link, LinkKind, ReversePath, World};
use super::{Condition, Config, NodeAddresses, Pool, Problem};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use twill_crds::Protocol;
use twill_crds::names::{IPIP_DEVICE, VXLAN_DEVICE};

/// MTU of an uplink that cannot be found.
const DEFAULT_MTU: u32 = 1500;

/// One change of a device.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Make the VXLAN device, down.
    CreateVxlan {
        /// Its MAC address.
        mac: [u8; 6],
        /// Its UDP port.
        port: u16,
        /// Its MTU.
        mtu: u32,
    },
    /// Make the IPIP device, down.
    CreateIpip {
        /// Its MTU.
        mtu: u32,
    },
    /// Remove a device of our name that has wrong settings which cannot be changed.
    Remove(Transport, u32),
    /// Give it this MAC address.
    SetMac(u32, [u8; 6]),
    /// Give it this MTU.
    SetMtu(Transport, u32, u32),
    /// Set it up.
    SetUp(Transport, u32),
    /// Turn its checksum offload off.
    DisableChecksumOffload {
        /// The device.
        transport: Transport,
        /// Why.
        why: &'static str,
    },
    /// Have a link, by index and name, take packets whose way back is another link.
    Loosen(u32, String),
    /// Give it an address.
    AddAddress(u32, IpAddr),
    /// Take an address away.
    RemoveAddress(u32, IpNet),
    /// Add or correct a permanent neighbour.
    AddNeighbour(u32, IpAddr, [u8; 6]),
    /// Take a neighbour away.
    RemoveNeighbour(u32, IpAddr),
}

impl Step {
    /// The device that a failure of this step leaves unusable.
    #[must_use]
    pub fn device(&self) -> Option<Transport> {
        match self {
            Self::CreateVxlan { .. } | Self::SetMac(..) => Some(Transport::Vxlan),
            Self::CreateIpip { .. } => Some(Transport::Ipip),
            Self::Remove(transport, _) | Self::SetMtu(transport, ..) | Self::SetUp(transport, _) => Some(*transport),
            _ => None,
        }
    }
}

/// How a device failed last, by device.
pub type Failures = BTreeMap<Transport, Failure>;

/// Why a device cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The kernel does not know the protocol.
    Unsupported,
    /// The UDP port is taken.
    PortInUse,
    /// Anything else, in the kernel's words.
    Other(String),
}

/// What must be there before routes refer to it.
#[must_use]
pub fn additions(config: &Config, world: &World, failures: &Failures) -> Vec<Step> {
    let mut steps = Vec::new();
    if config.alone || !config.install {
        return steps;
    }
    // Without an address of its own a node can be no end of a tunnel.
    let Some(mac) = config.local.vxlan_mac() else { return steps };
    let uplinks = uplinks(config, world);
    vxlan(config, world, &uplinks, mac, &mut steps);
    if config.local.v4.is_some() && failures.get(&Transport::Ipip) != Some(&Failure::Unsupported) {
        ipip(config, world, &uplinks, &mut steps);
    }
    let strict = loose(config, world, uplinks).filter(|link| link.reverse_path == ReversePath::Strict);
    steps.extend(strict.map(|link| Step::Loosen(link.index, link.name.clone())));
    for (link, address) in missing_addresses(config, world) {
        steps.push(Step::AddAddress(link, address));
    }
    if let Some(device) = vxlan_device(world) {
        for (address, mac) in neighbours(config) {
            if carries(device, address) && world.neighbours.get(&address) != Some(&mac) {
                steps.push(Step::AddNeighbour(device.index, address, mac));
            }
        }
    }
    steps
}

/// What may go once no route refers to it; nothing on the word of an incomplete configuration.
#[must_use]
pub fn removals(config: &Config, world: &World) -> Vec<Step> {
    let mut steps = Vec::new();
    if config.alone || !config.install || !config.complete {
        return steps;
    }
    for (link, net) in &world.addresses {
        let link_local = matches!(net.addr(), IpAddr::V6(address) if address.is_unicast_link_local());
        if world.is_tunnel(*link) && !link_local && !config.tunnel_sources.contains(&net.addr()) {
            steps.push(Step::RemoveAddress(*link, *net));
        }
    }
    if let Some(device) = vxlan_device(world) {
        let wanted = neighbours(config);
        let gone = world.neighbours.keys().filter(|address| !wanted.contains_key(address));
        steps.extend(gone.map(|address| Step::RemoveNeighbour(device.index, *address)));
    }
    steps
}

/// A sentence for each pool or device that cannot work.
#[must_use]
pub fn problems(config: &Config, world: &World, failures: &Failures) -> Vec<Problem> {
    let used = |protocol| config.pools.iter().filter(move |pool| pool.encapsulation.protocol == protocol);
    let mut texts = Vec::new();
    if config.alone || !config.install {
        return Vec::new();
    }
    for pool in used(Protocol::IPIP) {
        match failures.get(&Transport::Ipip) {
            None => {}
            Some(Failure::Unsupported) => texts.push(format!(
                "IPPool {}: encapsulation.protocol is IPIP, which this kernel lacks (CONFIG_NET_IPIP); set it to VXLAN",
                pool.name
            )),
            Some(Failure::PortInUse) => {
                texts.push(format!("IPPool {}: device {IPIP_DEVICE} cannot be used", pool.name))
            }
            Some(Failure::Other(text)) => texts.push(format!("IPPool {}: device {IPIP_DEVICE}: {text}", pool.name)),
        }
    }
    if used(Protocol::VXLAN).next().is_some() {
        match failures.get(&Transport::Vxlan) {
            None => {}
            Some(Failure::PortInUse) => texts.push(port_conflict(config.vxlan_port, world)),
            Some(Failure::Unsupported) => texts.push(format!(
                "device {VXLAN_DEVICE}: this kernel lacks VXLAN (CONFIG_VXLAN); set encapsulation.protocol of the pools to None or IPIP"
            )),
            Some(Failure::Other(text)) => texts.push(format!("device {VXLAN_DEVICE}: {text}")),
        }
    }
    let six = needs_ipv6(config);
    let narrow = vxlan_device(world).filter(|link| link.mtu < LEAST_MTU_V6);
    texts.extend(six.zip(narrow).map(|(pool, Link { mtu, .. })| {
        format!(
            "IPPool {name}: the uplink's MTU leaves {mtu} inside of VXLAN, and IPv6 needs {LEAST_MTU_V6}; give the uplink an MTU of {} or more, or set \
             encapsulation.protocol of IPPool {name} to None",
            LEAST_MTU_V6 + overhead(Transport::Vxlan, config.local.v4.is_none()),
            name = pool.name,
        )
    }));
    texts.into_iter().map(|text| Problem { condition: Condition::Tunnel, text }).collect()
}

/// A pool that needs IPv6 on the VXLAN device: it is of IPv6, or some other node is named by a link-local address in routes of IPv4, too.
pub(super) fn needs_ipv6(config: &Config) -> Option<&Pool> {
    let by_v6 = |node: &NodeAddresses| matches!(config.local.ends(node, Transport::Vxlan), Some((IpAddr::V6(_), _)));
    let all = config.nodes.iter().any(by_v6);
    let mut vxlan = config.pools.iter().filter(|pool| pool.encapsulation.protocol == Protocol::VXLAN);
    vxlan.find(|pool| all || matches!(pool.cidr, IpNet::V6(_)))
}

fn port_conflict(port: u16, world: &World) -> String {
    let other = world.links.values().find(|link| {
        link.name != VXLAN_DEVICE && matches!(link.kind, LinkKind::Vxlan { port: theirs, .. } if theirs == port)
    });
    match other {
        Some(link) => format!(
            "device {VXLAN_DEVICE}: UDP port {port} belongs to the VXLAN device {}; remove that device, or set vxlanPort of \
             BGPConfiguration default to a free port",
            link.name
        ),
        None => format!(
            "device {VXLAN_DEVICE}: UDP port {port} belongs to another program; end it, or set vxlanPort of \
             BGPConfiguration default to a free port"
        ),
    }
}

fn vxlan(config: &Config, world: &World, uplinks: &BTreeSet<u32>, mac: [u8; 6], steps: &mut Vec<Step>) {
    let mtu = device_mtu(config, world, uplinks, Transport::Vxlan);
    let create = Step::CreateVxlan { mac, port: config.vxlan_port, mtu };
    let right = LinkKind::Vxlan { external: true, learning: false, port: config.vxlan_port };
    match world.link(VXLAN_DEVICE) {
        None => steps.push(create),
        Some(link) if link.kind != right => steps.extend([Step::Remove(Transport::Vxlan, link.index), create]),
        Some(link) => {
            if link.mac != Some(mac) {
                steps.push(Step::SetMac(link.index, mac));
            }
            adjust(link, Transport::Vxlan, mtu, steps);
            steps.extend(checksums(config, world, uplinks, link, Transport::Vxlan));
        }
    }
}

fn ipip(config: &Config, world: &World, uplinks: &BTreeSet<u32>, steps: &mut Vec<Step>) {
    let mtu = device_mtu(config, world, uplinks, Transport::Ipip);
    match world.link(IPIP_DEVICE) {
        None => steps.push(Step::CreateIpip { mtu }),
        Some(link) if link.kind != (LinkKind::Ipip { external: true }) => {
            steps.extend([Step::Remove(Transport::Ipip, link.index), Step::CreateIpip { mtu }]);
        }
        Some(link) => {
            adjust(link, Transport::Ipip, mtu, steps);
            steps.extend(checksums(config, world, uplinks, link, Transport::Ipip));
        }
    }
}

fn checksums(
    config: &Config,
    world: &World,
    uplinks: &BTreeSet<u32>,
    link: &Link,
    transport: Transport,
) -> Option<Step> {
    let why = offload::unwanted(config, world, uplinks, transport).filter(|_| link.checksum_offload == Some(true))?;
    Some(Step::DisableChecksumOffload { transport, why })
}

fn adjust(link: &Link, transport: Transport, mtu: u32, steps: &mut Vec<Step>) {
    if link.mtu != mtu {
        steps.push(Step::SetMtu(transport, link.index, mtu));
    }
    if !link.up {
        steps.push(Step::SetUp(transport, link.index));
    }
}

fn device_mtu(config: &Config, world: &World, uplinks: &BTreeSet<u32>, transport: Transport) -> u32 {
    let mtu = uplinks::mtu(config, world, uplinks).unwrap_or(DEFAULT_MTU);
    mtu - overhead(transport, config.local.v4.is_none()).min(mtu)
}

/// Links by which packets of pods come, and that must not drop those whose way back is another one. Nodes hear of a change of encapsulation one
/// after the other, and a pod that speaks to a node beyond the subnet does so plainly, while what it hears comes through the tunnel. Uplinks are the
/// machine's: they are let be while this node sends nothing through a tunnel, and so has no way back but the one that packets come by.
pub(crate) fn loose<'a>(
    config: &Config,
    world: &'a World,
    uplinks: BTreeSet<u32>,
) -> impl Iterator<Item = &'a Link> + use<'a> {
    let encapsulates = |pool: &Pool| pool.encapsulation.protocol != Protocol::None && matches!(pool.cidr, IpNet::V4(_));
    let is_end = config.local.outer().is_some() && config.install && !config.alone;
    let uplinks = if is_end && config.pools.iter().any(encapsulates) { uplinks } else { BTreeSet::new() };
    let tunnels = [VXLAN_DEVICE, IPIP_DEVICE].into_iter().filter(move |_| is_end);
    tunnels.filter_map(|name| world.link(name)).chain(uplinks.into_iter().filter_map(|index| world.links.get(&index)))
}

fn vxlan_device(world: &World) -> Option<&Link> {
    world.link(VXLAN_DEVICE)
}

fn missing_addresses<'a>(config: &'a Config, world: &'a World) -> impl Iterator<Item = (u32, IpAddr)> + 'a {
    let up = |name| world.link(name).filter(|link| link.up);
    [VXLAN_DEVICE, IPIP_DEVICE].into_iter().filter_map(up).flat_map(move |link| {
        let wanted = config.tunnel_sources.iter().filter(move |address| carries(link, **address));
        let wanted = wanted.map(move |address| (link.index, *address));
        wanted.filter(|(link, address)| !world.addresses.contains(&(*link, IpNet::from(*address))))
    })
}

/// Whether packets of an address's family fit through a device at all.
fn carries(link: &Link, address: IpAddr) -> bool {
    address.is_ipv4() || link.mtu >= LEAST_MTU_V6
}

/// The permanent neighbours of the VXLAN device: each node's IPv4 address, and its link-local stand-in for routes of IPv6 and between nodes that have nothing else.
fn neighbours(config: &Config) -> BTreeMap<IpAddr, [u8; 6]> {
    let named = config.nodes.iter().filter_map(|node| {
        let by_itself = node.v4.map(IpAddr::V4);
        Some(
            by_itself
                .into_iter()
                .chain([IpAddr::V6(node.vxlan_neighbour()?)])
                .zip(std::iter::repeat(node.vxlan_mac()?)),
        )
    });
    named.flatten().collect()
}
