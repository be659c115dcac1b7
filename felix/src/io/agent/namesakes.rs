//! Blocks that bear this node's name and that another store of addresses claimed: an earlier machine's, which may still run behind a
//! broken wire, or this one's before it lost its disk. Nothing is handed out of them. One that neither a pod nor a route speaks for
//! during the whole quarantine is given back, and free for anybody.

use super::blocks::Done;
use super::{Agent, name};
use crate::model;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};
use twill_crds::{IPBlock, Object, Pod};
use twill_datastore::{Datastore, Error, Filter};
use twill_ipam::Quarantine;
use twill_ipam::io::claimer::delete;

/// What is known of them.
#[derive(Debug)]
pub(super) struct Namesakes {
    quarantine: Quarantine,
    length: Duration,
    began: Instant,
    freeing: BTreeSet<String>,
    blocks: BTreeSet<IpNet>,
}

impl Namesakes {
    pub(super) fn new(length: Duration) -> Self {
        let quarantine = Quarantine::new(u64::try_from(length.as_millis()).unwrap_or(u64::MAX));
        Self { quarantine, length, began: Instant::now(), freeing: BTreeSet::new(), blocks: BTreeSet::new() }
    }

    /// What is wrong, one sentence each.
    pub(super) fn problems(&self) -> impl Iterator<Item = String> {
        self.blocks.iter().map(|cidr| {
            let (what, minutes) = (name(*cidr), self.length.as_secs().div_ceil(60));
            format!(
                "{what} bears this node's name, but another machine claimed it, or this one before it lost its disk: no address of it is \
                 handed out; it is given back after {minutes} min without pod and route; if no machine has it any more, delete it"
            )
        })
    }
}

impl Agent {
    /// Looks which of them are in use, and gives back those that were not for long enough.
    pub(super) fn watch_namesakes(&mut self) {
        let namesakes: Vec<IPBlock> = self.supply.namesakes().cloned().collect();
        self.blocks.namesakes.blocks = namesakes.iter().map(|block| block.spec.cidr).collect();
        if namesakes.is_empty() {
            return;
        }
        let held = self.store.ledger().attachments().flat_map(|held| held.addresses.iter().copied());
        let in_use: BTreeSet<IpAddr> = self.compiler.pods().flat_map(addresses).chain(held).collect();
        let unplaced = self.compiler.pods().any(|pod| self.is_unplaced(pod));
        let mut seen = BTreeMap::new();
        let mut keys = BTreeMap::new();
        for block in namesakes {
            let cidr = block.spec.cidr;
            let routed = !matches!(self.elsewhere(cidr), Ok(None));
            let used = routed || unplaced || in_use.range(cidr.network()..=cidr.broadcast()).next().is_some();
            let key = key(&block);
            seen.insert(key.clone(), used);
            keys.insert(key, block);
        }
        let now = u64::try_from(self.blocks.namesakes.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        for over in self.blocks.namesakes.quarantine.observe(now, &seen) {
            let Some(block) = keys.remove(&over).filter(|_| self.blocks.namesakes.freeing.insert(over.clone())) else {
                continue;
            };
            let (store, done) = (self.datastore.clone(), self.done.clone());
            tokio::spawn(async move {
                let outcome = free(&store, &block).await;
                let _ = done.send(Done::Freed { cidr: block.spec.cidr, uid: over, outcome });
            });
        }
    }

    /// Whether a pod names this node, and nobody has said where it is: an earlier machine may have given it an address that it could not
    /// report.
    fn is_unplaced(&self, pod: &model::Pod) -> bool {
        pod.node == self.node
            && pod.is_governed()
            && pod.addresses.is_empty()
            && !self.store.ledger().attachments().any(|held| held.uid == pod.uid)
    }

    /// One of them was given back, or was not.
    pub(super) fn freed(&mut self, cidr: IpNet, uid: &str, outcome: Result<bool, Error>) {
        self.blocks.namesakes.freeing.remove(uid);
        match outcome {
            Ok(true) => tracing::warn!(block = %cidr, "block of this node's name that nobody used was given back"),
            Ok(false) => tracing::info!(block = %cidr, "block of this node's name is in use after all"),
            Err(error) => tracing::warn!(%error, block = %cidr, "block of this node's name not given back"),
        }
    }
}

/// One state of a block: as long as its owner writes a checkpoint now and then, it is another each time.
fn key(block: &IPBlock) -> String {
    let meta = block.meta();
    format!("{}/{}", meta.uid.as_deref().unwrap_or_default(), meta.resource_version.as_deref().unwrap_or_default())
}

/// The last look, at what the datastore has now, then the deletion of exactly what was seen. Whether it is gone.
async fn free(store: &Datastore, block: &IPBlock) -> Result<bool, Error> {
    let pods = store.list::<Pod>(&Filter::default()).await?.items;
    let pods: Vec<model::Pod> = pods.iter().map(model::Pod::read).collect();
    if pods.iter().flat_map(addresses).any(|address| block.spec.cidr.contains(&address)) {
        return Ok(false);
    }
    delete(store, block).await
}

/// What the status of a pod that has not ended says.
pub(super) fn addresses(pod: &model::Pod) -> impl Iterator<Item = IpAddr> {
    pod.addresses.iter().filter(|_| !pod.completed).copied()
}
