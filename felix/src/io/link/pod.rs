//! The pod's end of a workload's interface, from inside the pod's network namespace.

use super::{KernelError, Trying};
use crate::io::rtnl::Rtnl;
use crate::io::sysctl;
use crate::workload::{HOST_MAC, Plan};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::link::{LinkAttribute, LinkMessage, State};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::io;
use std::net::IpAddr;
use std::time::Duration;
use twill_crds::names::{GATEWAY_V4, GATEWAY_V6};

/// Metric of the routes of an interface where another one has them already; its index is added. Behind the kernel's own default of IPv6.
const BEHIND: u32 = 2048;

/// Gives it its addresses, the gateways' neighbours and the default routes.
///
/// # Errors
/// What was tried and what the kernel said.
pub(super) fn configure(plan: &Plan) -> Result<(), KernelError> {
    let name = &plan.pod_name;
    let rtnl = &mut Rtnl::open().trying(|| "opening a netlink socket in the pod".into())?;
    let gone = || io::Error::from_raw_os_error(libc::ENODEV);
    let link = super::by_name(rtnl, name)?.ok_or_else(gone).trying(|| format!("looking for {name} in the pod"))?;
    sysctl::pod(name, plan.ipv6()).trying(|| format!("preparing {name} in the pod"))?;
    super::set_up(rtnl, link.index, name)?;
    for address in &plan.addresses {
        let (gateway, len) = match address {
            IpAddr::V4(_) => (IpAddr::V4(GATEWAY_V4), 32),
            IpAddr::V6(_) => (IpAddr::V6(GATEWAY_V6), 128),
        };
        super::add_address(rtnl, link.index, *address, len)
            .trying(|| format!("giving {address} to {name} in the pod"))?;
        super::add_neighbour(rtnl, link.index, gateway, HOST_MAC)
            .trying(|| format!("adding the neighbour {gateway} in the pod"))?;
        add_default(rtnl, link.index, gateway)
            .trying(|| format!("adding the default route via {gateway} in the pod"))?;
    }
    Ok(())
}

/// Default route through a gateway on the link. IPv4 first needs to know that the gateway is on the link.
fn add_default(rtnl: &mut Rtnl, index: u32, gateway: IpAddr) -> io::Result<()> {
    let (family, address) = match gateway {
        IpAddr::V4(v4) => (AddressFamily::Inet, RouteAddress::Inet(v4)),
        IpAddr::V6(v6) => (AddressFamily::Inet6, RouteAddress::Inet6(v6)),
    };
    if gateway.is_ipv4() {
        let mut message = route(family, 32, RouteScope::Link, index);
        message.attributes.push(RouteAttribute::Destination(address.clone()));
        add_route(rtnl, message, index)?;
    }
    let mut message = route(family, 0, RouteScope::Universe, index);
    message.attributes.push(RouteAttribute::Gateway(address));
    add_route(rtnl, message, index)
}

/// A container may have several interfaces, of ours or of other plugins. What the first has is not taken from it; who routes by source (the plugin `sbr`)
/// finds the others' routes behind it.
fn add_route(rtnl: &mut Rtnl, mut message: RouteMessage, index: u32) -> io::Result<()> {
    let add = |rtnl: &mut Rtnl, message| rtnl.change(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL);
    match add(rtnl, message.clone()) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
            message.attributes.push(RouteAttribute::Priority(BEHIND.saturating_add(index)));
            add(rtnl, message)
        }
        outcome => outcome,
    }
}

fn route(family: AddressFamily, len: u8, scope: RouteScope, index: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.destination_prefix_length = len;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = scope;
    message.header.kind = RouteType::Unicast;
    message.attributes.push(RouteAttribute::Oif(index));
    message
}

/// Waits until the pod's end passes packets. It came up before its peer, so the kernel starts its queue from a worker (link
/// watch, `net/core/link_watch.c`) some time after the peer is up too, and drops what is sent before.
///
/// # Errors
/// It does not, or the kernel could not be asked.
pub(super) fn await_operational(name: &str) -> Result<(), KernelError> {
    const LOOKS: u32 = 5000;
    let rtnl = &mut Rtnl::open().trying(|| "opening a netlink socket in the pod".into())?;
    for _ in 0..LOOKS {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let answers = rtnl
            .get(RouteNetlinkMessage::GetLink(message))
            .trying(|| format!("looking whether {name} in the pod is operational"))?;
        let operational = answers.iter().any(|answer| {
            matches!(answer, RouteNetlinkMessage::NewLink(link)
                if link.attributes.contains(&LinkAttribute::OperState(State::Up)))
        });
        if operational {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(io::Error::from(io::ErrorKind::TimedOut)).trying(|| format!("waiting for {name} in the pod to be operational"))
}
