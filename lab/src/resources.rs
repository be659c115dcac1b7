//! What manifests mean in a lab: in flow documents, out flow objects to store and pods to run.
//!
//! A Deployment becomes pods `NAME-0`, `NAME-1`, …; a `status.phase` of Succeeded or Failed is remembered beside the pod, as
//! an API server would drop it; everything else is stored as it is.

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use twill_crds::manifest::Manifest;
use twill_crds::{Object, Pod};

/// Annotation of a pod that names its Deployment.
pub const DEPLOYMENT: &str = "lab.twill.network/deployment";

/// A pod to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// The pod, placed on a node or not.
    pub pod: Pod,
    /// How it ended, if it did.
    pub ended: Option<Ended>,
}

/// The phase of a pod whose containers have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All with success.
    Succeeded,
    /// At least one without.
    Failed,
}

impl Ended {
    /// As `status.phase` has it.
    #[must_use]
    pub fn phase(self) -> &'static str {
        match self {
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }
}

/// What manifests ask for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// Objects to store, Deployments too, pods excepted; namespaces first.
    pub objects: Vec<Manifest>,
    /// Pods to run, in order.
    pub pods: Vec<Wanted>,
    /// Kinds that are stored and mean nothing here.
    pub inert: BTreeSet<String>,
    /// Namespaces that something lives in.
    pub namespaces: BTreeSet<String>,
}

/// Kinds that something in the lab acts on.
const LIVE: [&str; 16] = [
    "Namespace",
    "Pod",
    "Deployment",
    "NetworkPolicy",
    "ClusterNetworkPolicy",
    "NamespaceIsolation",
    "HostPolicy",
    "Node",
    "IPPool",
    "IPBlock",
    "BGPConfiguration",
    "BGPPeer",
    "BGPFilter",
    "NodeNetwork",
    "Secret",
    "IPReservation",
];

/// Reads what documents ask for.
///
/// # Errors
/// One sentence that names the object.
pub fn desired(documents: Vec<Manifest>) -> anyhow::Result<Desired> {
    let mut desired = Desired::default();
    for document in documents {
        let namespace = document.value["metadata"]["namespace"].as_str();
        desired.namespaces.extend(namespace.map(str::to_owned));
        let what = what(&document);
        match document.kind.kind.as_ref() {
            "Pod" if document.kind.group.is_empty() => desired.pods.push(wanted(document.value).context(what)?),
            "Deployment" => {
                desired.pods.extend(replicas(&document.value).context(what)?);
                desired.objects.push(document);
            }
            kind => {
                if !LIVE.contains(&kind) {
                    desired.inert.insert(kind.to_owned());
                }
                desired.objects.push(document);
            }
        }
    }
    let mut seen = BTreeSet::new();
    for wanted in &desired.pods {
        let (namespace, name) = (wanted.pod.namespace(), wanted.pod.name());
        ensure!(seen.insert((namespace, name)), "Pod {namespace}/{name}: metadata.name: two pods have it; rename one");
    }
    desired.objects.sort_by_key(|d| order(&d.kind.kind));
    Ok(desired)
}

/// What others refer to is stored first.
fn order(kind: &str) -> u8 {
    match kind {
        "Namespace" => 0,
        "IPPool" | "BGPConfiguration" | "Node" => 1,
        _ => 2,
    }
}

/// `Kind name` or `Kind namespace/name`.
#[must_use]
pub fn what(document: &Manifest) -> String {
    let text = |key: &str| document.value["metadata"][key].as_str().unwrap_or_default();
    match text("namespace") {
        "" => format!("{} {}", document.kind.kind, text("name")),
        namespace => format!("{} {namespace}/{}", document.kind.kind, text("name")),
    }
}

fn wanted(object: Value) -> anyhow::Result<Wanted> {
    let ended = match object.pointer("/status/phase").and_then(Value::as_str) {
        Some("Succeeded") => Some(Ended::Succeeded),
        Some("Failed") => Some(Ended::Failed),
        _ => None,
    };
    let mut pod: Pod = serde_json::from_value(object).context("it is no valid Pod")?;
    pod.status = None;
    // In a lab nobody is there to take them off again, and the pod would never go.
    pod.metadata.finalizers = None;
    ensure!(!pod.name().is_empty(), "metadata.name is missing");
    ensure!(
        pod.spec.as_ref().is_some_and(|s| !s.containers.is_empty()),
        "spec.containers: there is none; a pod has one at least"
    );
    check_ports(&pod)?;
    Ok(Wanted { pod, ended })
}

fn check_ports(pod: &Pod) -> anyhow::Result<()> {
    let ports = pod.spec.iter().flat_map(|s| &s.containers).flat_map(|c| c.ports.iter().flatten());
    for port in ports {
        ensure!(
            (1..=65535).contains(&port.container_port),
            "spec.containers.ports.containerPort: {} is no port; 1 to 65535 are",
            port.container_port
        );
        ensure!(
            port.host_port.is_none_or(|port| (0..=65535).contains(&port)),
            "spec.containers.ports.hostPort: {} is no port; 1 to 65535 are",
            port.host_port.unwrap_or_default()
        );
        if let Some(protocol) = &port.protocol {
            protocol.parse::<crate::ports::Protocol>().context("spec.containers.ports.protocol")?;
        }
    }
    Ok(())
}

fn replicas(deployment: &Value) -> anyhow::Result<Vec<Wanted>> {
    let name = deployment["metadata"]["name"].as_str().unwrap_or_default();
    ensure!(!name.is_empty(), "metadata.name is missing");
    let count = match &deployment["spec"]["replicas"] {
        Value::Null => 1,
        number => {
            number.as_u64().filter(|n| *n <= 1000).context("spec.replicas: a number from 0 to 1000 is possible")?
        }
    };
    let template = &deployment["spec"]["template"];
    ensure!(template.is_object(), "spec.template is missing");
    (0..count)
        .map(|i| {
            let mut annotations = template["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
            annotations.insert(DEPLOYMENT.to_owned(), json!(name));
            wanted(json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": format!("{name}-{i}"),
                    "namespace": deployment["metadata"]["namespace"],
                    "labels": template["metadata"]["labels"],
                    "annotations": annotations,
                },
                "spec": template["spec"],
            }))
        })
        .collect()
}

/// Namespace and name of the Deployment that a pod belongs to.
#[must_use]
pub fn owner(pod: &Pod) -> Option<(&str, &str)> {
    let name = pod.meta().annotations.as_ref()?.get(DEPLOYMENT)?;
    Some((pod.namespace(), name))
}

/// A node as the scheduler sees it.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it takes no pod that does not name it (`spec.unschedulable`).
    pub cordoned: bool,
}

/// Places a pod that names no node: the next node in turn that its `nodeSelector` admits and that is not cordoned.
/// `turn` counts the placed pods.
///
/// # Errors
/// The node that it names does not exist, or no node is admitted.
pub fn schedule(pod: &mut Pod, nodes: &[Candidate<'_>], turn: &mut usize) -> anyhow::Result<()> {
    let what = format!("Pod {}/{}", pod.namespace(), pod.name());
    let spec = pod.spec.get_or_insert_default();
    if let Some(node) = spec.node_name.as_deref().filter(|n| !n.is_empty()) {
        let names = || nodes.iter().map(|n| n.name).collect::<Vec<_>>().join(", ");
        ensure!(
            nodes.iter().any(|n| n.name == node),
            "{what}: spec.nodeName: there is no node {node}; the lab has {}",
            names()
        );
        return Ok(());
    }
    let selector = spec.node_selector.clone().unwrap_or_default();
    let has_labels = |node: &Candidate<'_>| selector.iter().all(|(k, v)| node.labels.get(k) == Some(v));
    let admitted = |node: &Candidate<'_>| !node.cordoned && has_labels(node);
    for i in 0..nodes.len() {
        let node = &nodes[(*turn + i) % nodes.len()];
        if admitted(node) {
            *turn += i + 1;
            spec.node_name = Some(node.name.to_owned());
            return Ok(());
        }
    }
    if let Some(node) = nodes.iter().find(|node| has_labels(node)) {
        bail!("{what}: every node that it may run on is cordoned; bring one back: twill drain {} --undo", node.name);
    }
    bail!(
        "{what}: spec.nodeSelector: no node has these labels; nodes have kubernetes.io/hostname and topology.kubernetes.io/rack"
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::nodes::own_labels;

    fn document(kind: &str, mut value: Value) -> Manifest {
        let kind = twill_crds::known::named(kind).unwrap();
        if kind.namespaced && value["metadata"]["namespace"].is_null() {
            value["metadata"]["namespace"] = json!("default");
        }
        Manifest { kind, value, line: 1 }
    }

    fn pod(name: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [{"name": "c"}]}})
    }

    #[test]
    fn a_deployment_becomes_numbered_pods() {
        let deployment = json!({"metadata": {"name": "web"}, "spec": {"replicas": 2, "template": {
            "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80}]}]}}}});
        let desired = desired(vec![document("Deployment", deployment)]).unwrap();
        let names = desired.pods.iter().map(|w| w.pod.name()).collect::<Vec<_>>();
        assert_eq!(names, ["web-0", "web-1"]);
        assert_eq!(owner(&desired.pods[0].pod), Some(("default", "web")));
        assert_eq!(desired.pods[1].pod.meta().labels.as_ref().unwrap()["app"], "web");
        assert_eq!(desired.objects.len(), 1);
    }

    #[test]
    fn how_a_pod_ended_is_kept_beside_it() {
        let mut ended = pod("job");
        ended["status"] = json!({"phase": "Succeeded", "podIP": "10.42.0.9"});
        let desired = desired(vec![document("Pod", ended)]).unwrap();
        assert_eq!(desired.pods[0].ended, Some(Ended::Succeeded));
        assert_eq!(desired.pods[0].pod.status, None);
    }

    #[test]
    fn kinds_that_mean_nothing_are_named_once_and_namespaces_come_first() {
        let service = |n: &str| document("Service", json!({"metadata": {"name": n, "namespace": "shop"}}));
        let namespace = document("Namespace", json!({"metadata": {"name": "shop"}}));
        let desired = desired(vec![service("a"), service("b"), namespace]).unwrap();
        assert_eq!(desired.inert.iter().collect::<Vec<_>>(), ["Service"]);
        assert_eq!(desired.objects[0].kind.kind, "Namespace");
        assert!(desired.namespaces.contains("shop"));
    }

    #[test]
    fn a_pod_from_a_real_cluster_can_go_again() {
        let mut owned = pod("job");
        owned["metadata"]["finalizers"] = json!(["batch.kubernetes.io/job-tracking"]);
        let desired = desired(vec![document("Pod", owned)]).unwrap();
        assert_eq!(desired.pods[0].pod.metadata.finalizers, None);
    }

    #[test]
    fn two_pods_with_one_name_are_refused() {
        let error = desired(vec![document("Pod", pod("a")), document("Pod", pod("a"))]).unwrap_err();
        assert_eq!(error.to_string(), "Pod default/a: metadata.name: two pods have it; rename one");
    }

    #[test]
    fn the_scheduler_goes_round_and_honours_names_and_selectors() {
        let node = |name| Candidate { name, labels: own_labels(name, "r1"), cordoned: name == "n4" };
        let nodes = ["n1", "n2", "n3", "n4"].map(node);
        let mut turn = 0;
        let mut place = |selector: Option<(&str, &str)>, name: Option<&str>| {
            let mut pod: Pod = serde_json::from_value(pod("p")).unwrap();
            let spec = pod.spec.as_mut().unwrap();
            spec.node_name = name.map(str::to_owned);
            spec.node_selector = selector.map(|(k, v)| [(k.to_owned(), v.to_owned())].into());
            schedule(&mut pod, &nodes, &mut turn).map(|()| pod.spec.unwrap().node_name.unwrap())
        };
        assert_eq!(place(None, None).unwrap(), "n1");
        assert_eq!(place(None, Some("n1")).unwrap(), "n1");
        assert_eq!(place(None, None).unwrap(), "n2");
        assert_eq!(place(Some(("kubernetes.io/hostname", "n2")), None).unwrap(), "n2");
        assert_eq!([(); 2].map(|()| place(None, None).unwrap()), ["n3", "n1"]);
        assert_eq!(place(None, Some("n4")).unwrap(), "n4");
        let refused = place(Some(("kubernetes.io/hostname", "n4")), None).unwrap_err().to_string();
        assert!(refused.contains("cordoned") && refused.contains("twill drain n4 --undo"), "{refused}");
        assert!(place(Some(("disk", "ssd")), None).unwrap_err().to_string().contains("spec.nodeSelector"));
        assert!(place(None, Some("n9")).unwrap_err().to_string().contains("no node n9; the lab has n1, n2, n3, n4"));
    }
}
