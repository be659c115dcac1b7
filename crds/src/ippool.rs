//! IPPool, what addresses there are, and IPBlock, which node owns which part of them.

use crate::validate::pool;
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
    /// Identity of the store of addresses that claimed the block: another machine that is registered under the node's name is not its
    /// owner. Left out: whoever has the name. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimant: Option<String>,
}

/// Checkpoint of a block's use, written by its node now and then, never per pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IPBlockStatus {
    /// Addresses in use when the checkpoint was written.
    #[serde(default)]
    pub used: u32,
}

/// Which pools count where an engine could not refuse the others: valid in themselves, and of those that overlap the
/// oldest (`creationTimestamp`, then name). The second list is the rest, each with the reason in one sentence. Both are in
/// that order, whatever the order of `pools`.
#[must_use]
pub fn accepted(pools: &[IPPool]) -> (Vec<&IPPool>, Vec<(&IPPool, String)>) {
    let mut by_age: Vec<&IPPool> = pools.iter().collect();
    // An object without time was never stored, so it is the youngest.
    by_age.sort_by_key(|pool| {
        let time = pool.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (time.is_none(), time, pool.metadata.name.as_deref())
    });
    let (mut accepted, mut rejected) = (Vec::<&IPPool>::new(), Vec::new());
    for candidate in by_age {
        let overlapping = accepted.iter().find(|other| pool::overlap(other.spec.cidr, candidate.spec.cidr));
        match (pool::spec(&candidate.spec), overlapping) {
            (Err(problem), _) => rejected.push((candidate, format!("{}: {}", problem.field, problem.problem))),
            (Ok(()), Some(older)) => rejected.push((candidate, pool::overlaps(candidate, older))),
            (Ok(()), None) => accepted.push(candidate),
        }
    }
    (accepted, rejected)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn make(name: &str, cidr: &str, second: u32) -> IPPool {
        serde_json::from_value(json!({
            "apiVersion": "twill.network/v1", "kind": "IPPool", "spec": {"cidr": cidr},
            "metadata": {"name": name, "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")}
        }))
        .unwrap()
    }

    fn names(pools: &[IPPool]) -> (Vec<String>, Vec<String>) {
        let name = |pool: &IPPool| pool.metadata.name.clone().unwrap();
        let (accepted, rejected) = accepted(pools);
        (accepted.into_iter().map(name).collect(), rejected.into_iter().map(|(pool, _)| name(pool)).collect())
    }

    #[test]
    fn the_oldest_wins_then_the_first_by_name() {
        let pools = [
            make("young", "10.0.0.0/24", 9),
            make("b", "10.0.0.0/16", 5),
            make("a", "10.0.0.0/17", 5),
            make("odd", "10.9.0.1/16", 1),
            make("other", "10.1.0.0/16", 7),
        ];
        let (yes, no) = names(&pools);
        assert_eq!((yes, no), (vec!["a".into(), "other".into()], vec!["odd".into(), "b".into(), "young".into()]));
        let (_, rejected) = accepted(&pools);
        assert!(rejected[1].1.contains("10.0.0.0/16 overlaps IPPool a (10.0.0.0/17)"), "{}", rejected[1].1);
    }

    proptest! {
        #[test]
        fn the_answer_does_not_depend_on_the_order_and_no_two_overlap(
            mut specs in prop::collection::vec((0u8..4, 22u8..27, 0u32..3), 0..8), seed: u64,
        ) {
            let make_all = |specs: &[(u8, u8, u32)]| -> Vec<IPPool> {
                specs.iter().map(|(third, len, second)| {
                    let cidr: IpNet = format!("10.0.{third}.0/{len}").parse().unwrap();
                    make(&format!("p{third}-{len}-{second}"), &cidr.trunc().to_string(), *second)
                }).collect()
            };
            specs.sort_unstable();
            specs.dedup();
            let first = names(&make_all(&specs));
            let turn = (seed as usize) % specs.len().max(1);
            specs.rotate_left(turn);
            if seed % 2 == 0 { specs.reverse(); }
            let pools = make_all(&specs);
            prop_assert_eq!(names(&pools), first);
            let (accepted, rejected) = accepted(&pools);
            for (n, a) in accepted.iter().enumerate() {
                prop_assert!(accepted[..n].iter().all(|b| !pool::overlap(a.spec.cidr, b.spec.cidr)));
            }
            for (pool, _) in &rejected {
                prop_assert!(accepted.iter().any(|a| pool::overlap(a.spec.cidr, pool.spec.cidr)));
            }
        }
    }
}
