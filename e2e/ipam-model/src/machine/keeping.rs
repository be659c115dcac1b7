//! Addresses that are kept for pods: who gets them, what is written of them, and who is cut off for them.

use super::{Link, Machine, pool};
use crate::cluster::{Cluster, NAMES};
use crate::mutants::Mutant;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use twill_crds::ip_reservation::Holder;
use twill_datastore::{Followed, Revision};
use twill_ipam::holder::{Hindrance, Next, Settling};
use twill_ipam::kept::{Course, Taking, by_another};
use twill_ipam::routed::Around;
use twill_ipam::{Here, Known};

/// What is written of a reservation, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// That a pod has its address which is about to be attached.
    Attach,
    /// That nobody has it any more.
    GiveUp,
    /// That a pod has it which had it before, or has it no more since an edit.
    WriteDown,
}

/// What goes on with reservations, by their number; felix's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Keeping {
    known: Known,
    /// Looked at or written now, with the state that was heard of.
    settling: BTreeMap<u8, (Settling, (u16, u16))>,
    /// Written, and not heard of yet: at which revision.
    written: BTreeMap<u8, u16>,
    /// UIDs of pods that had addresses here and have them no more.
    ended: BTreeSet<String>,
}

/// What is to be written of a reservation.
#[derive(Clone, Debug)]
pub struct Wish {
    pub reservation: u8,
    pub why: Why,
    wanted: Option<Holder>,
    ended: bool,
}

/// What there is for a pod.
enum Offer {
    Nothing,
    /// An address, and whether it is kept.
    Address(IpAddr, bool),
    Unwritten(u8, Holder),
}

impl Machine {
    fn here(&self) -> Here<'_> {
        Here { owner: &self.owner, ledger: &self.ledger }
    }

    pub(super) fn name_of(&self, pod: u8) -> Option<u8> {
        self.view.pods.get(&pod)?.name
    }

    /// `before`: what was known, if all was heard before.
    pub(super) fn hear_reservations(&mut self, before: Option<&Cluster>, now: u64) {
        let none = |of: &Cluster| of.reservations.all.is_empty();
        if none(&self.view) && before.is_none_or(none) {
            return;
        }
        if let Some(before) = before {
            let uid = |of: &Cluster, cidr: &IpNet| of.blocks.get(cidr).map(|one| one.uid.to_string());
            for cidr in before.blocks.keys().chain(self.view.blocks.keys()) {
                let (old, new) = (uid(before, cidr), uid(&self.view, cidr));
                self.keeping.known.hear_block(*cidr, old.as_deref(), new.as_deref(), now);
            }
        }
        let all = &self.view.reservations.all;
        let told = Followed::Synced { items: self.view.reservations.objects(), revision: Revision(1) };
        self.keeping.known.hear(&told, now);
        self.keeping.written.retain(|name, _| all.contains_key(name));
        let held: BTreeSet<String> = self.held_here().map(|(_, holder)| holder.pod_uid.clone()).collect();
        self.keeping.ended.retain(|uid| held.contains(uid));
    }

    /// Reservations whose holder bears this node's name.
    fn held_here(&self) -> impl Iterator<Item = (u8, &Holder)> {
        let all = self.view.reservations.all.iter().filter_map(|(name, one)| Some((*name, one.holder.as_ref()?)));
        all.filter(|(_, holder)| holder.node == NAMES[self.name])
    }

    pub(super) fn isolate(&mut self, mutant: Option<Mutant>) {
        let ours = self.here().blocks(self.held_here().map(|(_, holder)| holder));
        let blocks = [self.view.seen(), ours].concat();
        let mut cut = self.owner.cut_off(&self.cut, &blocks, &self.ledger);
        if mutant != Some(Mutant::NeverCutsKept) {
            cut.extend(self.here().moved_on(|address| self.view.reservations.holders(address)));
        }
        self.cut = cut;
    }

    /// An attachment has ended.
    pub(super) fn kept_ended(&mut self, uid: &str) {
        if self.held_here().any(|(_, holder)| holder.pod_uid == uid) {
            self.keeping.ended.insert(uid.to_owned());
        }
    }

    /// Nothing of its own is on the way to it.
    fn is_settled(&self, name: u8) -> bool {
        let heard = self.view.reservations.all.get(&name).map(|one| one.revision);
        let written = self.keeping.written.get(&name);
        !self.keeping.settling.contains_key(&name) && written.is_none_or(|at| heard >= Some(*at))
    }

    /// Whether an ADD that began in time would go on: the datastore answered it.
    fn is_away(&self, now: u64) -> bool {
        let answered = self.hears() || self.link == Link::Unheard && self.lost == now;
        !self.heard || !answered
    }

    /// The address that a pod would get, and whether it is kept for it.
    pub fn given(&self, pod: u8, now: u64, others: &[IpNet], mutant: Option<Mutant>) -> Option<(IpAddr, bool)> {
        match self.offer(pod, now, others, mutant) {
            Offer::Address(address, kept) => Some((address, kept)),
            _ => None,
        }
    }

    fn offer(&self, pod: u8, now: u64, others: &[IpNet], mutant: Option<Mutant>) -> Offer {
        let pod_name = self.name_of(pod);
        let Some((name, kept)) = pod_name.and_then(|name| self.view.reservations.kept_for(name)) else {
            return self.address(now, others, mutant).map_or(Offer::Nothing, |address| Offer::Address(address, false));
        };
        let mut others = self.view.pods.values().filter(|other| other.node != self.name && other.name != pod_name);
        let in_use = others.any(|other| other.address == Some(kept.address));
        if in_use || self.is_away(now) && mutant != Some(Mutant::TakesUnheard) {
            return Offer::Nothing;
        }
        let (uid, object) = (pod.to_string(), kept.object(name));
        match self.here().taking(&object, &uid, |address| self.view.reservations.holders(address)) {
            Taking::Held if self.is_settled(name) => Offer::Address(kept.address, true),
            Taking::Unwritten(_) if mutant == Some(Mutant::TakesUnwritten) => Offer::Address(kept.address, true),
            Taking::Unwritten(me) if self.is_settled(name) && self.hears() => Offer::Unwritten(name, me),
            _ => Offer::Nothing,
        }
    }

    /// The pods of this node for which addresses may be kept, as far as they were heard of, that are not attached and will be.
    pub fn coming(&self) -> impl Iterator<Item = u8> {
        let here = self.view.pods.iter().filter(|(_, object)| object.node == self.name && object.name.is_some());
        here.map(|(pod, _)| *pod).filter(|pod| !self.has(*pod) && !self.done.contains(pod))
    }

    /// The number of the reservation's creation by which a pod would get its address.
    pub fn kept_by(&self, pod: u8) -> Option<(u8, u16)> {
        let (name, kept) = self.view.reservations.kept_for(self.name_of(pod)?)?;
        Some((name, kept.uid))
    }

    /// All that would be written of reservations, if what is seen allows it.
    pub fn wishes(&self, now: u64, others: &[IpNet], mutant: Option<Mutant>) -> Vec<Wish> {
        if !self.hears() || !self.heard || self.view.reservations.all.is_empty() {
            return Vec::new();
        }
        let mut all = Vec::new();
        for (reservation, holder) in self.held_here() {
            let (ended, uid) = (self.keeping.ended.contains(&holder.pod_uid), holder.pod_uid.parse().ok());
            let exists = uid.is_some_and(|uid: u8| self.view.pods.contains_key(&uid));
            let gives_up = self.here().gives_up(holder, Course { ended, comes: false, exists });
            if let Some(ended) = gives_up.filter(|_| mutant != Some(Mutant::NeverGivesUp)) {
                all.push(Wish { reservation, why: Why::GiveUp, wanted: None, ended });
            }
        }
        for held in self.here().workloads().filter(|_| mutant != Some(Mutant::NeverWritesDown)) {
            let (Ok(pod), Ok(name)) = (held.uid.parse::<u8>(), held.pod.parse::<u8>()) else { continue };
            let Some((reservation, kept)) = self.view.reservations.kept_for(name) else { continue };
            let object = kept.object(reservation);
            let Some(wanted) = self.here().writes_down(&object, &held.uid) else { continue };
            let by_status = |address: &IpAddr| {
                self.view.pods.iter().any(|(other, object)| *other != pod && object.address == Some(*address))
            };
            let is_others = |me: &Holder, address: &IpAddr| {
                by_another(&object, me, self.view.reservations.holders(*address)).is_some() || by_status(address)
            };
            if !wanted.as_ref().is_some_and(|me| me.addresses.iter().any(|address| is_others(me, address))) {
                all.push(Wish { reservation, why: Why::WriteDown, ended: wanted.is_none(), wanted });
            }
        }
        for pod in self.coming() {
            if let Offer::Unwritten(reservation, me) = self.offer(pod, now, others, mutant) {
                all.push(Wish { reservation, why: Why::Attach, wanted: Some(me), ended: false });
            }
        }
        all.retain(|wish| self.is_settled(wish.reservation));
        all
    }

    /// The beginning of a look and of the write after it, with all that is seen.
    fn begun(&self, wish: &Wish, now: u64, others: &[IpNet], mutant: Option<Mutant>) -> Settling {
        let kept = self.view.reservations.all[&wish.reservation].object(wish.reservation);
        let known = &self.keeping.known;
        let block = |address: IpAddr| self.view.blocks.values().find(|one| one.seen.cidr.contains(&address));
        let young = |address| {
            let another = block(address).filter(|one| !self.owner.owns(&one.seen)).map(|one| one.seen.cidr);
            let new = |cidr| known.is_new(cidr, now) && mutant != Some(Mutant::TakesNew);
            another.is_some_and(|cidr| known.is_young(&kept, address, now) || new(cidr))
        };
        let (cut, fresh) = (|sandbox: &_| self.cut.contains_key(sandbox), known.is_fresh(&kept, now));
        let (mut settling, doubted) = self.here().settling(&kept, wish.wanted.clone(), wish.ended, cut, young, fresh);
        let seen = &mut settling.seen;
        for address in &doubted {
            let block = block(*address).map(|one| (one.seen.cidr, one.seen.node.as_str()));
            let around = Around { block, pool: Some(pool()) };
            let route = self.leads_elsewhere(*address, others);
            seen.routed |= route.is_some_and(|route| around.tells(route, *address, kept.holder()));
        }
        seen.blind = !doubted.is_empty() && self.own().iter().all(|cidr| self.is_releasing(*cidr));
        match mutant {
            Some(Mutant::NoLookAtHolder) => (seen.exists, seen.fresh) = (Some(false), false),
            Some(Mutant::NoLookAtRoutes) => seen.routed = false,
            Some(Mutant::TakesYoung) => seen.young = false,
            Some(Mutant::TakesFresh) => seen.fresh = false,
            _ => {}
        }
        settling
    }

    /// The learned route by which the kernel sends to an address.
    fn leads_elsewhere(&self, address: IpAddr, others: &[IpNet]) -> Option<IpNet> {
        let held = self.ledger.holder(address).filter(|held| !self.cut.contains_key(&held.sandbox));
        let own = self.own().into_iter().filter(|cidr| cidr.contains(&address) && !self.is_releasing(*cidr));
        let own = own.map(|cidr| cidr.prefix_len()).max();
        let learned = others.iter().filter(|route| route.contains(&address)).max_by_key(|route| route.prefix_len());
        learned.copied().filter(|route| held.is_none() && Some(route.prefix_len()) >= own)
    }

    /// Whether a wish leads to anything, now, or to a look.
    pub fn is_looked_at(&self, wish: &Wish, now: u64, others: &[IpNet], mutant: Option<Mutant>) -> bool {
        let begun = self.begun(wish, now, others, mutant);
        matches!(begun.next(), Next::Look | Next::Write) || self.saw(wish.reservation, &begun, now).is_some()
    }

    /// Whether a wish leads to a write, or to waiting that begins.
    pub fn is_fruitful(&self, wish: &Wish, now: u64, others: &[IpNet], cluster: &Cluster) -> bool {
        let mut begun = self.begun(wish, now, others, None);
        look(&mut begun, cluster);
        begun.next() == Next::Write || self.saw(wish.reservation, &begun, now).is_some()
    }

    /// What is known then, if it is more than before.
    fn saw(&self, name: u8, settling: &Settling, now: u64) -> Option<Known> {
        let Next::Wait(hindrance) = settling.next() else { return None };
        let holder = settling.holder.as_ref().filter(|_| Hindrance::is_of_the_gone(hindrance))?;
        let mut known = self.keeping.known.clone();
        known.saw_gone(&self.view.reservations.all.get(&name)?.object(name), holder, now);
        (known != self.keeping.known).then_some(known)
    }

    /// Begins it.
    pub fn settle(&mut self, wish: &Wish, now: u64, others: &[IpNet], mutant: Option<Mutant>) {
        let begun = self.begun(wish, now, others, mutant);
        let version = self.view.reservations.all[&wish.reservation].version();
        self.go_on(wish.reservation, begun, version, now);
    }

    fn go_on(&mut self, name: u8, settling: Settling, version: (u16, u16), now: u64) {
        if let Some(known) = self.saw(name, &settling, now) {
            self.keeping.known = known;
        }
        if matches!(settling.next(), Next::Look | Next::Write) {
            self.keeping.settling.insert(name, (settling, version));
        }
    }

    /// Reservations that are looked at or written, and whether the next call is the write.
    pub fn settling(&self) -> impl Iterator<Item = (u8, bool)> {
        self.keeping.settling.iter().map(|(name, (settling, _))| (*name, settling.next() == Next::Write))
    }

    /// The next call: the look, or the write. `unheard`: its answer is lost.
    pub fn ask(&mut self, name: u8, cluster: &mut Cluster, now: u64, unheard: bool, mutant: Option<Mutant>) {
        let Some((mut settling, version)) = self.keeping.settling.remove(&name) else { return };
        if settling.next() == Next::Look {
            look(&mut settling, cluster);
            return self.go_on(name, settling, version, now);
        }
        let anyhow = mutant == Some(Mutant::NoCompare);
        let written = cluster.reservations.write(name, version, settling.wanted, anyhow).filter(|_| !unheard);
        self.keeping.written.extend(written.map(|revision| (name, revision)));
    }

    /// Calls under way fail.
    pub fn fail(&mut self) {
        self.keeping.settling.clear();
    }
}

/// Whether the holder's pod exists, as the datastore has it now.
fn look(settling: &mut Settling, cluster: &Cluster) {
    if let (Next::Look, Some(holder)) = (settling.next(), &settling.holder) {
        let mut pods = cluster.pods.iter().filter(|(_, pod)| NAMES[pod.node] == holder.node);
        let exists = pods.any(|(pod, _)| pod.to_string() == holder.pod_uid);
        settling.looked(exists);
    }
}
