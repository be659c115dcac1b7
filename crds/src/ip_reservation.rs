//! IPReservation: addresses that are not handed out.

use crate::definitions::schemas;
use crate::written;
use ipnet::IpNet;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Addresses that pods do not get.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "twill.network",
    version = "v1",
    kind = "IPReservation",
    plural = "ipreservations",
    shortname = "ipres",
    category = "twill",
    derive = "PartialEq",
    doc = "IPReservation keeps addresses of IPPools from being handed out to pods."
)]
#[serde(rename_all = "camelCase")]
#[schemars(description = "Which addresses are reserved.")]
pub struct IPReservationSpec {
    /// Ranges of addresses, such as `10.42.0.0/28`, `10.42.3.7/32` or `fd42::/48`, at most 64, of which no pod gets an address, whether by
    /// itself or because it was asked for. A pod that has one already keeps it until it ends. They may lie in any pool, or in none.
    #[serde(
        rename = "reservedCIDRs",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "written::ranges"
    )]
    #[schemars(schema_with = "schemas::reserved_ranges")]
    pub reserved_cidrs: Vec<IpNet>,
}
