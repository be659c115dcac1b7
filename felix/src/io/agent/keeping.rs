//! Addresses that are kept for one pod ([`twill_ipam::holder`]): which node has them is written into the IPReservation before anything of this
//! node has them, and taken back after nothing has. One write of a reservation at a time, and the next is decided on only when that was heard of.

mod known;

use super::attach::Wait;
use super::{Agent, later};
use crate::cni::{Add, Failure, Reason};
use crate::io::agent::Done;
use crate::io::calls;
use crate::io::route;
use crate::workload::supply::is_had_here;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use twill_crds::ip_reservation::Holder;
use twill_crds::{IPReservation, Object, Pod};
use twill_datastore::{Datastore, Error, Filter, Followed};
use twill_ipam::holder::{self, Hindrance, Next, Signs};
use twill_ipam::{Kind, Sandbox, Seen};

/// Pause before a holder that was in the way is looked at again.
const PAUSE: Duration = Duration::from_secs(1);

/// What is going on with reservations.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// Looked at or written now, by name.
    under_way: BTreeSet<String>,
    /// Written, and not heard of yet: at which revision.
    written: BTreeMap<String, u64>,
    /// What was in the way, and until when that is not asked again.
    waits: BTreeMap<String, (String, Instant)>,
    /// UIDs of pods that had addresses here and have them no more.
    ended: BTreeSet<String>,
    /// Since when addresses are known to be kept.
    known: known::Known,
}

/// How a look at a holder, and the write after it, went.
#[derive(Debug)]
pub enum Kept {
    /// Written.
    Written(u64),
    /// Somebody wrote it meanwhile, or deleted it.
    Changed,
    /// The holder, or nobody is said to be one, and what is in the way.
    InTheWay(Option<Holder>, Hindrance),
}

impl Keeping {
    /// Takes in what is told about reservations. What was written later than a list is of a datastore that has been put back to an earlier state,
    /// and is not heard of any more.
    pub(super) fn hear(&mut self, followed: &Followed<IPReservation>, now: Instant) {
        if let Followed::Synced { items, revision } = followed {
            let names: BTreeSet<&str> = items.iter().map(Object::name).collect();
            self.written.retain(|name, at| *at <= revision.0 && names.contains(name.as_str()));
            self.waits.retain(|name, _| names.contains(name.as_str()));
        }
        if let Followed::Deleted(gone, _) = followed {
            self.written.remove(gone.name());
            self.waits.remove(gone.name());
        }
        self.known.hear(followed, now);
    }

    /// Nothing of ours is on the way to it.
    fn is_settled(&self, reservation: &IPReservation) -> bool {
        let written = self.written.get(reservation.name());
        !self.under_way.contains(reservation.name()) && written.is_none_or(|at| revision(reservation) >= *at)
    }
}

impl Agent {
    /// What is kept for the pod of this ADD, once this node holds it.
    pub(super) fn kept_for(&mut self, add: &Add, away: bool) -> Result<Option<Arc<IPReservation>>, Wait> {
        if add.origin.kind != Kind::Workload {
            return Ok(None);
        }
        let Some(kept) = self.supply.kept_for(&add.namespace, &add.pod) else { return Ok(None) };
        let (name, me) = (kept.name().to_owned(), self.holder_of(&kept, &add.uid, &kept.spec.addresses));
        // Another interface of the same container has others.
        let second = |held: &twill_ipam::Attachment| {
            held.sandbox.container_id == add.sandbox.container_id && held.sandbox != add.sandbox
        };
        if kept.spec.addresses.iter().any(|address| self.store.ledger().holder(*address).is_some_and(second)) {
            return Ok(None);
        }
        for address in &kept.spec.addresses {
            let refused =
                |error: crate::workload::supply::NoAddress| Failure::new(Reason::AddressRefused, error.to_string());
            self.supply.keepable(&name, *address).map_err(refused)?;
            self.refuse_in_use(&name, *address, add)?;
            // While it has it the holder must be its own.
            if let Some(held) = self.store.ledger().holder(*address).filter(|held| held.uid != add.uid) {
                return Err(Wait::For(is_had_here(&name, *address, held)));
            }
            if let Some(why) = self.held_by_another(&name, *address, &me) {
                return Err(Wait::For(why));
            }
        }
        let is_settled = self.keeping.is_settled(&kept);
        if is_settled && holder::holds(kept.holder(), &me) {
            return Ok(Some(kept));
        }
        if is_settled && !away {
            self.settle_holder(&kept, Some(me), false);
        }
        let why = self.keeping.waits.get(&name).map(|(why, _)| why.clone());
        let why = why.unwrap_or_else(|| "the datastore did not say so".to_owned());
        Err(Wait::For(format!(
            "IPReservation {name} keeps addresses for this pod, which this node does not hold: {why}; not"
        )))
    }

    /// A pod elsewhere that got the address before it was reserved keeps it.
    fn refuse_in_use(&self, name: &str, address: IpAddr, add: &Add) -> Result<(), Failure> {
        let is_other = |pod: &&crate::model::Pod| {
            pod.node != self.node && (pod.key.namespace != add.namespace || pod.key.name != add.pod)
        };
        let Some(pod) = self.compiler.claimants(address).find(is_other) else { return Ok(()) };
        let message = format!(
            "IPReservation {name} keeps {address} for this pod, and pod {} on node {} has it since before; delete that pod, so that it comes \
             back with another",
            pod.key, pod.node
        );
        Err(Failure::new(Reason::AddressRefused, message))
    }

    /// By another reservation, which was edited since, some pod has it.
    fn held_by_another(&self, name: &str, address: IpAddr, me: &Holder) -> Option<String> {
        let mut others =
            self.supply.holders(address).filter(|(other, holder)| *other != name && !holder::is_same(holder, me));
        let (other, holder) = others.next()?;
        Some(format!(
            "IPReservation {name} keeps {address} for this pod, and by IPReservation {other} the pod with UID {} on node {} still has it; it was not \
             given up",
            holder.pod_uid, holder.node
        ))
    }

    /// A pod of this node as holder: of what the reservation keeps for it, it has what it is written to have, what it has here, and what it
    /// `wants`; and what it was written to have before an edit and still has.
    fn holder_of(&self, kept: &IPReservation, uid: &str, wants: &[IpAddr]) -> Holder {
        let claimant = Some(self.supply.owner().claimant.clone());
        let me = Holder { node: self.node.clone(), claimant, pod_uid: uid.to_owned(), addresses: Vec::new() };
        let ours = kept.holder().filter(|holder| holder::is_same(holder, &me));
        let named = ours.map(|holder| holder.addresses.as_slice()).unwrap_or_default();
        let has = |address: &IpAddr| self.store.ledger().holder(*address).is_some_and(|held| held.uid == uid);
        let keeps = &kept.spec.addresses;
        let of_kept = keeps.iter().filter(|one| wants.contains(one) || named.contains(one) || has(one));
        let earlier = named.iter().filter(|one| !keeps.contains(one) && has(one));
        let addresses = of_kept.chain(earlier).copied().collect();
        Holder { addresses, ..me }
    }

    /// Takes back what nobody here has any more, and writes down what pods here have.
    pub(super) fn give_up_kept(&mut self) {
        if self.heard_up_to().is_none() {
            return;
        }
        for kept in self.supply.held_here() {
            let Some(holder) = kept.holder().cloned() else { continue };
            let (uid, ours) = (&holder.pod_uid, self.supply.is_ours(&holder));
            let attached = ours && self.store.ledger().attachments().any(|held| held.uid == *uid);
            if attached || self.pending.iter().any(|pending| pending.is_of(uid)) || !self.keeping.is_settled(&kept) {
                continue;
            }
            let ended = ours && self.keeping.ended.contains(uid);
            // Its next sandbox may be on the way.
            if !ended && self.compiler.pods().any(|pod| pod.uid == *uid) {
                continue;
            }
            self.settle_holder(&kept, None, ended);
        }
        let held: BTreeSet<String> =
            self.supply.held_here().iter().filter_map(|one| Some(one.holder()?.pod_uid.clone())).collect();
        self.keeping.ended.retain(|uid| held.contains(uid));
        self.write_down_kept();
    }

    /// A pod may have had an address before it was kept for it, or its reservation was deleted and made again: it is the holder if nobody else is.
    /// What it is written to have, is not kept for it any more and was let go is given up.
    fn write_down_kept(&mut self) {
        let attached = self.store.ledger().attachments().filter(|held| held.origin.kind == Kind::Workload);
        let pods: BTreeSet<_> =
            attached.map(|held| (held.namespace.clone(), held.pod.clone(), held.uid.clone())).collect();
        for (namespace, pod, uid) in pods {
            let Some(kept) = self.supply.kept_for(&namespace, &pod) else { continue };
            let me = self.holder_of(&kept, &uid, &[]);
            let same = kept.holder().map(|holder| holder::is_same(holder, &me));
            let next = holder::take(kept.holder(), &me, Signs::default());
            let is_busy = self.pending.iter().any(|pending| pending.is_of(&uid)) || !self.keeping.is_settled(&kept);
            if same == Some(false) || next == Next::Stays || is_busy || self.pod_of(&namespace, &pod, &uid).is_none() {
                continue;
            }
            if me.addresses.is_empty() {
                if same.is_some() {
                    self.settle_holder(&kept, None, true);
                }
                continue;
            }
            let is_others = |address: &IpAddr| {
                self.held_by_another(kept.name(), *address, &me).is_some()
                    || self.compiler.claimants(*address).any(|pod| pod.uid != uid)
            };
            if !me.addresses.iter().any(is_others) {
                self.settle_holder(&kept, Some(me), false);
            }
        }
    }

    /// An attachment ended here.
    pub(super) fn kept_ended(&mut self, uid: &str) {
        if self.supply.held_here().iter().any(|one| one.holder().is_some_and(|holder| holder.pod_uid == uid)) {
            self.keeping.ended.insert(uid.to_owned());
            self.give_up_kept();
        }
    }

    /// Looks and writes beside the agent, if it is time.
    fn settle_holder(&mut self, kept: &Arc<IPReservation>, wanted: Option<Holder>, ended: bool) {
        let name = kept.name().to_owned();
        if !ended && self.keeping.waits.get(&name).is_some_and(|(_, until)| Instant::now() < *until) {
            return;
        }
        let signs = match self.signs(kept, wanted.as_ref()) {
            Ok(signs) => signs,
            Err(why) => {
                self.keeping.waits.insert(name, (why, later(PAUSE)));
                return;
            }
        };
        self.keeping.under_way.insert(name.clone());
        let (store, done, kept) = (self.datastore.clone(), self.done.clone(), kept.as_ref().clone());
        tokio::spawn(async move {
            let outcome = settle(&store, kept, wanted, signs, ended).await;
            let _ = done.send(Done::Kept { name, outcome });
        });
    }

    /// What this node sees of the holder and of what is wanted; whether the holder's pod exists is not among it.
    fn signs(&mut self, kept: &IPReservation, wanted: Option<&Holder>) -> Result<Signs, String> {
        let holder = kept.holder();
        let named = holder.map(|holder| holder.addresses.as_slice()).unwrap_or_default();
        let is_same = holder.zip(wanted).is_some_and(|(holder, me)| holder::is_same(holder, me));
        let wants = wanted.iter().flat_map(|me| &me.addresses).filter(|one| !(is_same && named.contains(one)));
        // What a pod here has and uses, nobody else does.
        let uses = |address: &&IpAddr| {
            let held = self.store.ledger().holder(**address).filter(|held| !self.isolation.holds(&held.sandbox));
            held.zip(wanted).is_some_and(|(held, me)| held.uid == me.pod_uid)
        };
        let mut doubted: BTreeSet<IpAddr> = wants.filter(|address| !uses(address)).copied().collect();
        let now = Instant::now();
        let is_young = |address: &IpAddr| {
            self.supply.is_in_anothers_block(*address) && self.keeping.known.is_young(kept, *address, now)
        };
        let mut signs = Signs { young: doubted.iter().any(is_young), ..Signs::default() };
        if let Some(holder) = holder.filter(|_| !is_same) {
            doubted.extend(named);
            let has = |held: &twill_ipam::Attachment| held.uid == holder.pod_uid;
            signs.attached = self.supply.is_ours(holder) && self.store.ledger().attachments().any(has);
        }
        let refused = |error: crate::io::link::KernelError| calls::refused(&error).to_string();
        for address in &doubted {
            let route = route::leads_elsewhere(&mut self.rtnl, *address).map_err(refused)?;
            signs.routed |= route.is_some_and(|route| self.supply.tells(route, *address, holder));
        }
        if !doubted.is_empty() {
            let own = self.supply.own();
            signs.blind = !route::unreachable(&mut self.rtnl).map_err(refused)?.iter().any(|cidr| own.contains(cidr));
        }
        Ok(signs)
    }

    /// A look at a holder, or a write, has ended.
    pub(super) fn kept(&mut self, name: String, outcome: Result<Kept, Error>) {
        self.keeping.under_way.remove(&name);
        let why = match outcome {
            Ok(Kept::Written(at)) => {
                tracing::info!(reservation = %name, "who has the addresses that are kept was written");
                self.keeping.written.insert(name.clone(), at);
                self.keeping.waits.remove(&name);
                return;
            }
            Ok(Kept::Changed) => return drop(self.keeping.waits.remove(&name)),
            Ok(Kept::InTheWay(holder, hindrance)) => in_the_way(holder.as_ref(), hindrance),
            Err(error) => error.to_string(),
        };
        self.keeping.waits.insert(name, (why, later(PAUSE)));
    }

    /// Attachments whose address is kept for a pod that is elsewhere by now, each with the address as the block that took it.
    pub(super) fn moved_on(&self) -> BTreeMap<Sandbox, Seen> {
        let mut moved = BTreeMap::new();
        for held in self.store.ledger().attachments() {
            for address in &held.addresses {
                let is_else = |holder: &&Holder| !self.supply.is_ours(holder) || holder.pod_uid != held.uid;
                if let Some(holder) = self.supply.holders(*address).map(|(_, holder)| holder).find(is_else) {
                    let (node, claimant) = (holder.node.clone(), holder.claimant.clone());
                    let seen = Seen { cidr: (*address).into(), node, claimant, used: None };
                    moved.insert(held.sandbox.clone(), seen);
                }
            }
        }
        moved
    }
}

/// Decides by what the datastore has now, and writes by compare-and-swap on what was heard.
async fn settle(
    store: &Datastore,
    mut kept: IPReservation,
    wanted: Option<Holder>,
    mut signs: Signs,
    ended: bool,
) -> Result<Kept, Error> {
    let holder = kept.holder().cloned();
    let decide = |seen| match &wanted {
        Some(me) => holder::take(holder.as_ref(), me, seen),
        None => holder::give_up(ended, seen),
    };
    let mut next = decide(signs);
    if let (Next::Look, Some(holder)) = (next, &holder) {
        let fields = vec![("spec.nodeName".to_owned(), holder.node.clone())];
        let pods = store.list::<Pod>(&Filter { fields, ..Filter::default() }).await?.items;
        signs.exists = Some(pods.iter().any(|pod| pod.metadata.uid.as_ref() == Some(&holder.pod_uid)));
        next = decide(signs);
    }
    match next {
        Next::Wait(hindrance) => return Ok(Kept::InTheWay(holder, hindrance)),
        Next::Write => {}
        _ => return Ok(Kept::Changed),
    }
    kept.status.get_or_insert_default().holder = wanted;
    match store.update_status(&kept).await {
        Ok(kept) => Ok(Kept::Written(revision(&kept))),
        Err(Error::Conflict(_) | Error::NotFound(_)) => Ok(Kept::Changed),
        Err(error) => Err(error),
    }
}

/// Why the holder cannot be written, and what a person can do; without its end.
fn in_the_way(holder: Option<&Holder>, hindrance: Hindrance) -> String {
    let Some(Holder { node, pod_uid, .. }) = holder else { return hindrance.to_string() };
    let has = format!("node {node} has them for a pod with UID {pod_uid}");
    match hindrance {
        Hindrance::Attached | Hindrance::Exists => format!("{has}, which {hindrance}"),
        Hindrance::Lingers => format!(
            "{has}, which {hindrance}; end its container there (twill ipam local on that node names it), or delete Node {node} if the machine is lost"
        ),
        Hindrance::Routed | Hindrance::Blind | Hindrance::Young => hindrance.to_string(),
    }
}

fn revision(reservation: &IPReservation) -> u64 {
    reservation.meta().resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use twill_datastore::Revision;

    #[test]
    fn what_was_written_to_a_datastore_that_was_put_back_or_to_what_is_gone_is_not_waited_for() {
        let mut one = IPReservation::new("db", Default::default());
        one.metadata.resource_version = Some("3".into());
        let mut keeping = Keeping { written: [("db".to_owned(), 9)].into(), ..Keeping::default() };
        let synced = |items: &[&IPReservation], revision| {
            let items = items.iter().map(|one| (*one).clone()).collect();
            Followed::Synced { items, revision: Revision(revision) }
        };
        keeping.hear(&synced(&[&one], 9), Instant::now());
        assert!(!keeping.is_settled(&one));
        keeping.hear(&synced(&[&one], 8), Instant::now());
        assert!(keeping.is_settled(&one));
        for gone in [synced(&[], 10), Followed::Deleted(one.clone(), Revision(10))] {
            keeping.written.insert("db".to_owned(), 9);
            keeping.hear(&gone, Instant::now());
            assert!(keeping.written.is_empty());
        }
    }
}
