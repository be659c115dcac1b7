//! An address with the interface on which it means something (RFC 4007): two links may both have an fe80::1.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};

/// An address, and where it is: the interface counts for link-local ones alone, and is 0 for all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScopedAddr {
    /// The address.
    pub address: IpAddr,
    /// Index of the interface (RFC 4007 calls it zone); 0 unless the address is link-local.
    pub zone: u32,
}

impl ScopedAddr {
    /// The address, on the interface with this index if it is link-local.
    #[must_use]
    pub fn new(address: IpAddr, zone: u32) -> Self {
        Self { address, zone: if is_link_local(address) { zone } else { 0 } }
    }

    /// As the kernel wants it.
    #[must_use]
    pub fn socket(self, port: u16) -> SocketAddr {
        match self.address {
            IpAddr::V6(address) => SocketAddrV6::new(address, port, 0, self.zone).into(),
            address => SocketAddr::new(address, port),
        }
    }
}

impl From<IpAddr> for ScopedAddr {
    fn from(address: IpAddr) -> Self {
        Self { address, zone: 0 }
    }
}

impl From<Ipv4Addr> for ScopedAddr {
    fn from(address: Ipv4Addr) -> Self {
        IpAddr::V4(address).into()
    }
}

impl From<SocketAddr> for ScopedAddr {
    fn from(socket: SocketAddr) -> Self {
        match socket {
            SocketAddr::V6(v6) => Self::new(socket.ip(), v6.scope_id()),
            SocketAddr::V4(_) => socket.ip().into(),
        }
    }
}

impl fmt::Display for ScopedAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.zone {
            0 => write!(f, "{}", self.address),
            zone => write!(f, "{}%{zone}", self.address),
        }
    }
}

/// Whether it means nothing without an interface.
#[must_use]
pub fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}
