//! Ports as manifests and `--ports` have them.

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A transport protocol of Kubernetes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// RFC 9293.
    #[default]
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

impl FromStr for Protocol {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text.to_ascii_uppercase().as_str() {
            "TCP" => Ok(Self::Tcp),
            "UDP" => Ok(Self::Udp),
            "SCTP" => Ok(Self::Sctp),
            _ => bail!("{text:?} is no protocol; TCP, UDP and SCTP are"),
        }
    }
}

/// A port of a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Port {
    /// Its number, 1 to 65535.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its name, if the manifest gives one.
    #[serde(default)]
    pub name: Option<String>,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

impl FromStr for Port {
    type Err = anyhow::Error;

    /// `80`, `80/TCP`, `53/udp`.
    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (number, protocol) = match text.split_once('/') {
            Some((number, protocol)) => (number, protocol.parse()?),
            None => (text, Protocol::Tcp),
        };
        let port = number.parse::<u16>().ok().filter(|p| *p > 0);
        let port = port.with_context(|| format!("{text:?} is no port; write e.g. 80/TCP"))?;
        Ok(Self { port, protocol, name: None })
    }
}

/// The declared ports of a pod, each number and protocol once.
#[must_use]
pub fn declared(pod: &k8s_openapi::api::core::v1::Pod) -> Vec<Port> {
    let containers = pod.spec.iter().flat_map(|s| &s.containers);
    let mut ports = containers
        .flat_map(|c| c.ports.iter().flatten())
        .filter_map(|p| {
            let protocol = p.protocol.as_deref().map_or(Ok(Protocol::Tcp), str::parse).ok()?;
            Some(Port { port: u16::try_from(p.container_port).ok()?, protocol, name: p.name.clone() })
        })
        .collect::<Vec<_>>();
    ports.sort_by_key(|p| (p.port, p.protocol));
    ports.dedup_by_key(|p| (p.port, p.protocol));
    ports
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_people_write_them() {
        assert_eq!("53/udp".parse::<Port>().unwrap().to_string(), "53/UDP");
        assert_eq!("80".parse::<Port>().unwrap().to_string(), "80/TCP");
        assert!("0/TCP".parse::<Port>().is_err() && "80/ICMP".parse::<Port>().is_err());
    }
}
