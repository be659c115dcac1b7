//! `twill peers` and `twill routes`: what the speaker says, by its socket.

use crate::args::{Node, Routes};
use crate::commands::exit;
use crate::io::control::ask;
use crate::output::{Format, print};
use anyhow::bail;
use std::process::ExitCode;
use twill_crds::control::{BgpdRequest, PeerStatus, RouteQuery, RouteStatus};
use twill_crds::names::BGPD_SOCKET;

/// Communities in one line of a table; JSON and YAML have all.
const COMMUNITIES: usize = 16;

pub(crate) fn peers(node: &Node, format: Format) -> anyhow::Result<ExitCode> {
    let peers: Vec<PeerStatus> = ask(&node.run_dir.join(BGPD_SOCKET), &BgpdRequest::Peers)?;
    let rows = peers.iter().map(|peer| {
        vec![
            peer.name.clone(),
            remote(peer),
            if peer.asn == 0 { "external".into() } else { peer.asn.to_string() },
            peer.state.clone(),
            format!("{} s", peer.since),
            if peer.role.is_empty() { "-".into() } else { peer.role.clone() },
            peer.bfd.clone().unwrap_or_else(|| "-".into()),
            peer.received.to_string(),
            peer.advertised.to_string(),
            peer.rejected.to_string(),
            peer.missing.clone().or_else(|| peer.last_error.clone()).unwrap_or_default(),
        ]
    });
    print(
        format,
        &peers,
        &["PEER", "ADDRESS", "AS", "STATE", "SINCE", "ROLE", "BFD", "RECEIVED", "SENT", "REJECTED", "LAST ERROR"],
        rows,
    )?;
    Ok(exit(peers.iter().all(|peer| peer.state == "Established")))
}

/// Its address, with its interface where that is how it is found.
pub(super) fn remote(peer: &PeerStatus) -> String {
    match (&peer.address, &peer.interface) {
        (Some(address), Some(interface)) => format!("{address}%{interface}"),
        (Some(address), None) => address.to_string(),
        (None, Some(interface)) => format!("%{interface}"),
        (None, None) => "-".to_owned(),
    }
}

pub(crate) fn routes(args: &Routes) -> anyhow::Result<ExitCode> {
    let query = args.query()?;
    let routes = match (&args.replay, &args.config) {
        (Some(recording), Some(config)) => {
            let (routes, problems) = twill_bgpd::replay(config, recording, &query)?;
            problems.iter().for_each(|problem| eprintln!("{}: {problem}", recording.display()));
            routes
        }
        _ => live(args, &query)?,
    };
    let rows = routes.iter().map(|route| {
        vec![
            route.prefix.to_string(),
            route.next_hop.map(|hop| hop.to_string()).unwrap_or_default(),
            route.peer.clone(),
            route.as_path.clone(),
            attributes(route),
            if route.best { "best" } else { "" }.into(),
            if route.installed { route.encapsulation.clone() } else { "-".into() },
            route.reason.clone(),
        ]
    });
    let heads = ["PREFIX", "NEXT HOP", "PEER", "AS PATH", "ATTRIBUTES", "BEST", "KERNEL", "WHY"];
    print(args.output.output, &routes, &heads, rows)?;
    Ok(ExitCode::SUCCESS)
}

/// What this node's speaker says.
fn live(args: &Routes, query: &RouteQuery) -> anyhow::Result<Vec<RouteStatus>> {
    let socket = args.node.run_dir.join(BGPD_SOCKET);
    let routes: Vec<RouteStatus> = ask(&socket, &BgpdRequest::Routes(query.clone()))?;
    let name = query.peer.as_ref().filter(|_| routes.is_empty());
    if let Some(name) = name {
        let peers: Vec<PeerStatus> = ask(&socket, &BgpdRequest::Peers)?;
        if !peers.iter().any(|peer| peer.name == *name) {
            bail!("--peer {name}: there is no such peer; `twill peers` lists them");
        }
    }
    Ok(routes)
}

/// The path's identifier (RFC 7911), what decides beside its length, and the communities.
fn attributes(route: &RouteStatus) -> String {
    let identifier = route.path_id.map(|value| format!("id={value}"));
    let local_pref = route.local_pref.map(|value| format!("pref={value}"));
    let med = route.med.map(|value| format!("med={value}"));
    let communities = route.communities.iter().take(COMMUNITIES).cloned();
    let more = route.communities.len().saturating_sub(COMMUNITIES);
    let more = (more > 0).then(|| format!("and {more} more"));
    let all: Vec<String> = identifier.into_iter().chain(local_pref).chain(med).chain(communities).chain(more).collect();
    all.join(" ")
}
