//! A rule as the kernel's expressions.
//!
//! Registers are used as nft does: every expression starts at the first one, a concatenation continues in four-byte steps.

mod condition;

use super::wire::{Attributes, Writer};
use crate::ruleset::{Action, Direction, End, Family, Field, Interface, KeyType, Log, Match, Rate, Rule, Verdict};
use ipnet::IpNet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

const LIST_ELEMENT: u16 = 1;
pub(super) const EXPRESSION_NAME: u16 = 1;
pub(super) const EXPRESSION_DATA: u16 = 2;
/// Inside a data attribute.
pub(super) const VALUE: u16 = 1;
const VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;

const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFTRACE: u32 = 12;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const CT_DESTINATION_PORT: u32 = 12;
const CT_SOURCE_V4: u32 = 19;
const CT_DESTINATION_V4: u32 = 20;
const CT_SOURCE_V6: u32 = 21;
const CT_DESTINATION_V6: u32 = 22;
/// The direction of who opened it.
const CT_ORIGINAL: u8 = 0;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const LESS_OR_EQUAL: u32 = 3;
const GREATER_OR_EQUAL: u32 = 5;
const LOOKUP_INVERTED: u32 = 1;
const RANDOM_FULLY: u32 = 1 << 4;
const NAT_DESTINATION: u32 = 1;
/// `NF_NAT_RANGE_MAP_IPS | NF_NAT_RANGE_PROTO_SPECIFIED`, which the kernel adds by itself and shows.
const NAT_ADDRESS_AND_PORT: u32 = 3;

/// `NFT_RT_TCPMSS`: what the routes to the packet's destination and back to its source carry, less the headers.
const RT_TCPMSS: u32 = 3;
/// `NFT_BYTEORDER_HTON`.
const HOST_TO_NETWORK: u32 = 1;
/// `NFT_EXTHDR_OP_TCPOPT`.
const EXTHDR_TCP_OPTION: u32 = 1;
/// Refused from us, and shown by the kernel.
pub(super) const EXTHDR_FLAGS: u16 = 5;
/// RFC 9293, 3.2: kind of the option; its value has two bytes behind two of kind and length.
const TCP_OPTION_MSS: u8 = 2;

const DYNSET_SET: u16 = 1;
const DYNSET_OPERATION: u16 = 3;
const DYNSET_KEY: u16 = 4;
pub(super) const DYNSET_TIMEOUT: u16 = 6;
pub(super) const DYNSET_EXPRESSION: u16 = 7;
pub(super) const DYNSET_PADDING: u16 = 8;
pub(super) const DYNSET_FLAGS: u16 = 9;
/// Adds the key, or keeps it longer.
const UPDATE: u32 = 1;
pub(super) const LIMIT_PADDING: u16 = 6;
const LOG_GROUP: u16 = 1;
const LOG_PREFIX: u16 = 2;
const LOG_BYTES: u16 = 3;

const TCP: u8 = 6;
const UDP: u8 = 17;
/// `IPS_DST_NAT`.
const DESTINATION_TRANSLATED: u32 = 1 << 5;
const ICMPV6: u8 = 58;
/// `NFT_FIB_RESULT_ADDRTYPE`.
const FIB_ADDRESS_TYPE: u32 = 3;
/// `NFTA_FIB_F_SADDR`.
const FIB_SOURCE: u32 = 1;
/// `NFTA_FIB_F_DADDR`.
const FIB_DESTINATION: u32 = 2;
/// `RTN_LOCAL`.
const LOCAL_ADDRESS: u32 = 2;
/// Name that the kernel completes with a number.
const ANONYMOUS: &str = "__set%d";

/// A set without a name that lives and dies with its rule: several ports or ICMPv6 types.
pub(super) struct AnonymousSet {
    /// nft's number of the type, and bytes of a key.
    pub(super) key: (u32, u32),
    /// Inclusive ranges in ascending order, not touching each other.
    pub(super) ranges: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether some range is longer than one.
    pub(super) interval: bool,
}

/// Writes the expressions of a rule. `anonymous` gets each anonymous set and answers its id in the transaction.
pub(super) fn expressions(rule: &Rule, anonymous: &mut dyn FnMut(AnonymousSet) -> u32) -> Vec<u8> {
    let mut e = Expressions { w: Writer::default(), family: None, protocol: None, anonymous };
    for m in &rule.matches {
        e.condition(m);
    }
    if let Action::Log(log) = &rule.action {
        e.rate_of(log);
    }
    if rule.counter {
        e.expression("counter", |_| {});
    }
    match &rule.action {
        Action::Verdict(v) => e.expression("immediate", |w| {
            w.u32(1, 0);
            w.nested(2, |w| verdict(w, v));
        }),
        Action::Map { key, map } => {
            e.load(key);
            e.expression("lookup", |w| {
                w.string(1, map);
                w.u32(2, register(0));
                w.u32(3, 0);
                w.u32(5, 0);
            });
        }
        Action::Log(log) => e.log(log),
        Action::Trace => e.trace(),
        Action::Translate { key, map, family } => e.translate(key, map, *family),
        Action::Masquerade => e.expression("masq", |w| w.u32(1, RANDOM_FULLY)),
        Action::ClampMss => e.clamp_mss(),
    }
    e.w.into_bytes()
}

/// A verdict as the content of a data attribute.
pub(super) fn verdict(w: &mut Writer, verdict: &Verdict) {
    let code: i32 = match verdict {
        Verdict::Drop => 0,
        Verdict::Accept => 1,
        Verdict::Jump(_) => -3,
        Verdict::Goto(_) => -4,
        Verdict::Return => -5,
    };
    w.nested(VERDICT, |w| {
        w.attribute(VERDICT_CODE, &code.to_be_bytes());
        if let Some(chain) = verdict.chain() {
            w.string(VERDICT_CHAIN, chain);
        }
    });
}

/// The verdict in the content of a data attribute.
pub(super) fn read_verdict(data: Attributes<'_>) -> Option<Verdict> {
    bare_verdict(data.nested(VERDICT)?)
}

/// The verdict in the content of a verdict attribute; none for `continue`.
pub(super) fn bare_verdict(verdict: Attributes<'_>) -> Option<Verdict> {
    let chain = || verdict.string(VERDICT_CHAIN).map(Into::into);
    match verdict.u32(VERDICT_CODE)?.cast_signed() {
        0 => Some(Verdict::Drop),
        1 => Some(Verdict::Accept),
        -3 => chain().map(Verdict::Jump),
        -4 => chain().map(Verdict::Goto),
        -5 => Some(Verdict::Return),
        _ => None,
    }
}

struct Expressions<'a> {
    w: Writer,
    /// What earlier conditions of the rule have established.
    family: Option<Family>,
    protocol: Option<u8>,
    anonymous: &'a mut dyn FnMut(AnonymousSet) -> u32,
}

impl Expressions<'_> {
    fn anonymous(&mut self, set: AnonymousSet) {
        let id = (self.anonymous)(set);
        self.expression("lookup", |w| {
            w.string(1, ANONYMOUS);
            w.u32(2, register(0));
            w.u32(4, id);
            w.u32(5, 0);
        });
    }

    /// Loads fields one behind the other, after what they demand.
    fn load(&mut self, key: &[Field]) {
        for family in key.iter().filter_map(|f| f.family()) {
            self.family(family);
        }
        let mut word = 0;
        for field in key {
            match field {
                Field::InInterface => self.meta(META_IIFNAME, word),
                Field::OutInterface => self.meta(META_OIFNAME, word),
                Field::SourceV4 => self.payload(NETWORK_HEADER, 12, 4, word),
                Field::DestinationV4 => self.payload(NETWORK_HEADER, 16, 4, word),
                Field::SourceV6 => self.payload(NETWORK_HEADER, 8, 16, word),
                Field::DestinationV6 => self.payload(NETWORK_HEADER, 24, 16, word),
                Field::Family => self.meta(META_NFPROTO, word),
                Field::Protocol => self.meta(META_L4PROTO, word),
                Field::SourcePort => self.payload(TRANSPORT_HEADER, 0, 2, word),
                Field::DestinationPort => self.payload(TRANSPORT_HEADER, 2, 2, word),
                Field::Selector(id) => self.constant(*id, word),
            }
            word += u32::try_from(field.key_type().padded() / 4).unwrap_or_default();
        }
    }

    /// Goes on only while the packet's key has packets left.
    fn rate_of(&mut self, log: &Log) {
        self.load(&log.key);
        self.expression("dynset", |w| {
            w.string(DYNSET_SET, &log.rates);
            w.u32(DYNSET_OPERATION, UPDATE);
            w.u32(DYNSET_KEY, register(0));
            w.nested(DYNSET_EXPRESSION, |w| {
                w.string(EXPRESSION_NAME, "limit");
                w.nested(EXPRESSION_DATA, |w| limit(w, log.rate));
            });
        });
    }

    fn log(&mut self, log: &Log) {
        self.expression("log", |w| {
            w.attribute(LOG_GROUP, &log.group.to_be_bytes());
            w.string(LOG_PREFIX, &log.prefix);
            w.u32(LOG_BYTES, log.bytes);
        });
    }

    /// The map's value lies in the registers as its key did: the address in the first, the port behind it.
    fn translate(&mut self, key: &[Field], map: &str, family: Family) {
        self.load(key);
        self.expression("lookup", |w| {
            w.string(1, map);
            w.u32(2, register(0));
            w.u32(3, register(0));
            w.u32(5, 0);
        });
        let port = register(if family == Family::V4 { 1 } else { 4 });
        self.expression("nat", |w| {
            w.u32(1, NAT_DESTINATION);
            w.u32(2, family.number().into());
            w.u32(3, register(0));
            w.u32(4, register(0));
            w.u32(5, port);
            w.u32(6, port);
            w.u32(7, NAT_ADDRESS_AND_PORT);
        });
    }

    /// The route's size is in the host's byte order, the packet's in the network's.
    fn clamp_mss(&mut self) {
        self.expression("rt", |w| {
            w.u32(1, register(0));
            w.u32(2, RT_TCPMSS);
        });
        self.expression("byteorder", |w| {
            w.u32(1, register(0));
            w.u32(2, register(0));
            w.u32(3, HOST_TO_NETWORK);
            w.u32(4, 2);
            w.u32(5, 2);
        });
        self.expression("exthdr", |w| {
            w.u32(7, register(0));
            w.attribute(2, &[TCP_OPTION_MSS]);
            w.u32(3, 2);
            w.u32(4, 2);
            w.u32(6, EXTHDR_TCP_OPTION);
        });
    }

    fn trace(&mut self) {
        self.expression("immediate", |w| {
            w.u32(1, register(0));
            w.nested(2, |w| w.attribute(VALUE, &[1]));
        });
        self.expression("meta", |w| {
            w.u32(2, META_NFTRACE);
            w.u32(3, register(0));
        });
    }

    /// What an address of the packet is to this host.
    fn address_type(&mut self, end: u32) {
        self.expression("fib", |w| {
            w.u32(1, register(0));
            w.u32(2, FIB_ADDRESS_TYPE);
            w.u32(3, end);
        });
    }

    /// Something of the packet's connection, of one direction where that makes a difference.
    fn connection(&mut self, key: u32, direction: Option<u8>) {
        self.expression("ct", |w| {
            w.u32(1, register(0));
            w.u32(2, key);
            if let Some(direction) = direction {
                w.attribute(3, &[direction]);
            }
        });
    }

    fn meta(&mut self, key: u32, word: u32) {
        self.expression("meta", |w| {
            w.u32(2, key);
            w.u32(1, register(word));
        });
    }

    /// In words of four bytes, as nft's types have it.
    fn constant(&mut self, value: u64, word: u32) {
        for (i, half) in (0..).zip(value.to_be_bytes().chunks_exact(4)) {
            self.expression("immediate", |w| {
                w.u32(1, register(word + i));
                w.nested(2, |w| w.attribute(VALUE, half));
            });
        }
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32, word: u32) {
        self.expression("payload", |w| {
            w.u32(1, register(word));
            w.u32(2, base);
            w.u32(3, offset);
            w.u32(4, length);
        });
    }

    fn masked(&mut self, mask: &[u8]) {
        self.expression("bitwise", |w| {
            w.u32(1, register(0));
            w.u32(2, register(0));
            w.u32(3, u32::try_from(mask.len()).unwrap_or_default());
            w.nested(4, |w| w.attribute(VALUE, mask));
            w.nested(5, |w| w.attribute(VALUE, &vec![0; mask.len()]));
            w.u32(6, 0);
        });
    }

    fn compare(&mut self, operator: u32, value: &[u8]) {
        self.expression("cmp", |w| {
            w.u32(1, register(0));
            w.u32(2, operator);
            w.nested(3, |w| w.attribute(VALUE, value));
        });
    }

    fn expression(&mut self, name: &str, data: impl FnOnce(&mut Writer)) {
        self.w.nested(LIST_ELEMENT, |w| {
            w.string(EXPRESSION_NAME, name);
            w.nested(EXPRESSION_DATA, data);
        });
    }
}

/// Attributes of a limit of packets per second.
fn limit(w: &mut Writer, rate: Rate) {
    w.u64(1, rate.per_second.into());
    w.u64(2, 1);
    w.u32(3, rate.burst);
    w.u32(4, 0);
    w.u32(5, 0);
}

fn equality(negated: bool) -> u32 {
    if negated { NOT_EQUAL } else { EQUAL }
}

/// The number of the register that holds the `word`th four bytes: the first of each sixteen has the old name.
fn register(word: u32) -> u32 {
    if word.is_multiple_of(4) { 1 + word / 4 } else { 8 + word }
}
