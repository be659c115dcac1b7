//! The kernel's routes as this speaker means them.
//!
//! In flow what the RIB chose ([`Change`]), what the cluster or the file says ([`Config`]) and what the kernel
//! has; out flow desired tunnel devices, neighbours and routes, their difference to the kernel's, and a sentence for
//! everything that cannot be installed; and which workloads have addresses outside of our blocks ([`Hosts`]). This module is pure; [`crate::io::netlink`] reads and writes the
//! kernel on a thread of its own, which the [`Fib`] handle feeds.

mod address;
mod ends;
mod handle;
pub mod hosts;
pub mod offload;
pub mod outer;
mod raises;
mod refusals;
pub mod resolve;
pub mod route;
pub mod table;
pub mod tunnel;
pub mod uplinks;
pub mod world;

pub use ends::{End, Ends};
pub use handle::{Command, Condition, Feedback, Fib, HopState, Problem, Reach, RouteState, Status, Waiting};
pub use hosts::Hosts;

use crate::scoped::ScopedAddr;
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use twill_crds::{ChecksumOffload, Encapsulation};

/// What the RIB decided for one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The prefix.
    pub prefix: IpNet,
    /// Next hops of the chosen paths, several with ECMP; empty when the prefix is withdrawn. Never our own prefixes:
    /// those come by [`Config::own`].
    pub next_hops: Vec<ScopedAddr>,
}

/// All that decides, beside the RIB, what goes into the kernel. A new one replaces the old as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whether anything is written to the kernel at all.
    pub install: bool,
    /// A router without a cluster: learned default routes count, nothing is encapsulated, and no device is made.
    pub alone: bool,
    /// Whether this is all that there is: false while it comes from a snapshot of an earlier run; nothing is removed
    /// from the kernel on its word then.
    pub complete: bool,
    /// Prefixes of our own that get an unreachable route: this node's blocks.
    pub own: BTreeSet<IpNet>,
    /// Ranges of Services, which every node handles itself: no learned route leads into them.
    pub services: Vec<IpNet>,
    /// Pools, none overlapping another.
    pub pools: Vec<Pool>,
    /// The other nodes.
    pub nodes: Vec<NodeAddresses>,
    /// Addresses of peers that are not nodes; no learned route may cover them.
    pub peers: BTreeSet<IpAddr>,
    /// This node's own addresses, the outer sources of tunnels.
    pub local: NodeAddresses,
    /// All addresses by which this node could be known, in the order of its Node.
    pub candidates: Vec<IpAddr>,
    /// Inner source towards pods through a tunnel, of each family at most one; also an address of the tunnel devices.
    pub tunnel_sources: Vec<IpAddr>,
    /// Routing table.
    pub table: u32,
    /// `rtm_protocol` of everything written.
    pub protocol: u8,
    /// Metric of learned routes.
    pub metric: u32,
    /// UDP port of VXLAN.
    pub vxlan_port: u16,
    /// What becomes of checksum offload on the tunnel devices.
    pub checksum_offload: ChecksumOffload,
    /// Where it is known not to work.
    pub offload_faults: &'static [offload::Fault],
}

impl Default for Config {
    /// A lone speaker that installs nothing.
    fn default() -> Self {
        Self {
            install: false,
            alone: true,
            complete: true,
            own: BTreeSet::new(),
            services: Vec::new(),
            pools: Vec::new(),
            nodes: Vec::new(),
            peers: BTreeSet::new(),
            local: NodeAddresses::default(),
            candidates: Vec::new(),
            tunnel_sources: Vec::new(),
            table: 254,
            protocol: twill_crds::names::RTPROT_BGPD,
            metric: twill_crds::names::METRIC_LEARNED,
            vxlan_port: twill_crds::names::VXLAN_PORT,
            checksum_offload: ChecksumOffload::default(),
            offload_faults: offload::KNOWN,
        }
    }
}

/// A pool as far as routes are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Name of the IPPool.
    pub name: String,
    /// Its range.
    pub cidr: IpNet,
    /// How its packets travel between nodes.
    pub encapsulation: Encapsulation,
}

/// Addresses of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeAddresses {
    /// Name of the Node.
    pub name: String,
    /// Its IPv4 address: session and outer tunnel address.
    pub v4: Option<Ipv4Addr>,
    /// Its global IPv6 address: next hop of its IPv6 prefixes, and outer tunnel address towards nodes without an IPv4 one.
    pub v6: Option<Ipv6Addr>,
}

impl NodeAddresses {
    /// Both.
    pub fn all(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
