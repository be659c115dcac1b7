//! The outer ends of tunnels. In flow the addresses of two nodes; out flow those of the outer header, and by what the other end is named on the VXLAN device,
//! which is derived from its address, so that nodes need not tell each other.

use super::NodeAddresses;
use super::route::Transport;
use std::net::{IpAddr, Ipv6Addr};
use twill_crds::names::{IPIP_OVERHEAD, VXLAN_OVERHEAD, VXLAN_OVERHEAD_V6, vxlan_mac, vxlan_mac_v6};

impl NodeAddresses {
    /// The address by which the node is an end of tunnels: of IPv4 if it has one.
    #[must_use]
    pub fn outer(&self) -> Option<IpAddr> {
        self.v4.map(IpAddr::V4).or(self.v6.map(IpAddr::V6))
    }

    /// Source and destination of the outer header of what goes from this node to another: of IPv4 if both have it. IP-in-IP knows no other.
    #[must_use]
    pub fn ends(&self, other: &Self, transport: Transport) -> Option<(IpAddr, IpAddr)> {
        let v4 = self.v4.zip(other.v4).map(|(own, its)| (IpAddr::V4(own), IpAddr::V4(its)));
        let v6 = || self.v6.zip(other.v6).map(|(own, its)| (IpAddr::V6(own), IpAddr::V6(its)));
        v4.or_else(|| v6().filter(|_| transport == Transport::Vxlan))
    }

    /// MAC address of the node's VXLAN device.
    #[must_use]
    pub fn vxlan_mac(&self) -> Option<[u8; 6]> {
        self.v4.map(vxlan_mac).or(self.v6.map(vxlan_mac_v6))
    }

    /// Link-local address by which routes name the node on the VXLAN devices of others where they cannot name it by its IPv4 address, derived as its MAC is.
    #[must_use]
    pub fn vxlan_neighbour(&self) -> Option<Ipv6Addr> {
        let [a, b, c, d, e, f] = self.vxlan_mac()?.map(u16::from);
        // From a node's IPv4 address comes fe80:: and that address.
        let first = if self.v4.is_some() { 0 } else { a << 8 | b };
        Some(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, first, c << 8 | d, e << 8 | f))
    }
}

/// Bytes that a transport adds to a packet; `v6`: its outer header is of IPv6.
#[must_use]
pub fn overhead(transport: Transport, v6: bool) -> u32 {
    match transport {
        Transport::Plain => 0,
        Transport::Vxlan if v6 => VXLAN_OVERHEAD_V6,
        Transport::Vxlan => VXLAN_OVERHEAD,
        Transport::Ipip => IPIP_OVERHEAD,
    }
}
