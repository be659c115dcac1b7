//! UPDATEs whose prefixes have path identifiers (RFC 7911), in both directions.

use crate::model::{Hop, Nlri, Set, Update, hop, nlri, set};
use crate::ours;
use bytes::Bytes;
use ipnet::{Ipv4Net, Ipv6Net};
use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::nlri::{Ipv4Unicast, Ipv4UnicastAddress, Ipv6Unicast, Ipv6UnicastAddress, NlriAddressType};
use netgauze_bgp_pkt::path_attribute::{MpReach, MpUnreach, PathAttributeValue};
use netgauze_bgp_pkt::update::BgpUpdateMessage;
use netgauze_bgp_pkt::wire::deserializer::BgpParsingContext;
use netgauze_parse_utils::WritablePdu;
use netgauze_parse_utils::reader::SliceReader;
use netgauze_parse_utils::traits::ParseFromWithOneInput;
use proptest::prelude::*;
use rustbgpd_wire::{Afi, Message, PathAttribute, Prefix, Safi, decode_message};
use twill_bgpd::wire::{
    Attributes, Edits, Families, Negotiated, NextHop, PrefixIter, PrefixKey, Prefixes, Update as Decoded,
    UpdateBuilder, V6,
};

/// Whether it is announced, of which family (4 or 6), by which identifier, and the prefix.
type Path = (bool, u8, u32, V6);

/// An UPDATE, and the identifiers of its prefixes.
fn identified() -> impl Strategy<Value = (Update, Vec<u32>)> {
    let announce = (nlri(), set())
        .prop_flat_map(|(nlri, set)| (hop(&nlri), Just(nlri), Just(set)))
        .prop_map(|(hop, nlri, set)| Update::Announce { hop, nlri, set });
    let update = prop_oneof![2 => announce, 1 => nlri().prop_map(Update::Withdraw)];
    (update, prop::collection::vec(any::<u32>(), 60))
}

fn session() -> Negotiated {
    Negotiated { add_path_receive: Families::ALL, add_path_send: Families::ALL, ..ours::session(false, true) }
}

fn paths((update, identifiers): &(Update, Vec<u32>)) -> Vec<Path> {
    let (announced, nlri) = match update {
        Update::Announce { nlri, .. } => (true, nlri),
        Update::Withdraw(nlri) => (false, nlri),
    };
    let identifiers = identifiers.iter().copied();
    match nlri {
        Nlri::V4(all) => {
            identifiers.zip(all).map(|(id, (a, len))| (announced, 4, id, (u128::from(*a), *len))).collect()
        }
        Nlri::V6(all) => identifiers.zip(all).map(|(id, prefix)| (announced, 6, id, *prefix)).collect(),
    }
}

fn push_all<K: PrefixKey>(mut builder: UpdateBuilder<'_, K>, prefixes: &[K], identifiers: &[u32]) {
    prefixes.iter().zip(identifiers).for_each(|(prefix, id)| builder.push_path(*id, *prefix));
    builder.finish();
}

fn encode((update, identifiers): &(Update, Vec<u32>)) -> Vec<u8> {
    let mut out = Vec::new();
    match update {
        Update::Withdraw(Nlri::V4(all)) => push_all(UpdateBuilder::withdraw_paths(&mut out, 4096), all, identifiers),
        Update::Withdraw(Nlri::V6(all)) => push_all(UpdateBuilder::withdraw_paths(&mut out, 4096), all, identifiers),
        Update::Announce { hop, nlri, set } => {
            let (canonical, mut block) = (ours::canonical(set), Vec::new());
            Attributes::from_canonical(&canonical).export(&Edits::default(), true, &mut block);
            let hop = match *hop {
                Hop::V4(address) => NextHop::V4(address),
                Hop::V6(global, link_local) => NextHop::V6 { global, link_local },
            };
            match nlri {
                Nlri::V4(all) => {
                    push_all(UpdateBuilder::announce_paths(&mut out, 4096, &block, hop).unwrap(), all, identifiers);
                }
                Nlri::V6(all) => {
                    push_all(UpdateBuilder::announce_paths(&mut out, 4096, &block, hop).unwrap(), all, identifiers);
                }
            }
        }
    }
    out
}

fn all<K: PrefixKey>(mut keys: PrefixIter<'_, K>) -> Vec<(u32, K)> {
    std::iter::from_fn(|| keys.next_path()).collect()
}

fn ours_says(bytes: &[u8]) -> Vec<Path> {
    let mut said = Vec::new();
    for message in ours::split(bytes) {
        let update = Decoded::decode(message, &session()).unwrap();
        let withdrawn = update.withdrawn().map(|prefixes| (false, prefixes));
        for (announced, prefixes) in withdrawn.chain(update.announced().map(|reach| (true, reach.prefixes))) {
            match prefixes {
                Prefixes::V4(keys) => {
                    said.extend(all(keys).into_iter().map(|(id, (a, len))| (announced, 4, id, (u128::from(a), len))));
                }
                Prefixes::V6(keys) => said.extend(all(keys).into_iter().map(|(id, key)| (announced, 6, id, key))),
            }
        }
    }
    said
}

fn rustbgpd_says(bytes: &[u8]) -> Vec<Path> {
    let mut said = Vec::new();
    let key = |prefix: &Prefix| match prefix {
        Prefix::V4(prefix) => (4, (u128::from(u32::from(prefix.addr)), prefix.len)),
        Prefix::V6(prefix) => (6, (u128::from(prefix.addr), prefix.len)),
    };
    for message in ours::split(bytes) {
        let Ok(Message::Update(update)) = decode_message(&mut Bytes::copy_from_slice(message), u16::MAX) else {
            panic!("no UPDATE")
        };
        let parsed = update.parse(true, true, &[(Afi::Ipv6, Safi::Unicast)]).unwrap();
        for (announced, entries) in [(false, &parsed.withdrawn), (true, &parsed.announced)] {
            let path = |entry: &rustbgpd_wire::nlri::Ipv4NlriEntry| {
                (announced, 4, entry.path_id, (u128::from(u32::from(entry.prefix.addr)), entry.prefix.len))
            };
            said.extend(entries.iter().map(path));
        }
        for attribute in &parsed.attributes {
            let (announced, entries) = match attribute {
                PathAttribute::MpReachNlri(mp) => (true, &mp.announced),
                PathAttribute::MpUnreachNlri(mp) => (false, &mp.withdrawn),
                _ => continue,
            };
            said.extend(entries.iter().map(|entry| {
                let (family, prefix) = key(&entry.prefix);
                (announced, family, entry.path_id, prefix)
            }));
        }
    }
    said
}

fn netgauze_says(bytes: &[u8]) -> Vec<Path> {
    let mut said = Vec::new();
    let four = |announced: bool, list: &[Ipv4UnicastAddress]| {
        let path = |one: &Ipv4UnicastAddress| {
            let net = one.network().address();
            (announced, 4, one.path_id().unwrap(), (u128::from(u32::from(net.network())), net.prefix_len()))
        };
        list.iter().map(path).collect::<Vec<Path>>()
    };
    let six = |announced: bool, list: &[Ipv6UnicastAddress]| {
        let path = |one: &Ipv6UnicastAddress| {
            let net = one.network().address();
            (announced, 6, one.path_id().unwrap(), (u128::from(net.network()), net.prefix_len()))
        };
        list.iter().map(path).collect::<Vec<Path>>()
    };
    for message in ours::split(bytes) {
        let mut context = BgpParsingContext::default();
        context.add_path_mut().insert(Ipv4UnicastAddress::address_type(), true);
        context.add_path_mut().insert(Ipv6UnicastAddress::address_type(), true);
        let parsed = BgpMessage::parse(&mut SliceReader::new(message), &mut context).unwrap();
        let BgpMessage::Update(update) = parsed else { panic!("no UPDATE") };
        said.extend(four(false, update.withdraw_routes()));
        said.extend(four(true, update.nlri()));
        for attribute in update.path_attributes() {
            match attribute.value() {
                PathAttributeValue::MpReach(MpReach::Ipv6Unicast { nlri, .. }) => said.extend(six(true, nlri)),
                PathAttributeValue::MpUnreach(MpUnreach::Ipv6Unicast { nlri }) => said.extend(six(false, nlri)),
                _ => {}
            }
        }
    }
    said
}

/// The withdrawal of these IPv4 paths as netgauze writes it.
fn withdrawn_by_netgauze(paths: &[Path]) -> Vec<u8> {
    let four = paths.iter().filter(|(_, family, ..)| *family == 4);
    let four = four.map(|(_, _, id, (address, len))| {
        let net = Ipv4Net::new((*address as u32).into(), *len).unwrap();
        Ipv4UnicastAddress::new(Some(*id), Ipv4Unicast::from_net(net).unwrap())
    });
    let six = paths.iter().filter(|(_, family, ..)| *family == 6);
    let six: Box<[_]> = six
        .map(|(_, _, id, (address, len))| {
            let net = Ipv6Net::new((*address).into(), *len).unwrap();
            Ipv6UnicastAddress::new(Some(*id), Ipv6Unicast::from_net(net).unwrap())
        })
        .collect();
    let unreach = PathAttributeValue::MpUnreach(MpUnreach::Ipv6Unicast { nlri: six.clone() });
    let attributes = match six.is_empty() {
        true => Vec::new(),
        false => {
            vec![netgauze_bgp_pkt::path_attribute::PathAttribute::from(true, false, false, true, unreach).unwrap()]
        }
    };
    let mut bytes = Vec::new();
    BgpMessage::Update(BgpUpdateMessage::new(four.collect::<Vec<_>>(), attributes, Vec::new()))
        .write(&mut bytes)
        .unwrap();
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn everybody_reads_the_identifiers_that_we_write(update in identified()) {
        let (bytes, expected) = (encode(&update), paths(&update));
        prop_assert_eq!(&ours_says(&bytes), &expected);
        prop_assert_eq!(&rustbgpd_says(&bytes), &expected);
        prop_assert_eq!(&netgauze_says(&bytes), &expected);
    }

    #[test]
    fn we_read_the_identifiers_that_netgauze_writes(update in identified()) {
        let expected: Vec<Path> = paths(&update).into_iter().map(|(_, family, id, prefix)| (false, family, id, prefix)).collect();
        prop_assert_eq!(&ours_says(&withdrawn_by_netgauze(&expected)), &expected);
    }
}

#[test]
fn a_set_alone_makes_no_identifier() {
    let update = Update::Announce {
        hop: Hop::V4([192, 0, 2, 1].into()),
        nlri: Nlri::V4(vec![(0x0a01_0000, 16)]),
        set: Set::default(),
    };
    let bytes = encode(&(update.clone(), vec![7]));
    assert_eq!(bytes.len(), ours::encode(&update, &ours::session(false, true)).len() + 4);
    assert!(bytes.ends_with(&[0, 0, 0, 7, 16, 10, 1]));
}
