//! Malformed UPDATEs: what RFC 7606 makes of them, in our reading, and in that of rustbgpd-wire.

use crate::ours;
use bytes::Bytes;
use rustbgpd_wire::validate::{ErrorDisposition, validate_update_attributes};
use rustbgpd_wire::{Message, decode_message};
use std::collections::BTreeMap;
use twill_bgpd::wire::{Negotiated, Outcome};

/// The approach taken, with the subcode of UPDATE Message Error where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Approach {
    Keep,
    Discard,
    Withdraw(u8),
    Reset(u8),
}
use Approach::{Discard, Keep, Reset, Withdraw};

/// A session, by what the outcome depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum On {
    Ebgp,
    Ibgp,
    /// eBGP with a peer of two-octet AS numbers.
    TwoOctet,
}
use On::{Ebgp, Ibgp, TwoOctet};

fn session(on: On) -> Negotiated {
    ours::session(on != Ibgp, on != TwoOctet)
}

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// One attribute that replaces the well-formed one of its type, or is added, on an announcement of 203.0.113.0/24.
const CASES: &[(&str, On, &str, Approach)] = &[
    ("ORIGIN without value", Ebgp, "40 01 00", Withdraw(5)),
    ("ORIGIN of two octets", Ebgp, "40 01 02 0000", Withdraw(5)),
    ("ORIGIN 3", Ebgp, "40 01 01 03", Withdraw(6)),
    ("ORIGIN 255", Ebgp, "40 01 01 ff", Withdraw(6)),
    ("ORIGIN optional", Ebgp, "c0 01 01 00", Withdraw(4)),
    ("ORIGIN non-transitive", Ebgp, "00 01 01 00", Withdraw(4)),
    ("ORIGIN optional non-transitive", Ebgp, "80 01 01 00", Withdraw(4)),
    ("ORIGIN partial", Ebgp, "60 01 01 00", Keep),
    ("ORIGIN with extended length", Ebgp, "50 01 0001 02", Keep),
    ("ORIGIN with unused flag bits", Ebgp, "4f 01 01 02", Keep),
    ("AS_PATH segment of type 0", Ebgp, "40 02 06 0001 0000fde9", Withdraw(11)),
    ("AS_PATH segment of type 5", Ebgp, "40 02 06 0501 0000fde9", Withdraw(11)),
    ("AS_PATH with AS_CONFED_SEQUENCE", Ebgp, "40 02 06 0301 0000fde9", Withdraw(11)),
    ("AS_PATH with AS_CONFED_SET", Ibgp, "40 02 06 0401 0000fde9", Withdraw(11)),
    ("AS_PATH that overruns", Ebgp, "40 02 06 0202 0000fde9", Withdraw(11)),
    ("AS_PATH with an octet left", Ebgp, "40 02 07 0201 0000fde9 02", Withdraw(11)),
    ("AS_PATH with an empty segment", Ebgp, "40 02 02 0200", Withdraw(11)),
    ("AS_PATH with an empty segment behind", Ebgp, "40 02 08 0201 0000fde9 0200", Withdraw(11)),
    ("AS_PATH with AS 0", Ebgp, "40 02 06 0201 00000000", Withdraw(11)),
    ("AS_PATH with AS 0 behind", Ebgp, "40 02 0a 0202 0000fde9 00000000", Withdraw(11)),
    ("AS_PATH in two octets", Ebgp, "40 02 04 0201 fde9", Withdraw(11)),
    ("AS_PATH in four octets", TwoOctet, "40 02 06 0201 0000fde9", Withdraw(11)),
    ("AS_PATH with AS 0 in two octets", TwoOctet, "40 02 04 0201 0000", Withdraw(11)),
    ("AS_PATH optional", Ebgp, "c0 02 06 0201 0000fde9", Withdraw(4)),
    ("AS_PATH non-transitive", Ebgp, "00 02 06 0201 0000fde9", Withdraw(4)),
    ("AS_PATH empty", Ebgp, "40 02 00", Keep),
    ("AS_PATH with AS_SET", Ebgp, "40 02 0c 0201 0000fde9 0101 0000fdea", Keep),
    ("NEXT_HOP without value", Ebgp, "40 03 00", Withdraw(5)),
    ("NEXT_HOP of three octets", Ebgp, "40 03 03 c00002", Withdraw(5)),
    ("NEXT_HOP of five octets", Ebgp, "40 03 05 c000020101", Withdraw(5)),
    ("NEXT_HOP optional", Ebgp, "c0 03 04 c0000201", Withdraw(4)),
    ("NEXT_HOP 0.0.0.0", Ebgp, "40 03 04 00000000", Withdraw(8)),
    ("NEXT_HOP 0.0.0.9", Ebgp, "40 03 04 00000009", Withdraw(8)),
    ("NEXT_HOP 127.0.0.1", Ebgp, "40 03 04 7f000001", Withdraw(8)),
    ("NEXT_HOP 224.0.0.1", Ebgp, "40 03 04 e0000001", Withdraw(8)),
    ("NEXT_HOP 240.0.0.1", Ebgp, "40 03 04 f0000001", Withdraw(8)),
    ("NEXT_HOP 255.255.255.255", Ebgp, "40 03 04 ffffffff", Withdraw(8)),
    ("MULTI_EXIT_DISC without value", Ebgp, "80 04 00", Withdraw(5)),
    ("MULTI_EXIT_DISC of three octets", Ebgp, "80 04 03 000001", Withdraw(5)),
    ("MULTI_EXIT_DISC of five octets", Ebgp, "80 04 05 0000000001", Withdraw(5)),
    ("MULTI_EXIT_DISC well-known", Ebgp, "40 04 04 00000001", Withdraw(4)),
    ("MULTI_EXIT_DISC transitive", Ebgp, "c0 04 04 00000001", Withdraw(4)),
    ("LOCAL_PREF from outside", Ebgp, "40 05 04 00000064", Discard),
    ("LOCAL_PREF of three octets from outside", Ebgp, "40 05 03 000064", Discard),
    ("LOCAL_PREF optional from outside", Ebgp, "c0 05 04 00000064", Withdraw(4)),
    ("LOCAL_PREF of three octets", Ibgp, "40 05 03 000064", Withdraw(5)),
    ("LOCAL_PREF without value", Ibgp, "40 05 00", Withdraw(5)),
    ("LOCAL_PREF optional", Ibgp, "c0 05 04 00000064", Withdraw(4)),
    ("LOCAL_PREF", Ibgp, "40 05 04 000000c8", Keep),
    ("ATOMIC_AGGREGATE", Ebgp, "40 06 00", Keep),
    ("ATOMIC_AGGREGATE of one octet", Ebgp, "40 06 01 00", Discard),
    ("ATOMIC_AGGREGATE optional", Ebgp, "c0 06 00", Withdraw(4)),
    ("ATOMIC_AGGREGATE non-transitive", Ebgp, "00 06 00", Withdraw(4)),
    ("AGGREGATOR", Ebgp, "c0 07 08 0000fde9 c0000201", Keep),
    ("AGGREGATOR partial", Ebgp, "e0 07 08 0000fde9 c0000201", Keep),
    ("AGGREGATOR of six octets", Ebgp, "c0 07 06 fde9 c0000201", Discard),
    ("AGGREGATOR of six octets in two", TwoOctet, "c0 07 06 fde9 c0000201", Keep),
    ("AGGREGATOR of eight octets in two", TwoOctet, "c0 07 08 0000fde9 c0000201", Discard),
    ("AGGREGATOR of nine octets", Ebgp, "c0 07 09 0000fde9 c000020100", Discard),
    ("AGGREGATOR without value", Ebgp, "c0 07 00", Discard),
    ("AGGREGATOR with AS 0", Ebgp, "c0 07 08 00000000 c0000201", Discard),
    ("AGGREGATOR well-known", Ebgp, "40 07 08 0000fde9 c0000201", Withdraw(4)),
    ("AGGREGATOR non-transitive", Ebgp, "80 07 08 0000fde9 c0000201", Withdraw(4)),
    ("COMMUNITIES without value", Ebgp, "c0 08 00", Withdraw(5)),
    ("COMMUNITIES of three octets", Ebgp, "c0 08 03 fde900", Withdraw(5)),
    ("COMMUNITIES of five octets", Ebgp, "c0 08 05 fde9000100", Withdraw(5)),
    ("COMMUNITIES well-known", Ebgp, "40 08 04 fde90001", Withdraw(4)),
    ("COMMUNITIES non-transitive", Ebgp, "80 08 04 fde90001", Withdraw(4)),
    ("COMMUNITIES", Ebgp, "c0 08 08 fde90001 ffffff01", Keep),
    ("ORIGINATOR_ID from outside", Ebgp, "80 09 04 0a000001", Discard),
    ("ORIGINATOR_ID of three octets from outside", Ebgp, "80 09 03 0a0000", Discard),
    ("ORIGINATOR_ID of three octets", Ibgp, "80 09 03 0a0000", Withdraw(5)),
    ("ORIGINATOR_ID transitive", Ibgp, "c0 09 04 0a000001", Withdraw(4)),
    ("ORIGINATOR_ID", Ibgp, "80 09 04 0a000001", Keep),
    ("CLUSTER_LIST from outside", Ebgp, "80 0a 04 0a000001", Discard),
    ("CLUSTER_LIST of three octets from outside", Ebgp, "80 0a 03 0a0000", Discard),
    ("CLUSTER_LIST without value", Ibgp, "80 0a 00", Withdraw(5)),
    ("CLUSTER_LIST of six octets", Ibgp, "80 0a 06 0a000001 0a00", Withdraw(5)),
    ("CLUSTER_LIST transitive", Ibgp, "c0 0a 04 0a000001", Withdraw(4)),
    ("CLUSTER_LIST", Ibgp, "80 0a 08 0a000001 0a000002", Keep),
    ("MP_REACH_NLRI transitive", Ebgp, "c0 0e 19 0002 01 10 20010db8000000000000000000000001 00 18 200102", Reset(4)),
    ("MP_REACH_NLRI well-known", Ebgp, "40 0e 19 0002 01 10 20010db8000000000000000000000001 00 18 200102", Reset(4)),
    ("MP_REACH_NLRI of four octets", Ebgp, "80 0e 04 0002 01 00", Reset(9)),
    ("MP_REACH_NLRI without value", Ebgp, "80 0e 00", Reset(9)),
    ("MP_REACH_NLRI with a next hop of five octets", Ebgp, "80 0e 0e 0002 01 05 2001020304 00 18 200102", Reset(9)),
    ("MP_REACH_NLRI with a next hop beyond its end", Ebgp, "80 0e 08 0002 01 10 20010db8", Reset(9)),
    (
        "MP_REACH_NLRI with a prefix of 129 bits",
        Ebgp,
        "80 0e 27 0002 01 10 20010db8000000000000000000000001 00 81 2001020000000000000000000000000000",
        Reset(9),
    ),
    ("MP_REACH_NLRI that overruns", Ebgp, "80 0e 18 0002 01 10 20010db8000000000000000000000001 00 18 2001", Reset(9)),
    (
        "MP_REACH_NLRI next hop ::",
        Ebgp,
        "80 0e 19 0002 01 10 00000000000000000000000000000000 00 18 200102",
        Withdraw(8),
    ),
    (
        "MP_REACH_NLRI next hop ::1",
        Ebgp,
        "80 0e 19 0002 01 10 00000000000000000000000000000001 00 18 200102",
        Withdraw(8),
    ),
    (
        "MP_REACH_NLRI next hop ff02::1",
        Ebgp,
        "80 0e 19 0002 01 10 ff020000000000000000000000000001 00 18 200102",
        Withdraw(8),
    ),
    ("MP_REACH_NLRI next hop fe80::1", Ebgp, "80 0e 19 0002 01 10 fe800000000000000000000000000001 00 18 200102", Keep),
    ("MP_REACH_NLRI", Ebgp, "80 0e 19 0002 01 10 20010db8000000000000000000000001 00 18 200102", Keep),
    ("MP_REACH_NLRI of a family not negotiated", Ebgp, "80 0e 0d 0001 02 04 c0000201 00 18 cb0071", Keep),
    (
        "MP_REACH_NLRI of IPv4 with a next hop of 16 octets",
        Ebgp,
        "80 0e 19 0001 01 10 20010db8000000000000000000000001 00 18 cb0072",
        Reset(9),
    ),
    ("MP_UNREACH_NLRI of two octets", Ebgp, "80 0f 02 0002", Reset(9)),
    (
        "MP_UNREACH_NLRI with a prefix of 129 bits",
        Ebgp,
        "80 0f 15 0002 01 81 2001020000000000000000000000000000",
        Reset(9),
    ),
    ("MP_UNREACH_NLRI that overruns", Ebgp, "80 0f 06 0002 01 18 2001", Reset(9)),
    ("MP_UNREACH_NLRI well-known", Ebgp, "40 0f 07 0002 01 18 200102", Reset(4)),
    ("MP_UNREACH_NLRI", Ebgp, "80 0f 07 0002 01 18 200102", Keep),
    ("EXTENDED COMMUNITIES without value", Ebgp, "c0 10 00", Withdraw(5)),
    ("EXTENDED COMMUNITIES of seven octets", Ebgp, "c0 10 07 0002fde9000000", Withdraw(5)),
    ("EXTENDED COMMUNITIES of nine octets", Ebgp, "c0 10 09 0002fde9000000 0100", Withdraw(5)),
    ("EXTENDED COMMUNITIES well-known", Ebgp, "40 10 08 0002fde900000001", Withdraw(4)),
    ("EXTENDED COMMUNITIES of an unknown type", Ebgp, "c0 10 08 3f42fde900000001", Keep),
    ("AS4_PATH in four octets", Ebgp, "c0 11 06 0201 00010000", Discard),
    ("AS4_PATH well-known", Ebgp, "40 11 06 0201 00010000", Discard),
    ("AS4_PATH", TwoOctet, "c0 11 06 0201 00010000", Keep),
    ("AS4_PATH that overruns", TwoOctet, "c0 11 06 0202 00010000", Discard),
    ("AS4_PATH of an unknown type", TwoOctet, "c0 11 06 0701 00010000", Discard),
    ("AS4_PATH without value", TwoOctet, "c0 11 00", Discard),
    ("AS4_PATH with AS 0", TwoOctet, "c0 11 06 0201 00000000", Discard),
    ("AS4_AGGREGATOR in four octets", Ebgp, "c0 12 08 00010000 c0000201", Discard),
    ("AS4_AGGREGATOR", TwoOctet, "c0 12 08 00010000 c0000201", Keep),
    ("AS4_AGGREGATOR of six octets", TwoOctet, "c0 12 06 fde9 c0000201", Discard),
    ("AS4_AGGREGATOR with AS 0", TwoOctet, "c0 12 08 00000000 c0000201", Discard),
    ("IPv6 extended communities of 19 octets", Ebgp, "c0 19 13 00000000000000000000000000000000000000", Withdraw(5)),
    ("IPv6 extended communities without value", Ebgp, "c0 19 00", Withdraw(5)),
    ("IPv6 extended communities", Ebgp, "c0 19 14 0002000000000000000000000000000000000000", Keep),
    ("LARGE_COMMUNITY without value", Ebgp, "c0 20 00", Withdraw(5)),
    ("LARGE_COMMUNITY of eleven octets", Ebgp, "c0 20 0b 0000000100000002000000", Withdraw(5)),
    ("LARGE_COMMUNITY of thirteen octets", Ebgp, "c0 20 0d 00000001000000020000000300", Withdraw(5)),
    ("LARGE_COMMUNITY well-known", Ebgp, "40 20 0c 000000010000000200000003", Withdraw(4)),
    ("LARGE_COMMUNITY", Ebgp, "c0 20 0c 000000010000000200000003", Keep),
    ("unknown optional transitive", Ebgp, "c0 fa 01 00", Keep),
    ("unknown optional non-transitive", Ebgp, "80 fa 01 00", Keep),
    ("unknown well-known", Ebgp, "40 fa 01 00", Withdraw(2)),
    ("unknown neither", Ebgp, "00 fa 01 00", Withdraw(2)),
    ("a last attribute that overruns", Ebgp, "c0 fa 09 00", Withdraw(1)),
    ("a last attribute of extended length that overruns", Ebgp, "d0 fa 0001", Withdraw(1)),
    ("two octets left", Ebgp, "c0 fa", Withdraw(1)),
    ("MP_REACH_NLRI cut off", Ebgp, "80 0e 30 0002", Reset(9)),
    ("ORIGIN twice", Ebgp, "40 01 01 00 40 01 01 02", Discard),
    ("a malformed second ORIGIN", Ebgp, "40 01 01 00 40 01 01 09", Discard),
    ("unknown twice", Ebgp, "c0 fa 01 00 c0 fa 01 01", Discard),
    ("MP_UNREACH_NLRI twice", Ebgp, "80 0f 03 0002 01 80 0f 03 0002 01", Reset(1)),
    ("two errors: the stronger counts", Ebgp, "40 06 01 00 80 04 03 000001", Withdraw(5)),
];

/// Well-formed attributes of an announcement, by type.
fn base(on: On) -> BTreeMap<u8, Vec<u8>> {
    let path = if on == TwoOctet { "40 02 04 0201 fde9" } else { "40 02 06 0201 0000fde9" };
    let mut base = BTreeMap::from([(1, hex("40 01 01 00")), (2, hex(path)), (3, hex("40 03 04 c0000201"))]);
    if on == Ibgp {
        base.insert(5, hex("40 05 04 00000064"));
    }
    base
}

fn message(withdrawn: &[u8], attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let mut out = vec![0xff; 16];
    let length = 23 + withdrawn.len() + attributes.len() + nlri.len();
    out.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
    out.push(2);
    out.extend_from_slice(&u16::try_from(withdrawn.len()).unwrap().to_be_bytes());
    out.extend_from_slice(withdrawn);
    out.extend_from_slice(&u16::try_from(attributes.len()).unwrap().to_be_bytes());
    out.extend_from_slice(attributes);
    out.extend_from_slice(nlri);
    out
}

fn case_message(on: On, attribute: &str) -> Vec<u8> {
    let attribute = hex(attribute);
    let mut all = base(on);
    all.remove(&attribute[1]);
    let mut attributes = all.into_values().flatten().collect::<Vec<u8>>();
    attributes.extend_from_slice(&attribute);
    message(&[], &attributes, &hex("18 cb0071"))
}

fn ours_of(message: &[u8], on: On) -> Approach {
    match ours::decode(message, &session(on)) {
        Err(notification) => {
            assert_eq!(notification.code, 3);
            Reset(notification.subcode)
        }
        Ok(update) => match update.outcome {
            Outcome::TreatAsWithdraw(fault) => {
                assert_eq!(update.announced().count(), 0);
                assert!(update.withdrawn().map(|prefixes| prefixes.len()).sum::<usize>() > 0);
                Withdraw(fault.subcode)
            }
            Outcome::Routes(_) if update.discarded.is_empty() => Keep,
            Outcome::Routes(_) => Discard,
            Outcome::Nothing => panic!("the prefix is lost"),
        },
    }
}

fn theirs_of(message: &[u8], on: On) -> Approach {
    let mut bytes = Bytes::copy_from_slice(message);
    let Ok(Message::Update(update)) = decode_message(&mut bytes, 4096) else { return Reset(0) };
    let Ok(revised) = update.parse_revised(on != TwoOctet, on == Ibgp, false, &[]) else { return Reset(0) };
    let worst = revised.malformed.iter().map(|malformed| malformed.disposition).max();
    let valid = validate_update_attributes(&revised.update.attributes, true, true, on != Ibgp);
    match worst.max(valid.err().map(|error| error.disposition)) {
        None => Keep,
        Some(ErrorDisposition::AttributeDiscard) => Discard,
        Some(ErrorDisposition::TreatAsWithdraw) => Withdraw(0),
        Some(ErrorDisposition::SessionReset) => Reset(0),
    }
}

#[test]
fn every_malformed_attribute_has_its_consequence() {
    assert!(CASES.len() >= 130);
    let wrong: Vec<_> = CASES
        .iter()
        .filter_map(|(name, on, attribute, expected)| {
            let got = ours_of(&case_message(*on, attribute), *on);
            (got != *expected).then(|| format!("{name} on {on:?}: {got:?}, not {expected:?}"))
        })
        .collect();
    assert_eq!(wrong, Vec::<String>::new());
}

/// Where we deliberately differ from rustbgpd-wire, and why.
const DIFFERENCES: &[(&str, &str)] = &[
    ("AS_PATH with AS_SET", "RFC 9774 deprecates AS_SETs; routes with them still exist, and all daemons take them"),
    ("NEXT_HOP 0.0.0.9", "0/8 is no host's address, as FRR has it"),
    ("NEXT_HOP 240.0.0.1", "class E is no host's address, as FRR has it"),
    ("LOCAL_PREF from outside", "RFC 7606 section 7.5 discards it; theirs leaves that to its caller"),
    ("ORIGINATOR_ID from outside", "RFC 7606 section 7.9, likewise"),
    ("CLUSTER_LIST from outside", "RFC 7606 section 7.10, likewise"),
    ("MP_REACH_NLRI next hop fe80::1", "peers on a link have no other address; whether it resolves is not the codec's"),
    ("MP_REACH_NLRI of a family not negotiated", "RFC 4760 section 8 ignores it; theirs knows no negotiation"),
    ("MP_REACH_NLRI of IPv4 with a next hop of 16 octets", "RFC 8950 was not negotiated; theirs knows no negotiation"),
    ("AS4_PATH well-known", "to be dropped on a four-octet session whatever it is (RFC 6793 section 6)"),
];

#[test]
fn rustbgpd_agrees_but_for_what_is_listed() {
    let same = |a: &Approach, b: &Approach| std::mem::discriminant(a) == std::mem::discriminant(b);
    let mut unlisted = Vec::new();
    for (name, on, attribute, expected) in CASES {
        let theirs = theirs_of(&case_message(*on, attribute), *on);
        let listed = DIFFERENCES.iter().any(|(listed, _)| listed == name);
        if same(&theirs, expected) == listed {
            unlisted.push(format!("{name} on {on:?}: theirs {theirs:?}, ours {expected:?}, listed: {listed}"));
        }
    }
    assert_eq!(unlisted, Vec::<String>::new());
}

#[test]
fn missing_mandatory_attributes_withdraw() {
    for missing in [1, 2, 3] {
        let mut all = base(Ebgp);
        all.remove(&missing);
        let attributes: Vec<u8> = all.into_values().flatten().collect();
        let message = message(&[], &attributes, &hex("18 cb0071"));
        assert_eq!(ours_of(&message, Ebgp), Withdraw(3), "without {missing}");
    }
    // Not mandatory in the strict sense, and its default is as good: BIRD takes such routes too.
    let mut all = base(Ibgp);
    all.remove(&5);
    let attributes: Vec<u8> = all.into_values().flatten().collect();
    assert_eq!(ours_of(&message(&[], &attributes, &hex("18 cb0071")), Ibgp), Keep);
}

#[test]
fn next_hop_beside_mp_reach_alone_is_ignored() {
    let mut all = base(Ebgp);
    all.insert(3, hex("40 03 04 00000000"));
    all.insert(14, hex("80 0e 19 0002 01 10 20010db8000000000000000000000001 00 18 200102"));
    let attributes: Vec<u8> = all.into_values().flatten().collect();
    assert_eq!(ours_of(&message(&[], &attributes, &[]), Ebgp), Keep);
}

#[test]
fn an_error_without_reachable_nlri_resets_but_a_discard_does_not() {
    // RFC 7606 section 5.2.
    let withdrawn = hex("18 cb0071");
    let reset = ours::decode(&message(&withdrawn, &hex("40 01 01 09"), &[]), &session(Ebgp)).unwrap_err();
    assert_eq!((reset.code, reset.subcode, &reset.data[..]), (3, 6, &hex("40 01 01 09")[..]));
    let kept = message(&withdrawn, &hex("40 06 01 00"), &[]);
    let update = ours::decode(&kept, &session(Ebgp)).unwrap();
    assert!(update.discarded.contains(6) && matches!(update.outcome, Outcome::Nothing));
    assert_eq!(update.withdrawn().map(|prefixes| prefixes.len()).sum::<usize>(), 1);
}

#[test]
fn prefixes_that_cannot_be_read_reset() {
    let attributes: Vec<u8> = base(Ebgp).into_values().flatten().collect();
    for (withdrawn, nlri) in
        [("", "21 cb00710000"), ("", "18 cb00"), ("", "20 cb0071"), ("21 cb00710000", ""), ("18 cb00", "")]
    {
        let message = message(&hex(withdrawn), &attributes, &hex(nlri));
        let reset = ours::decode(&message, &session(Ebgp)).unwrap_err();
        assert_eq!((reset.code, reset.subcode), (3, 10), "{withdrawn} / {nlri}");
    }
}

#[test]
fn lengths_that_do_not_add_up_reset() {
    let good = message(&hex("18 cb0071"), &hex("40 01 01 00"), &[]);
    for (at, value) in [(19, 0xff), (20, 9), (20, 5), (25, 0xff), (26, 5)] {
        let mut bad = good.clone();
        bad[at] = value;
        let reset = ours::decode(&bad, &session(Ebgp)).unwrap_err();
        assert_eq!(reset.code, 3, "octet {at} = {value}");
        assert!(matches!(reset.subcode, 1 | 10), "octet {at} = {value}: {reset}");
    }
}

#[test]
fn a_reset_names_the_attribute_in_its_data() {
    let attribute = "80 0e 08 0002 01 10 20010db8";
    let reset = ours::decode(&case_message(Ebgp, attribute), &session(Ebgp)).unwrap_err();
    assert_eq!(reset.data, hex(attribute));
}
