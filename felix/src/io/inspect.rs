//! An attachment in the kernel against what it is meant to be. In flow its plan and the pod's network namespace, out flow sentences; nothing
//! is changed. What later plugins of a list may have changed (the MTU, more addresses and routes) is no difference.

use super::link::{self, KernelError, Trying};
use super::netns::Netns;
use super::route;
use super::rtnl::Rtnl;
use super::shaping;
use super::sysctl;
use crate::workload::{HOST_MAC, Mac, Plan};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::net::IpAddr;
use twill_crds::names::{GATEWAY_V4, GATEWAY_V6};

/// What differs, one sentence each.
///
/// # Errors
/// The kernel could not be asked.
pub fn differences(plan: &Plan, netns: &Netns) -> Result<Vec<String>, KernelError> {
    let rtnl = &mut Rtnl::open().trying(|| "opening a netlink socket".into())?;
    let mut found = of_host(rtnl, plan)?;
    let inside = netns.run(|| of_pod(plan)).trying(|| "entering the pod's network namespace".to_owned());
    found.extend(inside.and_then(|inner| inner)?);
    Ok(found)
}

fn of_host(rtnl: &mut Rtnl, plan: &Plan) -> Result<Vec<String>, KernelError> {
    let name = &plan.host_name;
    let Some(link) = link::by_name(rtnl, name)? else {
        return Ok(vec![format!("interface {name} is missing on the node")]);
    };
    let mut found = Vec::new();
    let mut expect = |holds: bool, sentence: String| {
        if !holds {
            found.push(sentence);
        }
    };
    expect(link.up, format!("interface {name} is down"));
    expect(link.master.is_none(), format!("interface {name} is a part of another interface, which takes its packets"));
    expect(
        link.alias == plan.alias,
        format!("interface {name} has the alias {:?} and not {:?}", link.alias, plan.alias),
    );
    expect(link.mac == Some(HOST_MAC), format!("interface {name} has not the MAC address {}", text(HOST_MAC)));
    let (routes, behind) = (route::locals(rtnl)?, link::permanent_neighbours(rtnl)?);
    for address in &plan.addresses {
        expect(routes.get(address) == Some(&link.index), format!("the route of {address} to {name} is missing"));
        let neighbour = behind.contains(&(link.index, *address));
        expect(neighbour, format!("the neighbour {address} of {name} is missing"));
    }
    let limits = shaping::Found::read(rtnl)?.difference(rtnl, link.index, name, plan.bandwidth.as_ref())?;
    found.extend(limits.map(|what| format!("{what} is not as it was asked for")));
    found.extend(sysctl::workload_differs(name, &link.settings, plan.ipv6()));
    Ok(found)
}

/// Inside the pod's namespace.
fn of_pod(plan: &Plan) -> Result<Vec<String>, KernelError> {
    let name = &plan.pod_name;
    let rtnl = &mut Rtnl::open().trying(|| "opening a netlink socket in the pod".into())?;
    let Some(link) = link::by_name(rtnl, name)? else {
        return Ok(vec![format!("interface {name} is missing in the pod")]);
    };
    let mut found = Vec::new();
    let mut expect = |holds: bool, sentence: String| {
        if !holds {
            found.push(sentence);
        }
    };
    expect(link.up, format!("{name} in the pod is down"));
    let now = link.mac.map(text).unwrap_or_default();
    let meant = text(plan.pod_mac);
    let sentence = format!(
        "{name} in the pod has the MAC address {now}, and the node sends to {meant}; ask for another by runtimeConfig.mac"
    );
    expect(now == meant, sentence);
    let (addresses, behind) = (link::addresses(rtnl)?, link::permanent_neighbours(rtnl)?);
    for address in &plan.addresses {
        let gateway = if address.is_ipv4() { IpAddr::V4(GATEWAY_V4) } else { IpAddr::V6(GATEWAY_V6) };
        expect(addresses.contains(&(link.index, *address)), format!("{name} in the pod has not {address}"));
        let neighbour = behind.contains(&(link.index, gateway));
        expect(neighbour, format!("the neighbour {gateway} is missing in the pod"));
        let sentence = format!("the default route via {gateway} is missing in the pod");
        expect(has_default(rtnl, gateway, link.index)?, sentence);
    }
    Ok(found)
}

/// In whatever table: a later plugin may route by source.
fn has_default(rtnl: &mut Rtnl, gateway: IpAddr, index: u32) -> Result<bool, KernelError> {
    let mut filter = RouteMessage::default();
    filter.header.address_family = if gateway.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let answers = rtnl.dump(RouteNetlinkMessage::GetRoute(filter)).trying(|| "listing the pod's routes".into())?;
    let by_way_of = match gateway {
        IpAddr::V4(v4) => RouteAttribute::Gateway(RouteAddress::Inet(v4)),
        IpAddr::V6(v6) => RouteAttribute::Gateway(RouteAddress::Inet6(v6)),
    };
    Ok(answers.iter().any(|answer| {
        matches!(answer, RouteNetlinkMessage::NewRoute(route) if route.header.destination_prefix_length == 0
            && route.attributes.contains(&by_way_of) && route.attributes.contains(&RouteAttribute::Oif(index)))
    }))
}

fn text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
