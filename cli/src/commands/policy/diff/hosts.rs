//! What HostPolicies in files would open and close at the interfaces of nodes.

use super::{few, group, span};
use crate::output::{print_line, print_table};
use serde_json::{Value, json};
use twill_felix::evaluate::{HostChange, Span};
use twill_felix::model::Way;

/// Prints it for people, if there is any.
pub(super) fn table(changes: &[HostChange]) -> anyhow::Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let rows = changes.iter().map(|change| {
        let nodes = few(change.nodes.iter().cloned().collect());
        let interfaces = few(change.interfaces.clone());
        vec![
            if change.opens { "opens" } else { "closes" }.to_owned(),
            nodes,
            direction(change.way).to_owned(),
            change.peers.to_string(),
            ports(&change.ports),
            if interfaces.is_empty() { "all".to_owned() } else { interfaces },
        ]
    });
    print_table(&["CHANGE", "NODES", "DIRECTION", "OTHER END", "PORTS", "INTERFACES"], rows)?;
    print_line("nodes judge new connections so once the change is confirmed; those that are open go on")
}

/// As the field of a HostPolicy says it.
fn direction(way: Way) -> &'static str {
    match way {
        Way::In => "Ingress",
        Way::Out => "Egress",
        Way::Through => "Forwarded",
    }
}

fn ports(spans: &[Span]) -> String {
    if spans.iter().all(Span::is_whole) && spans.len() == ALL {
        return "all".to_owned();
    }
    let text = |span: &Span| span.protocol.map_or_else(|| "other protocols".to_owned(), |_| span.to_string());
    few(spans.iter().map(text).collect())
}

/// TCP, UDP, SCTP, ICMP, IP-in-IP, and the rest.
const ALL: usize = 6;

/// The same for programs.
pub(super) fn value(change: &HostChange) -> Value {
    json!({
        "change": if change.opens { "Opens" } else { "Closes" },
        "nodes": change.nodes,
        "direction": direction(change.way),
        "interfaces": change.interfaces,
        "otherEnd": group(&change.peers),
        "ports": change.ports.iter().map(span).collect::<Vec<_>>(),
    })
}
