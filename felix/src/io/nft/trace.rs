//! What the kernel does to packets of one connection, rule by rule, in whatever table.
//!
//! A table of its own ([`Aside`]) marks the packets, within a rate. It vanishes with this process's socket, and the marking ends by itself
//! before that: its rules ask a set whose only element expires.

use super::Error;
use super::aside::Aside;
use super::batch::{self, RULE_USERDATA};
use super::connection::Connection;
use super::expression::bare_verdict;
use super::wire::{Attributes, Message, message, messages};
use crate::base;
use crate::io::nflog::{self, Headers};
use crate::ruleset::{
    Action, Base, BaseKind, Chain, End, Field, Hook, Key, KeyType, Match, Rate, Rule, Ruleset, Set, Value, Verdict,
};
use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

/// `NFNLGRP_NFTRACE`.
const GROUP: u32 = 9;
const RECEIVE_BUFFER: usize = 8 << 20;
/// Packets that are marked.
const RATE: Rate = Rate { per_second: 20, burst: 40 };
const ARMED: &str = "armed";
/// Before anybody else's chain that could drop, also in `raw`.
const EARLY: i32 = -310;
/// After destination NAT (-100): here a packet to a Service has the pod's address.
const LATE: i32 = -99;

/// Which packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Who opens the connection.
    pub source: IpAddr,
    /// To whom, of the same family.
    pub destination: IpAddr,
    /// Protocol and the receiver's port (0 for one without ports); none: all packets between the two.
    pub port: Option<(u8, u16)>,
}

/// One rule, or a chain's end, that a packet met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The same for all events of a packet. The kernel uses it again for later ones.
    pub id: u32,
    /// `inet`, `ip`, …
    pub family: String,
    /// Its table.
    pub table: String,
    /// Its chain.
    pub chain: String,
    /// What it was.
    pub kind: Kind,
    /// What was decided; none: the next rule.
    pub verdict: Option<Verdict>,
    /// Index of the interface that the packet came in on.
    pub in_interface: Option<u32>,
    /// Index of the interface that it leaves by.
    pub out_interface: Option<u32>,
    /// Told with the first event of a base chain.
    pub headers: Option<Headers>,
}

impl Event {
    /// The rule that it tells of, if it does.
    #[must_use]
    pub fn place(&self) -> Option<RulePlace> {
        let Kind::Rule(handle) = self.kind else { return None };
        let (family, table, chain) = (self.family.clone(), self.table.clone(), self.chain.clone());
        Some(RulePlace { family, table, chain, handle })
    }
}

/// Where a rule stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RulePlace {
    /// Family of its table.
    pub family: String,
    /// Its table.
    pub table: String,
    /// Its chain.
    pub chain: String,
    /// The kernel's number for it.
    pub handle: u64,
}

/// What decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A rule, by its handle.
    Rule(u64),
    /// The end of a chain that was jumped to.
    #[default]
    Return,
    /// A base chain's policy.
    Policy,
}

/// Packets being traced, for as long as this lives.
pub struct Trace {
    socket: Socket,
    table: String,
    waiting: VecDeque<Event>,
    _aside: Aside,
}

impl Trace {
    /// Marks packets of these connections, both ways, for as long as that. In the calling thread's network namespace.
    ///
    /// # Errors
    /// No right to it, or a kernel without `nftrace` or tables with an owner.
    pub fn start(filters: &[Filter], lasts: Duration) -> Result<Trace, Error> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).map_err(io::Error::from)?;
        socket.add_membership(GROUP)?;
        let table = format!("twill_trace_{}", std::process::id());
        let aside = Aside::make(&table, &content(filters, lasts))?;
        Ok(Trace { socket, table, waiting: VecDeque::new(), _aside: aside })
    }

    /// Name of the table that marks.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The next event; none if there is none within `limit`.
    ///
    /// # Errors
    /// The socket failed. ENOBUFS: events were lost.
    pub fn next(&mut self, limit: Duration) -> io::Result<Option<Event>> {
        if self.waiting.is_empty() {
            let limit = TimeVal::milliseconds(i64::try_from(limit.as_millis()).unwrap_or(i64::MAX).max(1));
            setsockopt(&self.socket, sockopt::ReceiveTimeout, &limit)?;
            let mut buffer = Vec::with_capacity(64 << 10);
            match self.socket.recv(&mut buffer, 0) {
                Ok(_) => self.waiting.extend(messages(&buffer).filter_map(read)),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
        let event = self.waiting.pop_front();
        tracing::trace!(?event, "traced");
        Ok(event)
    }
}

/// Comments of all rules that have one.
///
/// # Errors
/// What the kernel said.
pub fn comments() -> Result<BTreeMap<RulePlace, String>, Error> {
    let mut all = BTreeMap::new();
    Connection::open()?.dump_of_all_families(message::GET_RULE, &mut |m| {
        let a = m.attributes();
        let place = (a.string(batch::TABLE), a.string(batch::RULE_CHAIN), a.u64(RULE_HANDLE));
        let comment = a.value(RULE_USERDATA).and_then(batch::read_comment);
        if let ((Some(table), Some(chain), Some(handle)), Some(comment)) = (place, comment) {
            let family = super::others::family(m.family());
            let place = RulePlace { family, table: table.to_owned(), chain: chain.to_owned(), handle };
            all.insert(place, comment.to_owned());
        }
    })?;
    Ok(all)
}

const RULE_HANDLE: u16 = 3;

fn content(filters: &[Filter], lasts: Duration) -> Ruleset {
    let armed = Set::of([KeyType::Protocol]).expiring(lasts);
    let named: Option<Vec<u8>> = filters.iter().map(|filter| filter.port.map(|(protocol, _)| protocol)).collect();
    let protocols = named.unwrap_or_else(|| (0..=u8::MAX).collect());
    let armed = armed.with(protocols.into_iter().map(|protocol| (Key::protocol(protocol), Value::Plain)));
    let early: Vec<Rule> = filters.iter().flat_map(|filter| [marks(filter, false), marks(filter, true)]).collect();
    // Who is asked for by a Service's address answers from another, and it is known to which connection that belongs.
    let late: Vec<Rule> = early.iter().cloned().chain(filters.iter().map(marks_all)).collect();
    let chain = |hook, priority| {
        let base = Some(Base { kind: BaseKind::Filter, hook, priority });
        Chain { base, rules: if priority == LATE { late.clone() } else { early.clone() } }
    };
    Ruleset {
        chains: [
            ("early".into(), chain(Hook::Prerouting, EARLY)),
            ("late".into(), chain(Hook::Prerouting, LATE)),
            ("own_early".into(), chain(Hook::Output, EARLY)),
            ("own_late".into(), chain(Hook::Output, LATE)),
        ]
        .into(),
        sets: [(base::name(ARMED), armed)].into(),
    }
}

/// Marks packets one way, or the answers.
fn marks(filter: &Filter, answers: bool) -> Rule {
    let (source, destination) =
        if answers { (filter.destination, filter.source) } else { (filter.source, filter.destination) };
    let address = |side, address: IpAddr| Match::Address { side, net: address.into(), negated: false };
    let mut matches = vec![address(End::Source, source), address(End::Destination, destination)];
    matches.extend(filter.port.map(|(protocol, port)| match port {
        0 => Match::Protocol(protocol),
        _ => {
            let side = if answers { End::Source } else { End::Destination };
            Match::Ports { protocol, side, ranges: std::iter::once(port..=port).collect() }
        }
    }));
    mark(matches)
}

/// Marks packets both ways of the connections that were opened so, wherever destination NAT led them.
fn marks_all(filter: &Filter) -> Rule {
    let Filter { source, destination, port } = *filter;
    mark(vec![Match::Opened { source, destination, port }])
}

fn mark(mut matches: Vec<Match>) -> Rule {
    matches.push(Match::Set { key: vec![Field::Protocol], set: base::name(ARMED), negated: false });
    matches.push(Match::Within(RATE));
    Rule::new(matches, Action::Trace)
}

/// `NFTA_TRACE_*`.
const TABLE: u16 = 1;
const CHAIN: u16 = 2;
const HANDLE: u16 = 3;
const TYPE: u16 = 4;
const VERDICT: u16 = 5;
const ID: u16 = 6;
const NETWORK: u16 = 8;
const TRANSPORT: u16 = 9;
const IN_INTERFACE: u16 = 10;
const OUT_INTERFACE: u16 = 12;
const POLICY: u16 = 16;
const OF_POLICY: u32 = 1;
const OF_RULE: u32 = 3;

fn read(m: Message<'_>) -> Option<Event> {
    if m.nft() != Some(message::TRACE) {
        return None;
    }
    let a = m.attributes();
    let kind = match a.u32(TYPE)? {
        OF_POLICY => Kind::Policy,
        OF_RULE => Kind::Rule(a.u64(HANDLE)?),
        _ => Kind::Return,
    };
    let policy = || match a.u32(POLICY)? {
        0 => Some(Verdict::Drop),
        _ => Some(Verdict::Accept),
    };
    Some(Event {
        id: a.u32(ID)?,
        family: super::others::family(m.family()),
        table: a.string(TABLE)?.to_owned(),
        chain: a.string(CHAIN)?.to_owned(),
        verdict: if kind == Kind::Policy { policy() } else { a.nested(VERDICT).and_then(bare_verdict) },
        kind,
        in_interface: a.u32(IN_INTERFACE).filter(|index| *index > 0),
        out_interface: a.u32(OUT_INTERFACE).filter(|index| *index > 0),
        headers: headers(a),
    })
}

/// The kernel tells up to 40 bytes from where the network header begins, and 20 from where layer 4 does.
fn headers(a: Attributes<'_>) -> Option<Headers> {
    let network = a.value(NETWORK)?;
    let transport = a.value(TRANSPORT).unwrap_or_default();
    let length = match network.first()? >> 4 {
        4 => usize::from(network.first()? & 0xf) * 4,
        _ => 40,
    };
    nflog::headers(&[network.get(..length)?, transport].concat())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::base::{Settings, skeleton};

    /// As Linux 6.18 told of a datagram on `lo` in a chain `o` of table `inet t`: the rule that marks, a rule that drops; the end of the
    /// rules, and the chain's policy.
    const TOLD: [&str; 4] = [
        "a0000000110a000000000000000000000100000008000f00000000020800040000000003080006002bd45ec3060002006f000000060001007400
         00000c00030000000000000000020c00050008000100ffffffff08000a000000000106000b0003040000180008004500001dcc9b400040117032
         7f0000017f0000010d00090013881f900009fe1c780000001200070000000000000000000000000008000000",
        "54000000110a000000000000000000000100000008000f00000000020800040000000003080006002bd45ec3060002006f000000060001007400
         00000c00030000000000000000030c0005000800010000000000",
        "48000000110a000000000000000000000100000008000f00000000020800040000000000080006006bcf0d11060002006f000000060001007400
         00000c00050008000100ffffffff",
        "44000000110a000000000000000000000100000008000f00000000020800040000000001080006006bcf0d11060002006f000000060001007400
         00000800100000000001",
    ];

    fn told(text: &str) -> Vec<Event> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let hex = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap();
        let bytes: Vec<u8> = digits.chunks(2).map(hex).collect();
        messages(&bytes).filter_map(read).collect()
    }

    #[test]
    fn events_are_read_as_the_kernel_tells_them() {
        let all: Vec<Event> = TOLD.iter().flat_map(|text| told(text)).collect();
        let kinds: Vec<Kind> = all.iter().map(|event| event.kind).collect();
        assert_eq!(kinds, [Kind::Rule(2), Kind::Rule(3), Kind::Return, Kind::Policy]);
        let verdicts: Vec<Option<Verdict>> = all.iter().map(|event| event.verdict.clone()).collect();
        assert_eq!(verdicts, [None, Some(Verdict::Drop), None, Some(Verdict::Accept)]);
        let first = &all[0];
        assert_eq!((first.family.as_str(), first.table.as_str(), first.chain.as_str()), ("inet", "t", "o"));
        assert_eq!((first.in_interface, first.out_interface, first.id == all[1].id), (Some(1), None, true));
        let headers = first.headers.unwrap();
        assert_eq!((headers.source.to_string(), headers.destination.port()), ("127.0.0.1:5000".to_owned(), 8080));
    }

    #[test]
    fn what_marks_is_sound_and_has_no_verdict() {
        let one = |source: &str, destination: &str, port| Filter {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            port,
        };
        for port in [Some((6, 80)), Some((1, 0)), None] {
            let filters = [one("10.0.0.1", "10.0.0.2", port), one("fd00::1", "fd00::2", port)];
            let content = content(&filters, Duration::from_secs(30));
            content.check().unwrap();
            let rules: Vec<&Rule> = content.chains.values().flat_map(|chain| &chain.rules).collect();
            assert_eq!(rules.len(), 20);
            assert!(rules.iter().all(|rule| rule.action == Action::Trace));
        }
        assert!(!skeleton(&Settings::default()).sets.contains_key(ARMED));
    }
}
