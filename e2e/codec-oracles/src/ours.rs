//! Twill's codec.

use crate::model::{Hop, Nlri, Set, Update};
use std::net::Ipv4Addr;
use twill_bgpd::wire::{
    Attributes, Edits, Families, Framer, Negotiated, NextHop, Notification, Outcome, PrefixKey, Prefixes,
    Update as Decoded, UpdateBuilder, V4, V6,
};

/// A session with both families.
pub fn session(ebgp: bool, four_octet_as: bool) -> Negotiated {
    Negotiated {
        local_asn: 65000,
        peer_asn: if ebgp { 65001 } else { 65000 },
        peer_id: Ipv4Addr::new(10, 0, 0, 2),
        ebgp,
        families: Families::ALL,
        four_octet_as,
        extended_message: false,
        route_refresh: true,
        enhanced_route_refresh: true,
        add_path_receive: Families::NONE,
        add_path_send: Families::NONE,
        extended_next_hop: false,
        hold_time: 90,
        graceful_restart: None,
        long_lived: None,
    }
}

/// Appends one attribute.
pub fn put(out: &mut Vec<u8>, flags: u8, kind: u8, value: &[u8]) {
    match u8::try_from(value.len()) {
        Ok(length) => out.extend_from_slice(&[flags, kind, length]),
        Err(_) => {
            out.extend_from_slice(&[flags | 0x10, kind]);
            out.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
        }
    }
    out.extend_from_slice(value);
}

/// A path, with so many octets a number.
pub fn path_bytes(path: &[(bool, Vec<u32>)], width: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for (set, asns) in path {
        out.extend_from_slice(&[if *set { 1 } else { 2 }, u8::try_from(asns.len()).unwrap()]);
        for asn in asns {
            out.extend_from_slice(&asn.to_be_bytes()[4 - width..]);
        }
    }
    out
}

/// The canonical bytes of a set, written here and not by the code under test.
pub fn canonical(set: &Set) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, 0x40, 1, &[set.origin]);
    put(&mut out, 0x40, 2, &path_bytes(&set.path, 4));
    if let Some(med) = set.med {
        put(&mut out, 0x80, 4, &med.to_be_bytes());
    }
    if let Some(local_pref) = set.local_pref {
        put(&mut out, 0x40, 5, &local_pref.to_be_bytes());
    }
    if set.atomic {
        put(&mut out, 0x40, 6, &[]);
    }
    if let Some((asn, address)) = set.aggregator {
        put(&mut out, 0xc0, 7, &[asn.to_be_bytes(), address.octets()].concat());
    }
    let list = |out: &mut Vec<u8>, flags, kind, value: Vec<u8>| {
        if !value.is_empty() {
            put(out, flags, kind, &value);
        }
    };
    list(&mut out, 0xc0, 8, set.communities.iter().flat_map(|c| c.to_be_bytes()).collect());
    if let Some(originator) = set.originator {
        put(&mut out, 0x80, 9, &originator.octets());
    }
    list(&mut out, 0x80, 10, set.clusters.iter().flat_map(Ipv4Addr::octets).collect());
    list(&mut out, 0xc0, 16, set.extended.iter().flat_map(|c| c.to_be_bytes()).collect());
    let large = set.large.iter().flat_map(|(a, b, c)| [a.to_be_bytes(), b.to_be_bytes(), c.to_be_bytes()].concat());
    list(&mut out, 0xc0, 32, large.collect());
    for (kind, value) in &set.unknown {
        put(&mut out, 0xe0, *kind, value);
    }
    out
}

/// All messages that say `update`.
pub fn encode(update: &Update, session: &Negotiated) -> Vec<u8> {
    let mut out = Vec::new();
    match update {
        Update::Withdraw(Nlri::V4(prefixes)) => withdraw(&mut out, prefixes),
        Update::Withdraw(Nlri::V6(prefixes)) => withdraw(&mut out, prefixes),
        Update::Announce { hop, nlri, set } => {
            let canonical = canonical(set);
            let mut block = Vec::new();
            Attributes::from_canonical(&canonical).export(&Edits::default(), session.four_octet_as, &mut block);
            let hop = match *hop {
                Hop::V4(address) => NextHop::V4(address),
                Hop::V6(global, link_local) => NextHop::V6 { global, link_local },
            };
            match nlri {
                Nlri::V4(prefixes) => announce(&mut out, &block, hop, prefixes),
                Nlri::V6(prefixes) => announce(&mut out, &block, hop, prefixes),
            }
        }
    }
    out
}

fn withdraw<K: PrefixKey>(out: &mut Vec<u8>, prefixes: &[K]) {
    let mut builder = UpdateBuilder::withdraw(out, 4096);
    prefixes.iter().for_each(|prefix| builder.push(*prefix));
    builder.finish();
}

fn announce<K: PrefixKey>(out: &mut Vec<u8>, block: &[u8], hop: NextHop, prefixes: &[K]) {
    let mut builder = UpdateBuilder::announce(out, 4096, block, hop).unwrap();
    prefixes.iter().for_each(|prefix| builder.push(*prefix));
    builder.finish();
}

/// The meaning of canonical bytes.
pub fn set_of(canonical: &[u8]) -> Set {
    let read = Attributes::from_canonical(canonical);
    let word = |octets: &[u8; 4]| u32::from_be_bytes(*octets);
    let mut unknown = Vec::new();
    let mut rest = read.canonical();
    while let [flags, kind, tail @ ..] = rest {
        let (length, tail) = match flags & 0x10 {
            0 => (usize::from(tail[0]), &tail[1..]),
            _ => (usize::from(u16::from_be_bytes([tail[0], tail[1]])), &tail[2..]),
        };
        if !matches!(kind, 1..=10 | 14..=18 | 25 | 32) {
            unknown.push((*kind, tail[..length].to_vec()));
        }
        rest = &tail[length..];
    }
    Set {
        origin: read.origin as u8,
        path: read.as_path.segments().map(|s| (s.set, s.asns.iter().map(word).collect())).collect(),
        med: read.med,
        local_pref: read.local_pref,
        atomic: read.atomic_aggregate,
        aggregator: read.aggregator.map(|a| (a.asn, a.address)),
        communities: read.communities.iter().map(word).collect(),
        originator: read.originator_id,
        clusters: read.cluster_list.iter().map(|c| Ipv4Addr::from(*c)).collect(),
        extended: read.extended_communities.iter().map(|c| u64::from_be_bytes(*c)).collect(),
        large: read
            .large_communities
            .iter()
            .map(|c| {
                (word(c[..4].try_into().unwrap()), word(c[4..8].try_into().unwrap()), word(c[8..].try_into().unwrap()))
            })
            .collect(),
        unknown,
    }
}

/// The one UPDATE in `bytes`.
///
/// # Errors
/// The NOTIFICATION, if that is the answer.
pub fn decode<'a>(bytes: &'a [u8], session: &Negotiated) -> Result<Decoded<'a>, Notification> {
    let frame = Framer::new(bytes, session.max_message()).next_frame()?.expect("a whole message");
    Decoded::decode(frame.bytes, session)
}

fn collect(prefixes: Prefixes<'_>) -> Nlri {
    match prefixes {
        Prefixes::V4(prefixes) => Nlri::V4(prefixes.collect::<Vec<V4>>()),
        Prefixes::V6(prefixes) => Nlri::V6(prefixes.collect::<Vec<V6>>()),
    }
}

/// What all messages in `bytes` say, each one thing, well-formed throughout.
pub fn meaning(bytes: &[u8], session: &Negotiated) -> Vec<Update> {
    for message in split(bytes) {
        assert!(decode(message, session).unwrap().discarded.is_empty());
    }
    routes(bytes, session)
}

/// What remains of all messages in `bytes` when malformed attributes are discarded.
pub fn routes(mut bytes: &[u8], session: &Negotiated) -> Vec<Update> {
    let mut said = Vec::new();
    while !bytes.is_empty() {
        let frame = Framer::new(bytes, session.max_message()).next_frame().unwrap().expect("a whole message");
        bytes = &bytes[frame.bytes.len()..];
        let update = Decoded::decode(frame.bytes, session).unwrap();
        said.extend(update.withdrawn().map(|prefixes| Update::Withdraw(collect(prefixes))));
        if let Outcome::Routes(block) = update.outcome {
            let mut canonical = Vec::new();
            block.write_canonical(&mut canonical);
            for reach in update.announced() {
                let hop = match reach.next_hop {
                    NextHop::V4(address) => Hop::V4(address),
                    NextHop::V6 { global, link_local } => Hop::V6(global, link_local),
                };
                said.push(Update::Announce { hop, nlri: collect(reach.prefixes), set: set_of(&canonical) });
            }
        }
    }
    said
}

/// The messages of a stream, one by one.
pub fn split(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let (message, rest) = bytes.split_at(usize::from(u16::from_be_bytes([bytes[16], bytes[17]])));
        messages.push(message);
        bytes = rest;
    }
    messages
}
