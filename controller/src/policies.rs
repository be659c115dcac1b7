//! NetworkPolicies that cannot be put into force as they are written. Each node's felix finds the same; one event on the policy says it
//! once, and how many nodes have their policy in force.

use crate::world::World;
use twill_datastore::Key;

/// How many nodes there are, and of how many the kernel holds all policy, as far as they are heard of.
#[must_use]
pub fn in_force(world: &World) -> (usize, usize) {
    let holds = |key: &Key| world.networks.get(key).and_then(|network| network.policy);
    let synced = world.nodes.iter().filter(|(key, node)| !node.silent && holds(key) == Some(true)).count();
    (synced, world.nodes.len())
}

/// What is to be said: policy, its UID, sentence.
#[must_use]
pub fn problems(world: &World) -> Vec<(Key, String, String)> {
    let all = world.policies.iter().filter(|(_, policy)| !policy.problems.is_empty());
    all.map(|(key, policy)| (key.clone(), policy.uid.clone(), policy.problems.join("; "))).collect()
}
