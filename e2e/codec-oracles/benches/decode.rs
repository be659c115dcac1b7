//! Messages per second on one core, ours beside rustbgpd-wire, netgauze and zettabgp, best of five, in one run.
//!
//! The same UPDATEs for all: twenty kinds of four-octet AS paths, five or six attributes. *decode*: everything that a
//! speaker needs, prefixes as keys included; *canonical*: with the bytes that the RIB interns; *encode*: one message of
//! so many prefixes. The others only decode: *canonical* is what is held against the fastest of them.
//!
//! zettabgp is here for its speed alone: it loops for ever on some malformed messages, so that it cannot be an oracle.

#![allow(clippy::unwrap_used, missing_docs)]

use bytes::Bytes;
use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::wire::deserializer::BgpParsingContext;
use netgauze_parse_utils::reader::SliceReader;
use netgauze_parse_utils::traits::ParseFromWithOneInput;
use rustbgpd_wire::{Message, decode_message};
use std::hint::black_box;
use std::time::{Duration, Instant};
use twill_bgpd::wire::{
    Attributes, Edits, Framer, Negotiated, NextHop, Outcome, Prefixes, Update, UpdateBuilder, V4, Value,
};
use twill_codec_oracles::ours::session;
use zettabgp::prelude::BgpMessage as _;
use zettabgp::prelude::{BgpAddrs, BgpCapability, BgpSessionParams, BgpTransportMode, BgpUpdateMessage};

const KINDS: usize = 20;

fn block(kind: usize) -> Vec<u8> {
    let mut path = vec![2, u8::try_from(2 + kind % 5).unwrap()];
    for hop in 0..2 + kind % 5 {
        path.extend_from_slice(&(65001 + (kind * 100_000 + hop) as u32).to_be_bytes());
    }
    let mut canonical = vec![0x40, 1, 1, 0, 0x40, 2, u8::try_from(path.len()).unwrap()];
    canonical.extend_from_slice(&path);
    let communities = [[0xfd, 0xe9, 0, u8::try_from(kind).unwrap()], [0xfd, 0xe9, 1, 1]];
    let edits = Edits { med: Value::Set(kind as u32), communities: Value::Set(&communities), ..Edits::default() };
    let mut block = Vec::new();
    Attributes::from_canonical(&canonical).export(&edits, true, &mut block);
    block
}

fn messages(prefixes: usize) -> Vec<Vec<u8>> {
    let hop = NextHop::V4([192, 0, 2, 1].into());
    let message = |kind: usize| {
        let mut out = Vec::new();
        let block = block(kind);
        let mut builder = UpdateBuilder::<V4>::announce(&mut out, 4096, &block, hop).unwrap();
        for i in 0..prefixes {
            builder.push((0x0a00_0000 + ((kind * prefixes + i) << 8) as u32, 24));
        }
        assert_eq!(builder.finish(), 1);
        out
    };
    (0..KINDS).map(message).collect()
}

/// Messages per second, best of five runs.
fn rate(messages: &[Vec<u8>], mut one: impl FnMut(&[u8]) -> u64) -> f64 {
    (0..5)
        .map(|_| {
            let (started, mut done, mut sum) = (Instant::now(), 0, 0);
            while started.elapsed() < Duration::from_millis(200) {
                for message in messages {
                    sum += one(black_box(message));
                }
                done += messages.len();
            }
            black_box(sum);
            done as f64 / started.elapsed().as_secs_f64()
        })
        .fold(0.0, f64::max)
}

fn decode(message: &[u8], session: &Negotiated, canonical: Option<&mut Vec<u8>>) -> u64 {
    let frame = Framer::new(message, 4096).next_frame().unwrap().unwrap();
    let update = Update::decode(frame.bytes, session).unwrap();
    let mut sum = 0;
    if let (Outcome::Routes(block), Some(canonical)) = (&update.outcome, canonical) {
        canonical.clear();
        block.write_canonical(canonical);
        sum += u64::from(Attributes::from_canonical(canonical).as_path.length());
    }
    for reach in update.announced() {
        if let Prefixes::V4(prefixes) = reach.prefixes {
            for (address, len) in prefixes {
                sum += u64::from(address ^ u32::from(len));
            }
        }
    }
    sum
}

fn rustbgpd(message: &[u8]) -> u64 {
    let Ok(Message::Update(update)) = decode_message(&mut Bytes::copy_from_slice(message), 4096) else { panic!() };
    let parsed = update.parse_revised(true, false, false, &[]).unwrap().update;
    parsed.announced.len() as u64 + parsed.attributes.len() as u64
}

fn netgauze(message: &[u8], context: &mut BgpParsingContext) -> u64 {
    let Ok(BgpMessage::Update(update)) = BgpMessage::parse(&mut SliceReader::new(message), context) else { panic!() };
    update.nlri().len() as u64 + update.path_attributes().len() as u64
}

/// Behind its header, as it wants it.
fn zettabgp(message: &[u8], session: &BgpSessionParams) -> u64 {
    let mut update = BgpUpdateMessage::new();
    update.decode_from(session, &message[19..]).unwrap();
    let BgpAddrs::IPV4U(prefixes) = &update.updates else { panic!("no IPv4 prefixes") };
    prefixes.len() as u64 + update.attrs.len() as u64
}

fn main() {
    let session = session(true, true);
    let capabilities = vec![BgpCapability::SafiIPv4u, BgpCapability::CapASN32(65001)];
    let mut theirs = BgpSessionParams::new(65001, 90, BgpTransportMode::IPv4, [10, 0, 0, 2].into(), capabilities);
    // Else it would look for path identifiers.
    theirs.fuzzy_pathid = false;
    println!(
        "{:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}  canonical beside the fastest of the others; prefixes",
        "prefixes", "decode", "canonical", "encode", "rustbgpd", "netgauze", "zettabgp"
    );
    for prefixes in [1, 50, 950] {
        let messages = messages(prefixes);
        let ours = rate(&messages, |message| decode(message, &session, None));
        let mut buffer = Vec::new();
        let canonical = rate(&messages, |message| decode(message, &session, Some(&mut buffer)));
        let (block, mut out) = (block(7), Vec::new());
        let hop = NextHop::V4([192, 0, 2, 1].into());
        let encode = rate(&messages, |_| {
            out.clear();
            let mut builder = UpdateBuilder::<V4>::announce(&mut out, 4096, &block, hop).unwrap();
            for i in 0..prefixes as u32 {
                builder.push((0x0a00_0000 + (i << 8), 24));
            }
            builder.finish() as u64
        });
        let rustbgpd = rate(&messages, rustbgpd);
        let mut context = BgpParsingContext::default();
        let netgauze = rate(&messages, |message| netgauze(message, &mut context));
        let zettabgp = rate(&messages, |message| zettabgp(message, &theirs));
        println!(
            "{prefixes:>8} {:>8.0}k {:>8.0}k {:>8.0}k {:>8.0}k {:>8.0}k {:>8.0}k  {:.1} x, {:.0}M prefixes/s",
            ours / 1e3,
            canonical / 1e3,
            encode / 1e3,
            rustbgpd / 1e3,
            netgauze / 1e3,
            zettabgp / 1e3,
            canonical / rustbgpd.max(netgauze).max(zettabgp),
            canonical * prefixes as f64 / 1e6,
        );
    }
}
