//! Which pod owns an address. Several may claim it: a status outlives the address, and addresses are used again.
//!
//! A local attachment beats any status, else the newest pod counts; the others own nothing of it. A pod that gives up its
//! claim, however late, takes nothing from who owns the address by then.

use super::labels::ItemId;
use crate::model::{Few, Pod, PodKey};
use rustc_hash::FxHashMap;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// A pod's claim; the greatest wins: a local one, then the newest pod, and UID and name make the order total.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    /// The pod has an interface with this address here.
    pub(crate) local: bool,
    /// The pod's number.
    pub(crate) id: ItemId,
    /// The pod.
    pub(crate) pod: Arc<Pod>,
}

impl Claim {
    fn strength(&self) -> (bool, i128, &str, &PodKey) {
        (self.local, self.pod.created, &self.pod.uid, &self.pod.key)
    }
}

impl Ord for Claim {
    fn cmp(&self, other: &Self) -> Ordering {
        self.strength().cmp(&other.strength()).then(self.id.cmp(&other.id))
    }
}

impl PartialOrd for Claim {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Claim {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Claim {}

/// Claims of addresses; the last of an address's is its owner's.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    claims: FxHashMap<IpAddr, Few<Claim>>,
    claimed: FxHashMap<ItemId, Few<IpAddr>>,
    contested: BTreeSet<IpAddr>,
}

impl Owners {
    /// Makes these all that a pod claims. Returns the pods that own something else than before.
    pub(crate) fn claim(&mut self, pod: ItemId, addresses: &BTreeMap<IpAddr, Claim>) -> BTreeSet<ItemId> {
        let old = self.claimed.remove(&pod).unwrap_or_default();
        let mut changed = BTreeSet::new();
        for address in old.iter().chain(addresses.keys()).copied().collect::<Few<_>>().iter().copied() {
            let before = self.claims.remove(&address).unwrap_or_default();
            let others = before.iter().filter(|claim| claim.id != pod).cloned();
            let after: Few<Claim> = others.chain(addresses.get(&address).cloned()).collect();
            if after.len() > 1 {
                self.contested.insert(address);
            } else {
                self.contested.remove(&address);
            }
            let owner = |claims: &Few<Claim>| claims.last().map(|claim| claim.id);
            if owner(&before) != owner(&after) {
                changed.extend(owner(&before).into_iter().chain(owner(&after)));
            }
            if !after.is_empty() {
                self.claims.insert(address, after);
            }
        }
        if !addresses.is_empty() {
            self.claimed.insert(pod, addresses.keys().copied().collect());
        }
        changed
    }

    /// Addresses that a pod owns.
    pub(crate) fn owned(&self, pod: ItemId) -> impl Iterator<Item = IpAddr> {
        let claimed = self.claimed.get(&pod).into_iter().flat_map(|claimed| claimed.iter()).copied();
        let owner = |address: &IpAddr| self.claims.get(address).and_then(|claims| claims.last());
        claimed.filter(move |address| owner(address).is_some_and(|claim| claim.id == pod))
    }

    /// The pod that owns an address.
    pub(crate) fn owner(&self, address: IpAddr) -> Option<ItemId> {
        self.claims.get(&address)?.last().map(|claim| claim.id)
    }

    /// The pods that claim an address, its owner last.
    pub(crate) fn claimants(&self, address: IpAddr) -> impl Iterator<Item = &Arc<Pod>> {
        self.claims.get(&address).into_iter().flat_map(|claims| claims.iter()).map(|claim| &claim.pod)
    }

    /// One sentence for each address that several live pods claim.
    pub(crate) fn problems(&self) -> impl Iterator<Item = String> {
        self.contested.iter().filter_map(|address| {
            let (owner, others) = self.claims.get(address)?.split_last()?;
            let others = others.iter().map(|c| c.pod.key.to_string()).collect::<Vec<_>>().join(", ");
            Some(format!("address {address} belongs to pod {}; {others} also claims it and is left out; delete the pod that should not be", owner.pod.key))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the pod whose number is when it was created.
    fn claim(id: ItemId, local: bool) -> Claim {
        let raw = k8s_openapi::api::core::v1::Pod::default();
        let created = id.into();
        Claim { local, id, pod: Arc::new(Pod { created, ..Pod::read(&raw) }) }
    }

    fn address() -> IpAddr {
        IpAddr::from([10, 0, 0, 1])
    }

    fn owner(owners: &Owners) -> Vec<ItemId> {
        (1..4).filter(|pod| owners.owned(*pod).count() == 1).collect()
    }

    #[test]
    fn a_late_delete_takes_nothing_from_the_new_owner() {
        let mut owners = Owners::default();
        assert_eq!(owners.claim(1, &[(address(), claim(1, false))].into()), [1].into());
        assert_eq!(owners.claim(2, &[(address(), claim(2, false))].into()), [1, 2].into());
        assert_eq!(owner(&owners), [2]);
        assert!(owners.claimants(address()).map(|pod| pod.created).eq([1, 2]));
        assert_eq!(owners.problems().count(), 1);
        assert_eq!(owners.claim(1, &BTreeMap::new()), [].into());
        assert_eq!(owner(&owners), [2]);
        assert_eq!(owners.problems().count(), 0);
    }

    #[test]
    fn a_local_attachment_beats_a_newer_status() {
        let mut owners = Owners::default();
        owners.claim(1, &[(address(), claim(1, true))].into());
        assert_eq!(owners.claim(2, &[(address(), claim(2, false))].into()), [].into());
        assert_eq!(owner(&owners), [1]);
        assert_eq!(owners.claim(1, &BTreeMap::new()), [1, 2].into());
        assert_eq!(owner(&owners), [2]);
        assert!(owners.claimants(address()).map(|pod| pod.created).eq([2]));
        owners.claim(2, &BTreeMap::new());
        assert!(owners.claims.is_empty() && owners.claimed.is_empty());
    }
}
