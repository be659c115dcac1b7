//! NodeNetwork: what one node says of itself. Each field of the status has one writer.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// State of one node's network; named as the Node. Created by bgpd; nobody needs to write its spec.
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
pub struct NodeNetworkSpec {}

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
