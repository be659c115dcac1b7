//! The datastore, as far as addresses depend on it, and who has changed what.

use crate::reservation::Reservations;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;
use twill_ipam::Seen;

/// Names of nodes by their number.
pub const NAMES: [&str; 3] = ["a", "b", "c"];

/// An IPBlock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stored {
    pub seen: Seen,
    /// How often this range had been claimed before: its UID.
    pub uid: u16,
    pub revision: u16,
    pub releasing: bool,
}

impl Stored {
    /// This state of the object.
    pub fn version(&self) -> Version {
        Version { cidr: self.seen.cidr, uid: self.uid, revision: self.revision }
    }
}

/// One state of a block, as a precondition names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    pub cidr: IpNet,
    pub uid: u16,
    pub revision: u16,
}

/// A Pod that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PodObject {
    /// Number of the node's name.
    pub node: usize,
    /// As its status says.
    pub address: Option<IpAddr>,
    /// Number of its name, if an address may be kept for it: there is one of that name at a time.
    pub name: Option<u8>,
}

/// All objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cluster {
    /// Nodes that are registered, by the number of their name, with a UID.
    pub nodes: BTreeMap<usize, u16>,
    pub blocks: BTreeMap<IpNet, Stored>,
    pub pods: BTreeMap<u8, PodObject>,
    pub reservations: Reservations,
    /// Prefix length of the pool's blocks.
    pub block_len: u8,
    claims: BTreeMap<IpNet, u16>,
    registrations: u16,
}

impl Cluster {
    pub fn seen(&self) -> Vec<Seen> {
        self.blocks.values().map(|stored| stored.seen.clone()).collect()
    }

    /// What the controller hears.
    #[must_use]
    pub fn without_pods(&self) -> Self {
        let (nodes, blocks, reservations) = (self.nodes.clone(), self.blocks.clone(), self.reservations.clone());
        Self { nodes, blocks, reservations, ..Self::default() }
    }

    /// What matters of all to the machines of this name.
    #[must_use]
    pub fn for_node(&self, name: usize) -> Self {
        Self {
            nodes: self.nodes.iter().filter(|(node, _)| **node == name).map(|(node, uid)| (*node, *uid)).collect(),
            blocks: self.blocks.clone(),
            pods: self.concerning(name).map(|(pod, object)| (*pod, *object)).collect(),
            reservations: self.reservations.clone(),
            block_len: self.block_len,
            ..Self::default()
        }
    }

    /// Pods of this node, and those that have addresses which reservations are about.
    pub fn concerning(&self, name: usize) -> impl Iterator<Item = (&u8, &PodObject)> {
        let kept = |pod: &PodObject| pod.address.is_some_and(|address| self.reservations.concern(address));
        self.pods.iter().filter(move |(_, pod)| pod.node == name || kept(pod))
    }

    pub fn register(&mut self, node: usize) {
        self.registrations += 1;
        self.nodes.insert(node, self.registrations);
    }

    /// Creates a block; none if its name is taken.
    pub fn create(&mut self, seen: Seen) -> Option<Version> {
        if self.blocks.contains_key(&seen.cidr) {
            return None;
        }
        let uid = self.claims.entry(seen.cidr).or_insert(0);
        *uid += 1;
        let stored = Stored { uid: *uid, revision: 1, releasing: false, seen };
        let version = stored.version();
        self.blocks.insert(version.cidr, stored);
        Some(version)
    }

    /// Deletes a block if it is still as it was seen.
    pub fn delete(&mut self, version: Version) -> bool {
        let same = self.blocks.get(&version.cidr).is_some_and(|stored| stored.version() == version);
        same && self.blocks.remove(&version.cidr).is_some()
    }

    /// Writes a block's status if it is still as it was seen.
    pub fn mark(&mut self, version: Version, releasing: bool) {
        if let Some(stored) = self.blocks.get_mut(&version.cidr).filter(|stored| stored.version() == version) {
            stored.releasing = releasing;
            stored.revision += 1;
        }
    }

    /// Whether a pod's status has an address inside.
    pub fn tells(&self, cidr: IpNet) -> bool {
        self.pods.values().filter_map(|pod| pod.address).any(|address| cidr.contains(&address))
    }
}
