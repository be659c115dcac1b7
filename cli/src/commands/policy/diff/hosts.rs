//! What HostPolicies in files would open and close at the interfaces of nodes.

use super::{NAMED, few, group, span};
use crate::output::{print_line, print_table};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use twill_felix::evaluate::{Edit, HostChange, Span};
use twill_felix::host::State;
use twill_felix::model::Way;

/// Prints it for people, if there is any. What nodes need is known of those that said it.
pub(super) fn table(changes: &[HostChange], told: &[State]) -> anyhow::Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let rows = changes.iter().map(|change| {
        let interfaces = few(change.interfaces.clone());
        vec![
            if change.opens { "opens" } else { "closes" }.to_owned(),
            few(change.nodes.iter().cloned().collect()),
            direction(change.way).to_owned(),
            change.peers.to_string(),
            ports(&change.ports),
            if interfaces.is_empty() { "all".to_owned() } else { interfaces },
            by(change),
        ]
    });
    print_table(&["CHANGE", "NODES", "DIRECTION", "OTHER END", "PORTS", "INTERFACES", "BY"], rows)?;
    let lines = needs(changes, told).into_iter().chain(told.iter().filter_map(differs));
    lines.chain([CUTS.to_owned()]).try_for_each(|line| print_line(&line))
}

/// What felix does: see its README, "The host's own interfaces".
const CUTS: &str =
    "nodes judge new connections so once the change is confirmed; no HostPolicy cuts a connection that is open";

/// Of which nodes it is known what they need, which passes whatever the change says.
fn needs(changes: &[HostChange], told: &[State]) -> Option<String> {
    let meant: BTreeSet<&String> = changes.iter().flat_map(|change| &change.nodes).collect();
    let (known, others): (Vec<&String>, Vec<&String>) =
        meant.into_iter().partition(|node| told.iter().any(|state| state.node == **node));
    let known = few(known.into_iter().cloned().collect());
    let of = if known.is_empty() { String::new() } else { format!(" but of {known}, as told there") };
    let needs = "what nodes need is taken for what they usually do";
    (!others.is_empty())
        .then(|| format!("{needs}{of}; --host-state FILE takes what `twill policy host -o json` says on one"))
}

/// A node that does not enforce what the datastore has, with which the change is compared.
fn differs(state: &State) -> Option<String> {
    let node = &state.node;
    if let Some(trial) = state.trial.as_ref().filter(|trial| trial.begun) {
        let policies = few(trial.policies.clone());
        return Some(format!(
            "node {node} has HostPolicies on trial ({policies}); this is compared as if they were confirmed"
        ));
    }
    let why = &state.reverted.as_ref()?.why;
    Some(format!("node {node} does not enforce what the datastore has, with which this is compared: {why}"))
}

fn sign(edit: Edit) -> char {
    match edit {
        Edit::Added => '+',
        Edit::Removed => '-',
        Edit::Changed => '~',
    }
}

/// What does it: HostPolicies that are others, or namespaces that are, by whose labels HostPolicies tell pods apart.
fn by(change: &HostChange) -> String {
    match change.by.is_empty() {
        true => "labels of namespaces".to_owned(),
        false => few(change.by.iter().map(|(name, edit)| format!("{}{name}", sign(*edit))).collect()),
    }
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
    let by = |(name, edit): (&String, &Edit)| json!({"name": name, "change": format!("{edit:?}")});
    json!({
        "change": if change.opens { "Opens" } else { "Closes" },
        "nodes": change.nodes.iter().take(NAMED).collect::<Vec<_>>(),
        "nodeCount": change.nodes.len(),
        "direction": direction(change.way),
        "interfaces": change.interfaces,
        "otherEnd": group(&change.peers),
        "ports": change.ports.iter().map(span).collect::<Vec<_>>(),
        "hostPolicies": change.by.iter().map(by).collect::<Vec<_>>(),
        "openConnections": "Kept",
    })
}
