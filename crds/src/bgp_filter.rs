//! BGPFilter: which routes a node takes from a peer and tells it, and with what attributes.

use crate::definitions::schemas;
use crate::written;
use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an operator wants of the routes of a peer.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "twill.network",
    version = "v1",
    kind = "BGPFilter",
    plural = "bgpfilters",
    status = "BGPFilterStatus",
    shortname = "bgpfilter",
    category = "twill",
    derive = "PartialEq",
    doc = "BGPFilter says which routes nodes take from the peers that name it, which they tell them, and what becomes of the attributes. A BGPPeer names its filters in order."
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(
    description = "Rules in order. A rule that matches changes what it sets; the first one with an action decides, and the rest is not asked. What no rule of any filter decides goes on as without filters: it is taken, and a node tells its own routes."
)]
pub struct BGPFilterSpec {
    /// Rules about routes that a peer tells, at most 32.
    #[schemars(length(max = 32))]
    pub import: Vec<FilterRule>,
    /// Rules about routes that a peer is told, at most 32. One that names no `source` is about the node's own routes.
    #[schemars(length(max = 32))]
    pub export: Vec<FilterRule>,
}

/// What the controller found out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BGPFilterStatus {
    /// How many BGPPeers name it.
    #[serde(default)]
    pub peers: u32,
    /// `Accepted`: its rules are understood. While they are not, nodes go on with the last ones that were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schemas::conditions")]
    pub conditions: Vec<Condition>,
}

/// What becomes of the routes that a rule matches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FilterRule {
    /// Which routes. Every field that is there must hold; left out or empty, all routes. Attributes are compared as they came: what an
    /// earlier rule sets is not seen.
    #[serde(default)]
    pub r#match: FilterMatch,
    /// What becomes of their attributes.
    #[serde(default)]
    pub set: FilterSet,
    /// `Accept` or `Reject`. Left out, the next rule is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<FilterAction>,
}

/// What a rule decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FilterAction {
    /// The route is taken, or told.
    Accept,
    /// It is not.
    Reject,
}

/// Which routes a rule is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FilterMatch {
    /// `IPv4` or `IPv6` routes only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<FilterFamily>,
    /// The route's prefix is one of these, at most 128.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    pub prefixes: Vec<PrefixRange>,
    /// The route carries one of these communities, at most 16: `65000:1`, `65000:1:2`, `rt:65000:1`, `soo:65000:1` or a well-known name
    /// such as `no-export`; `*` stands for any number.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 40)))]
    pub communities: Vec<String>,
    /// What its AS path is like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_path: Option<AsPathMatch>,
    /// Its next hop lies in one of these ranges, at most 32; a node's own routes have none.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "written::ranges")]
    #[schemars(schema_with = "schemas::ranges")]
    pub next_hops: Vec<IpNet>,
    /// Where the route comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<RouteSource>,
}

/// Family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FilterFamily {
    /// IPv4.
    IPv4,
    /// IPv6.
    IPv6,
}

/// Where a route comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RouteSource {
    /// It is the speaker's own.
    Own,
    /// A peer of the same AS told it.
    Internal,
    /// A peer of another AS told it.
    External,
}

/// Prefixes inside a range, by length.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrefixRange {
    /// The range, such as `10.42.0.0/16`.
    #[serde(deserialize_with = "written::range")]
    #[schemars(schema_with = "schemas::range")]
    pub cidr: IpNet,
    /// The shortest prefix inside of it that is meant. Left out, the range's own length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 128))]
    pub min_length: Option<u8>,
    /// The longest. Left out, the range's own length; beside a `minLength`, 32 or 128.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 128))]
    pub max_length: Option<u8>,
}

impl PrefixRange {
    /// The shortest and the longest prefix that is meant.
    #[must_use]
    pub fn lengths(&self) -> (u8, u8) {
        let own = self.cidr.prefix_len();
        let longest = if self.min_length.is_some() { self.cidr.max_prefix_len() } else { own };
        (self.min_length.unwrap_or(own), self.max_length.unwrap_or(longest))
    }
}

/// What an AS path is like; every field that is there must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AsPathMatch {
    /// The first AS, that of the neighbour.
    #[serde(rename = "neighborASN", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub neighbor_asn: Option<u32>,
    /// The last AS, where the route began.
    #[serde(rename = "originASN", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub origin_asn: Option<u32>,
    /// An AS that stands in it anywhere.
    #[serde(rename = "includesASN", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub includes_asn: Option<u32>,
    /// How many AS it has at least; repeated ones count, a set counts once (RFC 4271 section 9.1.2.2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_length: Option<u16>,
    /// How many it has at most; 0: the empty path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u16>,
}

/// What becomes of a route's attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FilterSet {
    /// LOCAL_PREF: the higher one wins. Not told to peers of another AS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC: the lower one wins among routes of one neighbour AS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub med: Option<u32>,
    /// Communities that it gets, at most 16.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 40)))]
    pub add_communities: Vec<String>,
    /// Communities that it loses, at most 16; `*` stands for any number. A rule removes before it adds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 40)))]
    pub remove_communities: Vec<String>,
    /// How often an AS is put before the path, up to 32 times: where the peer is told, the speaker's own; of what the peer tells, the
    /// peer's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32))]
    pub prepend: Option<u8>,
}

impl FilterSet {
    /// Whether it leaves everything as it is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
