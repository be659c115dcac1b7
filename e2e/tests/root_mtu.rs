//! Jumbo frames in the racks and none between them, over IPv4 and IPv6, and over IPv6 where nodes have nothing else.
//!
//! ```text
//!      spine          1500 between routers, 9000 in the racks
//!     /     \
//!  tor-r1  tor-r2     a on n1, b on n2 (same rack), c on n3 (another rack)
//!   n1 n2    n3
//! ```
//! 1. Pods have the MTU that the uplink has when they are attached, and what is as long passes inside the rack.
//! 2. Through VXLAN routes leave room for its header: what is longer is answered with the size that fits, and transfers go on.
//! 3. Where the node's route to the other rack says that less fits (`ip route … mtu 1500`) the tunnel's routes follow, and nothing is fragmented.
//! 4. Where the outer header is of IPv6, which no router cuts, the router says what fits and the tunnel passes it on to the pod, without a fragment.
//! 5. Without a tunnel the router says what fits; the pod hears it, and transfers go on.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::IpAddr;
use std::time::Duration;
use support::capture::Capture;
use support::families::{DUAL, Family, SIX, pools, racks};
use support::pod;
use support::streams::{PACE, Streams};
use support::switch::{ACROSS, PLAIN, routes_have_mtu, set_mtu};
use support::traffic::End;
use support::wire::packets;
use twill_e2e::{Lab, Pod, within};

/// Much more than anything takes, for busy machines.
const LIMIT: Duration = Duration::from_secs(20);
const JUMBO: u32 = 9000;

struct Pods {
    lab: Lab,
    a: Pod,
    b: Pod,
    c: Pod,
}

impl Pods {
    fn up(name: &str, families: &[Family], topology: &str, encapsulation: &str) -> Self {
        let lab = racks(families, &format!("  topology: {topology}\n  resources: [pools.yaml]\n"));
        let lab = Lab::up(name, &lab, &[("pools.yaml", &pools(families, &[encapsulation; 2]))]).unwrap();
        set_mtu(&lab, "tor-r1", &["to-n1", "to-n2", "br-r1"], JUMBO);
        set_mtu(&lab, "tor-r2", &["to-n3", "br-r2"], JUMBO);
        for node in ["n1", "n2", "n3"] {
            set_mtu(&lab, node, &["eth0"], JUMBO);
        }
        lab.apply(&[pod("a", "n1"), pod("b", "n2"), pod("c", "n3")].concat()).unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|name| lab.pod(&format!("default/{name}")).unwrap());
        Self { lab, a, b, c }
    }

    /// Packets of this size from a, unfragmented: whether they are answered, and what was said.
    fn ping(&self, to: &str, size: u32) -> (bool, String) {
        let headers = if to.contains(':') { 48 } else { 28 };
        let size = (size - headers).to_string();
        let command = ["ping", "-c", "2", "-i", "0.2", "-W", "2", "-M", "do", "-s", &size, to];
        let output = self.lab.exec_command("default/a", &command).output().unwrap();
        let said = [&output.stdout, &output.stderr]
            .map(|text| String::from_utf8_lossy(text).replace(' ', "").replace(':', "="));
        (output.status.success(), said.concat())
    }

    /// From a to c fits as much as is said, and a is told so.
    fn fits_to_c(&self, mtu: u32) {
        for address in &self.c.ips {
            let (reached, said) = self.ping(address, JUMBO);
            assert!(!reached && said.contains(&format!("mtu={mtu}")), "{address}: {said}");
            let (reached, said) = self.ping(address, mtu);
            assert!(reached, "{address}: {said}");
        }
    }

    fn stream(&self) -> Streams {
        let end = |pod: &Pod, family: usize| {
            let address: IpAddr = pod.ips[family].parse().unwrap();
            End { name: pod.name.clone(), netns: pod.netns.clone(), address }
        };
        let mut pairs = Vec::new();
        for family in 0..self.a.ips.len() {
            let (a, c) = (end(&self.a, family), end(&self.c, family));
            pairs.extend([(a.clone(), c.clone()), (c, a)]);
        }
        Streams::start(&pairs, &pairs, PACE)
    }

    /// Whether something comes to n3 in pieces.
    fn comes_in_pieces(&self, streams: &Streams) -> bool {
        let node = self.lab.status().unwrap().nodes.into_iter().find(|one| one.name == "n3").unwrap();
        let mut capture = Capture::start(&node.netns);
        streams.go_on();
        capture.stop();
        let seen = packets(&capture.bytes());
        assert!(seen.len() > 100, "{seen:?}");
        seen.iter().any(|packet| packet.fragment)
    }

    /// What is as long as the rack's frames passes inside it.
    fn rack_takes_jumbo(&self) {
        for address in &self.b.ips {
            let (reached, said) = self.ping(address, JUMBO);
            assert!(reached, "{address}: {said}");
        }
    }

    fn tunnels_have(&self, mtu: u32) {
        for address in &self.c.ips {
            routes_have_mtu(&self.lab, "n1", &address.parse().unwrap(), mtu);
        }
    }
}

#[test]
#[ignore = "needs root: make test"]
fn a_tunnel_leaves_room_for_its_header_and_follows_what_the_way_carries() {
    let pods = Pods::up("jumbo", DUAL, "Mesh", ACROSS);
    let interface = pods.lab.exec("default/a", &["ip", "-o", "link", "show", "eth0"]).unwrap();
    assert!(interface.contains(" mtu 9000 "), "{interface}");
    pods.rack_takes_jumbo();
    pods.tunnels_have(8950);
    pods.fits_to_c(8950);
    // The routers cannot pass as much at once, and the tunnel's header lets them cut it.
    let streams = pods.stream();
    assert!(pods.comes_in_pieces(&streams));
    for (node, gateway) in [("n1", "172.31.1.1"), ("n3", "172.31.2.1")] {
        let route = ["ip", "route", "replace", "default", "via", gateway, "mtu", "1500"];
        pods.lab.exec(node, &route).unwrap();
    }
    pods.tunnels_have(1450);
    within(LIMIT, "nothing comes in pieces", || !pods.comes_in_pieces(&streams)).unwrap();
    pods.fits_to_c(1450);
    streams.end_whole();
}

#[test]
#[ignore = "needs root: make test"]
fn a_tunnel_over_ipv6_passes_on_what_a_router_says_fits() {
    let pods = Pods::up("jumbo-6", SIX, "Mesh", ACROSS);
    pods.rack_takes_jumbo();
    pods.tunnels_have(8930);
    let streams = pods.stream();
    let told = |address| pods.ping(address, JUMBO).1.contains("mtu=1430");
    within(LIMIT, "the pod is told", || pods.c.ips.iter().all(|address| told(address))).unwrap();
    pods.fits_to_c(1430);
    assert!(!pods.comes_in_pieces(&streams));
    streams.end_whole();
}

#[test]
#[ignore = "needs root: make test"]
fn without_a_tunnel_the_router_says_what_fits_and_the_pod_hears_it() {
    let pods = Pods::up("narrow", DUAL, "Fabric", PLAIN);
    let streams = pods.stream();
    pods.fits_to_c(1500);
    assert!(!pods.comes_in_pieces(&streams));
    streams.end_whole();
}
