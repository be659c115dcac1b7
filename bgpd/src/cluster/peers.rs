//! With whom this node speaks: the nodes that its place among them has ([`super::topology`]), and what BGPPeer objects say.

use super::advertised;
use super::nodes::Nodes;
use super::objects::Objects;
use super::passwords::password;
use super::remotes::{Remote, common, remote};
use super::topology::Place;
use crate::fib::NodeAddresses;
use crate::filter::Filter;
use crate::fsm::LocalRole;
use crate::speaker::{
    AddPath, Beyond, Bfd, Export, Import, MaxPrefixes, Member, NextHopRule, Peer, PeerAsn, Templates, Unnumbered,
};
use crate::wire::{Families, Family};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;
use twill_crds::bgp::{AsRelation, BfdMultihop, NextHop, PeerAsn as SpecAsn, Topology};
use twill_crds::bgp_filter::FilterRule;
use twill_crds::bgp_limit::{MaxPrefixesSpec, RETRY_AFTER, WhenExceeded};
use twill_crds::control::BfdHops;
use twill_crds::names::{BGP_PORT, HOLD_TIME};
use twill_crds::{BGPConfigurationSpec, BGPPeer, IPPool, Object};

/// Seconds within which a node's speaker is back after a restart (RFC 4724).
const RESTART_TIME: u16 = 120;

/// Seconds for which a peer that knows RFC 9494 keeps a node's routes beyond that, as the last choice: a rollout that hangs over lunch.
const LONG_LIVED: u32 = 3600;

/// TTL of sessions between nodes of different AS.
const MULTIHOP: u8 = 64;

/// With whom a node speaks.
#[derive(Default)]
pub(super) struct Sessions {
    /// Peers by name.
    pub(super) peers: BTreeMap<String, Peer>,
    /// Those on interfaces.
    pub(super) templates: Templates,
    /// A sentence for each that cannot be.
    pub(super) problems: Vec<String>,
}

/// The peers by name, and a sentence for each that cannot be.
pub(super) fn sessions(
    objects: &Objects,
    nodes: &Nodes,
    own: &NodeAddresses,
    spec: &BGPConfigurationSpec,
    asn: u32,
    (place, between, pools): (&Place, &[FilterRule], &[&IPPool]),
) -> Sessions {
    let mut gathered = Gathered::default();
    // What was written about one goes before what concerns many.
    let is_many = |object: &BGPPeer| object.spec.remote.node_selector.is_some();
    let all = || objects.peers.iter().map(|(_, object)| object.as_ref());
    for object in all().filter(|one| !is_many(one)).chain(all().filter(|one| is_many(one))) {
        let around = Around { objects, nodes, own, config: spec, asn };
        let name = object.name();
        if let Err(problem) = gathered.add(object, &around) {
            gathered.problems.push(format!("BGPPeer {name}: {problem}"));
        }
    }
    let Gathered { mut by_address, templates, problems } = gathered;
    let mut members = BTreeMap::new();
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
    let mut peers = BTreeMap::new();
    // A BGPPeer's session has its name, also where a node has the same.
    for (address, (name, peer)) in by_address.into_iter().chain(members) {
        let taken = peers.contains_key(&name) || templates.unnumbered.contains_key(&name);
        let name = if taken { format!("{name}/{address}") } else { name };
        peers.insert(name, peer);
    }
    // Pods may have IPv4 where nodes have none: their blocks are told with the node's IPv6 address as next hop (RFC 8950).
    let has_v4 = || pools.iter().any(|pool| matches!(pool.spec.cidr, IpNet::V4(_)));
    if own.v4.is_none() && has_v4() {
        peers.values_mut().filter(|peer| peer.extended_next_hop).for_each(|peer| peer.families = Families::ALL);
    }
    Sessions { peers, templates, problems }
}

/// What a BGPPeer is read by.
struct Around<'a> {
    objects: &'a Objects,
    nodes: &'a Nodes,
    own: &'a NodeAddresses,
    config: &'a BGPConfigurationSpec,
    asn: u32,
}

/// What the BGPPeers so far have given.
#[derive(Default)]
struct Gathered {
    by_address: BTreeMap<IpAddr, (String, Peer)>,
    templates: Templates,
    problems: Vec<String>,
}

impl Gathered {
    /// Takes in what an object means.
    ///
    /// # Errors
    /// Why it gives no session, or one that nothing is told in.
    fn add(&mut self, object: &BGPPeer, around: &Around<'_>) -> Result<(), String> {
        let Around { objects, nodes, own, .. } = around;
        let name = object.name().to_owned();
        match remote(object, &own.name, nodes, own, objects)? {
            None => Ok(()),
            Some(Remote::Address(address)) => {
                if let Some((other, _)) = self.by_address.get(&address) {
                    return Err(format!(
                        "remote.address: {address} is the peer of BGPPeer {other} already; remove one of the two"
                    ));
                }
                let (peer, problem) = configured(object, address, around)?;
                self.by_address.insert(address, (name, peer));
                problem.map_or(Ok(()), Err)
            }
            Some(Remote::Interface(interface)) => {
                let same = |(_, template): &(&String, &Unnumbered)| template.interface == interface;
                if let Some((other, _)) = self.templates.unnumbered.iter().find(same) {
                    return Err(format!(
                        "remote.interface: {interface} is that of BGPPeer {other} already; remove one of the two"
                    ));
                }
                let (peer, problem) = configured(object, Ipv6Addr::UNSPECIFIED.into(), around)?;
                self.templates.unnumbered.insert(name, Unnumbered { interface, address: None, peer });
                problem.map_or(Ok(()), Err)
            }
            Some(Remote::Nodes(others)) => {
                let mut problems = None;
                for (node, address) in others {
                    if self.by_address.contains_key(&address) {
                        continue;
                    }
                    let (peer, problem) = configured(object, address, around)?;
                    problems = problems.or(problem);
                    self.by_address.insert(address, (format!("{name}/{node}"), peer));
                }
                problems.map_or(Ok(()), Err)
            }
        }
    }
}

/// Names of the BGPPeers that the node is to have a session with, whether that is possible or not; not of those whose remote it is.
pub(super) fn wanted(objects: &Objects, name: &str, nodes: &Nodes, own: &NodeAddresses) -> BTreeSet<String> {
    let all = objects.peers.iter().map(|(_, object)| object);
    all.filter(|object| !matches!(remote(object, name, nodes, own, objects), Ok(None)))
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
    let address = common(node, own)?;
    let mut peer = bare(address, own);
    peer.port = spec.listen_port;
    peer.asn = PeerAsn::Number(theirs);
    // Nodes of other racks are as far as iBGP would find them.
    peer.ttl = (ours != theirs).then_some(MULTIHOP);
    peer.hold_time = hold_time(spec.hold_time);
    Some((address, peer))
}

/// The peer at an address, which is unspecified for one on an interface; and what keeps it from being told anything, if something does.
///
/// # Errors
/// Why there can be no session.
fn configured(object: &BGPPeer, address: IpAddr, around: &Around<'_>) -> Result<(Peer, Option<String>), String> {
    let Around { objects, nodes, own, config, asn: own_asn } = *around;
    let spec = &object.spec;
    let unnumbered = address.is_unspecified();
    let mut peer = if unnumbered { on_interface(own) } else { bare(address, own) };
    if peer.source.is_none() && !unnumbered {
        return Err(format!(
            "remote.address: {address} cannot be reached from node {}, which has no InternalIP of that family",
            own.name
        ));
    }
    if let Some(source) = &spec.password {
        peer.password = Some(password(&source.secret_key_ref, objects)?);
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
    let problem = objects.rules.give(&mut peer, object, objects);
    Ok((peer, problem))
}

/// One on an interface: both families over our link-local address there, whatever addresses the node has elsewhere.
fn on_interface(own: &NodeAddresses) -> Peer {
    Peer {
        source: None,
        families: Families::ALL,
        next_hop_v4: None,
        next_hop_v6: None,
        extended_next_hop: true,
        ..bare(Ipv6Addr::UNSPECIFIED.into(), own)
    }
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
        interface: None,
        range: None,
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
        extended_next_hop: address.is_ipv6(),
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
