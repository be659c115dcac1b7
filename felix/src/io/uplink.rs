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
    /// Those that have one of the node's addresses, and those on the way to other nodes, by index; never `lo`.
    pub indices: BTreeSet<u32>,
    /// MTU of the link that has the node's address. A routed address may stand on `lo`, whose MTU is nobody's: then that of the widest link on the way to others; along a
    /// narrower one pods are told by ICMP.
    pub mtu: Option<u32>,
}

/// By which links the node with these `own` addresses speaks to `others`.
///
/// # Errors
/// What the kernel said.
pub fn read(rtnl: &mut Rtnl, own: &[IpAddr], others: impl IntoIterator<Item = IpAddr>) -> Result<Uplinks, KernelError> {
    let links = link::all(rtnl)?;
    let addresses = link::addresses(rtnl)?.into_iter();
    let carriers: Vec<u32> = addresses.filter(|(_, address)| own.contains(address)).map(|(index, _)| index).collect();
    let mut indices: BTreeSet<u32> = carriers.iter().copied().collect();
    for other in others.into_iter().take(ASKED) {
        indices.extend(route::ways(rtnl, other)?);
    }
    indices.retain(|index| links.iter().any(|link| link.index == *index && !link.loopback));
    let carrier = carriers.first().and_then(|first| links.iter().find(|link| link.index == *first));
    let wires = || links.iter().filter(|link| indices.contains(&link.index));
    let mtu = carrier.and_then(|link| if link.loopback { wires().map(|wire| wire.mtu).max() } else { Some(link.mtu) });
    Ok(Uplinks { indices, mtu })
}
