//! What bgpd is asked, and answers: its state, peers and routes.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

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
    /// What is odd about Services of anybody, in one sentence; all is obeyed that is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
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
    /// Prefixes that it is not told since their attributes do not fit into a message.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub too_long: u64,
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
    /// What the asked peer is not told of what could be told, with the attributes that it has here and the peer that sent it.
    Withheld,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // As serde calls it.
fn is_zero(count: &u64) -> bool {
    *count == 0
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
