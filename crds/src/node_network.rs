//! NodeNetwork: what one node says of itself. Each field of the status has one writer.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// State of one node's network; named as the Node. Created by the node's daemons; the spec is what an operator asks of the node.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "twill.network",
    version = "v1",
    kind = "NodeNetwork",
    plural = "nodenetworks",
    status = "NodeNetworkStatus",
    category = "twill",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct NodeNetworkSpec {
    /// Whether the node is to take no part in routing: its sessions end with Cease, so that no peer has a route to it, until this is
    /// false again. Written by `twill drain`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drain: bool,
    /// Whether Twill is to be removed from the node: written by `twill uninstall --cluster`, obeyed once; the object goes last.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uninstall: bool,
}

/// What the node's daemons report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeNetworkStatus {
    /// Written by bgpd: routing.
    #[serde(default)]
    pub bgp: BgpState,
    /// Written by felix: pods and policy.
    #[serde(default)]
    pub felix: FelixState,
}

/// Routing state of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpState {
    /// Addresses in use for sessions and tunnels, one per family at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// AS in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asn: Option<u32>,
    /// Ordinal 0 of the node's oldest block of each family: its own source towards pods through a tunnel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tunnel_addresses: Vec<IpAddr>,
    /// `BGPReady`, `AddressValid`, `TunnelHealthy`, `RoutesResolved`…
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// State of a node's pods and policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FelixState {
    /// `NetworkReady`, `PolicySynced`, `AddressesAvailable`…
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
