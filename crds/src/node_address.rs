//! By which of its InternalIPs a node is known: to its peers, as an end of tunnels, and as a next hop.
//!
//! A Node may list several of one family. Which of them is on a link that other machines reach, the node alone can say: it chooses one, and says so in its
//! NodeNetwork (`status.bgp.addresses`). The controller collects what nodes with several have chosen in `BGPConfiguration.status.nodeAddresses`, which all nodes read, and the
//! node itself as well: so all of them take another address at the same time.

use crate::Node;
use crate::bgp::BGPConfigurationStatus;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A Node's InternalIPs: first those of `chosen`, in that order, then those that other machines may know, then the others; apart from that, in the order of the Node's status. The
/// node is known by the first one of each family. What was chosen and is in the status no more is left out.
#[must_use]
pub fn internal_ips(node: &Node, chosen: &[IpAddr]) -> Vec<IpAddr> {
    let all = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let internal = all.filter(|address| address.type_ == "InternalIP");
    let mut found: Vec<IpAddr> = internal.filter_map(|address| address.address.parse().ok()).collect();
    let place = |address: &IpAddr| chosen.iter().position(|one| one == address).unwrap_or(chosen.len());
    found.sort_by_key(|address| (place(address), !may_be_known(*address)));
    found
}

/// Whether other machines may know an address: one of this machine or its link alone, as a cache of names on each node listens on, they do not.
#[must_use]
pub fn may_be_known(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let no_host = address.is_unspecified() || address.is_multicast() || address.is_broadcast();
            !(no_host || address.is_loopback() || address.is_link_local())
        }
        IpAddr::V6(address) => {
            let no_host = address.is_unspecified() || address.is_multicast();
            !(no_host || address.is_loopback() || address.is_unicast_link_local())
        }
    }
}

/// Whether several addresses are of one family, so that there is something to choose.
#[must_use]
pub fn has_choice(addresses: &[IpAddr]) -> bool {
    let v6 = addresses.iter().filter(|address| address.is_ipv6()).count();
    v6 > 1 || addresses.len() - v6 > 1
}

/// The first address of each family.
#[must_use]
pub fn first_of_each(addresses: &[IpAddr]) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    let v4 = |address: &IpAddr| if let IpAddr::V4(address) = address { Some(*address) } else { None };
    let v6 = |address: &IpAddr| if let IpAddr::V6(address) = address { Some(*address) } else { None };
    (addresses.iter().find_map(v4), addresses.iter().find_map(v6))
}

impl BGPConfigurationStatus {
    /// What a node has chosen, as far as all nodes know.
    #[must_use]
    pub fn chosen_by(&self, node: &str) -> &[IpAddr] {
        self.node_addresses.get(node).map(Vec::as_slice).unwrap_or_default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ips(all: &[&str]) -> Vec<IpAddr> {
        all.iter().map(|one| one.parse().unwrap()).collect()
    }

    #[test]
    fn what_is_chosen_goes_first_then_what_others_may_know_in_the_order_of_the_status() {
        let all = ["169.254.20.10", "192.0.2.2", "fd00::2", "192.0.2.1", "fe80::1", "fd00::1"];
        let mut addresses: Vec<_> = all.iter().map(|one| json!({"type": "InternalIP", "address": one})).collect();
        addresses.push(json!({"type": "ExternalIP", "address": "198.51.100.1"}));
        addresses.push(json!({"type": "InternalIP", "address": "n1"}));
        let node: Node =
            serde_json::from_value(json!({"metadata": {"name": "n1"}, "status": {"addresses": addresses}})).unwrap();
        let by_default = ["192.0.2.2", "fd00::2", "192.0.2.1", "fd00::1", "169.254.20.10", "fe80::1"];
        assert_eq!(internal_ips(&node, &[]), ips(&by_default));
        let chosen = internal_ips(&node, &ips(&["fd00::1", "192.0.2.9", "192.0.2.1"]));
        assert_eq!(chosen[..4], ips(&["fd00::1", "192.0.2.1", "192.0.2.2", "fd00::2"]));
        assert_eq!(chosen.len(), all.len(), "192.0.2.9 is none of its addresses");
        let (v4, v6) = first_of_each(&chosen);
        assert_eq!((v4.unwrap().to_string(), v6.unwrap().to_string()), ("192.0.2.1".into(), "fd00::1".into()));
    }
}
