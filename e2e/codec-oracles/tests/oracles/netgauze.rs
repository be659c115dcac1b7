//! netgauze-bgp-pkt.

use crate::model::{Hop, Nlri, Set, Update};
use ipnet::{Ipv4Net, Ipv6Net};
use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::community::{
    Community, ExtendedCommunity, LargeCommunity, TransitiveTwoOctetExtendedCommunity as TwoOctet,
};
use netgauze_bgp_pkt::nlri::{Ipv4Unicast, Ipv4UnicastAddress, Ipv6Unicast, Ipv6UnicastAddress};
use netgauze_bgp_pkt::path_attribute::{
    Aggregator, As4Aggregator, As4PathSegment, AsPath, AsPathSegmentType, AtomicAggregate, ClusterId, ClusterList,
    Communities, ExtendedCommunities, LargeCommunities, LocalPreference, MpReach, MpUnreach, MultiExitDiscriminator,
    NextHop, Origin, Originator, PathAttribute, PathAttributeValue as Value, UnknownAttribute,
};
use netgauze_bgp_pkt::update::BgpUpdateMessage;
use netgauze_bgp_pkt::wire::deserializer::BgpParsingContext;
use netgauze_parse_utils::WritablePdu;
use netgauze_parse_utils::reader::SliceReader;
use netgauze_parse_utils::traits::ParseFromWithOneInput;
use twill_bgpd::wire::{V4, V6};

fn nlri4(prefixes: &[V4]) -> Vec<Ipv4UnicastAddress> {
    let net = |(address, len): &V4| Ipv4Unicast::from_net(Ipv4Net::new((*address).into(), *len).unwrap()).unwrap();
    prefixes.iter().map(|prefix| Ipv4UnicastAddress::new_no_path_id(net(prefix))).collect()
}

fn nlri6(prefixes: &[V6]) -> Box<[Ipv6UnicastAddress]> {
    let net = |(address, len): &V6| Ipv6Unicast::from_net(Ipv6Net::new((*address).into(), *len).unwrap()).unwrap();
    prefixes.iter().map(|prefix| Ipv6UnicastAddress::new(None, net(prefix))).collect()
}

/// Flags of the four categories.
const WELL_KNOWN: (bool, bool) = (false, true);
const OPTIONAL: (bool, bool) = (true, false);
const TRANSITIVE: (bool, bool) = (true, true);

fn attribute((optional, transitive): (bool, bool), value: Value) -> PathAttribute {
    PathAttribute::from(optional, transitive, false, true, value).unwrap()
}

fn attributes(set: &Set) -> Vec<PathAttribute> {
    let segment = |(is_set, asns): &(bool, Vec<u32>)| {
        let kind = if *is_set { AsPathSegmentType::AsSet } else { AsPathSegmentType::AsSequence };
        As4PathSegment::new(kind, asns.clone())
    };
    let origin = [Origin::IGP, Origin::EGP, Origin::Incomplete][usize::from(set.origin)];
    let path: Vec<_> = set.path.iter().map(segment).collect();
    let mut out = vec![
        attribute(WELL_KNOWN, Value::Origin(origin)),
        attribute(WELL_KNOWN, Value::AsPath(AsPath::as4_path_segments(path))),
    ];
    let mut push = |flags, value| out.push(attribute(flags, value));
    if let Some(med) = set.med {
        push(OPTIONAL, Value::MultiExitDiscriminator(MultiExitDiscriminator::new(med)));
    }
    if let Some(local_pref) = set.local_pref {
        push(WELL_KNOWN, Value::LocalPreference(LocalPreference::new(local_pref)));
    }
    if set.atomic {
        push(WELL_KNOWN, Value::AtomicAggregate(AtomicAggregate));
    }
    if let Some((asn, address)) = set.aggregator {
        push(TRANSITIVE, Value::Aggregator(Aggregator::As4Aggregator(As4Aggregator::new(asn, address))));
    }
    if !set.communities.is_empty() {
        let list: Vec<_> = set.communities.iter().map(|c| Community::new(*c)).collect();
        push(TRANSITIVE, Value::Communities(Communities::new(list)));
    }
    if let Some(originator) = set.originator {
        push(OPTIONAL, Value::Originator(Originator::new(originator)));
    }
    if !set.clusters.is_empty() {
        let list: Vec<_> = set.clusters.iter().map(|c| ClusterId::new(*c)).collect();
        push(OPTIONAL, Value::ClusterList(ClusterList::new(list)));
    }
    if !set.extended.is_empty() {
        let target = |value: &u64| {
            let [_, _, a, b, rest @ ..] = value.to_be_bytes();
            let (global_admin, local_admin) = (u16::from_be_bytes([a, b]), u32::from_be_bytes(rest));
            ExtendedCommunity::TransitiveTwoOctet(TwoOctet::RouteTarget { global_admin, local_admin })
        };
        let list: Vec<_> = set.extended.iter().map(target).collect();
        push(TRANSITIVE, Value::ExtendedCommunities(ExtendedCommunities::new(list)));
    }
    if !set.large.is_empty() {
        let list: Vec<_> = set.large.iter().map(|(a, b, c)| LargeCommunity::new(*a, *b, *c)).collect();
        push(TRANSITIVE, Value::LargeCommunities(LargeCommunities::new(list)));
    }
    for (kind, value) in &set.unknown {
        push(TRANSITIVE, Value::UnknownAttribute(UnknownAttribute::new(*kind, value.clone())));
    }
    out
}

/// The message that says `update`, perhaps longer than allowed.
pub(crate) fn encode(update: &Update) -> Vec<u8> {
    let (mut withdrawn, mut list, mut announced) = (Vec::new(), Vec::new(), Vec::new());
    match update {
        Update::Withdraw(Nlri::V4(prefixes)) => withdrawn = nlri4(prefixes),
        Update::Withdraw(Nlri::V6(prefixes)) => {
            list.push(attribute(OPTIONAL, Value::MpUnreach(MpUnreach::Ipv6Unicast { nlri: nlri6(prefixes) })));
        }
        Update::Announce { hop, nlri, set } => {
            list = attributes(set);
            match (hop, nlri) {
                (Hop::V4(address), Nlri::V4(prefixes)) => {
                    list.push(attribute(WELL_KNOWN, Value::NextHop(NextHop::new(*address))));
                    announced = nlri4(prefixes);
                }
                (Hop::V6(global, local), Nlri::V6(prefixes)) => {
                    let reach = MpReach::Ipv6Unicast {
                        next_hop_global: *global,
                        next_hop_local: *local,
                        nlri: nlri6(prefixes),
                    };
                    list.push(attribute(OPTIONAL, Value::MpReach(reach)));
                }
                _ => unreachable!("generated together"),
            }
        }
    }
    let mut bytes = Vec::new();
    BgpMessage::Update(BgpUpdateMessage::new(withdrawn, list, announced)).write(&mut bytes).unwrap();
    bytes
}

/// The message; `None` if netgauze refuses it.
pub(crate) fn decode(message: &[u8], four_octet_as: bool) -> Option<BgpMessage> {
    let mut context = if four_octet_as { BgpParsingContext::default() } else { BgpParsingContext::asn2_default() };
    BgpMessage::parse(&mut SliceReader::new(message), &mut context).ok()
}

fn keys4(nlri: &[Ipv4UnicastAddress]) -> Nlri {
    let key = |net: Ipv4Net| (u32::from(net.network()), net.prefix_len());
    Nlri::V4(nlri.iter().map(|address| key(address.network().address())).collect())
}

fn keys6(nlri: &[Ipv6UnicastAddress]) -> Nlri {
    let key = |net: Ipv6Net| (u128::from(net.network()), net.prefix_len());
    Nlri::V6(nlri.iter().map(|address| key(address.network().address())).collect())
}

fn path(path: &AsPath) -> Vec<(bool, Vec<u32>)> {
    let AsPath::As4PathSegments(segments) = path else { panic!("a two-octet path") };
    let is_set = |segment: &As4PathSegment| matches!(segment.segment_type(), AsPathSegmentType::AsSet);
    segments.iter().map(|segment| (is_set(segment), segment.as_numbers().to_vec())).collect()
}

fn route_target(community: &ExtendedCommunity) -> u64 {
    let ExtendedCommunity::TransitiveTwoOctet(TwoOctet::RouteTarget { global_admin, local_admin }) = community else {
        panic!("{community:?} was not sent");
    };
    0x0002 << 48 | u64::from(*global_admin) << 32 | u64::from(*local_admin)
}

/// What the message says, on a four-octet session.
pub(crate) fn meaning(message: &[u8]) -> Vec<Update> {
    let Some(BgpMessage::Update(update)) = decode(message, true) else { panic!("no UPDATE") };
    let (mut said, mut set, mut hop4, mut reach) = (Vec::new(), Set::default(), None, None);
    for attribute in update.path_attributes() {
        match attribute.value() {
            Value::Origin(origin) => set.origin = *origin as u8,
            Value::AsPath(value) => set.path = path(value),
            Value::NextHop(next_hop) => hop4 = Some(next_hop.next_hop()),
            Value::MultiExitDiscriminator(med) => set.med = Some(med.metric()),
            Value::LocalPreference(value) => set.local_pref = Some(value.metric()),
            Value::AtomicAggregate(_) => set.atomic = true,
            Value::Aggregator(Aggregator::As4Aggregator(value)) => {
                set.aggregator = Some((*value.asn(), value.origin()));
            }
            Value::Communities(list) => set.communities = list.communities().iter().map(Community::value).collect(),
            Value::Originator(originator) => set.originator = Some(originator.id()),
            Value::ClusterList(list) => set.clusters = list.cluster_list().iter().map(ClusterId::id).collect(),
            Value::ExtendedCommunities(list) => set.extended = list.communities().iter().map(route_target).collect(),
            Value::LargeCommunities(list) => {
                let numbers = |c: &LargeCommunity| (c.global_admin(), c.local_data1(), c.local_data2());
                set.large = list.communities().iter().map(numbers).collect();
            }
            Value::UnknownAttribute(unknown) => set.unknown.push((unknown.code(), unknown.value().to_vec())),
            Value::MpReach(MpReach::Ipv6Unicast { next_hop_global, next_hop_local, nlri }) => {
                reach = Some((Hop::V6(*next_hop_global, *next_hop_local), keys6(nlri)));
            }
            Value::MpUnreach(MpUnreach::Ipv6Unicast { nlri }) => said.push(Update::Withdraw(keys6(nlri))),
            other => panic!("{other:?} was not sent"),
        }
    }
    if !update.withdraw_routes().is_empty() {
        said.push(Update::Withdraw(keys4(update.withdraw_routes())));
    }
    if !update.nlri().is_empty() {
        said.push(Update::Announce { hop: Hop::V4(hop4.unwrap()), nlri: keys4(update.nlri()), set: set.clone() });
    }
    if let Some((hop, nlri)) = reach {
        said.push(Update::Announce { hop, nlri, set });
    }
    said
}
