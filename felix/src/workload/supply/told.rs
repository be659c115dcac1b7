//! What the datastore tells about addresses: which pools count, and whose the blocks are.

use super::Supply;
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::IpAddr;
use twill_crds::node_address::internal_ips;
use twill_crds::{IPBlock, IPPool, ippool};
use twill_datastore::{Followed, Key};
use twill_ipam::Seen;
use twill_ipam::io::claimer::seen;

impl Supply {
    /// Takes in what is told about pools. Of pools that overlap, which no engine without an API server can refuse, the oldest
    /// counts. Tells whether anything changed.
    pub fn hear_pools(&mut self, followed: Followed<IPPool>) -> bool {
        if self.pools.apply(followed).is_empty() {
            return false;
        }
        let all: Vec<IPPool> = self.pools.iter().map(|(_, pool)| pool.as_ref().clone()).collect();
        let (accepted, rejected) = ippool::accepted(&all);
        self.rejected = rejected
            .into_iter()
            .map(|(pool, problem)| format!("IPPool {}: {problem}", pool.metadata.name.as_deref().unwrap_or_default()))
            .collect();
        self.accepted = accepted.into_iter().cloned().collect();
        true
    }

    /// The pools that count.
    #[must_use]
    pub fn pools(&self) -> &[IPPool] {
        &self.accepted
    }

    /// Why other pools do not count, one sentence each.
    #[must_use]
    pub fn rejected(&self) -> &[String] {
        &self.rejected
    }

    /// Whether a block is this machine's.
    #[must_use]
    pub fn owns(&self, block: &IPBlock) -> bool {
        self.owner.is(&block.spec.node, block.spec.claimant.as_deref())
    }

    /// This machine's blocks.
    #[must_use]
    pub fn own(&self) -> BTreeSet<IpNet> {
        self.blocks.iter().filter(|(_, block)| self.owns(block)).map(|(_, block)| block.spec.cidr).collect()
    }

    /// Blocks that bear this node's name, claimed by the store of another machine, or by one that was lost.
    pub fn namesakes(&self) -> impl Iterator<Item = &IPBlock> {
        let all = self.blocks.iter().map(|(_, block)| block.as_ref());
        all.filter(|block| block.spec.node == self.owner.node && !self.owns(block))
    }

    /// Own blocks that share addresses with somebody else's: nothing may be handed out of them.
    #[must_use]
    pub fn contested(&self) -> Vec<(IpNet, Seen)> {
        self.owner.contested(&self.seen())
    }

    /// All blocks, for a claim.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.blocks.iter().map(|(_, block)| seen(block)).collect()
    }

    /// Internal addresses of a node, first those by which it is known.
    #[must_use]
    pub fn node_addresses(&self, name: &str) -> Vec<IpAddr> {
        let chosen = self.chosen.get(name).map(Vec::as_slice).unwrap_or_default();
        self.nodes.get(&Key::cluster(name)).map(|node| internal_ips(node, chosen)).unwrap_or_default()
    }
}
