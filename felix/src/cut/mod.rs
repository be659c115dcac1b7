//! Connections that a change of policy forbids while they live.
//!
//! In flow what a commit changed, the ruleset after it, and the kernel's connections; out flow those that must end, each with the elements
//! of the sets `cut4` and `cut6` that hold its packets back in both directions. It judges by [`crate::compile::interpret`] as the kernel
//! would judge the connection's first packet now.
//!
//! The table comes first, then the look at connections: what is opened after the commit is judged by the new rules, so one look finds all.

mod judge;
mod suspects;

pub use judge::Judge;
pub use suspects::Suspects;

use crate::base;
use crate::ruleset::Key;
use std::net::{IpAddr, SocketAddr};

/// ICMP and its like have no ports.
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

/// Whether connections of a protocol are told apart by ports.
#[must_use]
pub fn has_ports(protocol: u8) -> bool {
    WITH_PORTS.contains(&protocol)
}

/// A connection as policy sees it: after destination NAT and before source NAT.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// Who opened it; port 0 for protocols without ports.
    pub source: SocketAddr,
    /// To whom.
    pub destination: SocketAddr,
    /// Layer 4 protocol.
    pub protocol: u8,
}

impl Flow {
    /// Both ends.
    #[must_use]
    pub fn ends(&self) -> [IpAddr; 2] {
        [self.source.ip(), self.destination.ip()]
    }

    /// The elements that hold its packets back, with their set; none for a protocol without ports, whose packets belong to no connection
    /// any more once it is forgotten.
    pub fn elements(&self) -> impl Iterator<Item = (&'static str, Key)> {
        let set = if self.source.is_ipv4() { base::CUT_V4 } else { base::CUT_V6 };
        let key = |a: SocketAddr, b: SocketAddr| {
            Key::addr(a.ip()).and_addr(b.ip()).and_protocol(self.protocol).and_port(a.port()).and_port(b.port())
        };
        let both = [(set, key(self.source, self.destination)), (set, key(self.destination, self.source))];
        both.into_iter().filter(|_| has_ports(self.protocol))
    }
}
