//! What operators, the lab and tests ask of a running daemon on its control socket; framing as in [`crate::cni`].
//! A connection carries any number of requests, answered in order.

use ipnet::IpNet;
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
    /// HostPolicies of this node, for `twill policy host`; answered by a JSON object.
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

/// A request to bgpd's socket.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "op")]
pub enum BgpdRequest {
    /// Answered by [`BgpdStatus`].
    Status,
    /// Answered by a [`Waited`] once everything that the datastore has now has been applied, or after `timeout_ms`.
    Wait {
        /// Upper limit of the wait in milliseconds.
        timeout_ms: u64,
    },
    /// Answered by a JSON array of [`PeerStatus`].
    Peers,
    /// Answered by a JSON array of [`RouteStatus`].
    Routes(RouteQuery),
    /// End with Cease to every peer, so that none keeps a route of ours, and leave the kernel as it is. Answered by [`BgpdStatus`],
    /// or by the end of the connection, once the sessions are closed.
    Leave,
}

/// State of bgpd.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpdStatus {
    /// The node it serves; empty for a speaker that runs alone.
    pub node: String,
    /// Whether it has heard all of the datastore.
    pub in_sync: bool,
    /// Revision of the datastore up to which it is known that all has been applied; see [`FelixStatus::revision`].
    pub revision: u64,
    /// Sessions configured.
    pub peers: u32,
    /// Of those, in Established.
    pub established: u32,
    /// Kernel routes that others removed or changed and that were repaired.
    pub repairs: u64,
    /// Whether the node is drained: it has no sessions because an operator wants so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drained: bool,
    /// Whether the node reflects what other nodes tell.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reflector: bool,
    /// Why it still needs sessions of a topology that is on its way out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retiring: Option<String>,
    /// What is wrong, one sentence each.
    #[serde(default)]
    pub problems: Vec<String>,
}

/// A request to the socket of `twill bfd`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "op")]
pub enum BfdRequest {
    /// From now on the client wants these sessions and no others. Answered by a [`BfdSession`] per line, one for each of them at once
    /// and one for each change of state until the connection ends, or by an `{error}` if that cannot be.
    #[serde(rename_all = "camelCase")]
    Want {
        /// The client's name: what an earlier connection under it wanted is void.
        client: String,
        /// The client's network namespace, as the inode of its `/proc/self/ns/net`; another one than that of the process is refused.
        netns: u64,
        /// For how many seconds the sessions stay when the connection ends.
        keep: u64,
        /// The sessions.
        sessions: Vec<BfdWanted>,
    },
    /// Answered by [`BfdStatus`].
    Status,
    /// End, after each peer has been told that it is no failure (AdminDown). Answered by [`BfdStatus`].
    Leave,
}

/// The ends of a BFD session.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BfdEnds {
    /// The other side's address.
    pub peer: IpAddr,
    /// Our address; absent: the kernel's choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<IpAddr>,
    /// Our interface, which a link-local address needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// How far it is to the other side.
    #[serde(default)]
    pub hops: BfdHops,
}

/// How far it is to the other side of a BFD session, which decides on port and TTL; both sides must agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BfdHops {
    /// One hop if the address is on a connected subnet, else several.
    #[default]
    Auto,
    /// One hop (RFC 5881).
    Single,
    /// Several (RFC 5883).
    Multiple,
}

/// A BFD session as a client wants it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BfdWanted {
    /// Its ends.
    #[serde(flatten)]
    pub ends: BfdEnds,
    /// Least interval between our packets, in milliseconds, above 0.
    pub min_tx: u32,
    /// Least interval between the other side's packets that we take, in milliseconds, above 0.
    pub min_rx: u32,
    /// Packets that may be lost in a row, above 0.
    pub multiplier: u8,
}

/// A BFD session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BfdSession {
    /// Its ends, as they are wanted.
    #[serde(flatten)]
    pub ends: BfdEnds,
    /// `AdminDown`, `Down`, `Init`, `Up` (RFC 5880 section 4.1).
    pub state: String,
    /// The state that the other side says.
    pub remote_state: String,
    /// Why it last left Up.
    pub diagnostic: String,
    /// Whether the other side's BFD does not share the fate of its control plane (the C bit).
    pub remote_independent: bool,
    /// Whether several hops are counted on.
    pub multihop: bool,
    /// Seconds in this state.
    pub since: u64,
    /// Milliseconds between our packets now, before jitter; absent while the other side wants none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transmit_interval: Option<u64>,
    /// Milliseconds after which a silent peer is given up; absent while it has not been heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detection_time: Option<u64>,
    /// Why nothing can be sent, one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// State of `twill bfd`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BfdStatus {
    /// All sessions.
    pub sessions: Vec<BfdSession>,
    /// Packets that were discarded since the start.
    pub discarded: u64,
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

/// One peer as `twill peers` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// Name in the configuration.
    pub name: String,
    /// Its address; absent while it is on an interface where no router has been found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The interface that it is on, if it is configured by that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Its AS; 0 while it is `external` and unknown.
    pub asn: u32,
    /// What it is among the nodes of the cluster: `node`, `client` of this node as reflector, `reflector`; empty for any other.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub role: String,
    /// RFC 4271 section 8.2.2: `Idle`, `Connect`, `Active`, `OpenSent`, `OpenConfirm`, `Established`.
    pub state: String,
    /// Seconds in that state.
    pub since: u64,
    /// Paths in its Adj-RIB-In.
    pub received: u64,
    /// Paths in its Adj-RIB-Out.
    pub advertised: u64,
    /// Paths that it has told and that were not taken; as many as are kept, at most 10,000.
    #[serde(default)]
    pub rejected: u64,
    /// Why the last session ended, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// What is missing for a session to be tried, in one sentence: no router on its interface, say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// State of BFD with it, if it is configured: `AdminDown`, `Down`, `Init`, `Up` (RFC 5880 section 4.1), or `Unknown` while the process
    /// `twill bfd` does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<String>,
    /// How many sessions with it have been Established since the speaker started.
    #[serde(default)]
    pub sessions: u64,
}

/// Which routes are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteQuery {
    /// Only those inside or equal to this prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<IpNet>,
    /// Which of them.
    pub view: RouteView,
    /// Only those of this peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
}

/// Which routes of a speaker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RouteView {
    /// Paths that were taken, with the attributes that they have here.
    #[default]
    Taken,
    /// What peers have been told, with the attributes that they see.
    Advertised,
    /// Paths that were told and not taken, as they came; 10,000 of each peer at most.
    Rejected,
}

/// One path of one prefix as `twill routes` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteStatus {
    /// The prefix.
    pub prefix: IpNet,
    /// Next hop; absent for a prefix of our own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<IpAddr>,
    /// The interface on which the next hop is, if that is link-local.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Name of the peer that sent it, or that is told it; empty for our own.
    #[serde(default)]
    pub peer: String,
    /// By which identifier the peer tells it, or is told it (RFC 7911); absent where the session carries none.
    #[serde(default, rename = "pathID", skip_serializing_if = "Option::is_none")]
    pub path_id: Option<u32>,
    /// AS_PATH as text.
    #[serde(default)]
    pub as_path: String,
    /// LOCAL_PREF, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub med: Option<u32>,
    /// Its communities of all kinds, as [`crate::community::Community`] writes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<String>,
    /// Whether decision chose it (several with ECMP).
    pub best: bool,
    /// Whether the kernel has it.
    pub installed: bool,
    /// How the kernel sends it: `plain`, `VXLAN`, `IPIP`, `unreachable`; empty when it is not installed.
    #[serde(default)]
    pub encapsulation: String,
    /// Why it is best or is not, or why it is not installed.
    #[serde(default)]
    pub reason: String,
}
