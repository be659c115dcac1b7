//! No input panics, hangs, or decodes to something that does not encode to itself.

use crate::model::{Hop, Nlri, Set, Update};
use crate::ours;
use std::time::Instant;
use twill_bgpd::wire::{
    Attributes, Edits, Framer, HEADER_LEN, MessageType, Negotiated, NextHop, Notification, Open, Outcome, PrefixIter,
    PrefixKey, Prefixes, Reach, RouteRefresh, Update as Decoded, UpdateBuilder,
};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn octet(&mut self) -> u8 {
        // Small numbers and extremes are more often special.
        match self.below(4) {
            0 => self.below(33) as u8,
            1 => 0xff,
            _ => self.next() as u8,
        }
    }
}

/// Reads `bytes` as a stream, uses everything that a speaker would use, and checks what was decoded by a round trip.
/// Returns how many UPDATEs carried routes.
pub(crate) fn swallow(bytes: &[u8], session: &Negotiated) -> usize {
    let mut framer = Framer::new(bytes, session.max_message());
    let mut routes = 0;
    while let Ok(Some(frame)) = framer.next_frame() {
        match frame.kind {
            MessageType::Open => {
                if let Ok(open) = Open::decode(frame.bytes) {
                    let mut again = Vec::new();
                    open.encode(&mut again);
                    assert_eq!(Open::decode(&again).as_ref(), Ok(&open), "{:02x?}", frame.bytes);
                }
            }
            MessageType::Notification => {
                let notification = Notification::decode(frame.bytes);
                let _ = (notification.text(), notification.to_string());
            }
            MessageType::RouteRefresh => drop(RouteRefresh::decode(frame.bytes, true)),
            MessageType::Keepalive => {}
            MessageType::Update => routes += usize::from(swallow_update(frame.bytes, session)),
        }
    }
    assert!(framer.consumed() <= bytes.len());
    routes
}

fn count(prefixes: Prefixes<'_>) {
    let expected = prefixes.len();
    let seen = match prefixes {
        Prefixes::V4(list) => list.inspect(|(address, len)| assert!(masked(*address, *len))).count(),
        Prefixes::V6(list) => list.inspect(|(_, len)| assert!(*len <= 128)).count(),
    };
    assert_eq!(seen, expected);
}

fn masked(address: u32, len: u8) -> bool {
    len <= 32 && address & !u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0) == 0
}

fn swallow_update(message: &[u8], session: &Negotiated) -> bool {
    let Ok(update) = Decoded::decode(message, session) else { return false };
    update.withdrawn().for_each(count);
    update.announced().for_each(|reach| count(reach.prefixes));
    let Outcome::Routes(block) = update.outcome else { return false };
    let mut canonical = Vec::new();
    block.write_canonical(&mut canonical);
    let attributes = Attributes::from_canonical(&canonical);
    let _ = (attributes.as_path.to_string(), attributes.as_path.length(), attributes.as_path.first());
    let mut edited = Vec::new();
    let edits = Edits { replace_as: Some((65001, 65002)), ..Edits::to_ebgp(65000) };
    attributes.export(&edits, true, &mut edited);
    assert_eq!(Attributes::from_canonical(&edited).as_path.first(), Some(65000));
    let mut exported = Vec::new();
    attributes.export(&Edits::default(), session.four_octet_as, &mut exported);
    for reach in update.announced() {
        let Some(again) = encode(reach, &exported) else { continue };
        let session = Negotiated { extended_message: true, ..session.clone() };
        for message in ours::split(&again) {
            let second = Decoded::decode(message, &session).expect("what we encode can be decoded");
            let Outcome::Routes(block) = second.outcome else { panic!("{:?} of {message:02x?}", second.outcome) };
            let mut canonical_again = Vec::new();
            block.write_canonical(&mut canonical_again);
            assert_eq!(canonical_again, canonical, "{message:02x?}");
        }
    }
    true
}

fn encode(reach: Reach<'_>, block: &[u8]) -> Option<Vec<u8>> {
    match reach.prefixes {
        Prefixes::V4(prefixes) => build(prefixes, reach.next_hop, block),
        Prefixes::V6(prefixes) => build(prefixes, reach.next_hop, block),
    }
}

fn build<K: PrefixKey>(prefixes: PrefixIter<'_, K>, next_hop: NextHop, block: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut builder = UpdateBuilder::<K>::announce(&mut out, 65535, block, next_hop).ok()?;
    prefixes.for_each(|prefix| builder.push(prefix));
    builder.finish();
    Some(out)
}

/// Messages of every kind to begin with.
fn seeds() -> Vec<Vec<u8>> {
    let set = Set {
        path: vec![(false, vec![65001, 4_200_000_000]), (true, vec![65010, 70000])],
        med: Some(7),
        local_pref: Some(100),
        atomic: true,
        aggregator: Some((70000, [192, 0, 2, 9].into())),
        communities: vec![0xfde9_0001, 0xffff_ff01],
        originator: Some([10, 0, 0, 9].into()),
        clusters: vec![[10, 0, 0, 8].into()],
        extended: vec![0x0002_fde8_0000_0001],
        large: vec![(1, 2, 3)],
        unknown: vec![(250, vec![1, 2, 3])],
        ..Set::default()
    };
    let v4 = Nlri::V4(vec![(0x0a2a_0000, 26), (0, 0), (0xc000_0201, 32)]);
    let v6 = Nlri::V6(vec![(0xfd00 << 112, 64), (0, 0), (1, 128)]);
    let local = Some("fe80::1".parse().unwrap());
    let hop6 = Hop::V6("2001:db8::1".parse().unwrap(), local);
    let mut seeds = Vec::new();
    for four in [true, false] {
        let session = ours::session(false, four);
        for update in [
            Update::Announce { hop: Hop::V4([192, 0, 2, 1].into()), nlri: v4.clone(), set: set.clone() },
            Update::Announce { hop: hop6, nlri: v6.clone(), set: set.clone() },
            Update::Announce { hop: hop6, nlri: v6.clone(), set: Set::default() },
            Update::Withdraw(v4.clone()),
            Update::Withdraw(v6.clone()),
        ] {
            seeds.push(ours::encode(&update, &session));
        }
    }
    let mut open = Vec::new();
    let capabilities = vec![
        twill_bgpd::wire::Capability::FourOctetAs(65001),
        twill_bgpd::wire::Capability::Unknown { code: 73, value: b"name".to_vec() },
    ];
    Open { asn: 65001, hold_time: 90, identifier: [10, 0, 0, 1].into(), capabilities }.encode(&mut open);
    seeds.push(open);
    let mut cease = Vec::new();
    Notification::cease(2, "maintenance").encode(&mut cease);
    seeds.push(cease);
    seeds
}

fn header(body: &[u8], kind: u8) -> Vec<u8> {
    let mut message = vec![0xff; 16];
    message.extend_from_slice(&u16::try_from(HEADER_LEN + body.len()).unwrap().to_be_bytes());
    message.push(kind);
    message.extend_from_slice(body);
    message
}

fn mutated(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut message = match random.below(10) {
        0 | 1 => {
            let length = random.below(120);
            let body: Vec<u8> = (0..length).map(|_| random.octet()).collect();
            header(&body, 1 + random.below(5) as u8)
        }
        2 => {
            let mut attributes = Vec::new();
            for _ in 0..random.below(8) {
                let value: Vec<u8> = (0..random.below(20)).map(|_| random.octet()).collect();
                let flags = [0x40, 0x80, 0xc0, 0xe0, 0x00][random.below(5)];
                ours::put(&mut attributes, flags, random.below(36) as u8, &value);
            }
            let mut body = vec![0, 0];
            body.extend_from_slice(&u16::try_from(attributes.len()).unwrap().to_be_bytes());
            body.extend_from_slice(&attributes);
            body.extend_from_slice(&[24, 203, 0, 113]);
            header(&body, 2)
        }
        _ => {
            let mut message = seeds[random.below(seeds.len())].clone();
            for _ in 0..=random.below(5) {
                let at = HEADER_LEN + random.below(message.len() - HEADER_LEN);
                match random.below(8) {
                    0 if message.len() > HEADER_LEN + 4 => drop(message.remove(at)),
                    1 => message.insert(at, random.octet()),
                    2 if message.len() > HEADER_LEN + 8 => message.truncate(at.max(HEADER_LEN + 4)),
                    3 => message[at] ^= 1 << random.below(8),
                    _ => message[at] = random.octet(),
                }
            }
            message
        }
    };
    let length = if random.below(50) == 0 { random.next() as u16 } else { u16::try_from(message.len()).unwrap() };
    message[16..18].copy_from_slice(&length.to_be_bytes());
    message
}

fn run(rounds: usize, seed: u64) {
    let seeds = seeds();
    let mut random = Random(seed);
    let sessions: Vec<Negotiated> = [(true, true), (false, true), (true, false), (false, false)]
        .into_iter()
        .map(|(ebgp, four)| Negotiated { extended_next_hop: !ebgp, ..ours::session(ebgp, four) })
        .collect();
    let mut routes = 0;
    for _ in 0..rounds {
        let message = mutated(&mut random, &seeds);
        let session = &sessions[random.below(sessions.len())];
        let started = Instant::now();
        routes += swallow(&message, session);
        assert!(started.elapsed().as_millis() < 1000, "hangs on {message:02x?}");
    }
    // Otherwise nothing was tested behind the first check.
    assert!(routes > rounds / 40, "{routes} of {rounds} carried routes");
}

#[test]
fn a_hundred_thousand_mutations_are_survived() {
    run(100_000, 1);
}

#[test]
#[ignore = "takes a minute: cargo test --release -p twill-codec-oracles -- --ignored millions"]
fn millions_of_mutations_are_survived() {
    for seed in 2..10 {
        run(1_000_000, seed);
    }
}

#[test]
fn truncated_segments_of_an_as_path_end() {
    // 37 octets: an AS_PATH of eleven whose segment says more than there is once kept another codec busy for ever.
    for kind in 0..=5 {
        for count in 0..=255 {
            let mut attribute = vec![0x40, 2, 11, kind, count];
            attribute.resize(14, 0x11);
            let mut body = vec![0, 0, 0, 14];
            body.extend_from_slice(&attribute);
            let message = header(&body, 2);
            assert_eq!(message.len(), 37);
            for four in [true, false] {
                swallow(&message, &ours::session(true, four));
            }
        }
    }
}

#[test]
fn the_largest_messages_take_no_time() {
    // Many tiny unknown attributes, many duplicates, the longest paths and community lists.
    let session = Negotiated { extended_message: true, ..ours::session(true, false) };
    let attributes = [
        (0..=255_u8).flat_map(|kind| [0xc0, kind, 0]).cycle().take(65_400 / 3 * 3).collect::<Vec<u8>>(),
        [0xc0, 250, 0].into_iter().cycle().take(65_400 / 3 * 3).collect(),
        {
            let segment = |_| [vec![2, 255], vec![0x11; 510]].concat();
            let path: Vec<u8> = (0..120).flat_map(segment).collect();
            let mut block = vec![0x40, 1, 1, 0, 0x40, 3, 4, 192, 0, 2, 1];
            ours::put(&mut block, 0x40, 2, &path);
            block
        },
    ];
    for attributes in attributes {
        let mut body = vec![0, 0];
        body.extend_from_slice(&u16::try_from(attributes.len()).unwrap().to_be_bytes());
        body.extend_from_slice(&attributes);
        body.extend_from_slice(&[24, 203, 0, 113]);
        let message = header(&body, 2);
        let started = Instant::now();
        for _ in 0..10 {
            swallow(&message, &session);
        }
        assert!(started.elapsed().as_millis() < 2000, "{:?}", started.elapsed());
    }
}
