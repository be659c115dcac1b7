//! NodeNetwork: what one node says of itself. Each field of the status has one writer.

use crate::definitions::schemas;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// What an operator asks of one node. The object is named as the Node and created by the node's daemons.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "twill.network",
    version = "v1",
    kind = "NodeNetwork",
    plural = "nodenetworks",
    status = "NodeNetworkStatus",
    shortname = "nodenet",
    category = "twill",
    derive = "PartialEq",
    doc = "NodeNetwork is the state of one node's network, named as the Node. The node's daemons create it and write its status; its spec is what an operator asks of the node."
)]
#[serde(rename_all = "camelCase")]
#[schemars(description = "What an operator asks of the node.")]
pub struct NodeNetworkSpec {
    /// Whether the node is to take no part in routing. Its sessions end and no peer keeps a route to it, until this is false again.
    /// `twill drain` writes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drain: bool,
    /// Whether Twill is to be removed from the node, once and for all; this object is deleted last. `twill uninstall --cluster` writes
    /// it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uninstall: bool,
}

/// What the node's daemons report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeNetworkStatus {
    /// Routing, as bgpd reports it.
    #[serde(default)]
    pub bgp: BgpState,
    /// Pods and policy, as felix reports them.
    #[serde(default)]
    pub felix: FelixState,
}

/// How many peers [`BgpState::peers_down`] names at most.
pub const PEERS_DOWN: usize = 64;

/// Type of the condition that says whether tunnels work.
pub const TUNNEL_HEALTHY: &str = "TunnelHealthy";
/// Its reason where the network between nodes does not let IP-in-IP through.
pub const PROTOCOL_FILTERED: &str = "ProtocolFiltered";
/// Its reason where a tunnel device cannot be made or used.
pub const TUNNEL_UNUSABLE: &str = "TunnelUnusable";
/// Its reason where the kernel refused a setting without which some packets do not arrive, and there is no greater trouble.
pub const SETTING_REFUSED: &str = "SettingRefused";

/// Routing state of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpState {
    /// The addresses of the node for sessions and tunnels, at most one of IPv4 and one of IPv6.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// The AS of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asn: Option<u32>,
    /// The addresses that the node itself sends from to pods behind a tunnel: the first one of its oldest block, of IPv4 and of IPv6.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tunnel_addresses: Vec<IpAddr>,
    /// The BGPPeers of the node with which it has no session in the state Established: the first 64 by name. Left out until bgpd has
    /// looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers_down: Option<Vec<String>>,
    /// Number of BGPConfiguration's decision about sessions (`status.sessions.step`) with which this node has all its routes, whatever that
    /// does away with. Left out while it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    /// Whether the node reflects what others tell, as the decision says that it follows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reflects: bool,
    /// `BGPReady`: the speaker runs with what is configured. `AddressValid`: the node has an address to be the next hop of its blocks.
    /// `TunnelHealthy`: tunnels that pools ask for work; its reason is `ProtocolFiltered` where other nodes that are there are not reached by IP-in-IP, of
    /// those that are asked (all in a small cluster, some in a large one), and `SettingRefused` where the kernel refused a setting that tunnels need.
    /// `RoutesResolved`: the next hops of all routes are known. `RoutesInstalled`: the kernel has taken them. `SessionsEstablished`: all peers are
    /// connected. `Drained`: a node that is drained has closed its sessions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schemas::conditions")]
    pub conditions: Vec<Condition>,
}

/// State of a node's pods and policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FelixState {
    /// `NetworkReady`: pods can be attached. `PolicySynced`: the kernel holds all policy. `AddressesOwned`: no pod has an address of
    /// another node. `AddressesAvailable`: the node's blocks have room.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schemas::conditions")]
    pub conditions: Vec<Condition>,
}

impl BgpState {
    /// Whether the node has a session in the state Established with a BGPPeer that selects it. One behind the end of a list that is cut
    /// off counts as down, as does everything that was not said.
    #[must_use]
    pub fn is_established(&self, peer: &str) -> bool {
        let Some(down) = &self.peers_down else { return false };
        let behind = down.len() >= PEERS_DOWN && down.last().is_some_and(|last| peer > last.as_str());
        !behind && !down.iter().any(|name| name == peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_up_only_if_that_follows_from_what_was_said() {
        let said = |down: Option<Vec<String>>| BgpState { peers_down: down, ..BgpState::default() };
        assert!(!said(None).is_established("tor"));
        assert!(said(Some(Vec::new())).is_established("tor"));
        assert!(!said(Some(vec!["tor".into()])).is_established("tor"));
        let many: Vec<String> = (0..PEERS_DOWN).map(|n| format!("m{n:02}")).collect();
        assert!(said(Some(many.clone())).is_established("a"));
        assert!(!said(Some(many)).is_established("tor"), "the list is cut off before it");
    }
}
