//! HostPolicy: who may reach the nodes themselves, and whom they may reach.

use crate::definitions::schemas;
use crate::written;
use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an operator wants of the interfaces of nodes.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "twill.network",
    version = "v1",
    kind = "HostPolicy",
    plural = "hostpolicies",
    shortname = "hostpol",
    category = "twill",
    derive = "PartialEq",
    doc = "HostPolicy closes interfaces of nodes to packets for the node itself, and from it, but for what its rules accept and what the node cannot do without. A change that forbids more is on trial first: each node goes back to what was in force before unless the change is confirmed in time, even while Twill is not running there. Packets of pods are not its business: they are forwarded, or stay on the node; but where it says so, it judges what comes from outside to NodePorts."
)]
#[serde(rename_all = "camelCase")]
#[schemars(
    description = "Which interfaces of which nodes are closed, and what passes. Connections that are open go on whatever the rules say. Ports and addresses are compared when the address of a Service has become the one behind it."
)]
pub struct HostPolicySpec {
    /// Selects, by label, the nodes that the policy is about. Left out or empty, all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schemas::selector")]
    pub node_selector: Option<LabelSelector>,
    /// Interfaces by name, such as `eth0`, or by how their names begin, such as `bond*`; at most 16. Left out or empty, all. The loopback
    /// interface, those of pods and Twill's tunnels are never among them.
    #[serde(default)]
    #[schemars(length(max = 16), inner(length(min = 1, max = 15)))]
    pub interfaces: Vec<String>,
    /// Where the policy stands among those of a node: lower ones are judged first, of equal ones the first by name; by default 1000. The
    /// first rule that matches decides.
    #[serde(default = "usual_priority")]
    #[schemars(range(min = 0, max = 100_000))]
    pub priority: i32,
    /// The directions that are closed; by default Ingress alone. `Ingress`: packets to the node. `Egress`: packets that the node itself
    /// sends. `Forwarded`: connections that come to an interface of the node for another address or port than they are sent on to, as those to
    /// NodePorts and external addresses of Services whose pods they go to; rules of `ingress` judge them, by the port that they came to.
    #[serde(default = "usual_directions")]
    #[schemars(length(min = 1, max = 3))]
    pub directions: Vec<Direction>,
    /// Rules about packets to the node, and about those that are forwarded if that is closed, in order, at most 32. What none matches is denied.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub ingress: Vec<IngressRule>,
    /// Rules about packets from the node, in order, at most 32. What none matches is denied.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub egress: Vec<EgressRule>,
    /// What passes before all rules about packets to the node and from it. `Computed`, the default: what each node needs to stay in the
    /// cluster and within reach, found out by the node itself: `twill policy host` lists it there. `None`: nothing but neighbour discovery
    /// and DHCP; needs `lockoutRisk: Accepted`. Where several policies are about a node, `None` holds only if all of them say so.
    #[serde(default)]
    pub failsafes: Failsafes,
    /// Must be `Accepted` where `failsafes` is `None`: a mistake can cost access to the nodes then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lockout_risk: Option<LockoutRisk>,
    /// How a change that forbids more becomes permanent.
    #[serde(default)]
    pub confirmation: Confirmation,
}

/// A direction, as the node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Direction {
    /// To the node.
    Ingress,
    /// From the node.
    Egress,
    /// Through the node, with another destination.
    Forwarded,
}

/// A rule about packets to the node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IngressRule {
    /// What happens to a packet that matches; by default Accept. `Accept` lets it pass, `Deny` drops it.
    #[serde(default)]
    pub action: Action,
    /// Who sends it: one of these, at most 8. Left out or empty, anyone.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub from: Vec<Peer>,
    /// Where it goes: one of these ports, at most 32. Left out or empty, any port of any protocol.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub ports: Vec<Port>,
}

/// A rule about packets from the node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EgressRule {
    /// What happens to a packet that matches; by default Accept. `Accept` lets it pass, `Deny` drops it.
    #[serde(default)]
    pub action: Action,
    /// To whom it goes: one of these, at most 8. Left out or empty, anyone.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub to: Vec<Peer>,
    /// Where it goes: one of these ports, at most 32. Left out or empty, any port of any protocol.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub ports: Vec<Port>,
}

/// What happens to a packet that a rule matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Action {
    /// It passes.
    #[default]
    Accept,
    /// It is dropped.
    Deny,
}

/// The other end of a connection: exactly one of the fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Ranges of addresses, such as `192.0.2.0/24` or `fd42::/48`, at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "written::ranges")]
    #[schemars(schema_with = "schemas::ranges")]
    pub cidrs: Vec<IpNet>,
    /// Nodes, by label; an empty selector means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schemas::small_selector")]
    pub nodes: Option<LabelSelector>,
    /// Pods, by labels. One with hostNetwork is not among them: it is its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<Pods>,
}

/// Pods, by labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Pods {
    /// Selects, by label, the namespaces of the pods. Left out or empty, all.
    #[schemars(schema_with = "schemas::small_selector")]
    pub namespace_selector: LabelSelector,
    /// Selects, by label, the pods. Left out or empty, all of these namespaces.
    #[schemars(schema_with = "schemas::small_selector")]
    pub pod_selector: LabelSelector,
}

/// Ports of a protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// The protocol; by default TCP. `ICMP` stands for ICMPv6, too, and has no ports.
    #[serde(default)]
    pub protocol: Protocol,
    /// The port at the packet's destination, or the first of a range. Left out, all ports of the protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// The last port of a range that begins with `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub end_port: Option<u16>,
}

/// A protocol above IP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    /// TCP.
    #[default]
    TCP,
    /// UDP.
    UDP,
    /// SCTP.
    SCTP,
    /// ICMP and ICMPv6.
    ICMP,
}

/// What passes before all rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Failsafes {
    /// What the node needs.
    #[default]
    Computed,
    /// Nothing.
    None,
}

/// Whether it is accepted that a mistake can cost access to nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum LockoutRisk {
    /// It is.
    Accepted,
}

/// How a change becomes permanent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Confirmation {
    /// Who confirms. `SelfTest`, the default: each node itself, once it has reached the datastore anew and has its BGP sessions. `Manual`:
    /// an operator, with `twill policy confirm`.
    pub mode: ConfirmationMode,
    /// Seconds from when a node enforces a change until it goes back, unless confirmed; by default 60.
    #[schemars(range(min = 5, max = 3600))]
    pub timeout_seconds: u16,
}

impl Default for Confirmation {
    fn default() -> Self {
        Self { mode: ConfirmationMode::SelfTest, timeout_seconds: 60 }
    }
}

/// Who confirms a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ConfirmationMode {
    /// The node.
    #[default]
    SelfTest,
    /// An operator.
    Manual,
}

/// Annotation of a HostPolicy: the `metadata.generation` that an operator confirms, as `twill policy confirm` writes it.
pub const CONFIRMED_GENERATION: &str = "twill.network/confirmed-generation";
/// Annotation of a HostPolicy: any text; another one lets nodes try again what they went back from, as `twill policy retry` writes it.
pub const ATTEMPT: &str = "twill.network/attempt";

fn usual_priority() -> i32 {
    1000
}

fn usual_directions() -> Vec<Direction> {
    vec![Direction::Ingress]
}
