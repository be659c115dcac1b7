//! A policy that the kernel does not take costs its own pods.

use crate::node::{Attached, Node};
use crate::world::until;
use serde_json::{Value, json};
use std::time::Duration;
use twill_crds::{NetworkPolicy, NodeNetwork};

const SOON: Duration = Duration::from_secs(10);

/// TCP to every second port: half a megabyte of netlink, more than fits below.
fn too_long(app: &str) -> Value {
    let ports: Vec<Value> = (1..32_768).map(|n| json!({"port": 2 * n})).collect();
    json!({"metadata": {"name": "long", "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": {"app": app}}, "ingress": [{"ports": ports}]}})
}

fn allows_from(name: &str, to: &str, from: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {
        "podSelector": {"matchLabels": {"app": to}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": from}}}]}]}})
}

fn problems(node: &Node) -> String {
    node.status().unwrap()["problems"].to_string()
}

/// All that has been heard is in the kernel.
fn applied(node: &Node) {
    let waited = node.ask(&json!({"op": "wait", "timeout_ms": 20_000})).unwrap();
    assert_eq!(waited["applied"], json!(true), "{waited}; {}", node.tail());
}

fn reaches(from: &Attached, to: &str) -> bool {
    (0..5).any(|_| from.ns.pings(to))
}

#[test]
#[ignore = "needs root: make test"]
fn a_policy_that_is_too_long_closes_its_pod_and_all_else_goes_on() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.more_args = vec!["--longest-transaction", "131072"];
    node.start_routed(1);
    let (a, b, web) = (node.pod("a"), node.pod("b"), node.pod("web"));
    let own = [&a, &b, &web].map(|pod| node.add(pod).remove(0));
    let [to_a, to_b, to_web] = own.each_ref().map(String::as_str);
    assert!(reaches(&a, to_web) && reaches(&web, to_a) && reaches(&a, to_b));
    let live =
        web.ns.command(&["ping", "-i", "0.05", "-w", "15", to_a]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    // In one batch, or in two: another policy, and the one that cannot be.
    node.create::<NetworkPolicy>(too_long("web"));
    node.create::<NetworkPolicy>(allows_from("b", "b", "web"));
    applied(&node);
    until("it is said", SOON, || problems(&node).contains("NetworkPolicy shop/long"));
    let said = problems(&node);
    assert!(said.contains("EMSGSIZE") && said.contains("too long") && said.contains("shop/web"), "{said}");
    assert!(!a.ns.pings(to_web) && !web.ns.pings(to_a), "nothing passes, to it or from it");
    assert!(node.ns.pings(to_web), "its node reaches it");
    assert!(!a.ns.pings(to_b), "another policy is in force");
    assert_eq!(node.status().unwrap()["ready"], json!(true), "{said}");
    let summary = String::from_utf8(live.wait_with_output().unwrap().stdout).unwrap();
    assert!(!summary.contains(" 0% packet loss"), "a connection of before does not go on: {summary}");
    until("people hear of it", SOON, || {
        let networks = node.list::<NodeNetwork>();
        let conditions = networks[0].status.clone().unwrap_or_default().felix.conditions;
        let condition = conditions.iter().any(|one| {
            one.type_ == "PolicySynced" && one.status == "False" && one.message.contains("NetworkPolicy shop/long")
        });
        let events = node.list::<k8s_openapi::api::events::v1::Event>();
        let about = events.iter().filter(|event| event.reason.as_deref() == Some("PolicyRefused"));
        let regarding: Vec<_> = about.filter_map(|event| event.regarding.clone()?.name).collect();
        condition && regarding == ["long"]
    });

    // Pods come and go, policy changes, felix ends and starts again: the same.
    let c = node.pod("c");
    let to_c = node.add(&c).remove(0);
    node.del(&a);
    assert!(reaches(&c, to_c.as_str()) && !c.ns.pings(to_web) && !web.ns.pings(&to_c));
    node.kill();
    assert!(!c.ns.pings(to_web) && node.ns.pings(to_web), "without felix, too");
    node.start();
    assert!(problems(&node).contains("NetworkPolicy shop/long") && !c.ns.pings(to_web) && node.ns.pings(to_web));
    node.relabel("c", json!({"app": "web"}));
    until("whoever it selects is closed", SOON, || !b.ns.pings(&to_c));
    node.relabel("c", json!({"app": "c"}));
    until("and open when it does not", SOON, || b.ns.pings(&to_c));

    // Without it all is as wanted.
    node.delete_in_shop::<NetworkPolicy>("long");
    until("nothing is wrong", SOON, || problems(&node) == "[]");
    assert!(reaches(&c, to_web) && reaches(&web, &to_c) && reaches(&web, to_b) && !c.ns.pings(to_b));
    let table = node.ns.run(&["nft", "list", "table", "inet", "twill"]);
    assert!(!table.contains("refuse"), "{table}");
}

#[test]
#[ignore = "needs root: make test"]
fn what_is_too_long_only_together_is_committed_in_parts() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.more_args = vec!["--longest-transaction", "65536"];
    node.start_routed(1);
    let pods: Vec<Attached> = (0..6).map(|n| node.pod(&format!("p{n}"))).collect();
    let addresses: Vec<String> = pods.iter().map(|pod| node.add(pod).remove(0)).collect();
    node.kill();
    // Six lists for one felix to begin with, 24 kB each.
    for n in 0..6_u32 {
        let ports: Vec<Value> = (1..1_500).map(|port| json!({"port": 20 * port + n})).collect();
        node.create::<NetworkPolicy>(json!({"metadata": {"name": format!("p{n}"), "namespace": "shop"}, "spec": {
            "podSelector": {"matchLabels": {"app": format!("p{n}")}}, "ingress": [{"ports": ports}]}}));
    }
    node.start();
    until("all parts are in", SOON, || problems(&node) == "[]");
    applied(&node);
    assert!(node.log_text().contains("EMSGSIZE"), "it was too long at first");
    let table = node.ns.run(&["nft", "list", "table", "inet", "twill"]);
    for n in 0..6 {
        assert!(table.contains(&format!("NetworkPolicy shop/p{n} ingress[0]")));
    }
    assert!(!table.contains("list_refused"));
    assert!(!pods[0].ns.pings(&addresses[1]) && node.ns.pings(&addresses[1]));
}
