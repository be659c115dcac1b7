//! An AS per rack, and an AS per node.
//!
//! ```text
//!  n1, n2 ── tor-r1 ── spine ── tor-r2 ── n3
//! ```
//! 1. In a Fabric, behind ToRs of Twill and of BIRD, pods reach each other inside a rack and across racks, and the ToR's own table shows
//!    the nodes' numbers.
//! 2. In a Mesh nodes of different AS speak eBGP with each other.
//! 3. A Node manifest adds to a node's labels; one that would change its AS behind a ToR is refused, as is a node without a number.
#![allow(clippy::unwrap_used)]

mod support;

use support::{hold_against_oracle, pod, two_racks};
use twill_e2e::Lab;

const PER_RACK: [u32; 3] = [65201, 65201, 65202];
const PER_NODE: [u32; 3] = [65201, 65202, 4_200_000_003];

fn objects(topology: &str, asns: &[u32]) -> String {
    let mut text = format!(
        "---
apiVersion: twill.network/v1
kind: BGPConfiguration
metadata: {{name: default}}
spec: {{topology: {topology}, asn: {{nodeLabel: example.org/asn}}}}
---
apiVersion: twill.network/v1
kind: IPPool
metadata: {{name: v4}}
spec: {{cidr: 10.42.0.0/16, encapsulation: {{protocol: {}}}}}
",
        // In a mesh the routers between racks know nothing of pods.
        if topology == "Mesh" { "VXLAN" } else { "None" }
    );
    for (number, asn) in (1..).zip(asns) {
        text.push_str(&node(&format!("n{number}"), &format!("example.org/asn: '{asn}'")));
    }
    text
}

fn node(name: &str, labels: &str) -> String {
    format!("---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n")
}

fn up(name: &str, topology: &str, software: &str, asns: &[u32]) -> anyhow::Result<Lab> {
    let lab = two_racks(&format!("  topology: {topology}\n  resources: [objects.yaml, pods.yaml]\n"))
        .replace("{asn: 65101}", &format!("{{asn: 65101, speaker: {software}}}"))
        .replace("{asn: 65102}", &format!("{{asn: 65102, speaker: {software}}}"));
    let pods = [pod("a", "n1"), pod("b", "n2"), pod("c", "n3")].concat();
    Lab::up(name, &lab, &[("objects.yaml", &objects(topology, asns)), ("pods.yaml", &pods)])
}

/// The ToR's table as its own command shows it: one line per path, or several.
fn table(lab: &Lab, software: &str) -> String {
    match software {
        "twill" => lab.ask("tor-r1", &["routes"]).unwrap(),
        _ => lab.exec("tor-r1", &["birdc", "show", "route", "all"]).unwrap(),
    }
}

#[test]
#[ignore = "needs root: make test"]
fn in_a_fabric_racks_or_nodes_have_their_own_as() {
    for software in ["twill", "bird"] {
        for asns in [PER_RACK, PER_NODE] {
            let lab = up("asn", "Fabric", software, &asns).unwrap();
            hold_against_oracle(&lab, &lab.probe(&[]).unwrap());
            let shown = table(&lab, software);
            let own = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            for path in [vec![asns[0]], vec![asns[1]], vec![65000, 65102, asns[2]]] {
                let path = path.iter().map(ToString::to_string).collect::<Vec<_>>();
                let shows = |line: &str| own(line).windows(path.len()).any(|words| words == path);
                assert!(shown.lines().any(shows), "{path:?} is not in the table of {software}: {shown}");
            }
        }
    }
}

#[test]
#[ignore = "needs root: make test"]
fn in_a_mesh_nodes_of_different_as_speak_with_each_other() {
    let lab = up("asn-mesh", "Mesh", "twill", &PER_NODE).unwrap();
    hold_against_oracle(&lab, &lab.probe(&[]).unwrap());
    let peers = lab.ask("n1", &["peers"]).unwrap();
    assert!(peers.contains("65202") && peers.contains("4200000003"), "{peers}");
}

#[test]
#[ignore = "needs root: make test"]
fn a_node_manifest_adds_labels_and_leaves_the_as() {
    let error = up("asn-none", "Fabric", "twill", &PER_NODE[..2]).err().unwrap().to_string();
    assert!(error.contains("Node n3: metadata.labels: there is no example.org/asn"), "{error}");
    let lab = up("asn-labels", "Fabric", "twill", &PER_RACK).unwrap();
    lab.apply(&node("n1", "disk: ssd")).unwrap();
    let mut on_ssd = pod("d", "n1").replace("  nodeName: n1\n", "");
    on_ssd.push_str("  nodeSelector: {disk: ssd, example.org/asn: '65201'}\n");
    lab.apply(&on_ssd).unwrap();
    assert_eq!(lab.pod("default/d").unwrap().node, "n1");
    let refused = |manifest: &str| lab.apply(manifest).unwrap_err().to_string();
    let error = refused(&node("n1", "example.org/asn: '65209'"));
    assert!(error.contains("Node n1: its AS would become 65209, and its ToR knows it as 65201"), "{error}");
    let error = refused(&node("n9", "disk: ssd"));
    assert!(error.contains("Node n9: metadata.name: the lab has no such node; it has n1, n2, n3"), "{error}");
    hold_against_oracle(&lab, &lab.probe(&[]).unwrap());
}
