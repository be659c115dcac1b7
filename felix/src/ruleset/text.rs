//! A ruleset in nft's own language: for `twill policy show`, for reading in tests, and for the test that holds what we write
//! by netlink equal to what `nft` makes of this text.

use super::key::protocol_text;
use super::{
    Action, Base, BaseKind, Chain, CtStates, Direction, End, Family, Field, Hook, Interface, Key, KeyType, Match, Rate,
    Rule, Ruleset, Set, Value, Verdict,
};
use ipnet::IpNet;
use std::fmt::{Display, Formatter, Result};
use std::ops::RangeInclusive;

impl Display for Ruleset {
    /// The body of the table, without its braces: sets first, then chains.
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        for (name, set) in &self.sets {
            write_set(f, name, set)?;
        }
        // Chains are declared before they are filled: rules and map elements may lead to any of them.
        for (name, chain) in &self.chains {
            write_chain(f, name, chain)?;
        }
        Ok(())
    }
}

fn write_set(f: &mut Formatter<'_>, name: &str, set: &Set) -> Result {
    let key = set.key.iter().map(|k| key_type(*k)).collect::<Vec<_>>().join(" . ");
    writeln!(f, "{} {name} {{", if set.map { "map" } else { "set" })?;
    let data = set.data.iter().map(|k| key_type(*k)).collect::<Vec<_>>().join(" . ");
    match (set.map, data.is_empty()) {
        (false, _) => writeln!(f, "\ttype {key}")?,
        (true, true) => writeln!(f, "\ttype {key} : verdict")?,
        (true, false) => writeln!(f, "\ttype {key} : {data}")?,
    }
    let all = [(set.interval, "interval"), (set.dynamic, "dynamic"), (set.timeout.is_some(), "timeout")];
    let flags: Vec<&str> = all.iter().filter(|x| x.0).map(|x| x.1).collect();
    if !flags.is_empty() {
        writeln!(f, "\tflags {}", flags.join(","))?;
    }
    if let Some(timeout) = set.timeout {
        writeln!(f, "\ttimeout {}s", timeout.as_secs())?;
    }
    if let Some(size) = set.size {
        writeln!(f, "\tsize {size}")?;
    }
    if !set.comment.is_empty() {
        writeln!(f, "\tcomment {:?}", set.comment)?;
    }
    if !set.elements.is_empty() {
        let elements: Vec<String> = set.elements.iter().map(|(k, v)| element(set, k, v)).collect();
        writeln!(f, "\telements = {{ {} }}", elements.join(", "))?;
    }
    writeln!(f, "}}")
}

fn element(set: &Set, key: &Key, value: &Value) -> String {
    let text = key.text(&set.key);
    match value {
        Value::Plain => text,
        Value::Through(last) => format!("{text}-{}", last.text(&set.key)),
        Value::Verdict(verdict) => format!("{text} : {verdict}"),
        Value::Mapped(to) => format!("{text} : {}", to.text(&set.data)),
        Value::Expires(after) => format!("{text} timeout {}s", after.as_secs()),
    }
}

fn write_chain(f: &mut Formatter<'_>, name: &str, chain: &Chain) -> Result {
    writeln!(f, "chain {name} {{")?;
    if let Some(base) = chain.base {
        writeln!(f, "\t{base}")?;
    }
    for rule in &chain.rules {
        writeln!(f, "\t{rule}")?;
    }
    writeln!(f, "}}")
}

impl Display for Base {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let kind = match self.kind {
            BaseKind::Filter => "filter",
            BaseKind::Nat => "nat",
        };
        let hook = match self.hook {
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
            Hook::Forward => "forward",
            Hook::Output => "output",
            Hook::Postrouting => "postrouting",
        };
        write!(f, "type {kind} hook {hook} priority {}; policy accept;", self.priority)
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        for m in &self.matches {
            write!(f, "{m} ")?;
        }
        if let Action::Log(log) = &self.action {
            write!(f, "update @{} {{ {} {} }} ", log.rates, fields(&log.key), log.rate)?;
        }
        if self.counter {
            write!(f, "counter ")?;
        }
        match &self.action {
            Action::Log(log) => write!(f, "log prefix {:?} group {} snaplen {}", log.prefix, log.group, log.bytes)?,
            Action::Trace => write!(f, "meta nftrace set 1")?,
            Action::Verdict(verdict) => write!(f, "{verdict}")?,
            Action::Map { key, map } => write!(f, "{} vmap @{map}", fields(key))?,
            Action::Translate { key, map, family } => {
                let family = if *family == Family::V4 { "ip" } else { "ip6" };
                write!(f, "dnat {family} to {} map @{map}", fields(key))?;
            }
            Action::Masquerade => write!(f, "masquerade fully-random")?,
            Action::ClampMss => write!(f, "tcp option maxseg size set rt mtu")?,
        }
        if self.comment.is_empty() { Ok(()) } else { write!(f, " comment {:?}", self.comment) }
    }
}

impl Display for Rate {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "limit rate {}/second burst {} packets", self.per_second, self.burst)
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Verdict::Accept => write!(f, "accept"),
            Verdict::Drop => write!(f, "drop"),
            Verdict::Return => write!(f, "return"),
            Verdict::Jump(chain) => write!(f, "jump {chain}"),
            Verdict::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

impl Display for Match {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let not = |negated: bool| if negated { "!= " } else { "" };
        match self {
            Match::Family(family) => write!(f, "meta nfproto {}", nfproto(*family)),
            Match::Interface { side, name, negated } => {
                let side = match side {
                    Direction::In => "iifname",
                    Direction::Out => "oifname",
                };
                match name {
                    Interface::Named(name) => write!(f, "{side} {}\"{name}\"", not(*negated)),
                    Interface::Prefix(prefix) => write!(f, "{side} {}\"{prefix}*\"", not(*negated)),
                }
            }
            Match::Set { key, set, negated } => write!(f, "{} {}@{set}", fields(key), not(*negated)),
            Match::Address { side, net, negated } => {
                let family = if matches!(net, IpNet::V4(_)) { "ip" } else { "ip6" };
                write!(f, "{family} {}addr {}{net}", end(*side), not(*negated))
            }
            Match::Protocol(protocol) => write!(f, "meta l4proto {}", protocol_text(*protocol)),
            Match::Ports { protocol, side, ranges } => {
                write!(f, "{} {}port {}", protocol_text(*protocol), end(*side), any_of(ranges))
            }
            Match::OriginalPorts { protocol, range: one } => {
                write!(f, "meta l4proto {} ct original proto-dst {}", protocol_text(*protocol), range(one))
            }
            Match::ToThisHost => f.write_str("fib daddr type local"),
            Match::Translated => f.write_str("ct status dnat"),
            Match::ForeignSource => f.write_str("fib saddr type != local"),
            Match::Icmpv6Types(types) => {
                let all: Vec<String> = types.iter().map(u8::to_string).collect();
                match all.as_slice() {
                    [one] => write!(f, "icmpv6 type {one}"),
                    several => write!(f, "icmpv6 type {{ {} }}", several.join(", ")),
                }
            }
            Match::Within(rate) => write!(f, "{rate}"),
            Match::CtState(states) => write!(f, "ct state {states}"),
            Match::Opened { source, destination, port } => {
                let family = if source.is_ipv4() { "ip" } else { "ip6" };
                write!(f, "ct original {family} saddr {source} ct original {family} daddr {destination}")?;
                let Some((protocol, port)) = port else { return Ok(()) };
                write!(f, " meta l4proto {}", protocol_text(*protocol))?;
                if *port == 0 { Ok(()) } else { write!(f, " ct original proto-dst {port}") }
            }
            Match::TcpFlags { mask, value, negated } => {
                write!(f, "tcp flags & {mask:#04x} {} {value:#04x}", if *negated { "!=" } else { "==" })
            }
            Match::VxlanVni { port, vni, negated } => {
                write!(f, "udp dport {port} @th,96,24 {}{vni}", not(*negated))
            }
        }
    }
}

impl Display for CtStates {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let all = [(2, "established"), (4, "related"), (8, "new"), (1, "invalid")];
        let names: Vec<&str> = all.iter().filter(|(bit, _)| self.bits() & bit != 0).map(|(_, name)| *name).collect();
        write!(f, "{}", names.join(","))
    }
}

fn any_of(ranges: &[RangeInclusive<u16>]) -> String {
    match ranges {
        [one] => range(one),
        several => format!("{{ {} }}", several.iter().map(range).collect::<Vec<_>>().join(", ")),
    }
}

fn range(range: &RangeInclusive<u16>) -> String {
    if range.start() == range.end() { range.start().to_string() } else { format!("{}-{}", range.start(), range.end()) }
}

fn fields(key: &[Field]) -> String {
    key.iter().map(|f| field(*f)).collect::<Vec<_>>().join(" . ")
}

fn field(field: Field) -> String {
    let name = match field {
        Field::Selector(id) => return Key::selector(id).text(&[KeyType::Selector]),
        Field::InInterface => "iifname",
        Field::OutInterface => "oifname",
        Field::SourceV4 => "ip saddr",
        Field::DestinationV4 => "ip daddr",
        Field::SourceV6 => "ip6 saddr",
        Field::DestinationV6 => "ip6 daddr",
        Field::Family => "meta nfproto",
        Field::Protocol => "meta l4proto",
        Field::SourcePort => "th sport",
        Field::DestinationPort => "th dport",
    };
    name.to_owned()
}

fn key_type(key: KeyType) -> &'static str {
    match key {
        KeyType::Interface => "ifname",
        KeyType::V4 => "ipv4_addr",
        KeyType::V6 => "ipv6_addr",
        KeyType::Family => "nf_proto",
        KeyType::Protocol => "inet_proto",
        KeyType::Port => "inet_service",
        KeyType::Selector => "mark . mark",
    }
}

fn nfproto(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

fn end(side: End) -> &'static str {
    match side {
        End::Source => "s",
        End::Destination => "d",
    }
}
