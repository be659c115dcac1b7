//! Workloads with addresses outside of this node's blocks: reserved ones that moved here, or those of a block that is not its any more. In flow
//! felix's host routes and the configuration; out flow the prefixes that this node tells beside its blocks, as long as such a route is there.

use super::Config;
use super::world::World;
use ipnet::IpNet;
use std::collections::BTreeSet;
use twill_crds::names::WORKLOAD_PREFIX;

/// A route of felix's to one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostRoute {
    /// The address.
    pub net: IpNet,
    /// Index of its link.
    pub link: u32,
}

/// What is told of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    /// One prefix per address.
    pub prefixes: BTreeSet<IpNet>,
    /// Whether these are all, by the whole configuration.
    pub complete: bool,
}

impl Hosts {
    /// By what the kernel has, and where pools and this node's blocks are.
    #[must_use]
    pub fn of(config: &Config, world: &World) -> Self {
        let is_workload = |link: u32| world.links.get(&link).is_some_and(|link| link.name.starts_with(WORKLOAD_PREFIX));
        let told = world.hosts.iter().filter(|route| is_outside(config, route.net) && is_workload(route.link));
        Self { prefixes: told.map(|route| route.net).collect(), complete: config.complete }
    }
}

/// Whether an address lies in a pool, and in no block of this node.
#[must_use]
pub fn is_outside(config: &Config, net: IpNet) -> bool {
    config.pools.iter().any(|pool| pool.cidr.contains(&net)) && !config.own.iter().any(|block| block.contains(&net))
}
