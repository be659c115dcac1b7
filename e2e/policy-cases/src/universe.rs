//! Namespaces, nodes and pods that a case begins with.

use crate::{Case, Protocol};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The nodes of every universe. A pod's `spec.nodeName` is one of them.
pub const NODES: [&str; 2] = ["n1", "n2"];

/// What there is, as manifests. Pods have no address yet; every port that they declare is listened on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Universe {
    /// `Node` objects, for their labels; what else a Node needs is up to whoever runs it.
    pub nodes: Vec<Value>,
    /// `Namespace` objects.
    pub namespaces: Vec<Value>,
    /// `Pod` objects.
    pub pods: Vec<Value>,
}

/// A port that a pod listens on.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    pub(crate) name: Option<String>,
}

impl Universe {
    /// Namespaces x, y, z with the label `ns`, and these pods with the label `pod`, each listening on all ports by all protocols
    /// under names like `serve-80-tcp`.
    pub(crate) fn of(pods: &[&str], ports: &[u16], protocols: &[Protocol]) -> Self {
        let mut universe = Self { nodes: nodes(), ..Self::default() };
        universe.namespaces = ["x", "y", "z"].map(|name| namespace(name, &json!({"ns": name}))).to_vec();
        for (i, full) in pods.iter().enumerate() {
            let (namespace, name) = full.split_once('/').unwrap_or_default();
            universe.pods.push(served(namespace, name, NODES[i % NODES.len()], ports, protocols));
        }
        universe
    }

    /// One universe in which all cases of a suite can run, one after the other: every node, namespace and pod of theirs, each pod with
    /// all the ports that it has in any. Nothing that a case asks depends on what else there is.
    #[must_use]
    pub fn of_all(cases: &[Case]) -> Self {
        let mut all = Self::default();
        for universe in cases.iter().map(|case| &case.universe) {
            universe.nodes.iter().for_each(|node| add(&mut all.nodes, node));
            universe.namespaces.iter().for_each(|namespace| add(&mut all.namespaces, namespace));
            universe.pods.iter().for_each(|pod| add(&mut all.pods, pod));
        }
        all
    }

    /// The pods, as `namespace/name`.
    #[must_use]
    pub fn pod_names(&self) -> Vec<String> {
        self.pods.iter().map(full_name).collect()
    }
}

/// Adds an object, or to the one of its name the ports that it lacks.
fn add(objects: &mut Vec<Value>, object: &Value) {
    const PORTS: &str = "/spec/containers/0/ports";
    let Some(known) = objects.iter_mut().find(|known| full_name(known) == full_name(object)) else {
        return objects.push(object.clone());
    };
    let wanted = object.pointer(PORTS).and_then(Value::as_array);
    if let Some(ports) = known.pointer_mut(PORTS).and_then(Value::as_array_mut) {
        for port in wanted.into_iter().flatten() {
            if !ports.contains(port) {
                ports.push(port.clone());
            }
        }
    }
}

/// A pod of the universes of x, y and z.
pub(crate) fn served(namespace: &str, name: &str, node: &str, ports: &[u16], protocols: &[Protocol]) -> Value {
    let mut listeners = Vec::new();
    for &protocol in protocols {
        for &port in ports {
            let name = format!("serve-{port}-{}", protocol.to_string().to_lowercase());
            listeners.push(Listener { port, protocol, name: Some(name) });
        }
    }
    pod(namespace, name, node, &json!({"pod": name}), &listeners)
}

pub(crate) fn nodes() -> Vec<Value> {
    let node = |name| {
        let labels = json!({"kubernetes.io/os": "linux", "kubernetes.io/hostname": name});
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})
    };
    NODES.map(node).to_vec()
}

pub(crate) fn namespace(name: &str, labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

pub(crate) fn pod(namespace: &str, name: &str, node: &str, labels: &Value, listeners: &[Listener]) -> Value {
    let ports: Vec<Value> = listeners.iter().map(port).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": labels},
        "spec": {"nodeName": node, "containers": [{"name": "serve", "image": "example.invalid/serve", "ports": ports}]}
    })
}

fn port(listener: &Listener) -> Value {
    let mut port = json!({"containerPort": listener.port, "protocol": listener.protocol.to_string()});
    if let Some(name) = &listener.name {
        port["name"] = json!(name);
    }
    port
}

/// `namespace/name` of a manifest.
pub(crate) fn full_name(object: &Value) -> String {
    let part = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    format!("{}/{}", part("namespace"), part("name"))
}
