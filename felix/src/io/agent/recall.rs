//! After a restart while the datastore is away: what an earlier felix heard serves until the datastore has been heard whole.
//!
//! It may lag behind what is in the kernel, and behind the datastore further still. So nothing is taken from the kernel on its word, no
//! block is claimed, given back or forgotten, nobody is cut off, and an interface that was there keeps what it had
//! ([`Inherited`]). What it is good for: a pod that it knows is attached, with the policy that it knows, and one that ends leaves
//! nothing.

use super::Agent;
use super::facts::Compiled;
use crate::compile::Inherited;
use crate::index::Event;
use crate::io::nft::{Commit, Error, Table};
use crate::memory::Remembered;
use crate::ruleset::{Delta, Ruleset};
use std::collections::BTreeSet;
use std::net::IpAddr;
use twill_crds::{
    ClusterNetworkPolicy, IPBlock, IPPool, IPReservation, Namespace, NamespaceIsolation, NetworkPolicy, Node, Pod,
};
use twill_datastore::{Followed, Revision};

/// What felix goes on with.
#[derive(Debug, Default)]
pub(super) struct Recall {
    /// The table as it was found, once it was read.
    inherited: Option<Inherited>,
    /// What the table holds by now.
    held: Option<Ruleset>,
    /// Interfaces came or went since.
    changed: bool,
    /// Interfaces that were there and were closed: for a reason that may not be remembered, so they stay so.
    closed: BTreeSet<String>,
    /// Nothing is remembered: only a table that was left is something to go by.
    without_memory: bool,
}

impl Recall {
    /// What the table is to hold by now.
    pub(super) fn held(&self) -> Option<&Ruleset> {
        self.held.as_ref()
    }

    /// Whether an interface that was there is open as it was before.
    fn is_open(&self, ifname: &str) -> bool {
        self.inherited.as_ref().is_some_and(|inherited| inherited.is_open(ifname))
    }
}

impl Agent {
    /// Goes on with what an earlier felix heard, until the datastore has been heard whole.
    pub fn remember(&mut self, remembered: Remembered) {
        let Remembered { identity, pods, namespaces, policies, nodes, pools, blocks, .. } = remembered;
        let (cluster_policies, isolations) = (remembered.cluster_policies, remembered.isolations);
        fn all<K>(items: Vec<K>) -> Followed<K> {
            Followed::Synced { items, revision: Revision::default() }
        }
        self.compiler.apply(Event::PodsReplaced(pods));
        self.compiler.apply(Namespace::replaced(&namespaces));
        self.compiler.apply(NetworkPolicy::replaced(&policies));
        self.compiler.apply(ClusterNetworkPolicy::replaced(&cluster_policies));
        self.compiler.apply(NamespaceIsolation::replaced(&isolations));
        self.supply.namespaces.apply(all(namespaces));
        self.hear_nodes(all(nodes));
        self.hear_pools(all(pools));
        self.supply.hear_reservations(all(remembered.reservations));
        self.supply.blocks.apply(all(blocks));
        self.nodes_untold = true;
        self.before = Some(identity);
        self.recall = Some(Recall::default());
        self.name_adopted();
    }

    /// Goes on with nothing but the table that an earlier felix left, where a HostPolicy was confirmed: the datastore may be elsewhere by now,
    /// and closed egress would keep it away for good if what the node needs could not follow.
    pub fn go_on_without_memory(&mut self) {
        self.recall = Some(Recall { without_memory: true, ..Recall::default() });
    }

    /// Who remembers nothing and finds no table has to wait for the datastore.
    pub(super) async fn expect_table(&mut self, table: &Table) {
        let expects = |recall: &Recall| recall.without_memory && recall.inherited.is_none();
        if self.recall.as_ref().is_some_and(expects) && matches!(table.inherited().await, Ok(None)) {
            tracing::info!("there is neither a memory nor a table of an earlier felix; the datastore is waited for");
            self.recall = None;
        }
    }

    /// The datastore said which it is. One that is not the one of before has other objects by the same names: what was remembered is
    /// forgotten, and nothing of either is in the other's file.
    pub(super) fn identified(&mut self, answer: Result<String, twill_datastore::Error>) {
        let identity = match answer {
            Ok(identity) => identity,
            Err(error) => return drop(self.faults.insert("datastore", error.to_string())),
        };
        self.faults.remove("datastore");
        if let Some(before) = self.before.take().filter(|before| *before != identity) {
            tracing::warn!(%before, now = %identity,
                "the datastore is another than the one heard before the restart; what was heard from that is forgotten");
            if self.recall.take().is_some() {
                self.forget_unheard();
                self.equal = false;
            }
        }
        self.identity = Some(identity);
        self.keep_memory();
    }

    /// Of the kinds that have not been heard from the datastore nothing is known.
    fn forget_unheard(&mut self) {
        fn none<K>() -> Followed<K> {
            Followed::Synced { items: Vec::new(), revision: Revision::default() }
        }
        if !self.heard.has::<Pod>() {
            self.compiler.apply(Pod::replaced(&[]));
        }
        if !self.heard.has::<Namespace>() {
            self.compiler.apply(Namespace::replaced(&[]));
            self.supply.namespaces.apply(none());
        }
        if !self.heard.has::<NetworkPolicy>() {
            self.compiler.apply(NetworkPolicy::replaced(&[]));
        }
        if !self.heard.has::<ClusterNetworkPolicy>() {
            self.compiler.apply(ClusterNetworkPolicy::replaced(&[]));
        }
        if !self.heard.has::<NamespaceIsolation>() {
            self.compiler.apply(NamespaceIsolation::replaced(&[]));
        }
        if !self.heard.has::<Node>() {
            self.hear_nodes(none());
        }
        if !self.heard.has::<IPPool>() {
            self.hear_pools(none());
        }
        if !self.heard.has::<IPReservation>() {
            self.supply.hear_reservations(none());
        }
        if !self.heard.has::<IPBlock>() {
            self.supply.blocks.apply(none());
        }
    }

    /// What is heard is for the next felix, too, as soon as it is whole and its datastore has a name.
    pub(super) fn keep_memory(&self) {
        if let Some(identity) = self.identity.as_ref().filter(|_| self.heard_up_to().is_some()) {
            self.memory.complete(identity);
        }
    }

    /// Whether there is anything to go by: the datastore, or what is remembered of it.
    pub(super) fn is_informed(&self) -> bool {
        self.heard_up_to().is_some() || self.recall.is_some()
    }

    /// Whether routes may be put right and addresses judged: by the datastore's word, or, as far as the kernel agrees, by memory's.
    pub(super) fn may_judge(&self) -> bool {
        self.heard_up_to().is_some() || self.recall.as_ref().is_some_and(|recall| recall.inherited.is_some())
    }

    /// Whether pods can be attached by what is remembered.
    pub(super) fn is_recalling(&self) -> bool {
        self.recall.is_some() && self.equal
    }

    /// As long as not all kinds have been heard.
    pub(super) async fn settle_recalled(&mut self) {
        if self.recall.is_some() {
            self.name_adopted();
            self.check_blocks();
            self.settle_host();
            if self.commit().await.is_ok() {
                self.follow_isolation().await;
            }
        }
        self.retry_pending().await;
    }

    /// All kinds have been heard: what was remembered is replaced, and the table is compared with what follows from what was heard.
    pub(super) fn end_recall(&mut self) {
        if self.recall.take().is_some() {
            tracing::info!("the datastore has been heard whole; nothing is done on memory's word any more");
            self.equal = false;
        }
    }

    /// Brings the table up to what is remembered, as far as that may be.
    pub(super) async fn commit_recalled(&mut self, table: &Table, delta: &Delta) -> Result<Option<Commit>, Error> {
        let same = |recall: &Recall| self.equal && recall.held.is_some() && delta.is_empty() && !recall.changed;
        if !self.enforced.is_due() && self.recall.as_ref().is_none_or(same) {
            return Ok(None);
        }
        let Some(mut recall) = self.recall.take() else { return Ok(None) };
        let outcome = self.commit_to(&mut recall, table).await;
        self.recall = Some(recall);
        outcome
    }

    async fn commit_to(&mut self, recall: &mut Recall, table: &Table) -> Result<Option<Commit>, Error> {
        let inherited = match &recall.inherited {
            Some(inherited) => inherited,
            None => {
                let inherited = Inherited::new(table.inherited().await?);
                if inherited.is_any() {
                    let there = self.endpoints.values().map(|live| live.host_name.clone());
                    recall.closed = there.filter(|name| !inherited.is_open(name)).collect();
                }
                recall.inherited.insert(inherited)
            }
        };
        let wanted = inherited.with(self.compiler.ruleset());
        let held = recall.held.take().filter(|_| self.equal);
        let outcome = match held {
            Some(held) => {
                let delta = held.difference(&wanted);
                match (delta.is_empty(), self.enforced.is_due()) {
                    (true, true) => self.enforced.retry(table, &wanted).await.map(Some),
                    (true, false) => Ok(None),
                    (false, _) => self.enforced.commit(table, delta, &wanted).await.map(Some),
                }
            }
            None => self.enforced.resync(table, &wanted).await.map(Some),
        };
        if outcome.is_ok() {
            recall.held = Some(wanted);
            recall.changed = false;
        }
        outcome
    }

    /// Whether an interface must stay closed: it was when felix started, and nobody can say why before the datastore is heard.
    pub(super) fn stays_closed(&self, ifname: &str) -> bool {
        self.recall.as_ref().is_some_and(|recall| recall.closed.contains(ifname))
    }

    /// Whether an interface is open as it was when felix started, whatever is remembered of it.
    pub(super) fn stays_open(&self, ifname: &str) -> bool {
        self.recall.as_ref().is_some_and(|recall| recall.is_open(ifname))
    }

    /// An interface is about to be attached.
    pub(super) fn recall_attached(&mut self, ifname: &str, addresses: &[IpAddr]) {
        let Some(recall) = self.recall.as_mut().filter(|recall| !recall.is_open(ifname)) else { return };
        recall.changed = true;
        if let Some(inherited) = recall.inherited.as_mut() {
            inherited.attach(ifname, addresses);
        }
    }

    /// An interface is no longer there.
    pub(super) fn recall_ended(&mut self, ifname: &str, addresses: &[IpAddr]) {
        let Some(recall) = self.recall.as_mut() else { return };
        recall.closed.remove(ifname);
        recall.changed = true;
        if let Some(inherited) = recall.inherited.as_mut() {
            inherited.end(ifname, addresses);
        }
    }
}
