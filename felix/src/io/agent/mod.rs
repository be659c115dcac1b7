//! The one place where felix decides: what was heard, what the runtime asks, what the kernel says, one after the other.
//!
//! In flow facts, questions and news, in batches; out flow one commit of the table per batch, routes, and answers. Nothing is
//! written before every kind has been heard whole: until then the kernel goes on enforcing what an earlier felix left.

mod announce;
mod ask;
mod attach;
mod blocks;
mod calls;
mod cutting;
mod drops;
mod facts;
mod forecast;
mod hear;
mod held;
mod host;
mod idle;
mod isolation;
mod keeping;
mod look;
mod lost;
mod mend;
mod namesakes;
mod ports;
mod ready;
mod recall;
mod refused;
mod repair;
mod report;
mod shaping;

pub use ask::{Ask, Shown};
pub use attach::Prepared;
pub use blocks::Done;
pub use calls::MeantAttachment;
pub use cutting::ExistingConnections;
pub use host::Places;
pub use keeping::Kept;
pub use look::Look;
pub use report::Conditions;

use crate::base::{Settings, skeleton};
use crate::compile::Compiler;
use crate::cut::Suspects;
use crate::host::failsafe::Facts;
use crate::index::Endpoint;
use crate::io::calls::Tombstones;
use crate::io::heard::{Fact, scopes};
use crate::io::memory::Keeper;
use crate::io::nft::{Enforced, Table};
use crate::io::rtnl::Rtnl;
use crate::model::{self, PodKey};
use crate::pace::Failing;
use crate::workload::supply::{Now, Supply};
use attach::Pending;
use ipnet::IpNet;
use report::NOT_HEARD;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};
use twill_datastore::{Datastore, Freshness, Mark};
use twill_ipam::io::store::Store;
use twill_ipam::{Owner, Sandbox};

/// How long an address rests before another pod may have it, so that nobody who still means the old one reaches the new.
pub const COOL_DOWN: Duration = Duration::from_secs(60);

/// Ticks between two looks at the kernel without a reason.
const REPAIR_EVERY: u64 = 5;

/// Ticks between two checkpoints of the blocks' use.
const CHECKPOINT_EVERY: u64 = 30;

/// What the agent tells people.
pub type Told = twill_datastore::event::Occurrence;

/// What the agent is made of.
pub struct Parts {
    /// Name of the node, and identity of the store.
    pub owner: Owner,
    /// This boot.
    pub boot_id: String,
    /// How long a block of this node's name that another store claimed must look unused before it is given back.
    pub quarantine: Duration,
    /// How long an address rests.
    pub cool_down: Duration,
    /// The datastore.
    pub datastore: Datastore,
    /// The addresses.
    pub store: Store,
    /// A socket to the kernel.
    pub rtnl: Rtnl,
    /// Where the agent sends itself what others did for it.
    pub done: mpsc::UnboundedSender<Done>,
    /// Where it tells people.
    pub events: mpsc::UnboundedSender<Told>,
    /// Where it leaves what it hears, for the next felix.
    pub memory: Keeper,
    /// What HostPolicies need.
    pub places: Places,
    /// What the node was seen to need at once.
    pub facts: Facts,
    /// What the table's skeleton depends on.
    pub settings: Settings,
}

/// The agent.
pub struct Agent {
    node: String,
    boot_id: String,
    /// In milliseconds.
    cool_down: u64,
    datastore: Datastore,
    store: Store,
    rtnl: Rtnl,
    done: mpsc::UnboundedSender<Done>,
    events: mpsc::UnboundedSender<Told>,
    table: Option<Table>,
    /// Whether the table has been made equal to what is wanted, and no commit has failed since.
    equal: bool,
    /// What of it the kernel does not take.
    enforced: Enforced,
    compiler: Compiler,
    /// Nodes or their blocks are others than the compiler has heard.
    nodes_untold: bool,
    /// Ranges of Services, or what they may not overlap, are others than the compiler has heard.
    services_untold: bool,
    supply: Supply,
    memory: Keeper,
    /// The datastore, once it said which it is.
    identity: Option<String>,
    /// The datastore that an earlier felix heard, until this one's is known.
    before: Option<String>,
    /// What an earlier felix heard, until the datastore has been heard whole.
    recall: Option<recall::Recall>,
    heard: Freshness,
    applied: u64,
    endpoints: BTreeMap<Sandbox, Live>,
    pending: Vec<Pending>,
    reached: Vec<(Vec<Mark>, oneshot::Sender<()>)>,
    blocks: blocks::Blocks,
    isolation: isolation::Isolation,
    keeping: keeping::Keeping,
    cutting: cutting::Cutting,
    host: host::Host,
    denied: drops::Denied,
    settings: Settings,
    missing: BTreeMap<Sandbox, u32>,
    repairs: u64,
    mtu: Option<u32>,
    /// Links by which packets of other nodes come, by index.
    uplinks: BTreeSet<u32>,
    faults: BTreeMap<&'static str, String>,
    /// What of interfaces and routes cannot be put right.
    failing: Failing,
    ipv6: bool,
    ticks: u64,
    /// Pools, blocks or nodes are others than when they were last looked at.
    supply_changed: bool,
    announcement: announce::Announcement,
}

/// An attached workload.
#[derive(Clone, Debug)]
struct Live {
    host_name: String,
    index: u32,
    addresses: Vec<IpAddr>,
    /// Its interface is whole and its routes belong into the kernel.
    routed: bool,
}

impl Agent {
    /// An agent that has heard nothing yet. What the kernel and the store have of earlier attachments is taken in.
    ///
    /// # Errors
    /// The kernel or the store failed.
    pub fn new(parts: Parts) -> anyhow::Result<Self> {
        let Parts { owner, boot_id, quarantine, cool_down, datastore, store, .. } = parts;
        let Parts { rtnl, done, events, memory, places, .. } = parts;
        let (facts, settings) = (parts.facts, parts.settings);
        let left = Tombstones::of(&places.state_dir, &places.run_dir);
        let mut agent = Self {
            node: owner.node.clone(),
            boot_id,
            cool_down: u64::try_from(cool_down.as_millis()).unwrap_or(u64::MAX),
            datastore,
            store,
            rtnl,
            done,
            events,
            table: None,
            equal: false,
            enforced: Enforced::default(),
            compiler: Compiler::new(skeleton(&settings)),
            nodes_untold: false,
            services_untold: false,
            supply: Supply::new(owner),
            memory,
            identity: None,
            before: None,
            recall: None,
            heard: Freshness::of(scopes()),
            applied: 0,
            endpoints: BTreeMap::new(),
            pending: Vec::new(),
            reached: Vec::new(),
            blocks: blocks::Blocks::new(quarantine),
            isolation: isolation::Isolation::default(),
            keeping: keeping::Keeping::default(),
            cutting: cutting::Cutting::default(),
            host: host::Host::new(places, facts),
            denied: drops::Denied::default(),
            settings,
            missing: BTreeMap::new(),
            repairs: 0,
            mtu: None,
            uplinks: BTreeSet::new(),
            faults: BTreeMap::new(),
            failing: Failing::default(),
            ipv6: false,
            ticks: 0,
            supply_changed: false,
            announcement: announce::Announcement::default(),
        };
        agent.bury(&left)?;
        agent.adopt()?;
        Ok(agent)
    }

    /// The table has been taken over.
    pub async fn take_table(&mut self, table: Table) {
        self.table = Some(table);
        self.settle().await;
    }

    /// Takes in a batch of facts and brings the kernel up to it.
    pub async fn hear(&mut self, facts: &mut Vec<Fact>) {
        for fact in facts.drain(..) {
            fact.note(&mut self.heard);
            self.supply_changed |=
                matches!(fact, Fact::Block(_) | Fact::Pool(_) | Fact::Node(_)) && !fact.is_bookmark();
            self.take(fact);
        }
        self.settle().await;
    }

    /// Whether every kind has been heard whole and the kernel holds what is wanted.
    #[must_use]
    pub fn in_sync(&self) -> bool {
        self.equal && self.heard.is_complete()
    }

    fn heard_up_to(&self) -> Option<u64> {
        self.heard.up_to().map(|revision| revision.0)
    }

    /// Brings the kernel up to what is known, then answers who waited for it.
    async fn settle(&mut self) {
        let Some(heard) = self.heard_up_to() else {
            self.settle_recalled().await;
            return;
        };
        self.end_recall();
        // Names first: what is said of a block names the pods in it.
        self.name_adopted();
        if std::mem::take(&mut self.supply_changed) {
            self.take_blocks();
        }
        self.settle_host();
        let mut outcome = self.commit().await;
        // What could not begin before the table was equal.
        if outcome.is_ok() && self.settle_host() {
            outcome = self.commit().await;
        }
        if let Err(why) = outcome {
            return self.host_not_committed(why);
        }
        self.host_committed();
        self.follow_isolation().await;
        self.applied = self.applied.max(heard);
        self.keep_memory();
        self.answer_reached();
        self.retry_pending().await;
    }

    /// Whether all that the marks stand for is in the kernel, and holds for live connections, too.
    fn is_in_force(&self, marks: &[Mark]) -> bool {
        self.heard.reached(marks) && self.cutting.is_idle()
    }

    /// One transaction with all that changed. After a failure the next one compares everything.
    async fn commit(&mut self) -> Result<(), String> {
        let Some(table) = self.table.clone() else { return Err("the table is not ours yet".to_owned()) };
        self.expect_table(&table).await;
        if !self.is_informed() {
            return Err("felix has not heard all of the datastore yet".to_owned());
        }
        self.tell_nodes();
        self.tell_services();
        let delta = self.compiler.commit();
        let mut suspects = Suspects::None;
        let refused = self.enforced.refused().proven().clone();
        let outcome = if self.recall.is_some() {
            self.commit_recalled(&table, &delta).await
        } else if !self.equal {
            suspects = Suspects::All;
            self.enforced.resync(&table, self.compiler.ruleset()).await.map(Some)
        } else if !delta.is_empty() {
            suspects = self.suspects(&delta);
            let delta = self.with_released(delta);
            self.enforced.commit(&table, delta, self.compiler.ruleset()).await.map(Some)
        } else if self.enforced.is_due() {
            self.enforced.retry(&table, self.compiler.ruleset()).await.map(Some)
        } else {
            Ok(None)
        };
        self.tell_refused(&refused);
        match outcome {
            Ok(commit) => {
                if let Some(commit) = commit {
                    tracing::debug!(messages = commit.messages, took = ?commit.took, "table committed");
                    let all = commit.resynced && self.recall.is_none();
                    self.cutting.unread |= all;
                    self.suspect(if all { Suspects::All } else { suspects });
                    self.look_at_connections();
                }
                self.equal = true;
                self.faults.remove("table");
                self.take_back_held().await;
                Ok(())
            }
            Err(error) => {
                self.equal = false;
                let sentence = format!("policy is not in the kernel: {error}");
                tracing::error!(%error, "table not committed");
                self.faults.insert("table", sentence.clone());
                Err(sentence)
            }
        }
    }

    /// The pod of this name, if it is the one with this UID.
    fn pod_of(&self, namespace: &str, name: &str, uid: &str) -> Option<&model::Pod> {
        let key = PodKey { namespace: namespace.to_owned(), name: name.to_owned() };
        self.compiler.pod(&key).filter(|pod| pod.uid == uid)
    }

    fn endpoint(attachment: &twill_ipam::Attachment, host_name: &str) -> Endpoint {
        Endpoint {
            ifname: host_name.to_owned(),
            pod: PodKey { namespace: attachment.namespace.clone(), name: attachment.pod.clone() },
            uid: attachment.uid.clone(),
            addresses: attachment.addresses.iter().copied().collect::<BTreeSet<IpAddr>>(),
        }
    }

    fn now(&self) -> Now {
        Now { at: milliseconds(), cool_down: self.cool_down }
    }

    /// Tries again who waits.
    pub async fn retry(&mut self) {
        self.retry_pending().await;
    }

    /// What is periodic: limits of waits, repair, blocks ahead of need.
    pub async fn tick(&mut self) {
        self.ticks += 1;
        self.cut_due().await;
        self.take_back_held().await;
        self.tick_host().await;
        if self.follow_ports() {
            self.settle().await;
        }
        self.tell_runtime();
        self.check_blocks();
        if self.table.is_some() && (!self.equal || self.enforced.is_due()) || self.isolation.due() {
            self.settle().await;
        } else {
            self.retry_pending().await;
        }
        if self.ticks.is_multiple_of(REPAIR_EVERY) {
            if self.heard_up_to().is_some() {
                self.take_blocks();
                self.watch_namesakes();
                self.give_back_idle();
                self.give_up_kept();
            }
            // Of routes to other nodes there is no news.
            self.refresh_uplinks();
            self.repair().await;
            self.collect().await;
        }
        if self.ticks.is_multiple_of(CHECKPOINT_EVERY) && self.heard_up_to().is_some() {
            self.checkpoint();
        }
    }
}

fn milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// When and how often a sentence about a block is due.
pub(crate) fn later(after: Duration) -> Instant {
    Instant::now() + after
}

/// A block as text, for sentences.
pub(crate) fn name(cidr: IpNet) -> String {
    format!("IPBlock {} ({cidr})", twill_crds::names::block_name(cidr))
}
