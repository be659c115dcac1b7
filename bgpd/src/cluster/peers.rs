//! With whom this node speaks: the nodes that its place among them has ([`super::topology`]), and what BGPPeer objects say.

use super::advertised;
use super::nodes::Nodes;
use super::objects::Objects;
use super::topology::Place;
use crate::fib::NodeAddresses;
use crate::filter::Filter;
use crate::fsm::LocalRole;
use crate::speaker::{AddPath, Beyond, Bfd, Export, Import, MaxPrefixes, Member, NextHopRule, Peer, PeerAsn};
use crate::wire::{Families, Family};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;
use twill_crds::bgp::{AsRelation, BfdMultihop, NextHop, PeerAsn as SpecAsn, Topology};
use twill_crds::bgp_filter::FilterRule;
use twill_crds::bgp_limit::{MaxPrefixesSpec, RETRY_AFTER, WhenExceeded};
use twill_crds::control::BfdHops;
use twill_crds::names::{BGP_PORT, HOLD_TIME};
use twill_crds::selector::matches_or_absent;
use twill_crds::{BGPConfigurationSpec, BGPPeer, Object};
use twill_datastore::Key;

/// Seconds within which a node's speaker is back after a restart (RFC 4724).
const RESTART_TIME: u16 = 120;

/// Seconds for which a peer that knows RFC 9494 keeps a node's routes beyond that, as the last choice: a rollout that hangs over lunch.
const LONG_LIVED: u32 = 3600;

/// TTL of sessions between nodes of different AS.
const MULTIHOP: u8 = 64;

/// The peers by name, and a sentence for each that cannot be.
pub(super) fn peers(
    objects: &Objects,
    nodes: &Nodes,
    own: &NodeAddresses,
    spec: &BGPConfigurationSpec,
    asn: u32,
    (place, between): (&Place, &[FilterRule]),
) -> (BTreeMap<String, Peer>, Vec<String>) {
    let mut problems = Vec::new();
    let mut by_address: BTreeMap<IpAddr, (String, Peer)> = BTreeMap::new();
    let mut members = BTreeMap::new();
    let labels = objects.nodes.get(&Key::cluster(&own.name)).and_then(|node| node.metadata.labels.clone());
    let labels = labels.unwrap_or_default();
    for (_, object) in objects.peers.iter() {
        if !matches_or_absent(object.spec.node_selector.as_ref(), &labels) {
            continue;
        }
        match configured(object, nodes, own, spec, asn) {
            Err(problem) => problems.push(format!("BGPPeer {}: {problem}", object.name())),
            Ok(None) => {}
            Ok(Some(mut peer)) => match by_address.get(&peer.address) {
                Some((other, _)) => problems.push(format!(
                    "BGPPeer {}: remote.address: {} is the peer of BGPPeer {other} already; remove one of the two",
                    object.name(),
                    peer.address
                )),
                None => {
                    let problem = objects.rules.give(&mut peer, object, objects);
                    problems.extend(problem.map(|problem| format!("BGPPeer {}: {problem}", object.name())));
                    by_address.insert(peer.address, (object.name().to_owned(), peer));
                }
            },
        }
    }
    let filter_between = advertised::between(between);
    for node in nodes.others.iter().filter(|node| place.has(&node.name)) {
        let Some(other) = nodes.asns.get(&node.name) else { continue };
        let Some((address, mut peer)) = member(node, own, spec, (asn, *other)) else { continue };
        match by_address.get_mut(&address) {
            // What a person wrote about this address goes before what follows from the topology, but for what the node is for it.
            Some((_, written)) => {
                place.fill_in(&node.name, written);
                written.export_filter = filter_between.clone().then(&written.export_filter);
            }
            None => {
                place.fill_in(&node.name, &mut peer);
                peer.export_filter = filter_between.clone();
                members.insert(address, (node.name.clone(), peer));
            }
        }
    }
    let mut named = BTreeMap::new();
    // A BGPPeer's session has its name, also where a node has the same.
    for (address, (name, peer)) in by_address.into_iter().chain(members) {
        let name = if named.contains_key(&name) { format!("{name}/{address}") } else { name };
        named.insert(name, peer);
    }
    (named, problems)
}

/// Names of the BGPPeers that the node is to have a session with, whether that is possible or not; not of those whose remote it is.
pub(super) fn wanted(objects: &Objects, name: &str, own: Option<&NodeAddresses>) -> BTreeSet<String> {
    let labels =
        objects.nodes.get(&Key::cluster(name)).and_then(|node| node.metadata.labels.clone()).unwrap_or_default();
    let addresses: Vec<IpAddr> =
        own.into_iter().flat_map(|own| own.v4.map(IpAddr::V4).into_iter().chain(own.v6.map(IpAddr::V6))).collect();
    let all = objects.peers.iter().map(|(_, object)| object);
    all.filter(|object| matches_or_absent(object.spec.node_selector.as_ref(), &labels))
        .filter(|object| object.spec.remote.address.is_none_or(|address| !addresses.contains(&address)))
        .map(|object| object.name().to_owned())
        .collect()
}

/// A session with another node; `asns` are ours and the other's.
fn member(
    node: &NodeAddresses,
    own: &NodeAddresses,
    spec: &BGPConfigurationSpec,
    (ours, theirs): (u32, u32),
) -> Option<(IpAddr, Peer)> {
    let v4 = own.v4.is_some().then_some(node.v4).flatten().map(IpAddr::V4);
    let v6 = own.v6.is_some().then_some(node.v6).flatten().map(IpAddr::V6);
    let address = v4.or(v6)?;
    let mut peer = bare(address, own);
    peer.port = spec.listen_port;
    peer.asn = PeerAsn::Number(theirs);
    // Nodes of other racks are as far as iBGP would find them.
    peer.ttl = (ours != theirs).then_some(MULTIHOP);
    peer.hold_time = hold_time(spec.hold_time);
    Some((address, peer))
}

fn configured(
    object: &BGPPeer,
    nodes: &Nodes,
    own: &NodeAddresses,
    config: &BGPConfigurationSpec,
    own_asn: u32,
) -> Result<Option<Peer>, String> {
    let spec = &object.spec;
    let address = spec.remote.address.ok_or("remote.address: is missing; write the peer's address")?;
    if [own.v4.map(IpAddr::V4), own.v6.map(IpAddr::V6)].contains(&Some(address)) {
        // The object selects many nodes, and one of them is the remote itself.
        return Ok(None);
    }
    let mut peer = bare(address, own);
    if peer.source.is_none() {
        return Err(format!(
            "remote.address: {address} cannot be reached from node {}, which has no InternalIP of that family",
            own.name
        ));
    }
    let is_node =
        nodes.others.iter().any(|node| [node.v4.map(IpAddr::V4), node.v6.map(IpAddr::V6)].contains(&Some(address)));
    peer.port = spec.remote.port.unwrap_or(if is_node { config.listen_port } else { BGP_PORT });
    peer.local_asn = spec.local_asn;
    peer.asn = match spec.asn {
        SpecAsn::Number(asn) => PeerAsn::Number(asn),
        SpecAsn::Relation(AsRelation::Internal) => PeerAsn::Number(spec.local_asn.unwrap_or(own_asn)),
        SpecAsn::Relation(AsRelation::External) => PeerAsn::External,
    };
    peer.hold_time = hold_time(spec.hold_time);
    peer.ttl_security = spec.ttl_security;
    // Behind a ToR of another AS, the routes of nodes with our AS come back with it (design, Fabric).
    let default = u8::from(config.topology == Topology::Fabric && peer.is_external(own_asn));
    peer.allow_own_as = spec.allow_own_as.unwrap_or(default);
    peer.next_hop = match spec.next_hop {
        NextHop::Auto => NextHopRule::Auto,
        NextHop::Own => NextHopRule::Own,
        NextHop::Keep => NextHopRule::Keep,
    };
    peer.add_path = spec.add_path.as_ref().map(AddPath::from).unwrap_or_default();
    let external = peer.is_external(own_asn);
    peer.max_prefixes = spec.max_prefixes.map(max_prefixes);
    if let Some(role) = spec.role {
        if !external {
            return Err(format!(
                "role: is for peers in another AS (RFC 9234), and AS {own_asn} is this node's; leave it out"
            ));
        }
        peer.role = Some(LocalRole { ours: role.local.into(), strict: role.strict });
    }
    peer.bfd = spec.bfd.map(|bfd| Bfd {
        min_tx: bfd.min_tx,
        min_rx: bfd.min_rx,
        multiplier: bfd.multiplier,
        hops: match bfd.multihop {
            // Packets over one hop have TTL 255, which no router leaves them.
            BfdMultihop::Auto if spec.ttl_security.is_some_and(|hops| hops > 1) => BfdHops::Multiple,
            BfdMultihop::Auto if !external => BfdHops::Auto,
            BfdMultihop::Auto | BfdMultihop::Never => BfdHops::Single,
            BfdMultihop::Always => BfdHops::Multiple,
        },
    });
    Ok(Some(peer))
}

fn max_prefixes(spec: MaxPrefixesSpec) -> MaxPrefixes {
    let then = match spec.when_exceeded {
        WhenExceeded::Close => Beyond::Close(Duration::from_secs(spec.retry_after.unwrap_or(RETRY_AFTER).into())),
        WhenExceeded::Refuse => Beyond::Refuse,
        WhenExceeded::Warn => Beyond::Warn,
    };
    MaxPrefixes { limit: spec.limit, then }
}

/// What all peers of a node have in common: it tells its own prefixes and nothing else, and takes everything.
fn bare(address: IpAddr, own: &NodeAddresses) -> Peer {
    let v4 = own.v4.map(|_| Family::Ipv4Unicast);
    let v6 = own.v6.map(|_| Family::Ipv6Unicast);
    let families: Families = v4.into_iter().chain(v6).collect();
    Peer {
        address,
        port: BGP_PORT,
        asn: PeerAsn::External,
        local_asn: None,
        source: match address {
            IpAddr::V4(_) => own.v4.map(IpAddr::V4),
            IpAddr::V6(_) => own.v6.map(IpAddr::V6),
        },
        password: None,
        hold_time: HOLD_TIME,
        ttl: None,
        ttl_security: None,
        passive: false,
        families,
        next_hop_v4: own.v4,
        next_hop_v6: own.v6,
        graceful_restart: Some(RESTART_TIME),
        long_lived: Some(LONG_LIVED),
        import_filter: Filter::default(),
        import: Import::All,
        export_filter: Filter::default(),
        export: Export::Own,
        allow_own_as: 0,
        as_override: false,
        reflector_client: false,
        member: Member::Apart,
        next_hop: NextHopRule::Auto,
        add_path: AddPath::default(),
        bfd: None,
        max_prefixes: None,
        role: None,
    }
}

/// 1 and 2 are impossible (RFC 4271 section 4.2); admission refuses them, and one that slipped through counts as unset.
fn hold_time(spec: u16) -> u16 {
    if matches!(spec, 1 | 2) { HOLD_TIME } else { spec }
}
