//! Blocks that were ours and are not any more. Without pods one is forgotten. With pods it is claimed again if it vanished, whoever
//! deleted it and whether the Node exists: their addresses must not become anybody else's while they run. If it is another's by now,
//! nothing is handed out of it; what becomes of its pods is `isolation`'s.

use super::blocks::{CLAIM_PAUSE, Done, mark_of};
use super::{Agent, later, name};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use twill_crds::IPBlock;
use twill_datastore::{Freshness, Mark, Revision};
use twill_ipam::io::claimer::{ClaimError, claim};
use twill_ipam::{Fate, Pool};

/// Pause before a block is claimed that another had in between: if it vanished under his pods, he claims it at once.
const YIELD: Duration = Duration::from_secs(30);

/// What is going on with them.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// When a block may be claimed again.
    due: BTreeMap<IpNet, Instant>,
    under_way: BTreeSet<IpNet>,
    /// Claimed again, until all is heard up to there.
    returning: BTreeMap<IpNet, Mark>,
    problems: BTreeMap<IpNet, String>,
}

impl Lost {
    /// Whether a block is being claimed again.
    pub(super) fn under_way(&self, cidr: IpNet) -> bool {
        self.under_way.contains(&cidr)
    }

    /// Whether any is about to be ours again.
    pub(super) fn any_returns(&self) -> bool {
        !self.under_way.is_empty() || !self.returning.is_empty()
    }

    /// What is wrong, one sentence each.
    pub(super) fn problems(&self) -> impl Iterator<Item = String> {
        self.problems.values().cloned()
    }

    /// These blocks are ours, and all this has been heard.
    pub(super) fn heard(&mut self, own: &BTreeSet<IpNet>, heard: &Freshness) {
        self.problems.retain(|cidr, _| !own.contains(cidr));
        self.returning.retain(|_, mark| !heard.reached(std::slice::from_ref(mark)));
        self.due.retain(|cidr, _| !own.contains(cidr) || self.under_way.contains(cidr));
    }

    /// All blocks were listed anew, see [`super::blocks::Blocks::listed`].
    pub(super) fn listed(&mut self, at: Revision) {
        self.returning.retain(|_, mark| mark.revision <= at);
    }
}

impl Agent {
    /// A block of the store is no longer ours in the datastore.
    pub(super) fn lost(&mut self, cidr: IpNet) {
        self.blocks.ready.forget(cidr);
        let held = self.store.ledger().block(cidr).map_or(0, twill_ipam::ledger::Block::held);
        let fate = self.supply.owner().fate(&self.supply.seen(), cidr, held);
        if fate == Fate::Forgotten {
            if let Err(error) = self.store.remove_block(cidr) {
                tracing::error!(%error, "store of addresses");
            }
            self.blocks.lost.due.remove(&cidr);
            self.blocks.lost.problems.remove(&cidr);
            return;
        }
        self.set_ready(cidr, false);
        if fate == Fate::Anothers {
            self.blocks.lost.due.insert(cidr, later(YIELD));
            self.blocks.lost.problems.remove(&cidr);
            return;
        }
        let due = self.blocks.lost.due.get(&cidr).is_none_or(|at| Instant::now() >= *at);
        let due = due && !self.blocks.lost.returning.contains_key(&cidr);
        if !due || !self.blocks.lost.under_way.insert(cidr) {
            return;
        }
        let (store, owner, done) = (self.datastore.clone(), self.supply.owner().clone(), self.done.clone());
        let only = Pool { name: name(cidr), cidr, block_len: cidr.prefix_len() };
        tokio::spawn(async move {
            let outcome = claim(&store, &only, &owner, Vec::new()).await;
            let _ = done.send(Done::Restored { cidr, outcome });
        });
    }

    /// A block that had vanished was claimed again, or was not.
    pub(super) fn restored(&mut self, cidr: IpNet, outcome: Result<IPBlock, ClaimError>) {
        self.blocks.lost.under_way.remove(&cidr);
        self.blocks.lost.due.insert(cidr, later(CLAIM_PAUSE));
        match outcome {
            Ok(block) => {
                tracing::warn!(block = %cidr, "block had vanished; claimed again");
                self.blocks.lost.returning.insert(cidr, mark_of(&block));
                self.blocks.lost.heard(&self.supply.own(), &self.heard);
            }
            // Somebody was faster: what is heard next says who.
            Err(ClaimError::Full(_)) => tracing::warn!(block = %cidr, "block had vanished, and is another's now"),
            Err(error) => {
                let what = name(cidr);
                let sentence = format!(
                    "{what} has vanished while pods of this node have addresses of it, and cannot be claimed again: {error}"
                );
                self.blocks.lost.problems.insert(cidr, sentence);
            }
        }
    }
}
