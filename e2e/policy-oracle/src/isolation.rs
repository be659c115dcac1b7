//! `twill.network/v1 NamespaceIsolation`, from the descriptions of its fields: its shape, and what it says of a pod's packet. Its
//! selectors and enumerations are held to the definition by whoever stores it; an object with one that is not valid lets nothing pass.

use crate::{Cluster, End, Packet, Protocol, labels};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Namespaces that are closed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NamespaceIsolation {
    /// Only the name counts.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: NamespaceIsolationSpec,
}

/// What is wanted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceIsolationSpec {
    /// "Selects, by label, the namespaces whose pods are closed. An empty selector selects all."
    pub namespace_selector: LabelSelector,
    /// "The directions that are closed; by default both."
    pub directions: Option<Vec<String>>,
    /// "What passes in the closed directions; by default SameNamespace and DNS. An empty list lets nothing pass."
    pub allow: Option<Vec<String>>,
    /// "Where DNS is answered."
    #[serde(default)]
    pub dns: Place,
    /// "Where the API server is beside the nodes of the control plane."
    #[serde(default)]
    pub api_server: Place,
    /// "Who brings requests from outside."
    #[serde(default)]
    pub ingress_controllers: Place,
    /// "Who collects metrics."
    #[serde(default)]
    pub metrics: Place,
}

/// Where something is; each kind of place has some of the fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// Namespaces of its pods.
    pub namespace_selector: Option<LabelSelector>,
    /// Its pods.
    pub pod_selector: Option<LabelSelector>,
    /// Its other addresses.
    pub addresses: Option<Vec<IpAddr>>,
    /// The TCP ports that it asks for.
    pub ports: Option<Vec<u16>>,
    /// Nodes that are meant with all that they send.
    pub node_selector: Option<LabelSelector>,
}

/// "It counts as a NetworkPolicy of each namespace": nothing where none closes the pod in the direction.
pub(crate) fn ingress_decides(cluster: &Cluster, pod: &Pod, packet: &Packet<'_>) -> Option<bool> {
    decides(cluster, "Ingress", pod, |spec, what| lets_in(cluster, spec, what, pod, packet))
}

/// The same of what the pod sends.
pub(crate) fn egress_decides(cluster: &Cluster, pod: &Pod, packet: &Packet<'_>) -> Option<bool> {
    decides(cluster, "Egress", pod, |spec, what| lets_out(cluster, spec, what, pod, packet))
}

fn decides(
    cluster: &Cluster,
    direction: &str,
    pod: &Pod,
    lets: impl Fn(&NamespaceIsolationSpec, &str) -> bool,
) -> Option<bool> {
    let mut closed = false;
    for NamespaceIsolation { spec, .. } in &cluster.isolations {
        let closes = spec.directions.as_ref().is_none_or(|all| all.iter().any(|one| one == direction));
        if !closes || !labels::selects_namespace_of(cluster, &spec.namespace_selector, pod) {
            continue;
        }
        closed = true;
        let usual = || vec!["SameNamespace".to_owned(), "DNS".to_owned()];
        let allow = spec.allow.clone().unwrap_or_else(usual);
        if is_valid(spec) && allow.iter().any(|what| lets(spec, what)) {
            return Some(true);
        }
    }
    closed.then_some(false)
}

fn lets_in(cluster: &Cluster, spec: &NamespaceIsolationSpec, what: &str, pod: &Pod, packet: &Packet<'_>) -> bool {
    let from = &packet.src;
    match what {
        // "In and out, packets between pods of the same namespace."
        "SameNamespace" => shares_namespace(pod, from),
        // "In, from the pods and nodes that `ingressControllers` says": "by default `ingress-nginx`", "all of these namespaces".
        "IngressControllers" => {
            is_pod_of(cluster, &spec.ingress_controllers, "ingress-nginx", &any(), from)
                || spec
                    .ingress_controllers
                    .node_selector
                    .as_ref()
                    .is_some_and(|nodes| sends(cluster, nodes, from.address))
        }
        // "In, by TCP from the pods that `metrics` says": "by default `monitoring`", "left out or empty, all TCP ports".
        "Metrics" => {
            let ports = spec.metrics.ports.clone().unwrap_or_default();
            packet.protocol == Protocol::Tcp
                && (ports.is_empty() || ports.contains(&packet.port))
                && is_pod_of(cluster, &spec.metrics, "monitoring", &any(), from)
        }
        _ => false,
    }
}

fn lets_out(cluster: &Cluster, spec: &NamespaceIsolationSpec, what: &str, pod: &Pod, packet: &Packet<'_>) -> bool {
    let to = &packet.dst;
    match what {
        "SameNamespace" => shares_namespace(pod, to),
        // "Out, to port 53 by UDP and TCP of the pods and addresses that `dns` says, and of all nodes."
        "DNS" => {
            let node_local = || vec![IpAddr::from([169, 254, 20, 10])];
            packet.port == 53
                && (packet.protocol == Protocol::Udp || packet.protocol == Protocol::Tcp)
                && (is_pod_of(cluster, &spec.dns, "kube-system", &label("k8s-app", "kube-dns"), to)
                    || spec.dns.addresses.clone().unwrap_or_else(node_local).contains(&to.address)
                    || cluster.nodes.iter().any(|node| is_known_as(node, to.address)))
        }
        // "Out, to ports 443 and 6443 by TCP of the nodes with the label `node-role.kubernetes.io/control-plane` and of the addresses
        // that `apiServer` says."
        "APIServer" => {
            let of_control_plane = |node: &&Node| {
                let labels = node.metadata.labels.iter().flatten();
                labels.into_iter().any(|(key, _)| key == "node-role.kubernetes.io/control-plane")
            };
            packet.protocol == Protocol::Tcp
                && (packet.port == 443 || packet.port == 6443)
                && (cluster.nodes.iter().filter(of_control_plane).any(|node| is_known_as(node, to.address))
                    || spec.api_server.addresses.iter().flatten().any(|address| *address == to.address))
        }
        _ => false,
    }
}

fn shares_namespace(pod: &Pod, end: &End<'_>) -> bool {
    end.place.pod().is_some_and(|other| other.metadata.namespace == pod.metadata.namespace)
}

/// Whether a pod of the place is there; what the place leaves out is a namespace of this name, and these pods.
fn is_pod_of(cluster: &Cluster, place: &Place, namespace: &str, pods: &LabelSelector, end: &End<'_>) -> bool {
    let namespaces =
        place.namespace_selector.clone().unwrap_or_else(|| label("kubernetes.io/metadata.name", namespace));
    let pods = place.pod_selector.as_ref().unwrap_or(pods);
    end.place
        .pod()
        .is_some_and(|pod| labels::selects_namespace_of(cluster, &namespaces, pod) && labels::selects_pod(pods, pod))
}

/// "Whatever these nodes send passes, from their own addresses and from those that they have in Twill's tunnels." "An empty selector
/// selects all nodes."
fn sends(cluster: &Cluster, nodes: &LabelSelector, address: IpAddr) -> bool {
    let is_meant = |node: &&Node| labels::selects(nodes, &node.metadata.labels.clone().unwrap_or_default());
    cluster.nodes.iter().filter(is_meant).any(|node| {
        let in_tunnels = cluster.tunnels.iter().filter(|(of, _)| Some(of) == node.metadata.name.as_ref());
        is_known_as(node, address) || in_tunnels.into_iter().any(|(_, own)| *own == address)
    })
}

/// A node is each of `status.addresses`, of whatever type.
fn is_known_as(node: &Node, address: IpAddr) -> bool {
    let listed = node.status.iter().flat_map(|s| s.addresses.iter().flatten());
    listed.flat_map(|a| a.address.parse::<IpAddr>()).any(|a| a == address)
}

fn is_valid(spec: &NamespaceIsolationSpec) -> bool {
    let mut places = [&spec.dns, &spec.ingress_controllers, &spec.metrics].into_iter();
    let of = |place: &Place| place.namespace_selector.iter().chain(&place.pod_selector).all(labels::is_valid);
    let nodes = &spec.ingress_controllers.node_selector;
    labels::is_valid(&spec.namespace_selector) && places.all(of) && nodes.iter().all(labels::is_valid)
}

fn any() -> LabelSelector {
    LabelSelector::default()
}

fn label(key: &str, value: &str) -> LabelSelector {
    LabelSelector { match_labels: Some([(key.to_owned(), value.to_owned())].into()), match_expressions: None }
}
