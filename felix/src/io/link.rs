//! Workload interfaces: a veth pair with one end in the pod.

mod pod;

use crate::io::netns::Netns;
use crate::io::rtnl::Rtnl;
use crate::io::{shaping, sysctl};
use crate::workload::{HOST_MAC, Mac, Plan};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsRawFd;
use twill_crds::names::GATEWAY_V6;

/// A change that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct KernelError {
    /// What was tried.
    pub what: String,
    /// What the kernel said.
    pub source: io::Error,
}

/// Adds to an error what was tried.
pub(crate) trait Trying<T> {
    /// `what` completes "… failed".
    fn trying(self, what: impl FnOnce() -> String) -> Result<T, KernelError>;
}

impl<T> Trying<T> for io::Result<T> {
    fn trying(self, what: impl FnOnce() -> String) -> Result<T, KernelError> {
        self.map_err(|source| KernelError { what: what(), source })
    }
}

/// A link as far as felix cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its alias; empty if it has none.
    pub alias: String,
    /// Its MAC address.
    pub mac: Option<Mac>,
    /// Its MTU.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether it is an end of a veth pair.
    pub veth: bool,
    /// Whether it is `lo`.
    pub loopback: bool,
    /// Index of the bridge, or whatever else, that it is a part of: that one has its packets then.
    pub master: Option<u32>,
    /// Those of its settings that a workload's interface needs.
    pub settings: sysctl::OfLink,
}

/// Makes the pair, configures the pod's end, then the host's, which comes up last. Returns the host side.
///
/// # Errors
/// What was tried and what the kernel said. The pair is gone again then.
pub fn create(rtnl: &mut Rtnl, plan: &Plan, netns: &Netns) -> Result<Link, KernelError> {
    let made = make_pair(rtnl, plan, netns).trying(|| {
        format!("creating interface {} with its peer {} in the pod's network namespace", plan.host_name, plan.pod_name)
    });
    made?;
    let configured = configure(rtnl, plan, netns);
    if configured.is_err() {
        let _ = delete(rtnl, &plan.host_name);
        let _ = shaping::remove(rtnl, &plan.host_name);
    }
    configured
}

/// The host side, if the pair is there as planned: up, with its alias, its peer in this namespace with all addresses.
///
/// # Errors
/// What the kernel said.
pub fn verify(rtnl: &mut Rtnl, plan: &Plan, netns: &Netns) -> Result<Option<Link>, KernelError> {
    let host = by_name(rtnl, &plan.host_name)?.filter(|link| link.up && link.alias == plan.alias);
    let Some(host) = host else { return Ok(None) };
    let inside = netns.run(|| {
        let rtnl = &mut Rtnl::open().trying(|| "opening a netlink socket in the pod".into())?;
        let Some(link) = by_name(rtnl, &plan.pod_name)?.filter(|link| link.up && link.mac == Some(plan.pod_mac)) else {
            return Ok(false);
        };
        let addresses = addresses(rtnl)?;
        Ok(plan.addresses.iter().all(|address| addresses.contains(&(link.index, *address))))
    });
    let whole = inside.trying(|| "entering the pod's network namespace".to_owned()).and_then(|inner| inner)?;
    Ok(whole.then_some(host))
}

/// All addresses with the index of their link.
///
/// # Errors
/// What the kernel said.
pub fn addresses(rtnl: &mut Rtnl) -> Result<Vec<(u32, IpAddr)>, KernelError> {
    let answers =
        rtnl.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default())).trying(|| "listing addresses".into())?;
    let mut found = Vec::new();
    for message in &answers {
        let RouteNetlinkMessage::NewAddress(message) = message else { continue };
        for attribute in &message.attributes {
            if let AddressAttribute::Local(ip) | AddressAttribute::Address(ip) = attribute {
                found.push((message.header.index, *ip));
            }
        }
    }
    Ok(found)
}

fn configure(rtnl: &mut Rtnl, plan: &Plan, netns: &Netns) -> Result<Link, KernelError> {
    netns
        .run(|| pod::configure(plan))
        .trying(|| "entering the pod's network namespace".to_owned())
        .and_then(|inner| inner)?;
    let host = configure_host(rtnl, plan)?;
    netns
        .run(|| pod::await_operational(&plan.pod_name))
        .trying(|| "entering the pod's network namespace".to_owned())
        .and_then(|inner| inner)?;
    set_alias(rtnl, plan)?;
    Ok(Link { alias: plan.alias.clone(), ..host })
}

/// Removes the host side, and with it the pod's. One that is not there is fine; tells whether it was.
///
/// # Errors
/// What the kernel said.
pub fn delete(rtnl: &mut Rtnl, host_name: &str) -> Result<bool, KernelError> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(host_name.to_owned()));
    match rtnl.change(RouteNetlinkMessage::DelLink(message), 0) {
        Ok(()) => Ok(true),
        Err(e) if absent(&e) => Ok(false),
        Err(e) => Err(e).trying(|| format!("deleting interface {host_name}")),
    }
}

/// The link of this name, if there is one.
///
/// # Errors
/// What the kernel said.
pub fn by_name(rtnl: &mut Rtnl, name: &str) -> Result<Option<Link>, KernelError> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    match rtnl.get(RouteNetlinkMessage::GetLink(message)) {
        Ok(answers) => Ok(answers.iter().find_map(link)),
        Err(e) if absent(&e) => Ok(None),
        Err(e) => Err(e).trying(|| format!("looking for interface {name}")),
    }
}

/// All links.
///
/// # Errors
/// What the kernel said.
pub fn all(rtnl: &mut Rtnl) -> Result<Vec<Link>, KernelError> {
    let mut message = LinkMessage::default();
    // Which are a good part of each answer.
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let answers = rtnl.dump(RouteNetlinkMessage::GetLink(message)).trying(|| "listing interfaces".into())?;
    Ok(answers.iter().filter_map(link).collect())
}

/// Sets a link administratively up.
///
/// # Errors
/// What the kernel said.
pub fn set_up(rtnl: &mut Rtnl, index: u32, name: &str) -> Result<(), KernelError> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    rtnl.change(RouteNetlinkMessage::SetLink(message), 0).trying(|| format!("setting interface {name} up"))
}

/// Sets a link administratively down.
///
/// # Errors
/// What the kernel said.
pub fn set_down(rtnl: &mut Rtnl, index: u32, name: &str) -> Result<(), KernelError> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.change_mask = LinkFlags::Up;
    rtnl.change(RouteNetlinkMessage::SetLink(message), 0).trying(|| format!("setting interface {name} down"))
}

/// Gives a link another name. Older kernels rename only what is down; then it is down afterwards.
///
/// # Errors
/// What the kernel said.
pub fn rename(rtnl: &mut Rtnl, index: u32, name: &str) -> Result<(), KernelError> {
    let renamed = |rtnl: &mut Rtnl| {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        rtnl.change(RouteNetlinkMessage::SetLink(message), 0)
    };
    let outcome = match renamed(rtnl) {
        Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {
            set_down(rtnl, index, name)?;
            renamed(rtnl)
        }
        outcome => outcome,
    };
    outcome.trying(|| format!("renaming a workload interface to {name}"))
}

/// Reads a link from a message, if it is about one.
pub(crate) fn link(message: &RouteNetlinkMessage) -> Option<Link> {
    let (RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message)) = message else { return None };
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        alias: String::new(),
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        veth: false,
        loopback: message.header.flags.contains(LinkFlags::Loopback),
        master: None,
        settings: sysctl::of_link(&message.attributes),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::IfAlias(alias) => link.alias.clone_from(alias),
            LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().ok(),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(master) => link.master = Some(*master).filter(|master| *master > 0),
            LinkAttribute::LinkInfo(infos) => link.veth = infos.contains(&LinkInfo::Kind(InfoKind::Veth)),
            _ => {}
        }
    }
    Some(link)
}

fn make_pair(rtnl: &mut Rtnl, plan: &Plan, netns: &Netns) -> io::Result<()> {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName(plan.pod_name.clone()),
        LinkAttribute::Address(plan.pod_mac.to_vec()),
        LinkAttribute::Mtu(plan.mtu),
        LinkAttribute::NetNsFd(netns.file().as_raw_fd()),
    ];
    let mut host = LinkMessage::default();
    host.attributes = vec![
        LinkAttribute::IfName(plan.host_name.clone()),
        LinkAttribute::Address(HOST_MAC.to_vec()),
        LinkAttribute::Mtu(plan.mtu),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    rtnl.change(RouteNetlinkMessage::NewLink(host), NLM_F_CREATE | NLM_F_EXCL)
}

fn configure_host(rtnl: &mut Rtnl, plan: &Plan) -> Result<Link, KernelError> {
    let name = &plan.host_name;
    let gone = || io::Error::from_raw_os_error(libc::ENODEV);
    let link = by_name(rtnl, name)?.ok_or_else(gone).trying(|| format!("looking for interface {name}"))?;
    sysctl::workload(name, plan.ipv6()).trying(|| format!("preparing interface {name}"))?;
    // Before the first packet.
    if plan.bandwidth.is_some() {
        shaping::apply(rtnl, link.index, name, plan.bandwidth.as_ref())?;
    }
    set_up(rtnl, link.index, name)?;
    if plan.ipv6() {
        add_gateway(rtnl, link.index, name)?;
    }
    for address in &plan.addresses {
        add_behind(rtnl, &link, *address, plan.pod_mac)?;
    }
    Ok(Link { up: true, settings: sysctl::of_workload(plan.ipv6()).map(Some), ..link })
}

/// Gives the host side the address that IPv6 pods route through.
///
/// # Errors
/// What the kernel said.
pub(super) fn add_gateway(rtnl: &mut Rtnl, index: u32, name: &str) -> Result<(), KernelError> {
    let added = add_address(rtnl, index, IpAddr::V6(GATEWAY_V6), 64);
    added.trying(|| format!("giving {GATEWAY_V6} to interface {name}"))
}

/// Tells the host side who is behind it, so that nobody is asked.
///
/// # Errors
/// What the kernel said.
pub(super) fn add_behind(rtnl: &mut Rtnl, link: &Link, address: IpAddr, mac: Mac) -> Result<(), KernelError> {
    let added = add_neighbour(rtnl, link.index, address, mac);
    added.trying(|| format!("adding the neighbour {address} of interface {}", link.name))
}

/// Takes a link out of what it is a part of.
///
/// # Errors
/// What the kernel said.
pub(super) fn take_out(rtnl: &mut Rtnl, link: &Link, of: &str) -> Result<(), KernelError> {
    let mut message = LinkMessage::default();
    message.header.index = link.index;
    message.attributes.push(LinkAttribute::Controller(0));
    let set = rtnl.change(RouteNetlinkMessage::SetLink(message), 0);
    set.trying(|| format!("taking interface {} out of {of}", link.name))
}

/// Gives a link another MAC address.
///
/// # Errors
/// What the kernel said.
pub(super) fn set_mac(rtnl: &mut Rtnl, link: &Link, mac: Mac) -> Result<(), KernelError> {
    let mut message = LinkMessage::default();
    message.header.index = link.index;
    message.attributes.push(LinkAttribute::Address(mac.to_vec()));
    let set = rtnl.change(RouteNetlinkMessage::SetLink(message), 0);
    set.trying(|| format!("giving interface {} its MAC address", link.name))
}

/// Last: whoever finds the alias, after a crash too, finds a whole interface.
pub(super) fn set_alias(rtnl: &mut Rtnl, plan: &Plan) -> Result<(), KernelError> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(plan.host_name.clone()));
    message.attributes.push(LinkAttribute::IfAlias(plan.alias.clone()));
    rtnl.change(RouteNetlinkMessage::SetLink(message), 0).trying(|| format!("naming interface {}", plan.host_name))
}

fn add_address(rtnl: &mut Rtnl, index: u32, address: IpAddr, len: u8) -> io::Result<()> {
    let mut message = AddressMessage::default();
    message.header.prefix_len = len;
    message.header.index = index;
    message.attributes.push(AddressAttribute::Address(address));
    message.attributes.push(AddressAttribute::Local(address));
    match address {
        IpAddr::V4(_) => message.header.family = AddressFamily::Inet,
        IpAddr::V6(v6) => {
            message.header.family = AddressFamily::Inet6;
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            if is_link_local(v6) {
                message.header.scope = AddressScope::Link;
            }
        }
    }
    rtnl.change(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
}

/// The addresses behind each interface that were written there by hand, as felix does for a workload: they are there from its first
/// moment to its last, whatever becomes of routes.
///
/// # Errors
/// What the kernel said.
pub fn permanent_neighbours(rtnl: &mut Rtnl) -> Result<BTreeSet<(u32, IpAddr)>, KernelError> {
    let mut found = BTreeSet::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = NeighbourMessage::default();
        message.header.family = family;
        let answers = rtnl.dump(RouteNetlinkMessage::GetNeighbour(message)).trying(|| "listing neighbours".into())?;
        for answer in answers {
            let RouteNetlinkMessage::NewNeighbour(neighbour) = answer else { continue };
            if neighbour.header.state != NeighbourState::Permanent {
                continue;
            }
            let address = neighbour.attributes.iter().find_map(|attribute| match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
                _ => None,
            });
            found.extend(address.map(|address| (neighbour.header.ifindex, address)));
        }
    }
    Ok(found)
}

fn add_neighbour(rtnl: &mut Rtnl, index: u32, address: IpAddr, mac: Mac) -> io::Result<()> {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    let (family, destination) = match address {
        IpAddr::V4(v4) => (AddressFamily::Inet, NeighbourAddress::Inet(v4)),
        IpAddr::V6(v6) => (AddressFamily::Inet6, NeighbourAddress::Inet6(v6)),
    };
    message.header.family = family;
    message.attributes =
        vec![NeighbourAttribute::Destination(destination), NeighbourAttribute::LinkLayerAddress(mac.to_vec())];
    rtnl.change(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
}

fn is_link_local(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

fn absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT | libc::ESRCH))
}
