//! The receiver of a connection, as a person names it: in flows a word of the command line, out flow a party and a port.

use std::str::FromStr;
use twill_felix::evaluate::Party;
use twill_felix::model::Protocol;

/// `DST[:PORT[/PROTOCOL]]`, `DST:PROTOCOL`, `[V6]:PORT`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Destination {
    /// Who.
    pub(crate) party: Party,
    /// Port, 0 for a protocol without ports; without it, every port that the pod declares.
    pub(crate) port: Option<(u16, Protocol)>,
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let party = |text: &str| {
            let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            match inner {
                None if text.contains(['[', ']']) => {
                    Err(format!("{text:?} has one bracket alone; write [ADDRESS]:PORT"))
                }
                inner => inner.unwrap_or(text).parse::<Party>(),
            }
        };
        // An IPv6 address without brackets is all address.
        if text.parse::<std::net::IpAddr>().is_ok() {
            return Ok(Self { party: party(text)?, port: None });
        }
        match text.rsplit_once(':') {
            Some((dst, port)) if !port.ends_with(']') => Ok(Self { party: party(dst)?, port: Some(port_of(port)?) }),
            _ => Ok(Self { party: party(text)?, port: None }),
        }
    }
}

/// A port of a node that leads to others: `NODE:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodePort {
    /// Name of the node.
    pub(crate) node: String,
    /// The port, of the protocol that is asked about.
    pub(crate) port: u16,
}

impl FromStr for NodePort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no port of a node; write NODE:PORT, e.g. node-1:30080");
        let (node, port) = text.rsplit_once(':').filter(|(node, _)| !node.is_empty()).ok_or_else(wrong)?;
        let port = port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
        Ok(Self { node: node.to_owned(), port })
    }
}

/// `PORT[/PROTOCOL]`, or a protocol without ports.
pub(crate) fn port_of(text: &str) -> Result<(u16, Protocol), String> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    if let (Err(_), Ok(protocol)) = (text.parse::<u64>(), text.parse::<Protocol>())
        && !protocol.has_ports()
    {
        return Ok((0, protocol));
    }
    let number = port.parse::<u16>().ok().filter(|number| *number > 0);
    let number = number.ok_or_else(|| {
        format!("{port:?} is no port; write PORT or PORT/PROTOCOL with a port from 1 to 65535, e.g. 53/udp")
    })?;
    Ok((number, protocol.parse()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_a_node_is_a_name_and_a_number() {
        let is = NodePort { node: "n.example".to_owned(), port: 30080 };
        assert_eq!("n.example:30080".parse(), Ok(is));
        for bad in ["n", ":1", "n:", "n:0", "n:70000", "n:80/tcp"] {
            assert!(bad.parse::<NodePort>().unwrap_err().contains("NODE:PORT"), "{bad}");
        }
    }

    #[test]
    fn destinations_in_every_form() {
        let read = |text: &str| text.parse::<Destination>().map(|dst| (dst.party.to_string(), dst.port)).ok();
        let is = |party: &str, port| Some((party.to_owned(), port));
        assert_eq!(read("db/pg-0"), is("db/pg-0", None));
        assert_eq!(read("db/pg-0:5432"), is("db/pg-0", Some((5432, Protocol::TCP))));
        assert_eq!(read("db/pg-0:53/udp"), is("db/pg-0", Some((53, Protocol::UDP))));
        assert_eq!(read("db/pg-0:icmp"), is("db/pg-0", Some((0, Protocol::ICMP))));
        assert_eq!(read("10.0.0.1:80"), is("10.0.0.1", Some((80, Protocol::TCP))));
        assert_eq!(read("fd00::1"), is("fd00::1", None));
        assert_eq!(read("[fd00::1]:80"), is("fd00::1", Some((80, Protocol::TCP))));
        assert_eq!(read("[fd00::1]"), is("fd00::1", None));
        assert_eq!(read("n-1.example"), is("n-1.example", None));
        assert_eq!(read("n-1:22"), is("n-1", Some((22, Protocol::TCP))));
        assert_eq!((read("4711"), read("4711:22")), (is("4711", None), is("4711", Some((22, Protocol::TCP)))));
        for bad in [
            "Pg-0",
            "db/pg-0:x",
            "db/pg-0:80/x",
            "db/pg-0:icmp/x",
            "db/pg-0:icmp/tcp",
            "db/pg-0:99999",
            "db/pg-0:0",
            "a/b/c",
            "[fd00::1:80",
            "[fd00::1",
            "fd00::1]:80",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
        let error = "db/pg-0:99999".parse::<Destination>().unwrap_err();
        assert!(error.contains("\"99999\" is no port") && error.contains("1 to 65535"), "{error}");
    }
}
