//! A pod whose address lies outside of its node's blocks.
//!
//! ```text
//!  n1, n2 ── tor-r1        Mesh, a pod on each node
//! ```
//! 1. An address of n2's block that is on n1 is told by n1 alone, and n2, whose block it lies in, sends packets there.
//! 2. A restart of n1's speaker takes that back not for an instant.
//! 3. It goes with the pod's interface, of which the kernel says nothing about routes.
//! 4. Of a block that n1 loses while its felix is away each pod is told before the block is withdrawn: its next owner never sees nobody there.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Stdio;
use std::time::Duration;
use support::{one_rack, pod};
use twill_e2e::{Lab, succeeded, within};

/// Much more than anything takes, for busy machines.
const LIMIT: Duration = Duration::from_secs(20);
const POOL: &str = "apiVersion: twill.network/v1\nkind: IPPool\nmetadata: {name: test}\nspec: {cidr: 10.42.0.0/16}\n";

fn route_of(lab: &Lab, node: &str, address: &str) -> String {
    lab.exec(node, &["ip", "route", "show", &format!("{address}/32"), "metric", "512"]).unwrap()
}

#[test]
#[ignore = "needs root: make test"]
fn who_moved_is_reached_where_it_is_also_by_the_owner_of_its_block() {
    let pods = [pod("a", "n1"), pod("b", "n2")].concat();
    let lab = one_rack("  topology: Mesh\n  resources: [pool.yaml, pods.yaml]\n");
    let lab = Lab::up("moved", &lab, &[("pool.yaml", POOL), ("pods.yaml", &pods)]).unwrap();
    let run = |args: &[&str]| succeeded(lab.lab(args).output().unwrap()).unwrap();
    let ip = |line: &str| lab.exec("n1", &[&["ip"], &line.split(' ').collect::<Vec<_>>()[..]].concat()).unwrap();
    // felix would take the interface, which it knows nothing of, away.
    run(&["kill", "n1", "felix"]);
    let b = lab.pod("default/b").unwrap().ips[0].clone();
    let (net, last) = b.rsplit_once('.').unwrap();
    let address = format!("{net}.{}", last.parse::<u8>().unwrap() ^ 32);

    ip("link add twl0123456789a type veth peer name moved");
    ip("link set twl0123456789a up");
    ip("link set moved up");
    ip(&format!("route add {address}/32 dev twl0123456789a proto 85"));
    let told = || route_of(&lab, "n2", &address).contains("via 172.31.1.11");
    within(LIMIT, "the owner of the block has a route to it", told).unwrap();
    let way = lab.exec("n2", &["ip", "route", "get", &address]).unwrap();
    assert!(way.contains("via 172.31.1.11"), "{way}");

    let mut monitor = lab.exec_command("n2", &["ip", "monitor", "route"]);
    let mut monitor = monitor.stdout(Stdio::piped()).spawn().unwrap();
    run(&["kill", "n1", "bgpd"]);
    run(&["start", "n1", "bgpd"]);
    let fresh = || {
        let routes = lab.ask("n2", &["routes", &format!("{address}/32")]).unwrap();
        told() && routes.contains(&address) && !routes.contains("stale")
    };
    within(LIMIT, "it is told again", fresh).unwrap();
    ip("link del twl0123456789a");
    within(LIMIT, "the route goes with the interface", || route_of(&lab, "n2", &address).is_empty()).unwrap();
    monitor.kill().unwrap();
    let seen = String::from_utf8(monitor.wait_with_output().unwrap().stdout).unwrap();
    let lost = seen.lines().filter(|line| line.starts_with("Deleted") && line.contains(&address)).count();
    assert_eq!(lost, 1, "not for an instant before: {seen}");
}

#[test]
#[ignore = "needs root: make test"]
fn pods_of_a_lost_block_are_told_before_it_is_withdrawn() {
    let pods = [pod("a", "n1"), pod("b", "n2")].concat();
    let lab = one_rack("  topology: Mesh\n  resources: [pool.yaml, pods.yaml]\n");
    let lab = Lab::up("lost", &lab, &[("pool.yaml", POOL), ("pods.yaml", &pods)]).unwrap();
    // It would claim it again.
    succeeded(lab.lab(["kill", "n1", "felix"]).output().unwrap()).unwrap();
    let a = lab.pod("default/a").unwrap().ips[0].clone();
    let (net, last) = a.rsplit_once('.').unwrap();
    let first = last.parse::<u8>().unwrap() & 0b1100_0000;
    let mut monitor = lab.exec_command("n2", &["ip", "monitor", "route"]);
    let mut monitor = monitor.stdout(Stdio::piped()).spawn().unwrap();
    let block = format!("{net}.{first}/26");
    let known = || lab.exec("n2", &["ip", "route", "show", &block]).unwrap();
    assert!(known().contains("via 172.31.1.11"), "{}", known());
    lab.ask("n2", &["delete", "ipblock", &format!("{}-{first}-26", net.replace('.', "-"))]).unwrap();
    within(LIMIT, "the block is withdrawn", || known().is_empty()).unwrap();
    within(LIMIT, "the pod is told", || route_of(&lab, "n2", &a).contains("via 172.31.1.11")).unwrap();
    monitor.kill().unwrap();
    let seen = String::from_utf8(monitor.wait_with_output().unwrap().stdout).unwrap();
    let line = |start: &str| seen.lines().position(|line| line.starts_with(start));
    let (told, withdrawn) = (line(&format!("{a} via")), line(&format!("Deleted {block}")));
    assert!(told.is_some() && withdrawn.is_some() && told < withdrawn, "{seen}");
}
