//! Pods whose address has become another's: the block that it lies in was deleted, and claimed by somebody else, while they run. They
//! are cut off: closed both ways in the table, in one commit, and without local routes, so that this node and its other pods reach
//! the new owner's. They stay so until the block is ours again and ready; it may be nobody's in between.

use super::{Agent, name};
use crate::index::Event;
use crate::io::conntrack;
use crate::workload::interface_name;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use std::net::IpAddr;
use twill_crds::{IPReservation, Object, Pod, names};
use twill_datastore::Key;
use twill_datastore::event::{Occurrence, Severity, reference};
use twill_ipam::{Attachment, Sandbox, Seen};

/// Who is cut off.
#[derive(Debug, Default)]
pub(super) struct Isolation {
    /// With the block that took their address.
    taken: BTreeMap<Sandbox, Seen>,
    /// The kernel does not have it yet.
    due: bool,
}

impl Isolation {
    pub(super) fn holds(&self, sandbox: &Sandbox) -> bool {
        self.taken.contains_key(sandbox)
    }

    /// Whether the kernel is to be brought up to it.
    pub(super) fn due(&self) -> bool {
        self.due
    }
}

impl Agent {
    /// Who must be cut off now. The table follows with the next commit, routes after it.
    pub(super) fn isolate(&mut self) {
        let blocks = [self.supply.seen(), self.supply.kept_here(self.store.ledger())].concat();
        let mut taken = self.supply.owner().cut_off(&self.isolation.taken, &blocks, self.store.ledger());
        taken.extend(self.moved_on());
        taken.retain(|sandbox, _| !self.stays_open(&interface_name(&sandbox.container_id, &sandbox.ifname)));
        if taken.keys().eq(self.isolation.taken.keys()) {
            self.isolation.taken = taken;
            return;
        }
        let before = std::mem::replace(&mut self.isolation.taken, taken);
        self.isolation.due = true;
        self.tell_compiler();
        let new: Vec<Sandbox> = self.isolation.taken.keys().filter(|s| !before.contains_key(*s)).cloned().collect();
        for sandbox in before.keys().filter(|sandbox| !self.isolation.holds(sandbox)) {
            tracing::info!(container = %sandbox.container_id, "pod's address is ours again; cut off no more");
        }
        self.tell_people(&new);
    }

    /// An attachment ends; whatever comes on its interface next is judged anew. Whether it was cut off.
    pub(super) fn isolation_ends(&mut self, sandbox: &Sandbox) -> bool {
        let was = self.isolation.taken.remove(sandbox).is_some();
        if was {
            self.tell_compiler();
        }
        was
    }

    fn tell_compiler(&mut self) {
        let name = |sandbox: &Sandbox| interface_name(&sandbox.container_id, &sandbox.ifname);
        self.compiler.apply(Event::IsolatedChanged(self.isolation.taken.keys().map(name).collect()));
    }

    /// After the commit: routes that must go, go; those that may be again are put back; and no connection outlives it, because for
    /// this kernel the new owner's packets would belong to it.
    pub(super) async fn follow_isolation(&mut self) {
        if !std::mem::take(&mut self.isolation.due) {
            return;
        }
        self.repair().await;
        let addresses = self.isolated().flat_map(|(held, _)| held.addresses.iter().copied()).collect::<Vec<IpAddr>>();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = conntrack::forget_addresses(&addresses) {
                tracing::warn!(%error, ?addresses, "connections not forgotten");
            }
        });
    }

    fn isolated(&self) -> impl Iterator<Item = (&Attachment, &Seen)> {
        let all = self.isolation.taken.iter();
        all.filter_map(|(sandbox, block)| Some((self.store.ledger().attachment(sandbox)?, block)))
    }

    /// One sentence for each block that was taken: by whom, and who is cut off.
    pub(super) fn isolation_problems(&self) -> Vec<String> {
        let mut by_block: BTreeMap<String, (&Seen, Vec<String>)> = BTreeMap::new();
        for (held, block) in self.isolated() {
            let entry = by_block.entry(self.taker(block)).or_insert_with(|| (block, Vec::new()));
            entry.1.push(self.described(held, block));
        }
        let sentence = |(what, (block, pods)): (String, (&Seen, Vec<String>))| {
            format!(
                "{what} is {} now, and this node's pods with addresses of it are cut off: {}; delete them, so that they come back with \
                 other addresses",
                self.possessor(block),
                pods.join(", ")
            )
        };
        by_block.into_iter().map(sentence).collect()
    }

    /// What took an address: a block, or a reservation that keeps it for a pod.
    fn taker(&self, block: &Seen) -> String {
        let address = block.cidr.addr();
        match self.reservation_of(block) {
            Some(reservation) => format!("IPReservation {} ({address})", reservation.name()),
            None if block.cidr.prefix_len() == block.cidr.max_prefix_len() => format!("address {address}"),
            None => name(block.cidr),
        }
    }

    fn reservation_of(&self, block: &Seen) -> Option<&std::sync::Arc<IPReservation>> {
        let is_one = block.cidr.prefix_len() == block.cidr.max_prefix_len();
        let mut holders = self.supply.holders(block.cidr.addr()).filter(|_| is_one);
        let (name, _) = holders.find(|(_, holder)| holder.node == block.node && holder.claimant == block.claimant)?;
        self.supply.reservation(name)
    }

    fn described(&self, held: &Attachment, block: &Seen) -> String {
        let inside = held.addresses.iter().filter(|address| block.cidr.contains(*address));
        let inside = inside.map(ToString::to_string).collect::<Vec<_>>().join(" and ");
        if held.pod.is_empty() {
            format!("an unknown pod ({inside})")
        } else {
            format!("{}/{} ({inside})", held.namespace, held.pod)
        }
    }

    fn possessor(&self, block: &Seen) -> String {
        if block.node == self.node {
            format!("another machine's that is registered as {}", block.node)
        } else {
            format!("node {}'s", block.node)
        }
    }

    /// An event on each pod that is cut off, and one on each block that took an address.
    fn tell_people(&self, new: &[Sandbox]) {
        for sandbox in new {
            let held = self.store.ledger().attachment(sandbox).zip(self.isolation.taken.get(sandbox));
            let Some((held, block)) = held else { continue };
            tracing::error!(namespace = %held.namespace, pod = %held.pod, addresses = ?held.addresses, block = %block.cidr,
                owner = %block.node, "pod's address is another's now; cut off");
            let note = format!(
                "{} is {} now: the pod on node {} is cut off; delete it, so that it comes back with another address",
                self.described(held, block),
                self.possessor(block),
                self.node
            );
            if self.pod_of(&held.namespace, &held.pod, &held.uid).is_some() {
                let meta = ObjectMeta {
                    namespace: Some(held.namespace.clone()),
                    name: Some(held.pod.clone()),
                    uid: Some(held.uid.clone()),
                    ..ObjectMeta::default()
                };
                self.tell(reference(&Pod { metadata: meta, ..Pod::default() }), note);
            }
        }
        let new = || new.iter().filter_map(|sandbox| self.isolation.taken.get(sandbox));
        for note in self.isolation_problems() {
            let Some(taken) = new().find(|block| note.starts_with(&self.taker(block))) else { continue };
            let block = self.supply.blocks.get(&Key::cluster(names::block_name(taken.cidr)));
            let regarding = self.reservation_of(taken).map(|one| reference(one.as_ref()));
            let regarding = regarding.or_else(|| block.map(|block| reference(block.as_ref())));
            regarding.into_iter().for_each(|regarding| self.tell(regarding, note.clone()));
        }
    }

    fn tell(&self, regarding: k8s_openapi::api::core::v1::ObjectReference, note: String) {
        let (reason, action) = ("AddressTaken".to_owned(), "Isolate".to_owned());
        // Nobody listens only while felix stops.
        let _ = self.events.send(Occurrence { regarding, severity: Severity::Warning, reason, action, note });
    }
}
