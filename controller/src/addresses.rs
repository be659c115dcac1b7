//! By which addresses nodes are known that list several of one family. In flow what Nodes list and what nodes say that they have chosen; out flows what is told to all of them.

use crate::world::World;
use std::collections::BTreeMap;
use std::net::IpAddr;
use twill_crds::bgp::BGPConfigurationStatus;

/// What the nodes that have a choice have chosen. One that says nothing now, because its NodeNetwork is gone say, has not chosen otherwise than before.
#[must_use]
pub(crate) fn chosen(world: &World, stored: Option<&BGPConfigurationStatus>) -> BTreeMap<String, Vec<IpAddr>> {
    let mut all = BTreeMap::new();
    for (key, node) in world.nodes.iter().filter(|(_, node)| !node.choice.is_empty()) {
        let says = world.networks.get(key).map(|network| network.bgp.addresses.as_slice());
        let before = || stored.map(|status| status.chosen_by(&key.name)).unwrap_or_default();
        let chosen = says.filter(|says| !says.is_empty()).unwrap_or_else(before).iter().copied();
        let listed: Vec<IpAddr> = chosen.filter(|address| node.choice.contains(address)).collect();
        if !listed.is_empty() {
            all.insert(key.name.clone(), listed);
        }
    }
    all
}

/// Whether a node that had chosen has chosen otherwise, for which others wait.
#[must_use]
pub(crate) fn moved(old: &BGPConfigurationStatus, new: &BGPConfigurationStatus) -> bool {
    let is_other = |(node, old): (&String, &Vec<IpAddr>)| new.node_addresses.get(node).is_some_and(|new| new != old);
    old.node_addresses.iter().any(is_other)
}
