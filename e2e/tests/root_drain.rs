//! A node that is drained.
//!
//! ```text
//!  n1, n2 ── tor-r1 ── spine ── tor-r2 ── n3
//! ```
//! 1. When `twill drain n1` returns, no kernel and no speaker but n1's own has a route to n1's blocks, whatever the routers run; its pods
//!    are still there, and those of others lose nothing.
//! 2. A restart does not bring it back, `--undo` does.
//! 3. A speaker that ends while the machine goes down leaves no route either.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::SocketAddr;
use std::time::Duration;
use support::{Counter, Sender, hold_against_oracle, pod, two_racks};
use twill_e2e::{Lab, failed, succeeded, within};
use twill_lab::io::labs;
use twill_lab::state::{Daemon, State};

const PORT: u16 = 7000;
const LIMIT: Duration = Duration::from_secs(20);

/// An AS of its own for each node. Debian's GoBGP passes no withdrawal on to a peer that it overrides the AS for: it looks for loops in the path
/// as it was received.
fn own_asns() -> String {
    let node = |n: u32| {
        format!("---\napiVersion: v1\nkind: Node\nmetadata: {{name: n{n}, labels: {{example.org/asn: '6520{n}'}}}}\n")
    };
    let configuration = "---
apiVersion: twill.network/v1
kind: BGPConfiguration
metadata: {name: default}
spec: {topology: Fabric, asn: {nodeLabel: example.org/asn}}
";
    configuration.to_owned() + &(1..=3).map(node).collect::<String>()
}

fn up(software: &str, topology: &str) -> Lab {
    let asns = if software == "gobgp" { own_asns() } else { String::new() };
    let pods = [pod("a", "n1"), pod("b", "n2"), pod("c", "n3"), asns].concat();
    let lab = two_racks(&format!("  topology: {topology}\n  resources: [pods.yaml]\n"))
        .replace("{asn: 65101}", &format!("{{asn: 65101, speaker: {software}}}"))
        .replace("{asn: 65102}", &format!("{{asn: 65102, speaker: {software}}}"))
        .replace("{asn: 65000}", &format!("{{asn: 65000, speaker: {software}}}"));
    Lab::up("drain", &lab, &[("pods.yaml", &pods)]).unwrap()
}

/// The blocks of n1, as they stand in routes: without the length, which not everybody writes.
fn blocks(lab: &Lab) -> Vec<String> {
    let text = lab.exec("n1", &["ip", "-4", "route", "show", "type", "unreachable", "proto", "84"]).unwrap();
    let networks =
        text.lines().map(|line| line.split_whitespace().nth(1).unwrap().split('/').next().unwrap().to_owned());
    let blocks: Vec<String> = networks.collect();
    assert!(!blocks.is_empty(), "{text}");
    blocks
}

/// Machines whose kernel leads to one of these blocks.
fn who_knows(lab: &Lab, blocks: &[String]) -> Vec<String> {
    let state = labs::load(&lab.name).unwrap();
    let routers = state.routers.iter().map(|router| router.name.clone());
    let machines = routers.chain(["n2", "n3"].map(str::to_owned));
    let knows = |machine: &String| {
        let routes = lab.exec(machine, &["ip", "-4", "route", "show"]).unwrap();
        blocks.iter().any(|block| routes.contains(block.as_str()))
    };
    machines.filter(knows).collect()
}

fn drained(software: &str, topology: &str) {
    let lab = up(software, topology);
    let blocks = blocks(&lab);
    assert!(who_knows(&lab, &blocks).contains(&"n3".to_owned()));
    let target = lab.pod("default/c").unwrap();
    let counter = Counter::start(&target.netns, PORT);
    let sender =
        Sender::start(&lab.pod("default/b").unwrap().netns, SocketAddr::new(target.ips[0].parse().unwrap(), PORT));
    within(LIMIT, "b is heard", || counter.count() > 100).unwrap();

    let said = lab.ask("n2", &["drain", "n1"]).unwrap();
    assert_eq!(
        said.trim(),
        "n1 drained; 1 pod runs on there, and no other node reaches it until: twill drain n1 --undo"
    );
    let networks = lab.ask("n2", &["get", "nodenetworks"]).unwrap();
    let line = networks.lines().find(|line| line.starts_with("n1 ")).unwrap();
    assert!(networks.contains("DRAINED") && line.contains(" yes "), "{networks}");
    let listed = succeeded(lab.lab(["status"]).output().unwrap()).unwrap();
    assert!(listed.contains("n1 is drained; bring it back with: "), "{listed}");
    // The last router may hear of it from another one.
    let took = within(Duration::from_secs(1), "no route is left", || who_knows(&lab, &blocks).is_empty());
    println!("{topology}, {software}: gone {took:?} after drain returned");
    assert!(took.is_ok(), "{:?} still know {blocks:?}", who_knows(&lab, &blocks));
    assert!(lab.pod("default/a").unwrap().phase == "Running", "its pods are still there");
    let status = lab.ask("n1", &["status"]).unwrap();
    assert!(status.contains("no sessions: drained"), "{status}");

    let state = labs::load(&lab.name).unwrap();
    state.daemons[&State::key("n1", Daemon::Bgpd)].kill().unwrap();
    succeeded(lab.lab(["start", "n1", "bgpd"]).output().unwrap()).unwrap();
    assert!(who_knows(&lab, &blocks).is_empty(), "a restart does not bring it back");

    let said = lab.ask("n3", &["drain", "n1", "--undo"]).unwrap();
    assert_eq!(said.trim(), "n1 back in routing");
    lab.ask("n1", &["peers"]).unwrap();
    within(LIMIT, "it is back", || who_knows(&lab, &blocks).contains(&"n3".to_owned())).unwrap();
    hold_against_oracle(&lab, &lab.probe(&[]).unwrap());
    let (sent, refused) = sender.stop();
    let _ = within(Duration::from_secs(5), "all arrive", || counter.count() >= sent);
    assert_eq!((counter.count(), refused), (sent, 0), "b and c never noticed");
}

#[test]
#[ignore = "needs root: make test"]
fn from_a_mesh() {
    drained("twill", "Mesh");
}

#[test]
#[ignore = "needs root: make test"]
fn from_a_fabric_of_twill() {
    drained("twill", "Fabric");
}

#[test]
#[ignore = "needs root: make test"]
fn from_a_fabric_of_bird() {
    drained("bird", "Fabric");
}

#[test]
#[ignore = "needs root: make test"]
fn from_a_fabric_of_frr() {
    drained("frr", "Fabric");
}

#[test]
#[ignore = "needs root: make test"]
fn from_a_fabric_of_gobgp() {
    drained("gobgp", "Fabric");
}

#[test]
#[ignore = "needs root: make test"]
fn a_machine_that_goes_down_leaves_no_route() {
    let lab = up("frr", "Fabric");
    let blocks = blocks(&lab);
    let bgpd = || labs::load(&lab.name).unwrap().daemons[&State::key("n1", Daemon::Bgpd)];
    let terminate = || {
        let pid = nix::unistd::Pid::from_raw(bgpd().pid);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        within(LIMIT, "bgpd ends", || !bgpd().runs()).unwrap();
    };
    terminate();
    assert!(!who_knows(&lab, &blocks).is_empty(), "an upgrade leaves the routes");
    succeeded(lab.lab(["start", "n1", "bgpd"]).output().unwrap()).unwrap();
    // What the kubelet writes when systemd tells it that the machine goes down.
    let node = lab.ask("n1", &["get", "node", "n1", "-o", "json"]).unwrap();
    let mut node: serde_json::Value = serde_json::from_str(&node).unwrap();
    node["status"]["conditions"] = serde_json::json!([
        {"type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": "node is shutting down"},
    ]);
    support::put_status(&lab, &node);
    within(LIMIT, "sessions are back", || lab.ask("n1", &["peers"]).is_ok()).unwrap();
    terminate();
    within(Duration::from_secs(1), "no route is left", || who_knows(&lab, &blocks).is_empty()).unwrap();
}

#[test]
#[ignore = "needs root: make test"]
fn what_cannot_be_drained_is_named() {
    let lab = up("twill", "Mesh");
    let blocks = blocks(&lab);
    let output = |args: &[&str]| {
        let twill = twill_e2e::twill().unwrap().display().to_string();
        let command: Vec<&str> = [twill.as_str()].into_iter().chain(args.iter().copied()).collect();
        lab.exec_command("n2", &command).output().unwrap()
    };
    let error = failed(output(&["drain", "n1", "n9"])).unwrap();
    assert!(error.contains("Node n9 does not exist"), "{error}");
    assert!(!lab.ask("n2", &["get", "nodenetwork", "n1", "-o", "yaml"]).unwrap().contains("drain"), "nothing was done");
    let state = labs::load(&lab.name).unwrap();
    state.daemons[&State::key("n1", Daemon::Bgpd)].kill().unwrap();
    let error = failed(output(&["drain", "n1", "--timeout", "1s"])).unwrap();
    assert!(error.contains("bgpd of Node n1 has not said within 1 s that it is drained"), "{error}");
    succeeded(lab.lab(["start", "n1", "bgpd"]).output().unwrap()).unwrap();
    // Its peers keep what they have of the run before, unless it found them before it heard that it is drained, and told them.
    let drained = output(&["drain", "n1", "--timeout", "2s"]);
    if drained.status.success() {
        within(Duration::from_secs(1), "no route is left", || who_knows(&lab, &blocks).is_empty()).unwrap();
    } else {
        let error = failed(drained).unwrap();
        assert!(error.contains("it could not be said there") && !who_knows(&lab, &blocks).is_empty(), "{error}");
    }
    assert_eq!(succeeded(output(&["drain", "n1", "--undo"])).unwrap().trim(), "n1 back in routing");
    within(LIMIT, "it has told them again", || lab.ask("n1", &["peers"]).is_ok()).unwrap();
    assert!(succeeded(output(&["drain", "n1"])).unwrap().starts_with("n1 drained; "));
}

#[test]
#[ignore = "needs root: make test"]
fn a_node_behind_a_cut_cable_is_not_drained_before_its_peers_have_heard() {
    let lab = up("twill", "Mesh");
    succeeded(lab.lab(["partition", "n1"]).output().unwrap()).unwrap();
    let output = |args: &[&str]| {
        let twill = twill_e2e::twill().unwrap().display().to_string();
        let command: Vec<&str> = [twill.as_str()].into_iter().chain(args.iter().copied()).collect();
        lab.exec_command("n2", &command).output().unwrap()
    };
    let error = failed(output(&["drain", "n1", "--timeout", "4s"])).unwrap();
    assert!(error.contains("n2, n3: it could not be said there"), "{error}");
    let undone = output(&["drain", "n1", "--undo", "--timeout", "2s"]);
    let said = String::from_utf8_lossy(&undone.stdout).into_owned();
    assert_eq!(undone.status.code(), Some(2), "{said}");
    assert!(said.contains("n1 back in routing, but 2 of 2 sessions are not established yet"), "{said}");
    let status =
        lab.exec_command("n1", &[&twill_e2e::twill().unwrap().display().to_string(), "status"]).output().unwrap();
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert_eq!(status.status.code(), Some(2), "{said}");
    assert!(said.contains("problem: bgpd: the session with n2 (172.31.1.12) is not established: "), "{said}");
}
