//! Traffic control in the kernel's bytes (`linux/pkt_sched.h`, `linux/pkt_cls.h`, `linux/tc_act/tc_mirred.h`).

use crate::io::netfilter::attributes;
use crate::io::rtnl::Rtnl;
use crate::workload::Limit;
use netlink_packet_core::{DefaultNla, Nla};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};
use std::collections::BTreeMap;
use std::io;

const OPTIONS: u16 = 2;
const NESTED: u16 = 0x8000;
const ROOT: u32 = 0xffff_ffff;
const INGRESS: u32 = 0xffff_fff1;
/// Ours on each device, `1:`.
const BUCKET_HANDLE: u32 = 0x0001_0000;
const INGRESS_HANDLE: u32 = 0xffff_0000;

const TBF: &str = "tbf";
const TBF_PARMS: u16 = 1;
const TBF_RATE64: u16 = 4;
const TBF_BURST: u16 = 6;
/// `TC_LINKLAYER_ETHERNET`: the kernel reckons by itself, without a table.
const ETHERNET: u8 = 1;
/// Where `rate`, `limit` and `buffer` are in `struct tc_tbf_qopt`, and its length.
const TBF_RATE: usize = 8;
const TBF_LIMIT: usize = 24;
const TBF_BUFFER: usize = 28;
const TBF_LENGTH: usize = 36;
/// What waits in a bucket's queue is on its way within so many milliseconds, a burst aside.
const PATIENCE: u64 = 25;
/// Nanoseconds of one of the scheduler's ticks.
const TICK: u64 = 64;

const U32_SELECTOR: u16 = 5;
const U32_ACTION: u16 = 7;
const ACTION_KIND: u16 = 1;
const ACTION_OPTIONS: u16 = 2;
const MIRRED_PARMS: u16 = 2;
/// Where `action`, `eaction` and `ifindex` are in `struct tc_mirred`, and its length.
const MIRRED_ACTION: usize = 8;
const MIRRED_EGRESS: usize = 20;
const MIRRED_INDEX: usize = 24;
const MIRRED_LENGTH: usize = 28;
const STOLEN: i32 = 4;
const REDIRECT_OUT: i32 = 1;
/// Priority 1 and every protocol, as filters are named.
const EVERYTHING: u32 = 1 << 16 | (3u16.to_be() as u32);

/// What an interface has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Disciplines {
    /// A token bucket at its root.
    pub(super) bucket: Option<Limit>,
    /// Something for what comes in by it.
    pub(super) ingress: bool,
}

/// Names what an interface sends by.
pub(super) fn root(index: u32) -> TcMessage {
    message(index, ROOT, 0)
}

/// The discipline that filters of what comes in hang on.
pub(super) fn ingress(index: u32) -> TcMessage {
    let mut message = message(index, INGRESS, INGRESS_HANDLE);
    message.attributes.push(TcAttribute::Kind("ingress".to_owned()));
    message
}

/// A token bucket at the root of an interface.
pub(super) fn token_bucket(index: u32, limit: &Limit) -> TcMessage {
    let mut parms = [0; TBF_LENGTH];
    parms[1] = ETHERNET;
    let rate = u32::try_from(limit.rate).unwrap_or(u32::MAX);
    parms[TBF_RATE..TBF_RATE + 4].copy_from_slice(&rate.to_ne_bytes());
    parms[TBF_LIMIT..TBF_LIMIT + 4].copy_from_slice(&queue(limit).to_ne_bytes());
    let mut options = attribute(TBF_PARMS, &parms);
    options.extend(attribute(TBF_RATE64, &limit.rate.to_ne_bytes()));
    options.extend(attribute(TBF_BURST, &limit.burst.to_ne_bytes()));
    let mut message = message(index, ROOT, BUCKET_HANDLE);
    message.attributes.push(TcAttribute::Kind(TBF.to_owned()));
    message.attributes.push(TcAttribute::Other(DefaultNla::new(OPTIONS | NESTED, options)));
    message
}

/// Leads all that comes in by one interface to another.
pub(super) fn filter(index: u32, to: u32) -> TcMessage {
    // One key, whose mask looks at nothing: the first flag says that the verdict is final.
    let mut selector = [0; 32];
    (selector[0], selector[2]) = (1, 1);
    let mut parms = [0; MIRRED_LENGTH];
    parms[MIRRED_ACTION..MIRRED_ACTION + 4].copy_from_slice(&STOLEN.to_ne_bytes());
    parms[MIRRED_EGRESS..MIRRED_EGRESS + 4].copy_from_slice(&REDIRECT_OUT.to_ne_bytes());
    parms[MIRRED_INDEX..].copy_from_slice(&to.to_ne_bytes());
    let mut action = attribute(ACTION_KIND, b"mirred\0");
    action.extend(attribute(ACTION_OPTIONS | NESTED, &attribute(MIRRED_PARMS, &parms)));
    let mut options = attribute(U32_SELECTOR, &selector);
    options.extend(attribute(U32_ACTION | NESTED, &attribute(1 | NESTED, &action)));
    let mut message = message(index, INGRESS_HANDLE, 0);
    message.header.info = EVERYTHING;
    message.attributes.push(TcAttribute::Kind("u32".to_owned()));
    message.attributes.push(TcAttribute::Other(DefaultNla::new(OPTIONS | NESTED, options)));
    message
}

/// Reads what all interfaces have: the kernel does not tell of one.
pub(super) fn disciplines(rtnl: &mut Rtnl) -> io::Result<BTreeMap<u32, Disciplines>> {
    let mut all: BTreeMap<u32, Disciplines> = BTreeMap::new();
    for answer in rtnl.dump(RouteNetlinkMessage::GetQueueDiscipline(message(0, 0, 0)))? {
        let RouteNetlinkMessage::NewQueueDiscipline(one) = answer else { continue };
        let found = all.entry(one.header.index.cast_unsigned()).or_default();
        let parent = u32::from(one.header.parent);
        found.ingress |= parent == INGRESS;
        if parent == ROOT {
            found.bucket = options_of(&one, TBF).and_then(|options| read_bucket(&options));
        }
    }
    Ok(all)
}

/// The interface to which what comes in by another is led.
pub(super) fn led_to(rtnl: &mut Rtnl, index: u32) -> io::Result<Option<u32>> {
    let mut ask = message(index, INGRESS_HANDLE, 0);
    ask.header.info = 0;
    for answer in rtnl.dump(RouteNetlinkMessage::GetTrafficFilter(ask))? {
        let RouteNetlinkMessage::NewTrafficFilter(one) = answer else { continue };
        let mut bytes = Vec::new();
        for attribute in &one.attributes {
            if let TcAttribute::Options(options) = attribute {
                bytes.extend(options.iter().flat_map(emitted));
            }
        }
        let led = attributes(&bytes).find(|(kind, ..)| *kind == U32_ACTION).and_then(|(_, value, _)| redirected(value));
        if led.is_some() {
            return Ok(led);
        }
    }
    Ok(None)
}

/// Whether a bucket is as it was asked for. The kernel keeps a burst as time, so it comes back somewhat smaller or larger.
pub(super) fn fits(wanted: Option<Limit>, found: Option<Limit>) -> bool {
    match (wanted, found) {
        (None, None) => true,
        (Some(wanted), Some(found)) => {
            let tolerance = wanted.burst / 50 + 64;
            wanted.rate == found.rate && wanted.burst.abs_diff(found.burst) <= tolerance
        }
        _ => false,
    }
}

fn queue(limit: &Limit) -> u32 {
    let waiting = limit.rate.saturating_mul(PATIENCE) / 1000;
    u32::try_from(waiting.saturating_add(limit.burst.into())).unwrap_or(u32::MAX)
}

fn read_bucket(options: &[u8]) -> Option<Limit> {
    let of = |wanted: u16| attributes(options).find(|(kind, ..)| *kind == wanted).map(|(_, value, _)| value);
    let parms = of(TBF_PARMS).filter(|parms| parms.len() >= TBF_LENGTH)?;
    let number = |at: usize| parms.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes).map(u64::from);
    let wide = of(TBF_RATE64).and_then(|bytes| bytes.try_into().ok()).map(u64::from_ne_bytes);
    let rate = wide.or_else(|| number(TBF_RATE))?;
    let burst = u128::from(number(TBF_BUFFER)?) * u128::from(TICK) * u128::from(rate) / 1_000_000_000;
    let limit = Limit { rate, burst: u32::try_from(burst).unwrap_or(u32::MAX) };
    // A queue of another length is another's bucket.
    let length = queue(&limit);
    (u64::from(length).abs_diff(number(TBF_LIMIT)?) <= u64::from(length / 50 + 64)).then_some(limit)
}

fn redirected(actions: &[u8]) -> Option<u32> {
    let (_, first, _) = attributes(actions).next()?;
    let (_, options, _) = attributes(first).find(|(kind, ..)| *kind == ACTION_OPTIONS)?;
    let (_, parms, _) = attributes(options).find(|(kind, ..)| *kind == MIRRED_PARMS)?;
    parms.get(MIRRED_INDEX..MIRRED_LENGTH)?.try_into().ok().map(u32::from_ne_bytes)
}

fn options_of(message: &TcMessage, kind: &str) -> Option<Vec<u8>> {
    let is_kind = |one: &TcAttribute| matches!(one, TcAttribute::Kind(name) if name == kind);
    message.attributes.iter().any(is_kind).then_some(())?;
    message.attributes.iter().find_map(|one| match one {
        TcAttribute::Options(options) => match options.first()? {
            TcOption::Other(all) => Some(value(all)),
            _ => None,
        },
        _ => None,
    })
}

fn value(attribute: &impl Nla) -> Vec<u8> {
    let mut bytes = vec![0; attribute.value_len()];
    attribute.emit_value(&mut bytes);
    bytes
}

fn emitted(option: &TcOption) -> Vec<u8> {
    attribute(option.kind(), &value(option))
}

fn message(index: u32, parent: u32, handle: u32) -> TcMessage {
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.parent = TcHandle::from(parent);
    message.header.handle = TcHandle::from(handle);
    message
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(value.len() + 8);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
