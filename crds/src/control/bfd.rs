//! What `twill bfd` is asked, and answers: sessions, and what becomes of them.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

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
