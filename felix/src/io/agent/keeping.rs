//! Addresses that are kept for one pod ([`twill_ipam::holder`]): which node has them is written into the IPReservation before anything of this
//! node has them, and taken back after nothing has. One write of a reservation at a time, and the next is decided on only when that was heard of.

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
use twill_crds::{IPBlock, IPReservation, Object, Pod};
use twill_datastore::{Change, Datastore, Error, Filter, Followed};
use twill_ipam::holder::{Hindrance, Next, Settling};
use twill_ipam::kept::{self, Course, Taking};
use twill_ipam::{Here, Kind, Known, Sandbox, Seen};

/// Pause before a holder that was in the way is looked at again.
const PAUSE: Duration = Duration::from_secs(1);

/// What is going on with reservations.
#[derive(Debug)]
pub(super) struct Keeping {
    /// Looked at or written now, by name.
    under_way: BTreeSet<String>,
    /// Written, and not heard of yet: at which revision.
    written: BTreeMap<String, u64>,
    /// What was in the way, and until when that is not asked again.
    waits: BTreeMap<String, (String, Instant)>,
    /// UIDs of pods that had addresses here and have them no more.
    ended: BTreeSet<String>,
    /// Since when addresses are known to be kept, and pods of holders to be gone.
    known: Known,
    /// Whence its time counts.
    begun: Instant,
}

impl Default for Keeping {
    fn default() -> Self {
        let known = Known::default();
        let (under_way, written, waits, ended) = Default::default();
        Self { under_way, written, waits, ended, known, begun: Instant::now() }
    }
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
        self.known.hear(followed, self.at(now));
    }

    /// Takes in what became of a block.
    pub(super) fn hear_block(&mut self, change: &Change<IPBlock>, now: Instant) {
        let uid = |block: &Option<Arc<IPBlock>>| block.as_ref().and_then(|block| block.metadata.uid.clone());
        if let Some(block) = change.new.as_ref().or(change.old.as_ref()) {
            let (old, new, now) = (uid(&change.old), uid(&change.new), self.at(now));
            self.known.hear_block(block.spec.cidr, old.as_deref(), new.as_deref(), now);
        }
    }

    fn at(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.begun).as_millis()).unwrap_or(u64::MAX)
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
        let name = kept.name().to_owned();
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
        }
        let me = match self.here().taking(&kept, &add.uid, |address| self.supply.holders(address)) {
            Taking::HadHere(address, held) => return Err(Wait::For(is_had_here(&name, address, held))),
            Taking::HeldBy(address, other, holder) => return Err(Wait::For(held_by(&name, address, other, holder))),
            // Nobody here would hear that another passed over it, because its pod is gone.
            _ if away => {
                return Err(Wait::For(format!(
                    "IPReservation {name} keeps addresses for this pod, and whether this node still holds them only the datastore can say, \
                     which did not answer"
                )));
            }
            Taking::Held => None,
            Taking::Unwritten(me) => Some(me),
        };
        if self.keeping.is_settled(&kept) {
            let Some(me) = me else { return Ok(Some(kept)) };
            self.settle_holder(&kept, Some(me), false);
        }
        let why = self.keeping.waits.get(&name).map(|(why, _)| why.clone());
        let why = why.unwrap_or_else(|| "the datastore did not say so".to_owned());
        Err(Wait::For(format!(
            "IPReservation {name} keeps addresses for this pod, which this node does not hold: {why}; not"
        )))
    }

    fn here(&self) -> Here<'_> {
        Here { owner: self.supply.owner(), ledger: self.store.ledger() }
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

    /// Takes back what nobody here has any more, and writes down what pods here have.
    pub(super) fn give_up_kept(&mut self) {
        if self.heard_up_to().is_none() {
            return;
        }
        for kept in self.supply.held_here() {
            let Some(holder) = kept.holder().cloned() else { continue };
            let uid = &holder.pod_uid;
            let pod = Course {
                ended: self.keeping.ended.contains(uid),
                comes: self.pending.iter().any(|pending| pending.is_of(uid)),
                exists: self.compiler.pods().any(|pod| pod.uid == *uid),
            };
            let Some(ended) = self.here().gives_up(&holder, pod) else { continue };
            if !self.keeping.is_settled(&kept) {
                continue;
            }
            self.settle_holder(&kept, None, ended);
        }
        let held: BTreeSet<String> =
            self.supply.held_here().iter().filter_map(|one| Some(one.holder()?.pod_uid.clone())).collect();
        self.keeping.ended.retain(|uid| held.contains(uid));
        self.write_down_kept();
    }

    /// What pods here had before it was kept for them, or have no more of what they are written to have.
    fn write_down_kept(&mut self) {
        let attached = self.here().workloads();
        let pods: BTreeSet<_> =
            attached.map(|held| (held.namespace.clone(), held.pod.clone(), held.uid.clone())).collect();
        for (namespace, pod, uid) in pods {
            let Some(kept) = self.supply.kept_for(&namespace, &pod) else { continue };
            let Some(wanted) = self.here().writes_down(&kept, &uid) else { continue };
            let is_busy = self.pending.iter().any(|pending| pending.is_of(&uid)) || !self.keeping.is_settled(&kept);
            // Its Pod may be gone, deleted by force or with its Node: as long as it is here, it has them.
            if is_busy {
                continue;
            }
            let is_others = |me: &Holder, address: &IpAddr| {
                kept::by_another(&kept, me, self.supply.holders(*address)).is_some()
                    || self.compiler.claimants(*address).any(|pod| pod.uid != uid)
            };
            if !wanted.as_ref().is_some_and(|me| me.addresses.iter().any(|address| is_others(me, address))) {
                let ended = wanted.is_none();
                self.settle_holder(&kept, wanted, ended);
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
        let settling = match self.settling(kept, wanted, ended) {
            Ok(settling) => settling,
            Err(why) => {
                self.keeping.waits.insert(name, (why, later(PAUSE)));
                return;
            }
        };
        self.keeping.under_way.insert(name.clone());
        let (store, done, kept) = (self.datastore.clone(), self.done.clone(), kept.as_ref().clone());
        tokio::spawn(async move {
            let outcome = settle(&store, kept, settling).await;
            let _ = done.send(Done::Kept { name, outcome });
        });
    }

    /// What this node sees of the holder and of what is wanted; whether the holder's pod exists is not among it.
    fn settling(&mut self, kept: &IPReservation, wanted: Option<Holder>, ended: bool) -> Result<Settling, String> {
        let now = self.keeping.at(Instant::now());
        let known = &self.keeping.known;
        let is_young = |address| {
            let another = self.supply.anothers_block(address);
            another.is_some_and(|cidr| known.is_young(kept, address, now) || known.is_new(cidr, now))
        };
        let (is_cut, fresh) = (|one: &Sandbox| self.isolation.holds(one), known.is_fresh(kept, now));
        let (mut settling, doubted) = self.here().settling(kept, wanted, ended, is_cut, is_young, fresh);
        let refused = |error: crate::io::link::KernelError| calls::refused(&error).to_string();
        for address in &doubted {
            let route = route::leads_elsewhere(&mut self.rtnl, *address).map_err(refused)?;
            settling.seen.routed |= route.is_some_and(|route| self.supply.tells(route, *address, kept.holder()));
        }
        if !doubted.is_empty() {
            let own = self.supply.own();
            let routed = route::unreachable(&mut self.rtnl).map_err(refused)?;
            settling.seen.blind = !routed.iter().any(|cidr| own.contains(cidr));
        }
        Ok(settling)
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
            Ok(Kept::InTheWay(holder, hindrance)) => {
                self.saw_gone(&name, holder.as_ref(), hindrance);
                in_the_way(holder.as_ref(), hindrance)
            }
            Err(error) => error.to_string(),
        };
        self.keeping.waits.insert(name, (why, later(PAUSE)));
    }

    /// Another node's pod is gone: its time begins.
    fn saw_gone(&mut self, name: &str, holder: Option<&Holder>, hindrance: Hindrance) {
        let Some((holder, kept)) = holder.filter(|_| hindrance.is_of_the_gone()).zip(self.supply.reservation(name))
        else {
            return;
        };
        let now = self.keeping.at(Instant::now());
        self.keeping.known.saw_gone(kept, holder, now);
    }

    /// Attachments whose address is kept for a pod that is elsewhere by now, each with the address as the block that took it.
    pub(super) fn moved_on(&self) -> BTreeMap<Sandbox, Seen> {
        self.here().moved_on(|address| self.supply.holders(address))
    }
}

/// Decides by what the datastore has now, and writes by compare-and-swap on what was heard.
async fn settle(store: &Datastore, mut kept: IPReservation, mut settling: Settling) -> Result<Kept, Error> {
    if let (Next::Look, Some(holder)) = (settling.next(), &settling.holder) {
        let fields = vec![("spec.nodeName".to_owned(), holder.node.clone())];
        let pods = store.list::<Pod>(&Filter { fields, ..Filter::default() }).await?.items;
        let exists = pods.iter().any(|pod| pod.metadata.uid.as_ref() == Some(&holder.pod_uid));
        settling.looked(exists);
    }
    match settling.next() {
        Next::Wait(hindrance) => return Ok(Kept::InTheWay(settling.holder, hindrance)),
        Next::Write => {}
        _ => return Ok(Kept::Changed),
    }
    kept.status.get_or_insert_default().holder = settling.wanted;
    match store.update_status(&kept).await {
        Ok(kept) => Ok(Kept::Written(revision(&kept))),
        Err(Error::Conflict(_) | Error::NotFound(_)) => Ok(Kept::Changed),
        Err(error) => Err(error),
    }
}

/// By another reservation, which was edited since, some pod has it; a sentence without its end.
fn held_by(name: &str, address: IpAddr, other: &str, holder: &Holder) -> String {
    format!(
        "IPReservation {name} keeps {address} for this pod, and by IPReservation {other} the pod with UID {} on node {} still has it; it was not \
         given up",
        holder.pod_uid, holder.node
    )
}

/// Why the holder cannot be written, and what a person can do; without its end.
fn in_the_way(holder: Option<&Holder>, hindrance: Hindrance) -> String {
    let Some(Holder { node, pod_uid, .. }) = holder else { return hindrance.to_string() };
    let has = format!("node {node} has them for a pod with UID {pod_uid}");
    match hindrance {
        Hindrance::Attached | Hindrance::Exists | Hindrance::Fresh => format!("{has}, which {hindrance}"),
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
