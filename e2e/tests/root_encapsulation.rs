//! What is on the wire between pods, seen by capture on the sender's uplink.
//!
//! ```text
//!      spine
//!     /     \
//!  tor-r1  tor-r2      a on n1, b on n2 (same rack), c on n3 (another rack)
//!   n1 n2    n3
//! ```
//! 1. CrossSubnet: a→b plain, a→c encapsulated. 2. Always: both encapsulated. 3. None, in a fabric: both plain.
//! 4. The same where there is no IPv4 at all: the outer header is of IPv6, with UDP's checksum; it leaves 70 bytes less, as routes and segments of TCP
//!    know; policy holds at the tunnel's end, which takes nothing from strangers.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use support::capture::Capture;
use support::families::{FOUR, Family, SIX, pools, racks};
use support::switch::{ACROSS, PLAIN, VXLAN, routes_have_mtu};
use support::wire::{Form, packets};
use support::{Counter, Sender, hold_against_oracle, only, pod};
use twill_e2e::{Lab, within};

const ALWAYS: &str = "{protocol: VXLAN, when: Always}";
const PORT: u16 = 7000;
/// UDP over IPv6 without a checksum.
const UNCHECKED: &str = "ip6 and udp and ip6[46:2] = 0";

fn up(name: &str, families: &[Family], encapsulation: &str, topology: &str) -> Lab {
    let pods = [pod("a", "n1"), pod("b", "n2"), pod("c", "n3")].concat();
    let lab = racks(families, &format!("  topology: {topology}\n  resources: [pools.yaml, pods.yaml]\n"));
    Lab::up(name, &lab, &[("pools.yaml", &pools(families, &[encapsulation])), ("pods.yaml", &pods)]).unwrap()
}

/// Says for b and for c whether packets from a were plain on a's uplink.
fn plain(lab: &Lab) -> [bool; 2] {
    let n1 = node(lab, "n1");
    [("b", "n2"), ("c", "n3")].map(|(target, there)| {
        let mut capture = Capture::start(&n1.netns);
        let probe = lab.probe(&["--from", "a", "--to", target]).unwrap();
        assert_eq!(probe.differences, 0, "{probe:?}");
        capture.stop();
        let (from, to) = (ip(lab, "a"), ip(lab, target));
        let plain = capture.count(&format!("host {from} and host {to} and not udp port 4789"));
        let tunnelled = capture.count("udp port 4789");
        assert!((plain > 0) != (tunnelled > 0), "{target}: {plain} plain, {tunnelled} tunnelled: one of them only");
        assert_eq!(capture.count(UNCHECKED), 0, "over IPv6 nobody takes it");
        let forms: BTreeSet<(Form, BTreeSet<IpAddr>)> = packets(&capture.bytes())
            .into_iter()
            .filter(|packet| packet.inner.contains(&to) && packet.inner.contains(&from))
            .map(|packet| (packet.form, packet.outer.into()))
            .collect();
        let tunnel = (VXLAN, [address(&n1), address(&node(lab, there))].into());
        assert_eq!(forms, [if plain > 0 { (Form::Plain, [from, to].into()) } else { tunnel }].into());
        plain > 0
    })
}

fn node(lab: &Lab, name: &str) -> twill_e2e::Node {
    lab.status().unwrap().nodes.into_iter().find(|node| node.name == name).unwrap()
}

fn address(node: &twill_e2e::Node) -> IpAddr {
    node.addresses[0].parse().unwrap()
}

fn ip(lab: &Lab, pod: &str) -> IpAddr {
    lab.pod(&format!("default/{pod}")).unwrap().ips[0].parse().unwrap()
}

#[test]
#[ignore = "needs root: make test"]
fn across_subnets_only_the_boundary_is_tunnelled() {
    assert_eq!(plain(&up("cross", FOUR, ACROSS, "Mesh")), [true, false]);
}

#[test]
#[ignore = "needs root: make test"]
fn always_tunnels_inside_the_rack_too() {
    assert_eq!(plain(&up("always", FOUR, ALWAYS, "Mesh")), [false, false]);
}

#[test]
#[ignore = "needs root: make test"]
fn without_encapsulation_a_fabric_carries_pods_plainly() {
    assert_eq!(plain(&up("none", FOUR, PLAIN, "Fabric")), [true, true]);
}

#[test]
#[ignore = "needs root: make test"]
fn without_ipv4_and_without_encapsulation_a_fabric_carries_pods_plainly() {
    assert_eq!(plain(&up("none-6", SIX, PLAIN, "Fabric")), [true, true]);
}

/// One lab for all claims: each goes on from where the one before has left it.
#[test]
#[ignore = "needs root: make test"]
fn without_ipv4_tunnels_are_of_ipv6() {
    let lab = up("six", SIX, ACROSS, "Mesh");
    assert_eq!(plain(&lab), [true, false], "CrossSubnet");
    what_fits_is_known(&lab);
    lab.apply(&only("from-a", "c", "a")).unwrap();
    hold_against_oracle(&lab, &lab.probe(&[]).unwrap());
    lab.delete(&only("from-a", "c", "a")).unwrap();
    lab.apply(&pools(SIX, &[ALWAYS])).unwrap();
    assert_eq!(plain(&lab), [false, false], "Always");
    strangers_are_dropped(&lab);
}

fn what_fits_is_known(lab: &Lab) {
    let c = ip(lab, "c");
    routes_have_mtu(lab, "n1", &c, 1430);
    let ping = |size: u32| {
        let (to, size) = (c.to_string(), (size - 48).to_string());
        let command = ["ping", "-c", "2", "-i", "0.2", "-W", "2", "-M", "do", "-s", &size, &to];
        let output = lab.exec_command("default/a", &command).output().unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        (output.status.success(), said.replace([' ', ':', '='], ""))
    };
    let (reached, said) = ping(1431);
    assert!(!reached && said.contains("mtu1430"), "{said}");
    assert!(ping(1430).0);
    let mut capture = Capture::start(&lab.pod("default/c").unwrap().netns);
    assert_eq!(lab.probe(&["--from", "a", "--to", "c"]).unwrap().differences, 0);
    capture.stop();
    let syn = format!("ip6 src host {} and ip6[6] = 6 and ip6[53] & 0x12 = 2", ip(lab, "a"));
    assert!(capture.count(&syn) > 0);
    // Its first option (RFC 9293 section 3.7.1): 1430 without the headers of IPv6 and TCP.
    assert_eq!(capture.count(&format!("{syn} and ip6[60:4] = 0x0204055a")), capture.count(&syn));
}

/// The same packets by a router under a node's address and under its own; an address of the pool that nobody has is their inner source.
fn strangers_are_dropped(lab: &Lab) {
    let (n1, a) = (node(lab, "n1"), SocketAddr::new(ip(lab, "a"), PORT));
    let counter = Counter::at(&lab.pod("default/a").unwrap().netns, a);
    let device = lab.exec("n1", &["cat", "/sys/class/net/twill-vxlan/address"]).unwrap();
    let router = format!("twill_{}_tor-r1", lab.name);
    for (local, accepted) in [(address(&node(lab, "n2")).to_string(), true), ("fd31:1::1".to_owned(), false)] {
        let (remote, mac, to) = (&n1.addresses[0], device.trim(), a.ip());
        for command in [
            format!("link add forged type vxlan id 4096 local {local} remote {remote} dstport 4789"),
            "addr add fd42:0:0:ffff::1/128 dev forged nodad".to_owned(),
            "link set forged up".to_owned(),
            format!("route add {to} dev forged src fd42:0:0:ffff::1"),
            format!("neigh add {to} lladdr {mac} dev forged nud permanent"),
        ] {
            lab.exec("tor-r1", &[&["ip"], command.split(' ').collect::<Vec<_>>().as_slice()].concat()).unwrap();
        }
        let (before, mut capture) = (counter.count(), Capture::start(&n1.netns));
        let sender = Sender::start(&router, a);
        let heard = within(Duration::from_secs(2), "something arrives", || counter.count() > before).is_ok();
        let (sent, _) = sender.stop();
        capture.stop();
        let came = capture.count(&format!("ip6 src host {local} and udp dst port 4789"));
        assert!(sent > 0 && came > 0, "{local}: {sent} sent, {came} seen on n1's wire");
        assert_eq!(heard, accepted, "{local}");
        lab.exec("tor-r1", &["ip", "link", "del", "forged"]).unwrap();
    }
}
