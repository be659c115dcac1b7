//! Messages to begin with, and what becomes of them.

use super::random::Random;
use crate::model::{Hop, Nlri, Set, Update};
use crate::ours;
use twill_bgpd::wire::{
    AfiSafi, Attributes, Capability, Edits, Family, GracefulRestart, HEADER_LEN, LongLived, Notification, Open,
};

/// Messages of every kind to begin with.
pub fn seeds() -> Vec<Vec<u8>> {
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
    seeds.push(with_path_identifiers(&set));
    let mut open = Vec::new();
    let capabilities = vec![Capability::FourOctetAs(65001), Capability::Unknown { code: 73, value: b"name".to_vec() }];
    Open { asn: 65001, hold_time: 90, identifier: [10, 0, 0, 1].into(), capabilities }.encode(&mut open);
    seeds.push(open);
    seeds.push(full_open(65001));
    let mut cease = Vec::new();
    Notification::cease(2, "maintenance").encode(&mut cease);
    seeds.push(cease);
    seeds.push(header(&[0, 1, 0, 1], 5));
    seeds
}

/// Two paths to one prefix, as ADD-PATH has them (RFC 7911).
fn with_path_identifiers(set: &Set) -> Vec<u8> {
    let mut block = Vec::new();
    Attributes::from_canonical(&ours::canonical(set)).export(&Edits::default(), true, &mut block);
    ours::put(&mut block, 0x40, 3, &[192, 0, 2, 1]);
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    let nlri = [0, 0, 0, 1, 24, 10, 1, 2, 0, 0, 0, 2, 24, 10, 1, 2];
    header(&[&[0, 0][..], &length, &block, &nlri].concat(), 2)
}

/// OPEN with every capability that there is, for both families.
#[must_use]
pub fn full_open(asn: u32) -> Vec<u8> {
    let families = [Family::Ipv4Unicast, Family::Ipv6Unicast].map(AfiSafi::from);
    let restart = GracefulRestart {
        restarting: false,
        notification: true,
        restart_time: 120,
        families: families.map(|family| (family, true)).to_vec(),
    };
    let mut capabilities = families.map(Capability::Multiprotocol).to_vec();
    capabilities.extend([
        Capability::RouteRefresh,
        Capability::ExtendedNextHop(vec![(families[0], 2)]),
        Capability::ExtendedMessage,
        Capability::GracefulRestart(restart),
        Capability::FourOctetAs(asn),
        Capability::AddPath(families.map(|family| (family, 3)).to_vec()),
        Capability::EnhancedRouteRefresh,
        Capability::LongLived(LongLived { families: families.map(|family| (family, true, 3600)).to_vec() }),
    ]);
    let mut open = Vec::new();
    Open { asn, hold_time: 90, identifier: [10, 0, 0, 2].into(), capabilities }.encode(&mut open);
    open
}

/// A message of this type.
pub fn header(body: &[u8], kind: u8) -> Vec<u8> {
    let mut message = vec![0xff; 16];
    message.extend_from_slice(&u16::try_from(HEADER_LEN + body.len()).unwrap().to_be_bytes());
    message.push(kind);
    message.extend_from_slice(body);
    message
}

/// A random message, or one of the seeds with a few random changes.
#[must_use]
pub fn mutated(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
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
        // A large one: many of the same attribute, or of prefixes.
        3 if random.below(20) == 0 => {
            let piece: Vec<u8> = (0..=random.below(12)).map(|_| random.octet()).collect();
            let body =
                [&[0, 0][..], &random.below(65_000).to_be_bytes()[6..], &piece.repeat(65_000 / piece.len())].concat();
            header(&body[..random.below(body.len())], 2)
        }
        _ => {
            let mut message = seeds[random.below(seeds.len())].clone();
            for _ in 0..random.below(6) {
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
