//! What the wire carries by which this node's pods speak to others. In flow the addresses of nodes, out flows an MTU.

use super::link::KernelError;
use super::rtnl::Rtnl;
use super::{link, route};
use std::net::IpAddr;

/// Of so many other nodes the kernel is asked for its route: the uplinks of a rack's machine are few.
const ASKED: usize = 8;

/// The MTU of the link that has one of the node's `own` addresses. A routed address may stand on `lo`, whose MTU is nobody's: then that of the widest link on the way to `others`; along a
/// narrower one pods are told by ICMP.
///
/// # Errors
/// What the kernel said.
pub fn mtu(
    rtnl: &mut Rtnl,
    own: &[IpAddr],
    others: impl IntoIterator<Item = IpAddr>,
) -> Result<Option<u32>, KernelError> {
    let links = link::all(rtnl)?;
    let index = link::addresses(rtnl)?.into_iter().find(|(_, address)| own.contains(address)).map(|(index, _)| index);
    let Some(carrier) = links.iter().find(|link| Some(link.index) == index) else { return Ok(None) };
    if !carrier.loopback {
        return Ok(Some(carrier.mtu));
    }
    let mut ways = Vec::new();
    for other in others.into_iter().take(ASKED) {
        ways.extend(route::ways(rtnl, other)?);
    }
    let wires = links.iter().filter(|link| !link.loopback && ways.contains(&link.index));
    Ok(wires.map(|link| link.mtu).max())
}
