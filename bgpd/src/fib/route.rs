//! Routes as the kernel is told them and tells them back, in one normal form.

use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;
use twill_crds::Protocol;
use twill_crds::names::{IPIP_DEVICE, VXLAN_DEVICE};

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Forward {
    /// ICMP unreachable.
    Unreachable,
    /// To one or several next hops.
    Unicast {
        /// Sorted, without repetition.
        hops: Vec<Hop>,
        /// MTU of the route where it differs from the link's.
        mtu: Option<u32>,
        /// Preferred source (RTA_PREFSRC).
        source: Option<IpAddr>,
    },
}

impl Forward {
    /// Gateways without a tunnel, by link.
    pub fn neighbours(&self) -> impl Iterator<Item = (u32, IpAddr)> + '_ {
        let hops: &[Hop] = match self {
            Self::Unreachable => &[],
            Self::Unicast { hops, .. } => hops.as_slice(),
        };
        hops.iter().filter(|hop| hop.tunnel.is_none()).filter_map(|hop| Some((hop.link, hop.gateway?)))
    }

    /// Whether it leads through a tunnel.
    #[must_use]
    pub fn is_tunnelled(&self) -> bool {
        matches!(self, Self::Unicast { hops, .. } if hops.iter().any(|hop| hop.tunnel.is_some()))
    }
}

/// One next hop of a route.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hop {
    /// The gateway; none where the tunnel needs none.
    pub gateway: Option<IpAddr>,
    /// Index of the link.
    pub link: u32,
    /// The tunnel, if there is one. Its gateway is taken to be on the link (`onlink`).
    pub tunnel: Option<Tunnel>,
}

/// The outer header that a route asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tunnel {
    /// VXLAN network identifier; 0 for IPIP.
    pub id: u64,
    /// Outer source.
    pub source: IpAddr,
    /// Outer destination, of the same family.
    pub remote: IpAddr,
    /// Outer TTL, or hop limit.
    pub ttl: u8,
}

/// How packets of a route travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// As they are.
    Plain,
    /// Through the VXLAN device.
    Vxlan,
    /// Through the IPIP device.
    Ipip,
}

impl Transport {
    /// The word that operators see.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Vxlan => "VXLAN",
            Self::Ipip => "IPIP",
        }
    }

    /// Its device; empty where it needs none.
    #[must_use]
    pub fn device(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Vxlan => VXLAN_DEVICE,
            Self::Ipip => IPIP_DEVICE,
        }
    }

    /// The transport that a tunnel protocol asks for.
    #[must_use]
    pub fn of(protocol: Protocol) -> Self {
        match protocol {
            Protocol::None => Self::Plain,
            Protocol::IPIP => Self::Ipip,
            Protocol::VXLAN => Self::Vxlan,
        }
    }
}

/// One change of a kernel route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Put it there, in the place of what we had under (prefix, metric).
    Replace(IpNet, u32, Arc<Forward>),
    /// Take it away, if it carries our protocol number.
    Delete(IpNet, u32),
}

impl Step {
    /// Prefix and metric that it is about.
    #[must_use]
    pub fn key(&self) -> (IpNet, u32) {
        match self {
            Self::Replace(prefix, metric, _) | Self::Delete(prefix, metric) => (*prefix, *metric),
        }
    }
}

/// A route of ours as a dump found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its prefix.
    pub prefix: IpNet,
    /// Its metric.
    pub metric: u32,
    /// Where it leads.
    pub forward: Forward,
}
