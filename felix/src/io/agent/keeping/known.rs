//! Since when addresses are known to be kept: the owner of their block hears of it at about the same time, and may have given one to a pod before.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use twill_crds::{IPReservation, Object};
use twill_datastore::Followed;

/// For so long the owner of the block goes first: by then it has heard, and so have others of the pods that have addresses of it.
const YOUNG: Duration = Duration::from_secs(30);

/// By the reservation's UID and address: when it was heard of first; none: a pod has had it by the reservation since.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeMap<String, BTreeMap<IpAddr, Option<Instant>>>);

impl Known {
    /// Takes in what is told about reservations.
    pub(super) fn hear(&mut self, followed: &Followed<IPReservation>, now: Instant) {
        match followed {
            Followed::Synced { items, .. } => {
                let mut before = std::mem::take(&mut self.0);
                for item in items {
                    before.remove_entry(uid(item)).into_iter().for_each(|(uid, known)| drop(self.0.insert(uid, known)));
                    self.put(item, now);
                }
            }
            Followed::Applied(item, _) => self.put(item, now),
            Followed::Deleted(item, _) => drop(self.0.remove(uid(item))),
            Followed::Bookmark(_) => {}
        }
    }

    fn put(&mut self, item: &IPReservation, now: Instant) {
        let named = item.holder().map(|holder| holder.addresses.as_slice()).unwrap_or_default();
        if item.spec.addresses.is_empty() {
            self.0.remove(uid(item));
            return;
        }
        let known = self.0.entry(uid(item).to_owned()).or_default();
        known.retain(|address, _| item.spec.addresses.contains(address));
        for address in &item.spec.addresses {
            let since = known.entry(*address).or_insert(Some(now));
            if named.contains(address) {
                *since = None;
            }
        }
    }

    /// Whether the owner of the block may not have heard yet that this address is kept.
    pub(super) fn is_young(&self, item: &IPReservation, address: IpAddr, now: Instant) -> bool {
        let since = self.0.get(uid(item)).and_then(|known| known.get(&address));
        since.is_none_or(|since| since.is_some_and(|since| now.saturating_duration_since(since) < YOUNG))
    }
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
        let (begin, mut known) = (Instant::now(), Known::default());
        let at = |seconds| begin + Duration::from_secs(seconds);
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
        assert!(known.0.is_empty());
    }
}
