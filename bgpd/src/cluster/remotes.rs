//! Who the other side of a BGPPeer is, seen from this node.

use super::addresses::candidates;
use super::nodes::Nodes;
use super::objects::Objects;
use crate::fib::NodeAddresses;
use std::collections::BTreeMap;
use std::net::IpAddr;
use twill_crds::selector::{matches, matches_or_absent};
use twill_crds::{BGPPeer, Node};
use twill_datastore::Key;

/// The other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Remote {
    /// Whoever has this address.
    Address(IpAddr),
    /// The router on this interface.
    Interface(String),
    /// These nodes, by name, each at an address of a family that this one has, too.
    Nodes(BTreeMap<String, IpAddr>),
}

/// What the object means for the node `name`, whose addresses are `own`; none: it is not concerned, or is the remote itself.
///
/// # Errors
/// The object names nobody.
pub(super) fn remote(
    object: &BGPPeer,
    name: &str,
    nodes: &Nodes,
    own: &NodeAddresses,
    objects: &Objects,
) -> Result<Option<Remote>, String> {
    let (spec, remote) = (&object.spec, &object.spec.remote);
    let labels = |node: &str| {
        let node = objects.nodes.get(&Key::cluster(node));
        node.and_then(|node| node.metadata.labels.clone()).unwrap_or_default()
    };
    let mine = labels(name);
    let has = matches_or_absent(spec.node_selector.as_ref(), &mine);
    if let Some(peers) = &remote.node_selector {
        // A session has two ends, and both are nodes: the object means it for both.
        let is_peer = matches(peers, &mine);
        let chosen = nodes.others.iter().filter(|other| {
            let theirs = labels(&other.name);
            has && matches(peers, &theirs) || is_peer && matches_or_absent(spec.node_selector.as_ref(), &theirs)
        });
        let at = |other: &NodeAddresses| Some((other.name.clone(), common(other, own)?));
        let chosen: BTreeMap<_, _> = chosen.filter_map(at).collect();
        return Ok((has || is_peer)
            .then_some(Remote::Nodes(chosen))
            .filter(|remote| *remote != Remote::Nodes(BTreeMap::new())));
    }
    if !has {
        return Ok(None);
    }
    match (remote.address, &remote.interface) {
        // The object selects many nodes, and one of them is the remote itself.
        (Some(address), _) => {
            // Also by an address that it is not known by, or not any more.
            let listed = |node: &Node| candidates(node).contains(&address);
            let node = || objects.nodes.get(&Key::cluster(name));
            let is_self = own.all().any(|own| own == address) || node().is_some_and(|node| listed(node));
            Ok((!is_self).then_some(Remote::Address(address)))
        }
        (None, Some(interface)) => Ok(Some(Remote::Interface(interface.clone()))),
        (None, None) => Err("remote.address: is missing; write the peer's address".to_owned()),
    }
}

/// An address of the other node in a family that both have.
pub(super) fn common(other: &NodeAddresses, own: &NodeAddresses) -> Option<IpAddr> {
    let v4 = own.v4.is_some().then_some(other.v4).flatten().map(IpAddr::V4);
    let v6 = own.v6.is_some().then_some(other.v6).flatten().map(IpAddr::V6);
    v4.or(v6)
}
