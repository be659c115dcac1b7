//! Two Pods with one address: it has the rights of one of them.

use crate::node::Node;
use crate::world::until;
use serde_json::json;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use twill_crds::{NetworkPolicy, Pod};

const SOON: Duration = Duration::from_secs(10);

/// A pod elsewhere with this address, as its status has it.
fn elsewhere(node: &Node, name: &str, app: &str, address: &str) {
    let mut pod: Pod = node.create(json!({
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": app}},
        "spec": {"nodeName": "n2", "containers": [{"name": "c", "image": "i"}]},
    }));
    pod.status = serde_json::from_value(json!({"phase": "Running", "podIPs": [{"ip": address}]})).unwrap();
    node.update_status(&pod);
}

fn applied(node: &Node) {
    let waited = node.ask(&json!({"op": "wait", "timeout_ms": 20_000})).unwrap();
    assert_eq!(waited["applied"], json!(true), "{waited}");
}

#[test]
#[ignore = "needs root: make test"]
fn of_two_pods_with_one_address_the_one_attached_here_has_it_and_gains_nothing_by_the_other() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let (enemy, web) = (node.pod("enemy"), node.pod("web"));
    let (address, to) = (node.add(&enemy).remove(0), node.add(&web).remove(0));
    node.create::<NetworkPolicy>(json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {
        "podSelector": {"matchLabels": {"app": "web"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}]}]}}));
    applied(&node);
    assert!(!enemy.ns.pings(&to));
    // Newer than the enemy, and allowed.
    elsewhere(&node, "ghost", "friend", &address);
    applied(&node);
    assert!(!enemy.ns.pings(&to), "another's rights");
    let said = node.status().unwrap()["problems"].to_string();
    assert!(said.contains(&address) && said.contains("ghost"), "{said}");
    // In one moment the address changes hands inside one set: who had it leaves, who has it now enters.
    node.relabel("enemy", json!({"app": "friend"}));
    until("it is allowed itself", SOON, || enemy.ns.pings(&to));
    node.relabel("ghost", json!({"app": "stranger"}));
    applied(&node);
    assert!(enemy.ns.pings(&to), "the other takes nothing away");
    node.delete_in_shop::<Pod>("ghost");
    applied(&node);
    assert!(enemy.ns.pings(&to), "nor does its end");
    node.relabel("enemy", json!({"app": "enemy"}));
    until("it is not allowed", SOON, || !enemy.ns.pings(&to));
}

#[test]
#[ignore = "needs root: make test"]
fn of_two_pods_elsewhere_with_one_address_one_has_it_and_it_changes_hands_without_a_gap() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let web = node.pod("web");
    node.add(&web);
    node.create::<NetworkPolicy>(json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {
        "podSelector": {"matchLabels": {"app": "web"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}]}]}}));
    let members = || {
        applied(&node);
        let table = node.ns.run(&["nft", "list", "table", "inet", "twill"]);
        table.contains("10.42.200.7")
    };
    elsewhere(&node, "old", "friend", "10.42.200.7");
    assert!(members());
    // Who is newer is told by the second.
    let second = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let created = second();
    until("a second later", SOON, || second() > created);
    elsewhere(&node, "new", "stranger", "10.42.200.7");
    assert!(!members(), "the newest has it, and is not allowed");
    node.relabel("new", json!({"app": "friend"}));
    assert!(members());
    // From one friend to the other, inside one set.
    node.delete_in_shop::<Pod>("new");
    assert!(members(), "the older one has it again");
    node.delete_in_shop::<Pod>("old");
    assert!(!members());
}
