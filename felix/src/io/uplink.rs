//! The links by which this node's pods speak to others. In flow the addresses of nodes, out flow links and what they carry.

use super::link::KernelError;
use super::rtnl::Rtnl;
use super::{link, route};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Of so many other nodes the kernel is asked for its route: the uplinks of a rack's machine are few.
const ASKED: usize = 8;

/// The node's uplinks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uplinks {
    /// The one with the address by which tunnels name the node, and those on the way to other nodes, by index; never `lo`.
    pub indices: BTreeSet<u32>,
    /// MTU of the link that has the node's address. A routed address may stand on `lo`, whose MTU is nobody's: then that of the widest link on the way to others; along a
    /// narrower one pods are told by ICMP.
    pub mtu: Option<u32>,
}

/// The address by which tunnels name a node with these: its first of IPv4, else its first.
#[must_use]
pub fn outer(addresses: &[IpAddr]) -> Option<IpAddr> {
    addresses.iter().find(|address| address.is_ipv4()).or(addresses.first()).copied()
}

/// By which links the node with these `own` addresses speaks to `others`; those of another family than its outer address say nothing.
///
/// # Errors
/// What the kernel said.
pub fn read(rtnl: &mut Rtnl, own: &[IpAddr], others: impl IntoIterator<Item = IpAddr>) -> Result<Uplinks, KernelError> {
    let Some(outer) = outer(own) else { return Ok(Uplinks::default()) };
    let links = link::all(rtnl)?;
    let addresses = link::addresses(rtnl)?;
    let of_outer = addresses.iter().filter(|(_, address)| *address == outer);
    let mut indices: BTreeSet<u32> = of_outer.map(|(index, _)| *index).collect();
    for other in others.into_iter().filter(|other| other.is_ipv4() == outer.is_ipv4()).take(ASKED) {
        indices.extend(route::ways(rtnl, other)?);
    }
    indices.retain(|index| links.iter().any(|link| link.index == *index && !link.loopback));
    // The others may be on links that no packet between nodes takes.
    let by = |own: &IpAddr| addresses.iter().find(|(_, address)| address == own);
    let carrier = by(&outer).or_else(|| own.iter().find_map(by));
    let carrier = carrier.and_then(|(index, _)| links.iter().find(|link| link.index == *index));
    let wires = || links.iter().filter(|link| indices.contains(&link.index));
    let mtu = carrier.and_then(|link| if link.loopback { wires().map(|wire| wire.mtu).max() } else { Some(link.mtu) });
    Ok(Uplinks { indices, mtu })
}
