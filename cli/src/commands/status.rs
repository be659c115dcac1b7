//! `twill status`: what both daemons of this node say of themselves.

use crate::args::Node;
use crate::commands::exit;
use crate::io::control::ask;
use crate::output::{Format, print, print_line};
use serde::Serialize;
use std::process::ExitCode;
use twill_crds::control::{BgpdRequest, BgpdStatus, FelixRequest, FelixStatus};
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
            &format!("{} endpoints", status.endpoints),
            status.repairs,
        ));
    }
    if let Some(status) = &bgpd {
        problems.extend(status.problems.iter().map(|problem| format!("bgpd: {problem}")));
        let sessions = match status.drained {
            true => "no sessions: drained".to_owned(),
            false => format!("{} of {} sessions", status.established, status.peers),
        };
        rows.push(row("bgpd", status.in_sync, status.revision, &sessions, status.repairs));
    }
    let in_sync = felix.as_ref().is_some_and(|s| s.in_sync) && bgpd.as_ref().is_some_and(|s| s.in_sync);
    let status = Status { felix, bgpd, problems };
    print(format, &status, &["DAEMON", "IN SYNC", "REVISION", "HAS", "REPAIRS"], rows)?;
    if format == Format::Table {
        status.problems.iter().try_for_each(|problem| print_line(&format!("problem: {problem}")))?;
    }
    Ok(exit(in_sync && status.problems.is_empty()))
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
