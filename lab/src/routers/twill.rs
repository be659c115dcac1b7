//! Twill's lone speaker: `twill bgpd --config`.

use crate::plan::{Peer, Speaker};
use ipnet::IpNet;
use serde::Serialize;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Config<'a> {
    asn: u32,
    #[serde(rename = "routerID")]
    router_id: Ipv4Addr,
    listen: Vec<Listen>,
    install_routes: bool,
    originate: &'a [IpNet],
    peers: Vec<Neighbour<'a>>,
}

#[derive(Serialize)]
struct Listen {
    address: IpAddr,
    port: u16,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Neighbour<'a> {
    name: &'a str,
    address: IpAddr,
    asn: u32,
    families: [&'static str; 1],
    import: &'static str,
    export: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    as_override: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    passive: bool,
}

/// The speaker's YAML file.
///
/// # Errors
/// None that is known: everything in it can be written as YAML.
pub fn config(speaker: &Speaker) -> anyhow::Result<String> {
    let wildcards = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let listen = wildcards
        .into_iter()
        .filter(|w| speaker.peers.iter().any(|p| p.address.is_ipv6() == w.is_ipv6()))
        .map(|address| Listen { address, port: 179 })
        .collect();
    let peers = speaker.peers.iter().map(neighbour).collect();
    let Speaker { asn, router_id, originate, .. } = speaker;
    let config = Config { asn: *asn, router_id: *router_id, listen, install_routes: true, originate, peers };
    Ok(serde_saphyr::to_string(&config)?)
}

fn neighbour(peer: &Peer) -> Neighbour<'_> {
    Neighbour {
        name: &peer.name,
        address: peer.address,
        asn: peer.asn,
        families: [if peer.address.is_ipv6() { "ipv6" } else { "ipv4" }],
        import: "all",
        export: "all",
        as_override: peer.node,
        passive: peer.node,
    }
}
