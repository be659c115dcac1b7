//! Who has addresses by IPReservations: what their holders name, whatever the reservations say by now.

use super::Supply;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use twill_crds::ip_reservation::Holder;
use twill_crds::{IPReservation, Object};
use twill_datastore::Change;
use twill_ipam::routed::Around;
use twill_ipam::{Here, Ledger, Seen};

/// Names of the reservations whose holder names an address.
#[derive(Clone, Debug, Default)]
pub(super) struct Held(BTreeMap<IpAddr, BTreeSet<String>>);

impl Held {
    /// Takes in what became of reservations.
    pub(super) fn follow(&mut self, changes: &[Change<IPReservation>]) {
        for change in changes {
            for (address, name) in change.old.iter().flat_map(named) {
                if let Some(names) = self.0.get_mut(&address) {
                    names.remove(&name);
                    if names.is_empty() {
                        self.0.remove(&address);
                    }
                }
            }
            for (address, name) in change.new.iter().flat_map(named) {
                self.0.entry(address).or_default().insert(name);
            }
        }
    }
}

fn named(one: &Arc<IPReservation>) -> impl Iterator<Item = (IpAddr, String)> {
    let addresses = one.holder().into_iter().flat_map(|holder| &holder.addresses);
    addresses.map(|address| (*address, one.name().to_owned()))
}

impl Supply {
    /// Who has an address, as reservations say, each with the reservation's name; more than one if something is wrong.
    pub fn holders(&self, address: IpAddr) -> impl Iterator<Item = (&str, &Holder)> {
        let names = self.held.0.get(&address).into_iter().flatten();
        names.filter_map(|name| Some((name.as_str(), self.reservation(name)?.holder()?)))
    }

    /// What an attachment of this node has by a reservation, as blocks of its own: it lies in another's, or in none.
    #[must_use]
    pub fn kept_here(&self, ledger: &Ledger) -> Vec<Seen> {
        let here = self.held_here();
        Here { owner: &self.owner, ledger }.blocks(here.iter().filter_map(|one| one.holder()))
    }

    /// The block that an address lies in, if that is not this machine's.
    #[must_use]
    pub fn anothers_block(&self, address: IpAddr) -> Option<IpNet> {
        let blocks = self.blocks.iter().map(|(_, block)| block);
        blocks
            .filter(|block| block.spec.cidr.contains(&address))
            .find(|block| !self.owns(block))
            .map(|block| block.spec.cidr)
    }

    /// Whether a learned route by which an address is reached says that somebody has it.
    #[must_use]
    pub fn tells(&self, route: IpNet, address: IpAddr, holder: Option<&Holder>) -> bool {
        let mut blocks = self.blocks.iter().map(|(_, block)| &block.spec);
        let block = blocks.find(|block| block.cidr.contains(&address)).map(|block| (block.cidr, block.node.as_str()));
        let pool = self.accepted.iter().map(|pool| pool.spec.cidr).find(|pool| pool.contains(&address));
        Around { block, pool }.tells(route, address, holder)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::{block, pool, supply};
    use super::*;

    #[test]
    fn a_route_tells_of_who_has_an_address_unless_it_is_that_of_its_block_or_a_summary() {
        let supply = supply(vec![pool("p4", "10.42.0.0/16")], vec![block("10.42.2.0/26", "n2")]);
        let tells = |route: &str, address: &str, node: Option<&str>| {
            let holder = node.map(|node| Holder { node: node.into(), ..Holder::default() });
            supply.tells(route.parse().unwrap(), address.parse().unwrap(), holder.as_ref())
        };
        assert!(tells("10.42.2.7/32", "10.42.2.7", None));
        assert!(!tells("10.42.2.0/26", "10.42.2.7", None), "the node has a block, not the address");
        assert!(tells("10.42.2.0/26", "10.42.2.7", Some("n2")) && !tells("10.42.2.0/26", "10.42.2.7", Some("n3")));
        assert!(tells("10.42.0.0/16", "10.42.2.7", Some("n2")), "a fabric may tell of its block in a summary");
        assert!(tells("10.42.2.0/25", "10.42.2.7", None), "of a block that there was before");
        assert!(tells("10.42.9.0/26", "10.42.9.9", None), "of a block that was freed");
        assert!(!tells("10.42.0.0/16", "10.42.9.9", None) && !tells("0.0.0.0/0", "10.42.9.9", Some("n2")));
    }
}
