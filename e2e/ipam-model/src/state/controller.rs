//! The controller, with its own code: what it hears, decides and frees.

use super::State;
use crate::cluster::{Cluster, NAMES, Stored, Version};
use crate::machine::QUARANTINE;
use crate::mutants::Mutant;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use twill_controller::gone::{Gone, Left, Outcome, Step};
use twill_controller::holders::Holders;
use twill_controller::{Fact, World};
use twill_crds::{IPBlock, IPBlockSpec, Node, names};
use twill_datastore::{Followed, Revision};

/// The controller: what it has heard, and what it is doing.
#[derive(Clone, Debug)]
pub(super) struct Leader {
    gone: Gone,
    world: World,
    heard: Arc<Cluster>,
    pub(super) at: u64,
    /// What is being freed, and which of the calls comes next.
    pub(super) freeing: Vec<(Left, u8)>,
    holders: Holders,
    /// Reservations about to be freed of their holder: number, state, his node, and which call comes next.
    pub(super) releasing: Vec<(u8, (u16, u16), String, u8)>,
}

impl Leader {
    pub(super) fn new() -> Self {
        let gone = Gone::new(Duration::from_millis(QUARANTINE));
        let (holders, releasing) = (Holders::new(QUARANTINE), Vec::new());
        Self { gone, world: World::default(), heard: Arc::default(), at: 0, freeing: Vec::new(), holders, releasing }
    }
}

impl Hash for Leader {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The world is what was heard.
        (&self.gone, &self.heard, self.at, &self.freeing, &self.holders, &self.releasing).hash(state);
    }
}

impl State {
    pub(super) fn control(&mut self, mutant: Option<Mutant>) {
        let leader = Arc::make_mut(&mut self.leader);
        let told = self.cluster.without_pods();
        if *leader.heard != told {
            leader.world.hear(Fact::node(synced(self.cluster.nodes.iter().map(node).collect())));
            leader.world.hear(Fact::Block(synced(self.cluster.blocks.values().map(block).collect())));
            leader.world.hear(Fact::Reservation(synced(self.cluster.reservations.objects())));
            leader.heard = Arc::new(told);
        }
        leader.at = self.now;
        for step in leader.gone.observe(&mut leader.world, self.now) {
            match step {
                Step::Look { node } => {
                    let of_node = self.cluster.pods.iter().filter(|(_, pod)| NAMES[pod.node] == node);
                    let pods = of_node.map(|(pod, _)| pod.to_string()).filter(|_| mutant != Some(Mutant::NoLook));
                    leader.gone.looked(&node, Some(pods.collect()), self.now);
                }
                Step::Free(_) if mutant == Some(Mutant::NeverFrees) => {}
                Step::Free(left) if mutant == Some(Mutant::FreesHolderFirst) => {
                    let all = leader.heard.reservations.all.iter();
                    let of_node =
                        all.filter(|(_, one)| one.holder.as_ref().is_some_and(|holder| holder.node == left.node));
                    leader.releasing.extend(of_node.map(|(name, one)| (*name, one.version(), left.node.clone(), 0)));
                }
                Step::Free(left) => leader.freeing.push((left, 0)),
                Step::Say(_) => {}
            }
        }
        for one in leader.holders.observe(&leader.world, self.now) {
            let name: u8 = one.metadata.name.as_deref().unwrap().parse().unwrap();
            let (version, node) = (leader.heard.reservations.all[&name].version(), one.holder().unwrap().node.clone());
            if mutant != Some(Mutant::NeverGivesUp) {
                leader.releasing.push((name, version, node, 0));
            }
        }
    }

    /// The same for a holder on such a node, then the write that nobody has what is kept.
    fn release(&mut self) {
        let cluster = self.cluster.clone();
        let leader = Arc::make_mut(&mut self.leader);
        let (name, version, node, stage) = leader.releasing.remove(0);
        match stage {
            0 if cluster.nodes.keys().any(|other| NAMES[*other] == node) => {}
            1 if cluster.pods.values().any(|pod| NAMES[pod.node] == node) => {}
            2 => drop(Arc::make_mut(&mut self.cluster).reservations.write(name, version, None, false)),
            _ => leader.releasing.insert(0, (name, version, node, stage + 1)),
        }
    }

    /// A get of the Node, a list of its pods, then the deletions.
    pub(super) fn act(&mut self, mutant: Option<Mutant>) {
        if self.leader.freeing.is_empty() {
            return self.release();
        }
        let (cluster, now) = (self.cluster.clone(), self.now);
        let leader = Arc::make_mut(&mut self.leader);
        let Some((left, stage)) = leader.freeing.first().cloned() else { return };
        let outcome = match stage {
            0 if cluster.nodes.keys().any(|node| NAMES[*node] == left.node) => Some(Outcome::Back),
            1 if mutant != Some(Mutant::NoLook) => {
                let of_node = cluster.pods.iter().filter(|(_, pod)| NAMES[pod.node] == left.node);
                let pods: Vec<String> = of_node.map(|(pod, _)| pod.to_string()).collect();
                (!pods.is_empty()).then_some(Outcome::Pods(pods))
            }
            2 => {
                let all = Arc::make_mut(&mut self.cluster);
                let freed = left.blocks.iter().filter(|block| all.delete(of(block))).cloned().collect();
                Some(Outcome::Freed(freed, false))
            }
            _ => None,
        };
        match outcome {
            Some(outcome) => {
                leader.gone.freed(&left.node, &outcome, now);
                leader.freeing.remove(0);
            }
            None => leader.freeing[0].1 += 1,
        }
    }
}

fn synced<K>(items: Vec<K>) -> Followed<K> {
    Followed::Synced { items, revision: Revision(1) }
}

fn node((node, uid): (&usize, &u16)) -> Node {
    Node {
        metadata: ObjectMeta { name: Some(NAMES[*node].into()), uid: Some(uid.to_string()), ..ObjectMeta::default() },
        ..Node::default()
    }
}

fn block(stored: &Stored) -> IPBlock {
    let seen = stored.seen.clone();
    let spec = IPBlockSpec { cidr: seen.cidr, node: seen.node, claimant: seen.claimant };
    let mut block = IPBlock::new(&names::block_name(spec.cidr), spec);
    block.metadata.uid = Some(stored.uid.to_string());
    block.metadata.resource_version = Some(stored.revision.to_string());
    block
}

fn of(block: &twill_controller::world::Block) -> Version {
    let number = |text: &str| text.parse().unwrap();
    Version { cidr: block.cidr(), uid: number(&block.version.uid), revision: number(&block.version.revision) }
}
