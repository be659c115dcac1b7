//! What a node has because of pods, line by line: compared with what it had before there were any.

use crate::world::Node;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use twill_e2e::Lab;

/// Sets whose elements go by themselves.
const EXPIRES: &str = "timeout";

/// Everything of a node.
///
/// # Errors
/// Something cannot be asked.
pub(crate) fn of(lab: &Lab, node: &Node) -> anyhow::Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for line in lab.exec(&node.name, &["ip", "-o", "link"])?.lines() {
        let name = line.split([' ', '@']).nth(1).unwrap_or_default();
        if name.starts_with("twl") || name.starts_with("twb") {
            all.insert(format!("interface {name}"));
        }
    }
    for family in ["-4", "-6"] {
        for line in lab.exec(&node.name, &["ip", family, "rule"])?.lines() {
            all.insert(format!("rule {family} {line}"));
        }
        for line in lab.exec(&node.name, &["ip", family, "route", "show", "table", "all", "proto", "85"])?.lines() {
            all.insert(format!("route {family} {line}"));
        }
        for line in lab.exec(&node.name, &["ip", family, "neigh", "show", "nud", "permanent"])?.lines() {
            all.insert(format!("neighbour {family} {line}"));
        }
    }
    table(&lab.exec(&node.name, &["nft", "-j", "list", "table", "inet", "twill"])?, &mut all)?;
    for held in held(node)? {
        all.insert(format!("address held: {held}"));
    }
    // Who was killed while writing leaves what nobody reads; felix takes it away after an hour.
    let visible = |name: &str| !name.starts_with('.');
    files(&node.runtime.dir.join("cni-deleted"), visible, &mut all);
    files(&node.runtime.dir.join("ipam"), |name| name.starts_with("lent-"), &mut all);
    Ok(all)
}

/// Chains, sets and maps of the table, and their elements.
fn table(json: &str, all: &mut BTreeSet<String>) -> anyhow::Result<()> {
    let json: Value = serde_json::from_str(json)?;
    for object in json["nftables"].as_array().into_iter().flatten() {
        let Some((kind, body)) = object.as_object().and_then(|object| object.iter().next()) else { continue };
        let name = body["name"].as_str().unwrap_or_default();
        match kind.as_str() {
            "chain" => drop(all.insert(format!("chain {name}"))),
            "set" | "map" => {
                all.insert(format!("{kind} {name}"));
                let expires = body["flags"].as_array().is_some_and(|flags| flags.contains(&json!(EXPIRES)));
                for element in body["elem"].as_array().into_iter().flatten().filter(|_| !expires) {
                    all.insert(format!("element of {name}: {element}"));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// What felix's store has.
fn held(node: &Node) -> anyhow::Result<Vec<Value>> {
    let mut stream = UnixStream::connect(node.runtime.dir.join("felix.sock"))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    writeln!(stream, "{{\"op\":\"addresses\"}}")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

fn files(directory: &Path, of_interest: impl Fn(&str) -> bool, all: &mut BTreeSet<String>) {
    let names = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| of_interest(name));
    all.extend(names.map(|name| format!("file {name}")));
}

/// What there is more, and what there is less.
pub(crate) fn differences(before: &BTreeSet<String>, after: &BTreeSet<String>) -> Vec<String> {
    let more = after.difference(before).map(|line| format!("+ {line}"));
    more.chain(before.difference(after).map(|line| format!("- {line}"))).collect()
}
