//! All that an index remembers, cheap to take because pods and policies are shared, and the index that follows from it.

use super::{Endpoint, Event, Index, Pool};
use crate::model::{Isolation, Labels, Node, Pod, Policy};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What an index remembers at one moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    namespaces: Vec<(String, Labels)>,
    isolations: Vec<Isolation>,
    pods: Vec<Arc<Pod>>,
    policies: Vec<Arc<Policy>>,
    endpoints: Vec<Endpoint>,
    isolated: BTreeSet<String>,
    nodes: Vec<Node>,
    pools: Vec<Pool>,
}

impl Index {
    /// What it remembers now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            namespaces: self.namespaces.told().map(|(name, labels)| (name.clone(), labels.clone())).collect(),
            isolations: self.namespaces.isolating().cloned().collect(),
            pods: self.pods.values().cloned().collect(),
            policies: self.policies.values().map(|(policy, _)| policy.clone()).collect(),
            endpoints: self.endpoints.values().cloned().collect(),
            isolated: self.isolated.clone(),
            nodes: self.nodes.clone(),
            pools: self.pools.clone(),
        }
    }
}

impl From<Snapshot> for Index {
    fn from(snapshot: Snapshot) -> Self {
        let mut index = Self::default();
        for (name, labels) in snapshot.namespaces {
            index.apply(Event::NamespaceApplied { name, labels });
        }
        index.apply(Event::NodesChanged(snapshot.nodes));
        index.apply(Event::PoolsChanged(snapshot.pools));
        index.apply(Event::IsolatedChanged(snapshot.isolated));
        snapshot.endpoints.into_iter().for_each(|endpoint| index.apply(Event::EndpointAttached(endpoint)));
        for pod in snapshot.pods {
            index.next += 1;
            index.changes.pods.insert(index.next);
            index.file_pod(index.next, pod, true);
        }
        snapshot.isolations.into_iter().for_each(|isolation| index.apply(Event::IsolationApplied(isolation)));
        // Those that follow from NamespaceIsolations are among them, and the same.
        snapshot.policies.into_iter().for_each(|policy| index.put_policy(policy));
        index
    }
}
