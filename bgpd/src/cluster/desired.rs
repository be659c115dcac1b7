//! The speaker's and the FIB's configuration, from the objects alone.

use super::addresses::candidates;
use super::advertised::Advertised;
use super::identifier;
use super::nodes::{Nodes, nodes};
use super::objects::{Objects, is_shutdown};
use super::peers::{Sessions, sessions, wanted};
use super::topology::Place;
use crate::fib::{self, NodeAddresses, Pool};
use crate::speaker::{self, Shutdown};
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use twill_crds::bmp::BmpStation;
use twill_crds::ippool::{accepted, tunnel_addresses};
use twill_crds::names::DEFAULT_ASN;
use twill_crds::{BGPConfigurationSpec, IPBlock, IPPool, Object};
use twill_datastore::Key;

/// What the objects mean for this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// The speaker; without peers while the node has no address.
    pub speaker: speaker::Config,
    /// The kernel.
    pub fib: fib::Config,
    /// Names of the BGPPeers that the node is to have a session with, possible or not.
    pub configured: BTreeSet<String>,
    /// Whether the node reflects what others tell.
    pub reflects: bool,
    /// Whether the Node exists.
    pub node_exists: bool,
    /// Whether the machine goes down, as the kubelet says.
    pub going_down: bool,
    /// Why this node takes no part in routing, one sentence each.
    pub node_problems: Vec<String>,
    /// What else is wrong, one sentence each.
    pub problems: Vec<String>,
}

/// What the objects mean for the node named `own`.
#[must_use]
pub fn desired(own: &str, objects: &Objects) -> Desired {
    let configuration = objects.configurations.get(&Key::cluster("default"));
    let spec = configuration.map(|object| object.spec.clone()).unwrap_or_default();
    let nodes = nodes(own, objects, &spec.asn);
    // Without one there is no peer that it could be shown to.
    let asn = nodes.asn.unwrap_or(DEFAULT_ASN);
    let local = nodes.own.clone().unwrap_or_else(|| NodeAddresses { name: own.to_owned(), ..NodeAddresses::default() });
    let blocks = own_blocks(own, objects);
    let prefixes: BTreeSet<IpNet> = blocks.iter().map(|block| block.spec.cidr).collect();
    let mut problems = nodes.problems.clone();
    let pools: Vec<IPPool> = objects.pools.iter().map(|(_, pool)| pool.as_ref().clone()).collect();
    let (accepted, rejected) = accepted(&pools);
    problems.extend(rejected.iter().map(|(pool, reason)| format!("IPPool {}: {reason}", pool.name())));
    let shutdown = objects.network.spec.drain.then_some(Shutdown::Drained);
    let services = Advertised::of(own, objects, &spec.services, &nodes, &accepted);
    problems.extend(services.problems.iter().cloned());
    let place = Place::of(own, &spec, objects.decided.as_ref(), &objects.nodes);
    problems.extend(place.problem.clone());
    let Sessions { peers, templates, problems: more } = match &nodes.own {
        Some(own) if nodes.asn.is_some() && shutdown.is_none() => {
            sessions(objects, &nodes, own, &spec, asn, (&place, &services.between_nodes(), &accepted))
        }
        _ => Sessions::default(),
    };
    problems.extend(more);
    if local.v6.is_none() && prefixes.iter().any(|prefix| matches!(prefix, IpNet::V6(_))) {
        problems.push(format!(
            "Node {own}: status.addresses: there is no global IPv6 InternalIP to be the next hop of its IPv6 blocks, so they \
             are not advertised; add one"
        ));
    }
    let speaker = speaker::Config {
        asn,
        router_id: nodes.identifier.unwrap_or_else(|| identifier::of_name(own)),
        listen: if shutdown.is_none() { listen(&nodes, &spec, !templates.is_empty()) } else { Vec::new() },
        originate: prefixes.clone(),
        peers,
        templates,
        shared: services.prefixes,
        bmp: spec.bmp.iter().map(BmpStation::socket).collect(),
        exclusive: true,
        complete: objects.knows_services(),
        step: place.step,
        shutdown,
        leaving: false,
    };
    let configured = wanted(objects, own, &nodes, &local);
    let fib = fib_config(&spec, &nodes, local, &speaker, prefixes, &blocks, &accepted);
    let node = objects.nodes.get(&Key::cluster(own));
    let candidates = node.map(|node| candidates(node)).unwrap_or_default();
    let fib = fib::Config { services: services.ranges, candidates, ..fib };
    let conditions = node.and_then(|node| node.status.as_ref()?.conditions.as_ref());
    let going_down = conditions.is_some_and(|all| all.iter().any(is_shutdown));
    let node_exists = node.is_some();
    let reflects = place.reflects();
    let node_problems = nodes.own_problems.clone();
    Desired { speaker, fib, configured, reflects, node_exists, going_down, node_problems, problems }
}

fn fib_config(
    spec: &BGPConfigurationSpec,
    nodes: &Nodes,
    local: NodeAddresses,
    speaker: &speaker::Config,
    own: BTreeSet<IpNet>,
    blocks: &[&IPBlock],
    pools: &[&IPPool],
) -> fib::Config {
    let pool = |pool: &&IPPool| Pool {
        name: pool.name().to_owned(),
        cidr: pool.spec.cidr,
        encapsulation: pool.spec.encapsulation,
    };
    fib::Config {
        install: true,
        alone: false,
        complete: true,
        own,
        pools: pools.iter().map(pool).collect(),
        nodes: nodes.others.clone(),
        peers: speaker.peers.values().map(|peer| peer.address).collect(),
        local,
        tunnel_sources: tunnel_addresses(blocks.iter().copied()),
        vxlan_port: spec.vxlan_port,
        checksum_offload: spec.tunnel_checksum_offload,
        ..fib::Config::default()
    }
}

/// This machine's blocks; those that are being deleted too, until they are gone. Not those that felix gives back: when
/// their routes are gone it deletes them. Nor those that another machine claimed under its name: it may still run.
fn own_blocks<'a>(own: &str, objects: &'a Objects) -> Vec<&'a IPBlock> {
    let all = objects.blocks.iter().map(|(_, block)| block.as_ref());
    all.filter(|block| block.spec.node == own && objects.claimant.owns(block) && !block.is_releasing()).collect()
}

/// Where to listen; peers on interfaces call link-local addresses, which every node has.
fn listen(nodes: &Nodes, spec: &BGPConfigurationSpec, unnumbered: bool) -> Vec<SocketAddr> {
    let port = spec.listen_port;
    let Some(own) = &nodes.own else { return Vec::new() };
    let v4 = own.v4.map(|_| IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let v6 = (own.v6.is_some() || unnumbered).then_some(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    v4.into_iter().chain(v6).map(|address| SocketAddr::new(address, port)).collect()
}
