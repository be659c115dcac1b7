//! Which pod owns an address. Several may claim it: a status outlives the address, and addresses are used again.
//!
//! A local attachment beats any status, else the newest pod counts; the others own nothing of it. A pod that gives up its
//! claim, however late, takes nothing from who owns the address by then.

use super::labels::ItemId;
use crate::model::{Few, Pod, PodKey};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// A pod's claim; the greatest wins: a local one, then the newest pod, and UID and name make the order total.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    /// The pod has an interface with this address here.
    pub(crate) local: bool,
    /// The pod.
    pub(crate) pod: Arc<Pod>,
}

impl Claim {
    fn strength(&self) -> (bool, i128, &str, &PodKey) {
        (self.local, self.pod.created, &self.pod.uid, &self.pod.key)
    }
}

/// Claims and owners of addresses.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    claims: FxHashMap<IpAddr, Vec<(Claim, ItemId)>>,
    claimed: FxHashMap<ItemId, Few<IpAddr>>,
    owned: FxHashMap<ItemId, Few<IpAddr>>,
    contested: BTreeSet<IpAddr>,
}

impl Owners {
    /// Makes these all that a pod claims. Returns the pods that own something else than before.
    pub(crate) fn claim(&mut self, pod: ItemId, addresses: &BTreeMap<IpAddr, Claim>) -> BTreeSet<ItemId> {
        let old = self.claimed.remove(&pod).unwrap_or_default();
        let mut changed = BTreeSet::new();
        for address in old.iter().chain(addresses.keys()).copied().collect::<Few<_>>().iter().copied() {
            let claims = self.claims.entry(address).or_default();
            let before = strongest(claims);
            claims.retain(|(_, id)| *id != pod);
            // Nearly always the only one.
            claims.reserve_exact(usize::from(claims.is_empty()));
            claims.extend(addresses.get(&address).map(|c| (c.clone(), pod)));
            let after = strongest(claims);
            match claims.len() {
                0 => drop(self.claims.remove(&address)),
                1 => drop(self.contested.remove(&address)),
                _ => drop(self.contested.insert(address)),
            }
            if before != after {
                changed.extend(before.into_iter().chain(after));
                if let Some(id) = before {
                    self.own(id, |owned| owned.retain(|other| *other != address));
                }
                if let Some(id) = after {
                    self.own(id, |owned| owned.push(address));
                }
            }
        }
        if !addresses.is_empty() {
            self.claimed.insert(pod, addresses.keys().copied().collect());
        }
        changed
    }

    fn own(&mut self, pod: ItemId, change: impl FnOnce(&mut Vec<IpAddr>)) {
        let mut owned = self.owned.remove(&pod).map(|owned| owned.to_vec()).unwrap_or_default();
        change(&mut owned);
        if !owned.is_empty() {
            self.owned.insert(pod, owned.into_iter().collect());
        }
    }

    /// Addresses that a pod owns.
    pub(crate) fn owned(&self, pod: ItemId) -> impl Iterator<Item = IpAddr> {
        self.owned.get(&pod).into_iter().flat_map(|owned| owned.iter()).copied()
    }

    /// The pod that owns an address.
    pub(crate) fn owner(&self, address: IpAddr) -> Option<ItemId> {
        strongest(self.claims.get(&address)?)
    }

    /// One sentence for each address that several live pods claim.
    pub(crate) fn problems(&self) -> impl Iterator<Item = String> {
        self.contested.iter().filter_map(|address| {
            let mut claims: Vec<&Claim> = self.claims.get(address)?.iter().map(|(claim, _)| claim).collect();
            claims.sort_unstable_by(|a, b| a.strength().cmp(&b.strength()));
            let (owner, others) = claims.split_last()?;
            let others = others.iter().map(|c| c.pod.key.to_string()).collect::<Vec<_>>().join(", ");
            Some(format!("address {address} belongs to pod {}; {others} also claims it and is left out; delete the pod that should not be", owner.pod.key))
        })
    }
}

fn strongest(claims: &[(Claim, ItemId)]) -> Option<ItemId> {
    claims.iter().max_by(|(a, _), (b, _)| a.strength().cmp(&b.strength())).map(|(_, id)| *id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(created: i128, local: bool) -> Claim {
        let raw = k8s_openapi::api::core::v1::Pod::default();
        Claim { local, pod: Arc::new(Pod { created, ..Pod::read(&raw) }) }
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
        owners.claim(2, &BTreeMap::new());
        assert!(owners.claims.is_empty() && owners.owned.is_empty() && owners.claimed.is_empty());
    }
}
