//! How many prefixes a peer may tell.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Seconds for which a peer that told too much is left alone unless configured otherwise.
pub const RETRY_AFTER: u32 = 300;

/// A bound of the routes that are taken from a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MaxPrefixesSpec {
    /// So many prefixes of IPv4, and so many of IPv6, are taken. Those that filters reject do not count.
    #[schemars(range(min = 1))]
    pub limit: u32,
    /// What happens when the peer tells one more. `Close`, the default: its session ends (Cease, Maximum Number of Prefixes Reached, RFC 4486),
    /// and all its routes go. `Refuse`: those that it told before stay, further ones are not taken. `Warn`: they are taken, and said in the
    /// node's status.
    #[serde(default)]
    pub when_exceeded: WhenExceeded,
    /// After how many seconds a session that was closed is sought again; by default 300. Only with `whenExceeded: Close`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub retry_after: Option<u32>,
}

/// What happens to a peer that tells more than is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WhenExceeded {
    /// Its session ends for a while.
    #[default]
    Close,
    /// What is more is not taken.
    Refuse,
    /// It is taken, and said.
    Warn,
}
