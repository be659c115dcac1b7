//! Transport protocols.

use std::fmt;
use std::str::FromStr;

/// An IP protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// SCTP.
    pub const SCTP: Self = Self(132);
    /// ICMP for IPv4.
    pub const ICMP: Self = Self(1);
    /// ICMP for IPv6.
    pub const ICMPV6: Self = Self(58);

    /// IP-in-IP (RFC 2003).
    pub const IP_IN_IP: Self = Self(4);

    /// Whether its packets carry port numbers that a policy can name.
    #[must_use]
    pub fn has_ports(self) -> bool {
        matches!(self, Self::TCP | Self::UDP | Self::SCTP)
    }

    /// What has this part in a family of addresses: ICMP is another protocol in each.
    #[must_use]
    pub fn of_family(self, v4: bool) -> Self {
        match (self, v4) {
            (Self::ICMP | Self::ICMPV6, true) => Self::ICMP,
            (Self::ICMP | Self::ICMPV6, false) => Self::ICMPV6,
            (other, _) => other,
        }
    }

    /// The protocol of a policy's or container's port: absent means TCP.
    ///
    /// # Errors
    /// A sentence, if it is none of TCP, UDP and SCTP.
    pub fn of_port(name: Option<&str>) -> Result<Self, String> {
        match name {
            None | Some("TCP") => Ok(Self::TCP),
            Some("UDP") => Ok(Self::UDP),
            Some("SCTP") => Ok(Self::SCTP),
            Some(other) => Err(format!("protocol {other:?} is none of TCP, UDP and SCTP")),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TCP => f.write_str("TCP"),
            Self::UDP => f.write_str("UDP"),
            Self::SCTP => f.write_str("SCTP"),
            Self::ICMP => f.write_str("ICMP"),
            Self::ICMPV6 => f.write_str("ICMPv6"),
            Self(number) => write!(f, "protocol {number}"),
        }
    }
}

impl FromStr for Protocol {
    type Err = String;

    /// A name in any case, or a number.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_uppercase().as_str() {
            "TCP" => Ok(Self::TCP),
            "UDP" => Ok(Self::UDP),
            "SCTP" => Ok(Self::SCTP),
            "ICMP" => Ok(Self::ICMP),
            "ICMPV6" => Ok(Self::ICMPV6),
            other => other
                .parse()
                .map(Self)
                .map_err(|_| format!("protocol {text:?} is none of tcp, udp, sctp, icmp, icmpv6 and 0 to 255")),
        }
    }
}
