//! BGPConfiguration, what all nodes share, and BGPPeer, with whom they speak beyond that.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
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
    /// AS of the nodes: a number, or `{nodeLabel: KEY}`, so that nodes of a rack, or every node, have their own; default 64512.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asn: Option<NodeAsn>,
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

/// Where the AS of a node comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum NodeAsn {
    /// All nodes have this one.
    Number(u32),
    /// Each node has the number that its label says.
    Label(AsnLabel),
}

/// The label that says a node's AS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AsnLabel {
    /// Key of the label; its value is the AS number in decimal.
    pub node_label: String,
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
