//! A process that is killed while it writes leaves a store in which every acknowledged change is found, and no other.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use twill_ipam::io::store::Store;
use twill_ipam::{Attachment, Sandbox};

const DIRECTORY: &str = "TWILL_TEST_IPAM_DIRECTORY";
const BLOCK: &str = "10.42.0.0/24";

/// Attaches and releases until it is killed, and says what it has acknowledged.
#[test]
#[ignore = "started by the other test of this file"]
fn writer() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let mut store = Store::open(directory.as_ref(), 1).unwrap();
    let block = BLOCK.parse().unwrap();
    store.set_block(block, true).unwrap();
    for n in 0_u64.. {
        let sandbox = Sandbox { container_id: format!("c{n}"), ifname: "eth0".into() };
        let address = store.ledger().choose(&[block], 1_000_000 * (n + 1), 1, |_| false).unwrap();
        store
            .attach(Attachment {
                sandbox: sandbox.clone(),
                namespace: String::new(),
                pod: String::new(),
                uid: String::new(),
                netns: String::new(),
                boot_id: String::new(),
                addresses: vec![address],
                origin: Default::default(),
                asked: String::new(),
            })
            .unwrap();
        println!("+{n} {address}");
        if n >= 20 {
            let old = Sandbox { container_id: format!("c{}", n - 20), ifname: "eth0".into() };
            println!("?{}", n - 20);
            store.release(&old, 1_000_000 * (n + 1)).unwrap();
            println!("-{}", n - 20);
        }
    }
}

#[test]
fn every_acknowledged_change_outlives_sigkill() {
    for kill_after in [3, 57, 141] {
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer", "--ignored", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut held = std::collections::BTreeMap::new();
        let mut releasing = None;
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        // Until the pipe ends: what was said before the kill counts too.
        while let Some(Ok(line)) = lines.next() {
            if let Some(rest) = line.strip_prefix('+') {
                let (n, address) = rest.split_once(' ').unwrap();
                held.insert(format!("c{n}"), address.to_owned());
            } else if let Some(n) = line.strip_prefix('?') {
                releasing = Some(format!("c{n}"));
            } else if let Some(n) = line.strip_prefix('-') {
                held.remove(&format!("c{n}"));
                releasing = None;
            }
            seen += 1;
            if seen == kill_after {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(seen >= kill_after);
        let store = Store::open(directory.path(), 2).unwrap();
        let found: std::collections::BTreeMap<String, String> = store
            .ledger()
            .attachments()
            .map(|a| (a.sandbox.container_id.clone(), a.addresses[0].to_string()))
            .collect();
        for (container, address) in &held {
            let may_be_gone = releasing.as_ref() == Some(container);
            assert!(found.get(container) == Some(address) || may_be_gone, "{container} lost its {address}");
        }
        // At most the one attachment that was under way is there beyond.
        assert!(found.keys().filter(|container| !held.contains_key(*container)).count() <= 1, "{found:?} {held:?}");
    }
}
