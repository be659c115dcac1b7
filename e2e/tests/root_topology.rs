//! A cluster whose topology changes while pods talk.
//!
//! ```text
//!  n1 … n4 ──┐
//!  n5 … n8 ──┼── router      a pod on each node; traffic from each to one in another rack, 1000 packets a second
//!  n9 … n12 ─┘
//! ```
//! 1. From a mesh to reflectors, to other reflectors, and back to a mesh: no packet is lost, and nodes have the sessions that they need.
//! 2. A reflector's speaker is killed and started again: no packet is lost.
//! 3. A reflector is drained, or its machine is gone and comes back: no packet of other nodes' pods is lost.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use std::time::Duration;
use support::traffic::Traffic;
use support::{hold_against_oracle, pod};
use twill_e2e::{Lab, succeeded, within};

/// Much more than anything takes, for busy machines.
const LIMIT: Duration = Duration::from_secs(60);
const NODES: usize = 12;

fn up(name: &str, topology: &str) -> Lab {
    let rack = |r: usize| {
        let nodes: Vec<String> = (r * 4 + 1..=r * 4 + 4).map(|n| format!("n{n}")).collect();
        format!("  - {{name: r{r}, subnet: 172.31.{r}.0/24, nodes: [{}]}}\n", nodes.join(", "))
    };
    let lab = format!(
        "apiVersion: twill.network/v1\nkind: Lab\nmetadata: {{name: test}}\nspec:\n  racks:\n{}  topology: {topology}\n  resources: [pods.yaml]\n",
        (0..3).map(rack).collect::<String>()
    );
    let pods: String = (1..=NODES).map(|n| pod(&format!("p{n}"), &format!("n{n}"))).collect();
    Lab::up(name, &lab, &[("pods.yaml", &pods)]).unwrap()
}

/// From each pod to one in another rack; without those of the nodes that are named.
fn traffic(lab: &Lab, without: &[String]) -> Traffic {
    let name = |n: usize| format!("p{}", (n - 1) % NODES + 1);
    let pairs: Vec<(String, String)> = (1..=NODES).map(|n| (name(n), name(n + 5))).collect();
    let is_of = |pod: &String| without.contains(&pod.replace('p', "n"));
    let pairs: Vec<(&str, &str)> =
        pairs.iter().filter(|(from, to)| !is_of(from) && !is_of(to)).map(|(from, to)| (&**from, &**to)).collect();
    Traffic::start(lab, &pairs)
}

fn configure(lab: &Lab, spec: &str) {
    lab.apply(&format!(
        "apiVersion: twill.network/v1\nkind: BGPConfiguration\nmetadata: {{name: default}}\nspec: {{{spec}}}\n"
    ))
    .unwrap();
}

/// Who peers with whom, once nothing retires.
fn settled(lab: &Lab, topology: &str, holds: impl Fn(&[String]) -> bool) -> Vec<String> {
    let mut reflectors = Vec::new();
    let mut last = String::new();
    let done = within(LIMIT, "the topology is in force", || {
        last = lab.ask("n1", &["get", "bgpconfiguration", "default", "-o", "json"]).unwrap();
        let object: Value = serde_json::from_str(&last).unwrap();
        let sessions = &object["status"]["sessions"];
        reflectors = sessions["routeReflectors"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|name| name.as_str().unwrap().to_owned())
            .collect();
        sessions["topology"] == topology && sessions["retiring"].is_null() && holds(&reflectors)
    });
    assert!(done.is_ok(), "{done:?}: {last}");
    for n in 1..=NODES {
        let node = format!("n{n}");
        let wanted = match (topology, reflectors.contains(&node)) {
            ("RouteReflector", false) => reflectors.len(),
            _ => NODES - 1,
        };
        let mut seen = Vec::new();
        let done = within(LIMIT, "the sessions are those", || {
            // With a session missing the exit code says so.
            let Ok(text) = lab.ask(&node, &["peers", "-o", "json"]) else { return false };
            let peers: Vec<Value> = serde_json::from_str(&text).unwrap();
            seen = peers.iter().map(|peer| peer["name"].as_str().unwrap().to_owned()).collect();
            seen.len() == wanted
        });
        assert!(done.is_ok(), "{node}: {seen:?}");
    }
    reflectors
}

fn nothing_lost(what: &str, traffic: Traffic) {
    traffic.goes_on();
    let losses = traffic.losses();
    println!("{what}: {losses:?}");
    assert!(losses.iter().all(|(_, _, lost)| *lost == 0), "{what}: {losses:?}");
}

#[test]
#[ignore = "needs root: make test"]
fn reflectors_come_change_and_go_without_a_lost_packet() {
    let lab = up("topology", "Mesh");
    let moving = traffic(&lab, &[]);
    configure(&lab, "topology: RouteReflector");
    let first = settled(&lab, "RouteReflector", |names| names.len() == 3);
    let racks: std::collections::BTreeSet<usize> =
        first.iter().map(|name| (name[1..].parse::<usize>().unwrap() - 1) / 4).collect();
    assert_eq!(racks.len(), 3, "one in each rack: {first:?}");
    nothing_lost("from a mesh to reflectors", moving);
    hold_against_oracle(&lab, &lab.probe(&[]).unwrap());
    let status = lab.ask(&first[0], &["status"]).unwrap();
    assert!(status.contains(", reflects"), "{status}");
    let plain = (1..=NODES).map(|n| format!("n{n}")).find(|name| !first.contains(name)).unwrap();
    let peers = lab.ask(&plain, &["peers"]).unwrap();
    assert_eq!(peers.matches(" reflector ").count(), 3, "{peers}");
    let cluster = lab.ask(&plain, &["status", "--cluster"]).unwrap();
    assert!(cluster.contains(&format!("nodes peer with {}, which reflect", first.join(", "))), "{cluster}");

    let moving = traffic(&lab, &[]);
    let others: Vec<String> =
        (1..=NODES).map(|n| format!("n{n}")).filter(|name| !first.contains(name)).take(3).collect();
    let label = |name: &String| {
        format!(
            "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{example.org/role: reflector}}}}\n"
        )
    };
    lab.apply(&others.iter().map(label).collect::<String>()).unwrap();
    configure(
        &lab,
        "topology: RouteReflector, routeReflectors: {nodeSelector: {matchLabels: {example.org/role: reflector}}}",
    );
    settled(&lab, "RouteReflector", |names| names.iter().all(|name| others.contains(name)));
    nothing_lost("all reflectors are others", moving);

    let moving = traffic(&lab, &[]);
    configure(&lab, "topology: Mesh");
    settled(&lab, "Mesh", |names| names.is_empty());
    nothing_lost("and back to a mesh", moving);
    hold_against_oracle(&lab, &lab.probe(&[]).unwrap());
}

#[test]
#[ignore = "needs root: make test"]
fn a_reflector_that_goes_takes_its_own_pods_along_and_no_others() {
    let lab = up("reflectors", "RouteReflector");
    let first = settled(&lab, "RouteReflector", |names| names.len() == 3);
    let run = |args: &[&str]| succeeded(lab.lab(args).output().unwrap()).unwrap();

    let moving = traffic(&lab, &[]);
    run(&["kill", &first[0], "bgpd"]);
    moving.goes_on();
    run(&["start", &first[0], "bgpd"]);
    settled(&lab, "RouteReflector", |names| names == first);
    nothing_lost("its speaker is killed and started", moving);

    let moving = traffic(&lab, &first[..1]);
    lab.ask(&first[1], &["drain", &first[0]]).unwrap();
    within(LIMIT, "another one reflects", || {
        let text = lab.ask(&first[1], &["get", "bgpconfiguration", "default", "-o", "json"]).unwrap();
        let object: Value = serde_json::from_str(&text).unwrap();
        let names = object["status"]["sessions"]["routeReflectors"].to_string();
        !names.contains(&format!("\"{}\"", first[0])) && object["status"]["sessions"]["retiring"].is_null()
    })
    .unwrap();
    moving.goes_on();
    lab.ask(&first[1], &["drain", &first[0], "--undo"]).unwrap();
    let second = settled(&lab, "RouteReflector", |names| names.len() == 3 && !names.contains(&first[0]));
    nothing_lost("it is drained, and comes back as one of many", moving);

    let moving = traffic(&lab, &second[..1]);
    run(&["reboot", &second[0]]);
    settled(&lab, "RouteReflector", |names| names == second);
    nothing_lost("its machine is gone and comes back", moving);
    hold_against_oracle(&lab, &lab.probe(&[]).unwrap());
}
