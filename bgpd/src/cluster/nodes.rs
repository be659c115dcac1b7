//! Which nodes there are and which of their addresses count.

use super::identifier::identifier;
use super::objects::Objects;
use crate::fib::NodeAddresses;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock};
use twill_crds::bgp::NodeAsn;
use twill_crds::{Node, Object};

/// The nodes of the cluster as routing sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Nodes {
    /// This node; none while its Node does not exist or is refused.
    pub(super) own: Option<NodeAddresses>,
    /// BGP Identifier of this node.
    pub(super) identifier: Option<Ipv4Addr>,
    /// The AS of this node; none while its label does not say one.
    pub(super) asn: Option<u32>,
    /// The others that have an address, by name.
    pub(super) others: Vec<NodeAddresses>,
    /// Their AS, by name.
    pub(super) asns: BTreeMap<String, u32>,
    /// What is wrong with this node, one sentence each.
    pub(super) own_problems: Vec<String>,
    /// What is wrong with others.
    pub(super) problems: Vec<String>,
}

/// The nodes as they were read last. In a large cluster reading them is most of what an event costs, and few events are about nodes.
pub(super) type Known = OnceLock<(String, NodeAsn, Arc<Nodes>)>;

/// The nodes, seen from the one named `own`, from what is known of them.
pub(super) fn nodes(own: &str, objects: &Objects, asn: &NodeAsn) -> Arc<Nodes> {
    let read = || Arc::new(read(own, objects, asn));
    let (of, by, nodes) = objects.known_nodes.get_or_init(|| (own.to_owned(), asn.clone(), read()));
    if (of.as_str(), by) == (own, asn) { Arc::clone(nodes) } else { read() }
}

/// Of two that claim one address the older keeps it, and the other is left out
/// until it has another. One whose AS is not known has no sessions.
fn read(own: &str, objects: &Objects, asn: &NodeAsn) -> Nodes {
    let mut by_age: Vec<&Node> = objects.nodes.iter().map(|(_, node)| node.as_ref()).collect();
    by_age.sort_by_key(|node| {
        let time = node.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (time.is_none(), time, node.name())
    });
    let mut owners: BTreeMap<IpAddr, &str> = BTreeMap::new();
    let (mut result, mut older) = (Nodes::default(), 0);
    for node in by_age {
        let found = objects.addresses.of(node.name());
        let taken = found.all().find_map(|address| owners.get(&address).map(|owner| (address, *owner)));
        let problems = if node.name() == own { &mut result.own_problems } else { &mut result.problems };
        if let Some((address, owner)) = taken {
            problems.push(format!(
                "Node {}: status.addresses: InternalIP {address} is that of Node {owner} already, so {} takes no part in \
                 routing; give one of them another address",
                node.name(),
                node.name()
            ));
            continue;
        }
        let number = asn.of(node.metadata.labels.as_ref());
        if let Err(problem) = &number {
            problems.push(format!("Node {}: {problem}", node.name()));
        }
        owners.extend(found.all().map(|address| (address, node.name())));
        if found.all().next().is_none() {
            problems.push(format!(
                "Node {}: status.addresses: there is no InternalIP, so {} takes no part in routing; add one",
                node.name(),
                node.name()
            ));
        } else if node.name() == own {
            result.own = Some(found);
            result.asn = number.ok();
            older = result.others.len();
        } else {
            result.asns.extend(number.ok().map(|number| (found.name.clone(), number)));
            result.others.push(found);
        }
    }
    if result.own.is_none() && result.own_problems.is_empty() {
        result
            .own_problems
            .push(format!("Node {own} does not exist, so bgpd has no address; create it with an InternalIP"));
    }
    result.identifier = result.own.as_ref().map(|own| identifier(own, &result.others, &result.others[..older]));
    result.others.sort_by(|a, b| a.name.cmp(&b.name));
    result.problems.sort();
    result
}
