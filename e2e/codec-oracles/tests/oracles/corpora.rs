//! Messages of other projects' test suites. They are not part of this repository: `TWILL_CORPORA` names the directory
//! that contains `bgp/`, otherwise `../shared/corpora` beside the repository is tried.

use crate::model::Update as Meaning;
use crate::updates::join;
use crate::{bgp_rs_codec, netgauze, ours, rustbgpd};
use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::path::PathBuf;
use twill_bgpd::wire::{AttributeSet, Framer, MessageType, Negotiated, Open, Outcome, Prefixes, RouteRefresh, Update};
use twill_codec_oracles::fuzz::swallow;

fn corpora() -> PathBuf {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/corpora");
    let directory = PathBuf::from(std::env::var_os("TWILL_CORPORA").unwrap_or_else(|| beside.into())).join("bgp");
    assert!(
        directory.is_dir(),
        "{} is missing: set TWILL_CORPORA to the directory with the test inputs of other projects",
        directory.display()
    );
    directory
}

fn exabgp() -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(corpora().join("exabgp-qa-raw.hex")).unwrap();
    let octet = |pair: &str| u8::from_str_radix(pair, 16).unwrap();
    text.lines().map(|line| (0..line.len() / 2).map(|at| octet(&line[2 * at..2 * at + 2])).collect()).collect()
}

/// Everything that an UPDATE says, for comparison: prefixes and canonical attributes.
fn digest(message: &[u8], session: &Negotiated) -> Option<(Vec<String>, Vec<u8>, AttributeSet)> {
    let update = Update::decode(message, session).ok()?;
    let one = |prefixes: Prefixes<'_>| match prefixes {
        Prefixes::V4(list) => format!("{:?}", list.collect::<Vec<_>>()),
        Prefixes::V6(list) => format!("{:?}", list.collect::<Vec<_>>()),
    };
    let mut said: Vec<String> = update.withdrawn().map(one).collect();
    said.extend(update.announced().map(|reach| format!("{} {:?}", one(reach.prefixes), reach.next_hop)));
    let mut canonical = Vec::new();
    if let Outcome::Routes(block) = update.outcome {
        block.write_canonical(&mut canonical);
    }
    Some((said, canonical, update.discarded))
}

#[test]
#[cfg_attr(not(corpora), ignore = "needs the test inputs of other projects: TWILL_CORPORA=DIR cargo test -- --ignored")]
fn exabgps_messages_neither_panic_nor_change_over_a_round_trip() {
    let messages = exabgp();
    assert!(messages.len() >= 250);
    let mut counts = BTreeMap::<&str, usize>::new();
    for message in &messages {
        let frame = match Framer::new(message, 65535).next_frame() {
            Ok(Some(frame)) => frame,
            other => {
                *counts.entry("no frame").or_default() += 1;
                assert!(other.is_err(), "cut off: {message:02x?}");
                continue;
            }
        };
        let class = match frame.kind {
            MessageType::Open => {
                let open = Open::decode(frame.bytes).unwrap();
                let mut again = Vec::new();
                open.encode(&mut again);
                assert_eq!(Open::decode(&again).unwrap(), open);
                "OPEN"
            }
            MessageType::Update => update_class(frame.bytes),
            MessageType::RouteRefresh => {
                assert!(RouteRefresh::decode(frame.bytes, true).is_ok());
                "ROUTE-REFRESH"
            }
            _ => "other",
        };
        *counts.entry(class).or_default() += 1;
    }
    println!("{counts:?}");
    let of = |class| counts.get(class).copied().unwrap_or_default();
    assert!(of("routes") + of("withdrawals or End-of-RIB") >= 80, "{counts:?}");
}

/// Decodes, encodes again by way of the canonical form, and compares; then asks netgauze whether it had been valid.
fn update_class(message: &[u8]) -> &'static str {
    for (ebgp, four) in [(true, true), (false, true), (true, false), (false, false)] {
        let session = Negotiated { extended_message: true, ..ours::session(ebgp, four) };
        if let Some((said, canonical, _)) = digest(message, &session)
            && !canonical.is_empty()
        {
            let update = ours::routes(message, &session);
            let again: Vec<u8> = update.iter().flat_map(|update| ours::encode(update, &session)).collect();
            let (mut said_again, mut canonical_again) = (Vec::new(), Vec::new());
            for message in ours::split(&again) {
                let (prefixes, attributes, _) = digest(message, &session).unwrap();
                said_again.extend(prefixes);
                canonical_again = attributes;
            }
            assert_eq!((said_again, canonical_again), (said, canonical), "{message:02x?}");
        }
    }
    let session = ours::session(false, true);
    match Update::decode(message, &session) {
        Err(_) => "reset",
        Ok(update) if update.end_of_rib.is_some() => "withdrawals or End-of-RIB",
        Ok(update) => match update.outcome {
            Outcome::Routes(_) => "routes",
            Outcome::TreatAsWithdraw(_) => "treat-as-withdraw",
            Outcome::Nothing if update.withdrawn().count() > 0 => "withdrawals or End-of-RIB",
            Outcome::Nothing => {
                assert!(netgauze::decode(message, true).is_some() || message.len() > 23);
                "families that were not negotiated"
            }
        },
    }
}

/// An independent decoder.
struct Oracle {
    name: &'static str,
    /// What of a meaning it can be trusted with.
    narrow: fn(Meaning) -> Meaning,
    read: fn(&[u8]) -> Vec<Meaning>,
    /// Of how many of ExaBGP's messages at least it has a word, of both forms.
    words: usize,
}

const ORACLES: [Oracle; 3] = [
    Oracle { name: "rustbgpd-wire", narrow: |said| said, read: |message| rustbgpd::meaning(message, true), words: 118 },
    Oracle { name: "netgauze", narrow: |said| said, read: netgauze::meaning, words: 106 },
    Oracle { name: "bgp-rs", narrow: bgp_rs_codec::safe, read: bgp_rs_codec::meaning, words: 118 },
];

impl Oracle {
    /// What it reads in all of these messages; none: it refuses one, or one is beyond its adaptor.
    fn reads(&self, bytes: &[u8]) -> Option<Vec<Meaning>> {
        let each = |message: &&[u8]| catch_unwind(|| (self.read)(message)).ok();
        Some(join(ours::split(bytes).iter().map(each).collect::<Option<Vec<_>>>()?.concat()))
    }
}

#[test]
#[cfg_attr(not(corpora), ignore = "needs the test inputs of other projects: TWILL_CORPORA=DIR cargo test -- --ignored")]
fn three_decoders_read_exabgps_messages_and_what_we_make_of_them_as_we_do() {
    let session = Negotiated { extended_message: true, ..ours::session(false, true) };
    let mut words = [0; ORACLES.len()];
    for message in exabgp() {
        let Some(said) = whole(&message, &session) else { continue };
        for (oracle, words) in ORACLES.iter().zip(&mut words) {
            let narrow: Vec<_> = said.iter().cloned().map(oracle.narrow).collect();
            if narrow == said {
                let Some(theirs) = oracle.reads(&message) else { continue };
                assert_eq!(theirs, said, "{} of {message:02x?}", oracle.name);
            }
            let again: Vec<u8> = narrow.iter().flat_map(|update| ours::encode(update, &session)).collect();
            let Some(theirs) = oracle.reads(&again) else { continue };
            assert_eq!(theirs, narrow, "{} of {again:02x?}, which is what we make of {message:02x?}", oracle.name);
            *words += 1;
        }
    }
    for (oracle, words) in ORACLES.iter().zip(words) {
        assert!(words >= oracle.words, "{} has a word of only {words} messages", oracle.name);
    }
}

/// What we read in a message that is well-formed throughout and speaks of families of ours alone; none: it is not.
fn whole(message: &[u8], session: &Negotiated) -> Option<Vec<Meaning>> {
    let frame = Framer::new(message, session.max_message()).next_frame().ok()??;
    if frame.kind != MessageType::Update {
        return None;
    }
    let update = Update::decode(frame.bytes, session).ok()?;
    let judged = matches!(update.outcome, Outcome::TreatAsWithdraw(_)) || !update.discarded.is_empty();
    if judged || update.end_of_rib.is_some() {
        return None;
    }
    Some(join(ours::routes(message, session))).filter(|said| !said.is_empty())
}

#[test]
#[cfg_attr(not(corpora), ignore = "needs the test inputs of other projects: TWILL_CORPORA=DIR cargo test -- --ignored")]
fn what_crashed_gobgp_does_not_crash_us() {
    let mut files = 0;
    for file in std::fs::read_dir(corpora().join("bad-len")).unwrap() {
        let mut bytes = std::fs::read(file.unwrap().path()).unwrap();
        for session in [ours::session(true, true), ours::session(false, false)] {
            swallow(&bytes, &session);
        }
        // GoBGP does not look at the marker and takes the length from the file; we do neither.
        bytes[..16].fill(0xff);
        let length = u16::try_from(bytes.len()).unwrap();
        bytes[16..18].copy_from_slice(&length.to_be_bytes());
        for kind in 1..=5 {
            bytes[18] = kind;
            for session in [ours::session(true, true), ours::session(false, false)] {
                swallow(&bytes, &session);
            }
        }
        files += 1;
    }
    assert!(files >= 11);
}
