//! Blocks that vanish, become another's, or were never this machine's although they bear its name.

use crate::node::Node;
use crate::world::until;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::process::Stdio;
use std::time::Duration;
use twill_crds::{IPBlock, IPPool, NodeNetwork, Pod};

const SOON: Duration = Duration::from_secs(5);

fn only(node: &Node) -> IPBlock {
    let mut blocks = node.list::<IPBlock>();
    assert_eq!(blocks.len(), 1, "{blocks:?}");
    blocks.remove(0)
}

fn name(block: &IPBlock) -> &str {
    block.metadata.name.as_deref().unwrap()
}

fn problems(node: &Node) -> String {
    node.status().unwrap()["problems"].to_string()
}

fn routed(node: &Node, address: &str) -> bool {
    !node.ns.run(&["ip", "route", "show", "proto", "85", &format!("{address}/32")]).is_empty()
}

fn inside(block: &IPBlock, address: &str) -> bool {
    block.spec.cidr.contains(&address.parse::<IpAddr>().unwrap())
}

/// The block becomes somebody's.
fn give(node: &Node, block: &IPBlock, owner: &str, claimant: Option<&str>) {
    node.delete::<IPBlock>(name(block));
    let mut spec = json!({"cidr": block.spec.cidr, "node": owner});
    claimant.into_iter().for_each(|claimant| spec["claimant"] = json!(claimant));
    // Its node may be as quick.
    node.create::<IPBlock>(json!({"metadata": {"name": name(block)}, "spec": spec}));
}

#[test]
#[ignore = "needs root: make test"]
fn a_block_that_vanishes_under_its_pods_is_claimed_again() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let (a, b) = (node.pod("a"), node.pod("b"));
    let address = node.add(&a).remove(0);
    let block = only(&node);
    let back = || {
        let mut blocks = node.list::<IPBlock>().into_iter();
        blocks.any(|found| found.spec == block.spec && found.metadata.uid != block.metadata.uid)
    };
    // Whether the node is registered makes no difference: its pods have the addresses.
    node.delete::<twill_crds::Node>("n1");
    node.delete::<IPBlock>(name(&block));
    until("the block is back", SOON, back);
    assert!(node.ns.pings(&address), "its pods stay attached");
    node.create::<twill_crds::Node>(json!({"metadata": {"name": "n1"}}));
    let block = only(&node);
    node.kill();
    node.delete::<IPBlock>(name(&block));
    node.start();
    until("the block is back", SOON, || node.list::<IPBlock>().iter().any(|found| found.spec == block.spec));
    let other = node.add(&b).remove(0);
    assert!(inside(&block, &other) && other != address);
    node.kill();
    node.del_links();
    node.delete::<IPBlock>(name(&only(&node)));
    node.boot_id = "boot-2";
    node.start();
    until("another is claimed, or the same", SOON, || node.list::<IPBlock>().len() == 1);
    assert_eq!(node.ask(&json!({"op": "addresses"})).unwrap(), json!([]));
}

#[test]
#[ignore = "needs root: make test"]
fn pods_of_a_block_that_became_another_s_are_cut_off_until_it_is_ours_again() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let (a, b) = (node.pod("a"), node.pod("b"));
    let (address, second) = (node.add(&a).remove(0), node.add(&b).remove(0));
    assert!(a.ns.pings(&second) && node.ns.pings(&address));
    let block = only(&node);
    let flow = a.ns.command(&["ping", "-i", "0.02", "-w", "4", &second]).stdout(Stdio::piped()).spawn().unwrap();
    node.kill();
    give(&node, &block, "n2", Some("other"));
    node.start();
    until("routes are gone", SOON, || !routed(&node, &address) && !routed(&node, &second));
    // Other pods of this node reach the new owner's, and nobody the old ones.
    node.ns.run(&["ip", "route", "del", "unreachable", &block.spec.cidr.to_string(), "proto", "84", "metric", "4096"]);
    let c = node.pod("c");
    let fresh = node.add(&c).remove(0);
    assert!(!inside(&block, &fresh), "{fresh} of a block that is another's");
    assert!(!a.ns.pings(&second) && !a.ns.pings(&fresh) && !c.ns.pings(&address) && !node.ns.pings(&address));
    assert!(!a.ns.pings("172.31.1.11"), "not even their own node");
    let summary = String::from_utf8(flow.wait_with_output().unwrap().stdout).unwrap();
    assert!(!summary.contains(" 0% packet loss"), "an established flow goes on: {summary}");
    assert_said(&node, &block, &address);
    // One that goes leaves nothing that could be handed out, and its address stays the other's.
    node.del(&b);
    node.kill();
    node.start();
    assert!(!routed(&node, &address) && !a.ns.pings(&fresh));
    give(&node, &block, "n1", None);
    node.ns.run(&["ip", "route", "add", "unreachable", &block.spec.cidr.to_string(), "proto", "84", "metric", "4096"]);
    until("its pod is reached again", SOON, || c.ns.pings(&address));
    assert!(a.ns.pings(&fresh) && node.ns.pings(&address));
    until("nothing is wrong", SOON, || problems(&node) == "[]");
}

fn assert_said(node: &Node, block: &IPBlock, address: &str) {
    let sentence = format!("({}) is node n2's now", block.spec.cidr);
    let said = |text: &str| text.contains(&sentence) && text.contains(&format!("shop/a ({address})"));
    assert!(said(&problems(node)), "{}", problems(node));
    until("the condition says so", SOON, || {
        let networks = node.list::<NodeNetwork>();
        let conditions = networks[0].status.clone().unwrap_or_default().felix.conditions;
        conditions.iter().any(|one| one.type_ == "AddressesOwned" && one.status == "False" && said(&one.message))
    });
    until("events say so", SOON, || {
        let events = node.list::<k8s_openapi::api::events::v1::Event>();
        let about = |kind: &str, name: &str| {
            let regarding = |event: &k8s_openapi::api::events::v1::Event| event.regarding.clone().unwrap_or_default();
            let mut events = events.iter().filter(|event| event.reason.as_deref() == Some("AddressTaken"));
            events.any(|event| {
                regarding(event).kind.as_deref() == Some(kind) && regarding(event).name.as_deref() == Some(name)
            })
        };
        about("Pod", "a") && about("IPBlock", name(block))
    });
    assert!(node.list::<k8s_openapi::api::events::v1::Event>().len() <= 4, "they are few");
}

#[test]
#[ignore = "needs root: make test"]
fn a_block_that_is_taken_and_given_back_while_felix_runs_changes_everything_at_once() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let (a, b) = (node.pod("a"), node.pod("b"));
    let address = node.add(&a).remove(0);
    node.add(&b);
    let mut block = only(&node);
    for round in 0..2 {
        // felix claims what vanishes at once, so the new owner has to be quicker.
        node.replace_block(name(&block), json!({"cidr": block.spec.cidr, "node": "n2"}));
        until("the pod is cut off", Duration::from_secs(1), || !routed(&node, &address));
        assert!(!b.ns.pings(&address), "round {round}");
        node.replace_block(name(&block), json!({"cidr": block.spec.cidr, "node": "n1"}));
        until("the pod is back", Duration::from_secs(3), || routed(&node, &address) && b.ns.pings(&address));
        block = node.list::<IPBlock>().into_iter().find(|found| found.spec.cidr == block.spec.cidr).unwrap();
    }
}

#[test]
#[ignore = "needs root: make test"]
fn nothing_is_handed_out_while_there_is_a_route_from_elsewhere() {
    let mut node = Node::new(&[]);
    node.create::<IPPool>(json!({"metadata": {"name": "tiny"}, "spec": {"cidr": "10.42.0.0/29", "blockSize": 30}}));
    // The whole of one block, and a part of the other.
    let learned = ["10.42.0.0/30", "10.42.0.6/31"];
    for prefix in learned {
        node.ns.run(&["ip", "route", "add", prefix, "via", "172.31.1.12", "proto", "84", "metric", "512"]);
    }
    node.start();
    let a = node.pod("a");
    until("both are claimed", SOON, || node.list::<IPBlock>().len() == 2);
    let reply = until_refused(&node, &a);
    assert!(reply.contains("IPPool tiny (10.42.0.0/29) is full"), "{reply}");
    for prefix in learned {
        assert!(reply.contains(&format!("a route for {prefix} from elsewhere by way of 172.31.1.12")), "{reply}");
    }
    node.ns.run(&["ip", "route", "del", "10.42.0.6/31", "proto", "84", "metric", "512"]);
    until("one is free", SOON, || !problems(&node).contains("10.42.0.6/31"));
    let address = node.add(&a).remove(0);
    assert!(["10.42.0.5", "10.42.0.6", "10.42.0.7"].contains(&address.as_str()), "{address}");
    assert!(problems(&node).contains("10.42.0.0/30 from elsewhere"), "{}", problems(&node));
}

/// Longer than bgpd is waited for.
fn until_refused(node: &Node, pod: &crate::node::Attached) -> String {
    let began = std::time::Instant::now();
    loop {
        let reply: Value = node.cni("ADD", pod);
        assert!(reply["error"].is_object(), "{reply}");
        if began.elapsed() > Duration::from_secs(8) {
            return reply["error"]["msg"].as_str().unwrap().to_owned();
        }
        std::thread::park_timeout(Duration::from_millis(200));
    }
}

#[test]
#[ignore = "needs root: make test"]
fn a_block_of_the_same_name_that_another_machine_claimed_is_left_alone_until_nobody_uses_it() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    let theirs = ["10.42.7.0/26", "10.42.8.0/26"];
    for cidr in theirs {
        let name = twill_crds::names::block_name(cidr.parse().unwrap());
        let spec = json!({"cidr": cidr, "node": "n1", "claimant": "another"});
        node.create::<IPBlock>(json!({"metadata": {"name": name}, "spec": spec}));
    }
    let mut old = node.create::<Pod>(json!({
        "metadata": {"name": "old", "namespace": "shop"},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
    }));
    old.status = serde_json::from_value(json!({"phase": "Running", "podIPs": [{"ip": "10.42.8.5"}]})).unwrap();
    node.update_status(&old);
    node.quarantine = 8;
    node.start_routed(3);
    let a = node.pod("a");
    let address: IpAddr = node.add(&a).remove(0).parse().unwrap();
    for cidr in theirs {
        assert!(!cidr.parse::<ipnet::IpNet>().unwrap().contains(&address), "{address}");
    }
    until("it is said", SOON, || problems(&node).contains("(10.42.7.0/26) bears this node's name"));
    let exists = |cidr: &str| node.list::<IPBlock>().iter().any(|block| block.spec.cidr.to_string() == cidr);
    assert!(exists(theirs[0]));
    until("the unused one is given back", Duration::from_secs(30), || !exists(theirs[0]));
    assert!(exists(theirs[1]), "a pod has an address of it");
}

#[test]
#[ignore = "needs root: make test"]
fn a_lost_disk_loses_blocks_only_without_pods() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let (a, b, c) = (node.pod("a"), node.pod("b"), node.pod("c"));
    let address = node.add(&a).remove(0);
    let block = only(&node);
    node.kill();
    std::fs::remove_dir_all(&node.state).unwrap();
    node.start();
    let other = node.add(&b).remove(0);
    assert!(inside(&block, &other) && other != address, "what the kernel has proves whose the block is");
    node.kill();
    std::fs::remove_dir_all(&node.state).unwrap();
    node.del_links();
    node.boot_id = "boot-2";
    node.start_routed(2);
    assert!(!inside(&block, &node.add(&c)[0]), "nothing proves it now");
    until("it is said", SOON, || problems(&node).contains("before it lost its disk"));
}

#[test]
#[ignore = "needs root: make test"]
fn a_lost_disk_does_not_lose_the_address_of_a_pod_that_is_cut_off() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let (a, b) = (node.pod("a"), node.pod("b"));
    let address = node.add(&a).remove(0);
    let block = only(&node);
    node.replace_block(name(&block), json!({"cidr": block.spec.cidr, "node": "n2"}));
    until("the pod is cut off", SOON, || !routed(&node, &address));
    node.kill();
    std::fs::remove_dir_all(&node.state).unwrap();
    node.start();
    until("it is said, with its name", SOON, || problems(&node).contains("shop/a"));
    assert!(!routed(&node, &address), "it stays cut off");
    node.replace_block(name(&block), json!({"cidr": block.spec.cidr, "node": "n1"}));
    until("the pod is back", Duration::from_secs(10), || routed(&node, &address));
    assert_ne!(node.add(&b).remove(0), address, "nobody else has its address");
}
