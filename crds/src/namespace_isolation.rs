//! NamespaceIsolation: namespaces that are closed but for what nearly every application needs.

use crate::definitions::schemas;
use crate::written;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// What an operator wants of namespaces.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "twill.network",
    version = "v1",
    kind = "NamespaceIsolation",
    plural = "namespaceisolations",
    status = "NamespaceIsolationStatus",
    shortname = "nsiso",
    category = "twill",
    derive = "PartialEq",
    doc = "NamespaceIsolation closes namespaces but for what nearly every application needs. It counts as a NetworkPolicy of each namespace: what any NetworkPolicy or NamespaceIsolation allows passes, and a ClusterNetworkPolicy is judged before or after them by its tier."
)]
#[serde(rename_all = "camelCase")]
#[schemars(
    description = "Which namespaces are closed, and what passes. Ports and addresses are compared when the address of a Service has become the one behind it."
)]
pub struct NamespaceIsolationSpec {
    /// Selects, by label, the namespaces whose pods are closed. An empty selector selects all, `kube-system` too. Pods with hostNetwork
    /// are never closed.
    #[schemars(schema_with = "schemas::selector")]
    pub namespace_selector: LabelSelector,
    /// The directions that are closed; by default both. `Ingress`: packets to the pods. `Egress`: packets from the pods.
    #[serde(default = "both")]
    #[schemars(length(min = 1, max = 2))]
    pub directions: Vec<Direction>,
    /// What passes in the closed directions; by default SameNamespace and DNS. An empty list lets nothing pass. `SameNamespace`: in and
    /// out, packets between pods of the same namespace. `DNS`: out, to port 53 by UDP and TCP of the pods and addresses that `dns` says,
    /// and of all nodes, for a cache with hostNetwork. `APIServer`: out, to ports 443 and 6443 by TCP of the nodes with the label
    /// `node-role.kubernetes.io/control-plane` and of the addresses that `apiServer` says. `IngressControllers`: in, from the pods and
    /// nodes that `ingressControllers` says. `Metrics`: in, by TCP from the pods that `metrics` says.
    #[serde(default = "usual")]
    #[schemars(length(max = 5))]
    pub allow: Vec<Allowance>,
    /// Where DNS is answered, for `DNS`.
    #[serde(default)]
    pub dns: Dns,
    /// Where the API server is beside the nodes of the control plane, for `APIServer`.
    #[serde(default)]
    pub api_server: ApiServer,
    /// Who brings requests from outside, for `IngressControllers`.
    #[serde(default)]
    pub ingress_controllers: IngressControllers,
    /// Who collects metrics, for `Metrics`.
    #[serde(default)]
    pub metrics: Metrics,
}

/// What the controller found out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceIsolationStatus {
    /// `Accepted`: it is understood as it is written. What is not understood denies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schemas::conditions")]
    pub conditions: Vec<Condition>,
}

/// A direction, as the pod sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Direction {
    /// To the pod.
    Ingress,
    /// From the pod.
    Egress,
}

/// Something that nearly every application needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Allowance {
    /// Pods of the namespace itself, both ways.
    SameNamespace,
    /// Names.
    DNS,
    /// Kubernetes' API.
    APIServer,
    /// Requests from outside.
    IngressControllers,
    /// Being measured.
    Metrics,
}

/// Where DNS is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Dns {
    /// Selects, by label, the namespaces of the pods that answer; by default `kube-system`.
    #[schemars(schema_with = "schemas::selector")]
    pub namespace_selector: LabelSelector,
    /// Selects, by label, the pods that answer; by default those with the label `k8s-app: kube-dns`.
    #[schemars(schema_with = "schemas::selector")]
    pub pod_selector: LabelSelector,
    /// Other addresses that answer, such as those of caches on the nodes; by default 169.254.20.10, at most 16.
    #[serde(deserialize_with = "written::addresses")]
    #[schemars(length(max = 16))]
    pub addresses: Vec<IpAddr>,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            namespace_selector: named("kube-system"),
            pod_selector: labelled("k8s-app", "kube-dns"),
            addresses: vec![NODE_LOCAL_DNS.into()],
        }
    }
}

/// Where NodeLocal DNSCache listens unless it is told otherwise.
const NODE_LOCAL_DNS: Ipv4Addr = Ipv4Addr::new(169, 254, 20, 10);

/// Where the API server is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiServer {
    /// Addresses at which the API server listens itself, as the Endpoints of the Service `kubernetes` have them; by default none, at most
    /// 16. They are needed where no node has the label of the control plane, as in most clouds.
    #[serde(deserialize_with = "written::addresses")]
    #[schemars(length(max = 16))]
    pub addresses: Vec<IpAddr>,
}

/// Who brings requests from outside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressControllers {
    /// Selects, by label, the namespaces of the controllers; by default `ingress-nginx`.
    #[schemars(schema_with = "schemas::selector")]
    pub namespace_selector: LabelSelector,
    /// Selects, by label, the pods of the controllers; by default all of these namespaces. A pod with hostNetwork is not among them: see
    /// `nodeSelector`.
    #[schemars(schema_with = "schemas::selector")]
    pub pod_selector: LabelSelector,
    /// Selects, by label, nodes on which controllers run with hostNetwork: whatever these nodes send passes, from their own addresses and
    /// from those that they have in Twill's tunnels, for nothing in a packet tells which process of a node sent it. An empty selector
    /// selects all nodes. Left out, none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schemas::selector")]
    pub node_selector: Option<LabelSelector>,
}

impl Default for IngressControllers {
    fn default() -> Self {
        Self { namespace_selector: named("ingress-nginx"), pod_selector: LabelSelector::default(), node_selector: None }
    }
}

/// Who collects metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Metrics {
    /// Selects, by label, the namespaces of the pods that collect; by default `monitoring`.
    #[schemars(schema_with = "schemas::selector")]
    pub namespace_selector: LabelSelector,
    /// Selects, by label, the pods that collect; by default all of these namespaces. A pod with hostNetwork is not among them.
    #[schemars(schema_with = "schemas::selector")]
    pub pod_selector: LabelSelector,
    /// The TCP ports at which the closed pods tell their metrics, at most 16. Left out or empty, all TCP ports.
    #[schemars(length(max = 16), inner(range(min = 1)))]
    pub ports: Vec<u16>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { namespace_selector: named("monitoring"), pod_selector: LabelSelector::default(), ports: Vec::new() }
    }
}

fn both() -> Vec<Direction> {
    vec![Direction::Ingress, Direction::Egress]
}

fn usual() -> Vec<Allowance> {
    vec![Allowance::SameNamespace, Allowance::DNS]
}

/// The namespace of this name, by the label that every API server gives it.
fn named(namespace: &str) -> LabelSelector {
    labelled("kubernetes.io/metadata.name", namespace)
}

fn labelled(key: &str, value: &str) -> LabelSelector {
    let labels = BTreeMap::from([(key.to_owned(), value.to_owned())]);
    LabelSelector { match_labels: Some(labels), match_expressions: None }
}
