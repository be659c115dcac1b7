//! The node's blocks: which are ours, which are claimed ahead of need, and what is to be said about them.

use super::idle::Idle;
use super::look::Look;
use super::lost::Lost;
use super::namesakes::Namesakes;
use super::ready::Readiness;
use super::{Agent, later, milliseconds, name};
use crate::cut::Suspects;
use crate::host::failsafe::Facts;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use twill_crds::IPBlock;
use twill_crds::ippool::IPBlockStatus;
use twill_datastore::{Error, Freshness, Mark, Revision, Scope};
use twill_ipam::io::claimer::{ClaimError, perform, revision};
use twill_ipam::{Family, Pool, range};

/// Pause after a claim that failed.
pub(super) const CLAIM_PAUSE: Duration = Duration::from_secs(5);
/// How long the last owner of a block that vanished may take to claim it again before anybody else claims in that pool.
const FIRST_CHANCE: Duration = Duration::from_secs(3);

/// What was done beside the agent.
#[derive(Debug)]
pub enum Done {
    /// A block of a pool was claimed, or was not.
    Claimed {
        /// Name of the pool.
        pool: String,
        /// The block, or why there is none.
        outcome: Result<IPBlock, ClaimError>,
    },
    /// A block of ours that had vanished was claimed again, or was not.
    Restored {
        /// The block.
        cidr: IpNet,
        /// Why not.
        outcome: Result<IPBlock, ClaimError>,
    },
    /// A block of this node's name that nobody uses was given back, or was not.
    Freed {
        /// The block.
        cidr: IpNet,
        /// UID of the object.
        uid: String,
        /// Whether it is gone; else somebody uses it after all.
        outcome: Result<bool, Error>,
    },
    /// The object of a block says that it is being given back, or does not any more, or was not written.
    Marked {
        /// The block.
        cidr: IpNet,
        /// Why not.
        outcome: Result<(), Error>,
    },
    /// A block that nobody here needs was given back, or was not.
    GivenBack {
        /// The block.
        cidr: IpNet,
        /// Whether it is gone; else it is no longer as it was seen.
        outcome: Result<bool, Error>,
    },
    /// Who has addresses that are kept for a pod was looked at and written, or why not.
    Kept {
        /// Name of the IPReservation.
        name: String,
        /// How it went.
        outcome: Result<super::Kept, Error>,
    },
    /// The datastore said which it is, or why it does not.
    Identified(Result<String, Error>),
    /// Live connections were looked at, or why they were not, and whose they are.
    Looked(Result<Look, (String, Suspects)>),
    /// They may be looked at again.
    LookDue,
    /// What the node is known to need.
    HostFacts(Box<Facts>),
    /// A self-test of HostPolicies has ended.
    HostTested {
        /// The attempt that was on trial when it began.
        attempt: String,
        /// What did not succeed.
        outcome: Result<(), String>,
    },
}

/// What is going on with blocks.
#[derive(Debug)]
pub(super) struct Blocks {
    /// By the pool's name.
    claiming: BTreeMap<String, Claiming>,
    refused: BTreeMap<String, (String, Instant)>,
    pub(super) ready: Readiness,
    pub(super) lost: Lost,
    pub(super) namesakes: Namesakes,
    pub(super) idle: Idle,
    contested: Vec<String>,
    /// Blocks of others that were deleted, and until when their last owner goes first.
    vanished: BTreeMap<IpNet, Instant>,
}

/// A block of a pool is being claimed.
#[derive(Debug)]
struct Claiming {
    /// Range of the pool.
    pool: IpNet,
    /// What was claimed, until all is heard up to there: till then the pool looks as poor as before, however late the datastore's news are.
    claimed: Option<Mark>,
}

/// What has been heard when a block that was just claimed has been; whatever became of it meanwhile.
pub(super) fn mark_of(block: &IPBlock) -> Mark {
    let revision = revision(block).unwrap_or_default();
    Mark { scope: Scope::all::<IPBlock>(), revision, present: None }
}

impl Blocks {
    pub(super) fn new(quarantine: Duration) -> Self {
        Self {
            claiming: BTreeMap::new(),
            refused: BTreeMap::new(),
            ready: Readiness::default(),
            lost: Lost::default(),
            namesakes: Namesakes::new(quarantine),
            idle: Idle::default(),
            contested: Vec::new(),
            vanished: BTreeMap::new(),
        }
    }

    /// Why the last claim of this pool failed, if it did.
    pub(super) fn refusal(&self, pool: &str) -> Option<&str> {
        self.refused.get(pool).map(|(problem, _)| problem.as_str())
    }

    /// Another's block was deleted. If that happened under his pods, he claims it again at once, and goes first.
    pub(super) fn vanished(&mut self, cidr: IpNet) {
        let now = Instant::now();
        self.vanished.retain(|_, until| now < *until);
        self.vanished.insert(cidr, later(FIRST_CHANCE));
    }

    /// Whether a block of another inside this range vanished a moment ago.
    fn is_restless(&self, pool: IpNet) -> bool {
        let now = Instant::now();
        self.vanished.iter().any(|(cidr, until)| now < *until && range::overlap(*cidr, pool))
    }

    /// Whether a claim that may mean this block has not been verified yet: then it may still be given back.
    pub(super) fn unverified(&self, cidr: IpNet) -> bool {
        let claimed = |one: &Claiming| one.claimed.is_none() && one.pool.contains(&cidr);
        self.claiming.values().any(claimed) || self.lost.under_way(cidr)
    }

    /// All this has been heard.
    fn heard(&mut self, heard: &Freshness) {
        let is_told = |mark: &Mark| heard.reached(std::slice::from_ref(mark));
        self.claiming.retain(|_, one| !one.claimed.as_ref().is_some_and(is_told));
    }

    /// All blocks were listed anew. What was claimed later than this list is of a datastore that has been put back to an earlier state, and is not
    /// heard of any more.
    pub(super) fn listed(&mut self, at: Revision) {
        self.claiming.retain(|_, one| one.claimed.as_ref().is_none_or(|mark| mark.revision <= at));
        self.lost.listed(at);
    }

    /// Blocks of this node's name that it may not use, one sentence each.
    pub(super) fn unusable(&self) -> impl Iterator<Item = String> {
        self.ready.withheld().chain(self.namesakes.problems())
    }

    /// What is wrong, one sentence each.
    pub(super) fn problems(&self) -> impl Iterator<Item = String> {
        let refused = self.refused.values().map(|(problem, _)| problem.clone());
        let routes = self.ready.problems().chain(self.lost.problems());
        refused.chain(routes).chain(self.unusable()).chain(self.contested.iter().cloned())
    }
}

impl Agent {
    /// Takes in which blocks are ours, after something was heard. Nothing is done before all is heard.
    pub(super) fn take_blocks(&mut self) {
        let own = self.supply.own();
        let known: BTreeSet<IpNet> = self.store.ledger().blocks().map(|(cidr, _)| *cidr).collect();
        self.blocks.heard(&self.heard);
        self.blocks.lost.heard(&own, &self.heard);
        for cidr in own.difference(&known) {
            self.blocks.ready.awaits(*cidr);
            self.set_ready(*cidr, false);
        }
        for cidr in known.difference(&own) {
            self.lost(*cidr);
        }
        self.follow_giving();
        self.blocks.contested = self
            .supply
            .contested()
            .into_iter()
            .map(|(cidr, other)| {
                let (name, range, node) = (name(cidr), other.cidr, other.node);
                format!("{name} overlaps {range} of node {node}: no address of it is handed out; delete one of the two")
            })
            .collect();
        if own.iter().any(|cidr| Family::of(*cidr) == Family::V6) {
            self.forward_ipv6();
        }
        self.check_blocks();
    }

    /// Claims blocks ahead of need; not in the place of those that are about to come back.
    pub(super) fn warm(&mut self) {
        if self.heard_up_to().is_none() || self.blocks.lost.any_returns() {
            return;
        }
        for pool in self.supply.wanted(self.store.ledger(), self.now()) {
            self.claim(pool);
        }
    }

    /// Claims a block beside the agent, unless that is under way or has just failed.
    pub(super) fn claim(&mut self, pool: Pool) {
        let paused = self.blocks.refused.get(&pool.name).is_some_and(|(_, until)| Instant::now() < *until);
        // A node that is not in the datastore has no labels to be selected by, and nobody to route for.
        let exists = self.node_exists();
        // On memory's word alone nothing is claimed: the datastore may be another by now.
        let exists = exists && self.heard_up_to().is_some();
        // Asked again at the next tick.
        if paused || !exists || self.blocks.claiming.contains_key(&pool.name) || self.blocks.is_restless(pool.cidr) {
            return;
        }
        // One that is about to go is as good as a new one.
        if self.take_back(&pool) {
            return;
        }
        self.blocks.claiming.insert(pool.name.clone(), Claiming { pool: pool.cidr, claimed: None });
        let (store, done, claim) = (self.datastore.clone(), self.done.clone(), self.supply.claim(&pool));
        tokio::spawn(async move {
            let outcome = perform(&store, claim).await;
            let _ = done.send(Done::Claimed { pool: pool.name, outcome });
        });
    }

    /// Something was done beside the agent.
    pub async fn done(&mut self, done: Done) {
        match done {
            Done::Claimed { pool, outcome } => self.claimed(pool, outcome),
            Done::Restored { cidr, outcome } => self.restored(cidr, outcome),
            Done::Freed { cidr, uid, outcome } => self.freed(cidr, &uid, outcome),
            Done::Marked { cidr, outcome } => self.marked(cidr, outcome),
            Done::GivenBack { cidr, outcome } => self.given_back(cidr, outcome),
            Done::Kept { name, outcome } => self.kept(name, outcome),
            Done::Identified(identity) => self.identified(identity),
            Done::Looked(outcome) => return self.looked(outcome).await,
            Done::LookDue => return self.look_due(),
            Done::HostFacts(facts) => {
                self.hear_host_facts(*facts);
                return self.settle().await;
            }
            Done::HostTested { attempt, outcome } => return self.host_tested(&attempt, outcome).await,
        }
        self.check_blocks();
        self.retry_pending().await;
    }

    fn claimed(&mut self, pool: String, outcome: Result<IPBlock, ClaimError>) {
        match outcome {
            Ok(block) => {
                let cidr = block.spec.cidr;
                tracing::info!(block = %cidr, %pool, "block claimed");
                self.blocks.refused.remove(&pool);
                self.blocks.ready.awaits(cidr);
                let claiming = self.blocks.claiming.get_mut(&pool);
                claiming.into_iter().for_each(|one| one.claimed = Some(mark_of(&block)));
                self.blocks.heard(&self.heard);
            }
            Err(error) => {
                tracing::warn!(%error, %pool, "no block claimed");
                self.blocks.claiming.remove(&pool);
                self.blocks.refused.insert(pool, (error.to_string(), later(CLAIM_PAUSE)));
            }
        }
    }

    /// Writes how many addresses of each block are in use, where that changed: so that a full pool can say who holds idle
    /// blocks. One write per block now and then, never per pod.
    pub(super) fn checkpoint(&self) {
        for (_, block) in self.supply.blocks.iter().filter(|(_, block)| self.supply.owns(block)) {
            let Some(held) = self.store.ledger().block(block.spec.cidr).map(twill_ipam::ledger::Block::held) else {
                continue;
            };
            let used = u32::try_from(held).unwrap_or(u32::MAX);
            if block.status.as_ref().map(|status| status.used) == Some(used) {
                continue;
            }
            let mut block = block.as_ref().clone();
            block.status = Some(IPBlockStatus { used, ..block.status.unwrap_or_default() });
            let store = self.datastore.clone();
            tokio::spawn(async move {
                if let Err(error) = store.update_status(&block).await {
                    tracing::debug!(%error, "checkpoint of a block not written; the next one follows");
                }
            });
        }
    }

    pub(super) fn set_ready(&mut self, cidr: IpNet, ready: bool) {
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use twill_crds::IPBlockSpec;
    use twill_datastore::Followed;

    fn block(cidr: &str, revision: u64) -> IPBlock {
        let cidr = cidr.parse().unwrap();
        let spec = IPBlockSpec { cidr, node: "n1".into(), claimant: None };
        let mut block = IPBlock::new(&twill_crds::names::block_name(cidr), spec);
        block.metadata.resource_version = Some(revision.to_string());
        block
    }

    fn claimed(block: &IPBlock) -> Blocks {
        let mut blocks = Blocks::new(Duration::ZERO);
        let pool = "10.42.0.0/16".parse().unwrap();
        blocks.claiming.insert("p".into(), Claiming { pool, claimed: Some(mark_of(block)) });
        blocks
    }

    #[test]
    fn a_pool_is_claimed_from_again_only_when_the_last_claim_has_been_heard_of() {
        let (earlier, ours) = (block("10.42.0.0/26", 7), block("10.42.1.0/26", 9));
        let mut heard = Freshness::of(vec![Scope::all::<IPBlock>()]);
        let mut blocks = claimed(&ours);
        blocks.heard(&heard);
        for late in [Followed::Synced { items: vec![], revision: Revision(5) }, Followed::Applied(earlier, Revision(7))]
        {
            heard.take(&late);
            blocks.heard(&heard);
            assert!(blocks.claiming.contains_key("p"), "{late:?}");
        }
        heard.take(&Followed::Applied(ours, Revision(9)));
        blocks.heard(&heard);
        assert!(blocks.claiming.is_empty());
    }

    #[test]
    fn a_claim_in_a_datastore_that_was_put_back_is_not_waited_for() {
        let ours = block("10.42.1.0/26", 9);
        let mut blocks = claimed(&ours);
        blocks.listed(Revision(9));
        assert!(blocks.claiming.contains_key("p"));
        blocks.listed(Revision(8));
        assert!(blocks.claiming.is_empty());
    }
}
