//! Nodes whose Nodes list several InternalIPs: by which one they are known, and when they take another.
//!
//! ```text
//!  n1, n2 ── tor-r1 ── spine ── tor-r2 ── n3      a on n1, b on n2, c on n3; all by VXLAN
//! ```
//! 1. Addresses on a bridge without a wire and on the uplink come before the one that n2 is known by: not one packet is lost, all nodes are told, and a speaker that remembers
//!    nothing goes by that.
//! 2. The address is taken from the machine: once that has stood for a while n2 takes the one on the uplink, and so do all others, for sessions and for tunnels.
//! 3. It comes back: n2 stays with what it has.
//! 4. All nodes list the address of the same bridge first, and nobody remembers anything: each finds the one on its uplink.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::{Value, json};
use std::time::Duration;
use support::traffic::Traffic;
use support::{hold_against_oracle, pod, two_racks};
use twill_crds::{BGPConfiguration, NodeNetwork};
use twill_datastore::{Datastore, Key, Preconditions};
use twill_e2e::{Lab, succeeded, within};
use twill_lab::io::labs;

const POOL: &str = "apiVersion: twill.network/v1
kind: IPPool
metadata: {name: test}
spec: {cidr: 10.42.0.0/16, encapsulation: {protocol: VXLAN, when: Always}}
";
const FIRST: &str = "172.31.1.12";
const SECOND: &str = "172.31.1.99";
const INNER: &str = "172.17.0.1";
const LIMIT: Duration = Duration::from_secs(60);

fn object(lab: &Lab, kind: &str, name: &str) -> Value {
    serde_json::from_str(&lab.ask("n1", &["get", kind, name, "-o", "json"]).unwrap()).unwrap()
}

/// What all nodes are told; null while there is nothing that could say it.
fn told(lab: &Lab) -> Value {
    let text = lab.ask("n1", &["get", "bgpconfiguration", "default", "-o", "json"]).unwrap_or_default();
    let object: Value = serde_json::from_str(&text).unwrap_or_default();
    object["status"]["nodeAddresses"].clone()
}

fn list(lab: &Lab, name: &str, addresses: &[&str]) {
    let mut node = object(lab, "node", name);
    let internal = addresses.iter().map(|address| json!({"type": "InternalIP", "address": address}));
    node["status"]["addresses"] = internal.chain([json!({"type": "Hostname", "address": name})]).collect();
    support::put_status(lab, &node);
}

/// The address of n2 with which a node has a session in Established.
fn peers_with(lab: &Lab, node: &str) -> Option<String> {
    let peers: Vec<Value> = serde_json::from_str(&lab.ask(node, &["peers", "-o", "json"]).ok()?).unwrap();
    let peer = peers.iter().find(|peer| peer["name"] == "n2")?;
    (peer["state"] == "Established").then(|| peer["address"].as_str().unwrap().to_owned())
}

fn is_known_by(lab: &Lab, address: &str) -> bool {
    let tunnelled = |node: &str| {
        let routes = lab.exec(node, &["ip", "route", "show", "proto", "84"]).unwrap();
        routes.lines().any(|line| line.contains("twill-vxlan") && line.contains(&format!("via {address} ")))
    };
    ["n1", "n3"].into_iter().all(|node| peers_with(lab, node).as_deref() == Some(address) && tunnelled(node))
}

fn ip(lab: &Lab, node: &str, words: &str) {
    let command: Vec<&str> = ["ip"].into_iter().chain(words.split(' ')).collect();
    lab.exec(node, &command).unwrap();
}

/// As Docker makes one, the same on every machine.
fn bridge(lab: &Lab, node: &str) {
    for words in ["link add docker0 type bridge", "address add 172.17.0.1/16 dev docker0", "link set docker0 up"] {
        ip(lab, node, words);
    }
}

fn up(name: &str) -> Lab {
    let pods = [pod("a", "n1"), pod("b", "n2"), pod("c", "n3")].concat();
    let file = two_racks("  topology: RouteReflector\n  resources: [pool.yaml, pods.yaml]\n");
    let lab = Lab::up(name, &file, &[("pool.yaml", POOL), ("pods.yaml", &pods)]).unwrap();
    within(LIMIT, "n2 is known", || is_known_by(&lab, FIRST)).unwrap();
    lab
}

#[test]
#[ignore = "needs root: make test"]
fn a_node_stays_known_by_its_address_while_that_does_and_then_takes_another() {
    let lab = up("addresses");
    bridge(&lab, "n2");
    ip(&lab, "n2", "address add 172.31.1.99/24 dev eth0");
    // The second address of a subnet goes with its first otherwise.
    lab.exec("n2", &["sysctl", "-q", "-w", "net.ipv4.conf.all.promote_secondaries=1"]).unwrap();

    let moving = Traffic::start(&lab, &[("a", "b"), ("b", "c"), ("c", "b")]);
    list(&lab, "n2", &[INNER, SECOND, FIRST]);
    within(LIMIT, "all are told", || told(&lab) == json!({"n2": [FIRST]})).unwrap();
    forget(&lab, "n1");
    within(LIMIT, "n1 knows n2 by what it is told", || peers_with(&lab, "n1").as_deref() == Some(FIRST)).unwrap();
    moving.goes_on();
    assert!(is_known_by(&lab, FIRST));
    let lost = moving.losses();
    assert!(lost.iter().all(|(_, _, lost)| *lost == 0), "{lost:?}");

    ip(&lab, "n2", "address del 172.31.1.12/24 dev eth0");
    let taken = within(LIMIT, "n2 takes another", || told(&lab) == json!({"n2": [SECOND]})).unwrap();
    assert!(taken > Duration::from_secs(8), "a lease that is renewed changes nothing: {taken:?}");
    within(LIMIT, "all know it", || is_known_by(&lab, SECOND)).unwrap();
    Traffic::start(&lab, &[("a", "b"), ("b", "c"), ("c", "b")]).goes_on();
    hold_against_oracle(&lab, &lab.probe(&[]).unwrap());

    ip(&lab, "n2", "address add 172.31.1.12/24 dev eth0");
    let moving = Traffic::start(&lab, &[("a", "b"), ("b", "c"), ("c", "b")]);
    std::thread::sleep(Duration::from_secs(15));
    assert!(is_known_by(&lab, SECOND) && told(&lab) == json!({"n2": [SECOND]}));
    let lost = moving.losses();
    assert!(lost.iter().all(|(_, _, lost)| *lost == 0), "{lost:?}");
}

#[test]
#[ignore = "needs root: make test"]
fn nodes_that_all_list_the_same_bridge_first_are_known_by_their_uplinks() {
    let lab = up("addresses-inner");
    let nodes = [("n1", "172.31.1.11"), ("n2", FIRST), ("n3", "172.31.2.11")];
    for (node, _) in nodes {
        succeeded(lab.lab(["kill", node, "bgpd"]).output().unwrap()).unwrap();
        std::fs::remove_file(labs::load(&lab.name).unwrap().machine_dir(node).join("bgpd.json")).unwrap();
        bridge(&lab, node);
    }
    nodes.iter().for_each(|(node, own)| list(&lab, node, &[INNER, own]));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Datastore::open_existing(&lab.status().unwrap().datastore).await.unwrap();
        for (node, _) in nodes {
            store.delete::<NodeNetwork>(&Key::cluster(node), &Preconditions::default()).await.unwrap();
        }
        store.delete::<BGPConfiguration>(&Key::cluster("default"), &Preconditions::default()).await.unwrap();
    });
    for (node, _) in nodes {
        // It says that sessions are missing.
        let _ = lab.lab(["start", node, "bgpd"]).output().unwrap();
    }
    let chosen: Value = nodes.iter().map(|(node, own)| ((*node).to_owned(), json!([own]))).collect();
    within(LIMIT, "each has found its own", || told(&lab) == chosen).unwrap();
    within(LIMIT, "n2 is known by it", || is_known_by(&lab, FIRST)).unwrap();
    hold_against_oracle(&lab, &lab.probe(&[]).unwrap());
}

/// The node's speaker begins anew, and with nothing that it knew.
fn forget(lab: &Lab, node: &str) {
    succeeded(lab.lab(["kill", node, "bgpd"]).output().unwrap()).unwrap();
    let kept = labs::load(&lab.name).unwrap().machine_dir(node).join("bgpd.json");
    std::fs::remove_file(kept).unwrap();
    succeeded(lab.lab(["start", node, "bgpd"]).output().unwrap()).unwrap();
}
