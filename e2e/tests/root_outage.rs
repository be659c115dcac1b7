//! Nodes that lose their power or their links.
//!
//! ```text
//!  n1, n2 ── tor-r1 ── spine ── tor-r2 ── n3
//! ```
//! 1. A rebooted node has nothing but its disk, the same pods in new sandboxes, and is reachable within 5 s of its daemons' start.
//! 2. A partitioned node is out of reach and runs on; healed, the matrix is as before. Every command may be repeated, `down` works in
//!    between.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use support::{hold_against_oracle, pod, two_racks};
use twill_e2e::{Lab, failed, succeeded, within};
use twill_lab::io::{labs, netns};
use twill_lab::state::{Daemon, State};

fn up(name: &str, topology: &str) -> Lab {
    with_routers(name, topology, "twill")
}

fn with_routers(name: &str, topology: &str, software: &str) -> Lab {
    let agent = pod("agent", "n1").replace("spec:\n", "spec:\n  hostNetwork: true\n");
    let pods = [pod("a", "n1"), pod("b", "n2"), pod("c", "n3"), agent].concat();
    let rest = format!("  topology: {topology}\n  resources: [pods.yaml]\n");
    let lab = two_racks(&rest).replace("{asn: 65", &format!("{{speaker: {software}, asn: 65"));
    Lab::up(name, &lab, &[("pods.yaml", &pods)]).unwrap()
}

fn reaches(lab: &Lab, from: &str, to: &str) -> bool {
    let (from, to) = (lab.pod(from).unwrap(), lab.pod(to).unwrap());
    let to: SocketAddr = format!("{}:80", to.ips[0]).parse().unwrap();
    netns::inside(&from.netns, || Ok(TcpStream::connect_timeout(&to, Duration::from_millis(200)).is_ok()))
        .unwrap_or_default()
}

/// Reboots n1 and watches from outside.
fn reboot(lab: &Lab) {
    let before = labs::load(&lab.name).unwrap();
    let address = || lab.exec("n1", &["cat", "/sys/class/net/eth0/address"]).unwrap();
    let hardware = address();
    lab.exec("n1", &["ip", "link", "add", "marker", "type", "bridge"]).unwrap();
    let mut command = lab.lab(["reboot", "n1"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let (socket, key) = (before.socket("n1", Daemon::Bgpd), State::key("n1", Daemon::Felix));
    let started = || socket.exists() && labs::load(&lab.name).is_ok_and(|s| s.daemons[&key] != before.daemons[&key]);
    within(Duration::from_secs(30), "n1's daemons are started", started).unwrap();
    let began = Instant::now();
    // The old sandbox was gone before; only a new one can answer.
    within(Duration::from_secs(5), "n1 is reachable again", || reaches(lab, "default/c", "default/a")).unwrap();
    eprintln!("reachable {:?} after its daemons were started", began.elapsed());
    assert!(command.wait().unwrap().success());
    assert!(lab.exec("n1", &["ip", "link", "show", "marker"]).is_err(), "what its kernel knew is gone");
    assert_eq!(address(), hardware, "the hardware is the same");
    let probe = lab.probe(&[]).unwrap();
    hold_against_oracle(lab, &probe);
}

#[test]
#[ignore = "needs root: make test"]
fn a_rebooted_node_is_back_with_its_pods() {
    for (topology, software) in
        [("Mesh", "twill"), ("Fabric", "twill"), ("Fabric", "bird"), ("Fabric", "frr"), ("Fabric", "gobgp")]
    {
        eprintln!("{topology}, {software}");
        let lab = with_routers("reboot", topology, software);
        reboot(&lab);
        // GoBGP believes in the old session until its next KEEPALIVE is answered by a reset: half a minute each time.
        if software != "gobgp" {
            reboot(&lab);
        }
    }
}

/// Sessions outlive a short cut, and say nothing about the wire.
#[test]
#[ignore = "needs root: make test"]
fn after_a_short_cut_heal_returns_when_packets_pass() {
    let lab = up("short", "Mesh");
    for round in 0..5 {
        succeeded(lab.lab(["partition", "n1"]).output().unwrap()).unwrap();
        assert!(!reaches(&lab, "default/c", "default/a"));
        succeeded(lab.lab(["heal", "n1"]).output().unwrap()).unwrap();
        for (from, to) in [("default/c", "default/a"), ("default/b", "default/a"), ("default/a", "default/c")] {
            assert!(reaches(&lab, from, to), "round {round}: heal returned before packets passed from {from} to {to}");
        }
    }
}

#[test]
#[ignore = "needs root: make test"]
fn a_partitioned_node_is_out_of_reach_until_it_is_healed() {
    let lab = up("cut", "Mesh");
    for _ in 0..2 {
        let said = succeeded(lab.lab(["partition", "n1"]).output().unwrap()).unwrap();
        assert_eq!(said, "the links of n1 are cut; restore them with: twill lab heal n1\n");
        assert!(!reaches(&lab, "default/c", "default/a"));
        assert!(!reaches(&lab, "default/a", "default/b"));
        assert!(reaches(&lab, "default/b", "default/c"), "the others are whole");
    }
    assert!(lab.exec("n1", &["cat", "/sys/class/net/eth0/carrier"]).unwrap().starts_with('0'));
    let said = succeeded(lab.lab(["status"]).output().unwrap()).unwrap();
    assert!(said.contains("the links of n1 are cut") && !said.contains("does not run"), "{said}");
    // A reboot does not mend a cable.
    let said = succeeded(lab.lab(["reboot", "n1"]).output().unwrap()).unwrap();
    assert!(said.contains("nothing is routed until: twill lab heal n1") && !said.contains("and routed"), "{said}");
    assert!(!reaches(&lab, "default/c", "default/a"));
    for _ in 0..2 {
        let said = succeeded(lab.lab(["heal", "n1"]).output().unwrap()).unwrap();
        assert!(said.starts_with("the links of n1 are back"), "{said}");
        for (from, to) in [("default/c", "default/a"), ("default/a", "default/b"), ("default/b", "default/a")] {
            assert!(reaches(&lab, from, to), "heal returned before packets passed from {from} to {to}");
        }
        hold_against_oracle(&lab, &lab.probe(&[]).unwrap());
    }
    let error = failed(lab.lab(["partition", "n9"]).output().unwrap()).unwrap();
    assert!(error.contains("no node n9; it has n1, n2, n3"), "{error}");
    succeeded(lab.lab(["partition", "n2"]).output().unwrap()).unwrap();
}
