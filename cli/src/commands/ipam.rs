//! `twill ipam`: addresses in use on this node, as felix's own store has them.

use crate::args::{Ipam, Node};
use crate::commands::exit;
use crate::io::control::ask;
use crate::output::print;
use serde_json::Value;
use std::process::ExitCode;
use twill_crds::control::FelixRequest;
use twill_crds::names::FELIX_SOCKET;

const FIELDS: [&str; 5] = ["address", "namespace", "pod", "container_id", "ifname"];
const HEADER: [&str; 5] = ["ADDRESS", "NAMESPACE", "POD", "CONTAINER", "INTERFACE"];

pub(crate) fn run(command: Ipam) -> anyhow::Result<ExitCode> {
    let (node, format, wanted) = match command {
        Ipam::Show { node, output } => (node, output.output, None),
        Ipam::Who { address, node, output } => (node, output.output, Some(address.to_string())),
    };
    let mut addresses = in_use(&node)?;
    if let Some(wanted) = &wanted {
        addresses.retain(|entry| entry.get("address").and_then(Value::as_str) == Some(wanted));
    }
    let rows = addresses.iter().map(|entry| FIELDS.iter().map(|field| text(entry, field)).collect());
    print(format, &addresses, &HEADER, rows)?;
    Ok(exit(wanted.is_none() || !addresses.is_empty()))
}

fn in_use(node: &Node) -> anyhow::Result<Vec<Value>> {
    ask(&node.run_dir.join(FELIX_SOCKET), &FelixRequest::Addresses)
}

fn text(entry: &Value, field: &str) -> String {
    entry.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}
