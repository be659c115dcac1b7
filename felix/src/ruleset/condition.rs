//! What a rule asks of a packet.

use super::{KeyType, Name, Rate};
use ipnet::IpNet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// One condition. Conditions that need a family or a protocol bring it with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// The packet's family.
    Family(Family),
    /// The interface it came in on or leaves by.
    Interface {
        /// In or out. A packet to this host has no out, one from this host no in: its name is then empty.
        side: Direction,
        /// Which.
        name: Interface,
        /// Any but this.
        negated: bool,
    },
    /// The concatenated fields are an element of a set. A negated match still demands the family of its fields.
    Set {
        /// At least one field; types as the set's key.
        key: Vec<Field>,
        /// The set.
        set: Name,
        /// Not an element.
        negated: bool,
    },
    /// Source or destination address inside a network; its family is demanded even when negated.
    Address {
        /// Source or destination.
        side: End,
        /// The network.
        net: IpNet,
        /// Outside.
        negated: bool,
    },
    /// Layer 4 protocol (IPv6: after extension headers).
    Protocol(u8),
    /// A port of TCP, UDP or SCTP in one of the ranges; demands the protocol.
    Ports {
        /// IANA number of the protocol.
        protocol: u8,
        /// Source or destination.
        side: End,
        /// Inclusive, not overlapping, at least one.
        ranges: Vec<RangeInclusive<u16>>,
    },
    /// A destination port as the connection's first packet had it when it came, before any translation; demands the protocol.
    OriginalPorts {
        /// IANA number of the protocol.
        protocol: u8,
        /// Inclusive. One: `nft` cannot list several.
        range: RangeInclusive<u16>,
    },
    /// The destination of the packet's connection was translated.
    Translated,
    /// The packet's source is no address of this host. At the output and postrouting hooks: this host passes it on, and only seems to send it.
    ForeignSource,
    /// The packet's destination is an address of this host.
    ToThisHost,
    /// ICMPv6 type is one of these (at least one); demands ICMPv6.
    Icmpv6Types(Vec<u8>),
    /// No more packets than this were here lately, all together.
    Within(Rate),
    /// State of the packet's connection is one of these.
    CtState(CtStates),
    /// The packet's connection was opened from one address to another of the same family, as its first packet had them before any NAT;
    /// whichever way this packet goes.
    Opened {
        /// Who opened it.
        source: IpAddr,
        /// To whom.
        destination: IpAddr,
        /// Protocol and destination port (0 for one without ports); none: any.
        port: Option<(u8, u16)>,
    },
    /// TCP flags under a mask; demands TCP.
    TcpFlags {
        /// Which flags are looked at.
        mask: u8,
        /// Their values.
        value: u8,
        /// Anything else.
        negated: bool,
    },
    /// Network identifier of a VXLAN packet to this UDP port; demands UDP and the port.
    VxlanVni {
        /// UDP destination port.
        port: u16,
        /// 24 bits.
        vni: u32,
        /// Any other.
        negated: bool,
    },
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The kernel's number (`NFPROTO_*`).
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Family::V4 => 2,
            Family::V6 => 10,
        }
    }
}

/// Which interface of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// The one it came in on.
    In,
    /// The one it leaves by.
    Out,
}

/// Which end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// Its source.
    Source,
    /// Its destination.
    Destination,
}

/// An interface by name, at most 15 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interface {
    /// This one.
    Named(String),
    /// Those that begin so.
    Prefix(String),
}

/// A field of a packet that can be part of a set's key. Address fields demand their family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// Name of the interface it came in on.
    InInterface,
    /// Name of the interface it leaves by.
    OutInterface,
    /// IPv4 source.
    SourceV4,
    /// IPv4 destination.
    DestinationV4,
    /// IPv6 source.
    SourceV6,
    /// IPv6 destination.
    DestinationV6,
    /// The packet's family.
    Family,
    /// Layer 4 protocol.
    Protocol,
    /// Source port; for a protocol without ports whatever stands there, so use it beside [`Field::Protocol`] only.
    SourcePort,
    /// Destination port; the same caveat.
    DestinationPort,
    /// No field but a constant: which of the selectors that share a set. nft shows it as two numbers.
    Selector(u64),
}

impl Field {
    /// Type that a set's key must have in this place.
    #[must_use]
    pub fn key_type(self) -> KeyType {
        match self {
            Field::InInterface | Field::OutInterface => KeyType::Interface,
            Field::SourceV4 | Field::DestinationV4 => KeyType::V4,
            Field::SourceV6 | Field::DestinationV6 => KeyType::V6,
            Field::Family => KeyType::Family,
            Field::Protocol => KeyType::Protocol,
            Field::SourcePort | Field::DestinationPort => KeyType::Port,
            Field::Selector(_) => KeyType::Selector,
        }
    }

    /// Family that it demands.
    #[must_use]
    pub fn family(self) -> Option<Family> {
        match self {
            Field::SourceV4 | Field::DestinationV4 => Some(Family::V4),
            Field::SourceV6 | Field::DestinationV6 => Some(Family::V6),
            _ => None,
        }
    }
}

/// A set of connection states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtStates(u32);

impl CtStates {
    /// Belongs to no connection, or to none that makes sense.
    pub const INVALID: CtStates = CtStates(1);
    /// Of a connection that was answered.
    pub const ESTABLISHED: CtStates = CtStates(2);
    /// About a connection: an ICMP error, a helper's data channel.
    pub const RELATED: CtStates = CtStates(4);
    /// The first of a connection.
    pub const NEW: CtStates = CtStates(8);

    /// Any of both.
    #[must_use]
    pub const fn or(self, other: CtStates) -> CtStates {
        CtStates(self.0 | other.0)
    }

    /// The kernel's bits (`NF_CT_STATE_*_BIT`).
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }
}
