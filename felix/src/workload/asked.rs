//! What a runtime asks for one attachment beside addresses, and the form in which it is kept beside them: it must outlive felix, because the
//! runtime says it once.

use crate::model::Protocol;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// Ports of the node that lead to the workload.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortMapping>,
    /// How fast it may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bandwidth>,
}

impl Asked {
    /// As it is kept; empty if nothing was asked for.
    #[must_use]
    pub fn text(&self) -> String {
        if *self == Self::default() { String::new() } else { serde_json::to_string(self).unwrap_or_default() }
    }

    /// From what was kept. What cannot be read counts as nothing: a later release may have written it.
    #[must_use]
    pub fn read(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }
}

/// One port of the node that leads to one of the workload's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortMapping {
    /// The node's address that it is a port of. None: every address; an unspecified one: every address of its family.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host_ip: Option<IpAddr>,
    /// The node's port, not 0.
    pub host_port: u16,
    /// The workload's port, not 0.
    pub container_port: u16,
    /// TCP, UDP or SCTP.
    #[serde(with = "number")]
    pub protocol: Protocol,
}

impl PortMapping {
    /// Whether one connection could be for both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let families = |at: Option<IpAddr>| [true, false].map(|v4| at.is_none_or(|at| at.is_ipv4() == v4));
        let family_in_common = families(self.host_ip).into_iter().zip(families(other.host_ip)).any(|(a, b)| a && b);
        let specific = |at: Option<IpAddr>| at.filter(|at| !at.is_unspecified());
        let addresses_meet = match (specific(self.host_ip), specific(other.host_ip)) {
            (Some(a), Some(b)) => a == b,
            _ => family_in_common,
        };
        (self.protocol, self.host_port) == (other.protocol, other.host_port) && addresses_meet
    }
}

impl fmt::Display for PortMapping {
    /// The node's side, as people write it: `80/TCP`, `80/TCP at 172.31.1.11`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host_port, self.protocol)?;
        self.host_ip.map_or(Ok(()), |at| write!(f, " at {at}"))
    }
}

mod number {
    use crate::model::Protocol;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(protocol: &Protocol, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u8(protocol.0)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Protocol, D::Error> {
        u8::deserialize(from).map(Protocol)
    }
}

/// How fast a workload may be, as seen from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bandwidth {
    /// What it may receive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Limit>,
    /// What it may send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Limit>,
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Bytes per second, not 0.
    pub rate: u64,
    /// Bytes at once, not 0.
    pub burst: u32,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn mapping(at: Option<&str>, port: u16, protocol: Protocol) -> PortMapping {
        PortMapping { host_ip: at.map(|at| at.parse().unwrap()), host_port: port, container_port: 8080, protocol }
    }

    #[test]
    fn what_is_kept_comes_back_as_it_was() {
        assert_eq!(Asked::default().text(), "");
        assert_eq!(Asked::read(""), Asked::default());
        assert_eq!(Asked::read("rubbish"), Asked::default());
        let ports = vec![mapping(None, 80, Protocol::TCP), mapping(Some("fd00::1"), 53, Protocol::UDP)];
        let egress = Some(Limit { rate: 125_000, burst: 1 << 20 });
        let asked = Asked { ports, bandwidth: Some(Bandwidth { ingress: None, egress }) };
        let text = asked.text();
        assert_eq!(Asked::read(&text), asked, "{text}");
        let later = text.replacen('{', r#"{"later": 1, "#, 1);
        assert_eq!(Asked::read(&later), asked, "what a later release kept beside it is passed over");
    }

    #[test]
    fn two_overlap_if_one_connection_could_be_for_both() {
        let tcp = |at| mapping(at, 80, Protocol::TCP);
        let all = [None, Some("0.0.0.0"), Some("::"), Some("10.0.0.1"), Some("10.0.0.2"), Some("fd00::1")];
        let meets = [
            [1, 1, 1, 1, 1, 1],
            [1, 1, 0, 1, 1, 0],
            [1, 0, 1, 0, 0, 1],
            [1, 1, 0, 1, 0, 0],
            [1, 1, 0, 0, 1, 0],
            [1, 0, 1, 0, 0, 1],
        ];
        for (a, row) in all.into_iter().zip(meets) {
            for (b, meets) in all.into_iter().zip(row) {
                assert_eq!(tcp(a).overlaps(&tcp(b)), meets == 1, "{a:?} {b:?}");
            }
        }
        assert!(!tcp(None).overlaps(&mapping(None, 81, Protocol::TCP)));
        assert!(!tcp(None).overlaps(&mapping(None, 80, Protocol::UDP)));
    }
}
