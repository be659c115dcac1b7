//! The typed form of what table `inet twill` holds: chains with rules, sets with elements.
//!
//! The policy compiler and [`crate::base`] produce it; `io::nft` turns it into netlink messages and back; [`Delta`] is the
//! difference of two of them and the unit of one commit. Nothing here knows how the kernel encodes it, except [`Key`], which
//! keeps a set element in the kernel's own bytes so that a hundred thousand of them stay small and compare fast.
//!
//! What a [`Match`] needs to be meaningful (an address match needs its family, a port match its protocol) is part of the match:
//! there is no rule that reads IPv6 bytes as an IPv4 address.

mod delta;
mod key;
mod text;

pub use delta::{Delta, ElementChange, Fault, LOG_PREFIX, Part};
pub use key::{Key, KeyType};

use crate::base::HOST;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// Name of a chain or a set. At most 100 bytes of `[A-Za-z0-9_]`, first a letter, and no word of nft's language (`fwd`…).
pub type Name = Arc<str>;

/// The whole table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Chains by name.
    pub chains: BTreeMap<Name, Chain>,
    /// Sets and maps by name.
    pub sets: BTreeMap<Name, Set>,
}

impl Ruleset {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.sets.is_empty()
    }
}

/// A chain. Its policy is always accept: denial is an explicit rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where the kernel enters it; `None` for a chain that is only jumped to.
    pub base: Option<Base>,
    /// Its rules in order.
    pub rules: Vec<Rule>,
}

impl Chain {
    /// A chain that stands in the kernel with rules that nobody here can put in words. Wanted as such it is left as it is; where it is
    /// gone, it comes back closed, but for one about the host's own interfaces, which comes back open: nobody must be locked out.
    #[must_use]
    pub fn unread(name: &Name, base: Option<Base>) -> Chain {
        let verdict = if name.starts_with(HOST) { Verdict::Return } else { Verdict::Drop };
        Chain { base, rules: vec![Rule::new(Vec::new(), Action::Verdict(verdict)).comment("not ours")] }
    }
}

/// The hook of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Base {
    /// Filter or NAT.
    pub kind: BaseKind,
    /// Where in the packet's way.
    pub hook: Hook,
    /// Order among chains of one hook, lowest first.
    pub priority: i32,
}

/// Type of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BaseKind {
    /// Sees every packet.
    Filter,
    /// Sees the first packet of a connection.
    Nat,
}

/// A netfilter hook of family inet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// Before the routing decision.
    Prerouting,
    /// To this host.
    Input,
    /// Through this host.
    Forward,
    /// From this host.
    Output,
    /// After the routing decision.
    Postrouting,
}

/// One rule: all of `matches` must hold, then `action` happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Conditions, judged in order; none: every packet.
    pub matches: Vec<Match>,
    /// Whether it counts packets and bytes. Every drop does.
    pub counter: bool,
    /// What happens.
    pub action: Action,
    /// Shown by `nft list`; says whose rule it is. Cut at 127 bytes.
    pub comment: String,
}

impl Rule {
    /// A rule without counter and comment.
    #[must_use]
    pub fn new(matches: Vec<Match>, action: Action) -> Rule {
        Rule { matches, counter: false, action, comment: String::new() }
    }

    /// `return`, as an allow in a list chain.
    #[must_use]
    pub fn allow(matches: Vec<Match>) -> Rule {
        Rule::new(matches, Action::Verdict(Verdict::Return))
    }

    /// `counter drop`.
    #[must_use]
    pub fn deny(matches: Vec<Match>) -> Rule {
        Rule { counter: true, ..Rule::new(matches, Action::Verdict(Verdict::Drop)) }
    }

    /// The same with this comment.
    #[must_use]
    pub fn comment(self, comment: impl Into<String>) -> Rule {
        Rule { comment: comment.into(), ..self }
    }
}

/// What a rule does with a packet that matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A verdict.
    Verdict(Verdict),
    /// The verdict that `map` holds for the key; the next rule if it holds none.
    Map {
        /// What is looked up.
        key: Vec<Field>,
        /// A set whose `map` is true.
        map: Name,
    },
    /// Tells of the packet; then the next rule.
    Log(Log),
    /// Has the kernel tell of each rule that the packet meets from now on (`nftrace`); then the next rule.
    Trace,
    /// Source NAT to the address of the outgoing interface, ports fully random. Only in a NAT chain at postrouting.
    Masquerade,
}

/// To whom a packet is told of, and how often at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// What has a rate of its own: one packet's fields.
    pub key: Vec<Field>,
    /// The set of keys that were seen lately; its `dynamic` is true.
    pub rates: Name,
    /// Packets per key.
    pub rate: Rate,
    /// NFLOG group.
    pub group: u16,
    /// Said with each packet, at most 127 bytes.
    pub prefix: String,
    /// Bytes of the packet that are told.
    pub bytes: u32,
}

/// So many packets a second on average.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Packets per second.
    pub per_second: u32,
    /// Packets beyond that at once.
    pub burst: u32,
}

/// A verdict, of a rule or of a map's element.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Done with this hook's chain of ours: other tables still judge.
    Accept,
    /// Gone.
    Drop,
    /// Back to after the last jump; the end for a base chain.
    Return,
    /// To a chain, and back here when it returns.
    Jump(Name),
    /// To a chain; its return goes to where we would have returned.
    Goto(Name),
}

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
    /// ICMPv6 type is one of these (at least one); demands ICMPv6.
    Icmpv6Types(Vec<u8>),
    /// No more packets than this were here lately, all together.
    Within(Rate),
    /// State of the packet's connection is one of these.
    CtState(CtStates),
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

/// A set, or a map to verdicts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Types of the key's parts.
    pub key: Vec<KeyType>,
    /// Elements are ranges: for ipBlocks and pools only, such a set costs O(n) per commit. One part of type V4 or V6.
    pub interval: bool,
    /// Elements expire, after this by default. Such a set is never compared: the kernel changes it by itself.
    pub timeout: Option<Duration>,
    /// Upper limit of elements, and half the memory and time to load; a batch that exceeds it fails whole.
    pub size: Option<u32>,
    /// Elements carry a verdict.
    pub map: bool,
    /// Packets add elements.
    pub dynamic: bool,
    /// The elements.
    pub elements: BTreeMap<Key, Value>,
    /// Shown by `nft list`.
    pub comment: String,
}

impl Set {
    /// A hash set of this key, empty.
    #[must_use]
    pub fn of(key: impl Into<Vec<KeyType>>) -> Set {
        Set { key: key.into(), ..Set::default() }
    }

    /// The same as a set of ranges.
    #[must_use]
    pub fn interval(self) -> Set {
        Set { interval: true, ..self }
    }

    /// The same as a map to verdicts.
    #[must_use]
    pub fn verdict_map(self) -> Set {
        Set { map: true, ..self }
    }

    /// The same with elements that expire.
    #[must_use]
    pub fn expiring(self, after: Duration) -> Set {
        Set { timeout: Some(after), ..self }
    }

    /// The same with elements that packets add, so many at most.
    #[must_use]
    pub fn dynamic(self, size: u32) -> Set {
        Set { dynamic: true, size: Some(size), ..self }
    }

    /// The same with this comment.
    #[must_use]
    pub fn comment(self, comment: impl Into<String>) -> Set {
        Set { comment: comment.into(), ..self }
    }

    /// The same with these elements.
    #[must_use]
    pub fn with(self, elements: impl IntoIterator<Item = (Key, Value)>) -> Set {
        Set { elements: elements.into_iter().collect(), ..self }
    }

    /// Whether both can be one kernel object: everything but the elements is equal.
    #[must_use]
    pub fn same_declaration(&self, other: &Set) -> bool {
        (&self.key, self.interval, self.timeout, self.size, self.map, self.dynamic)
            == (&other.key, other.interval, other.timeout, other.size, other.map, other.dynamic)
    }
}

/// What stands beside an element's key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    #[default]
    Plain,
    /// The range's last key, itself included; only in an interval set, where `Plain` means one key.
    Through(Key),
    /// The verdict; only in a map.
    Verdict(Verdict),
    /// Time until it expires, instead of the set's default; only in a set with timeout.
    Expires(Duration),
}
