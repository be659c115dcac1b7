//! rustbgpd-wire.

use crate::model::{Hop, Nlri, Set, Update};
use bytes::Bytes;
use rustbgpd_wire::attribute::{MpReachNlri, MpUnreachNlri, RawAttribute};
use rustbgpd_wire::nlri::{Ipv4NlriEntry, Ipv4Prefix, Ipv6Prefix};
use rustbgpd_wire::{
    Afi, Aggregator, AsPath, AsPathSegment, ExtendedCommunity, Ipv4UnicastMode, LargeCommunity, Message, NlriEntry,
    Origin, PathAttribute, Prefix, Safi, UpdateMessage, decode_message, encode_message,
};
use std::net::IpAddr;
use twill_bgpd::wire::{V4, V6};

fn entry((address, len): V4) -> Ipv4NlriEntry {
    Ipv4NlriEntry { path_id: 0, prefix: Ipv4Prefix::new(address.into(), len) }
}

fn entries6(prefixes: &[V6]) -> Vec<NlriEntry> {
    let entry =
        |(address, len): &V6| NlriEntry { path_id: 0, prefix: Prefix::V6(Ipv6Prefix::new((*address).into(), *len)) };
    prefixes.iter().map(entry).collect()
}

fn attributes(set: &Set) -> Vec<PathAttribute> {
    let segment = |(is_set, asns): &(bool, Vec<u32>)| match is_set {
        true => AsPathSegment::AsSet(asns.clone()),
        false => AsPathSegment::AsSequence(asns.clone()),
    };
    let mut out = vec![
        PathAttribute::Origin(Origin::from_u8(set.origin).unwrap()),
        PathAttribute::AsPath(AsPath { segments: set.path.iter().map(segment).collect() }),
    ];
    out.extend(set.med.map(PathAttribute::Med));
    out.extend(set.local_pref.map(PathAttribute::LocalPref));
    out.extend(set.atomic.then_some(PathAttribute::AtomicAggregate));
    out.extend(
        set.aggregator.map(|(asn, router_id)| PathAttribute::Aggregator(Aggregator { asn, router_id, partial: false })),
    );
    if !set.communities.is_empty() {
        out.push(PathAttribute::Communities(set.communities.clone()));
    }
    out.extend(set.originator.map(PathAttribute::OriginatorId));
    if !set.clusters.is_empty() {
        out.push(PathAttribute::ClusterList(set.clusters.clone()));
    }
    if !set.extended.is_empty() {
        let list = set.extended.iter().map(|value| ExtendedCommunity::new(*value)).collect();
        out.push(PathAttribute::ExtendedCommunities(list));
    }
    if !set.large.is_empty() {
        let list = set.large.iter().map(|(a, b, c)| LargeCommunity::new(*a, *b, *c)).collect();
        out.push(PathAttribute::LargeCommunities(list));
    }
    out.extend(set.unknown.iter().map(|(type_code, data)| {
        PathAttribute::Unknown(RawAttribute { flags: 0xc0, type_code: *type_code, data: Bytes::from(data.clone()) })
    }));
    out
}

/// The same without AS_SETs, which rustbgpd does not send (RFC 9774).
pub(crate) fn sayable(mut update: Update) -> Update {
    if let Update::Announce { set, .. } = &mut update {
        set.path.iter_mut().for_each(|(is_set, _)| *is_set = false);
    }
    update
}

/// The message that says `update`; `None` if it does not fit into one.
pub(crate) fn encode(update: &Update, four_octet_as: bool) -> Option<Vec<u8>> {
    let (mut announced, mut withdrawn, mut list) = (Vec::new(), Vec::new(), Vec::new());
    match update {
        Update::Withdraw(Nlri::V4(prefixes)) => withdrawn = prefixes.iter().copied().map(entry).collect(),
        Update::Withdraw(Nlri::V6(prefixes)) => list.push(PathAttribute::MpUnreachNlri(Box::new(MpUnreachNlri {
            afi: Afi::Ipv6,
            safi: Safi::Unicast,
            withdrawn: entries6(prefixes),
            flowspec_withdrawn: Vec::new(),
            evpn_withdrawn: Vec::new(),
            bgpls_withdrawn: Vec::new(),
            vpn_withdrawn: Vec::new(),
            labeled_withdrawn: Vec::new(),
            rtc_withdrawn: Vec::new(),
        }))),
        Update::Announce { hop, nlri, set } => {
            list = attributes(set);
            match (hop, nlri) {
                (Hop::V4(address), Nlri::V4(prefixes)) => {
                    list.push(PathAttribute::NextHop(*address));
                    announced = prefixes.iter().copied().map(entry).collect();
                }
                (Hop::V6(global, link_local), Nlri::V6(prefixes)) => {
                    list.push(PathAttribute::MpReachNlri(Box::new(MpReachNlri {
                        afi: Afi::Ipv6,
                        safi: Safi::Unicast,
                        next_hop: IpAddr::V6(*global),
                        link_local_next_hop: *link_local,
                        announced: entries6(prefixes),
                        flowspec_announced: Vec::new(),
                        evpn_announced: Vec::new(),
                        bgpls_announced: Vec::new(),
                        vpn_announced: Vec::new(),
                        labeled_announced: Vec::new(),
                        rtc_announced: Vec::new(),
                    })));
                }
                _ => unreachable!("generated together"),
            }
        }
    }
    let message = UpdateMessage::build(&announced, &withdrawn, &list, four_octet_as, false, Ipv4UnicastMode::Body);
    encode_message(&Message::Update(message)).ok().map(|bytes| bytes.to_vec())
}

fn keys4(entries: &[Ipv4NlriEntry]) -> Nlri {
    Nlri::V4(entries.iter().map(|e| (e.prefix.addr.into(), e.prefix.len)).collect())
}

fn keys6(entries: &[NlriEntry]) -> Nlri {
    let key = |entry: &NlriEntry| match entry.prefix {
        Prefix::V6(prefix) => (prefix.addr.into(), prefix.len),
        Prefix::V4(_) => panic!("an IPv4 prefix in IPv6 NLRI"),
    };
    Nlri::V6(entries.iter().map(key).collect())
}

/// What the message says.
pub(crate) fn meaning(message: &[u8], four_octet_as: bool) -> Vec<Update> {
    let mut bytes = Bytes::copy_from_slice(message);
    let Ok(Message::Update(message)) = decode_message(&mut bytes, u16::MAX) else { panic!("no UPDATE") };
    let parsed = message.parse(four_octet_as, false, &[]).unwrap();
    let (mut said, mut set, mut hop4, mut reach) = (Vec::new(), Set::default(), None, None);
    for attribute in &parsed.attributes {
        match attribute {
            PathAttribute::Origin(origin) => set.origin = *origin as u8,
            PathAttribute::AsPath(path) => {
                let segment = |segment: &AsPathSegment| match segment {
                    AsPathSegment::AsSet(asns) => (true, asns.clone()),
                    AsPathSegment::AsSequence(asns) => (false, asns.clone()),
                };
                set.path = path.segments.iter().map(segment).collect();
            }
            PathAttribute::NextHop(address) => hop4 = Some(*address),
            PathAttribute::Med(med) => set.med = Some(*med),
            PathAttribute::LocalPref(value) => set.local_pref = Some(*value),
            PathAttribute::AtomicAggregate => set.atomic = true,
            PathAttribute::Aggregator(aggregator) => set.aggregator = Some((aggregator.asn, aggregator.router_id)),
            PathAttribute::Communities(list) => set.communities.clone_from(list),
            PathAttribute::OriginatorId(id) => set.originator = Some(*id),
            PathAttribute::ClusterList(list) => set.clusters.clone_from(list),
            PathAttribute::ExtendedCommunities(list) => set.extended = list.iter().map(|c| c.as_u64()).collect(),
            PathAttribute::LargeCommunities(list) => {
                set.large = list.iter().map(|c| (c.global_admin, c.local_data1, c.local_data2)).collect();
            }
            PathAttribute::MpReachNlri(mp) => {
                let IpAddr::V6(global) = mp.next_hop else { panic!("an IPv4 next hop") };
                reach = Some((Hop::V6(global, mp.link_local_next_hop), keys6(&mp.announced)));
            }
            PathAttribute::MpUnreachNlri(mp) => said.push(Update::Withdraw(keys6(&mp.withdrawn))),
            PathAttribute::Unknown(raw) => set.unknown.push((raw.type_code, raw.data.to_vec())),
            other => panic!("{other:?} was not sent"),
        }
    }
    if !parsed.withdrawn.is_empty() {
        said.push(Update::Withdraw(keys4(&parsed.withdrawn)));
    }
    if !parsed.announced.is_empty() {
        said.push(Update::Announce { hop: Hop::V4(hop4.unwrap()), nlri: keys4(&parsed.announced), set: set.clone() });
    }
    if let Some((hop, nlri)) = reach {
        said.push(Update::Announce { hop, nlri, set });
    }
    said
}
