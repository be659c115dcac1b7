//! What is remembered of reservations that keep addresses for a pod: since when an address is known to be kept, since when a holder's pod is
//! known to be gone, and since when there is a block. Each time somebody else hears of it at about the same time, and what he began before may
//! still come: the owner of the address's block may have given it to a pod, the holder's node may be attaching that pod, and who claims a
//! block that vanished under his pods writes down which of them have kept addresses.
//!
//! Times are milliseconds of a clock that does not jump.

use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;
use twill_crds::ip_reservation::Holder;
use twill_crds::{IPReservation, Object};
use twill_datastore::Followed;

/// For so long others go first, in milliseconds: by then they have heard, what they had begun has ended, and what came of it shows: an address in
/// a pod's status, a route.
pub const YOUNG: u64 = 30_000;

/// What is known, and since when. A restart begins all anew, which is only longer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Known {
    /// By the reservation's UID and address: when it was heard of first; none: a pod has had it by the reservation since.
    kept: BTreeMap<String, BTreeMap<IpAddr, Option<u64>>>,
    /// By the reservation's UID: a holder whose pod is gone, and when that was seen first.
    gone: BTreeMap<String, (Holder, u64)>,
    /// Blocks that were heard of a while ago, and when.
    blocks: BTreeMap<IpNet, u64>,
}

impl Known {
    /// Takes in what is told about reservations.
    pub fn hear(&mut self, followed: &Followed<IPReservation>, now: u64) {
        match followed {
            Followed::Synced { items, .. } => {
                let (mut kept, mut gone) = (std::mem::take(&mut self.kept), std::mem::take(&mut self.gone));
                for item in items {
                    self.kept.extend(kept.remove_entry(uid(item)));
                    self.gone.extend(gone.remove_entry(uid(item)));
                    self.put(item, now);
                }
            }
            Followed::Applied(item, _) => self.put(item, now),
            Followed::Deleted(item, _) => {
                self.kept.remove(uid(item));
                self.gone.remove(uid(item));
            }
            Followed::Bookmark(_) => {}
        }
    }

    fn put(&mut self, item: &IPReservation, now: u64) {
        if self.gone.get(uid(item)).is_some_and(|(holder, _)| item.holder() != Some(holder)) {
            self.gone.remove(uid(item));
        }
        let named = item.holder().map(|holder| holder.addresses.as_slice()).unwrap_or_default();
        if item.spec.addresses.is_empty() {
            self.kept.remove(uid(item));
            return;
        }
        let known = self.kept.entry(uid(item).to_owned()).or_default();
        known.retain(|address, _| item.spec.addresses.contains(address));
        for address in &item.spec.addresses {
            let since = known.entry(*address).or_insert(Some(now));
            if named.contains(address) {
                *since = None;
            }
        }
    }

    /// Takes in what became of a block since all was heard: the UID that it had, and the one that it has. What there was by then is not new: for
    /// whoever begins to listen addresses are young.
    pub fn hear_block(&mut self, cidr: IpNet, old: Option<&str>, new: Option<&str>, now: u64) {
        self.blocks.retain(|_, since| is_young(*since, now));
        match new {
            Some(_) if old == new => {}
            Some(_) => drop(self.blocks.insert(cidr, now)),
            None => drop(self.blocks.remove(&cidr)),
        }
    }

    /// Whether the owner of a block may not have written yet who has what is kept of it.
    #[must_use]
    pub fn is_new(&self, cidr: IpNet, now: u64) -> bool {
        self.blocks.get(&cidr).is_some_and(|since| is_young(*since, now))
    }

    /// Whether the owner of the block may not have heard yet that this address is kept.
    #[must_use]
    pub fn is_young(&self, item: &IPReservation, address: IpAddr, now: u64) -> bool {
        let since = self.kept.get(uid(item)).and_then(|known| known.get(&address));
        since.is_none_or(|since| since.is_some_and(|since| is_young(since, now)))
    }

    /// A consistent look showed no Pod of this holder.
    pub fn saw_gone(&mut self, item: &IPReservation, holder: &Holder, now: u64) {
        match self.gone.get(uid(item)) {
            Some((known, _)) if known == holder => {}
            _ => drop(self.gone.insert(uid(item).to_owned(), (holder.clone(), now))),
        }
    }

    /// Whether the holder's node may not have heard yet that its pod is gone, or still attach it by what it heard before.
    #[must_use]
    pub fn is_fresh(&self, item: &IPReservation, now: u64) -> bool {
        let gone = self.gone.get(uid(item)).filter(|(holder, _)| item.holder() == Some(holder));
        gone.is_none_or(|(_, since)| is_young(*since, now))
    }
}

fn is_young(since: u64, now: u64) -> bool {
    now.saturating_sub(since) < YOUNG
}

fn uid(item: &IPReservation) -> &str {
    item.meta().uid.as_deref().unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;
    use twill_datastore::Revision;

    fn kept(uid: &str, addresses: &[&str], held: &[&str]) -> IPReservation {
        serde_json::from_value(json!({"apiVersion": "twill.network/v1", "kind": "IPReservation",
            "metadata": {"name": "db", "uid": uid}, "spec": {"addresses": addresses},
            "status": {"holder": {"node": "n1", "podUID": "u", "addresses": held}}}))
        .unwrap()
    }

    #[test]
    fn an_address_is_young_for_half_a_minute_after_it_was_heard_of_unless_a_pod_had_it() {
        let mut known = Known::default();
        let at = |seconds: u64| seconds * 1000;
        let (one, other) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let applied = |item: &IPReservation| Followed::Applied(item.clone(), Revision(1));
        let first = kept("a", &["10.0.0.1"], &[]);
        known.hear(&applied(&first), at(0));
        assert!(known.is_young(&first, one, at(29)) && !known.is_young(&first, one, at(30)));
        // An edit gives no age, and what is told again takes none.
        let edited = kept("a", &["10.0.0.1", "10.0.0.2"], &[]);
        known.hear(&Followed::Synced { items: vec![edited.clone()], revision: Revision(1) }, at(40));
        assert!(!known.is_young(&edited, one, at(41)) && known.is_young(&edited, other, at(41)));
        known.hear(&applied(&kept("a", &["10.0.0.1", "10.0.0.2"], &["10.0.0.2"])), at(42));
        known.hear(&applied(&edited), at(43));
        assert!(!known.is_young(&edited, other, at(43)));
        // Deleted and made again, whether that was told or fell into a gap.
        let again = kept("b", &["10.0.0.1"], &[]);
        known.hear(&Followed::Synced { items: vec![again.clone()], revision: Revision(2) }, at(50));
        assert!(known.is_young(&again, one, at(51)));
        known.hear(&Followed::Deleted(again, Revision(3)), at(90));
        assert_eq!(known, Known::default());
    }

    #[test]
    fn a_pod_is_gone_for_half_a_minute_before_its_node_counts_as_having_heard_whoever_held_before() {
        let mut known = Known::default();
        let applied = |item: &IPReservation| Followed::Applied(item.clone(), Revision(1));
        let held = kept("a", &["10.0.0.1"], &["10.0.0.1"]);
        known.hear(&applied(&held), 0);
        assert!(known.is_fresh(&held, 90_000), "nobody has looked");
        known.saw_gone(&held, held.holder().unwrap(), 90_000);
        known.saw_gone(&held, held.holder().unwrap(), 110_000);
        known.hear(&Followed::Synced { items: vec![held.clone()], revision: Revision(1) }, 110_000);
        assert!(known.is_fresh(&held, 119_999) && !known.is_fresh(&held, 120_000));
        let mut next = held.clone();
        next.status.as_mut().unwrap().holder.as_mut().unwrap().pod_uid = "v".into();
        assert!(known.is_fresh(&next, 120_000), "its pod is another");
        known.hear(&applied(&next), 121_000);
        known.hear(&applied(&held), 122_000);
        assert!(known.is_fresh(&held, 122_000), "it came back");
    }

    #[test]
    fn a_block_is_new_for_half_a_minute_whenever_it_is_claimed() {
        let (mut known, cidr) = (Known::default(), "10.0.0.0/26".parse().unwrap());
        assert!(!known.is_new(cidr, 0), "it was there before anybody listened");
        known.hear_block(cidr, None, Some("a"), 1_000);
        known.hear_block(cidr, Some("a"), Some("a"), 20_000);
        known.hear(&Followed::Synced { items: Vec::new(), revision: Revision(1) }, 21_000);
        assert!(known.is_new(cidr, 30_999) && !known.is_new(cidr, 31_000));
        known.hear_block(cidr, Some("a"), Some("b"), 50_000);
        assert!(known.is_new(cidr, 51_000));
        known.hear_block(cidr, Some("b"), None, 52_000);
        assert_eq!(known, Known::default());
    }
}
