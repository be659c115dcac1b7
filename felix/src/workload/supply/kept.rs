//! Addresses that an IPReservation keeps for one pod, which has them on whatever node it runs.

use super::{Choice, NoAddress, Supply, Whom};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use twill_crds::ip_reservation::{Holder, accepted};
use twill_crds::{IPReservation, Object, PodReference};
use twill_ipam::{Attachment, Family, Ledger};

/// Names of reservations that keep addresses for a pod. Which of several counts is decided when it is asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    by_pod: BTreeMap<PodReference, BTreeSet<String>>,
    by_address: BTreeMap<IpAddr, BTreeSet<String>>,
    /// Those whose holder bears this node's name.
    held_here: BTreeSet<String>,
}

impl Kept {
    /// Takes in what a reservation keeps.
    pub(super) fn add(&mut self, one: &IPReservation) {
        if let Some(pod) = &one.spec.pod {
            self.by_pod.entry(pod.clone()).or_default().insert(one.name().to_owned());
        }
        for address in &one.spec.addresses {
            self.by_address.entry(*address).or_default().insert(one.name().to_owned());
        }
    }

    /// Forgets what a reservation keeps, given as it was taken in.
    pub(super) fn remove(&mut self, one: &IPReservation) {
        if let Some(pod) = &one.spec.pod {
            take_out(&mut self.by_pod, pod, one.name());
        }
        for address in &one.spec.addresses {
            take_out(&mut self.by_address, address, one.name());
        }
    }

    /// Takes in who holds a reservation.
    pub(super) fn hold(&mut self, name: &str, holder: Option<&Holder>, node: &str) {
        if holder.is_some_and(|holder| holder.node == node) {
            self.held_here.insert(name.to_owned());
        } else {
            self.held_here.remove(name);
        }
    }
}

fn take_out<K: Ord>(names: &mut BTreeMap<K, BTreeSet<String>>, key: &K, name: &str) {
    if let Some(left) = names.get_mut(key) {
        left.remove(name);
        if left.is_empty() {
            names.remove(key);
        }
    }
}

/// That the attachment of another pod, or of another container of this one, has what is kept; a sentence without its end.
#[must_use]
pub fn is_had_here(reservation: &str, address: IpAddr, held: &Attachment) -> String {
    format!(
        "IPReservation {reservation} keeps {address} for this pod, and pod {}/{} has it here (container {}), whose DEL did not come; it was not \
         released",
        held.namespace, held.pod, held.sandbox.container_id
    )
}

impl Supply {
    /// What is kept for a pod: of several reservations that which counts.
    #[must_use]
    pub fn kept_for(&self, namespace: &str, pod: &str) -> Option<Arc<IPReservation>> {
        let pod = PodReference { namespace: namespace.to_owned(), name: pod.to_owned() };
        let rivals = self.rivals(self.kept.by_pod.get(&pod)?);
        let rivals: Vec<&IPReservation> =
            rivals.into_iter().filter_map(|name| Some(&**self.reservation(name)?)).collect();
        let counts = accepted(&rivals).0.into_iter().find(|one| one.spec.pod.as_ref() == Some(&pod))?;
        self.reservation(counts.name()).cloned()
    }

    /// These reservations and all on which it depends whether they count: those that keep the same address, or are for the same pod, and those
    /// on which it depends for them.
    fn rivals<'a>(&'a self, names: &'a BTreeSet<String>) -> BTreeSet<&'a str> {
        let mut found = BTreeSet::new();
        let mut next: Vec<&str> = names.iter().map(String::as_str).collect();
        while let Some(name) = next.pop() {
            let Some(one) = self.reservation(name).filter(|_| found.insert(name)) else { continue };
            let of_pod = one.spec.pod.as_ref().and_then(|pod| self.kept.by_pod.get(pod));
            let of_addresses = one.spec.addresses.iter().filter_map(|address| self.kept.by_address.get(address));
            next.extend(of_pod.into_iter().chain(of_addresses).flatten().map(String::as_str));
        }
        found
    }

    /// Reservations whose holder bears this node's name.
    #[must_use]
    pub fn held_here(&self) -> Vec<Arc<IPReservation>> {
        self.kept.held_here.iter().filter_map(|name| self.reservation(name).cloned()).collect()
    }

    /// A reservation as it was heard of last.
    #[must_use]
    pub fn reservation(&self, name: &str) -> Option<&Arc<IPReservation>> {
        self.reservations.get(&twill_datastore::Key::cluster(name))
    }

    /// Whether an address can be kept for anybody.
    ///
    /// # Errors
    /// [`NoAddress::Refused`]: it lies in no pool, or begins a block.
    pub fn keepable(&self, reservation: &str, address: IpAddr) -> Result<(), NoAddress> {
        let refused =
            |why: &str| Err(NoAddress::Refused(format!("IPReservation {reservation} keeps {address}, and {why}")));
        let Some(pool) = self.accepted.iter().find(|pool| pool.spec.cidr.contains(&address)) else {
            return refused("no IPPool contains it; keep an address of a pool, or create the pool");
        };
        let begins = IpNet::new(address, pool.spec.block_prefix_len()).is_ok_and(|block| block.network() == address);
        if begins || self.blocks.iter().any(|(_, block)| block.spec.cidr.network() == address) {
            return refused("it is the first address of a block, which no pod gets; keep another");
        }
        Ok(())
    }

    /// The address of a family that is kept for a pod, whose node holds the reservation; none if none is.
    pub(super) fn kept(
        &self,
        whom: Whom<'_>,
        family: Family,
        asked: &[IpAddr],
        ledger: &Ledger,
        busy: &mut impl FnMut(IpAddr) -> bool,
    ) -> Result<Option<Choice>, NoAddress> {
        let of_family = |address: &&IpAddr| Family::of(IpNet::from(**address)) == family;
        let Some(reservation) = whom.kept else { return Ok(None) };
        let Some(address) = reservation.spec.addresses.iter().find(of_family).copied() else { return Ok(None) };
        let name = reservation.name();
        self.keepable(name, address)?;
        if let Some(other) = asked.iter().find(of_family).filter(|asked| **asked != address) {
            let why = format!("IPReservation {name} keeps {address} for this pod; ask for that, or for none");
            return Err(NoAddress::Refused(format!("{other} was asked for, and {why}")));
        }
        if let Some(holder) = ledger.holder(address) {
            return Ok(Some(Choice::Until(is_had_here(name, address, holder))));
        }
        if busy(address) {
            return Ok(Some(Choice::Until(format!(
                "IPReservation {name} keeps {address} for this pod, and an interface or a route of this node still has it; it was not free"
            ))));
        }
        Ok(Some(Choice::Addresses(vec![address])))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::{NOW, SHOP, block, pool, store, supply};
    use super::*;
    use serde_json::json;
    use twill_datastore::{Followed, Revision};

    fn reservation(name: &str, addresses: &[&str], pod: &str, holder: Option<(&str, &str)>) -> IPReservation {
        let holder = holder.map(|(node, uid)| json!({"node": node, "podUID": uid, "addresses": addresses}));
        serde_json::from_value(json!({"apiVersion": "twill.network/v1", "kind": "IPReservation",
            "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"addresses": addresses, "pod": {"namespace": "shop", "name": pod}}, "status": {"holder": holder}}))
        .unwrap()
    }

    fn world(items: Vec<IPReservation>) -> Supply {
        let pools = vec![pool("p4", "10.42.0.0/16"), pool("p6", "fd42::/112")];
        let blocks = vec![block("10.42.1.0/26", "n1"), block("10.42.2.0/26", "n2"), block("fd42::40/122", "n1")];
        let mut supply = supply(pools, blocks);
        supply.hear_reservations(Followed::Synced { items, revision: Revision(1) });
        supply
    }

    #[test]
    fn a_pod_has_what_is_kept_for_it_wherever_that_lies_and_nobody_else_has() {
        let supply = world(vec![
            reservation("far", &["10.42.2.7"], "db-0", None),
            reservation("near", &["10.42.1.1"], "db-1", None),
            reservation("nowhere", &["10.42.9.9", "fd42::55"], "db-2", None),
        ]);
        let (_d, store) = store(&[("10.42.1.0/26", true), ("fd42::40/122", true)]);
        let given = |pod: &str| {
            let kept = supply.kept_for("shop", pod);
            let whom = Whom { pod, kept: kept.as_deref(), ..SHOP };
            let Ok(Choice::Addresses(found)) = supply.choose(whom, &[], store.ledger(), NOW, |_| false) else {
                panic!()
            };
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(given("db-0"), ["10.42.2.7", "fd42::41"]);
        assert_eq!(given("db-1"), ["10.42.1.1", "fd42::41"]);
        assert_eq!(given("db-2"), ["10.42.9.9", "fd42::55"]);
        assert_eq!(given("other"), ["10.42.1.2", "fd42::41"], "what is kept is passed over");
        let asked = |address: &str| supply.choose(SHOP, &[address.parse().unwrap()], store.ledger(), NOW, |_| false);
        assert!(asked("10.42.1.1").unwrap_err().to_string().contains("IPReservation near keeps it for pod shop/db-1"));
    }

    #[test]
    fn what_counts_for_a_pod_is_the_same_whatever_came_and_went_and_who_holds_it_changes_nothing_else() {
        let make = |name: &str, second: u32, addresses: &[&str], pod: &str, holder: Option<(&str, &str)>| {
            let mut one = reservation(name, addresses, pod, holder);
            let time = json!(format!("2026-01-01T00:00:{second:02}Z"));
            one.metadata.creation_timestamp = Some(serde_json::from_value(time).unwrap());
            one
        };
        let put = |one: &IPReservation| Followed::Applied(one.clone(), Revision(1));
        let taken = |one: &IPReservation| Followed::Deleted(one.clone(), Revision(1));
        // A chain: each keeps what the next one does, or is for its pod.
        let a = make("a", 1, &["10.42.1.1"], "p", None);
        let b = make("b", 2, &["10.42.1.1", "fd42::41"], "q", None);
        let c = make("c", 3, &["10.42.1.3", "fd42::41"], "r", None);
        let d = make("d", 4, &["10.42.1.4"], "r", None);
        let held = make("d", 4, &["10.42.1.4"], "r", Some(("n1", "u")));
        let older = make("d", 0, &["10.42.1.4"], "r", None);
        let moved = make("a", 1, &["10.42.1.9"], "s", None);
        let mut supply = world(Vec::new());
        // What is told, whether that reserves anything else, what counts for p, q, r and s, and what this node holds.
        let steps = [
            (put(&d), true, "..d.", ""),
            (put(&c), true, "..c.", ""),
            (put(&b), true, ".bd.", ""),
            (put(&a), true, "a.c.", ""),
            (put(&held), false, "a.c.", "d"),
            (put(&make("d", 4, &["10.42.1.4"], "r", Some(("n2", "u")))), false, "a.c.", ""),
            // Made anew before this was heard.
            (put(&older), false, "a.d.", ""),
            (put(&held), false, "a.c.", "d"),
            (put(&moved), true, ".bda", "d"),
            (taken(&b), true, "..ca", "d"),
            (taken(&c), true, "..da", "d"),
            (Followed::Synced { items: vec![a, c], revision: Revision(2) }, true, "a.c.", ""),
        ];
        for (n, (told, changes, counts, here)) in steps.into_iter().enumerate() {
            assert_eq!(supply.hear_reservations(told), changes, "step {n}");
            let name = |pod| supply.kept_for("shop", pod).map_or(".".to_owned(), |one| one.name().to_owned());
            assert_eq!(["p", "q", "r", "s"].map(name).concat(), counts, "step {n}");
            assert_eq!(supply.held_here().iter().map(|one| one.name()).collect::<String>(), here, "step {n}");
            let all: Vec<&IPReservation> = supply.reservations.iter().map(|(_, one)| &**one).collect();
            assert_eq!(supply.reserved, twill_ipam::Reserved::new(all), "step {n}");
        }
    }

    #[test]
    fn what_nobody_can_have_is_refused_and_what_somebody_has_is_waited_for() {
        let mut supply = world(vec![reservation("r", &["10.42.1.9"], "cart", None)]);
        let (_d, mut store) = store(&[("10.42.1.0/26", true), ("fd42::40/122", true)]);
        let kept = |supply: &Supply, store: &twill_ipam::io::store::Store, busy: bool, asked: &[IpAddr]| {
            let kept = supply.kept_for("shop", "cart");
            supply.choose(Whom { kept: kept.as_deref(), ..SHOP }, asked, store.ledger(), NOW, |_| busy)
        };
        assert!(matches!(kept(&supply, &store, true, &[]), Ok(Choice::Until(what)) if what.contains("still has it")));
        let other = ["10.42.1.10".parse().unwrap()];
        let said = kept(&supply, &store, false, &other).unwrap_err().to_string();
        assert!(said.contains("keeps 10.42.1.9 for this pod; ask for that"), "{said}");
        store
            .attach(Attachment {
                sandbox: twill_ipam::Sandbox { container_id: "c1".into(), ifname: "eth0".into() },
                namespace: "shop".into(),
                pod: "old".into(),
                uid: "u0".into(),
                netns: String::new(),
                boot_id: String::new(),
                addresses: vec!["10.42.1.9".parse().unwrap()],
                origin: Default::default(),
                asked: String::new(),
            })
            .unwrap();
        assert!(
            matches!(kept(&supply, &store, false, &[]), Ok(Choice::Until(what)) if what.contains("pod shop/old has it here"))
        );
        for (address, says) in [("192.0.2.1", "no IPPool contains it"), ("10.42.5.64", "first address of a block")] {
            let items = vec![reservation("r", &[address], "cart", None)];
            supply.hear_reservations(Followed::Synced { items, revision: Revision(2) });
            let said = kept(&supply, &store, false, &[]).unwrap_err().to_string();
            assert!(said.starts_with(&format!("IPReservation r keeps {address}")) && said.contains(says), "{said}");
        }
    }

    #[test]
    fn what_a_pod_here_has_by_a_reservation_counts_as_ours_in_anothers_block() {
        let held = |holder| world(vec![reservation("far", &["10.42.2.7"], "db-0", Some(holder))]);
        let (_d, mut store) = store(&[]);
        store
            .attach(Attachment {
                sandbox: twill_ipam::Sandbox { container_id: "c1".into(), ifname: "eth0".into() },
                namespace: "shop".into(),
                pod: "db-0".into(),
                uid: "u0".into(),
                netns: String::new(),
                boot_id: String::new(),
                addresses: vec!["10.42.2.7".parse().unwrap()],
                origin: Default::default(),
                asked: String::new(),
            })
            .unwrap();
        let cut = |supply: &Supply| {
            let blocks = [supply.seen(), supply.kept_here(store.ledger())].concat();
            !supply.owner().cut_off(&Default::default(), &blocks, store.ledger()).is_empty()
        };
        assert!(!cut(&held(("n1", "u0"))));
        assert!(cut(&held(("n2", "u1"))), "it went on to another node");
        assert!(cut(&held(("n1", "u1"))));
        // Nothing is taken away by what the reservation says by now, nor by another machine's having it under our name.
        let mut supply = held(("n1", "u0"));
        let mut edited = supply.reservation("far").unwrap().as_ref().clone();
        edited.spec.addresses = vec!["10.42.1.1".parse().unwrap()];
        supply.hear_reservations(Followed::Applied(edited.clone(), Revision(2)));
        assert!(!cut(&supply) && supply.holders("10.42.1.1".parse().unwrap()).next().is_none());
        edited.status.as_mut().unwrap().holder.as_mut().unwrap().claimant = Some("another".into());
        supply.hear_reservations(Followed::Applied(edited, Revision(3)));
        assert!(cut(&supply));
    }
}
