//! The status of each pool: how much of it is claimed and used, whether nodes can claim more, and who holds what nobody uses.

use crate::conditions::{Judged, conditions};
use crate::world::World;
use ipnet::IpNet;
use jiff::Timestamp;
use std::collections::BTreeMap;
use twill_crds::ippool::{IPPoolStatus, PoolAddresses, PoolBlocks, accepted};
use twill_crds::{IPPool, Object, selector};
use twill_ipam::{Seen, full, range};

/// A pool is nearly full when less than one in so many of its blocks is left.
const FEW: i64 = 10;

/// The status that each pool should have, by name; the times of conditions that stay are those of the stored ones.
#[must_use]
pub fn statuses(world: &World, now: Timestamp) -> BTreeMap<String, IPPoolStatus> {
    let pools: Vec<IPPool> = world.pools.iter().map(|(_, pool)| pool.clone()).collect();
    let (accepted, rejected) = accepted(&pools);
    let blocks = Blocks::new(world);
    let rejected = rejected.into_iter().map(|(pool, why)| (pool, Some(why)));
    accepted
        .into_iter()
        .map(|pool| (pool, None))
        .chain(rejected)
        .map(|(pool, why)| (pool.name().to_owned(), status(world, pool, why, &blocks, now)))
        .collect()
}

fn status(world: &World, pool: &IPPool, rejected: Option<String>, blocks: &Blocks<'_>, now: Timestamp) -> IPPoolStatus {
    let inside = blocks.inside(pool.spec.cidr);
    let total = pool.spec.block_count();
    let claimed = u32::try_from(inside.len()).unwrap_or(u32::MAX);
    let used = inside.iter().map(|(_, seen)| i64::from(seen.used.unwrap_or_default())).sum();
    let left = total.saturating_sub(claimed.into()).max(0);
    let use_of = Use { total, claimed, left, inside };
    let judged = [
        accepts(rejected.as_deref()),
        ready(world, pool, rejected.is_some(), &use_of),
        nearly_full(world, pool, &use_of),
    ];
    let old = pool.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    IPPoolStatus {
        conditions: conditions(&judged, old, pool.metadata.generation, now),
        blocks: PoolBlocks { total, claimed },
        addresses: PoolAddresses { used },
    }
}

/// How much of a pool is claimed.
struct Use<'a> {
    total: i64,
    claimed: u32,
    left: i64,
    inside: &'a [((bool, u128), &'a Seen)],
}

fn accepts(rejected: Option<&str>) -> Judged {
    match rejected {
        None => Judged::new("Accepted", true, "Valid", ""),
        Some(why) => Judged::new("Accepted", false, "Rejected", why),
    }
}

fn ready(world: &World, pool: &IPPool, rejected: bool, use_of: &Use<'_>) -> Judged {
    let no = |reason, message: String| Judged::new("Ready", false, reason, message);
    if rejected {
        return no("Rejected", "it does not count while it is not accepted".to_owned());
    }
    if pool.spec.disabled {
        return no("Disabled", "spec.disabled: pods keep their addresses, and no node claims a block".to_owned());
    }
    let nodes = world.nodes.iter();
    if !nodes.into_iter().any(|(_, node)| selector::matches_or_absent(pool.spec.node_selector.as_ref(), &node.labels)) {
        return no("NoNode", format!("spec.nodeSelector selects none of the {} nodes", world.nodes.len()));
    }
    if use_of.left == 0 {
        return no("Full", full(pool, use_of).to_string());
    }
    Judged::new("Ready", true, "BlocksLeft", "")
}

fn nearly_full(world: &World, pool: &IPPool, use_of: &Use<'_>) -> Judged {
    if i128::from(use_of.left) * i128::from(FEW) >= i128::from(use_of.total) {
        return Judged::new("NearlyFull", false, "BlocksLeft", "");
    }
    let mut message = format!("{} of {} blocks are left to claim; idle ones are held by ", use_of.left, use_of.total);
    let idle: Vec<String> =
        full(pool, use_of).idle.iter().map(|(node, idle, all)| format!("{node} ({idle} of its {all})")).collect();
    message.push_str(if idle.is_empty() { "nobody" } else { "" });
    message.push_str(&idle.join(", "));
    let gone = use_of.inside.iter().filter(|(_, seen)| !world.has_node(&seen.node)).count();
    if gone > 0 {
        message.push_str(&format!("; {gone} of nodes that are gone will be freed"));
    }
    message.push_str("; add an IPPool before it is full");
    Judged::new("NearlyFull", true, "FewBlocksLeft", message)
}

fn full(pool: &IPPool, use_of: &Use<'_>) -> twill_ipam::PoolFull {
    let known: Vec<Seen> = use_of.inside.iter().map(|(_, seen)| (*seen).clone()).collect();
    let mut full = full::full(pool.name(), pool.spec.cidr, pool.spec.block_prefix_len(), &known);
    full.taken = use_of.claimed.into();
    full
}

/// All blocks in the order of their addresses.
struct Blocks<'a>(Vec<((bool, u128), &'a Seen)>);

impl<'a> Blocks<'a> {
    fn new(world: &'a World) -> Self {
        let mut all: Vec<_> = world.blocks.iter().map(|(_, block)| (place(block.cidr()).0, &block.seen)).collect();
        all.sort_by_key(|(place, _)| *place);
        Self(all)
    }

    /// Those that begin inside a range. One that is larger than its pool, whose sizes had to be changed by hand for that, does not count.
    fn inside(&self, cidr: IpNet) -> &[((bool, u128), &'a Seen)] {
        let (first, last) = place(cidr);
        let from = self.0.partition_point(|(place, _)| *place < first);
        let to = self.0.partition_point(|(place, _)| *place <= last);
        &self.0[from..to]
    }
}

/// First and last address of a range, IPv4 before IPv6.
fn place(cidr: IpNet) -> ((bool, u128), (bool, u128)) {
    let v6 = matches!(cidr, IpNet::V6(_));
    let (first, last) = range::span(cidr);
    ((v6, first), (v6, last))
}
