//! What the datastore has told, cut down to what is read of it: a Node of a large cluster is tens of kilobytes, and nothing here needs
//! more of it than labels.

use crate::turns::Nodes;
use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use twill_crds::node_address::{has_choice, internal_ips, may_be_known};
use twill_crds::node_network::{BgpState, PROTOCOL_FILTERED, SETTING_REFUSED, TUNNEL_HEALTHY};
use twill_crds::{
    BGPConfiguration, BGPFilter, BGPPeer, ClusterNetworkPolicy, IPBlock, IPPool, IPReservation, NamespaceIsolation,
    NetworkPolicy, NodeNetwork, Object,
};
use twill_datastore::{Followed, Key, Preconditions, Revision};
use twill_ipam::{Labels, Seen};

/// What one kind has told.
#[derive(Debug)]
pub enum Fact {
    /// About nodes.
    Node(Box<Followed<twill_crds::Node>>),
    /// About nodes' state.
    Network(Followed<NodeNetwork>),
    /// About blocks.
    Block(Followed<IPBlock>),
    /// About pools.
    Pool(Followed<IPPool>),
    /// About reservations.
    Reservation(Followed<IPReservation>),
    /// About peers.
    Peer(Followed<BGPPeer>),
    /// About filters.
    Filter(Followed<BGPFilter>),
    /// About policies.
    Policy(Followed<NetworkPolicy>),
    /// About the cluster's own policies.
    ClusterPolicy(Followed<ClusterNetworkPolicy>),
    /// About namespaces that are closed.
    Isolation(Box<Followed<NamespaceIsolation>>),
    /// About what all nodes share.
    Configuration(Followed<BGPConfiguration>),
}

impl Fact {
    /// About nodes, which are much larger than the rest.
    #[must_use]
    pub fn node(told: Followed<twill_crds::Node>) -> Self {
        Self::Node(Box::new(told))
    }

    /// About namespaces that are closed, whose specs have many selectors.
    #[must_use]
    pub fn isolation(told: Followed<NamespaceIsolation>) -> Self {
        Self::Isolation(Box::new(told))
    }
}

/// A Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Another one under the same name has another.
    pub uid: String,
    /// Its labels.
    pub labels: Labels,
    /// Whether its kubelet has not been heard of for so long that nobody knows how it is.
    pub silent: bool,
    /// Whether it is not ready, takes no new pods, or is about to be removed.
    pub leaving: bool,
    /// Whether it is one of the control plane.
    pub control_plane: bool,
    /// All InternalIPs that it could be known by, where several are of one family.
    pub choice: Vec<IpAddr>,
    /// Seconds since 1970 when it was registered.
    pub created: i64,
}

/// One state of an object, so that no other can be deleted by mistake.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Version {
    /// UID.
    pub uid: String,
    /// Resource version.
    pub revision: String,
    /// What holds it, if it is being deleted.
    pub deleting: Option<Vec<String>>,
}

/// An IPBlock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Block {
    /// This state of it.
    pub version: Version,
    /// Its range, owner and use.
    pub seen: Seen,
}

/// A NodeNetwork.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// This state of it.
    pub version: Version,
    /// An operator has taken the node out of routing.
    pub drained: bool,
    /// It stands until felix has uninstalled, as its report.
    pub uninstall: bool,
    /// The node's addresses, and which peers are down.
    pub bgp: BgpState,
    /// Whether IP-in-IP gets from the node to others that are there; none while nobody knows.
    pub passes_protocol_4: Option<bool>,
    /// Whether the node's kernel holds all policy; none while felix has not said.
    pub policy: Option<bool>,
}

/// A NetworkPolicy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Another one under the same name has another.
    pub uid: String,
    /// What is wrong with it, one sentence each.
    pub problems: Vec<String>,
}

/// Objects of one kind.
#[derive(Clone, Debug)]
pub struct Known<T> {
    items: BTreeMap<Key, T>,
    synced: bool,
}

/// All that is known.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Nodes.
    pub nodes: Known<Node>,
    /// Their state.
    pub networks: Known<Network>,
    /// Blocks.
    pub blocks: Known<Block>,
    /// Pools.
    pub pools: Known<IPPool>,
    /// Reservations.
    pub reservations: Known<IPReservation>,
    /// Peers.
    pub peers: Known<BGPPeer>,
    /// Filters.
    pub filters: Known<BGPFilter>,
    /// Policies.
    pub policies: Known<Policy>,
    /// The cluster's own policies.
    pub cluster_policies: Known<ClusterNetworkPolicy>,
    /// Namespaces that are closed.
    pub isolations: Known<NamespaceIsolation>,
    /// What all nodes share.
    pub configurations: Known<BGPConfiguration>,
    /// Nodes that came since this was last emptied.
    pub came: BTreeSet<String>,
}

/// What has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // Each is of the kind that it is named after.
pub struct Touched {
    pub nodes: bool,
    pub networks: bool,
    pub blocks: bool,
    pub pools: bool,
    pub reservations: bool,
    pub peers: bool,
    pub filters: bool,
    pub policies: bool,
    pub cluster_policies: bool,
    pub isolations: bool,
    pub configurations: bool,
}

impl std::ops::BitOrAssign for Touched {
    fn bitor_assign(&mut self, more: Self) {
        self.nodes |= more.nodes;
        self.networks |= more.networks;
        self.blocks |= more.blocks;
        self.pools |= more.pools;
        self.reservations |= more.reservations;
        self.peers |= more.peers;
        self.filters |= more.filters;
        self.policies |= more.policies;
        self.cluster_policies |= more.cluster_policies;
        self.isolations |= more.isolations;
        self.configurations |= more.configurations;
    }
}

impl World {
    /// Takes in a fact; of what kinds that changed anything that is read here.
    pub fn hear(&mut self, fact: Fact) -> Touched {
        let kind = match &fact {
            Fact::Node(_) => Touched { nodes: true, ..Touched::default() },
            Fact::Network(_) => Touched { networks: true, ..Touched::default() },
            Fact::Block(_) => Touched { blocks: true, ..Touched::default() },
            Fact::Pool(_) => Touched { pools: true, ..Touched::default() },
            Fact::Reservation(_) => Touched { reservations: true, ..Touched::default() },
            Fact::Peer(_) => Touched { peers: true, ..Touched::default() },
            Fact::Filter(_) => Touched { filters: true, ..Touched::default() },
            Fact::Policy(_) => Touched { policies: true, ..Touched::default() },
            Fact::ClusterPolicy(_) => Touched { cluster_policies: true, ..Touched::default() },
            Fact::Isolation(_) => Touched { isolations: true, ..Touched::default() },
            Fact::Configuration(_) => Touched { configurations: true, ..Touched::default() },
        };
        if self.take(fact) { kind } else { Touched::default() }
    }

    fn take(&mut self, fact: Fact) -> bool {
        match fact {
            Fact::Node(told) => {
                let (before, mut came) = (&self.nodes, Vec::new());
                match &*told {
                    Followed::Synced { items, .. } => came.extend(items.iter().map(|node| node.name().to_owned())),
                    Followed::Applied(node, _) => came.push(node.name().to_owned()),
                    Followed::Deleted(..) | Followed::Bookmark(_) => {}
                }
                came.retain(|name| before.get(&Key::cluster(name)).is_none());
                self.came.extend(came);
                self.nodes.apply(*told, node)
            }
            Fact::Network(told) => self.networks.apply(told, network),
            Fact::Block(told) => self.blocks.apply(told, block),
            Fact::Pool(told) => self.pools.apply(told, Clone::clone),
            Fact::Reservation(told) => self.reservations.apply(told, Clone::clone),
            Fact::Peer(told) => self.peers.apply(told, Clone::clone),
            Fact::Filter(told) => self.filters.apply(told, Clone::clone),
            Fact::Policy(told) => self.policies.apply(told, policy),
            Fact::ClusterPolicy(told) => self.cluster_policies.apply(told, Clone::clone),
            Fact::Isolation(told) => self.isolations.apply(*told, Clone::clone),
            Fact::Configuration(told) => self.configurations.apply(told, Clone::clone),
        }
    }

    /// Whether all there is has been told.
    #[must_use]
    pub fn in_sync(&self) -> bool {
        self.nodes.synced
            && self.networks.synced
            && self.blocks.synced
            && self.pools.synced
            && self.reservations.synced
            && self.peers.synced
            && self.filters.synced
            && self.policies.synced
            && self.cluster_policies.synced
            && self.isolations.synced
            && self.configurations.synced
    }

    /// Whether there is a Node of this name.
    #[must_use]
    pub fn has_node(&self, name: &str) -> bool {
        self.nodes.get(&Key::cluster(name)).is_some()
    }
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self { items: BTreeMap::new(), synced: false }
    }
}

impl<T: PartialEq> Known<T> {
    /// Takes in what is told, each object cut down by `trim`. Whether that changed anything.
    fn apply<K: Object>(&mut self, told: Followed<K>, trim: impl Fn(&K) -> T) -> bool {
        match told {
            Followed::Synced { items, .. } => {
                let items = items.iter().map(|object| (key(object), trim(object))).collect();
                let changed = !self.synced || self.items != items;
                (self.items, self.synced) = (items, true);
                changed
            }
            Followed::Applied(object, _) => {
                let (key, new) = (key(&object), trim(&object));
                let changed = self.items.get(&key) != Some(&new);
                self.items.insert(key, new);
                changed
            }
            Followed::Deleted(object, _) => self.items.remove(&key(&object)).is_some(),
            Followed::Bookmark(_) => false,
        }
    }
}

impl<T> Known<T> {
    /// The object, if there is one.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&T> {
        self.items.get(key)
    }

    /// All, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &T)> {
        self.items.iter()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// None?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

impl Version {
    /// That the object must still be like this.
    #[must_use]
    pub fn preconditions(&self) -> Preconditions {
        let revision = self.revision.parse().ok().map(Revision);
        Preconditions { uid: Some(self.uid.clone()), revision }
    }
}

impl Block {
    /// Its range.
    #[must_use]
    pub fn cidr(&self) -> IpNet {
        self.seen.cidr
    }
}

impl World {
    /// Nodes that take part in routing and are heard of, by whether IP-in-IP gets from them to all others that they ask.
    pub(crate) fn by_protocol_4(&self) -> Nodes {
        let heard = |name: &str| self.nodes.get(&Key::cluster(name)).is_some_and(|node| !node.silent);
        let mut nodes = Nodes::default();
        for (key, network) in self.networks.iter().filter(|(key, network)| !network.drained && heard(&key.name)) {
            let side = match network.passes_protocol_4 {
                Some(true) => &mut nodes.up,
                Some(false) => &mut nodes.down,
                None => &mut nodes.unknown,
            };
            side.insert(key.name.clone());
        }
        nodes
    }
}

impl Network {
    /// Whether an address is the node's.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        self.bgp.addresses.contains(&address)
    }
}

fn key<K: Object>(object: &K) -> Key {
    Key::namespaced(object.namespace(), object.name())
}

fn version<K: Object>(object: &K) -> Version {
    let meta = object.meta();
    Version {
        uid: meta.uid.clone().unwrap_or_default(),
        revision: meta.resource_version.clone().unwrap_or_default(),
        deleting: meta.deletion_timestamp.as_ref().map(|_| meta.finalizers.clone().unwrap_or_default()),
    }
}

/// Taints of nodes that autoscalers are about to remove, cluster-autoscaler's and Karpenter's.
const REMOVED_SOON: [&str; 2] = ["ToBeDeletedByClusterAutoscaler", "karpenter.sh/disrupted"];
/// Label and taint of nodes of the control plane.
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

fn node(node: &twill_crds::Node) -> Node {
    let meta = node.meta();
    let conditions = || node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = |is: &str| conditions().any(|condition| condition.type_ == "Ready" && condition.status == is);
    let taints = || node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).map(|taint| taint.key.as_str());
    let unschedulable = node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true));
    let labels = meta.labels.clone().unwrap_or_default();
    let addresses: Vec<IpAddr> = internal_ips(node, &[]).into_iter().filter(|one| may_be_known(*one)).collect();
    Node {
        uid: meta.uid.clone().unwrap_or_default(),
        silent: ready("Unknown"),
        leaving: ready("False")
            || unschedulable
            || meta.deletion_timestamp.is_some()
            || taints().any(|key| REMOVED_SOON.contains(&key)),
        control_plane: labels.contains_key(CONTROL_PLANE) || taints().any(|key| key == CONTROL_PLANE),
        choice: if has_choice(&addresses) { addresses } else { Vec::new() },
        created: meta.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
        labels,
    }
}

fn network(network: &NodeNetwork) -> Network {
    let status = network.status.clone().unwrap_or_default();
    let policy = status.felix.conditions.iter().find(|condition| condition.type_ == "PolicySynced");
    let tunnels = status.bgp.conditions.iter().find(|condition| condition.type_ == TUNNEL_HEALTHY);
    Network {
        passes_protocol_4: tunnels.and_then(passes_protocol_4),
        version: version(network),
        drained: network.spec.drain,
        uninstall: network.spec.uninstall,
        policy: policy.map(|condition| condition.status == "True"),
        bgp: BgpState { conditions: Vec::new(), ..status.bgp },
    }
}

/// Whether protocol 4 gets through from a node with this condition of its tunnels. A device that cannot be used says nothing of the network.
fn passes_protocol_4(tunnels: &Condition) -> Option<bool> {
    match (tunnels.status.as_str(), tunnels.reason.as_str()) {
        ("True", _) | (_, SETTING_REFUSED) => Some(true),
        (_, PROTOCOL_FILTERED) => Some(false),
        _ => None,
    }
}

fn block(block: &IPBlock) -> Block {
    Block { version: version(block), seen: twill_ipam::io::claimer::seen(block) }
}

fn policy(policy: &NetworkPolicy) -> Policy {
    let uid = policy.meta().uid.clone().unwrap_or_default();
    Policy { uid, problems: twill_felix::model::network_policy(policy).problems }
}
