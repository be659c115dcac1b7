//! natOutgoing: what a pod sends to an address that no pool has carries its node's address from there on, and who judges it elsewhere sees the
//! node. (What it is that a Service's proxy hides is another matter: see `service`.)

use super::party::Side;
use super::universe::Universe;
use crate::model::{Pod, Ranges};
use std::net::IpAddr;
use twill_crds::IPPool;

/// Addresses of pools, as the table has them.
#[derive(Clone, Debug, Default)]
pub(super) struct Pools {
    pub(super) all: Ranges,
    /// Those with natOutgoing.
    nat: Ranges,
}

impl Pools {
    pub(super) fn of(pools: &[&IPPool]) -> Self {
        let ranges = |nat_only: bool| {
            let chosen = pools.iter().filter(|pool| !nat_only || pool.spec.nat_outgoing);
            Ranges::union(&chosen.map(|pool| Ranges::network(pool.spec.cidr)).collect::<Vec<_>>())
        };
        Self { all: ranges(false), nat: ranges(true) }
    }
}

impl Universe {
    /// As whom everybody beyond its node sees a pod that sends something `to` a node or another pod; none: as itself.
    pub(super) fn seen_beyond(&self, src: &Side, to: &Side) -> Option<Side> {
        let Side::Pod { pod, address } = src else { return None };
        let (Side::Node { address: went, .. } | Side::Pod { address: went, .. }) = to else { return None };
        let translated = !self.pools.all.contains(*went) && !to.is_on(&pod.node);
        let own = self.translated(pod, *address).filter(|_| translated)?;
        Some(Side::Node { node: pod.node.clone(), pod: None, address: own })
    }

    /// The address of its node that a pod's address becomes on the way to nodes elsewhere; none: it stays.
    pub(super) fn translated(&self, pod: &Pod, address: IpAddr) -> Option<IpAddr> {
        self.address_of_node(&pod.node, address.is_ipv4()).filter(|_| self.pools.nat.contains(address))
    }
}
