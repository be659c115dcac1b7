//! What the kernel does with a packet, read off the typed ruleset: an interpreter that knows hooks, jumps, sets and maps and
//! nothing of policy. Tests hold the compiler against it; it is the specification of what a [`Ruleset`] means.

use crate::ruleset::{
    Action, BaseKind, CtStates, Direction, End, Family, Field, Hook, Interface, Key, Match, Name, Rule, Ruleset, Set,
    Value, Verdict,
};
use std::net::IpAddr;

/// The first packet of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The interface it came in on; none if this host sends it.
    pub in_interface: Option<String>,
    /// The interface it leaves by; none if it is for this host.
    pub out_interface: Option<String>,
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
    /// Layer 4 protocol.
    pub protocol: u8,
    /// Source port; 0 for protocols without ports.
    pub src_port: u16,
    /// Destination port; 0 for protocols without ports.
    pub dst_port: u16,
    /// The destination port that it came to, if its destination was translated.
    pub came_to: Option<u16>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Passed,
    /// It was dropped.
    Dropped {
        /// By a rule of this chain.
        chain: Name,
        /// The rule's comment.
        comment: String,
    },
}

/// The kernel's limit of nested jumps (NFT_JUMP_STACK_SIZE).
const JUMPS: usize = 16;

/// Sends a packet through the filter chains of a hook.
#[must_use]
pub fn interpret(ruleset: &Ruleset, hook: Hook, packet: &Packet) -> Fate {
    let of_hook = ruleset.chains.iter().filter_map(|(name, chain)| {
        let base = chain.base.filter(|b| b.hook == hook && b.kind == BaseKind::Filter)?;
        Some((base.priority, name))
    });
    let mut chains: Vec<_> = of_hook.collect();
    chains.sort_unstable();
    for (_, name) in chains {
        match walk(ruleset, name, packet, 0) {
            Walk::Dropped(fate) => return fate,
            Walk::Accepted | Walk::Returned | Walk::Translated(..) => {}
        }
    }
    Fate::Passed
}

/// What becomes of the destination of a connection's first packet in the NAT chains of a hook: the same, or another address and port.
#[must_use]
pub fn translated(ruleset: &Ruleset, hook: Hook, packet: &Packet) -> (IpAddr, u16) {
    let of_hook = ruleset.chains.iter().filter_map(|(name, chain)| {
        let base = chain.base.filter(|b| b.hook == hook && b.kind == BaseKind::Nat)?;
        Some((base.priority, name))
    });
    let mut chains: Vec<_> = of_hook.collect();
    chains.sort_unstable();
    for (_, name) in chains {
        if let Walk::Translated(address, port) = walk(ruleset, name, packet, 0) {
            return (address, port);
        }
    }
    (packet.dst, packet.dst_port)
}

enum Walk {
    Accepted,
    Returned,
    Dropped(Fate),
    Translated(IpAddr, u16),
}

fn walk(ruleset: &Ruleset, name: &Name, packet: &Packet, depth: usize) -> Walk {
    assert!(depth < JUMPS, "more than {JUMPS} nested jumps, which the kernel refuses");
    let chain = ruleset.chains.get(name).unwrap_or_else(|| panic!("chain {name} does not exist"));
    for rule in &chain.rules {
        if let Some((address, port)) = translation(ruleset, rule, packet) {
            return Walk::Translated(address, port);
        }
        let Some(verdict) = verdict(ruleset, rule, packet) else { continue };
        match verdict {
            Verdict::Accept => return Walk::Accepted,
            Verdict::Drop => {
                return Walk::Dropped(Fate::Dropped { chain: name.clone(), comment: rule.comment.clone() });
            }
            Verdict::Return => return Walk::Returned,
            Verdict::Goto(to) => return walk(ruleset, to, packet, depth + 1),
            Verdict::Jump(to) => match walk(ruleset, to, packet, depth + 1) {
                Walk::Returned => {}
                end => return end,
            },
        }
    }
    Walk::Returned
}

fn verdict<'a>(ruleset: &'a Ruleset, rule: &'a Rule, packet: &Packet) -> Option<&'a Verdict> {
    if !rule.matches.iter().all(|m| holds(ruleset, m, packet)) {
        return None;
    }
    match &rule.action {
        Action::Verdict(verdict) => Some(verdict),
        Action::Map { key, map } => match lookup(set(ruleset, map), &packet.key(key)?)? {
            Value::Verdict(verdict) => Some(verdict),
            _ => None,
        },
        Action::Translate { .. } | Action::Masquerade | Action::ClampMss | Action::Log(_) | Action::Trace => None,
    }
}

fn translation(ruleset: &Ruleset, rule: &Rule, packet: &Packet) -> Option<(IpAddr, u16)> {
    let Action::Translate { key, map, .. } = &rule.action else { return None };
    if !rule.matches.iter().all(|m| holds(ruleset, m, packet)) {
        return None;
    }
    let map = set(ruleset, map);
    let Value::Mapped(to) = lookup(map, &packet.key(key)?)? else { return None };
    Some((to.address(&map.data)?, to.last_port()?))
}

fn holds(ruleset: &Ruleset, condition: &Match, packet: &Packet) -> bool {
    match condition {
        Match::Family(family) => packet.is(*family),
        Match::Interface { side, name, negated } => packet.interface(*side).is_some_and(|own| {
            let same = match name {
                Interface::Named(name) => own == name,
                Interface::Prefix(prefix) => own.starts_with(prefix.as_str()),
            };
            same != *negated
        }),
        Match::Set { key, set: name, negated } => {
            packet.key(key).is_some_and(|key| lookup(set(ruleset, name), &key).is_some() != *negated)
        }
        Match::Address { side, net, negated } => {
            let address = if *side == End::Source { packet.src } else { packet.dst };
            let of_family = address.is_ipv4() == matches!(net, ipnet::IpNet::V4(_));
            of_family && net.contains(&address) != *negated
        }
        Match::Protocol(protocol) => packet.protocol == *protocol,
        Match::Ports { protocol, side, ranges } => {
            let port = if *side == End::Source { packet.src_port } else { packet.dst_port };
            packet.protocol == *protocol && ranges.iter().any(|r| r.contains(&port))
        }
        Match::OriginalPorts { protocol, range } => {
            packet.protocol == *protocol && range.contains(&packet.came_to.unwrap_or(packet.dst_port))
        }
        Match::ToThisHost => packet.out_interface.is_none(),
        Match::Translated => packet.came_to.is_some(),
        Match::ForeignSource => packet.in_interface.is_some(),
        Match::Within(_) => true,
        Match::CtState(states) => states.bits() & CtStates::NEW.bits() != 0,
        Match::Opened { source, destination, port } => {
            let port_is = |(protocol, port)| packet.protocol == protocol && [0, packet.dst_port].contains(&port);
            packet.src == *source && packet.dst == *destination && port.is_none_or(port_is)
        }
        // The first packet of a TCP connection carries SYN alone.
        Match::TcpFlags { mask, value, negated } => packet.protocol == 6 && (0x02 & mask == *value) != *negated,
        // Neighbour discovery and VXLAN are no connections that anybody asks about.
        Match::Icmpv6Types(_) | Match::VxlanVni { .. } => false,
    }
}

fn set<'a>(ruleset: &'a Ruleset, name: &Name) -> &'a Set {
    ruleset.sets.get(name).unwrap_or_else(|| panic!("set {name} does not exist"))
}

fn lookup<'a>(set: &'a Set, key: &Key) -> Option<&'a Value> {
    if !set.interval {
        return set.elements.get(key);
    }
    let (first, value) = set.elements.range(..=key).next_back()?;
    let inside = match value {
        Value::Through(last) => key <= last,
        _ => key == first,
    };
    inside.then_some(value)
}

impl Packet {
    fn is(&self, family: Family) -> bool {
        self.src.is_ipv4() == (family == Family::V4)
    }

    fn interface(&self, side: Direction) -> Option<&str> {
        match side {
            Direction::In => self.in_interface.as_deref(),
            Direction::Out => self.out_interface.as_deref(),
        }
    }

    /// The key that these fields make; none if the packet lacks one of them.
    fn key(&self, fields: &[Field]) -> Option<Key> {
        if fields.iter().filter_map(|f| f.family()).any(|family| !self.is(family)) {
            return None;
        }
        let mut key: Option<Key> = None;
        for field in fields {
            let part = match field {
                Field::InInterface => Key::interface(self.interface(Direction::In)?),
                Field::OutInterface => Key::interface(self.interface(Direction::Out)?),
                Field::SourceV4 | Field::SourceV6 => Key::addr(self.src),
                Field::DestinationV4 | Field::DestinationV6 => Key::addr(self.dst),
                Field::Protocol => Key::protocol(self.protocol),
                Field::SourcePort => Key::port(self.src_port),
                Field::DestinationPort => Key::port(self.dst_port),
                Field::Selector(id) => Key::selector(*id),
                Field::Family => Key::family(if self.src.is_ipv4() { Family::V4 } else { Family::V6 }),
            };
            key = Some(match key {
                Some(key) => key.and(&part),
                None => part,
            });
        }
        key
    }
}
