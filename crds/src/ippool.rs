//! IPPool, what addresses there are, and IPBlock, which node owns which part of them.

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A range of addresses for pods.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "twill.network",
    version = "v1",
    kind = "IPPool",
    plural = "ippools",
    status = "IPPoolStatus",
    shortname = "pool",
    category = "twill",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct IPPoolSpec {
    /// The range, e.g. `10.42.0.0/16` or `fd42::/48`. Immutable.
    #[schemars(with = "String")]
    pub cidr: IpNet,
    /// Prefix length of the blocks that nodes claim: 20 to 32 for IPv4 (default 26), 116 to 128 for IPv6 (default 122). Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_size: Option<u8>,
    /// How packets for this pool travel to another node.
    #[serde(default)]
    pub encapsulation: Encapsulation,
    /// Whether packets from this pool to outside every pool carry the node's address.
    #[serde(default)]
    pub nat_outgoing: bool,
    /// Nodes that may claim blocks of this pool; absent or empty: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// Namespaces whose pods may have addresses of this pool; absent or empty: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// No new address is handed out; those in use stay.
    #[serde(default)]
    pub disabled: bool,
}

impl IPPoolSpec {
    /// Prefix length of this pool's blocks: the field, or the default of the family.
    #[must_use]
    pub fn block_prefix_len(&self) -> u8 {
        self.block_size.unwrap_or(match self.cidr {
            IpNet::V4(_) => 26,
            IpNet::V6(_) => 122,
        })
    }
}

/// Encapsulation of a pool's packets between nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Encapsulation {
    /// The tunnel protocol.
    #[serde(default)]
    pub protocol: Protocol,
    /// When the tunnel is used; meaningless with protocol `None`.
    #[serde(default)]
    pub when: When,
}

/// A tunnel protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    /// Plain routing always.
    #[default]
    None,
    /// IP-in-IP, RFC 2003; IPv4 pools only.
    IPIP,
    /// VXLAN, RFC 7348.
    VXLAN,
}

/// When a tunnel is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum When {
    /// Only if the next hop is not on a connected subnet.
    #[default]
    CrossSubnet,
    /// To every other node.
    Always,
}

/// Observed state of a pool, written by the controller.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IPPoolStatus {
    /// `Accepted`, `Ready`, `NearlyFull`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A part of a pool that one node owns for life. Creating the object is the claim.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "twill.network",
    version = "v1",
    kind = "IPBlock",
    plural = "ipblocks",
    status = "IPBlockStatus",
    category = "twill",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct IPBlockSpec {
    /// The block's range; the object's name is this with dots, colons and the slash as dashes. Immutable.
    #[schemars(with = "String")]
    pub cidr: IpNet,
    /// Name of the Node that owns the block. Immutable.
    pub node: String,
}

/// Checkpoint of a block's use, written by its node now and then, never per pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IPBlockStatus {
    /// Addresses in use when the checkpoint was written.
    #[serde(default)]
    pub used: u32,
}
