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
/// Ours on each device, `7477:` ("tw"): others who limit an interface, the plugin `bandwidth` among them, take `1:`.
const BUCKET_HANDLE: u32 = 0x7477_0000;
const INGRESS_HANDLE: u32 = 0xffff_0000;
/// Where filters of what comes in hang, under `ingress` and `clsact` alike.
const INCOMING: u32 = 0xffff_fff2;

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
/// Seconds of a rate that a burst may last: the kernel tells of it in 32 bits of ticks, which are over after 274.
const LONGEST_BURST: u64 = 270;

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
/// Of our filter, which is known by it: late, so that what others hang there is asked first, as it would be without us.
const PRIORITY: u32 = 0x7477;
/// That priority and every protocol, as filters are named.
const EVERYTHING: u32 = PRIORITY << 16 | (3u16.to_be() as u32);
const U32: &str = "u32";

/// What an interface has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Disciplines {
    /// Our token bucket at its root.
    pub(super) bucket: Option<Limit>,
    /// Something for what comes in by it, anybody's.
    pub(super) ingress: bool,
}

/// The filters of what comes in by an interface.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Filters {
    /// The interface to which ours leads; 0 if that is gone, none if there is no filter of ours.
    pub(super) led_to: Option<u32>,
    /// Whether there are others'.
    pub(super) others: bool,
}

/// What of a limit the kernel can hold: as it is, but for a burst that would last too long.
pub(super) fn possible(limit: Limit) -> Limit {
    let longest = u32::try_from(limit.rate.saturating_mul(LONGEST_BURST)).unwrap_or(u32::MAX);
    Limit { burst: limit.burst.min(longest), ..limit }
}

/// Names our token bucket at the root of an interface; one with another handle is not meant.
pub(super) fn root(index: u32) -> TcMessage {
    message(index, ROOT, BUCKET_HANDLE)
}

/// The discipline that filters of what comes in hang on.
pub(super) fn ingress(index: u32) -> TcMessage {
    let mut message = message(index, INGRESS, INGRESS_HANDLE);
    message.attributes.push(TcAttribute::Kind("ingress".to_owned()));
    message
}

/// A token bucket at the root of an interface, as far as the limit is [`possible`].
pub(super) fn token_bucket(index: u32, limit: &Limit) -> TcMessage {
    let limit = &possible(*limit);
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
    let mut message = our_filter(index);
    message.attributes.push(TcAttribute::Other(DefaultNla::new(OPTIONS | NESTED, options)));
    message
}

/// Names our filter of what comes in by an interface.
pub(super) fn our_filter(index: u32) -> TcMessage {
    let mut message = message(index, INCOMING, 0);
    message.header.info = EVERYTHING;
    message.attributes.push(TcAttribute::Kind(U32.to_owned()));
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
        if parent == ROOT && u32::from(one.header.handle) == BUCKET_HANDLE {
            found.bucket = options_of(&one, TBF).and_then(|options| read_bucket(&options));
        }
    }
    Ok(all)
}

/// Reads the filters of what comes in by an interface; there are none where nothing is that they could hang on.
pub(super) fn filters(rtnl: &mut Rtnl, index: u32) -> io::Result<Filters> {
    let mut found = Filters::default();
    for answer in rtnl.dump(RouteNetlinkMessage::GetTrafficFilter(message(index, INCOMING, 0)))? {
        let RouteNetlinkMessage::NewTrafficFilter(one) = answer else { continue };
        let ours = one.header.info >> 16 == PRIORITY && is_kind(&one, U32);
        found.others |= !ours;
        if ours {
            // Its hash tables are told of, too, and lead nowhere.
            found.led_to = found.led_to.max(Some(led_to(&one).unwrap_or_default()));
        }
    }
    Ok(found)
}

fn led_to(filter: &TcMessage) -> Option<u32> {
    let mut bytes = Vec::new();
    for attribute in &filter.attributes {
        if let TcAttribute::Options(options) = attribute {
            bytes.extend(options.iter().flat_map(emitted));
        }
    }
    attributes(&bytes).find(|(kind, ..)| *kind == U32_ACTION).and_then(|(_, value, _)| redirected(value))
}

/// Whether a bucket is as it was asked for. The kernel keeps a burst as time, so it comes back somewhat smaller or larger.
pub(super) fn fits(wanted: Option<Limit>, found: Option<Limit>) -> bool {
    match (wanted, found) {
        (None, None) => true,
        (Some(wanted), Some(found)) => {
            let wanted = possible(wanted);
            let apart = u64::from(wanted.burst.abs_diff(found.burst));
            wanted.rate == found.rate && apart <= tolerance(wanted.burst, wanted.rate)
        }
        _ => false,
    }
}

/// How far so many bytes at a rate may come back from what was said: a part of them, and two ticks.
fn tolerance(bytes: u32, rate: u64) -> u64 {
    u64::from(bytes / 50 + 64) + rate.saturating_mul(2 * TICK) / 1_000_000_000
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
    (u64::from(length).abs_diff(number(TBF_LIMIT)?) <= tolerance(length, rate)).then_some(limit)
}

fn redirected(actions: &[u8]) -> Option<u32> {
    let (_, first, _) = attributes(actions).next()?;
    let (_, options, _) = attributes(first).find(|(kind, ..)| *kind == ACTION_OPTIONS)?;
    let (_, parms, _) = attributes(options).find(|(kind, ..)| *kind == MIRRED_PARMS)?;
    parms.get(MIRRED_INDEX..MIRRED_LENGTH)?.try_into().ok().map(u32::from_ne_bytes)
}

fn options_of(message: &TcMessage, kind: &str) -> Option<Vec<u8>> {
    is_kind(message, kind).then_some(())?;
    message.attributes.iter().find_map(|one| match one {
        TcAttribute::Options(options) => match options.first()? {
            TcOption::Other(all) => Some(value(all)),
            _ => None,
        },
        _ => None,
    })
}

fn is_kind(message: &TcMessage, kind: &str) -> bool {
    message.attributes.iter().any(|one| matches!(one, TcAttribute::Kind(name) if name == kind))
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What the kernel tells of a bucket that it was given, by `tbf_change` and `tbf_dump`: the burst as ticks, cut to 32 bits.
    fn told(given: &TcMessage) -> Vec<u8> {
        let options = given.attributes.iter().find_map(|one| match one {
            TcAttribute::Other(nla) => Some(value(nla)),
            _ => None,
        });
        let options = options.unwrap();
        let of = |wanted: u16| attributes(&options).find(|(kind, ..)| *kind == wanted).unwrap().1.to_vec();
        let rate = u64::from_ne_bytes(of(TBF_RATE64).try_into().unwrap());
        let burst = u32::from_ne_bytes(of(TBF_BURST).try_into().unwrap());
        let ticks = u128::from(burst) * 1_000_000_000 / u128::from(rate) / u128::from(TICK);
        let mut parms = of(TBF_PARMS);
        parms[TBF_BUFFER..TBF_BUFFER + 4].copy_from_slice(&((ticks & 0xffff_ffff) as u32).to_ne_bytes());
        let mut told = attribute(TBF_PARMS, &parms);
        if rate >= 1 << 32 {
            told.extend(attribute(TBF_RATE64, &rate.to_ne_bytes()));
        }
        told
    }

    #[test]
    fn what_the_kernel_tells_of_a_bucket_is_what_it_was_given_however_slow_or_fast() {
        for rate in [125, 400, 475, 1000, 125_000, 12_500_000, 12_500_000_000, 1 << 40] {
            for burst in [1514, 128 * 1024, 1 << 24, u32::MAX] {
                let limit = Limit { rate, burst };
                let found = read_bucket(&told(&token_bucket(3, &limit)));
                assert!(fits(Some(limit), found), "{limit:?} {found:?}");
                let other = Limit { rate: rate + 1, burst };
                assert!(!fits(Some(other), found));
            }
        }
    }

    #[test]
    fn a_burst_that_would_last_too_long_is_shortened_and_no_other() {
        let slow = Limit { rate: 125, burst: 128 * 1024 };
        assert_eq!(possible(slow), Limit { rate: 125, burst: 33_750 });
        let usual = Limit { rate: 5_000_000, burst: 250_000 };
        assert_eq!(possible(usual), usual);
        assert_eq!(possible(Limit { rate: u64::MAX, burst: u32::MAX }).burst, u32::MAX);
    }
}
