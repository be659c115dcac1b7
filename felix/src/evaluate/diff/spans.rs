//! Ports that no rule tells apart.

use super::classes::{Class, rules};
use crate::host::Failsafe;
use crate::model::{Direction, PortNumber, Ports, Protocol, Rule};
use std::collections::BTreeSet;
use std::fmt;

/// Protocols without ports that rules of HostPolicies tell apart, or that nodes need: ICMP and IP-in-IP.
const WITHOUT_PORTS: [Protocol; 2] = [Protocol::ICMP, Protocol::IP_IN_IP];
/// One that no policy can name (RFC 3692 section 2.1: for experiments).
const UNNAMED: Protocol = Protocol(253);
/// Whatever else has no ports.
const OTHERS: Span = Span { protocol: None, first: 0, last: 0 };

/// Ports of one protocol, both ends included; or whatever has no ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The protocol, with 0 to 0 where it has no ports; none: every one without ports, ICMP say, but for those that are named beside it.
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
        let without_ports = self.protocol.is_none_or(|protocol| !protocol.has_ports());
        without_ports || (self.first, self.last) == (1, u16::MAX)
    }

    /// The same at a node's interface, where rules tell some protocols without ports from the others.
    pub(super) fn contains_at_host(&self, port: u16, protocol: Protocol) -> bool {
        let protocol = protocol.of_family(true);
        match self.protocol {
            Some(own) => own == protocol && (!own.has_ports() || (self.first..=self.last).contains(&port)),
            None => !protocol.has_ports() && !WITHOUT_PORTS.contains(&protocol),
        }
    }

    /// What stands for all of it there.
    pub(super) fn sample_at_host(&self) -> (u16, Protocol) {
        (self.first, self.protocol.unwrap_or(UNNAMED))
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
            Some(protocol) if !protocol.has_ports() => protocol.fmt(f),
            Some(protocol) if self.is_whole() => write!(f, "all {protocol}"),
            Some(protocol) if self.first == self.last => write!(f, "{}/{protocol}", self.first),
            Some(protocol) => write!(f, "{}-{}/{protocol}", self.first, self.last),
        }
    }
}

/// Everything that can be asked between two classes: within a span all rules of both moments say the same.
pub(super) fn of_pair(from: &Class<'_>, to: &Class<'_>) -> Vec<Span> {
    let named = to.named_ports().iter().map(|port| (port.protocol, (port.port, port.port)));
    let rules = rules(from, Direction::Egress).chain(rules(to, Direction::Ingress));
    let mut spans = between(&named.chain(numbered(rules)).collect::<Vec<_>>());
    spans.push(OTHERS);
    spans
}

/// Everything that can be asked of a way at a node's interface.
pub(super) fn at_host<'r>(rules: impl Iterator<Item = &'r Rule>, needs: &[Failsafe]) -> Vec<Span> {
    let needed = needs.iter().filter_map(|one| Some((Protocol(one.protocol), one.ports?)));
    let mut spans = between(&numbered(rules).chain(needed).collect::<Vec<_>>());
    spans.extend(WITHOUT_PORTS.map(|protocol| Span { protocol: Some(protocol), first: 0, last: 0 }));
    spans.push(OTHERS);
    spans
}

/// Ports of rules that have numbers.
fn numbered<'r>(rules: impl Iterator<Item = &'r Rule>) -> impl Iterator<Item = (Protocol, (u16, u16))> {
    let ports = rules.filter_map(|rule| match &rule.ports {
        Ports::Of(ports) => Some(ports),
        Ports::All => None,
    });
    ports.flatten().filter_map(|port| match port.number {
        PortNumber::Range(first, last) => Some((port.protocol, (first, last))),
        PortNumber::Any | PortNumber::Named(_) => None,
    })
}

/// All ports, cut where one of these ranges begins or has ended.
fn between(ranges: &[(Protocol, (u16, u16))]) -> Vec<Span> {
    let mut spans = Vec::new();
    for protocol in [Protocol::TCP, Protocol::UDP, Protocol::SCTP] {
        let of_protocol = ranges.iter().filter(|(of, _)| *of == protocol);
        let starts = of_protocol.flat_map(|(_, (first, last))| [Some(*first), last.checked_add(1)]).flatten();
        let starts: BTreeSet<u16> = starts.chain([1]).collect();
        let starts: Vec<u16> = starts.into_iter().collect();
        spans.extend(starts.iter().enumerate().map(|(i, first)| {
            let last = starts.get(i + 1).map_or(u16::MAX, |next| next - 1);
            Span { protocol: Some(protocol), first: *first, last }
        }));
    }
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
