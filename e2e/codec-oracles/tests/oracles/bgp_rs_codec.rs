//! bgp-rs, inside the subset where it is right. It guesses the width of AS numbers and ADD-PATH from the bytes, drops
//! unknown attributes, and panics on encoding ATOMIC_AGGREGATE and LARGE_COMMUNITY, so [`safe`] narrows what is said;
//! every call stands behind `catch_unwind` all the same.

use crate::model::{Hop, Nlri, Set, Update};
use bgp_rs::{
    AFI, ASPath, MPReachNLRI, MPUnreachNLRI, Message, NLRIEncoding, Origin, PathAttribute, Prefix, Reader, SAFI,
    Segment,
};
use std::io::Cursor;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::panic::catch_unwind;

/// The same, said so that bgp-rs does not misunderstand it: AS numbers whose octets cannot be read as two, no default
/// route, no ATOMIC_AGGREGATE, AGGREGATOR, LARGE_COMMUNITY or unknown attribute.
pub(crate) fn safe(update: Update) -> Update {
    let v4 = |prefixes: Vec<(u32, u8)>| Nlri::V4(prefixes.into_iter().map(|(a, l)| widen4(a, l)).collect());
    let v6 = |prefixes: Vec<(u128, u8)>| Nlri::V6(prefixes.into_iter().map(|(a, l)| widen6(a, l)).collect());
    let narrow = |nlri| match nlri {
        Nlri::V4(prefixes) => v4(prefixes),
        Nlri::V6(prefixes) => v6(prefixes),
    };
    match update {
        Update::Withdraw(nlri) => Update::Withdraw(narrow(nlri)),
        Update::Announce { hop, nlri, mut set } => {
            set.atomic = false;
            set.aggregator = None;
            set.large.clear();
            set.unknown.clear();
            // Read as two octets each, a segment ends in the middle of what it holds: neither half may begin like a segment (type 1 to 4).
            let high = |asn: &mut u32| *asn |= 0xfa50_f000;
            set.path.iter_mut().flat_map(|(_, asns)| asns.iter_mut()).for_each(high);
            Update::Announce { hop, nlri: narrow(nlri), set }
        }
    }
}

/// At least eight bits, and the first octet not zero: a zero octet looks like a path identifier.
fn widen4(address: u32, len: u8) -> (u32, u8) {
    let len = len.max(8);
    ((address | 0x0100_0000) & u32::MAX << (32 - u32::from(len)), len)
}

fn widen6(address: u128, len: u8) -> (u128, u8) {
    let len = len.max(16);
    ((address | 0x2001 << 112) & u128::MAX << (128 - u32::from(len)), len)
}

fn prefixes(nlri: &Nlri) -> Vec<NLRIEncoding> {
    let one = |address: IpAddr, len: u8| NLRIEncoding::IP(Prefix::from((address, len)));
    match nlri {
        Nlri::V4(list) => list.iter().map(|(a, l)| one(Ipv4Addr::from(*a).into(), *l)).collect(),
        Nlri::V6(list) => list.iter().map(|(a, l)| one(Ipv6Addr::from(*a).into(), *l)).collect(),
    }
}

fn attributes(set: &Set) -> Vec<PathAttribute> {
    let segment = |(is_set, asns): &(bool, Vec<u32>)| match is_set {
        true => Segment::AS_SET(asns.clone()),
        false => Segment::AS_SEQUENCE(asns.clone()),
    };
    let origin = match set.origin {
        0 => Origin::IGP,
        1 => Origin::EGP,
        _ => Origin::INCOMPLETE,
    };
    let mut out = vec![
        PathAttribute::ORIGIN(origin),
        PathAttribute::AS_PATH(ASPath { segments: set.path.iter().map(segment).collect() }),
    ];
    out.extend(set.med.map(PathAttribute::MULTI_EXIT_DISC));
    out.extend(set.local_pref.map(PathAttribute::LOCAL_PREF));
    if !set.communities.is_empty() {
        out.push(PathAttribute::COMMUNITY(set.communities.clone()));
    }
    out.extend(set.originator.map(|id| PathAttribute::ORIGINATOR_ID(id.into())));
    if !set.clusters.is_empty() {
        out.push(PathAttribute::CLUSTER_LIST(set.clusters.iter().map(|c| u32::from(*c)).collect()));
    }
    if !set.extended.is_empty() {
        out.push(PathAttribute::EXTENDED_COMMUNITIES(set.extended.clone()));
    }
    out
}

/// The message that says `update`; `None` if it does not fit into one.
pub(crate) fn encode(update: &Update) -> Option<Vec<u8>> {
    let mut message =
        bgp_rs::Update { withdrawn_routes: Vec::new(), attributes: Vec::new(), announced_routes: Vec::new() };
    match update {
        Update::Withdraw(nlri @ Nlri::V4(_)) => message.withdrawn_routes = prefixes(nlri),
        Update::Withdraw(nlri) => message.attributes.push(PathAttribute::MP_UNREACH_NLRI(MPUnreachNLRI {
            afi: AFI::IPV6,
            safi: SAFI::Unicast,
            withdrawn_routes: prefixes(nlri),
        })),
        Update::Announce { hop, nlri, set } => {
            message.attributes = attributes(set);
            match hop {
                Hop::V4(address) => {
                    message.attributes.push(PathAttribute::NEXT_HOP(IpAddr::V4(*address)));
                    message.announced_routes = prefixes(nlri);
                }
                Hop::V6(global, local) => {
                    let mut next_hop = global.octets().to_vec();
                    next_hop.extend(local.iter().flat_map(Ipv6Addr::octets));
                    message.attributes.push(PathAttribute::MP_REACH_NLRI(MPReachNLRI {
                        afi: AFI::IPV6,
                        safi: SAFI::Unicast,
                        next_hop,
                        announced_routes: prefixes(nlri),
                    }));
                }
            }
        }
    }
    let message = Message::Update(message);
    let mut bytes = Vec::new();
    catch_unwind(move || message.encode(&mut bytes).ok().map(|()| bytes)).expect("bgp-rs encodes its safe subset")
}

/// The message; `None` if bgp-rs refuses it or panics.
pub(crate) fn decode(message: &[u8]) -> Option<Message> {
    let message = message.to_vec();
    catch_unwind(move || Reader::new(Cursor::new(message)).read().ok().map(|(_, message)| message)).ok().flatten()
}

fn keys(list: &[NLRIEncoding]) -> Nlri {
    let split = |nlri: &NLRIEncoding| match nlri {
        NLRIEncoding::IP(prefix) => <(IpAddr, u8)>::from(prefix),
        other => panic!("{other:?} was not sent"),
    };
    let all: Vec<(IpAddr, u8)> = list.iter().map(split).collect();
    match all.first() {
        Some((IpAddr::V6(_), _)) => Nlri::V6(all.iter().map(|(a, l)| (u128_of(*a), *l)).collect()),
        _ => Nlri::V4(all.iter().map(|(a, l)| (u32::try_from(u128_of(*a)).unwrap(), *l)).collect()),
    }
}

fn u128_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => address.into(),
    }
}

fn hop6(octets: &[u8]) -> Hop {
    let address = |octets: &[u8]| Ipv6Addr::from(<[u8; 16]>::try_from(octets).unwrap());
    Hop::V6(address(&octets[..16]), (octets.len() == 32).then(|| address(&octets[16..])))
}

/// What the message says, on a four-octet session.
pub(crate) fn meaning(message: &[u8]) -> Vec<Update> {
    let Some(Message::Update(update)) = decode(message) else { panic!("no UPDATE") };
    let (mut said, mut set, mut hop4, mut reach) = (Vec::new(), Set::default(), None, None);
    for attribute in &update.attributes {
        match attribute {
            PathAttribute::ORIGIN(origin) => {
                set.origin = match origin {
                    Origin::IGP => 0,
                    Origin::EGP => 1,
                    Origin::INCOMPLETE => 2,
                };
            }
            PathAttribute::AS_PATH(path) => {
                let segment = |segment: &Segment| match segment {
                    Segment::AS_SET(asns) => (true, asns.clone()),
                    Segment::AS_SEQUENCE(asns) => (false, asns.clone()),
                };
                set.path = path.segments.iter().map(segment).collect();
            }
            PathAttribute::NEXT_HOP(IpAddr::V4(address)) => hop4 = Some(*address),
            PathAttribute::MULTI_EXIT_DISC(med) => set.med = Some(*med),
            PathAttribute::LOCAL_PREF(value) => set.local_pref = Some(*value),
            PathAttribute::COMMUNITY(list) => set.communities.clone_from(list),
            PathAttribute::ORIGINATOR_ID(id) => set.originator = Some((*id).into()),
            PathAttribute::CLUSTER_LIST(list) => set.clusters = list.iter().map(|c| (*c).into()).collect(),
            PathAttribute::EXTENDED_COMMUNITIES(list) => set.extended.clone_from(list),
            PathAttribute::MP_REACH_NLRI(mp) => reach = Some((hop6(&mp.next_hop), keys(&mp.announced_routes))),
            PathAttribute::MP_UNREACH_NLRI(mp) => said.push(Update::Withdraw(keys(&mp.withdrawn_routes))),
            other => panic!("{other:?} was not sent"),
        }
    }
    if !update.withdrawn_routes.is_empty() {
        said.push(Update::Withdraw(keys(&update.withdrawn_routes)));
    }
    if !update.announced_routes.is_empty() {
        said.push(Update::Announce {
            hop: Hop::V4(hop4.unwrap()),
            nlri: keys(&update.announced_routes),
            set: set.clone(),
        });
    }
    if let Some((hop, nlri)) = reach {
        said.push(Update::Announce { hop, nlri, set });
    }
    said
}
