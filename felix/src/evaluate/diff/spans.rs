//! Ports that no rule tells apart.

use super::classes::{Class, rules};
use crate::model::{Direction, PortNumber, Ports, Protocol};
use std::collections::BTreeSet;
use std::fmt;

/// Ports of one protocol, both ends included; or whatever has no ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The protocol; none: every one without ports, ICMP say, with 0 to 0.
    pub protocol: Option<Protocol>,
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
}

impl Span {
    /// Whether a port is among them; of protocols without ports it does not count.
    #[must_use]
    pub fn contains(&self, port: u16, protocol: Protocol) -> bool {
        match self.protocol {
            Some(own) => own == protocol && (self.first..=self.last).contains(&port),
            None => !protocol.has_ports(),
        }
    }

    /// Whether it is all ports of its protocol.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.protocol.is_none() || (self.first, self.last) == (1, u16::MAX)
    }

    /// What stands for all of it.
    pub(super) fn sample(&self) -> (u16, Protocol) {
        (self.first, self.protocol.unwrap_or(Protocol::ICMP))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            None => f.write_str("protocols without ports"),
            Some(protocol) if self.is_whole() => write!(f, "all {protocol}"),
            Some(protocol) if self.first == self.last => write!(f, "{}/{protocol}", self.first),
            Some(protocol) => write!(f, "{}-{}/{protocol}", self.first, self.last),
        }
    }
}

/// Everything that can be asked between two classes: within a span all rules of both moments say the same.
pub(super) fn of_pair(from: &Class<'_>, to: &Class<'_>) -> Vec<Span> {
    let mut spans = Vec::new();
    for protocol in [Protocol::TCP, Protocol::UDP, Protocol::SCTP] {
        let named = to.named_ports().iter().filter(|port| port.protocol == protocol).map(|port| (port.port, port.port));
        let ports =
            rules(from, Direction::Egress).chain(rules(to, Direction::Ingress)).filter_map(|rule| match &rule.ports {
                Ports::Of(ports) => Some(ports),
                Ports::All => None,
            });
        let numbered = ports.flatten().filter(|port| port.protocol == protocol).filter_map(|port| match port.number {
            PortNumber::Range(first, last) => Some((first, last)),
            PortNumber::Any | PortNumber::Named(_) => None,
        });
        let starts = named.chain(numbered).flat_map(|(first, last)| [Some(first), last.checked_add(1)]).flatten();
        let starts: BTreeSet<u16> = starts.chain([1]).collect();
        let starts: Vec<u16> = starts.into_iter().collect();
        spans.extend(starts.iter().enumerate().map(|(i, first)| {
            let last = starts.get(i + 1).map_or(u16::MAX, |next| next - 1);
            Span { protocol: Some(protocol), first: *first, last }
        }));
    }
    spans.push(Span { protocol: None, first: 0, last: 0 });
    spans
}

/// Neighbours as one.
pub(super) fn joined(spans: Vec<Span>) -> Vec<Span> {
    let mut joined: Vec<Span> = Vec::new();
    for span in spans {
        match joined.last_mut() {
            Some(last) if last.protocol == span.protocol && last.last.checked_add(1) == Some(span.first) => {
                last.last = span.last;
            }
            _ => joined.push(span),
        }
    }
    joined
}
