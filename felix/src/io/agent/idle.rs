//! Blocks of ours that nobody here needs any more ([`twill_ipam::idle`]): nothing is handed out of one, its object says so, bgpd takes
//! its route out of the kernel, and then it is deleted as it was seen. Until then it is taken back when there is need.

use super::{Agent, later, name};
use crate::io::agent::Done;
use crate::io::route;
use crate::pace::Pace;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use twill_crds::ippool::IPBlockStatus;
use twill_crds::{IPBlock, names};
use twill_datastore::{Error, Filter, Key};
use twill_ipam::io::claimer::{delete, seen};
use twill_ipam::{Family, Pool, Seen, idle};

/// How long a mark that was written may take to be heard of.
const HEARD: Duration = Duration::from_secs(10);
/// How many looks in a row must find no route of bgpd for the block.
const LOOKS: u32 = 2;

/// Pauses between looks at the kernel's routes as long as bgpd has those of all blocks that go.
const LOOK: Pace = Pace::new(Duration::from_secs(4), Duration::from_secs(60));

/// What is going on with them.
#[derive(Debug)]
pub(super) struct Idle {
    look: Pace,
    /// What is being written of them, or was and is not heard of yet, and until when that is waited for.
    marking: BTreeMap<IpNet, (bool, Instant)>,
    /// Looks in a row without route.
    withdrawn: BTreeMap<IpNet, u32>,
    deleting: BTreeSet<IpNet>,
    /// Looks in a row that found it contested, and that nobody has, or had a moment ago, an address of it.
    contested: BTreeMap<IpNet, u32>,
    /// Since when nobody has had an address of it.
    empty: BTreeMap<IpNet, Instant>,
}

impl Default for Idle {
    fn default() -> Self {
        Self {
            look: LOOK,
            marking: BTreeMap::new(),
            withdrawn: BTreeMap::new(),
            deleting: BTreeSet::new(),
            contested: BTreeMap::new(),
            empty: BTreeMap::new(),
        }
    }
}

impl Idle {
    /// The kernel told of routes of blocks.
    pub(super) fn routes_changed(&mut self) {
        self.look.reset();
    }
}

impl Agent {
    /// Takes in which blocks are being given back.
    pub(super) fn follow_giving(&mut self) {
        let now = Instant::now();
        let own = self.supply.blocks.iter().map(|(_, block)| block.as_ref()).filter(|block| self.supply.owns(block));
        let marked: BTreeSet<IpNet> = own.filter(|block| block.is_releasing()).map(|block| block.spec.cidr).collect();
        let idle = &mut self.blocks.idle;
        idle.marking.retain(|cidr, (releasing, until)| now < *until && marked.contains(cidr) != *releasing);
        idle.withdrawn.retain(|cidr, _| marked.contains(cidr));
        let ready = |cidr: &IpNet| self.store.ledger().block(*cidr).is_some_and(|block| block.ready);
        let open: Vec<IpNet> = marked.iter().copied().filter(ready).collect();
        self.supply.giving = marked.into_iter().chain(idle.marking.keys().copied()).collect();
        open.into_iter().for_each(|cidr| self.set_ready(cidr, false));
    }

    /// Marks what nobody needs, and gives back what is marked and withdrawn.
    pub(super) fn give_back_idle(&mut self) {
        self.follow_giving();
        self.give_back_withdrawn();
        self.give_back_contested();
        if self.blocks.lost.any_returns() || !self.pending.is_empty() {
            return;
        }
        let ledger = self.store.ledger();
        let empty: BTreeSet<IpNet> = ledger.blocks().filter(|(_, b)| b.held() == 0).map(|(cidr, _)| *cidr).collect();
        self.blocks.idle.empty.retain(|cidr, _| empty.contains(cidr));
        for cidr in empty {
            self.blocks.idle.empty.entry(cidr).or_insert_with(Instant::now);
        }
        let since = &self.blocks.idle.empty;
        let quiet = |cidr| {
            let quiet = since.get(&cidr).map_or(Duration::ZERO, Instant::elapsed);
            u64::try_from(quiet.as_millis()).unwrap_or(u64::MAX)
        };
        let families = [Family::V4, Family::V6].map(|family| self.supply.usable(family, ledger, self.now(), quiet));
        for cidr in families.iter().filter_map(|own| idle::surplus(own)) {
            if let Some(block) = self.block(cidr) {
                tracing::info!(block = %cidr, "block is not needed; to be given back");
                // Durably, before anybody hears of it. If the mark comes to nothing, it is opened again as any block.
                self.set_ready(cidr, false);
                self.blocks.idle.look.reset();
                self.mark(block, true);
            }
        }
        self.follow_giving();
    }

    fn give_back_withdrawn(&mut self) {
        let marked: Vec<IPBlock> = self.supply.giving.iter().filter_map(|cidr| self.block(*cidr)).collect();
        let held = |cidr| self.store.ledger().block(cidr).is_some_and(|block| block.held() > 0);
        let (held, going): (Vec<IPBlock>, Vec<IPBlock>) =
            marked.into_iter().filter(IPBlock::is_releasing).partition(|block| held(block.spec.cidr));
        for block in held {
            tracing::warn!(block = %block.spec.cidr, "block was to be given back, and a pod has an address of it; kept");
            self.mark(block, false);
        }
        let now = Instant::now();
        if going.is_empty() || !self.blocks.idle.look.is_due(now) {
            return;
        }
        let routed = match route::unreachable(&mut self.rtnl) {
            Ok(routed) => routed,
            Err(error) => return tracing::warn!(%error, "routes of blocks are not known"),
        };
        match going.iter().all(|block| routed.contains(&block.spec.cidr)) {
            true => self.blocks.idle.look.again(now),
            false => self.blocks.idle.look.reset(),
        }
        for block in going {
            let cidr = block.spec.cidr;
            let looks = self.blocks.idle.withdrawn.entry(cidr).or_insert(0);
            *looks = if routed.contains(&cidr) { 0 } else { *looks + 1 };
            if *looks < LOOKS || self.blocks.idle.marking.contains_key(&cidr) || !self.blocks.idle.deleting.insert(cidr)
            {
                continue;
            }
            self.delete_block(block);
        }
    }

    /// Two nodes that were killed between creating overlapping blocks and looking for such leave both: whoever has no pod in his gives it back.
    /// One look is not enough: another's claim that found ours is about to be given back by him. Nor is it while an address rests, for its next
    /// owner would not know of that.
    fn give_back_contested(&mut self) {
        let contested: BTreeMap<IpNet, Seen> = self.supply.contested().into_iter().collect();
        self.blocks.idle.contested.retain(|cidr, _| contested.contains_key(cidr));
        let now = self.now();
        for (cidr, other) in contested {
            let usage = self.store.ledger().usage(&[cidr], now.at, now.cool_down);
            let unused = usage.held == 0 && usage.cooling == 0 && !self.blocks.unverified(cidr);
            let looks = self.blocks.idle.contested.entry(cidr).or_insert(0);
            *looks = if unused { *looks + 1 } else { 0 };
            let Some(block) = self.block(cidr).filter(|_| self.blocks.idle.contested[&cidr] >= LOOKS) else { continue };
            if self.blocks.idle.deleting.insert(cidr) {
                tracing::warn!(block = %cidr, other = %other.cidr, node = %other.node, "block overlaps another's, and nobody has an address of it; giving it back");
                self.set_ready(cidr, false);
                self.delete_contested(block);
            }
        }
    }

    /// After a last look at what the datastore has now.
    fn delete_contested(&self, block: IPBlock) {
        let (store, done, owner) = (self.datastore.clone(), self.done.clone(), self.supply.owner().clone());
        tokio::spawn(async move {
            let cidr = block.spec.cidr;
            let outcome = match store.list::<IPBlock>(&Filter::default()).await {
                Ok(list) => {
                    let all: Vec<Seen> = list.items.iter().map(seen).collect();
                    match owner.contested(&all).iter().any(|(own, _)| *own == cidr) {
                        true => delete(&store, &block).await,
                        false => Ok(false),
                    }
                }
                Err(error) => Err(error),
            };
            let _ = done.send(Done::GivenBack { cidr, outcome });
        });
    }

    fn delete_block(&self, block: IPBlock) {
        let (store, done, cidr) = (self.datastore.clone(), self.done.clone(), block.spec.cidr);
        tokio::spawn(async move {
            let outcome = delete(&store, &block).await;
            let _ = done.send(Done::GivenBack { cidr, outcome });
        });
    }

    /// Takes back a block that is about to go and is as good as a new one of this pool. Whether there is one.
    pub(super) fn take_back(&mut self, pool: &Pool) -> bool {
        let Some(block) = self.supply.regained(pool).and_then(|cidr| self.block(cidr)) else { return false };
        if !self.blocks.idle.marking.contains_key(&block.spec.cidr) && block.is_releasing() {
            tracing::info!(block = %block.spec.cidr, "block was to be given back, and is needed again");
            self.mark(block, false);
        }
        true
    }

    fn block(&self, cidr: IpNet) -> Option<IPBlock> {
        let block = self.supply.blocks.get(&Key::cluster(names::block_name(cidr)))?;
        self.supply.owns(block).then(|| block.as_ref().clone())
    }

    fn mark(&mut self, mut block: IPBlock, releasing: bool) {
        let cidr = block.spec.cidr;
        self.blocks.idle.marking.insert(cidr, (releasing, later(HEARD)));
        block.status = Some(IPBlockStatus { releasing, ..block.status.unwrap_or_default() });
        let (store, done) = (self.datastore.clone(), self.done.clone());
        tokio::spawn(async move {
            let outcome = store.update_status(&block).await.map(drop);
            let _ = done.send(Done::Marked { cidr, outcome });
        });
    }

    /// The object was written; else it is judged anew by what is heard.
    pub(super) fn marked(&mut self, cidr: IpNet, outcome: Result<(), Error>) {
        if let Err(error) = outcome {
            tracing::debug!(%error, block = %cidr, "whether a block is given back was not written; tried again");
            self.blocks.idle.marking.remove(&cidr);
            self.follow_giving();
        }
    }

    /// The object was deleted, which is heard soon, or was not.
    pub(super) fn given_back(&mut self, cidr: IpNet, outcome: Result<bool, Error>) {
        self.blocks.idle.deleting.remove(&cidr);
        match outcome {
            Ok(true) => tracing::info!(block = %cidr, "block given back"),
            Ok(false) => {
                tracing::debug!(block = %cidr, "block was written meanwhile, or is no longer contested; not given back")
            }
            Err(error) => tracing::warn!(%error, "{} not given back; tried again", name(cidr)),
        }
    }
}
