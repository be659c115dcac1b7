//! What a machine decides about addresses that are kept for pods: whether a pod of its own may have them, when it writes that one has them or that
//! none has, and which of its pods are cut off, because another has theirs. In flow reservations as they were heard, and the machine's own
//! store; out flows what to write, looked at and performed as [`crate::holder`] says.

use crate::claim::Seen;
use crate::holder::{self, Next, Settling, Signs};
use crate::ledger::{Attachment, Ledger, Sandbox};
use crate::origin::Kind;
use crate::owner::Owner;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use twill_crds::IPReservation;
use twill_crds::ip_reservation::Holder;

/// This machine, and what its pods have.
#[derive(Clone, Copy, Debug)]
pub struct Here<'a> {
    /// Who it is.
    pub owner: &'a Owner,
    /// Who has which address.
    pub ledger: &'a Ledger,
}

/// What the attachment of a pod comes to for which addresses are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taking<'a> {
    /// They are its own.
    Held,
    /// Another pod has one here, by whatever: its DEL is to come.
    HadHere(IpAddr, &'a Attachment),
    /// Some pod has one by another reservation of this name, which was edited since.
    HeldBy(IpAddr, &'a str, &'a Holder),
    /// This is to be written first.
    Unwritten(Holder),
}

/// What is known of the pod that a holder names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// It had the addresses here, and has them no more.
    pub ended: bool,
    /// It is about to be attached here.
    pub comes: bool,
    /// It was heard of, and not that it is gone.
    pub exists: bool,
}

impl<'a> Here<'a> {
    /// Whether a holder is a pod of this machine.
    #[must_use]
    pub fn is_ours(self, holder: &Holder) -> bool {
        self.owner.is(&holder.node, holder.claimant.as_deref())
    }

    fn has(self, address: IpAddr, uid: &str) -> bool {
        self.ledger.holder(address).is_some_and(|held| held.uid == uid)
    }

    /// A pod of this machine as holder: of what the reservation keeps for it, it has what it is written to have, what it has here, and what it
    /// `wants`; and what it was written to have before an edit and still has.
    #[must_use]
    pub fn holder_of(self, kept: &IPReservation, uid: &str, wants: &[IpAddr]) -> Holder {
        let claimant = Some(self.owner.claimant.clone());
        let me = Holder { node: self.owner.node.clone(), claimant, pod_uid: uid.to_owned(), addresses: Vec::new() };
        let ours = kept.holder().filter(|holder| holder::is_same(holder, &me));
        let named = ours.map(|holder| holder.addresses.as_slice()).unwrap_or_default();
        let keeps = &kept.spec.addresses;
        let of_kept = keeps.iter().filter(|one| wants.contains(one) || named.contains(one) || self.has(**one, uid));
        let earlier = named.iter().filter(|one| !keeps.contains(one) && self.has(**one, uid));
        let addresses = of_kept.chain(earlier).copied().collect();
        Holder { addresses, ..me }
    }

    /// What an attachment of the pod with this UID comes to, for which this reservation keeps addresses. `holders` says who has an address, as
    /// reservations say, each with the reservation's name.
    pub fn taking<I>(self, kept: &IPReservation, uid: &str, holders: impl Fn(IpAddr) -> I) -> Taking<'a>
    where
        I: Iterator<Item = (&'a str, &'a Holder)>,
    {
        let me = self.holder_of(kept, uid, &kept.spec.addresses);
        for address in kept.spec.addresses.iter().copied() {
            // While it has it the holder must be its own.
            if let Some(held) = self.ledger.holder(address).filter(|held| held.uid != uid) {
                return Taking::HadHere(address, held);
            }
            if let Some((name, holder)) = by_another(kept, &me, holders(address)) {
                return Taking::HeldBy(address, name, holder);
            }
        }
        if holder::holds(kept.holder(), &me) { Taking::Held } else { Taking::Unwritten(me) }
    }

    /// Whether it is to be written that nobody has the addresses of a holder that bears this node's name, as far as is known of its pod; if so,
    /// whether it had them here and has them no more.
    #[must_use]
    pub fn gives_up(self, holder: &Holder, pod: Course) -> Option<bool> {
        let ours = self.is_ours(holder);
        if pod.comes || ours && self.ledger.attachments().any(|held| held.uid == holder.pod_uid) {
            return None;
        }
        let ended = ours && pod.ended;
        // Its next sandbox may be on the way.
        (ended || !pod.exists).then_some(ended)
    }

    /// A pod may have had an address before it was kept for it, or its reservation was deleted and made again: it is the holder if nobody else is.
    /// What it is written to have, is not kept for it any more and was let go is given up. What is to be written, if anything is: the pod, or nobody.
    #[must_use]
    pub fn writes_down(self, kept: &IPReservation, uid: &str) -> Option<Option<Holder>> {
        let me = self.holder_of(kept, uid, &[]);
        let same = kept.holder().map(|holder| holder::is_same(holder, &me));
        if same == Some(false) || holder::take(kept.holder(), &me, Signs::default()) == Next::Stays {
            return None;
        }
        if me.addresses.is_empty() { same.map(|_| None) } else { Some(Some(me)) }
    }

    /// The beginning of a look at a holder and of the write after it: whom to write, if anybody, with what is seen without the kernel, and
    /// the addresses whose routes are to be looked at, for [`Signs::routed`] and, if there is one, for [`Signs::blind`]. `cut`: who is
    /// cut off; `young` and `fresh` as [`crate::known`] says.
    #[must_use]
    pub fn settling(
        self,
        kept: &IPReservation,
        wanted: Option<Holder>,
        ended: bool,
        cut: impl Fn(&Sandbox) -> bool,
        young: impl Fn(IpAddr) -> bool,
        fresh: bool,
    ) -> (Settling, BTreeSet<IpAddr>) {
        let holder = kept.holder();
        let named = holder.map(|holder| holder.addresses.as_slice()).unwrap_or_default();
        let is_same = holder.zip(wanted.as_ref()).is_some_and(|(holder, me)| holder::is_same(holder, me));
        let wants = wanted.iter().flat_map(|me| &me.addresses).filter(|one| !(is_same && named.contains(one)));
        // What a pod here has and uses, nobody else does.
        let uses = |address: IpAddr| {
            let held = self.ledger.holder(address).filter(|held| !cut(&held.sandbox));
            held.zip(wanted.as_ref()).is_some_and(|(held, me)| held.uid == me.pod_uid)
        };
        let mut doubted: BTreeSet<IpAddr> = wants.copied().filter(|address| !uses(*address)).collect();
        let mut seen = Signs { young: doubted.iter().any(|address| young(*address)), ..Signs::default() };
        if let Some(holder) = holder.filter(|_| !is_same) {
            doubted.extend(named);
            let ours = self.is_ours(holder);
            seen.attached = ours && self.ledger.attachments().any(|held| held.uid == holder.pod_uid);
            seen.fresh = !ours && fresh;
        }
        (Settling { holder: holder.cloned(), wanted, seen, ended }, doubted)
    }

    /// What pods here have by reservations, as blocks of this machine's own, of all `holders` that bear its name: it lies in another's, or in none.
    pub fn blocks(self, holders: impl IntoIterator<Item = &'a Holder>) -> Vec<Seen> {
        let ours = holders.into_iter().filter(|holder| self.is_ours(holder));
        let had = ours
            .flat_map(|holder| holder.addresses.iter().copied().filter(|address| self.has(*address, &holder.pod_uid)));
        let (node, claimant) = (&self.owner.node, &self.owner.claimant);
        had.map(|address| seen(address, node, Some(claimant))).collect()
    }

    /// Attachments whose address is kept for a pod that is elsewhere by now, each with the address as the block that took it.
    pub fn moved_on<I>(self, holders: impl Fn(IpAddr) -> I) -> BTreeMap<Sandbox, Seen>
    where
        I: Iterator<Item = (&'a str, &'a Holder)>,
    {
        let mut moved = BTreeMap::new();
        for held in self.ledger.attachments() {
            for address in held.addresses.iter().copied() {
                let is_else = |holder: &&Holder| !self.is_ours(holder) || holder.pod_uid != held.uid;
                if let Some(holder) = holders(address).map(|(_, holder)| holder).find(is_else) {
                    moved.insert(held.sandbox.clone(), seen(address, &holder.node, holder.claimant.as_ref()));
                }
            }
        }
        moved
    }

    /// Attachments of pods, which may have had an address before it was kept for them.
    pub fn workloads(self) -> impl Iterator<Item = &'a Attachment> {
        self.ledger.attachments().filter(|held| held.origin.kind == Kind::Workload)
    }
}

/// Who has an address by a reservation beside this one, which keeps it for `me`.
pub fn by_another<'a>(
    kept: &IPReservation,
    me: &Holder,
    mut holders: impl Iterator<Item = (&'a str, &'a Holder)>,
) -> Option<(&'a str, &'a Holder)> {
    holders.find(|(name, holder)| Some(*name) != kept.metadata.name.as_deref() && !holder::is_same(holder, me))
}

fn seen(address: IpAddr, node: &str, claimant: Option<&String>) -> Seen {
    Seen { cidr: IpNet::from(address), node: node.to_owned(), claimant: claimant.cloned(), used: None }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Origin;
    use serde_json::json;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// It keeps addresses for a pod; who is said to have which.
    fn kept(keeps: &[u8], holder: Option<(&str, &str, &[u8])>) -> IPReservation {
        let all = |lasts: &[u8]| lasts.iter().map(|last| address(*last)).collect::<Vec<_>>();
        let holder =
            holder.map(|(node, uid, has)| json!({"node": node, "claimant": "a", "podUID": uid, "addresses": all(has)}));
        serde_json::from_value(json!({"apiVersion": "twill.network/v1", "kind": "IPReservation", "metadata": {"name": "db"},
            "spec": {"addresses": all(keeps), "pod": {"namespace": "shop", "name": "db-0"}}, "status": {"holder": holder}}))
        .unwrap()
    }

    fn ledger(pods: &[(&str, u8)]) -> Ledger {
        let mut ledger = Ledger::default();
        for (uid, last) in pods {
            ledger.attach(Attachment {
                sandbox: Sandbox { container_id: format!("c-{uid}"), ifname: "eth0".into() },
                namespace: "shop".into(),
                pod: "db-0".into(),
                uid: (*uid).into(),
                netns: String::new(),
                boot_id: String::new(),
                addresses: vec![address(*last)],
                origin: Origin::default(),
                asked: String::new(),
            });
        }
        ledger
    }

    fn owner() -> Owner {
        Owner { node: "n1".into(), claimant: "a".into() }
    }

    #[test]
    fn a_pod_has_what_is_kept_once_it_is_written_and_nobody_has_it_by_anything_else() {
        let (owner, none, other) = (owner(), ledger(&[]), ledger(&[("u0", 7)]));
        let here = Here { owner: &owner, ledger: &none };
        let nobody = |_| std::iter::empty();
        let free = kept(&[7], None);
        let Taking::Unwritten(me) = here.taking(&free, "u1", nobody) else { panic!() };
        assert_eq!((me.node.as_str(), me.addresses.as_slice()), ("n1", [address(7)].as_slice()));
        assert_eq!(here.taking(&kept(&[7], Some(("n1", "u1", &[7]))), "u1", nobody), Taking::Held);
        let taken = Here { owner: &owner, ledger: &other }.taking(&free, "u1", nobody);
        assert!(matches!(taken, Taking::HadHere(_, held) if held.uid == "u0"));
        let elsewhere = Holder { node: "n2".into(), pod_uid: "u0".into(), ..Holder::default() };
        let taken = here.taking(&free, "u1", |_| std::iter::once(("older", &elsewhere)));
        assert!(matches!(taken, Taking::HeldBy(_, "older", _)));
        // Of its own reservation the holder is passed over, or not, when it is to be written.
        assert!(matches!(here.taking(&free, "u1", |_| std::iter::once(("db", &elsewhere))), Taking::Unwritten(_)));
    }

    #[test]
    fn who_ended_here_gives_up_and_who_may_come_yet_does_not() {
        let (owner, none, there) = (owner(), ledger(&[]), ledger(&[("u1", 7)]));
        let holder = kept(&[7], Some(("n1", "u1", &[7]))).holder().cloned().unwrap();
        let gives_up = |ledger: &Ledger, holder: &Holder, ended, comes, exists| {
            Here { owner: &owner, ledger }.gives_up(holder, Course { ended, comes, exists })
        };
        assert_eq!(gives_up(&there, &holder, true, false, false), None, "it has them");
        assert_eq!(gives_up(&none, &holder, true, false, true), Some(true));
        assert_eq!(gives_up(&none, &holder, true, true, true), None);
        assert_eq!(gives_up(&none, &holder, false, false, true), None);
        assert_eq!(gives_up(&none, &holder, false, false, false), Some(false));
        let of_another = Holder { claimant: Some("b".into()), ..holder };
        assert_eq!(gives_up(&there, &of_another, true, false, false), Some(false), "another machine of this name");
    }

    #[test]
    fn what_a_pod_has_already_is_written_down_and_what_it_let_go_after_an_edit_is_given_up() {
        let (owner, has) = (owner(), ledger(&[("u1", 7)]));
        let here = Here { owner: &owner, ledger: &has };
        let down = |kept: &IPReservation| here.writes_down(kept, "u1").map(|me| me.map(|me| me.addresses));
        assert_eq!(down(&kept(&[7, 8], None)), Some(Some(vec![address(7)])));
        assert_eq!(down(&kept(&[7, 8], Some(("n1", "u1", &[7])))), None);
        assert_eq!(down(&kept(&[8], None)), None, "it has nothing of that");
        assert_eq!(down(&kept(&[8], Some(("n1", "u1", &[6])))), Some(None));
        assert_eq!(down(&kept(&[8], Some(("n1", "u1", &[6, 7])))), Some(Some(vec![address(7)])));
        assert_eq!(down(&kept(&[7], Some(("n2", "u2", &[7])))), None, "another is passed over when it is looked at");
    }

    #[test]
    fn what_a_pod_here_uses_is_not_looked_at_and_another_machines_holder_is_fresh() {
        let (owner, has) = (owner(), ledger(&[("u1", 7)]));
        let here = Here { owner: &owner, ledger: &has };
        let begun = |kept: &IPReservation, cut: bool| {
            let me = here.holder_of(kept, "u1", &[address(8)]);
            here.settling(kept, Some(me), false, |_| cut, |address| address.to_string() == "10.0.0.8", true)
        };
        let (first, looked) = begun(&kept(&[7], None), false);
        assert_eq!((first.seen, looked), (Signs::default(), BTreeSet::new()));
        assert_eq!(begun(&kept(&[7], None), true).1, [address(7)].into());
        let (first, looked) = begun(&kept(&[7, 8], Some(("n2", "u0", &[9]))), false);
        assert!(first.seen.young && first.seen.fresh && !first.seen.attached);
        assert_eq!(looked, [address(8), address(9)].into());
        let (first, _) = begun(&kept(&[7], Some(("n1", "u0", &[7]))), false);
        assert!(!first.seen.fresh, "a pod of this machine");
    }
}
