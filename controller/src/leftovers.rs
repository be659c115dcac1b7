//! What should not be there, and is not the controller's to remove: blocks of no pool, and objects that something holds while they are
//! being deleted. It is said, once for all that are alike.

use crate::world::{Block, Version, World};
use ipnet::IpNet;
use std::collections::BTreeMap;
use twill_crds::Object;

/// How long an object may take to be deleted, in milliseconds.
const STUCK: u64 = 300_000;

/// Blocks that lie in no pool, by the node that has them. Their pods go on; nothing more is handed out of them.
#[must_use]
pub fn without_pool(world: &World) -> BTreeMap<&str, Vec<&Block>> {
    let pools: Vec<IpNet> = world.pools.iter().map(|(_, pool)| pool.spec.cidr).collect();
    let mut found: BTreeMap<&str, Vec<&Block>> = BTreeMap::new();
    for (_, block) in world.blocks.iter().filter(|(_, block)| !pools.iter().any(|pool| pool.contains(&block.cidr()))) {
        found.entry(&block.seen.node).or_default().push(block);
    }
    found
}

/// One sentence about all blocks of no pool.
#[must_use]
pub fn without_pool_sentence(found: &BTreeMap<&str, Vec<&Block>>) -> Option<String> {
    let count: usize = found.values().map(Vec::len).sum();
    let (node, first) = found.iter().next().and_then(|(node, blocks)| Some((node, blocks.first()?)))?;
    let others = if count > 1 { format!(", one of {count} such") } else { String::new() };
    Some(format!(
        "IPBlock {} of node {node}{others}, lies in no IPPool: pods keep their addresses, and nothing more is handed out; create a pool \
         around it, or delete the pods: then their node gives it back",
        first.cidr()
    ))
}

/// Objects that are being deleted, and since when that is known.
#[derive(Debug, Default)]
pub struct Deletions(BTreeMap<String, u64>);

impl Deletions {
    /// Takes in what there is now; one sentence for each object that has been held for long.
    pub fn observe(&mut self, world: &World, now: u64) -> Vec<String> {
        let held = held(world);
        self.0.retain(|what, _| held.contains_key(what));
        let mut stuck = Vec::new();
        for (what, by) in held {
            let since = self.0.entry(what.clone()).or_insert(now);
            if now.saturating_sub(*since) >= STUCK {
                let by = if by.is_empty() { "something".to_owned() } else { format!("finalizers {}", by.join(", ")) };
                stuck.push(format!("{what} is being deleted, and {by} holds it; see to whoever set that"));
            }
        }
        stuck
    }
}

/// What is being deleted, and by what it is held.
fn held(world: &World) -> BTreeMap<String, Vec<String>> {
    let held = |kind: &str, name: &dyn std::fmt::Display, version: &Version| {
        version.deleting.clone().map(|by| (format!("{kind} {name}"), by))
    };
    let blocks = world.blocks.iter().filter_map(|(_, block)| held("IPBlock", &block.cidr(), &block.version));
    let networks = world.networks.iter().filter_map(|(key, network)| held("NodeNetwork", &key.name, &network.version));
    let mut all: BTreeMap<String, Vec<String>> = blocks.chain(networks).collect();
    all.extend(world.pools.iter().filter_map(|(_, pool)| deleting("IPPool", pool)));
    all.extend(world.peers.iter().filter_map(|(_, peer)| deleting("BGPPeer", peer)));
    all
}

fn deleting<K: Object>(kind: &str, object: &K) -> Option<(String, Vec<String>)> {
    object.meta().deletion_timestamp.as_ref()?;
    Some((format!("{kind} {}", object.name()), object.meta().finalizers.clone().unwrap_or_default()))
}
