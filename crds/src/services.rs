//! Addresses of Services that nodes tell their peers.

use crate::definitions::schemas;
use crate::written;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Annotation, or label, of a Service: with the value `false` none of its addresses is told to peers, unless an older Service has it.
pub const ADVERTISE: &str = "twill.network/advertise";

/// Ranges of each kind of address that a Service can have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceRanges {
    /// Ranges of cluster addresses, at most 32: what the API server has as `--service-cluster-ip-range`.
    #[serde(rename = "clusterIPs", skip_serializing_if = "Vec::is_empty", deserialize_with = "written::ranges")]
    #[schemars(schema_with = "schemas::ranges")]
    pub cluster_ips: Vec<IpNet>,
    /// Ranges of external addresses (`spec.externalIPs` of a Service), at most 32.
    #[serde(rename = "externalIPs", skip_serializing_if = "Vec::is_empty", deserialize_with = "written::ranges")]
    #[schemars(schema_with = "schemas::ranges")]
    pub external_ips: Vec<IpNet>,
    /// Ranges of load balancers' addresses (`status.loadBalancer.ingress` of a Service), at most 32. Twill gives Services no addresses.
    #[serde(rename = "loadBalancerIPs", skip_serializing_if = "Vec::is_empty", deserialize_with = "written::ranges")]
    #[schemars(schema_with = "schemas::ranges")]
    pub load_balancer_ips: Vec<IpNet>,
}

impl ServiceRanges {
    /// Whether none is told.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }

    /// All ranges with the names of their fields.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, IpNet)> {
        let lists = [
            ("clusterIPs", &self.cluster_ips),
            ("externalIPs", &self.external_ips),
            ("loadBalancerIPs", &self.load_balancer_ips),
        ];
        lists.into_iter().flat_map(|(field, ranges)| ranges.iter().map(move |range| (field, *range)))
    }

    /// Why a range cannot be one of Services, if it cannot: it overlaps a pool, or holds a node's address. Both by name.
    pub fn conflict<'a>(
        range: IpNet,
        pools: impl IntoIterator<Item = (&'a str, IpNet)>,
        nodes: impl IntoIterator<Item = (&'a str, IpAddr)>,
    ) -> Option<String> {
        let overlaps = |net: &IpNet| net.contains(&range) || range.contains(net);
        if let Some((pool, cidr)) = pools.into_iter().find(|(_, cidr)| overlaps(cidr)) {
            return Some(format!("overlaps {cidr} of IPPool {pool}, so it is not advertised; leave it out"));
        }
        let (node, address) = nodes.into_iter().find(|(_, address)| range.contains(address))?;
        Some(format!("holds {address} of Node {node}, so it is not advertised; leave it out"))
    }
}
