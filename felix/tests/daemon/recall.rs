//! Started again while the datastore is away: felix goes on with what it heard before.

use crate::node::{Attached, Node};
use crate::world::{Ns, text, until};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use twill_crds::{NetworkPolicy, Pod};
use twill_datastore::Datastore;

const SOON: Duration = Duration::from_secs(10);

/// Only `from` may reach the pods of `app`.
fn admit(node: &Node, app: &str, from: &[&str]) {
    let peers: Vec<Value> = from.iter().map(|app| json!({"podSelector": {"matchLabels": {"app": app}}})).collect();
    let ingress = if peers.is_empty() { json!([]) } else { json!([{"from": peers}]) };
    node.create::<NetworkPolicy>(json!({
        "metadata": {"name": format!("admit-{app}"), "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": {"app": app}}, "policyTypes": ["Ingress"], "ingress": ingress},
    }));
}

/// A pod that is attached and reported.
fn running(node: &Node, name: &str) -> (Attached, String) {
    let pod = node.pod(name);
    let addresses = node.add(&pod);
    node.report(&pod, &addresses);
    (pod, addresses[0].clone())
}

fn memory(node: &Node) -> PathBuf {
    node.state.join("felix.db")
}

/// Waits until the memory on disk, or its log, has this text.
pub(crate) fn until_kept(node: &Node, what: &str) {
    let has = |path: PathBuf| {
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes.windows(what.len()).any(|window| window == what.as_bytes())
    };
    until("what was heard is on disk", SOON, || has(memory(node)) || has(node.state.join("felix.db-wal")));
}

/// The log of this felix only.
pub(crate) fn start_recalling(node: &mut Node) {
    std::fs::write(node.log(), "").unwrap();
    node.launch();
    node.until_it_recalls();
}

fn in_sync(node: &Node) -> bool {
    node.status().is_some_and(|status| status["inSync"] == json!(true))
}

#[test]
#[ignore = "needs root: make test"]
fn felix_started_without_its_datastore_serves_and_enforces_what_it_heard_and_then_catches_up() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    admit(&node, "b", &["a", "d"]);
    admit(&node, "d", &["b"]);
    node.start_routed(1);
    let ((a, a_at), (b, b_at), (c, c_at)) = (running(&node, "a"), running(&node, "b"), running(&node, "c"));
    let (d, e) = (node.pod("d"), node.pod("e"));
    until_kept(&node, &e.uid);
    let traffic = |from: &Attached, to: &str| {
        from.ns.command(&["ping", "-i", "0.005", "-c", "1600", "-q", to]).stdout(Stdio::piped()).spawn().unwrap()
    };
    let (allowed, denied) = (traffic(&a, &b_at), traffic(&c, &b_at));
    node.datastore_away();
    node.kill();
    start_recalling(&mut node);
    let status = node.status().unwrap();
    assert_eq!(status["endpoints"], 3);
    assert!(status["problems"].to_string().contains("cluster.db: does not exist"), "{status}");
    // Known by its UID: attached, and judged by what policy was.
    let d_at = node.add(&d).remove(0);
    assert!(b.ns.pings(&d_at) && d.ns.pings(&b_at) && node.ns.pings(&d_at));
    assert!(!a.ns.pings(&d_at), "only b may");
    // The same call again changes nothing, of the new one and of one from before.
    assert_eq!(node.add(&d), [d_at.as_str()]);
    assert_eq!(node.add(&a), [a_at.as_str()]);
    // Not known: error 11 at once, and nothing left.
    let stranger = Attached { ns: Ns::new("x"), name: "e".into(), uid: "another-uid".into() };
    let reply = node.cni("ADD", &stranger);
    assert_eq!(reply["error"]["code"], 11, "{reply}");
    assert!(reply.to_string().contains("pod shop/e has not been heard of before"), "{reply}");
    // DEL works: of one from before, and of a new one, whose address nobody has then.
    node.del(&c);
    assert!(!node.ns.run(&["ip", "route"]).contains(&format!("{c_at} ")));
    node.del(&d);
    assert!(!a.ns.pings(&d_at) && !b.ns.pings(&d_at));
    assert_eq!(node.add(&e).len(), 1);
    assert_eq!(node.ns.run(&["ip", "-o", "link"]).matches("twl").count(), 3);
    // Meanwhile a pod is deleted, and policy changes.
    node.delete_in_shop::<Pod>("b");
    node.delete_in_shop::<NetworkPolicy>("admit-d");
    admit(&node, "a", &[]);
    assert!(e.ns.pings(&a_at), "nobody told felix");
    for (traffic, received) in [(allowed, "1600 received"), (denied, " 0 received")] {
        let summary = String::from_utf8(traffic.wait_with_output().unwrap().stdout).unwrap();
        assert!(summary.contains("1600 packets transmitted") && summary.contains(received), "{summary}");
    }
    node.datastore_back("cluster");
    until("felix is in sync", SOON, || in_sync(&node));
    assert!(!e.ns.pings(&a_at), "policy of meanwhile holds");
    assert!(!a.ns.pings(&b_at), "a deleted pod is closed");
    let d_at = node.add(&d).remove(0);
    assert!(a.ns.pings(&d_at), "and what was lifted is lifted");
    node.del(&b);
    assert_eq!(node.status().unwrap()["endpoints"], 3);
    assert_eq!(node.status().unwrap()["problems"], json!([]));
}

#[test]
#[ignore = "needs root: make test"]
fn a_memory_that_lags_opens_nothing_and_closes_nothing() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    admit(&node, "a", &[]);
    node.start_routed(1);
    let ((a, a_at), (b, b_at)) = (running(&node, "a"), running(&node, "b"));
    let later = node.pod("later");
    let heard = node.ask(&json!({"op": "wait", "timeout_ms": 10_000})).unwrap();
    assert_eq!(heard["applied"], json!(true), "{heard}");
    assert!(node.stop(), "what was heard is written at the end");
    let lagging = std::fs::read(memory(&node)).unwrap();
    node.start();
    assert!(a.ns.pings(&b_at) && !b.ns.pings(&a_at));
    // After that: a is opened, b is closed, and there is a pod more.
    node.delete_in_shop::<NetworkPolicy>("admit-a");
    admit(&node, "b", &[]);
    let (c, c_at) = running(&node, "c");
    until("policy holds", SOON, || b.ns.pings(&a_at) && !a.ns.pings(&b_at) && c.ns.pings(&a_at));
    node.kill();
    std::fs::write(memory(&node), lagging).unwrap();
    std::fs::remove_file(node.state.join("felix.db-wal")).unwrap();
    node.datastore_away();
    let table = || node.ns.run(&["nft", "list", "map", "inet", "twill", "to_pod"]);
    let before = table();
    start_recalling(&mut node);
    let table = || node.ns.run(&["nft", "list", "map", "inet", "twill", "to_pod"]);
    assert_eq!(before, table());
    assert!(b.ns.pings(&a_at) && !a.ns.pings(&b_at), "as it was, not as it is remembered");
    assert!(c.ns.pings(&a_at) && a.ns.pings(&c_at), "not remembered, and untouched");
    let later_at = node.add(&later).remove(0);
    assert!(a.ns.pings(&later_at) && later.ns.pings(&a_at) && !later.ns.pings(&b_at));
    assert_eq!(node.status().unwrap()["endpoints"], 4);
    node.datastore_back("cluster");
    until("felix is in sync", SOON, || in_sync(&node));
    assert!(b.ns.pings(&a_at) && !a.ns.pings(&b_at) && c.ns.pings(&a_at) && a.ns.pings(&later_at));
}

#[test]
#[ignore = "needs root: make test"]
fn after_a_reboot_without_the_datastore_known_pods_come_back_with_their_policy() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    admit(&node, "b", &["a"]);
    node.start_routed(1);
    let ((a, _), (b, _), (c, _)) = (running(&node, "a"), running(&node, "b"), running(&node, "c"));
    until_kept(&node, &c.uid);
    node.datastore_away();
    assert!(node.stop());
    node.del_links();
    node.ns.run(&["nft", "delete", "table", "inet", "twill"]);
    node.boot_id = "boot-2";
    start_recalling(&mut node);
    let (a_at, b_at, c_at) = (node.add(&a).remove(0), node.add(&b).remove(0), node.add(&c).remove(0));
    assert!(a.ns.pings(&b_at) && a.ns.pings(&c_at) && c.ns.pings(&a_at));
    assert!(!c.ns.pings(&b_at));
    node.datastore_back("cluster");
    until("felix is in sync", SOON, || in_sync(&node));
    assert!(a.ns.pings(&b_at) && !c.ns.pings(&b_at));
}

#[test]
#[ignore = "needs root: make test"]
fn a_damaged_memory_counts_as_absent_and_is_begun_anew() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    admit(&node, "a", &["b"]);
    node.start_routed(1);
    let ((a, a_at), (b, _), (c, _)) = (running(&node, "a"), running(&node, "b"), running(&node, "c"));
    let damage = |node: &Node| {
        let mut bytes = std::fs::read(memory(node)).unwrap();
        let at = bytes.windows(4).position(|window| window == b"shop").unwrap();
        bytes[at] ^= 1;
        std::fs::write(memory(node), bytes).unwrap();
    };
    // With the datastore at hand it costs nothing.
    assert!(node.stop());
    damage(&node);
    std::fs::write(node.log(), "").unwrap();
    node.start();
    assert!(node.log_text().contains("cannot be read and counts as absent"), "{}", node.tail());
    until_kept(&node, &c.uid);
    // Without, there is nothing to go by: felix says so, and the kernel goes on.
    assert!(node.stop());
    damage(&node);
    node.datastore_away();
    node.launch();
    assert!(!node.wait(), "it cannot start");
    assert!(node.log_text().contains("does not exist; check the path"), "{}", node.tail());
    assert!(b.ns.pings(&a_at) && !c.ns.pings(&a_at));
    node.datastore_back("cluster");
    node.start();
    assert!(b.ns.pings(&a_at) && !c.ns.pings(&a_at) && a.ns.pings(&node.add(&c)[0]));
}

#[test]
#[ignore = "needs root: make test"]
fn another_datastore_in_the_place_of_the_one_that_was_heard_is_believed_alone() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let (a, a_at) = running(&node, "a");
    until_kept(&node, &a.uid);
    assert!(node.stop());
    let other = node.directory.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let url = format!("sqlite:{}/cluster.db", other.display());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { Datastore::open(&url).await.unwrap() });
    node.datastore_away();
    node.datastore_back("other");
    std::fs::write(node.log(), "").unwrap();
    node.start();
    until("it is said", SOON, || node.log_text().contains("the datastore is another than the one heard before"));
    let reply = node.cni("ADD", &a);
    assert_eq!(reply["error"]["code"], 11, "{reply}");
    assert!(!node.ns.pings(&a_at), "a pod that it does not have is closed");
    let links = Command::new("ip").args(["-n", &node.ns.0, "-o", "link"]).output().unwrap();
    assert!(text(&links).contains("twl"), "nothing is taken away");
}
