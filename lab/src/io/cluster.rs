//! A lab that is up, and its datastore: applies and deletes manifests, pods included.

mod follow;

use crate::changes::{Changes, changes};
use crate::io::{kubelet, labs, tenancy};
use crate::nodes::{self, own_labels};
use crate::resources::{self, Candidate, Desired, Wanted};
use crate::state::{Daemon, State};
use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use twill_crds::manifest::Manifest;
use twill_crds::{BGPConfiguration, Kind, Namespace, Node, NodeNetwork, NodeNetworkSpec, Object, Pod};
use twill_datastore::{Datastore, Engine, Filter, Key, Preconditions};

/// How long daemons may take to follow a change.
pub const FOLLOW: Duration = Duration::from_secs(30);

/// How long a reason why a route is not in the kernel must stand before it is believed.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// A lab that is up, with its datastore open.
pub struct Cluster {
    /// What the lab remembers.
    pub state: State,
    store: Datastore,
    runtime: tokio::runtime::Runtime,
}

impl Cluster {
    /// Opens the datastore of a lab.
    ///
    /// # Errors
    /// The datastore does not open.
    pub fn open(state: State) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let store = runtime.block_on(Datastore::open_existing_as(&state.datastore, "lab"))?;
        Ok(Self { state, store, runtime })
    }

    /// Makes the datastore of a new lab.
    ///
    /// # Errors
    /// The datastore cannot be made.
    pub fn create(state: State) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let store = runtime.block_on(Datastore::open(&state.datastore))?;
        Ok(Self { state, store, runtime })
    }

    /// Runs something on the datastore's engine.
    pub fn block_on<T>(&self, work: impl AsyncFnOnce(&dyn Engine) -> T) -> T {
        self.runtime.block_on(work(self.store.engine().as_ref()))
    }

    /// All objects of a kind.
    ///
    /// # Errors
    /// The datastore does not answer.
    pub fn list<K: Object>(&self) -> anyhow::Result<Vec<K>> {
        Ok(self.runtime.block_on(self.store.list::<K>(&Filter::default()))?.items)
    }

    /// What a node is asked by its NodeNetwork; none if it has none.
    ///
    /// # Errors
    /// The datastore does not answer.
    pub fn asked(&self, node: &str) -> anyhow::Result<Option<NodeNetworkSpec>> {
        let network = self.runtime.block_on(self.store.get::<NodeNetwork>(&Key::cluster(node)))?;
        Ok(network.map(|network| network.spec))
    }

    /// Names of the nodes that are drained, or on their way there.
    ///
    /// # Errors
    /// The datastore does not answer.
    pub fn drained(&self) -> anyhow::Result<BTreeSet<String>> {
        let networks = self.list::<NodeNetwork>()?;
        Ok(networks.iter().filter(|network| network.spec.drain).map(|network| network.name().to_owned()).collect())
    }

    /// Writes the node's object, labels and addresses.
    ///
    /// # Errors
    /// The datastore refuses.
    pub fn put_nodes(&self) -> anyhow::Result<()> {
        for node in &self.state.nodes {
            let addresses = node.addresses.iter().map(|a| json!({"type": "InternalIP", "address": a.to_string()}));
            let hostname = json!({"type": "Hostname", "address": node.name});
            let value = json!({
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": node.name, "labels": own_labels(&node.name, &node.rack)},
                "spec": {},
                "status": {
                    "addresses": addresses.chain([hostname]).collect::<Vec<_>>(),
                    "conditions": [{"type": "Ready", "status": "True"}],
                },
            });
            self.put(&Node::kind(), value.clone())?;
            self.put_status(&Node::kind(), value)?;
        }
        Ok(())
    }

    /// Creates an object, or replaces all but its status.
    ///
    /// # Errors
    /// The object breaks a rule, or the datastore refuses.
    pub fn put(&self, kind: &Kind, mut value: Value) -> anyhow::Result<()> {
        let key = key_of(&value);
        if let Some(metadata) = value["metadata"].as_object_mut() {
            for set_by_the_store in ["resourceVersion", "uid", "creationTimestamp", "generation", "managedFields"] {
                metadata.remove(set_by_the_store);
            }
        }
        self.sign(&mut value);
        let engine = self.store.engine();
        self.runtime.block_on(async {
            match engine.get(kind, &key).await? {
                None => engine.create(kind, value).await,
                Some(_) => engine.update(kind, value).await,
            }
        })?;
        Ok(())
    }

    /// In an API server, what the lab wrote says so.
    fn sign(&self, value: &mut Value) {
        if tenancy::concerns(&self.state) {
            value["metadata"]["labels"][tenancy::LABEL] = json!(self.state.name);
        }
    }

    fn put_status(&self, kind: &Kind, value: Value) -> anyhow::Result<()> {
        self.runtime.block_on(self.store.engine().update_status(kind, value))?;
        Ok(())
    }

    /// Writes the namespaces that are lived in and that nobody wrote.
    ///
    /// # Errors
    /// The datastore refuses.
    pub fn put_namespaces(&self, names: impl IntoIterator<Item = String>) -> anyhow::Result<()> {
        let known = self.list::<Namespace>()?.iter().map(|n| n.name().to_owned()).collect::<BTreeSet<_>>();
        for name in names.into_iter().filter(|n| !known.contains(n)) {
            let value = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {NAME_LABEL: name}}});
            self.put(&Namespace::kind(), value)?;
        }
        Ok(())
    }

    /// Applies what manifests ask for, pods included. Says what a person should know.
    ///
    /// # Errors
    /// Something is wrong with an object, or a pod cannot be attached.
    pub fn apply(&mut self, desired: Desired) -> anyhow::Result<Vec<String>> {
        self.check(&desired)?;
        let deployments = desired
            .objects
            .iter()
            .filter(|d| d.kind.kind == "Deployment")
            .map(|d| key_of(&d.value))
            .map(|k| (k.namespace, k.name))
            .collect();
        let mut changes = changes(self.list()?, desired.pods, &deployments)?;
        self.place(&mut changes.start, &desired.objects)?;
        let reconfigured = desired.objects.iter().any(|object| object.kind == BGPConfiguration::kind());
        for object in desired.objects {
            self.put_object(object)?;
        }
        self.put_namespaces(desired.namespaces)?;
        if reconfigured {
            self.decide()?;
        }
        let mut notes = Vec::new();
        if !desired.inert.is_empty() {
            let kinds = desired.inert.into_iter().collect::<Vec<_>>().join(", ");
            notes.push(format!("stored, without meaning in a lab: {kinds}"));
        }
        self.change_pods(changes)?;
        labs::save(&self.state)?;
        Ok(notes)
    }

    fn put_object(&self, object: Manifest) -> anyhow::Result<()> {
        if object.kind == Node::kind() {
            return self.update_node(&object);
        }
        let Manifest { kind, mut value, .. } = object;
        if kind.kind == "Namespace" {
            value["metadata"]["labels"][NAME_LABEL] = value["metadata"]["name"].clone();
        }
        self.put(&kind, value)
    }

    fn update_node(&self, manifest: &Manifest) -> anyhow::Result<()> {
        let key = key_of(&manifest.value);
        let mut node: Node = self
            .runtime
            .block_on(self.store.get(&key))?
            .with_context(|| format!("{}: it is gone", resources::what(manifest)))?;
        nodes::update(&mut node, manifest);
        self.put(&Node::kind(), serde_json::to_value(&node)?)
    }

    /// Nodes count with the labels that they will have.
    fn place(&mut self, pods: &mut [Wanted], objects: &[Manifest]) -> anyhow::Result<()> {
        let nodes = self.list::<Node>()?;
        let candidates = self
            .state
            .nodes
            .iter()
            .filter_map(|n| nodes.iter().find(|o| o.name() == n.name))
            .map(|node| {
                let mut labels = node.meta().labels.clone().unwrap_or_default();
                nodes::relabel(&mut labels, node.name(), objects);
                let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or_default();
                Candidate { name: node.name(), labels, cordoned }
            })
            .collect::<Vec<_>>();
        let mut turn = self.state.scheduled;
        for wanted in pods {
            resources::schedule(&mut wanted.pod, &candidates, &mut turn)?;
        }
        self.state.scheduled = turn;
        Ok(())
    }

    fn change_pods(&mut self, changes: Changes) -> anyhow::Result<()> {
        kubelet::stop(&self.state, &changes.stop)?;
        for pod in &changes.stop {
            self.delete_ended(pod)?;
        }
        for pod in changes.update {
            self.put(&Pod::kind(), serde_json::to_value(&pod)?)?;
        }
        let ending = changes.end.iter().map(|(pod, _)| pod.clone()).collect::<Vec<_>>();
        kubelet::stop(&self.state, &ending)?;
        for (pod, ended) in changes.end {
            let mut value = serde_json::to_value(&pod)?;
            value["status"]["phase"] = json!(ended.phase());
            self.put_unversioned_status(value)?;
        }
        let mut created = changes.retry;
        for wanted in changes.start {
            let mut value = serde_json::to_value(&wanted.pod)?;
            self.sign(&mut value);
            let pod = serde_json::from_value(self.block_on(async |engine| engine.create(&Pod::kind(), value).await)?)?;
            created.push(Wanted { pod, ended: wanted.ended });
        }
        self.attach(created)
    }

    /// Pods of a node whose containers run.
    ///
    /// # Errors
    /// The datastore does not answer.
    pub fn running_on(&self, node: &str) -> anyhow::Result<Vec<Pod>> {
        let mut pods = self.list::<Pod>()?;
        let runs = |p: &Pod| p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
        pods.retain(|p| kubelet::node_name(p) == node && runs(p));
        Ok(pods)
    }

    /// Gives pods that are stored and placed their sandboxes, and writes their status.
    ///
    /// # Errors
    /// The first that failed.
    pub fn attach(&self, pods: Vec<Wanted>) -> anyhow::Result<()> {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        kubelet::start(&self.state, pods, |started| {
            let node = self.state.node(kubelet::node_name(&started.pod))?;
            let mut value = serde_json::to_value(&started.pod)?;
            value["status"] = kubelet::status(node, &started, &now);
            self.put_unversioned_status(value)
        })
    }

    /// The lab alone writes a pod's status: whatever else changed in the object meanwhile, this status counts.
    fn put_unversioned_status(&self, mut value: Value) -> anyhow::Result<()> {
        if let Some(metadata) = value["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
        }
        self.put_status(&Pod::kind(), value)
    }

    fn delete(&self, kind: &Kind, key: &Key) -> anyhow::Result<bool> {
        match self.runtime.block_on(self.store.engine().delete(kind, key, &Preconditions::default())) {
            Ok(()) => Ok(true),
            Err(twill_datastore::Error::NotFound(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The lab is the pod's kubelet, and has stopped it.
    fn delete_ended(&self, pod: &Pod) -> anyhow::Result<()> {
        let key = Key::namespaced(pod.namespace(), pod.name());
        let engine = self.store.engine();
        match self.runtime.block_on(engine.delete_ended(&Pod::kind(), &key, &Preconditions::default())) {
            Ok(()) | Err(twill_datastore::Error::NotFound(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes what manifests name: pods are stopped first, a Deployment takes its pods along, a Namespace all that is in it. Names
    /// what was not there.
    ///
    /// # Errors
    /// A pod cannot be stopped, or the datastore refuses.
    pub fn remove(&mut self, manifests: Vec<Manifest>) -> anyhow::Result<Vec<String>> {
        let mut keys = Vec::new();
        for manifest in &manifests {
            ensure!(manifest.kind.kind != "Node", "{}: the lab's own nodes are not deleted", resources::what(manifest));
            if manifest.kind.kind == "Namespace" {
                keys.extend(self.inside(&key_of(&manifest.value).name)?);
            }
            keys.push((manifest.kind.clone(), key_of(&manifest.value)));
        }
        let named = |kind: &str, namespace: &str, name: &str| {
            keys.iter().any(|(k, key)| k.kind == kind && key.namespace == namespace && key.name == name)
        };
        let mut pods = self.list::<Pod>()?;
        pods.retain(|p| {
            named("Pod", p.namespace(), p.name())
                || resources::owner(p).is_some_and(|(namespace, name)| named("Deployment", namespace, name))
        });
        kubelet::stop(&self.state, &pods)?;
        for pod in &pods {
            self.delete_ended(pod)?;
        }
        let mut absent = Vec::new();
        for (kind, key) in keys {
            let stopped =
                kind.kind == "Pod" && pods.iter().any(|p| p.namespace() == key.namespace && p.name() == key.name);
            if !stopped && !self.delete(&kind, &key)? {
                absent.push(format!("{} {key} was not there", kind.kind));
            }
        }
        Ok(absent)
    }

    /// Everything in a namespace.
    fn inside(&self, namespace: &str) -> anyhow::Result<Vec<(Kind, Key)>> {
        let engine = self.store.engine();
        let filter = Filter { namespace: Some(namespace.to_owned()), ..Filter::default() };
        self.runtime.block_on(async {
            let mut found = Vec::new();
            for kind in engine.kinds().await?.into_iter().filter(|k| k.namespaced) {
                let items = engine.list(&kind, &filter).await?.items;
                found.extend(items.iter().map(|value| (kind.clone(), key_of(value))));
            }
            Ok(found)
        })
    }
}

/// Label that an API server gives to every namespace.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

fn key_of(value: &Value) -> Key {
    let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default();
    match text("namespace") {
        "" => Key::cluster(text("name")),
        namespace => Key::namespaced(namespace, text("name")),
    }
}

/// Refuses a daemon that does not run.
///
/// # Errors
/// It runs already.
pub fn must_be_down(state: &State, machine: &str, daemon: Daemon) -> anyhow::Result<()> {
    state.node(machine)?;
    if state.runs(machine, daemon) {
        bail!("{daemon} of {machine} runs already; stop it with: twill lab kill {machine} {daemon}");
    }
    Ok(())
}
