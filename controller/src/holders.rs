//! Addresses that are kept for a pod, and whose holder's node is gone: nobody there gives them up any more. In flows what is known and the time;
//! out flow reservations to be looked at once more, consistently, and freed of their holder.
//!
//! Whoever wants such addresses passes over the holder himself once its pod is gone and nothing is routed to its node; this is for a route of the
//! node's block that somebody else has or tells of by now, and for reservations that nobody asks for. A route for an address that still stands is
//! looked at by whoever takes it then.

use crate::exodus::exodus;
use crate::world::World;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use twill_crds::ip_reservation::Holder;
use twill_crds::{IPReservation, Object};
use twill_ipam::Quarantine;

/// What was observed of such holders.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Holders {
    quarantine: Quarantine,
    /// Those that were handed out to be freed: if one is still there, its time begins anew.
    tried: BTreeSet<String>,
}

impl Holders {
    /// None seen yet; `length` of the quarantine in milliseconds.
    #[must_use]
    pub fn new(length: u64) -> Self {
        // With none at all one look would do.
        Self { quarantine: Quarantine::new(length.max(1)), tried: BTreeSet::new() }
    }

    /// Takes in what there is now. Returns those whose node was gone for the whole time.
    pub fn observe(&mut self, world: &World, now: u64) -> Vec<IPReservation> {
        let silent: Vec<&str> =
            world.networks.iter().map(|(key, _)| key.name.as_str()).filter(|name| !world.has_node(name)).collect();
        let doubted = exodus(world.nodes.len(), &silent).is_some();
        let mut all = BTreeMap::new();
        for (_, reservation) in world.reservations.iter() {
            let Some(holder) = reservation.holder().filter(|holder| !world.has_node(&holder.node)) else { continue };
            let uid = reservation.meta().uid.as_deref().unwrap_or_default();
            let claimant = holder.claimant.as_deref().unwrap_or_default();
            all.insert(format!("{uid}/{}/{claimant}/{}", holder.node, holder.pod_uid), reservation);
        }
        let tried = std::mem::take(&mut self.tried);
        let mut left: BTreeMap<&str, Vec<IpNet>> = BTreeMap::new();
        for (_, block) in world.blocks.iter().filter(|(_, block)| !all.is_empty() && !world.has_node(&block.seen.node))
        {
            left.entry(&block.seen.node).or_default().push(block.cidr());
        }
        // A block around what he has is freed first: if his machine lives, it claims that again.
        let may_live = |one: &IPReservation| {
            let blocks_of = |holder: &Holder| left.get(holder.node.as_str());
            let holder = one.holder().and_then(|holder| Some((holder, blocks_of(holder)?)));
            holder.is_some_and(|(holder, blocks)| {
                blocks.iter().any(|block| holder.addresses.iter().any(|one| block.contains(one)))
            })
        };
        let used = |key: &String, one: &IPReservation| doubted || tried.contains(key) || may_live(one);
        let seen = all.iter().map(|(key, one)| (key.clone(), used(key, one))).collect();
        self.tried = self.quarantine.observe(now, &seen).into_iter().collect();
        self.tried.iter().filter_map(|key| Some((*all.get(key)?).clone())).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::world::Fact;
    use serde_json::json;
    use twill_datastore::{Followed, Revision};

    fn world(nodes: &[&str]) -> World {
        let mut world = World::default();
        let make = |name: &&str| serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        let revision = Revision(1);
        world.hear(Fact::node(Followed::Synced { items: nodes.iter().map(make).collect(), revision }));
        let one = json!({"apiVersion": "twill.network/v1", "kind": "IPReservation", "metadata": {"name": "db", "uid": "r"},
            "spec": {"addresses": ["10.0.0.7"], "pod": {"namespace": "shop", "name": "db-0"}},
            "status": {"holder": {"node": "n1", "podUID": "u", "addresses": ["10.0.0.7"]}}});
        let items = vec![serde_json::from_value(one).unwrap()];
        world.hear(Fact::Reservation(Followed::Synced { items, revision }));
        world
    }

    #[test]
    fn a_holder_is_freed_whose_node_was_gone_for_the_whole_time() {
        let (here, gone) = (world(&["n1", "n2"]), world(&["n2"]));
        let mut holders = Holders::new(100);
        assert!(holders.observe(&here, 0).is_empty());
        assert!(holders.observe(&gone, 50).is_empty());
        assert!(holders.observe(&gone, 149).is_empty());
        // Back for a moment is gone anew.
        assert!(holders.observe(&here, 149).is_empty());
        assert!(holders.observe(&gone, 150).is_empty());
        assert_eq!(holders.observe(&gone, 250).len(), 1);
        assert!(holders.observe(&gone, 251).is_empty(), "what could not be freed waits again");
        assert_eq!(holders.observe(&gone, 351).len(), 1);
    }

    #[test]
    fn a_holder_is_freed_only_the_whole_time_after_the_block_around_what_it_has() {
        let (mut world, mut holders) = (world(&["n2"]), Holders::new(100));
        let block = |cidr: &str, node: &str| {
            let block = json!({"apiVersion": "twill.network/v1", "kind": "IPBlock", "metadata": {"name": cidr.replace(['.', '/'], "-")},
                "spec": {"cidr": cidr, "node": node}});
            serde_json::from_value(block).unwrap()
        };
        let mut there = |blocks: &[(&str, &str)], now| {
            let items = blocks.iter().map(|(cidr, node)| block(cidr, node)).collect();
            world.hear(Fact::Block(Followed::Synced { items, revision: Revision(1) }));
            holders.observe(&world, now).len()
        };
        let others = [("10.0.0.64/26", "n1"), ("10.0.0.0/26", "n2")];
        assert_eq!([there(&others, 0), there(&others, 100)], [0, 1], "none of its node's is around it");
        let own = [("10.0.0.0/26", "n1")];
        assert_eq!(
            [there(&own, 200), there(&own, 300), there(&[], 301), there(&[], 399), there(&[], 400)],
            [0, 0, 0, 0, 1]
        );
    }
}
