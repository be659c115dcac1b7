//! A cluster whose nodes a HostPolicy closes both ways goes on: routes, tunnels and pods, also through sessions and connections that begin anew.
//!
//! ```text
//!      spine
//!     /     \
//!  tor-r1  tor-r2      a on n1, b on n2 (same rack), c on n3 (another rack, by VXLAN)
//!   n1 n2    n3
//! ```
//! 1. Every node confirms the policy by its self-test. 2. Pods reach each other. 3. A node reaches nothing else of another node. 4. A speaker
//!    that was killed has its sessions again. 5. `twill policy host` says what is in force and what passes, and
//!    `twill explain` on a node what it judges of others by that.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;
use support::{pod, two_racks};
use twill_e2e::{Lab, within};
use twill_lab::io::netns;

const CLOSED: &str = "apiVersion: twill.network/v1
kind: HostPolicy
metadata: {name: closed}
spec: {directions: [Ingress, Egress]}
";
const POOL: &str = "apiVersion: twill.network/v1
kind: IPPool
metadata: {name: test}
spec: {cidr: 10.42.0.0/16, encapsulation: {protocol: VXLAN}}
";
const NODES: [&str; 3] = ["n1", "n2", "n3"];
const PORT: u16 = 7000;

fn established(lab: &Lab, node: &str) -> usize {
    let peers: Value = lab
        .ask(node, &["peers", "-o", "json"])
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    peers.as_array().into_iter().flatten().filter(|peer| peer["state"] == "Established").count()
}

fn host(lab: &Lab, node: &str) -> Value {
    serde_json::from_str(&lab.ask(node, &["policy", "host", "-o", "json"]).unwrap()).unwrap()
}

#[test]
#[ignore = "needs root: make test"]
fn a_cluster_of_closed_nodes_goes_on() {
    let pods = [pod("a", "n1"), pod("b", "n2"), pod("c", "n3")].concat();
    let lab = two_racks("  resources: [pool.yaml, pods.yaml]\n");
    let lab = Lab::up("closed", &lab, &[("pool.yaml", POOL), ("pods.yaml", &pods)]).unwrap();
    let status = lab.status().unwrap();
    let netns = |name: &str| status.nodes.iter().find(|node| node.name == name).unwrap().netns.clone();
    let server = netns::inside(&netns("n2"), || Ok(TcpListener::bind(("0.0.0.0", PORT))?)).unwrap();
    let n2 = SocketAddr::new("172.31.1.12".parse().unwrap(), PORT);
    let reaches = || {
        let connect = || Ok(TcpStream::connect_timeout(&n2, Duration::from_millis(300)).is_ok());
        netns::inside(&netns("n1"), connect).unwrap()
    };
    assert!(reaches(), "before; {server:?}");
    let sessions = NODES.map(|node| established(&lab, node));
    assert!(sessions.iter().all(|count| *count > 0), "{sessions:?}");

    lab.apply(CLOSED).unwrap();
    within(Duration::from_secs(30), "every node has confirmed the policy", || {
        NODES.iter().all(|node| host(&lab, node)["confirmed"] == json!(["closed"]))
    })
    .unwrap();
    assert!(!reaches());
    assert_eq!(lab.probe(&[]).unwrap().differences, 0);

    assert!(lab.lab(["kill", "n1", "bgpd"]).status().unwrap().success());
    assert!(lab.lab(["start", "n1", "bgpd"]).status().unwrap().success());
    within(Duration::from_secs(60), "all sessions are back", || NODES.map(|node| established(&lab, node)) == sessions)
        .unwrap();
    assert_eq!(lab.probe(&[]).unwrap().differences, 0);
    let shown = lab.ask("n1", &["policy", "host"]).unwrap();
    assert!(shown.contains("In force: closed") && shown.contains("BGP with nodes"), "{shown}");

    // n2 is asked what it needs, n1 is not.
    let explain = |port: u16| lab.ask("n2", &["explain", "n1", &format!("n2:{port}")]);
    let session = explain(179).unwrap();
    let asked = |node: &str| !session.contains(&format!("node {node} was not asked what it needs"));
    assert!(session.contains("BGP with nodes") && asked("n2") && !asked("n1"), "{session}");
    assert!(explain(PORT).is_err(), "it is denied, as was seen");

    lab.delete(CLOSED).unwrap();
    within(Duration::from_secs(10), "the node is open again", reaches).unwrap();
    assert!(explain(PORT).unwrap().contains(": allowed"));
}
