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
use crate::ruleset::{Key, Value};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How much later the element in a connection's own direction expires.
pub const OPENED: Duration = Duration::from_secs(1);

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

    /// The elements that hold its packets back, with their set: in its own direction first, then of what is answered. None for a protocol
    /// without ports, whose packets belong to no connection any more once it is forgotten.
    pub fn elements(&self) -> impl Iterator<Item = (&'static str, Key)> {
        let set = if self.source.is_ipv4() { base::CUT_V4 } else { base::CUT_V6 };
        let key = |a: SocketAddr, b: SocketAddr| {
            Key::addr(a.ip()).and_addr(b.ip()).and_protocol(self.protocol).and_port(a.port()).and_port(b.port())
        };
        let both = [(set, key(self.source, self.destination)), (set, key(self.destination, self.source))];
        both.into_iter().filter(|_| has_ports(self.protocol))
    }

    /// The same as they are put into the set. The next felix has nothing but them to tell who opened the connection, so the two differ: in
    /// its own direction it expires [`OPENED`] later.
    pub fn held(&self) -> impl Iterator<Item = (&'static str, Key, Value)> {
        let values = [Value::Expires(base::CUT_FOR + OPENED), Value::Plain];
        self.elements().zip(values).map(|((set, key), value)| (set, key, value))
    }

    /// The connection whose packets in one direction an element holds back.
    #[must_use]
    pub fn of_element(key: &Key) -> Option<Self> {
        let bytes = key.bytes();
        let (source, destination, rest) = match bytes.len() {
            20 => {
                let address = |at: usize| Some(IpAddr::from(*bytes.get(at..)?.first_chunk::<4>()?));
                (address(0)?, address(4)?, &bytes[8..])
            }
            44 => {
                let address = |at: usize| Some(IpAddr::from(*bytes.get(at..)?.first_chunk::<16>()?));
                (address(0)?, address(16)?, &bytes[32..])
            }
            _ => return None,
        };
        let port = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
        let (source, destination) = (SocketAddr::new(source, port(4)), SocketAddr::new(destination, port(8)));
        Some(Self { source, destination, protocol: rest[0] })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_read_back_from_what_holds_it() {
        for (source, destination) in [("10.0.0.1:4000", "10.0.0.2:80"), ("[fd00::1]:4000", "[fd00::2]:80")] {
            let flow =
                Flow { source: source.parse().unwrap(), destination: destination.parse().unwrap(), protocol: 17 };
            let read: Vec<Flow> = flow.elements().map(|(_, key)| Flow::of_element(&key).unwrap()).collect();
            let reversed = Flow { source: flow.destination, destination: flow.source, protocol: 17 };
            assert_eq!(read, [flow.clone(), reversed]);
            let opened: Vec<bool> = flow.held().map(|(_, _, value)| value != Value::Plain).collect();
            assert_eq!(opened, [true, false]);
        }
        assert_eq!(Flow::of_element(&Key::port(80)), None);
    }
}
