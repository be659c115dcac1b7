//! Routers of others: BIRD, FRR and GoBGP as ToRs and spine.
//!
//! ```text
//!  n1, n2 ── tor-r1 ── spine ── tor-r2 ── n3
//! ```
//! 1. In a Fabric of each software pods reach each other across racks without encapsulation, over both families, and the ToR's own table
//!    shows the nodes' blocks.
//! 2. A node whose speaker is killed keeps its routes there until it is back (RFC 4724).
//! 3. A ToR whose speaker alone is killed goes on forwarding (RFC 4724).
//! 4. In a Mesh they carry the underlay alone.
//! 5. Nothing of them is left by `down`.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;
use support::families::{DUAL, racks};
use support::{POOLS, hold_against_oracle, pod};
use twill_e2e::{Lab, succeeded, within};
use twill_lab::io::labs;
use twill_lab::routers::Software;

fn up(software: &str, topology: &str) -> Lab {
    let pods = [pod("a", "n1"), pod("b", "n2"), pod("c", "n3")].concat();
    let lab = racks(DUAL, &format!("  topology: {topology}\n  resources: [pools.yaml, pods.yaml]\n"))
        .replace("{asn: 65101}", &format!("{{asn: 65101, speaker: {software}}}"))
        .replace("{asn: 65102}", &format!("{{asn: 65102, speaker: {software}}}"))
        .replace("{asn: 65000}", &format!("{{asn: 65000, speaker: {software}}}"));
    // In a mesh the routers between racks know nothing of pods.
    let tunnel = if topology == "Mesh" { ", encapsulation: {protocol: VXLAN}}" } else { "}" };
    let pools = POOLS.replace("/16}", &format!("/16{tunnel}")).replace("/48'}", &format!("/48'{tunnel}"));
    let began = std::time::Instant::now();
    let lab = Lab::up(software, &lab, &[("pools.yaml", &pools), ("pods.yaml", &pods)]).unwrap();
    eprintln!("{topology} of {software}: up in {:?}", began.elapsed());
    lab
}

/// The first three numbers of a pod's address, as every block of its node has them here.
fn part(lab: &Lab, pod: &str) -> String {
    let address = lab.pod(pod).unwrap().ips[0].clone();
    address.rsplit_once('.').unwrap().0.to_owned()
}

fn fabric(software: &str, table: &[&str]) {
    let lab = up(software, "Fabric");
    let probe = lab.probe(&[]).unwrap();
    assert_eq!(probe.cells.len(), 3 * 3 * 2 * 2);
    hold_against_oracle(&lab, &probe);
    let shown = lab.exec("tor-r1", table).unwrap();
    for pod in ["default/a", "default/b", "default/c"] {
        assert!(shown.contains(&part(&lab, pod)), "{pod} is not in the ToR's table: {shown}");
    }
    let across = lab.exec("n3", &["ip", "route", "get", &lab.pod("default/a").unwrap().ips[0]]).unwrap();
    assert!(across.contains("via 172.31.2.1 dev eth0") && !across.contains("encap"), "{across}");
    restart(&lab);
    let state = labs::load(&lab.name).unwrap();
    let programs = state.routers.iter().flat_map(|r| &r.programs).collect::<Vec<_>>();
    assert!(programs.len() >= 3 && programs.iter().all(|p| state.daemons[*p].runs()));
    dies(&lab);
    let processes = programs.iter().map(|p| state.daemons[*p]).collect::<Vec<_>>();
    drop(lab);
    assert!(processes.iter().all(|p| !p.runs()));
}

/// How many sessions a router has, as its own command says.
fn sessions(lab: &Lab, router: &str) -> usize {
    let state = labs::load(&lab.name).unwrap();
    let software: Software = state.routers.iter().find(|r| r.name == router).and_then(|r| r.software).unwrap();
    let sessions = software.sessions().unwrap();
    let command = [&[sessions.command], sessions.args].concat();
    (sessions.established)(&lab.exec(router, &command).unwrap())
}

/// The ToR keeps n1's routes while its speaker is away.
fn restart(lab: &Lab) {
    let ips = lab.pod("default/a").unwrap().ips;
    let before = sessions(lab, "tor-r1");
    let forwards = || {
        for ip in &ips {
            let hop = if ip.contains(':') { "fd31:1::11" } else { "172.31.1.11" };
            let route = lab.exec("tor-r1", &["ip", "route", "get", ip]).unwrap();
            assert!(route.contains(&format!("via {hop}")), "{route}");
            lab.exec("n3", &["ping", "-c1", "-W2", ip]).unwrap();
        }
    };
    succeeded(lab.lab(["kill", "n1", "bgpd"]).output().unwrap()).unwrap();
    let gone = || sessions(lab, "tor-r1") == before - 2;
    within(Duration::from_secs(20), "tor-r1 has lost its sessions with n1", gone).unwrap();
    forwards();
    succeeded(lab.lab(["start", "n1", "bgpd"]).output().unwrap()).unwrap();
    let took = within(Duration::from_secs(60), "n1 has its sessions again", || sessions(lab, "tor-r1") == before);
    eprintln!("sessions are back {:?} after the start", took.unwrap());
    forwards();
}

/// The last program of a ToR's that speaks with others is killed: the others keep its routes, and its kernel forwards.
fn dies(lab: &Lab) {
    let before = sessions(lab, "spine");
    let state = labs::load(&lab.name).unwrap();
    let speaker = ["tor-r1/bird", "tor-r1/gobgpd", "tor-r1/bgpd"].into_iter().find_map(|s| state.daemons.get(s));
    speaker.unwrap().kill().unwrap();
    let gone = || sessions(lab, "spine") == before - 2;
    within(Duration::from_secs(20), "the spine has lost its sessions with tor-r1", gone).unwrap();
    for ip in lab.pod("default/a").unwrap().ips {
        lab.exec("n3", &["ping", "-c1", "-W2", &ip]).unwrap();
    }
}

#[test]
#[ignore = "needs root: make test"]
fn a_fabric_of_bird() {
    fabric("bird", &["birdc", "show", "route"]);
}

#[test]
#[ignore = "needs root: make test"]
fn a_fabric_of_frr() {
    fabric("frr", &["vtysh", "-c", "show bgp ipv4 unicast"]);
}

#[test]
#[ignore = "needs root: make test"]
fn a_fabric_of_gobgp() {
    fabric("gobgp", &["gobgp", "global", "rib"]);
}

#[test]
#[ignore = "needs root: make test"]
fn in_a_mesh_they_carry_the_underlay() {
    let tables = [
        ("bird", ["birdc", "show", "route"]),
        ("frr", ["vtysh", "-c", "show bgp ipv4 unicast"]),
        ("gobgp", ["gobgp", "global", "rib"]),
    ];
    for (software, table) in tables {
        let lab = up(software, "Mesh");
        lab.exec("n1", &["ping", "-c1", "-W2", "172.31.2.11"]).unwrap();
        hold_against_oracle(&lab, &lab.probe(&[]).unwrap());
        let shown = lab.exec("tor-r1", &table).unwrap();
        assert!(shown.contains("172.31.2.0/24") && !shown.contains(&part(&lab, "default/a")), "{shown}");
    }
}
