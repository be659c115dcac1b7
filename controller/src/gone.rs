//! Blocks and NodeNetworks of nodes that are gone. In flows what is known and what looks at pods have shown; out flow further looks, and
//! what is to be freed.
//!
//! A node is gone while there is no Node of its name. What it left is freed when that has lasted for the whole quarantine, during which no
//! look has found a pod that names the node and nobody has written the object; whoever frees it looks once more before. Times are
//! milliseconds of a clock that does not jump, and only in memory: who begins to lead begins the time anew, which is only longer. A time
//! that was stored could be of an absence before the last one. While most nodes are gone none is believed to be ([`exodus`]).

use crate::exodus::exodus;
use crate::world::{Block, Network, Version, World};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use twill_crds::names::block_name;
use twill_datastore::Key;
use twill_ipam::Quarantine;

/// Looks at pods during a quarantine.
const LOOKS: u64 = 3;
/// Pause between two looks at most.
const LONGEST: u64 = 300_000;
/// Pause after something could not be done.
const PAUSE: u64 = 5_000;
/// How long after a block was freed its owner may claim it again, so that it is known to live; and for how long it is known to, then.
const REMEMBERED: u64 = 3_600_000;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read which pods name the node; answer with [`Gone::looked`].
    Look {
        /// Name of the node.
        node: String,
    },
    /// Look once more at node and pods, and delete these as they are here; answer with [`Gone::freed`].
    Free(Left),
    /// Something for people.
    Say(Word),
}

/// What a node has left that may be freed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Left {
    /// Name of the node.
    pub node: String,
    /// Its blocks.
    pub blocks: Vec<Block>,
    /// Its NodeNetwork, once it has no blocks.
    pub network: Option<Version>,
}

/// What people are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// The quarantine would be over, but pods still name the node: node, sentence.
    PodsRemain(String, String),
    /// A block that was freed was claimed again under the name of the gone node: block, sentence.
    OwnerLives(Block, String),
    /// So many nodes are gone that nothing of theirs is freed: one of them, sentence.
    MostGone(String, String),
}

/// How the last look and the deletion went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// These blocks are gone, and with `true` the NodeNetwork.
    Freed(Vec<Block>, bool),
    /// There is a Node of that name again.
    Back,
    /// Pods name the node.
    Pods(Vec<String>),
    /// The datastore failed.
    Failed,
}

/// One absence of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Absence {
    since: u64,
    looked: Option<u64>,
    pods: Vec<String>,
    not_before: u64,
    said: String,
}

/// A block that was freed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Freed {
    node: String,
    uid: String,
    at: u64,
}

/// What was observed of nodes that are gone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gone {
    length: u64,
    quarantine: Quarantine,
    nodes: BTreeMap<String, Absence>,
    /// Blocks that were freed: of whom, and when.
    freed: BTreeMap<Key, Freed>,
    /// Blocks that came back although their node is gone: UID, node, and when that was seen.
    returned: BTreeMap<String, (String, u64)>,
    /// Why nothing is freed, while most nodes are gone.
    exodus: Option<String>,
}

impl Gone {
    /// Nothing observed yet.
    #[must_use]
    pub fn new(quarantine: Duration) -> Self {
        // With none at all one look would do.
        let length = u64::try_from(quarantine.as_millis()).unwrap_or(u64::MAX).max(1);
        Self {
            length,
            quarantine: Quarantine::new(length),
            nodes: BTreeMap::new(),
            freed: BTreeMap::new(),
            returned: BTreeMap::new(),
            exodus: None,
        }
    }

    /// How many nodes are gone and have left something.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether no node is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Whether a node is gone and has left something.
    #[must_use]
    pub fn contains(&self, node: &str) -> bool {
        self.nodes.contains_key(node)
    }

    /// Takes in what there is now, and says what is to be done.
    pub fn observe(&mut self, world: &mut World, now: u64) -> Vec<Step> {
        // One that was back for a moment is gone anew.
        for node in std::mem::take(&mut world.came) {
            self.nodes.remove(&node);
            self.freed.retain(|_, freed| freed.node != node);
            self.returned.retain(|_, (of, _)| *of != node);
        }
        let left = left(world);
        self.nodes.retain(|node, _| left.contains_key(node.as_str()));
        self.freed.retain(|_, freed| now.saturating_sub(freed.at) < REMEMBERED && !world.has_node(&freed.node));
        // Not for ever: its machine may have ended since, and nobody else would ever free it.
        let is_there = |uid: &String| left.values().any(|left| left.blocks.iter().any(|(_, b)| b.version.uid == *uid));
        self.returned.retain(|uid, (_, at)| now.saturating_sub(*at) < REMEMBERED && is_there(uid));
        let mut steps: Vec<Step> = self.count(world, &left).into_iter().collect();
        let mut seen = BTreeMap::new();
        for (node, left) in &left {
            let absence =
                self.nodes.entry((*node).to_owned()).or_insert_with(|| Absence { since: now, ..Absence::default() });
            // Who was one of most is not gone for long when it is one of few.
            let is_doubted = self.exodus.is_some() && left.network.is_some();
            let in_use = is_doubted || absence.speaks_for_use(now, interval(self.length));
            for (name, block) in &left.blocks {
                let uid = &block.version.uid;
                let is_back = self.freed.get(*name).is_some_and(|freed| freed.node == *node && freed.uid != *uid);
                if is_back && self.returned.insert(uid.clone(), ((*node).to_owned(), now)).is_none() {
                    steps.push(Step::Say(Word::OwnerLives((*block).clone(), lives(node, block))));
                }
                seen.insert(mark(&block.version), in_use || self.returned.contains_key(&block.version.uid));
            }
            if let Some(network) = left.network {
                seen.insert(mark(&network.version), in_use);
            }
        }
        let over: BTreeSet<String> = self.quarantine.observe(now, &seen).into_iter().collect();
        for (node, left) in left {
            steps.extend(self.steps(node, &left, &over, now));
        }
        steps
    }

    /// How many are gone, of which nobody has said that it is meant.
    fn count(&mut self, world: &World, left: &BTreeMap<&str, Remains<'_>>) -> Option<Step> {
        let gone: Vec<&str> = left.iter().filter(|(_, left)| left.network.is_some()).map(|(node, _)| *node).collect();
        let (before, now) = (self.exodus.take(), exodus(world.nodes.len(), &gone));
        self.exodus.clone_from(&now);
        let (first, sentence) = (gone.first()?, now.filter(|_| before.is_none())?);
        Some(Step::Say(Word::MostGone((*first).to_owned(), sentence)))
    }

    fn steps(&mut self, node: &str, left: &Remains<'_>, over: &BTreeSet<String>, now: u64) -> Vec<Step> {
        let Some(absence) = self.nodes.get_mut(node).filter(|absence| now >= absence.not_before) else {
            return Vec::new();
        };
        let may = |version: &Version| version.deleting.is_none() && over.contains(&mark(version));
        let blocks: Vec<Block> =
            left.blocks.iter().filter(|(_, block)| may(&block.version)).map(|(_, block)| (*block).clone()).collect();
        // The NodeNetwork last: it is what shows a node at all.
        let network = left.network.filter(|network| left.blocks.is_empty() && may(&network.version));
        let network = network.map(|network| network.version.clone());
        if !blocks.is_empty() || network.is_some() {
            return vec![Step::Free(Left { node: node.to_owned(), blocks, network })];
        }
        let mut steps = Vec::new();
        if now.saturating_sub(absence.since) >= self.length && !absence.pods.is_empty() {
            let said = remain(node, &absence.pods, left.blocks.len());
            if absence.said != said {
                absence.said.clone_from(&said);
                steps.push(Step::Say(Word::PodsRemain(node.to_owned(), said)));
            }
        }
        if absence.looked.is_none_or(|at| now.saturating_sub(at) >= interval(self.length)) {
            steps.push(Step::Look { node: node.to_owned() });
        }
        steps
    }

    /// The pods that name the node, as the datastore has them now; none if it did not answer.
    pub fn looked(&mut self, node: &str, pods: Option<Vec<String>>, now: u64) {
        let Some(absence) = self.nodes.get_mut(node) else { return };
        match pods {
            Some(pods) => (absence.looked, absence.pods) = (Some(now), pods),
            None => absence.not_before = now + PAUSE,
        }
    }

    /// How freeing went.
    pub fn freed(&mut self, node: &str, outcome: &Outcome, now: u64) {
        match outcome {
            Outcome::Freed(blocks, _) => {
                self.freed.extend(blocks.iter().map(|block| {
                    let freed = Freed { node: node.to_owned(), uid: block.version.uid.clone(), at: now };
                    (Key::cluster(block_name(block.cidr())), freed)
                }));
            }
            // Its registration is heard soon. If it is gone again by then, it is anew.
            Outcome::Back => drop(self.nodes.insert(node.to_owned(), Absence { since: now, ..Absence::default() })),
            Outcome::Pods(pods) => self.looked(node, Some(pods.clone()), now),
            Outcome::Failed => {}
        }
        // What was told is heard soon; until then the same is not done again.
        if let Some(absence) = self.nodes.get_mut(node) {
            absence.not_before = now + PAUSE;
        }
    }

    /// What hinders freeing, one sentence each.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        let of_nodes = self.nodes.values().filter(|absence| !absence.said.is_empty() && !absence.pods.is_empty());
        self.exodus.iter().cloned().chain(of_nodes.map(|absence| absence.said.clone()))
    }
}

impl Absence {
    /// Whether what was seen last, or that it was long ago, speaks for pods.
    fn speaks_for_use(&self, now: u64, interval: u64) -> bool {
        let fresh = self.looked.is_some_and(|at| now.saturating_sub(at) <= interval * 2 + PAUSE);
        !fresh || !self.pods.is_empty()
    }
}

/// What is left of a node.
#[derive(Default)]
struct Remains<'a> {
    blocks: Vec<(&'a Key, &'a Block)>,
    network: Option<&'a Network>,
}

/// What all nodes that are gone have left. A NodeNetwork that waits for an uninstall is felix's to delete: that it is gone says that the
/// node is clean.
fn left(world: &World) -> BTreeMap<&str, Remains<'_>> {
    let mut left: BTreeMap<&str, Remains<'_>> = BTreeMap::new();
    for (key, block) in world.blocks.iter().filter(|(_, block)| !world.has_node(&block.seen.node)) {
        left.entry(&block.seen.node).or_default().blocks.push((key, block));
    }
    for (key, network) in
        world.networks.iter().filter(|(key, network)| !network.uninstall && !world.has_node(&key.name))
    {
        left.entry(&key.name).or_default().network = Some(network);
    }
    left
}

/// One state of an object, as in felix's own quarantine: who writes a checkpoint lives.
fn mark(version: &Version) -> String {
    format!("{}/{}", version.uid, version.revision)
}

fn interval(length: u64) -> u64 {
    (length / LOOKS).min(LONGEST)
}

fn remain(node: &str, pods: &[String], blocks: usize) -> String {
    let some: Vec<&str> = pods.iter().take(3).map(String::as_str).collect();
    let more = if pods.len() > some.len() { format!(" and {} more", pods.len() - some.len()) } else { String::new() };
    let what = if blocks == 1 { "its block is" } else { "its blocks are" };
    format!(
        "Node {node} is gone, but pods name it ({}{more}): {what} not freed while they exist; delete them if the machine is off",
        some.join(", ")
    )
}

fn lives(node: &str, block: &Block) -> String {
    format!(
        "IPBlock {} was freed, since Node {node} is gone, and was claimed again under its name: its machine still runs with pods and stays \
         the owner; register the Node again, or run twill uninstall on that machine",
        block.cidr()
    )
}
