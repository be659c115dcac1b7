//! What can happen.

use crate::model::{Isolation, Labels, Node, Pod, PodKey, Policy, PolicyKey};
use ipnet::IpNet;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// A change of what the agent knows. `…Replaced` is the whole of a kind, for the start and after a gap in a watch: what is not
/// in it is gone.
#[derive(Clone, Debug)]
pub enum Event {
    /// A pod was created or changed.
    PodApplied(Pod),
    /// A pod was deleted.
    PodDeleted {
        /// Its name.
        key: PodKey,
        /// Its UID; empty means whichever pod has the name.
        uid: String,
    },
    /// These are all pods.
    PodsReplaced(Vec<Pod>),
    /// A namespace was created or changed.
    NamespaceApplied {
        /// Its name.
        name: String,
        /// Its labels, from [`crate::model::namespace_labels`].
        labels: Labels,
    },
    /// A namespace was deleted.
    NamespaceDeleted {
        /// Its name.
        name: String,
    },
    /// These are all namespaces, with their labels.
    NamespacesReplaced(BTreeMap<String, Labels>),
    /// A policy was created or changed.
    PolicyApplied(Policy),
    /// A policy was deleted.
    PolicyDeleted(PolicyKey),
    /// These are all policies of a kind.
    PoliciesReplaced {
        /// The kind, as in their keys.
        kind: Cow<'static, str>,
        /// The policies.
        policies: Vec<Policy>,
    },
    /// A NamespaceIsolation was created or changed.
    IsolationApplied(Isolation),
    /// The NamespaceIsolation of this name was deleted.
    IsolationDeleted(String),
    /// These are all NamespaceIsolations.
    IsolationsReplaced(Vec<Isolation>),
    /// A workload interface exists on this node.
    EndpointAttached(Endpoint),
    /// It is gone.
    EndpointDetached {
        /// Name of its host side.
        ifname: String,
    },
    /// These are all interfaces whose workloads are cut off, whatever policy says: an address of theirs has become another node's.
    IsolatedChanged(BTreeSet<String>),
    /// These are all nodes.
    NodesChanged(Vec<Node>),
    /// These are all pools.
    PoolsChanged(Vec<Pool>),
}

/// A workload interface on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Name of its host side.
    pub ifname: String,
    /// The pod that it serves.
    pub pod: PodKey,
    /// The pod's UID; empty if the runtime did not say.
    pub uid: String,
    /// What it may send from.
    pub addresses: BTreeSet<IpAddr>,
}

/// A range of pod addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The range.
    pub cidr: IpNet,
    /// Whether packets from it to outside every pool carry the node's address.
    pub nat_outgoing: bool,
}
