//! What is on the wire between pods, seen by capture on the sender's uplink.
//!
//! ```text
//!      spine
//!     /     \
//!  tor-r1  tor-r2      a on n1, b on n2 (same rack), c on n3 (another rack)
//!   n1 n2    n3
//! ```
//! 1. CrossSubnet: a→b plain, a→c encapsulated. 2. Always: both encapsulated. 3. None, in a fabric: both plain.
#![allow(clippy::unwrap_used)]

mod support;

use support::capture::Capture;
use support::{pod, two_racks};
use twill_e2e::Lab;

/// Runs a lab whose pool is encapsulated so; says for b and for c whether packets from a were plain on a's uplink.
fn plain(name: &str, encapsulation: &str, topology: &str) -> [bool; 2] {
    let pool = format!(
        "apiVersion: twill.network/v1\nkind: IPPool\nmetadata: {{name: test}}\nspec: {{cidr: 10.42.0.0/16, encapsulation: {encapsulation}}}\n"
    );
    let pods = [pod("a", "n1"), pod("b", "n2"), pod("c", "n3")].concat();
    let lab = two_racks(&format!("  topology: {topology}\n  resources: [pool.yaml, pods.yaml]\n"));
    let lab = Lab::up(name, &lab, &[("pool.yaml", &pool), ("pods.yaml", &pods)]).unwrap();
    let status = lab.status().unwrap();
    let node = status.nodes.iter().find(|n| n.name == "n1").unwrap();
    ["b", "c"].map(|target| {
        let mut capture = Capture::start(&node.netns);
        let probe = lab.probe(&["--from", "a", "--to", target]).unwrap();
        assert_eq!(probe.differences, 0, "{probe:?}");
        capture.stop();
        let (from, to) =
            (&lab.pod("default/a").unwrap().ips[0], &lab.pod(&format!("default/{target}")).unwrap().ips[0]);
        let plain = capture.count(&format!("host {from} and host {to} and not udp port 4789"));
        let tunnelled = capture.count("udp port 4789");
        assert!((plain > 0) != (tunnelled > 0), "{target}: {plain} plain, {tunnelled} tunnelled: one of them only");
        plain > 0
    })
}

#[test]
#[ignore = "needs root: make test"]
fn across_subnets_only_the_boundary_is_tunnelled() {
    assert_eq!(plain("cross", "{protocol: VXLAN, when: CrossSubnet}", "Mesh"), [true, false]);
}

#[test]
#[ignore = "needs root: make test"]
fn always_tunnels_inside_the_rack_too() {
    assert_eq!(plain("always", "{protocol: VXLAN, when: Always}", "Mesh"), [false, false]);
}

#[test]
#[ignore = "needs root: make test"]
fn without_encapsulation_a_fabric_carries_pods_plainly() {
    assert_eq!(plain("none", "{protocol: None}", "Fabric"), [true, true]);
}
