//! Twill's lone speaker: `twill bgpd --config`.

use super::{File, Program, Setup, families, text};
use crate::plan::{Peer, Speaker};
use ipnet::IpNet;
use serde::Serialize;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

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
    graceful_restart: Restart,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Restart {
    restart_time: u16,
}

pub(super) fn setup(speaker: &Speaker, dir: &Path) -> anyhow::Result<Setup> {
    let socket = dir.join(twill_crds::names::BGPD_SOCKET);
    let args = ["bgpd", "--config", &text(&dir.join("bgpd.yaml")), "--socket", &text(&socket)];
    Ok(Setup {
        files: vec![File { name: "bgpd.yaml".to_owned(), text: configuration(speaker)? }],
        programs: vec![Program { name: "bgpd", installed: None, args: args.map(str::to_owned).to_vec(), socket }],
        user: None,
    })
}

fn configuration(speaker: &Speaker) -> anyhow::Result<String> {
    let wildcard = |v6| if v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    let listen = families(speaker).into_iter().map(|v6| Listen { address: wildcard(v6), port: 179 }).collect();
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
        graceful_restart: Restart { restart_time: super::RESTART_TIME },
    }
}
