//! What operators, the lab and tests ask of a running daemon on its control socket; framing as in [`crate::cni`].
//! A connection carries any number of requests, answered in order.

mod bfd;
mod bgpd;

pub use bfd::*;
pub use bgpd::*;

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A request to felix's socket. A CNI call is one of them, so that a node has one socket to protect.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "op")]
pub enum FelixRequest {
    /// A call of the plugin; answered by [`crate::cni::CniReply`].
    Cni(crate::cni::CniRequest),
    /// Answered by [`FelixStatus`].
    Status,
    /// Answered by a [`Waited`] once everything that the datastore has now is in the kernel, or after `timeout_ms`.
    Wait {
        /// Upper limit of the wait in milliseconds.
        timeout_ms: u64,
    },
    /// Answered by a JSON array, one object per address in use: `{address, namespace, pod, container_id, ifname}`.
    Addresses,
    /// The compiled ruleset as felix means it, for `twill policy show`; answered by a JSON object: `table`, `text`, and in `lists` the
    /// [`ListUser`]s of each chain of policy.
    Ruleset,
    /// Which live connections of this node's workloads a change of policy would cut; answered by an [`Answer`] of [`Forecast`].
    Forecast(PolicyChange),
    /// HostPolicies of this node, for `twill policy host` and for who explains connections; answered by a JSON object, which felix knows as
    /// `host::State`.
    HostPolicies,
    /// Packets that this node denied and was told of. Answered by [`Drops`]; with `follow` by a [`DropLine`] per line, first those that
    /// are kept, until the connection ends.
    Drops {
        /// Whether to go on.
        #[serde(default)]
        follow: bool,
    },
    /// End, and leave the kernel as it is. Answered by [`FelixStatus`], or by the end of the connection: nothing is written any more.
    Leave,
}

/// What was asked for, or why there is no answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer<T> {
    /// One sentence.
    Failed {
        /// The sentence.
        error: String,
    },
    /// The answer.
    Is(T),
}

/// A change of policy that has not been made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PolicyChange {
    /// NetworkPolicies, ClusterNetworkPolicies, NamespaceIsolations and Namespaces as they would be, whole.
    pub applied: Vec<serde_json::Value>,
    /// Policies that would go.
    pub deleted: Vec<ObjectName>,
}

/// An object by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectName {
    /// Its kind.
    pub kind: String,
    /// Its namespace; empty if it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What a change of policy would do to the live connections of a node's workloads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// The node.
    pub node: String,
    /// Whether this node keeps live connections whatever policy says (`--existing-connections keep`): then none would be cut.
    pub kept: bool,
    /// Those that would be cut, ordered by their ends.
    pub cut: Vec<DoomedConnection>,
}

/// A live connection that would be cut.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DoomedConnection {
    /// Who opened it.
    pub source: ConnectionEnd,
    /// To whom, after destination NAT.
    pub destination: ConnectionEnd,
    /// `TCP`, `UDP`, `SCTP`, `ICMP`, `ICMPv6` or `protocol N`.
    pub protocol: String,
    /// Why.
    pub denial: Denial,
}

/// Packets that a node denied.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Drops {
    /// The node.
    pub node: String,
    /// The latest that were told of, the oldest first.
    pub packets: Vec<DroppedPacket>,
    /// What rules have dropped since they were made, told of or not.
    pub counts: Vec<DropCount>,
    /// Packets that the kernel told of and felix could not take.
    pub missed: u64,
    /// Why nothing is told of, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A packet that was denied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DroppedPacket {
    /// When felix was told of it, as RFC 3339.
    pub time: String,
    /// Its sender.
    pub source: ConnectionEnd,
    /// Its receiver, after destination NAT.
    pub destination: ConnectionEnd,
    /// `TCP`, `UDP`, `SCTP`, `ICMP`, `ICMPv6` or `protocol N`.
    pub protocol: String,
    /// The interface that it came in on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_interface: Option<String>,
    /// The interface that it would have left by; absent if it was for the node itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_interface: Option<String>,
    /// Why.
    pub denial: Denial,
}

/// What one rule has dropped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DropCount {
    /// Its chain in table `inet twill`.
    pub chain: String,
    /// What it drops.
    pub reason: String,
    /// Whose list it belongs to: `ingress of NAMESPACE/NAME`. Pods with equal lists share one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub of: Vec<String>,
    /// Packets that it dropped since it was made.
    pub dropped: u64,
    /// Packets of those that were told of; the others came faster than is told.
    pub told: u64,
}

/// What a follower of denied packets is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum DropLine {
    /// One packet.
    Packet(Box<DroppedPacket>),
    /// So many more could not be told; 0: nobody knows how many.
    Missed {
        /// How many.
        missed: u64,
    },
    /// Nothing can be told of at present.
    Problem {
        /// Why.
        problem: String,
    },
}

/// A pod whose packets a chain of policy judges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListUser {
    /// The pod's interface.
    pub interface: String,
    /// `egress` or `ingress`.
    pub direction: String,
    /// `NAMESPACE/NAME`.
    pub pod: String,
    /// The policies that the chain is made of, and of the pod's later tiers.
    pub policies: Vec<String>,
}

/// One end of a connection or of a packet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ConnectionEnd {
    /// Its address.
    pub address: IpAddr,
    /// Its port; absent for a protocol without ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// `NAMESPACE/NAME` of the pod that has the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The node that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

impl std::fmt::Display for ConnectionEnd {
    /// `NAMESPACE/NAME (ADDRESS:PORT)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = match self.port {
            Some(port) => std::net::SocketAddr::new(self.address, port).to_string(),
            None => self.address.to_string(),
        };
        match (&self.pod, &self.node) {
            (Some(pod), _) => write!(f, "{pod} ({at})"),
            (None, Some(node)) => write!(f, "node {node} ({at})"),
            (None, None) => write!(f, "{at}"),
        }
    }
}

/// Why a packet is not let through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// `egress` or `ingress` of the pod; absent where it is not policy that denies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<String>,
    /// The pod whose policies deny it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The rule that denies it, or `no rule allows it`, or what else is wrong with it.
    pub reason: String,
    /// The policies that isolate the pod in this direction, in the order in which they are judged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
}

impl std::fmt::Display for Denial {
    /// `ingress of shop/web: no rule allows it (NetworkPolicy shop/web)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.direction, &self.pod) {
            (Some(direction), Some(pod)) => write!(f, "{direction} of {pod}: ")?,
            (None, Some(pod)) => write!(f, "{pod}: ")?,
            _ => {}
        }
        f.write_str(&self.reason)?;
        if self.policies.is_empty() { Ok(()) } else { write!(f, " ({})", self.policies.join(", ")) }
    }
}

/// Whether all that the datastore had when it was asked has been applied, and the state then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Waited<S> {
    /// Not too late.
    pub applied: bool,
    /// [`FelixStatus`] or [`BgpdStatus`].
    pub status: S,
}

/// State of felix.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FelixStatus {
    /// The node it serves.
    pub node: String,
    /// Whether it has heard all of the datastore, and the kernel holds what it wants.
    pub in_sync: bool,
    /// Whether it attaches pods and policy is enforced: what a probe asks.
    #[serde(default)]
    pub ready: bool,
    /// Why it is not ready, one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unready: Option<String>,
    /// Revision of the datastore up to which it is known that the kernel holds what it wants: where a kind's watch tells nothing while
    /// nothing changes, that is long ago.
    pub revision: u64,
    /// Workload endpoints attached here.
    pub endpoints: u32,
    /// Changes by others to our table or routes that were repaired.
    pub repairs: u64,
    /// Live connections that were cut since the start because policy forbids them.
    #[serde(default)]
    pub connections_cut: u64,
    /// What is wrong, one sentence each.
    #[serde(default)]
    pub problems: Vec<String>,
}

/// A request to the controller's socket.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "op")]
pub enum ControllerRequest {
    /// Answered by [`ControllerStatus`].
    Status,
}

/// State of a controller. Of all that run, one leads and acts; the others wait to take its place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ControllerStatus {
    /// How it signs the Lease.
    pub identity: String,
    /// Whether it leads.
    pub leading: bool,
    /// Who leads, as the Lease said last; none while that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// Whether it can do its part: the leader has heard all of the datastore, another one has lately seen that somebody leads.
    pub in_sync: bool,
    /// Blocks of deleted nodes that it has freed since it leads.
    pub freed: u64,
    /// Nodes that are gone and whose blocks or NodeNetworks are still there.
    pub gone: u32,
    /// What is wrong, one sentence each.
    #[serde(default)]
    pub problems: Vec<String>,
}
