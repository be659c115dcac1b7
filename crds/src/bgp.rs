//! BGPConfiguration, what all nodes share, and BGPPeer, with whom they speak beyond that.

use crate::add_path::AddPathSpec;
use crate::bgp_limit::MaxPrefixesSpec;
use crate::bgp_role::RoleSpec;
use crate::bmp::BmpStation;
use crate::checksum_offload::ChecksumOffload;
use crate::definitions::schemas;
use crate::services::ServiceRanges;
pub use crate::topology::Topology;
use crate::topology::{RouteReflectors, Sessions};
use crate::{names, written};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::de::{Error, MapAccess, Unexpected, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// What an operator wants of the routing of the whole cluster; the one object named `default` counts.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "twill.network",
    version = "v1",
    kind = "BGPConfiguration",
    plural = "bgpconfigurations",
    status = "BGPConfigurationStatus",
    shortname = "bgpconfig",
    category = "twill",
    derive = "PartialEq",
    doc = "BGPConfiguration says how the nodes of the cluster route among each other. There is one, named default. Without it all of its defaults hold."
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(description = "How the nodes route among each other.")]
pub struct BGPConfigurationSpec {
    /// The AS of the nodes; by default 64512. A number is the AS of all of them. `{nodeLabel: KEY}` gives each node the number that its
    /// label KEY says, so that the nodes of a rack, or every node, have an AS of their own. 23456 is reserved (RFC 6793).
    pub asn: NodeAsn,
    /// Who peers with whom inside the cluster. `Mesh`: every node with every other. `RouteReflector`: every node with a few that the
    /// controller chooses, which reflect (RFC 4456). `Auto`, the default: a mesh up to 110 nodes, reflectors above, and a mesh again at 80;
    /// always a mesh where the AS comes from a label. `Fabric`: only what BGPPeer objects say, as where nodes peer with their top-of-rack switches.
    pub topology: Topology,
    /// Which nodes reflect, where the topology has such.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_reflectors: Option<RouteReflectors>,
    /// Addresses of Services that nodes tell the peers of BGPPeer objects, never each other. Every node tells each range as a whole; an address in
    /// one of them whose Service wants local endpoints alone (`externalTrafficPolicy` or `internalTrafficPolicy` is `Local`) is told by nodes
    /// with a ready one. A Node with the label `node.kubernetes.io/exclude-from-external-load-balancers` tells none. Of a Service with the annotation (or label)
    /// `twill.network/advertise: "false"` no address is told, unless an older Service has it, and ranges are told around them, around 64 at most;
    /// nor is an address of a proxy (`ipMode: Proxy`) that no Service has of its own.
    #[serde(skip_serializing_if = "ServiceRanges::is_empty")]
    pub services: ServiceRanges,
    /// The TCP port on which every node's speaker listens; by default 179.
    #[schemars(range(min = 1))]
    pub listen_port: u16,
    /// The hold time in seconds that nodes propose to each other; by default 90. It is at least 3, or 0 for sessions that never time out
    /// (RFC 4271 section 4.2). The smaller one of both sides counts.
    pub hold_time: u16,
    /// The UDP port of VXLAN on every node; by default 4789.
    #[schemars(range(min = 1))]
    pub vxlan_port: u16,
    /// Whether the tunnel devices of the nodes leave checksums to the network interface, which some get wrong or make slow. `Auto`, the default:
    /// not where that is known of kernel and driver; a device that somebody else has turned it off on is left so. `Disabled`: nowhere, which costs
    /// processor time. `Unchanged`: as the machine's operator has set it (`ethtool -K twill-vxlan tx off`). Where Twill has turned it off it stays
    /// off until the device is made anew.
    pub tunnel_checksum_offload: ChecksumOffload,
    /// Stations that every node's speaker tells of its sessions and of what its peers told, after filters (BMP, RFC 7854); at most 8, by
    /// default none. The nodes call them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub bmp: Vec<BmpStation>,
}

impl Default for BGPConfigurationSpec {
    fn default() -> Self {
        Self {
            asn: NodeAsn::default(),
            topology: Topology::default(),
            route_reflectors: None,
            services: ServiceRanges::default(),
            listen_port: names::BGP_PORT,
            hold_time: names::HOLD_TIME,
            vxlan_port: names::VXLAN_PORT,
            tunnel_checksum_offload: ChecksumOffload::default(),
            bmp: Vec::new(),
        }
    }
}

/// What the controller found out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BGPConfigurationStatus {
    /// How many nodes' speakers have the AS that this gives them.
    #[serde(default)]
    pub nodes: u32,
    /// Who peers with whom now, which nodes follow. Left out until the controller has decided: then they are a mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<Sessions>,
    /// By which addresses nodes are known whose Nodes list several InternalIPs of one family, by the node's name: what each has chosen, at most one of IPv4 and one of
    /// IPv6. One that the Node does not list any more does not count. Other nodes are known by what their Nodes list.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_addresses: BTreeMap<String, Vec<IpAddr>>,
    /// `Accepted`: it is valid, and counts. `Applied`: the speaker of every node has the AS that this gives it. `Converged`: the topology
    /// that is asked for is in force, and no node needs what it was before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schemas::conditions")]
    pub conditions: Vec<Condition>,
}

/// Where the AS of a node comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum NodeAsn {
    /// All nodes have this one.
    Number(u32),
    /// Each node has the number that its label says.
    Label(AsnLabel),
}

/// The label that says a node's AS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AsnLabel {
    /// Key of the label; its value is the AS number in decimal.
    pub node_label: String,
}

impl Default for NodeAsn {
    fn default() -> Self {
        Self::Number(names::DEFAULT_ASN)
    }
}

impl NodeAsn {
    /// The AS of a node with these labels.
    ///
    /// # Errors
    /// The label is missing or is no AS number; one sentence without the node's name.
    pub fn of(&self, labels: Option<&BTreeMap<String, String>>) -> Result<u32, String> {
        let key = match self {
            Self::Number(number) => return Ok(*number),
            Self::Label(label) => &label.node_label,
        };
        let Some(value) = labels.and_then(|labels| labels.get(key)) else {
            return Err(format!(
                "metadata.labels: there is no {key}, which BGPConfiguration default takes the AS from; add it"
            ));
        };
        let number = value.parse::<u32>().ok().filter(|number| asn_problem(*number).is_none());
        number.ok_or_else(|| format!("metadata.labels: {key} is \"{value}\", which is no AS number; use e.g. 64512"))
    }
}

/// By hand, so that a field which this release does not know is passed over, and still found by who looks for such fields.
impl<'de> Deserialize<'de> for NodeAsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeAsnVisitor)
    }
}

struct NodeAsnVisitor;

impl<'de> Visitor<'de> for NodeAsnVisitor {
    type Value = NodeAsn;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an AS number from 1 to 4294967295, or {nodeLabel: KEY}")
    }
    fn visit_u64<E: Error>(self, number: u64) -> Result<NodeAsn, E> {
        let fits = u32::try_from(number).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))?;
        Ok(NodeAsn::Number(fits))
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<NodeAsn, A::Error> {
        AsnLabel::deserialize(MapAccessDeserializer::new(map)).map(NodeAsn::Label)
    }
}

/// AS_TRANS (RFC 6793 section 9): stands for numbers that old speakers cannot carry, and is nobody's own.
const AS_TRANS: u32 = 23456;

/// Why no speaker can have this number, if none can.
#[must_use]
pub fn asn_problem(number: u32) -> Option<&'static str> {
    match number {
        0 => Some("is 0, which is nobody's (RFC 7607); use 1 to 4294967295"),
        AS_TRANS => Some("is 23456, which is reserved (AS_TRANS, RFC 6793); use another number"),
        _ => None,
    }
}

/// What an operator wants of a peer of nodes.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "twill.network",
    version = "v1",
    kind = "BGPPeer",
    plural = "bgppeers",
    status = "BGPPeerStatus",
    shortname = "peer",
    category = "twill",
    derive = "PartialEq",
    doc = "BGPPeer is a router that nodes speak BGP with, such as their top-of-rack switch, beyond what the topology of the cluster gives them."
)]
#[serde(rename_all = "camelCase")]
#[schemars(description = "Who the peer is, and how the nodes speak with it.")]
pub struct BGPPeerSpec {
    /// Selects, by label, the nodes that have this peer. Left out or empty, all nodes have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schemas::selector")]
    pub node_selector: Option<LabelSelector>,
    /// The other side.
    pub remote: Remote,
    /// The AS of the other side: its number, or `internal` for the nodes' own AS, or `external` for any other. 23456 is reserved (RFC
    /// 6793).
    pub asn: PeerAsn,
    /// The AS that the nodes show this peer in place of their own (RFC 7705). Left out, they show their own.
    #[serde(default, rename = "localASN", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub local_asn: Option<u32>,
    /// The hold time in seconds that the nodes propose; by default 90. It is at least 3, or 0 for a session that never times out (RFC
    /// 4271 section 4.2). The smaller one of both sides counts.
    #[serde(default = "hold_time")]
    pub hold_time: u16,
    /// How often the nodes' own AS may stand in the AS path of a route that they accept from this peer. Left out, it is 1 for an external
    /// peer where the topology is `Fabric`, whose nodes share an AS, and otherwise 0.
    #[serde(default, rename = "allowOwnAS", skip_serializing_if = "Option::is_none")]
    pub allow_own_as: Option<u8>,
    /// The next hop of the routes that nodes send to this peer (RFC 4271 section 5.1.3). `Auto`, the default: the node's own address to an
    /// external peer, unless a third party on the shared subnet is nearer, and unchanged to an internal one. `Self`: the node's own address, always.
    /// `Keep`: unchanged, always.
    #[serde(default)]
    pub next_hop: NextHop,
    /// How many hops away the peer is at most, 1 if it is on the link (RFC 5082, GTSM): the nodes' packets have TTL 255, and those of the peer
    /// that have come farther are dropped. The peer needs the same. Left out, there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 254))]
    pub ttl_security: Option<u8>,
    /// BGPFilters by name, at most 16, asked in this order about every route that the peer tells or is told. While one of them is missing,
    /// no route is taken or told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)))]
    pub filters: Vec<String>,
    /// Bidirectional Forwarding Detection with the peer (RFC 5880): a dead path is found within a second instead of the hold time. `{}`
    /// takes the defaults. Left out, there is none. The peer must have it configured, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<BfdSpec>,
    /// How many prefixes are taken from the peer, and what happens when it tells more. Left out, there is no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_prefixes: Option<MaxPrefixesSpec>,
    /// What the nodes are to a peer of another AS (RFC 9234), against routes that leak. Left out, nothing is said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<RoleSpec>,
    /// Several paths to a prefix instead of the best one alone (ADD-PATH, RFC 7911), which way they may go. Left out, there is one each way. A
    /// change starts the session again; one of the number that is sent does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_path: Option<AddPathSpec>,
    /// Where the password of the session is (TCP MD5 signatures, RFC 2385): 1 to 80 octets. While it cannot be read there is no session; a
    /// new one resets the session. Left out, there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<PasswordSource>,
}

/// Where a password is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PasswordSource {
    /// An entry of a Secret of type Opaque in the namespace of Twill.
    pub secret_key_ref: SecretKeyRef,
}

/// An entry of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key of the entry in its `data`.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Least and most milliseconds of a BFD interval.
pub const BFD_INTERVALS: std::ops::RangeInclusive<u32> = 10..=60_000;
/// Milliseconds of a BFD interval unless configured otherwise.
pub const BFD_INTERVAL: u32 = 300;
/// BFD packets that may be lost in a row unless configured otherwise.
pub const BFD_MULTIPLIER: u8 = 3;

/// How a path is watched by BFD (RFC 5880).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BfdSpec {
    /// The least milliseconds between packets that the nodes send, 10 to 60000; by default 300. The larger of this and what the peer takes
    /// counts.
    #[schemars(range(min = 10, max = 60000))]
    pub min_tx: u32,
    /// The least milliseconds between the peer's packets that the nodes take, 10 to 60000; by default 300.
    #[schemars(range(min = 10, max = 60000))]
    pub min_rx: u32,
    /// How many of the nodes' packets may be lost in a row before the peer takes the path for dead; by default 3.
    #[schemars(range(min = 1))]
    pub multiplier: u8,
    /// Whether several hops are counted on (RFC 5883, UDP port 4784) or one (RFC 5881, port 3784). `Auto`, the default: one to an external
    /// peer unless its `ttlSecurity` is above 1, and to an internal one on a connected subnet. `Always`, `Never`. Both sides must agree.
    pub multihop: BfdMultihop,
}

impl Default for BfdSpec {
    fn default() -> Self {
        Self { min_tx: BFD_INTERVAL, min_rx: BFD_INTERVAL, multiplier: BFD_MULTIPLIER, multihop: BfdMultihop::Auto }
    }
}

/// Whether BFD counts on several hops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BfdMultihop {
    /// As it follows from the session.
    #[default]
    Auto,
    /// Several.
    Always,
    /// One.
    Never,
}

fn hold_time() -> u16 {
    names::HOLD_TIME
}

/// How the other side is found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Remote {
    /// The address of the other side, IPv4 or IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "written::address")]
    pub address: Option<IpAddr>,
    /// The name of an interface of the nodes: the other side is the router that is found on it by its router advertisements (an unnumbered
    /// peer). Both families are told over its link-local address (RFC 8950).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15))]
    pub interface: Option<String>,
    /// Selects other nodes of the cluster, by label: each of them is a peer, and these nodes are peers of theirs. Empty, all are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schemas::selector")]
    pub node_selector: Option<LabelSelector>,
    /// The TCP port of the other side. Left out, it is 179, or the `listenPort` of BGPConfiguration where the other side is a node of the
    /// cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
}

/// AS of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "must be internal, external or an AS number from 1 to 4294967295")]
pub enum PeerAsn {
    /// This number.
    Number(u32),
    /// In relation to our own.
    Relation(AsRelation),
}

/// AS of a peer in relation to our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AsRelation {
    /// The same AS.
    Internal,
    /// Any other AS.
    External,
}

/// Next hop of what we send to a peer (RFC 4271 section 5.1.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NextHop {
    /// Our own address to eBGP peers, unless a third party on the shared subnet is nearer; unchanged to iBGP peers.
    #[default]
    Auto,
    /// Our own address always.
    #[serde(rename = "Self")]
    Own,
    /// Unchanged always.
    Keep,
}

/// What the controller last saw of the peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BGPPeerStatus {
    /// How many nodes have this peer.
    #[serde(default)]
    pub nodes: u32,
    /// Of those, how many have a session with it in the state Established.
    #[serde(default)]
    pub established: u32,
    /// `Accepted`: the peer is valid and nodes use it. `Established`: every node that it selects has a session with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schemas::conditions")]
    pub conditions: Vec<Condition>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_label_says_the_as_or_what_is_wrong_with_it() {
        let by_label: NodeAsn = serde_json::from_value(serde_json::json!({"nodeLabel": "asn"})).unwrap();
        let of = |value: Option<&str>| {
            by_label.of(Some(&value.map(|v| ("asn".to_owned(), v.to_owned())).into_iter().collect()))
        };
        assert_eq!(of(Some("65201")), Ok(65201));
        assert_eq!(of(Some("4200000001")), Ok(4_200_000_001));
        for bad in [None, Some(""), Some("0"), Some("23456"), Some("4294967296"), Some("as65201")] {
            let problem = of(bad).unwrap_err();
            assert!(problem.starts_with("metadata.labels: ") && problem.contains("asn"), "{problem}");
        }
        assert_eq!(NodeAsn::Number(7).of(None), Ok(7));
    }
}
