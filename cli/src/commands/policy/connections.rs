//! `twill policy diff --connections`: the live connections of this node that a change would cut, as felix foretells them.

use crate::args::Node;
use crate::commands::counted;
use crate::io::control::ask_within;
use crate::output::{print_line, print_table};
use anyhow::bail;
use std::time::Duration;
use twill_crds::control::{Answer, FelixRequest, Forecast, PolicyChange};
use twill_crds::names::FELIX_SOCKET;

/// felix hears what the datastore has, compiles all policy anew and looks at every connection.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks felix.
pub(super) fn forecast(node: &Node, change: PolicyChange) -> anyhow::Result<Forecast> {
    let request = FelixRequest::Forecast(change);
    match ask_within(PATIENCE, &node.run_dir.join(FELIX_SOCKET), &request)? {
        Answer::Is(forecast) => Ok(forecast),
        Answer::Failed { error } => bail!("{error}"),
    }
}

/// Prints it for people.
pub(super) fn table(forecast: &Forecast) -> anyhow::Result<()> {
    let node = &forecast.node;
    if forecast.kept {
        return print_line(&format!("node {node} keeps live connections whatever policy says: none is cut"));
    }
    if forecast.cut.is_empty() {
        return print_line(&format!("no live connection of node {node} is cut"));
    }
    let rows = forecast.cut.iter().map(|one| {
        vec![one.source.to_string(), one.destination.to_string(), one.protocol.clone(), one.denial.to_string()]
    });
    print_table(&["CUT FROM", "TO", "PROTOCOL", "DENIED BY"], rows)?;
    let cut = if forecast.cut.len() == 1 { "is cut" } else { "are cut" };
    print_line(&format!("{} of node {node} {cut}", counted(forecast.cut.len(), "live connection")))
}
