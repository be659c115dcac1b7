//! What the agent knows, filed so that an event costs what it changes.
//!
//! In flow events about pods, namespaces, policies, nodes, pools and local endpoints, in any order; out flows the list of what
//! they touched since it was last taken. It only remembers: nothing here decides what a ruleset looks like.

mod event;
mod labels;
mod namespaces;
mod owners;
mod snapshot;

pub use event::{Endpoint, Event, Pool};

use crate::model::{Direction, Few, Labels, Node, Pod, PodKey, PodSelector, Policy, PolicyKey};
use labels::LabelIndex;
pub(crate) use labels::{ItemId, SelectorId};
use namespaces::{Change, Namespaces};
use owners::{Claim, Owners};
use rustc_hash::{FxHashMap, FxHashSet};
pub(crate) use snapshot::Snapshot;
use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

/// Everything that the ruleset depends on.
#[derive(Debug, Default)]
pub(crate) struct Index {
    ids: FxHashMap<ByKey, ItemId>,
    next: ItemId,
    pods: FxHashMap<ItemId, Arc<Pod>>,
    /// Labels of pods, each once: those of a ReplicaSet are the same. Cleared of what nobody has any more now and then.
    labels: FxHashSet<Labels>,
    clear_labels_at: usize,
    namespaces: Namespaces,
    policies: BTreeMap<PolicyKey, (Arc<Policy>, SelectorId)>,
    by_subject: FxHashMap<SelectorId, Vec<Arc<Policy>>>,
    endpoints: BTreeMap<String, Endpoint>,
    by_pod: FxHashMap<PodKey, BTreeSet<String>>,
    /// Interfaces that are closed both ways, with or without an endpoint.
    isolated: BTreeSet<String>,
    nodes: Vec<Node>,
    pools: Vec<Pool>,
    /// Pods with an endpoint here, under the subject selectors of all policies.
    subjects: LabelIndex,
    /// All pods that policy can see, under the selectors that the ruleset refers to.
    pub(crate) peers: LabelIndex,
    owners: Owners,
    changes: Changes,
}

/// A pod found by its name, without another copy of the name.
#[derive(Debug)]
struct ByKey(Arc<Pod>);

impl Borrow<PodKey> for ByKey {
    fn borrow(&self) -> &PodKey {
        &self.0.key
    }
}

impl Hash for ByKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key.hash(state);
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for ByKey {}

/// What events touched.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Pods whose owned addresses or named ports may be others.
    pub(crate) pods: BTreeSet<ItemId>,
    /// Memberships in peer selectors that may be others, with what they were.
    pub(crate) memberships: FxHashMap<(SelectorId, ItemId), bool>,
    /// Endpoints whose lists or addresses may be others, by interface name.
    pub(crate) endpoints: BTreeSet<String>,
    /// Some policies are others.
    pub(crate) policies: bool,
    /// The nodes are others.
    pub(crate) nodes: bool,
    /// The pools are others.
    pub(crate) pools: bool,
}

impl Index {
    /// Takes note of an event.
    pub(crate) fn apply(&mut self, event: Event) {
        match event {
            Event::PodApplied(pod) => self.put_pod(pod),
            Event::PodDeleted { key, uid } => self.remove_pod(&key, &uid),
            Event::PodsReplaced(pods) => {
                let kept: BTreeSet<&PodKey> = pods.iter().map(|p| &p.key).collect();
                let gone: Vec<PodKey> = self.pods().map(|p| &p.key).filter(|k| !kept.contains(k)).cloned().collect();
                gone.iter().for_each(|key| self.remove_pod(key, ""));
                pods.into_iter().for_each(|pod| self.put_pod(pod));
            }
            Event::NamespaceApplied { name, labels } => {
                self.subjects.put_namespace(&name, Some(&labels));
                self.peers.put_namespace(&name, Some(&labels));
                let changes = self.namespaces.put(name, labels);
                self.perform(changes);
            }
            Event::NamespaceDeleted { name } => self.remove_namespace(&name),
            Event::NamespacesReplaced(all) => {
                let gone: Vec<String> = self.namespaces.known().filter(|n| !all.contains_key(*n)).cloned().collect();
                gone.iter().for_each(|name| self.remove_namespace(name));
                for (name, labels) in all {
                    self.apply(Event::NamespaceApplied { name, labels });
                }
            }
            Event::PolicyApplied(policy) => self.put_policy(policy),
            Event::PolicyDeleted(key) => self.remove_policy(&key),
            Event::PoliciesReplaced { kind, policies } => {
                let kept: BTreeSet<&PolicyKey> = policies.iter().map(|p| &p.key).collect();
                let goes = |key: &&PolicyKey| *key.kind == *kind && !kept.contains(key);
                let gone: Vec<PolicyKey> = self.policies.keys().filter(goes).cloned().collect();
                gone.iter().for_each(|key| self.remove_policy(key));
                policies.into_iter().for_each(|policy| self.put_policy(policy));
            }
            Event::IsolationApplied(isolation) => {
                let changes = self.namespaces.isolate(isolation);
                self.perform(changes);
            }
            Event::IsolationDeleted(name) => {
                let changes = self.namespaces.release(&name);
                self.perform(changes);
            }
            Event::IsolationsReplaced(all) => {
                let kept: BTreeSet<&String> = all.iter().map(|one| &one.name).collect();
                let gone: Vec<String> = self.namespaces.isolations().filter(|n| !kept.contains(n)).cloned().collect();
                gone.into_iter().for_each(|name| self.apply(Event::IsolationDeleted(name)));
                all.into_iter().for_each(|one| self.apply(Event::IsolationApplied(one)));
            }
            Event::EndpointAttached(endpoint) => self.attach(endpoint),
            Event::EndpointDetached { ifname } => self.detach(&ifname),
            Event::IsolatedChanged(isolated) => self.isolate(isolated),
            Event::NodesChanged(nodes) => {
                self.changes.nodes |= self.nodes != nodes;
                self.nodes = nodes;
            }
            Event::PoolsChanged(pools) => {
                self.changes.pools |= self.pools != pools;
                self.pools = pools;
            }
        }
    }

    /// What was touched since the last call.
    pub(crate) fn take_changes(&mut self) -> Changes {
        let subjects: BTreeSet<ItemId> = self.subjects.take_touched().into_keys().map(|(_, pod)| pod).collect();
        let touched: Vec<ItemId> = subjects.into_iter().chain(self.changes.pods.iter().copied()).collect();
        touched.into_iter().for_each(|pod| self.touch_endpoints_of(pod));
        self.changes.memberships = self.peers.take_touched();
        std::mem::take(&mut self.changes)
    }

    /// Addresses that a pod owns, and the pod.
    pub(crate) fn owned(&self, id: ItemId) -> Option<(&Arc<Pod>, Few<IpAddr>)> {
        Some((self.pods.get(&id)?, self.owners.owned(id).collect()))
    }

    /// The endpoint on an interface with its pod, if both are there, belong together, and are not cut off: a pod that is created
    /// again under the same name has another UID, and the interface of its predecessor stays closed.
    pub(crate) fn live(&self, ifname: &str) -> Option<(&Endpoint, ItemId)> {
        let endpoint = self.endpoints.get(ifname).filter(|_| !self.isolated.contains(ifname))?;
        let id = self.ids.get(&endpoint.pod)?;
        self.pods.get(id).is_some_and(|pod| belongs(endpoint, pod)).then_some((endpoint, *id))
    }

    /// Policies that govern a pod with an endpoint here, in the order in which they are judged.
    pub(crate) fn governing(&self, id: ItemId, direction: Direction) -> Vec<&Arc<Policy>> {
        let policies = self.subjects.matched(id).filter_map(|s| self.by_subject.get(&s)).flatten();
        let mut all: Vec<_> = policies.filter(|p| p.rules(direction).is_some()).collect();
        all.sort_by(|a, b| a.order().cmp(&b.order()));
        all
    }

    /// The pod of this name.
    pub(crate) fn pod(&self, key: &PodKey) -> Option<&Pod> {
        self.pods.get(self.ids.get(key)?).map(AsRef::as_ref)
    }

    /// The pod that owns an address.
    pub(crate) fn owner(&self, address: IpAddr) -> Option<&Pod> {
        self.pods.get(&self.owners.owner(address)?).map(AsRef::as_ref)
    }

    /// The pods that claim an address, its owner last.
    pub(crate) fn claimants(&self, address: IpAddr) -> impl Iterator<Item = &Pod> {
        self.owners.claimants(address).map(AsRef::as_ref)
    }

    /// The pod of an interface here, if the interface is open.
    pub(crate) fn behind(&self, ifname: &str) -> Option<(&PodKey, ItemId)> {
        self.live(ifname).map(|(endpoint, id)| (&endpoint.pod, id))
    }

    /// All pods.
    pub(crate) fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values().map(AsRef::as_ref)
    }

    /// The policy of this name.
    pub(crate) fn policy(&self, key: &PolicyKey) -> Option<&Arc<Policy>> {
        self.policies.get(key).map(|(policy, _)| policy)
    }

    /// All interfaces of workloads here, with or without a pod that is known.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.values()
    }

    /// All nodes.
    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// All pools.
    pub(crate) fn pools(&self) -> &[Pool] {
        &self.pools
    }

    /// What is wrong with objects, one sentence each.
    pub(crate) fn problems(&self) -> Vec<String> {
        let policies = self.policies.values().flat_map(|(p, _)| p.problems.iter().cloned());
        policies.chain(self.namespaces.problems()).chain(self.owners.problems()).collect()
    }

    fn put_pod(&mut self, mut pod: Pod) {
        if self.pod(&pod.key) == Some(&pod) {
            return;
        }
        pod.labels = self.interned(pod.labels);
        self.file_pod(Arc::new(pod));
    }

    fn file_pod(&mut self, pod: Arc<Pod>) {
        let known = self.ids.get(&pod.key).copied();
        let id = known.unwrap_or_else(|| {
            self.next += 1;
            self.next
        });
        if self.pods.get(&id).is_none_or(|old| old.ports != pod.ports) {
            self.changes.pods.insert(id);
        }
        // The key in the map is a part of the pod: removed first, else the old pod would stay for it.
        self.ids.remove(&pod.key);
        self.ids.insert(ByKey(pod.clone()), id);
        self.pods.insert(id, pod.clone());
        if known.is_none() {
            let changes = self.namespaces.enter(&pod.key.namespace);
            self.perform(changes);
        }
        self.refresh(id);
    }

    fn interned(&mut self, labels: Labels) -> Labels {
        if let Some(known) = self.labels.get(&labels) {
            return known.clone();
        }
        if self.labels.len() >= self.clear_labels_at {
            self.labels.retain(|labels| Arc::strong_count(labels) > 1);
            self.clear_labels_at = 2 * self.labels.len() + 1_000;
        }
        self.labels.insert(labels.clone());
        labels
    }

    /// A delete that comes after the pod was created again is about the one before.
    fn remove_pod(&mut self, key: &PodKey, uid: &str) {
        let Some(id) = self.ids.get(key).copied() else { return };
        if self.pods.get(&id).is_some_and(|pod| !same_uid(uid, &pod.uid)) {
            return;
        }
        self.touch_endpoints_of(id);
        self.subjects.remove_item(id);
        self.peers.remove_item(id);
        self.changes.pods.extend(self.owners.claim(id, &BTreeMap::new()));
        self.changes.pods.insert(id);
        self.ids.remove(key);
        self.pods.remove(&id);
        let changes = self.namespaces.leave(&key.namespace);
        self.perform(changes);
    }

    /// Files a pod anew after it or its endpoints changed.
    fn refresh(&mut self, id: ItemId) {
        let Some(pod) = self.pods.get(&id) else { return };
        let names = self.by_pod.get(&pod.key);
        let endpoints = names.into_iter().flatten().filter_map(|n| self.endpoints.get(n)).filter(|e| belongs(e, pod));
        let (isolated, here): (Vec<&Endpoint>, Vec<&Endpoint>) =
            endpoints.partition(|e| self.isolated.contains(&e.ifname));
        if here.is_empty() {
            self.subjects.remove_item(id);
        } else {
            self.subjects.put_item(id, &pod.key.namespace, &pod.labels);
        }
        let mut claims = BTreeMap::new();
        if pod.is_governed() {
            self.peers.put_item(id, &pod.key.namespace, &pod.labels);
            let claim = Claim { local: !here.is_empty(), id, pod: pod.clone() };
            let attached = here.iter().flat_map(|e| &e.addresses);
            let addresses: Few<IpAddr> = match (here.is_empty(), isolated.is_empty()) {
                (false, _) => attached.copied().collect(),
                (true, true) => pod.addresses.clone(),
                // What its status says is another pod's by now.
                (true, false) => Few::default(),
            };
            claims.extend(addresses.iter().map(|a| (*a, claim.clone())));
        } else {
            self.peers.remove_item(id);
        }
        self.changes.endpoints.extend(names.into_iter().flatten().cloned());
        self.changes.pods.extend(self.owners.claim(id, &claims));
    }

    fn attach(&mut self, endpoint: Endpoint) {
        if self.endpoints.get(&endpoint.ifname) == Some(&endpoint) {
            return;
        }
        self.detach(&endpoint.ifname);
        let (key, ifname) = (endpoint.pod.clone(), endpoint.ifname.clone());
        self.by_pod.entry(key.clone()).or_default().insert(ifname.clone());
        self.endpoints.insert(ifname.clone(), endpoint);
        self.changes.endpoints.insert(ifname);
        if let Some(id) = self.ids.get(&key).copied() {
            self.refresh(id);
        }
    }

    fn detach(&mut self, ifname: &str) {
        let Some(endpoint) = self.endpoints.remove(ifname) else { return };
        self.changes.endpoints.insert(ifname.to_owned());
        if let Some(names) = self.by_pod.get_mut(&endpoint.pod) {
            names.remove(ifname);
            if names.is_empty() {
                self.by_pod.remove(&endpoint.pod);
            }
        }
        if let Some(id) = self.ids.get(&endpoint.pod).copied() {
            self.refresh(id);
        }
    }

    fn isolate(&mut self, isolated: BTreeSet<String>) {
        let changed: Vec<String> = self.isolated.symmetric_difference(&isolated).cloned().collect();
        self.isolated = isolated;
        for ifname in changed {
            let pod = self.endpoints.get(&ifname).and_then(|endpoint| self.ids.get(&endpoint.pod)).copied();
            self.changes.endpoints.insert(ifname);
            pod.into_iter().for_each(|id| self.refresh(id));
        }
    }

    fn remove_namespace(&mut self, name: &str) {
        self.subjects.put_namespace(name, None);
        self.peers.put_namespace(name, None);
        let changes = self.namespaces.remove(name);
        self.perform(changes);
    }

    fn perform(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Put(policy) => self.put_policy(policy),
                Change::Remove(key) => self.remove_policy(&key),
            }
        }
    }

    fn put_policy(&mut self, policy: impl Into<Arc<Policy>>) {
        let policy: Arc<Policy> = policy.into();
        if self.policies.get(&policy.key).is_some_and(|(old, _)| *old == policy) {
            return;
        }
        self.changes.policies = true;
        let subject = self.subjects.acquire(&policy.subject);
        self.remove_policy(&policy.key);
        self.touch_subjects(subject);
        self.by_subject.entry(subject).or_default().push(policy.clone());
        self.policies.insert(policy.key.clone(), (policy, subject));
    }

    fn remove_policy(&mut self, key: &PolicyKey) {
        let Some((_, subject)) = self.policies.remove(key) else { return };
        self.changes.policies = true;
        self.touch_subjects(subject);
        if let Some(policies) = self.by_subject.get_mut(&subject) {
            policies.retain(|policy| policy.key != *key);
            if policies.is_empty() {
                self.by_subject.remove(&subject);
            }
        }
        self.subjects.release(subject);
    }

    fn touch_subjects(&mut self, subject: SelectorId) {
        let pods: Vec<ItemId> = self.subjects.members(subject).collect();
        pods.into_iter().for_each(|pod| self.touch_endpoints_of(pod));
    }

    fn touch_endpoints_of(&mut self, id: ItemId) {
        let names = self.pods.get(&id).and_then(|pod| self.by_pod.get(&pod.key));
        self.changes.endpoints.extend(names.into_iter().flatten().cloned());
    }
}

fn belongs(endpoint: &Endpoint, pod: &Pod) -> bool {
    endpoint.pod == pod.key && !pod.host_network && same_uid(&endpoint.uid, &pod.uid)
}

/// Who does not know a UID does not contradict one.
fn same_uid(a: &str, b: &str) -> bool {
    a.is_empty() || b.is_empty() || a == b
}

/// Selectors of a rule are interned here by the ruleset's sets.
impl Index {
    /// Starts to follow a peer selector for one more set.
    pub(crate) fn follow(&mut self, selector: &PodSelector) -> SelectorId {
        self.peers.acquire(selector)
    }

    /// Ends it for one set.
    pub(crate) fn unfollow(&mut self, selector: SelectorId) {
        self.peers.release(selector);
    }
}
