//! `twill.network/v1 HostPolicy`, from the descriptions of its fields: its shape, and what becomes of a new connection at an interface of a
//! node. What the node cannot do without is the node's own word, so whoever asks says whether this is it.

use crate::{Cluster, End, block, cluster_policy, labels};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// What is closed, and what passes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostPolicy {
    /// Only the name counts.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: HostPolicySpec,
}

/// What is wanted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostPolicySpec {
    /// "Selects, by label, the nodes that the policy is about. Left out or empty, all nodes."
    pub node_selector: Option<LabelSelector>,
    /// "Interfaces by name, such as `eth0`, or by how their names begin, such as `bond*`. … Left out or empty, all."
    pub interfaces: Option<Vec<String>>,
    /// "Lower ones are judged first, of equal ones the first by name; by default 1000."
    pub priority: Option<i32>,
    /// "The directions that are closed; by default Ingress alone."
    pub directions: Option<Vec<String>>,
    /// "Rules about packets to the node, and about those that are forwarded if that is closed, in order."
    pub ingress: Option<Vec<Rule>>,
    /// "Rules about packets from the node, in order."
    pub egress: Option<Vec<Rule>>,
    /// "What passes before all rules about packets to the node and from it. `Computed`, the default … `None`".
    pub failsafes: Option<String>,
}

/// A rule of either direction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// "By default Accept. `Accept` lets it pass, `Deny` drops it."
    pub action: Option<String>,
    /// "Who sends it: one of these. … Left out or empty, anyone."
    pub from: Option<Vec<Peer>>,
    /// "To whom it goes: one of these."
    pub to: Option<Vec<Peer>>,
    /// "Where it goes: one of these ports. … Left out or empty, any port of any protocol."
    pub ports: Option<Vec<Port>>,
}

/// "The other end of a connection: exactly one of the fields."
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// "Ranges of addresses."
    pub cidrs: Option<Vec<String>>,
    /// "Nodes, by label; an empty selector means all."
    pub nodes: Option<LabelSelector>,
    /// "Pods, by labels. One with hostNetwork is not among them: it is its node."
    pub pods: Option<Pods>,
}

/// Pods, by labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pods {
    /// "The namespaces of the pods. Left out or empty, all."
    pub namespace_selector: Option<LabelSelector>,
    /// "The pods. Left out or empty, all of these namespaces."
    pub pod_selector: Option<LabelSelector>,
}

/// "Ports of a protocol."
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// "By default TCP. `ICMP` stands for ICMPv6, too, and has no ports."
    pub protocol: Option<String>,
    /// "The port at the packet's destination, or the first of a range. Left out, all ports of the protocol."
    pub port: Option<u16>,
    /// "The last port of a range that begins with `port`."
    pub end_port: Option<u16>,
}

/// A new connection at an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection<'a> {
    /// Name of the node.
    pub node: &'a str,
    /// `Ingress`, `Egress` or `Forwarded`.
    pub direction: &'a str,
    /// The interface by which it comes, or goes.
    pub interface: &'a str,
    /// The other end.
    pub peer: IpAddr,
    /// `TCP`, `UDP`, `SCTP` or `ICMP`.
    pub protocol: &'a str,
    /// The port at its destination; of what is forwarded, the one that it came to. 0 for ICMP.
    pub port: u16,
    /// The node cannot do without what is served at this port, or there. Of what is forwarded that says nothing.
    pub needed: bool,
}

/// Whether a connection may be opened, if these policies are in force.
#[must_use]
pub fn allowed(cluster: &Cluster, policies: &[HostPolicy], what: &Connection<'_>) -> bool {
    // "The loopback interface, those of pods and Twill's tunnels are never among them."
    if ["lo", "twill-vxlan", "twill-ipip"].contains(&what.interface) || what.interface.starts_with("twl") {
        return true;
    }
    let mut about: Vec<&HostPolicy> = policies.iter().filter(|policy| is_about(cluster, policy, what.node)).collect();
    about.sort_by_key(|policy| (policy.spec.priority.unwrap_or(1000), policy.metadata.name.clone()));
    let closing: Vec<&HostPolicy> = about.iter().copied().filter(|policy| closes(policy, what)).collect();
    if closing.is_empty() {
        return true;
    }
    // "Where several policies are about a node, `None` holds only if all of them say so."
    let failsafes = about.iter().any(|policy| policy.spec.failsafes.as_deref() != Some("None"));
    if failsafes && what.needed && what.direction != "Forwarded" {
        return true;
    }
    let decides =
        |policy: &&HostPolicy| rules(policy, what.direction).iter().find(|rule| matches(cluster, rule, what)).cloned();
    // "The first rule that matches decides." "What none matches is denied."
    closing.iter().find_map(decides).is_some_and(|rule| rule.action.as_deref() != Some("Deny"))
}

fn is_about(cluster: &Cluster, policy: &HostPolicy, node: &str) -> bool {
    let Some(node) = cluster.nodes.iter().find(|one| one.metadata.name.as_deref() == Some(node)) else { return false };
    let labels = node.metadata.labels.clone().unwrap_or_default();
    policy.spec.node_selector.as_ref().is_none_or(|selector| labels::selects(selector, &labels))
}

fn closes(policy: &HostPolicy, what: &Connection<'_>) -> bool {
    let usual = vec!["Ingress".to_owned()];
    let directions = policy.spec.directions.as_ref().unwrap_or(&usual);
    let interfaces = policy.spec.interfaces.as_deref().unwrap_or_default();
    let is_it = |name: &String| match name.strip_suffix('*') {
        Some(beginning) => what.interface.starts_with(beginning),
        None => name == what.interface,
    };
    directions.iter().any(|direction| direction == what.direction)
        && (interfaces.is_empty() || interfaces.iter().any(is_it))
}

fn rules<'a>(policy: &'a HostPolicy, direction: &str) -> &'a [Rule] {
    let rules = if direction == "Egress" { &policy.spec.egress } else { &policy.spec.ingress };
    rules.as_deref().unwrap_or_default()
}

fn matches(cluster: &Cluster, rule: &Rule, what: &Connection<'_>) -> bool {
    let peers = if what.direction == "Egress" { &rule.to } else { &rule.from };
    let peers = peers.as_deref().unwrap_or_default();
    let ports = rule.ports.as_deref().unwrap_or_default();
    (peers.is_empty() || peers.iter().any(|peer| is_peer(cluster, peer, what.peer)))
        && (ports.is_empty() || ports.iter().any(|port| is_port(port, what)))
}

fn is_peer(cluster: &Cluster, peer: &Peer, address: IpAddr) -> bool {
    if let Some(cidrs) = &peer.cidrs {
        return cidrs.iter().any(|cidr| block::cidr_contains(cidr, address));
    }
    if let Some(selector) = &peer.nodes {
        return cluster_policy::nodes_have(cluster, selector, address);
    }
    let (Some(pods), Some(pod)) = (&peer.pods, End::at(cluster, address).place.pod()) else { return false };
    let everything = LabelSelector::default();
    labels::selects_namespace_of(cluster, pods.namespace_selector.as_ref().unwrap_or(&everything), pod)
        && labels::selects_pod(pods.pod_selector.as_ref().unwrap_or(&everything), pod)
}

fn is_port(port: &Port, what: &Connection<'_>) -> bool {
    let numbers = port.port.is_none_or(|first| (first..=port.end_port.unwrap_or(first)).contains(&what.port));
    port.protocol.as_deref().unwrap_or("TCP") == what.protocol && numbers
}
