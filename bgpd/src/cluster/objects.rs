//! The objects that decide, as last heard. Only remembers.

use super::addresses::{Addresses, Kept};
use super::desired::Desired;
use super::filters::Rules;
use super::nodes::Known;
use super::passwords;
use super::services::Services;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{NodeCondition, Secret};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use twill_crds::bgp::BGPConfigurationStatus;
use twill_crds::topology::Sessions;
use twill_crds::{
    BGPConfiguration, BGPFilter, BGPPeer, EndpointSlice, IPBlock, IPPool, Node, NodeNetwork, NodeNetworkSpec, Object,
    Service,
};
use twill_datastore::{Change, Filter, Followed, Freshness, Index, Key, Mark, Revision, Scope};

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
    /// Of the filters.
    Filter(Followed<BGPFilter>),
    /// Of the Secrets in Twill's namespace.
    Secret(Box<Followed<Secret>>),
    /// Of this node's own NodeNetwork.
    Network(Followed<NodeNetwork>),
    /// Of the Services.
    Service(Box<Followed<Service>>),
    /// Of their endpoints.
    Slice(Followed<EndpointSlice>),
}

/// All objects that decide.
pub struct Objects {
    pub(super) nodes: Index<Node>,
    /// By which addresses they are known.
    pub(super) addresses: Addresses,
    /// What they mean, until one of them or the configuration changes.
    pub(super) known_nodes: Known,
    pub(super) pools: Index<IPPool>,
    pub(super) blocks: Index<IPBlock>,
    pub(super) configurations: Index<BGPConfiguration>,
    /// Who peers with whom, as it was decided last: an object that is deleted, or made anew, takes no session away.
    pub(super) decided: Option<Sessions>,
    pub(super) peers: Index<BGPPeer>,
    pub(super) filters: Index<BGPFilter>,
    /// What of those made sense last.
    pub(super) rules: Rules,
    pub(super) secrets: Index<Secret>,
    /// Twill's own, where Secrets are.
    pub(super) namespace: String,
    pub(super) network: Network,
    pub(super) claimant: Claimant,
    pub(super) services: Services,
    /// What an earlier run told of Services.
    pub(super) told: BTreeSet<IpNet>,
    node: String,
    heard: Freshness,
}

/// Which of the blocks that bear this node's name are this machine's: those that its store of addresses claimed, which is felix's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Claimant {
    /// The store's identity.
    Known(String),
    /// felix is about to make one: whatever was claimed under a name was not claimed here.
    Awaited,
    /// Nobody says: the name has to do.
    #[default]
    Unknown,
}

impl Claimant {
    /// Whether a block that bears this node's name is this machine's.
    pub(super) fn owns(&self, block: &IPBlock) -> bool {
        block.spec.claimant.as_ref().is_none_or(|claimant| match self {
            Self::Known(own) => own == claimant,
            Self::Awaited => false,
            Self::Unknown => true,
        })
    }
}

/// What is asked of this node. Its status is ours, and changes often.
#[derive(Default)]
pub(super) struct Network {
    pub(super) spec: NodeNetworkSpec,
}

/// [`Objects`] as a file keeps them over a restart. Fields of another release are left out or empty, so that both ways of an upgrade go on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    nodes: Vec<Node>,
    pools: Vec<IPPool>,
    blocks: Vec<IPBlock>,
    configurations: Vec<BGPConfiguration>,
    #[serde(default)]
    decided: Option<Sessions>,
    #[serde(default)]
    addresses: Kept,
    peers: Vec<BGPPeer>,
    #[serde(default)]
    filters: Vec<BGPFilter>,
    /// Those that BGPPeers name.
    #[serde(default)]
    secrets: Vec<Secret>,
    #[serde(default)]
    rules: Rules,
    #[serde(default)]
    network: NodeNetworkSpec,
    /// What was told of Services, in place of all Services and their endpoints.
    #[serde(default)]
    services: BTreeSet<IpNet>,
}

/// What of the datastore decides on this node: all of most kinds, its own blocks and its own NodeNetwork, and the Secrets of people in Twill's
/// namespace.
#[must_use]
pub fn scopes(node: &str, namespace: &str) -> Vec<Scope> {
    let fields = vec![("spec.node".to_owned(), node.to_owned())];
    let own = Scope { kind: IPBlock::kind(), filter: Filter { fields, ..Filter::default() } };
    let network = Scope::object::<NodeNetwork>(&Key::cluster(node));
    let routing = [Scope::all::<BGPConfiguration>(), Scope::all::<BGPPeer>(), Scope::all::<BGPFilter>()];
    // Others are Helm's and the API server's, and large.
    let opaque = vec![("type".to_owned(), "Opaque".to_owned())];
    let filter = Filter { namespace: Some(namespace.to_owned()), fields: opaque, ..Filter::default() };
    let secrets = Scope { kind: Secret::kind(), filter };
    [Scope::all::<Node>(), Scope::all::<IPPool>()].into_iter().chain(routing).chain([own, network, secrets]).collect()
}

impl Objects {
    /// Of `node`, with Secrets in `namespace`, before anything was heard.
    #[must_use]
    pub fn of(node: &str, namespace: &str) -> Self {
        Self::remembered(node, namespace, Snapshot::default())
    }

    /// Takes in one step; whether it changed anything that decides.
    pub fn apply(&mut self, heard: Heard) -> bool {
        match heard {
            Heard::Node(step) => {
                let first = self.heard.take(&step);
                let changes = self.nodes.apply(trimmed(*step));
                self.learn_addresses(&changes);
                let changed = changes.iter().any(decides) || first;
                if changed {
                    self.known_nodes = Known::new();
                }
                changed
            }
            Heard::Pool(step) => take(&mut self.pools, step, &mut self.heard),
            Heard::Block(step) => take(&mut self.blocks, step, &mut self.heard),
            Heard::Configuration(step) => {
                let before = configuration(&self.configurations).cloned();
                let changed = take(&mut self.configurations, step, &mut self.heard);
                self.learn_decision();
                self.learn_choices(before.as_deref());
                changed
            }
            Heard::Peer(step) => {
                let changed = take(&mut self.peers, step, &mut self.heard);
                self.rules.learn(&self.peers, &self.filters);
                changed
            }
            Heard::Filter(step) => {
                let changed = take(&mut self.filters, each(step, without_status), &mut self.heard);
                self.rules.learn(&self.peers, &self.filters);
                changed
            }
            Heard::Secret(step) => take(&mut self.secrets, each(*step, passwords::trimmed), &mut self.heard),
            Heard::Network(step) => {
                let first = self.heard.take(&step);
                self.network.take(step) || first
            }
            Heard::Service(step) => self.services.hear_services(*step),
            Heard::Slice(step) => self.services.hear_slices(step),
        }
    }

    /// The controller's last word about sessions counts until there is another one.
    fn learn_decision(&mut self) {
        let decided = status(&self.configurations).and_then(|status| status.sessions.clone());
        self.decided = decided.or(self.decided.take());
    }

    fn learn_addresses(&mut self, changes: &[Change<Node>]) {
        let status = status(&self.configurations);
        for Change { key, new, .. } in changes {
            match new {
                Some(node) => self.addresses.learn(node, status),
                None => self.addresses.forget(&key.name),
            }
        }
    }

    /// Nodes may have chosen other addresses, or have another AS. Most of what is told in a status every few seconds is neither.
    fn learn_choices(&mut self, before: Option<&BGPConfiguration>) {
        let now = configuration(&self.configurations).map(AsRef::as_ref);
        let none = BTreeMap::new();
        let [old, new] = [status_of(before), status_of(now)].map(|one| one.map_or(&none, |one| &one.node_addresses));
        let is_other = |name: &&String| old.get(*name) != new.get(*name);
        let others: BTreeSet<&String> = old.keys().chain(new.keys()).filter(is_other).collect();
        for node in others.iter().filter_map(|name| self.nodes.get(&Key::cluster(name.as_str()))) {
            self.addresses.learn(node, status_of(now));
        }
        if !others.is_empty() || before.map(|one| &one.spec.asn) != now.map(|one| &one.spec.asn) {
            self.known_nodes = Known::new();
        }
    }

    /// Which blocks are this machine's; whether that is something else than before.
    pub fn claimed_by(&mut self, claimant: Claimant) -> bool {
        std::mem::replace(&mut self.claimant, claimant.clone()) != claimant
    }

    /// Whether Services are to be followed.
    #[must_use]
    pub fn wants_services(&self) -> bool {
        let configuration = self.configurations.get(&Key::cluster("default"));
        configuration.is_some_and(|configuration| !configuration.spec.services.is_empty())
    }

    /// Nobody follows Services any more.
    pub fn forget_services(&mut self) {
        self.services = Services::of(&self.node);
        self.told.clear();
    }

    /// Whether all is known of Services that is to be told of.
    pub(super) fn knows_services(&self) -> bool {
        !self.wants_services() || self.services.is_complete()
    }

    /// What is odd about Services, in one sentence. It keeps nothing from being obeyed, and so is no part of what the node reports.
    #[must_use]
    pub fn remark(&self) -> Option<String> {
        if self.wants_services() && !self.services.is_complete() {
            let unheard = "bgpd has not heard all Services and EndpointSlices yet, and tells of none that it did not tell before; if it stays so, \
                           its log says why they cannot be listed";
            return Some(unheard.to_owned());
        }
        self.services.remark()
    }

    /// Whether every kind has been heard as a whole.
    #[must_use]
    pub fn in_sync(&self) -> bool {
        self.heard.is_complete()
    }

    /// Everything up to here is known.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.heard.up_to().unwrap_or_default()
    }

    /// Whether all that the marks stand for is known.
    #[must_use]
    pub fn reached(&self, marks: &[Mark]) -> bool {
        self.heard.reached(marks)
    }

    /// What to keep over a restart, with what they mean.
    #[must_use]
    pub fn snapshot(&self, desired: &Desired) -> Snapshot {
        fn all<K: Object>(index: &Index<K>) -> Vec<K> {
            index.iter().map(|(_, object)| object.as_ref().clone()).collect()
        }
        Snapshot {
            nodes: all(&self.nodes),
            pools: all(&self.pools),
            blocks: all(&self.blocks),
            configurations: all(&self.configurations),
            decided: self.decided.clone(),
            addresses: self
                .addresses
                .kept(self.nodes.iter().map(|(_, node)| node.as_ref()), status(&self.configurations)),
            peers: all(&self.peers),
            filters: all(&self.filters),
            rules: self.rules.clone(),
            secrets: passwords::referred(self),
            network: self.network.spec.clone(),
            services: desired.speaker.shared.clone(),
        }
    }

    /// Objects of an earlier run; not in sync.
    #[must_use]
    pub fn remembered(node: &str, namespace: &str, snapshot: Snapshot) -> Self {
        fn index<K: Object>(items: Vec<K>) -> Index<K> {
            let mut index = Index::default();
            index.apply(Followed::Synced { items, revision: Revision::default() });
            index
        }
        let configurations = index(snapshot.configurations);
        let addresses = Addresses::remembered(snapshot.nodes.iter(), status(&configurations), &snapshot.addresses);
        let mut objects = Self {
            nodes: index(snapshot.nodes),
            addresses,
            known_nodes: Known::new(),
            pools: index(snapshot.pools),
            blocks: index(snapshot.blocks),
            configurations,
            decided: snapshot.decided,
            peers: index(snapshot.peers),
            filters: index(snapshot.filters),
            rules: snapshot.rules,
            secrets: index(snapshot.secrets),
            namespace: namespace.to_owned(),
            network: Network { spec: snapshot.network },
            claimant: Claimant::default(),
            services: Services::of(node),
            told: snapshot.services,
            node: node.to_owned(),
            heard: Freshness::of(scopes(node, namespace)),
        };
        // A release before this one has kept the objects alone.
        objects.learn_decision();
        objects.rules.learn(&objects.peers, &objects.filters);
        objects
    }
}

/// What the controller says to all nodes.
fn status(configurations: &Index<BGPConfiguration>) -> Option<&BGPConfigurationStatus> {
    status_of(configuration(configurations).map(AsRef::as_ref))
}

fn status_of(configuration: Option<&BGPConfiguration>) -> Option<&BGPConfigurationStatus> {
    configuration?.status.as_ref()
}

fn configuration(configurations: &Index<BGPConfiguration>) -> Option<&Arc<BGPConfiguration>> {
    configurations.get(&Key::cluster("default"))
}

/// Whether anything that is read differs. A kubelet says every few minutes that it lives, which in a large cluster is often.
fn decides(change: &Change<Node>) -> bool {
    let (Some(old), Some(new)) = (&change.old, &change.new) else { return true };
    let read = |node: &Node| {
        let meta = &node.metadata;
        (meta.uid.clone(), meta.creation_timestamp.clone(), meta.labels.clone(), node.status.clone())
    };
    read(old) != read(new)
}

fn take<K: Object>(index: &mut Index<K>, step: Followed<K>, heard: &mut Freshness) -> bool {
    let first = heard.take(&step);
    let changed = !index.apply(step).is_empty();
    changed || first
}

impl Network {
    /// Whether something else is asked than before.
    fn take(&mut self, step: Followed<NodeNetwork>) -> bool {
        let spec = match step {
            Followed::Synced { items, .. } => items.into_iter().next().map(|network| network.spec).unwrap_or_default(),
            Followed::Applied(network, _) => network.spec,
            Followed::Deleted(..) => NodeNetworkSpec::default(),
            Followed::Bookmark(_) => return false,
        };
        let changed = self.spec != spec;
        self.spec = spec;
        changed
    }
}

/// Whether this condition says that the kubelet ends the node's pods because the machine goes down: its words for a graceful node shutdown.
pub(super) fn is_shutdown(condition: &NodeCondition) -> bool {
    let says = |text: &String| text.contains("node is shutting down");
    condition.type_ == "Ready" && condition.status == "False" && condition.message.as_ref().is_some_and(says)
}

/// The status of a filter is the controller's word, and decides nothing here.
fn without_status(filter: BGPFilter) -> BGPFilter {
    BGPFilter { status: None, ..filter }
}

/// A Node of Kubernetes lists images and volumes that nobody here reads.
fn trimmed(step: Followed<Node>) -> Followed<Node> {
    let trim = |mut node: Node| {
        node.spec = None;
        node.metadata.annotations = None;
        node.metadata.managed_fields = None;
        if let Some(status) = &mut node.status {
            let addresses = status.addresses.take();
            let conditions = status.conditions.take().map(|all| all.into_iter().filter(is_shutdown).collect());
            *status = k8s_openapi::api::core::v1::NodeStatus { addresses, conditions, ..Default::default() };
        }
        node
    };
    each(step, trim)
}

fn each<K: Object>(step: Followed<K>, trim: impl Fn(K) -> K) -> Followed<K> {
    match step {
        Followed::Synced { items, revision } => {
            Followed::Synced { items: items.into_iter().map(trim).collect(), revision }
        }
        Followed::Applied(object, revision) => Followed::Applied(trim(object), revision),
        other => other,
    }
}
