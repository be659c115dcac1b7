//! When a node is ready, and when the runtime hears of it.

use crate::node::Node;
use crate::world::until;
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;
use twill_crds::{IPBlock, IPPool, Node as NodeObject, NodeNetwork};

fn ready(node: &Node) -> bool {
    node.status().unwrap()["ready"] == json!(true)
}

#[test]
#[ignore = "needs root: make test"]
fn the_runtime_is_told_when_pods_can_be_attached_and_not_before() {
    let mut node = Node::new(&[]);
    let conflists = node.directory.path().join("net.d");
    node.conflists = Some(conflists.clone());
    let conflist = conflists.join("10-twill.conflist");
    node.start();
    let status = node.status().unwrap();
    assert_eq!(status["ready"], json!(false));
    assert!(status["unready"].as_str().unwrap().contains("no IPPool"), "{status}");
    node.create::<IPPool>(json!({"metadata": {"name": "late"}, "spec": {"cidr": "10.42.0.0/16"}}));
    until("a block", Duration::from_secs(5), || !node.list::<IPBlock>().is_empty());
    let status = node.status().unwrap();
    assert!(
        !ready(&node) && status["unready"].as_str().unwrap().contains("n1"),
        "its route is not there yet: {status}"
    );
    assert!(!conflist.exists());
    let cidr = node.list::<IPBlock>()[0].spec.cidr.to_string();
    node.ns.run(&["ip", "route", "replace", "unreachable", &cidr, "proto", "84", "metric", "4096"]);
    until("the runtime is told", Duration::from_secs(3), || conflist.exists());
    assert!(ready(&node));
    // What it is told leads to this felix.
    let text: Value = serde_json::from_str(&fs::read_to_string(&conflist).unwrap()).unwrap();
    let socket = node.directory.path().join("felix.sock");
    let plugin = &text["plugins"][0];
    assert_eq!((&plugin["type"], &plugin["socket"]), (&json!("twill-cni"), &json!(socket)));
    assert_eq!((&plugin["stateDir"], &text["cniVersions"]), (&json!(node.state), &json!(["1.0.0", "1.1.0"])));
    let pod = node.pod("a");
    node.add(&pod);
}

#[test]
#[ignore = "needs root: make test"]
fn a_node_that_is_gone_gets_no_node_network_until_it_is_back() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start();
    let networks = |node: &Node| node.list::<NodeNetwork>();
    // Created first, then filled in: one that is deleted in between is made again.
    let said =
        |network: &NodeNetwork| network.status.as_ref().is_some_and(|status| !status.felix.conditions.is_empty());
    until("felix has said how it is", Duration::from_secs(5), || networks(&node).iter().any(said));
    node.delete::<NodeObject>("n1");
    // What felix says before it has heard of that, it still writes.
    let heard = node.ask(&json!({"op": "wait", "timeout_ms": 10_000})).unwrap();
    assert_eq!(heard["applied"], json!(true), "{heard}");
    node.delete::<NodeNetwork>("n1");
    // Its conditions change: the only block gets its route, a pool comes whose blocks nobody claims.
    let cidr = node.list::<IPBlock>()[0].spec.cidr.to_string();
    node.ns.run(&["ip", "route", "replace", "unreachable", &cidr, "proto", "84", "metric", "4096"]);
    until("felix is ready", Duration::from_secs(5), || ready(&node));
    let pod = node.pod("a");
    node.add(&pod);
    assert_eq!(networks(&node), [], "nobody would remove it again but the controller, a quarantine later");
    node.create::<NodeObject>(json!({"metadata": {"name": "n1"}}));
    until("it is back", Duration::from_secs(5), || {
        let status = networks(&node).pop().and_then(|network| network.status);
        status.is_some_and(|status| {
            status.felix.conditions.iter().any(|c| c.type_ == "NetworkReady" && c.status == "True")
        })
    });
}

#[test]
#[ignore = "needs root: make test"]
fn what_the_runtime_was_told_outlives_felix_and_comes_back_when_others_take_it() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    let conflists = node.directory.path().join("net.d");
    node.conflists = Some(conflists.clone());
    let conflist = conflists.join("10-twill.conflist");
    node.start_routed(1);
    until("the runtime is told", Duration::from_secs(3), || conflist.exists());
    assert!(node.stop());
    assert!(conflist.exists(), "a restart is no reason for a node to become unready");
    fs::write(&conflist, "another release's").unwrap();
    node.start();
    until("it is this release's", Duration::from_secs(3), || {
        fs::read_to_string(&conflist).is_ok_and(|text| text.contains("twill-cni"))
    });
    // As another network's installer does.
    fs::rename(&conflist, conflists.join("10-twill.conflist.moved")).unwrap();
    fs::write(conflists.join("05-other.conflist"), "{}").unwrap();
    until("it is back", Duration::from_secs(13), || conflist.exists());
    let problems = node.status().unwrap()["problems"].to_string();
    assert!(problems.contains("05-other.conflist"), "{problems}");
    assert!(ready(&node), "felix attaches pods, whomever the runtime asks");
}
