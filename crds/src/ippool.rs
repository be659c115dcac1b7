//! IPPool, what addresses there are, and IPBlock, which node owns which part of them.

use crate::definitions::schemas;
use crate::validate::pool;
use crate::written;
use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// What an operator wants of a range of addresses for pods.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "twill.network",
    version = "v1",
    kind = "IPPool",
    plural = "ippools",
    status = "IPPoolStatus",
    shortname = "pool",
    category = "twill",
    derive = "PartialEq",
    doc = "IPPool is a range of addresses for pods. Nodes claim blocks of it and give their pods addresses from these. No two pools overlap."
)]
#[serde(rename_all = "camelCase")]
#[schemars(description = "What the pool is. The range and the size of its blocks are fixed when it is created.")]
pub struct IPPoolSpec {
    /// The range, such as `10.42.0.0/16` or `fd42::/48`. It cannot change: to move to another range, create a second pool and disable
    /// this one.
    #[serde(deserialize_with = "written::range")]
    #[schemars(schema_with = "schemas::range")]
    pub cidr: IpNet,
    /// Prefix length of the blocks that nodes claim: 20 to 32 in an IPv4 pool, 116 to 128 in an IPv6 pool. Left out, it is 26 for IPv4
    /// and 122 for IPv6, which is 64 addresses. It cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 20, max = 128))]
    pub block_size: Option<u8>,
    /// How packets to addresses of this pool travel between nodes. By default they are routed as they are.
    #[serde(default)]
    pub encapsulation: Encapsulation,
    /// Whether packets that pods of this pool send to addresses outside of all pools carry the node's address as their source; by default
    /// false. Set it where nothing outside has a route to the pods.
    #[serde(default)]
    pub nat_outgoing: bool,
    /// Selects, by label, the nodes that may claim blocks of this pool. Left out or empty, all nodes may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schemas::selector")]
    pub node_selector: Option<LabelSelector>,
    /// Selects, by label, the namespaces whose pods may have addresses of this pool. Left out or empty, all may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schemas::selector")]
    pub namespace_selector: Option<LabelSelector>,
    /// Whether the pool gives no new addresses; by default false. Pods keep those that they have.
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

    /// How many blocks the range has room for; [`i64::MAX`], the greatest number that an API server stores, stands for more.
    #[must_use]
    pub fn block_count(&self) -> i64 {
        let bits = self.block_prefix_len().saturating_sub(self.cidr.prefix_len());
        1_i64.checked_shl(bits.into()).filter(|count| *count > 0).unwrap_or(i64::MAX)
    }
}

/// Encapsulation of a pool's packets between nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Encapsulation {
    /// The tunnel protocol. `None`, the default, routes packets as they are, always. `IPIP` wraps them in another IPv4 header (RFC 2003)
    /// and is for IPv4 pools only. `VXLAN` wraps them in UDP (RFC 7348).
    #[serde(default)]
    pub protocol: Protocol,
    /// When the tunnel is used. `CrossSubnet`, the default, uses it only where the other node is not on a subnet that this node is
    /// connected to. `Always` uses it to every other node. It means nothing where the protocol is `None`.
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

/// What the controller last saw of the pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IPPoolStatus {
    /// `Accepted`: the pool is valid and overlaps no older one. `Ready`: nodes can claim blocks of it. `NearlyFull`: few blocks are
    /// left to claim.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schemas::conditions")]
    pub conditions: Vec<Condition>,
    /// How many blocks the pool has.
    #[serde(default)]
    pub blocks: PoolBlocks,
    /// How many addresses of the pool are in use.
    #[serde(default)]
    pub addresses: PoolAddresses,
}

/// Blocks of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolBlocks {
    /// Blocks that the range has room for. 9223372036854775807 stands for that many and more.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub total: i64,
    /// Of those, blocks that nodes have claimed.
    #[serde(default)]
    pub claimed: u32,
}

/// Addresses of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolAddresses {
    /// Addresses in use, as the nodes last wrote it into their blocks.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub used: i64,
}

/// What a claim of a block says. Creating the object is the claim.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "twill.network",
    version = "v1",
    kind = "IPBlock",
    plural = "ipblocks",
    status = "IPBlockStatus",
    shortname = "block",
    category = "twill",
    derive = "PartialEq",
    selectable = ".spec.node",
    doc = "IPBlock is a part of an IPPool that one node owns for life. Nodes create and delete these objects; operators read them."
)]
#[serde(rename_all = "camelCase")]
#[schemars(
    description = "Who owns which addresses. Nothing of it can change: a node releases a block by deleting the object."
)]
pub struct IPBlockSpec {
    /// The block's range. The object's name is this range with dots, colons and the slash as dashes.
    #[serde(deserialize_with = "written::range")]
    #[schemars(schema_with = "schemas::range")]
    pub cidr: IpNet,
    /// Name of the Node that owns the block.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// Identity of the machine that claimed the block, so that another machine that is registered under the same name is not taken for
    /// its owner. Left out, the block is of whichever machine has the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub claimant: Option<String>,
}

/// What the block's node writes of its use now and then, never per pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IPBlockStatus {
    /// Addresses that were in use when the node last wrote this. It is written now and then, not for every pod.
    #[serde(default)]
    pub used: u32,
    /// Whether the node is about to give the block back: nothing of it is handed out any more, and its route is being withdrawn. The node
    /// may still take that back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub releasing: bool,
}

impl IPBlock {
    /// Whether its node is about to give it back.
    #[must_use]
    pub fn is_releasing(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.releasing)
    }
}

/// Blocks in the order in which they were claimed: the oldest first.
pub fn sort_by_age(blocks: &mut [&IPBlock]) {
    blocks.sort_by_key(|block| {
        let time = block.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (time.is_none(), time, block.spec.cidr)
    });
}

/// The addresses from which a node itself sends to pods behind a tunnel, of each family at most one: ordinal 0 of the oldest of its blocks that it
/// does not give back.
#[must_use]
pub fn tunnel_addresses<'a>(blocks: impl IntoIterator<Item = &'a IPBlock>) -> Vec<IpAddr> {
    let mut blocks: Vec<&IPBlock> = blocks.into_iter().filter(|block| !block.is_releasing()).collect();
    sort_by_age(&mut blocks);
    let oldest = |v6| blocks.iter().map(|block| block.spec.cidr.network()).find(|address| address.is_ipv6() == v6);
    [false, true].into_iter().filter_map(oldest).collect()
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

    #[test]
    fn a_node_sends_into_tunnels_from_its_oldest_blocks_of_both_families() {
        let block = |cidr: &str, second: Option<u32>, releasing: bool| -> IPBlock {
            let time = second.map(|second| format!("2026-01-01T00:00:{second:02}Z"));
            serde_json::from_value(json!({
                "apiVersion": "twill.network/v1", "kind": "IPBlock", "spec": {"cidr": cidr, "node": "n1"},
                "metadata": {"name": "b", "creationTimestamp": time}, "status": {"releasing": releasing}
            }))
            .unwrap()
        };
        let blocks = [
            block("10.42.0.0/26", None, false),
            block("10.42.3.0/26", Some(3), false),
            block("10.42.2.0/26", Some(2), false),
            block("10.42.1.0/26", Some(1), true),
            block("fd42::40/122", Some(9), false),
        ];
        let addresses: Vec<String> = tunnel_addresses(&blocks).iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.42.2.0", "fd42::40"]);
    }
}
