//! `twill status`: what both daemons of this node say of themselves.

use crate::args::Node;
use crate::commands::{counted, exit};
use crate::io::control::ask;
use crate::output::{Format, print, print_line};
use serde::Serialize;
use std::process::ExitCode;
use twill_crds::control::{BgpdRequest, BgpdStatus, FelixRequest, FelixStatus, PeerStatus};
use twill_crds::names::{BGPD_SOCKET, FELIX_SOCKET};

#[derive(Serialize)]
struct Status {
    #[serde(skip_serializing_if = "Option::is_none")]
    felix: Option<FelixStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bgpd: Option<BgpdStatus>,
    problems: Vec<String>,
}

pub(crate) fn run(node: &Node, format: Format) -> anyhow::Result<ExitCode> {
    let mut problems = Vec::new();
    let felix = ask::<_, FelixStatus>(&node.run_dir.join(FELIX_SOCKET), &FelixRequest::Status)
        .map_err(|error| problems.push(format!("felix: {error:#}")))
        .ok();
    let bgpd = ask::<_, BgpdStatus>(&node.run_dir.join(BGPD_SOCKET), &BgpdRequest::Status)
        .map_err(|error| problems.push(format!("bgpd: {error:#}")))
        .ok();
    let mut rows = Vec::new();
    if let Some(status) = &felix {
        problems.extend(status.problems.iter().map(|problem| format!("felix: {problem}")));
        rows.push(row(
            "felix",
            status.in_sync,
            status.revision,
            &counted(status.endpoints as usize, "endpoint"),
            status.repairs,
        ));
    }
    if let Some(status) = &bgpd {
        problems.extend(status.problems.iter().map(|problem| format!("bgpd: {problem}")));
        problems.extend(sessions_down(node, status).iter().map(|problem| format!("bgpd: {problem}")));
        let sessions = match status.drained {
            true => "no sessions: drained".to_owned(),
            false => format!("{} of {} sessions", status.established, status.peers),
        };
        let sessions = if status.reflector { format!("{sessions}, reflects") } else { sessions };
        rows.push(row("bgpd", status.in_sync, status.revision, &sessions, status.repairs));
    }
    let in_sync = felix.as_ref().is_some_and(|s| s.in_sync) && bgpd.as_ref().is_some_and(|s| s.in_sync);
    let status = Status { felix, bgpd, problems };
    print(format, &status, &["DAEMON", "IN SYNC", "REVISION", "HAS", "REPAIRS"], rows)?;
    if format == Format::Table {
        // No problem, and yet what the controller waits for.
        let retiring = status.bgpd.iter().filter_map(|bgpd| bgpd.retiring.as_ref());
        retiring.into_iter().try_for_each(|why| print_line(&format!("keeps sessions of before: {why}")))?;
        let remark = status.bgpd.iter().filter_map(|bgpd| bgpd.remark.as_ref());
        remark.into_iter().try_for_each(|remark| print_line(&format!("remark: {remark}")))?;
        status.problems.iter().try_for_each(|problem| print_line(&format!("problem: {problem}")))?;
    }
    Ok(exit(in_sync && status.problems.is_empty()))
}

/// One sentence per session that should be established and is not.
fn sessions_down(node: &Node, status: &BgpdStatus) -> Vec<String> {
    if status.drained || status.established >= status.peers {
        return Vec::new();
    }
    match ask::<_, Vec<PeerStatus>>(&node.run_dir.join(BGPD_SOCKET), &BgpdRequest::Peers) {
        Ok(peers) => peers.iter().filter_map(down).collect(),
        Err(error) => vec![format!("{error:#}")],
    }
}

fn down(peer: &PeerStatus) -> Option<String> {
    if peer.state == "Established" {
        return None;
    }
    if let Some(missing) = &peer.missing {
        return Some(format!("the session with {} is not established: {missing}", peer.name));
    }
    let why = peer.last_error.as_ref().map(|error| format!("; last error: {error}")).unwrap_or_default();
    Some(format!(
        "the session with {} ({}) is not established: {} for {} s{why}; see: twill peers",
        peer.name,
        super::routing::remote(peer),
        peer.state,
        peer.since
    ))
}

fn row(daemon: &str, in_sync: bool, revision: u64, has: &str, repairs: u64) -> Vec<String> {
    vec![
        daemon.into(),
        if in_sync { "yes" } else { "no" }.into(),
        revision.to_string(),
        has.into(),
        repairs.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_session_that_is_down_is_a_sentence() {
        let peer = |state: &str, error: Option<&str>| {
            let value = json!({"name": "n2", "address": "172.31.1.12", "asn": 64512, "state": state, "since": 35,
                "received": 0, "advertised": 0, "lastError": error});
            down(&serde_json::from_value::<PeerStatus>(value).unwrap_or_else(|error| panic!("{error}")))
        };
        assert_eq!(peer("Established", None), None);
        assert_eq!(
            peer("Active", Some("hold time over")).as_deref(),
            Some(
                "the session with n2 (172.31.1.12) is not established: Active for 35 s; last error: hold time over; see: twill peers"
            )
        );
    }
}
