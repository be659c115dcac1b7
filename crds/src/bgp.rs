//! BGPConfiguration, what all nodes share, and BGPPeer, with whom they speak beyond that.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Routing of the whole cluster; the one object named `default` counts.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "twill.network",
    version = "v1",
    kind = "BGPConfiguration",
    plural = "bgpconfigurations",
    category = "twill",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct BGPConfigurationSpec {
    /// AS of the nodes; default 64512.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asn: Option<u32>,
    /// Who peers with whom inside the cluster.
    #[serde(default)]
    pub topology: Topology,
    /// TCP port of every node's speaker; default 179.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_port: Option<u16>,
    /// Hold time proposed to other nodes, in seconds: 0, or at least 3; default 90 (RFC 4271 section 4.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_time: Option<u16>,
    /// UDP port of VXLAN; default 4789.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vxlan_port: Option<u16>,
}

/// Who peers with whom inside the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Topology {
    /// iBGP between all nodes.
    #[default]
    Mesh,
    /// Only what BGPPeer objects say: nodes peer with their ToR.
    Fabric,
}

/// A peer of the nodes that a selector names.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "twill.network",
    version = "v1",
    kind = "BGPPeer",
    plural = "bgppeers",
    status = "BGPPeerStatus",
    category = "twill",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct BGPPeerSpec {
    /// Nodes that have this peer; absent or empty: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// The other side.
    pub remote: Remote,
    /// AS of the other side: `internal`, `external` or a number.
    pub asn: PeerAsn,
    /// AS that the nodes show this peer instead of their own (RFC 7705).
    #[serde(default, rename = "localASN", skip_serializing_if = "Option::is_none")]
    pub local_asn: Option<u32>,
    /// Hold time in seconds: 0, or at least 3; default 90.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_time: Option<u16>,
    /// How often our own AS may stand in a received path; default 1 for external peers of a `Fabric`, whose
    /// nodes share an AS, otherwise 0.
    #[serde(default, rename = "allowOwnAS", skip_serializing_if = "Option::is_none")]
    pub allow_own_as: Option<u8>,
    /// Next hop of what we send.
    #[serde(default)]
    pub next_hop: NextHop,
}

/// How a peer is named; exactly one field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Remote {
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Its TCP port; default 179.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// AS of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum PeerAsn {
    /// This number.
    Number(u32),
    /// In relation to our own.
    Relation(AsRelation),
}

/// AS of a peer in relation to our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

/// Observed state of a peer, written by the controller.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BGPPeerStatus {
    /// Nodes that the selector names.
    #[serde(default)]
    pub nodes: u32,
    /// Of those, with a session in Established.
    #[serde(default)]
    pub established: u32,
    /// `Accepted`, `Established`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
