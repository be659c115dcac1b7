//! `twill peers` and `twill routes`: what the speaker says, by its socket.

use crate::args::Node;
use crate::commands::exit;
use crate::io::control::ask;
use crate::output::{Format, print};
use ipnet::IpNet;
use std::process::ExitCode;
use twill_crds::control::{BgpdRequest, PeerStatus, RouteStatus};
use twill_crds::names::BGPD_SOCKET;

pub(crate) fn peers(node: &Node, format: Format) -> anyhow::Result<ExitCode> {
    let peers: Vec<PeerStatus> = ask(&node.run_dir.join(BGPD_SOCKET), &BgpdRequest::Peers)?;
    let rows = peers.iter().map(|peer| {
        vec![
            peer.name.clone(),
            peer.address.to_string(),
            if peer.asn == 0 { "external".into() } else { peer.asn.to_string() },
            peer.state.clone(),
            format!("{} s", peer.since),
            peer.bfd.clone().unwrap_or_else(|| "-".into()),
            peer.received.to_string(),
            peer.advertised.to_string(),
            peer.last_error.clone().unwrap_or_default(),
        ]
    });
    print(format, &peers, &["PEER", "ADDRESS", "AS", "STATE", "SINCE", "BFD", "RECEIVED", "SENT", "LAST ERROR"], rows)?;
    Ok(exit(peers.iter().all(|peer| peer.state == "Established")))
}

pub(crate) fn routes(node: &Node, prefix: Option<IpNet>, format: Format) -> anyhow::Result<ExitCode> {
    let routes: Vec<RouteStatus> = ask(&node.run_dir.join(BGPD_SOCKET), &BgpdRequest::Routes { prefix })?;
    let rows = routes.iter().map(|route| {
        vec![
            route.prefix.to_string(),
            route.next_hop.map(|hop| hop.to_string()).unwrap_or_default(),
            route.peer.clone(),
            route.as_path.clone(),
            if route.best { "best" } else { "" }.into(),
            if route.installed { route.encapsulation.clone() } else { "-".into() },
            route.reason.clone(),
        ]
    });
    print(format, &routes, &["PREFIX", "NEXT HOP", "PEER", "AS PATH", "BEST", "KERNEL", "WHY"], rows)?;
    Ok(ExitCode::SUCCESS)
}
