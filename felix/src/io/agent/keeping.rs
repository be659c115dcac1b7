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
use twill_crds::{IPReservation, Object, Pod};
use twill_datastore::{Datastore, Error, Filter};
use twill_ipam::holder::{self, Next, Signs};
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
}

/// How a look at a holder, and the write after it, went.
#[derive(Debug)]
pub enum Kept {
    /// Written.
    Written(u64),
    /// Somebody wrote it meanwhile, or deleted it.
    Changed,
    /// The holder is in the way: what was seen of it.
    InTheWay(Holder, &'static str),
}

impl Keeping {
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
        let (name, me) = (kept.name().to_owned(), Holder { node: self.node.clone(), pod_uid: add.uid.clone() });
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
        }
        let is_settled = self.keeping.is_settled(&kept);
        if is_settled && holder::take(kept.holder(), &me, None) == Next::Stays {
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

    /// Takes back what nobody here has any more.
    pub(super) fn give_up_kept(&mut self) {
        if self.heard_up_to().is_none() {
            return;
        }
        for kept in self.supply.held_here() {
            let Some(uid) = kept.holder().map(|holder| holder.pod_uid.clone()) else { continue };
            let attached = self.store.ledger().attachments().any(|held| held.uid == uid);
            if attached || self.pending.iter().any(|pending| pending.is_of(&uid)) || !self.keeping.is_settled(&kept) {
                continue;
            }
            let ended = self.keeping.ended.contains(&uid);
            // Its next sandbox may be on the way.
            if !ended && self.compiler.pods().any(|pod| pod.uid == uid) {
                continue;
            }
            self.settle_holder(&kept, None, ended);
        }
        let held: BTreeSet<String> =
            self.supply.held_here().iter().filter_map(|one| Some(one.holder()?.pod_uid.clone())).collect();
        self.keeping.ended.retain(|uid| held.contains(uid));
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
        let holder = kept.holder().cloned();
        let signs = match &holder {
            Some(holder) => match self.signs(kept, holder) {
                Ok(signs) => signs,
                Err(why) => {
                    self.keeping.waits.insert(name, (why, later(PAUSE)));
                    return;
                }
            },
            None => Signs::default(),
        };
        self.keeping.under_way.insert(name.clone());
        let (store, done, kept) = (self.datastore.clone(), self.done.clone(), kept.as_ref().clone());
        tokio::spawn(async move {
            let outcome = settle(&store, kept, wanted, signs, ended).await;
            let _ = done.send(Done::Kept { name, outcome });
        });
    }

    /// What this node sees of a holder; whether its pod exists is not among it.
    fn signs(&mut self, kept: &IPReservation, holder: &Holder) -> Result<Signs, String> {
        let attached = self.store.ledger().attachments().any(|held| held.uid == holder.pod_uid);
        let mut routed = false;
        for address in &kept.spec.addresses {
            // In a block of the holder's node the address has no route of its own.
            let led = match self.supply.is_in_block_of(*address, &holder.node) {
                true => route::leads_elsewhere(&mut self.rtnl, *address),
                false => route::learned(&mut self.rtnl, (*address).into(), |_| false).map(|found| found.is_some()),
            };
            routed |= led.map_err(|error| calls::refused(&error).to_string())?;
        }
        Ok(Signs { attached, routed, exists: false })
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
            Ok(Kept::InTheWay(Holder { node, pod_uid }, sign)) => {
                format!("node {node} has them for a pod with UID {pod_uid}, which {sign}")
            }
            Err(error) => error.to_string(),
        };
        self.keeping.waits.insert(name, (why, later(PAUSE)));
    }

    /// Attachments whose address is kept for a pod that is elsewhere by now, each with the address as the block that took it.
    pub(super) fn moved_on(&self) -> BTreeMap<Sandbox, Seen> {
        let mut moved = BTreeMap::new();
        for held in self.store.ledger().attachments() {
            for address in &held.addresses {
                let is_else = |holder: &&Holder| holder.node != self.node || holder.pod_uid != held.uid;
                if let Some(holder) = self.supply.holders(*address).find(is_else) {
                    let seen = Seen { cidr: (*address).into(), node: holder.node.clone(), claimant: None, used: None };
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
    let mut next = decide(None);
    if let (Next::Look, Some(holder)) = (next, &holder) {
        let fields = vec![("spec.nodeName".to_owned(), holder.node.clone())];
        let pods = store.list::<Pod>(&Filter { fields, ..Filter::default() }).await?.items;
        signs.exists = pods.iter().any(|pod| pod.metadata.uid.as_ref() == Some(&holder.pod_uid));
        next = decide(Some(signs));
    }
    match (next, holder) {
        (Next::Wait(sign), Some(holder)) => return Ok(Kept::InTheWay(holder, sign)),
        (Next::Write, _) => {}
        _ => return Ok(Kept::Changed),
    }
    kept.status.get_or_insert_default().holder = wanted;
    match store.update_status(&kept).await {
        Ok(kept) => Ok(Kept::Written(revision(&kept))),
        Err(Error::Conflict(_) | Error::NotFound(_)) => Ok(Kept::Changed),
        Err(error) => Err(error),
    }
}

fn revision(reservation: &IPReservation) -> u64 {
    reservation.meta().resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default()
}
