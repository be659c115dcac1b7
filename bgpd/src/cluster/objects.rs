//! The objects that decide, as last heard. Only remembers.

use serde::{Deserialize, Serialize};
use twill_crds::{BGPConfiguration, BGPPeer, IPBlock, IPPool, Node, Object};
use twill_datastore::{Followed, Index, Revision};

/// One step of one kind.
pub enum Heard {
    /// Of the nodes.
    Node(Box<Followed<Node>>),
    /// Of the pools.
    Pool(Followed<IPPool>),
    /// Of this node's blocks.
    Block(Followed<IPBlock>),
    /// Of the configuration.
    Configuration(Followed<BGPConfiguration>),
    /// Of the peers.
    Peer(Followed<BGPPeer>),
}

/// All objects that decide.
#[derive(Default)]
pub struct Objects {
    pub(super) nodes: Index<Node>,
    pub(super) pools: Index<IPPool>,
    pub(super) blocks: Index<IPBlock>,
    pub(super) configurations: Index<BGPConfiguration>,
    pub(super) peers: Index<BGPPeer>,
    heard: [bool; 5],
}

/// [`Objects`] as a file keeps them over a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    nodes: Vec<Node>,
    pools: Vec<IPPool>,
    blocks: Vec<IPBlock>,
    configurations: Vec<BGPConfiguration>,
    peers: Vec<BGPPeer>,
}

impl Objects {
    /// Takes in one step; whether it changed anything that decides.
    pub fn apply(&mut self, heard: Heard) -> bool {
        match heard {
            Heard::Node(step) => take(&mut self.nodes, trimmed(*step), &mut self.heard[0]),
            Heard::Pool(step) => take(&mut self.pools, step, &mut self.heard[1]),
            Heard::Block(step) => take(&mut self.blocks, step, &mut self.heard[2]),
            Heard::Configuration(step) => take(&mut self.configurations, step, &mut self.heard[3]),
            Heard::Peer(step) => take(&mut self.peers, step, &mut self.heard[4]),
        }
    }

    /// Whether every kind has been heard as a whole.
    #[must_use]
    pub fn in_sync(&self) -> bool {
        self.heard.iter().all(|heard| *heard)
    }

    /// Everything up to here is known.
    #[must_use]
    pub fn revision(&self) -> Revision {
        let all = [
            self.nodes.revision(),
            self.pools.revision(),
            self.blocks.revision(),
            self.configurations.revision(),
            self.peers.revision(),
        ];
        all.into_iter().min().unwrap_or_default()
    }

    /// What to keep over a restart.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        fn all<K: Object>(index: &Index<K>) -> Vec<K> {
            index.iter().map(|(_, object)| object.as_ref().clone()).collect()
        }
        Snapshot {
            nodes: all(&self.nodes),
            pools: all(&self.pools),
            blocks: all(&self.blocks),
            configurations: all(&self.configurations),
            peers: all(&self.peers),
        }
    }

    /// Objects of an earlier run; not in sync.
    #[must_use]
    pub fn remembered(snapshot: Snapshot) -> Self {
        fn index<K: Object>(items: Vec<K>) -> Index<K> {
            let mut index = Index::default();
            index.apply(Followed::Synced { items, revision: Revision::default() });
            index
        }
        Self {
            nodes: index(snapshot.nodes),
            pools: index(snapshot.pools),
            blocks: index(snapshot.blocks),
            configurations: index(snapshot.configurations),
            peers: index(snapshot.peers),
            heard: [false; 5],
        }
    }
}

fn take<K: Object>(index: &mut Index<K>, step: Followed<K>, heard: &mut bool) -> bool {
    let first = matches!(step, Followed::Synced { .. }) && !std::mem::replace(heard, true);
    let changed = !index.apply(step).is_empty();
    changed || first
}

/// A Node of Kubernetes lists images and volumes that nobody here reads.
fn trimmed(step: Followed<Node>) -> Followed<Node> {
    let trim = |mut node: Node| {
        node.spec = None;
        node.metadata.annotations = None;
        node.metadata.managed_fields = None;
        if let Some(status) = &mut node.status {
            let addresses = status.addresses.take();
            *status = k8s_openapi::api::core::v1::NodeStatus { addresses, ..Default::default() };
        }
        node
    };
    match step {
        Followed::Synced { items, revision } => {
            Followed::Synced { items: items.into_iter().map(trim).collect(), revision }
        }
        Followed::Applied(node, revision) => Followed::Applied(trim(node), revision),
        other => other,
    }
}
