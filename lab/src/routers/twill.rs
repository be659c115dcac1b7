//! Twill's lone speaker: `twill bgpd --config`.

use super::{File, Program, RESTART_TIME, Setup, families, text};
use crate::plan::{Peer, Speaker};
use ipnet::IpNet;
use serde::Serialize;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// The file of a lone speaker, as far as a router needs it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Config<'a> {
    pub(super) asn: u32,
    #[serde(rename = "routerID")]
    pub(super) router_id: Ipv4Addr,
    pub(super) listen: Vec<Listen>,
    pub(super) install_routes: bool,
    pub(super) originate: &'a [IpNet],
    pub(super) peers: Vec<Neighbour<'a>>,
}

#[derive(Serialize)]
pub(super) struct Listen {
    address: IpAddr,
    port: u16,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Neighbour<'a> {
    pub(super) name: &'a str,
    pub(super) address: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<IpAddr>,
    pub(super) asn: u32,
    pub(super) families: [&'static str; 1],
    pub(super) import: &'static str,
    pub(super) export: &'static str,
    pub(super) graceful_restart: Restart,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) as_override: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) passive: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Restart {
    restart_time: u16,
}

/// Both roles, for the families of the session.
pub(super) const RESTART: Restart = Restart { restart_time: RESTART_TIME };

pub(super) fn setup(speaker: &Speaker, dir: &Path) -> anyhow::Result<Setup> {
    Ok(Setup { files: vec![file(&configuration(speaker))?], programs: vec![program(dir)], user: None })
}

/// The file of [`program`].
pub(super) fn file(config: &Config<'_>) -> anyhow::Result<File> {
    Ok(File { name: "bgpd.yaml".to_owned(), text: serde_saphyr::to_string(config)? })
}

/// The lone speaker, with its file and its socket in the router's directory.
pub(super) fn program(dir: &Path) -> Program {
    let socket = dir.join(twill_crds::names::BGPD_SOCKET);
    let args = ["bgpd", "--config", &text(&dir.join("bgpd.yaml")), "--socket", &text(&socket)];
    Program { name: "bgpd", installed: None, args: args.map(str::to_owned).to_vec(), socket }
}

fn configuration(speaker: &Speaker) -> Config<'_> {
    let wildcard = |v6| if v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    let listen = families(speaker).into_iter().map(|v6| Listen { address: wildcard(v6), port: 179 }).collect();
    let peers = speaker.peers.iter().map(neighbour).collect();
    let Speaker { asn, router_id, originate, .. } = speaker;
    Config { asn: *asn, router_id: *router_id, listen, install_routes: true, originate, peers }
}

fn neighbour(peer: &Peer) -> Neighbour<'_> {
    Neighbour {
        name: &peer.name,
        address: peer.address,
        source: None,
        asn: peer.asn,
        families: [family(peer.address)],
        import: "all",
        export: "all",
        graceful_restart: RESTART,
        as_override: peer.shares_as,
        passive: peer.node,
    }
}

/// The family of a session, which is that of its address.
pub(super) fn family(address: IpAddr) -> &'static str {
    if address.is_ipv6() { "ipv6" } else { "ipv4" }
}
