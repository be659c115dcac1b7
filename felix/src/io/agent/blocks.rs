//! The node's blocks: claimed ahead of need, ready when bgpd's route is there, and what happens when one is not ours.

use super::{Agent, later, milliseconds, name};
use crate::io::{route, sysctl};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use twill_crds::ippool::IPBlockStatus;
use twill_crds::{IPBlock, IPBlockSpec, names};
use twill_datastore::Error;
use twill_ipam::io::claimer::{ClaimError, claim};
use twill_ipam::{Family, Pool};

/// How long bgpd may take to write a new block's route before the block is used without.
const ROUTE_PATIENCE: Duration = Duration::from_secs(5);
/// Pause after a claim that failed.
const CLAIM_PAUSE: Duration = Duration::from_secs(5);

/// What was done beside the agent.
#[derive(Debug)]
pub enum Done {
    /// A block of a pool was claimed, or was not.
    Claimed {
        /// Name of the pool.
        pool: String,
        /// The block, or why there is none.
        outcome: Result<IpNet, ClaimError>,
    },
    /// A block of ours that had vanished was created again, or was not.
    Restored {
        /// The block.
        cidr: IpNet,
        /// Why not.
        outcome: Result<(), Error>,
    },
}

/// What is going on with blocks.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// Pools of which a block is being claimed; after that the block, until it is heard of or for a while.
    claiming: BTreeMap<String, Option<(IpNet, Instant)>>,
    refused: BTreeMap<String, (String, Instant)>,
    /// Blocks without bgpd's route, since when.
    unready: BTreeMap<IpNet, Instant>,
    /// Blocks in use without bgpd's route.
    without_route: BTreeSet<IpNet>,
    restoring: BTreeMap<IpNet, Instant>,
    problems: BTreeMap<IpNet, String>,
}

impl Blocks {
    /// Why the last claim of this pool failed, if it did.
    pub(super) fn refusal(&self, pool: &str) -> Option<&str> {
        self.refused.get(pool).map(|(problem, _)| problem.as_str())
    }

    /// These blocks are ours.
    fn heard(&mut self, own: &BTreeSet<IpNet>) {
        let now = Instant::now();
        self.claiming.retain(|_, claimed| claimed.is_none_or(|(cidr, until)| !own.contains(&cidr) && now < until));
    }

    /// What is wrong, one sentence each.
    pub(super) fn problems(&self) -> impl Iterator<Item = String> {
        let refused = self.refused.values().map(|(problem, _)| problem.clone());
        let unrouted = self.without_route.iter().map(|cidr| {
            format!(
                "{} is used without bgpd's route: other nodes may not reach its pods; look at bgpd: twill peers",
                name(*cidr)
            )
        });
        refused.chain(unrouted).chain(self.problems.values().cloned())
    }
}

impl Agent {
    /// Takes in which blocks are ours, after something was heard. Nothing is done before all is heard.
    pub(super) fn take_blocks(&mut self) {
        let own = self.supply.own(&self.node);
        let known: BTreeSet<IpNet> = self.store.ledger().blocks().map(|(cidr, _)| *cidr).collect();
        for cidr in own.difference(&known) {
            self.blocks.unready.entry(*cidr).or_insert_with(Instant::now);
            self.set_ready(*cidr, false);
        }
        for cidr in known.difference(&own) {
            self.lost(*cidr);
        }
        self.blocks.heard(&own);
        self.blocks.problems.retain(|cidr, _| !own.contains(cidr));
        self.blocks.restoring.retain(|cidr, _| !own.contains(cidr));
        for (cidr, other) in self.supply.contested(&self.node) {
            let sentence = format!(
                "{} overlaps {} of node {}: no address of it is handed out; delete one of the two",
                name(cidr),
                other.cidr,
                other.node
            );
            self.blocks.problems.insert(cidr, sentence);
        }
        if own.iter().any(|cidr| Family::of(*cidr) == Family::V6) && !self.ipv6 {
            match sysctl::forward_ipv6() {
                Ok(()) => self.ipv6 = true,
                Err(error) => tracing::error!(%error, "IPv6 is not forwarded"),
            }
        }
        self.check_blocks();
    }

    /// Which blocks became ready: by their route, or by time.
    pub(super) fn check_blocks(&mut self) {
        let waiting: Vec<IpNet> =
            self.store.ledger().blocks().filter(|(_, block)| !block.ready).map(|(cidr, _)| *cidr).collect();
        if !waiting.is_empty() || !self.blocks.without_route.is_empty() {
            match route::unreachable(&mut self.rtnl) {
                Ok(routed) => routed.into_iter().for_each(|cidr| self.routed(cidr)),
                Err(error) => tracing::warn!(%error, "routes of blocks are not known"),
            }
        }
        for cidr in waiting {
            let since = *self.blocks.unready.entry(cidr).or_insert_with(Instant::now);
            let ready = self.store.ledger().block(cidr).is_some_and(|block| block.ready);
            if !ready && since.elapsed() >= ROUTE_PATIENCE {
                tracing::warn!(block = %cidr, "bgpd has not written the block's route; using the block without");
                self.blocks.without_route.insert(cidr);
                self.set_ready(cidr, true);
            }
        }
        if self.heard_up_to().is_some() {
            self.warm();
        }
    }

    /// bgpd's route of a block is in the kernel.
    pub fn routed(&mut self, cidr: IpNet) {
        self.blocks.without_route.remove(&cidr);
        if self.store.ledger().block(cidr).is_some_and(|block| !block.ready) {
            self.blocks.unready.remove(&cidr);
            self.set_ready(cidr, true);
        }
    }

    /// Claims blocks ahead of need.
    pub(super) fn warm(&mut self) {
        for pool in self.supply.wanted(&self.node, self.store.ledger(), self.now()) {
            self.claim(pool);
        }
    }

    /// Claims a block beside the agent, unless that is under way or has just failed.
    pub(super) fn claim(&mut self, pool: Pool) {
        let paused = self.blocks.refused.get(&pool.name).is_some_and(|(_, until)| Instant::now() < *until);
        // A node that is not in the datastore has no labels to be selected by, and nobody to route for.
        let exists = self.supply.nodes.get(&twill_datastore::Key::cluster(&self.node)).is_some();
        if paused || !exists || self.blocks.claiming.contains_key(&pool.name) {
            return;
        }
        self.blocks.claiming.insert(pool.name.clone(), None);
        let (store, node, known) = (self.datastore.clone(), self.node.clone(), self.supply.seen());
        let done = self.done.clone();
        tokio::spawn(async move {
            let outcome = claim(&store, &pool, &node, known).await;
            let _ = done.send(Done::Claimed { pool: pool.name, outcome });
        });
    }

    /// Something was done beside the agent.
    pub async fn done(&mut self, done: Done) {
        match done {
            Done::Claimed { pool, outcome } => {
                match outcome {
                    Ok(cidr) => {
                        tracing::info!(block = %cidr, %pool, "block claimed");
                        self.blocks.refused.remove(&pool);
                        self.blocks.unready.entry(cidr).or_insert_with(Instant::now);
                        // Until it is heard of, the pool looks as poor as before: nothing more is claimed.
                        self.blocks.claiming.insert(pool, Some((cidr, later(CLAIM_PAUSE))));
                        self.blocks.heard(&self.supply.own(&self.node));
                    }
                    Err(error) => {
                        tracing::warn!(%error, %pool, "no block claimed");
                        self.blocks.claiming.remove(&pool);
                        self.blocks.refused.insert(pool, (error.to_string(), later(CLAIM_PAUSE)));
                    }
                }
            }
            Done::Restored { cidr, outcome: Ok(()) } => {
                tracing::warn!(block = %cidr, "block had vanished; created again")
            }
            Done::Restored { cidr, outcome: Err(error) } => {
                let sentence =
                    format!("{} is no longer ours, and pods of this node have addresses of it: {error}", name(cidr));
                self.blocks.problems.insert(cidr, sentence);
            }
        }
        self.retry_pending().await;
    }

    /// Writes how many addresses of each block are in use, where that changed: so that a full pool can say who holds idle
    /// blocks. One write per block now and then, never per pod.
    pub(super) fn checkpoint(&self) {
        for (_, block) in self.supply.blocks.iter().filter(|(_, block)| block.spec.node == self.node) {
            let Some(held) = self.store.ledger().block(block.spec.cidr).map(twill_ipam::ledger::Block::held) else {
                continue;
            };
            let used = u32::try_from(held).unwrap_or(u32::MAX);
            if block.status.as_ref().map(|status| status.used) == Some(used) {
                continue;
            }
            let mut block = block.as_ref().clone();
            block.status = Some(IPBlockStatus { used });
            let store = self.datastore.clone();
            tokio::spawn(async move {
                if let Err(error) = store.update_status(&block).await {
                    tracing::debug!(%error, "checkpoint of a block not written; the next one follows");
                }
            });
        }
    }

    /// A block is no longer ours in the datastore. Without pods it is forgotten. With pods it is created again if it vanished;
    /// if it is another's now, that is said, and no address of it is handed out.
    fn lost(&mut self, cidr: IpNet) {
        let unused = self.store.ledger().block(cidr).is_none_or(|block| block.held() == 0);
        if unused {
            if let Err(error) = self.store.remove_block(cidr) {
                tracing::error!(%error, "store of addresses");
            }
            self.blocks.unready.remove(&cidr);
            self.blocks.without_route.remove(&cidr);
            return;
        }
        self.set_ready(cidr, false);
        let due = self.blocks.restoring.get(&cidr).is_none_or(|at| Instant::now() >= *at);
        if !due {
            return;
        }
        self.blocks.restoring.insert(cidr, later(CLAIM_PAUSE));
        let (store, node, done) = (self.datastore.clone(), self.node.clone(), self.done.clone());
        tokio::spawn(async move {
            let block = IPBlock::new(&names::block_name(cidr), IPBlockSpec { cidr, node });
            let outcome = store.create(&block).await.map(|_| ());
            let _ = done.send(Done::Restored { cidr, outcome });
        });
    }

    fn set_ready(&mut self, cidr: IpNet, ready: bool) {
        match self.store.set_block(cidr, ready) {
            Ok(()) => {
                tracing::debug!(block = %cidr, ready, at = milliseconds(), "block");
                self.faults.remove("store");
            }
            Err(error) => {
                tracing::error!(%error, "store of addresses");
                self.faults.insert("store", error.to_string());
            }
        }
    }
}
