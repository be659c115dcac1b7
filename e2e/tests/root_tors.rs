//! Two ToRs per rack, each of another software.
//!
//! ```text
//!        ┌ tor-r1   (Twill) ┐       ┌ tor-r2   (FRR)   ┐
//!  n1, n2┤                  ├ spine ┤                  ├ n3
//!        └ tor-r1-2 (BIRD)  ┘       └ tor-r2-2 (GoBGP) ┘
//! ```
//! 1. In a Fabric pods reach each other across racks without encapsulation, over both families. Nodes share load between their
//!    ToRs, the spine between those of a rack.
//! 2. When a ToR has lost its rack, all traffic goes over the other within the hold time, and still when its speaker is dead, too.
//! 3. In a Mesh they carry the underlay, tunnels included.
#![allow(clippy::unwrap_used)]

mod support;

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use support::{POOLS, hold_against_oracle, pod};
use twill_e2e::{Lab, within};
use twill_lab::io::{labs, netns};

/// Seconds.
const HOLD_TIME: u64 = 6;

const LAB: &str = "
apiVersion: twill.network/v1
kind: Lab
metadata: {name: test}
spec:
  racks:
  - name: r1
    subnets: [172.31.1.0/24, 'fd31:1::/64']
    nodes: [n1, n2]
    tors: [{asn: 65101, speaker: twill}, {asn: 65101, speaker: bird}]
  - name: r2
    subnets: [172.31.2.0/24, 'fd31:2::/64']
    nodes: [n3]
    tors: [{asn: 65102, speaker: frr}, {asn: 65112, speaker: gobgp}]
  spine: {asn: 65000}
";

/// As the lab would write them, with a shorter hold time.
fn peers() -> String {
    let mut peers = String::new();
    for (rack, tor, asn) in [(1, 1, 65101), (1, 2, 65101), (2, 1, 65102), (2, 2, 65112)] {
        for (name, address) in [("v4", format!("172.31.{rack}.{tor}")), ("v6", format!("fd31:{rack}::{tor}"))] {
            let _ = write!(
                peers,
                "---
apiVersion: twill.network/v1
kind: BGPPeer
metadata: {{name: r{rack}-{tor}-{name}}}
spec:
  nodeSelector: {{matchLabels: {{topology.kubernetes.io/rack: r{rack}}}}}
  remote: {{address: '{address}'}}
  asn: {asn}
  holdTime: {HOLD_TIME}
"
            );
        }
    }
    peers
}

fn pods() -> String {
    [pod("a", "n1"), pod("b", "n2"), pod("c", "n3")].concat()
}

/// Next hops of the route to the block that an address is in.
fn hops(lab: &Lab, machine: &str, address: &str) -> Vec<String> {
    let family = if address.contains(':') { "-6" } else { "-4" };
    let route = lab.exec(machine, &["ip", family, "route", "show", "match", address, "metric", "512"]).unwrap();
    let words = route.split_whitespace().collect::<Vec<_>>();
    let mut hops = words.windows(2).filter(|w| w[0] == "via").map(|w| w[1].to_owned()).collect::<Vec<_>>();
    hops.sort();
    hops
}

/// Whether connections reach a pod whichever way their ports lead them.
fn all_reach(lab: &Lab, from: &str, to: &str) -> bool {
    let (from, to) = (lab.pod(from).unwrap(), lab.pod(to).unwrap());
    to.ips.iter().all(|ip| {
        let to = SocketAddr::new(ip.parse().unwrap(), 80);
        let reaches = || TcpStream::connect_timeout(&to, Duration::from_millis(300)).is_ok();
        netns::inside(&from.netns, || Ok((0..24).all(|_| reaches()))).unwrap_or_default()
    })
}

/// Both ways.
fn racks_reach(lab: &Lab) -> bool {
    all_reach(lab, "default/a", "default/c") && all_reach(lab, "default/c", "default/b")
}

fn kill(lab: &Lab, program: &str) {
    labs::load(&lab.name).unwrap().daemons[program].kill().unwrap();
}

#[test]
#[ignore = "needs root: make test"]
fn nodes_share_load_between_their_tors_and_survive_the_loss_of_one() {
    let fabric = format!("{LAB}  topology: Fabric\n  resources: [pools.yaml, peers.yaml, pods.yaml]\n");
    let lab = Lab::up("tors", &fabric, &[("pools.yaml", POOLS), ("peers.yaml", &peers()), ("pods.yaml", &pods())]);
    let lab = lab.unwrap();
    hold_against_oracle(&lab, &lab.probe(&[]).unwrap());
    let (a, c) = (lab.pod("default/a").unwrap().ips, lab.pod("default/c").unwrap().ips);
    for (machine, address, expected) in [
        ("n1", &c[0], ["172.31.1.1", "172.31.1.2"]),
        ("n1", &c[1], ["fd31:1::1", "fd31:1::2"]),
        ("n3", &a[0], ["172.31.2.1", "172.31.2.2"]),
        ("spine", &a[0], ["198.18.0.2", "198.18.1.2"]),
        ("spine", &a[1], ["fd00:7477:696c:1::2", "fd00:7477:696c::2"]),
        ("spine", &c[0], ["198.18.2.2", "198.18.3.2"]),
    ] {
        let shared = || hops(&lab, machine, address) == expected;
        let done = within(Duration::from_secs(10), "two next hops", shared);
        assert!(done.is_ok(), "{machine} to {address}: {:?}", hops(&lab, machine, address));
    }
    assert!(racks_reach(&lab));
    let cut = |tor: &str| lab.exec(tor, &["ip", "link", "set", "segment", "down"]).unwrap();
    let avoided = |tor: &str, node: &str, to: &str, left: &str| {
        let over_the_other = || hops(&lab, node, to) == [left] && racks_reach(&lab);
        let took = within(Duration::from_secs(3 * HOLD_TIME), "everything goes over the other ToR", over_the_other);
        eprintln!("{tor} is avoided after {:?}", took.unwrap());
    };
    cut("tor-r1-2");
    avoided("tor-r1-2", "n1", &c[0], "172.31.1.1");
    kill(&lab, "tor-r1-2/bird");
    assert!(racks_reach(&lab));
    // GoBGP takes a silent link for a restart and goes on telling what it knew, as long as it lives.
    cut("tor-r2-2");
    kill(&lab, "tor-r2-2/gobgpd");
    kill(&lab, "tor-r2-2/bgpd");
    avoided("tor-r2-2", "n3", &a[0], "172.31.2.1");
}

#[test]
#[ignore = "needs root: make test"]
fn in_a_mesh_two_tors_carry_the_underlay() {
    let mesh = format!("{LAB}  resources: [pods.yaml]\n");
    let lab = Lab::up("tors-mesh", &mesh, &[("pods.yaml", &pods())]).unwrap();
    let default = lab.exec("n1", &["ip", "route", "show", "default"]).unwrap();
    assert!(default.contains("via 172.31.1.1 ") && default.contains("via 172.31.1.2 "), "{default}");
    hold_against_oracle(&lab, &lab.probe(&[]).unwrap());
}
