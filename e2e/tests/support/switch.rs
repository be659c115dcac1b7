//! A cluster whose packets' way is changed while they travel, in both families or in IPv6 alone, and what its uplinks carry.
//!
//! ```text
//!  n1, n2 ── router ── n3      a on n1, b on n2 (same subnet), c on n3 (another)
//! ```
//! The router has a route to each pod, as the route table of a cloud's network does, and nodes one to the other subnet beside their default
//! route: so pods may travel plainly across as well.

use super::capture::Capture;
use super::families::{Family, pools, subnets};
use super::pod;
use super::streams::Streams;
use super::traffic::End;
use super::wire::{Form, Packet, packets};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;
use twill_e2e::{Lab, within};

/// Much more than anything takes, for busy machines and emulated processors.
const LIMIT: Duration = Duration::from_secs(30);
/// Of VXLAN, with an outer header of IPv4 and of IPv6.
const OVERHEADS: [u32; 2] = [50, 70];
pub(crate) const ACROSS: &str = "{protocol: VXLAN, when: CrossSubnet}";
pub(crate) const PLAIN: &str = "{protocol: None}";
/// Of the VXLAN device.
pub(crate) const VXLAN: Form = Form::Vxlan(4096);

/// How packets of one family travel inside the subnet, and between subnets.
pub(crate) type Ways = [Form; 2];

/// A pool's encapsulation in each family of a cluster, and what it means on the wire.
pub(crate) struct Stage<'a> {
    pub(crate) encapsulations: &'a [&'a str],
    pub(crate) ways: &'a [Ways],
}

/// A node with its pod.
struct Place {
    node: String,
    netns: String,
    /// By family, as all of a place.
    addresses: Vec<IpAddr>,
    pod: String,
    pod_addresses: Vec<IpAddr>,
    pod_netns: String,
}

pub(crate) struct Switch {
    pub(crate) lab: Lab,
    families: &'static [Family],
    places: [Place; 3],
    streams: Streams,
    /// The pods' interfaces at the beginning.
    interfaces: Vec<String>,
}

impl Switch {
    /// With VXLAN across subnets, and traffic at this pace between a and the others: datagrams both ways, and transfers to b and from c.
    pub(crate) fn up(name: &str, families: &'static [Family], pace: Duration) -> Self {
        let lab = format!(
            "apiVersion: twill.network/v1
kind: Lab
metadata: {{name: test}}
spec:
  racks:
  - {{name: r1, subnets: {}, nodes: [n1, n2]}}
  - {{name: r2, subnets: {}, nodes: [n3]}}
  topology: Mesh
  resources: [pools.yaml, pods.yaml]
",
            subnets(families, 0),
            subnets(families, 1)
        );
        let (pools, pods) = (pools(families, &[ACROSS; 2]), [pod("a", "n1"), pod("b", "n2"), pod("c", "n3")].concat());
        let lab = Lab::up(name, &lab, &[("pools.yaml", &pools), ("pods.yaml", &pods)]).unwrap();
        let places = [("n1", "a"), ("n2", "b"), ("n3", "c")].map(|(node, pod)| place(&lab, families, node, pod));
        let interfaces = interfaces(&lab);
        know_the_pods(&lab, families, &places);
        let [a, b, c] = &places;
        let all = |from: &Place, to: &Place| {
            (0..families.len()).map(|family| (end(from, family), end(to, family))).collect::<Vec<_>>()
        };
        let datagrams = [all(a, b), all(b, a), all(a, c), all(c, a)].concat();
        let transfers = [all(a, b), all(c, a)].concat();
        let streams = Streams::start(&datagrams, &transfers, pace);
        Self { lab, families, places, streams, interfaces }
    }

    /// Changes the pools; from then on nothing travels otherwise than they say.
    pub(crate) fn to(&self, stage: &Stage<'_>) {
        self.lab.apply(&pools(self.families, stage.encapsulations)).unwrap();
        // What was under way arrives.
        self.streams.go_on();
        self.travels(stage.ways);
        println!("{:?}: all travels so", stage.encapsulations);
    }

    /// All uplinks carry what is sent so, both ways, and nothing else of pods.
    pub(crate) fn travels(&self, ways: &[Ways]) {
        let mut captures = self.places.each_ref().map(|place| Capture::start(&place.netns));
        self.streams.go_on();
        captures.iter_mut().for_each(Capture::stop);
        for (place, capture) in self.places.iter().zip(&captures) {
            let all = packets(&capture.bytes());
            let seen: BTreeSet<Packet> = all.into_iter().filter(concerns_pods).collect();
            assert_eq!(seen, self.expected(place, ways), "on the uplink of {}", place.node);
        }
    }

    fn expected(&self, place: &Place, ways: &[Ways]) -> BTreeSet<Packet> {
        let [a, b, c] = &self.places;
        let mut expected = BTreeSet::new();
        for (number, [from, to]) in [[a, b], [b, a], [a, c], [c, a]].into_iter().enumerate() {
            if place.node != from.node && place.node != to.node {
                continue;
            }
            for (family, ways) in ways.iter().enumerate() {
                let inner = [from.pod_addresses[family], to.pod_addresses[family]];
                let form = ways[number / 2];
                // Of IPv4 where nodes have it.
                let outer = if form == Form::Plain { inner } else { [from.addresses[0], to.addresses[0]] };
                expected.insert(Packet { form, outer, inner, fragment: false });
            }
        }
        expected
    }

    /// Changes the MTU of the subnets and uplinks, as an operator has to: nowhere is sent what the segment cannot carry. Tunnels follow.
    pub(crate) fn to_mtu(&self, from: u32, mtu: u32) {
        let of_nodes = || self.places.iter().for_each(|place| set_mtu(&self.lab, &place.node, &["eth0"], mtu));
        let of_segments = || {
            let devices = self.lab.exec("router", &["ls", "/sys/class/net"]).unwrap();
            let devices: Vec<&str> =
                devices.split_whitespace().filter(|name| name.starts_with("to-") || name.starts_with("br-")).collect();
            assert_eq!(devices.len(), 5, "{devices:?}");
            set_mtu(&self.lab, "router", &devices, mtu);
        };
        if mtu > from {
            of_segments();
            of_nodes();
        } else {
            of_nodes();
            of_segments();
        }
        let [a, _, c] = &self.places;
        let overhead = OVERHEADS[usize::from(a.addresses[0].is_ipv6())];
        for address in &c.pod_addresses {
            routes_have_mtu(&self.lab, &a.node, address, mtu - overhead);
        }
        self.streams.go_on();
        println!("MTU {mtu}: all goes on");
    }

    /// Nothing of what was sent from the beginning was lost, and pods have the interfaces that they had.
    pub(crate) fn nothing_was_lost(self) {
        self.streams.end_whole();
        assert_eq!(interfaces(&self.lab), self.interfaces);
    }
}

fn place(lab: &Lab, families: &[Family], node: &str, pod: &str) -> Place {
    let status = lab.status().unwrap();
    let pod = status.pods.into_iter().find(|one| one.name == pod).unwrap();
    let node = status.nodes.into_iter().find(|one| one.name == node).unwrap();
    let read = |all: &[String]| all.iter().map(|one| one.parse().unwrap()).collect::<Vec<IpAddr>>();
    let (addresses, pod_addresses) = (read(&node.addresses), read(&pod.ips));
    for all in [&addresses, &pod_addresses] {
        let of_families = families.iter().map(|family| family.cidr.contains(':'));
        assert!(all.iter().map(IpAddr::is_ipv6).eq(of_families), "{all:?}");
    }
    Place { node: node.name, netns: node.netns, addresses, pod: pod.name, pod_addresses, pod_netns: pod.netns }
}

fn end(place: &Place, family: usize) -> End {
    End { name: place.pod.clone(), netns: place.pod_netns.clone(), address: place.pod_addresses[family] }
}

fn interfaces(lab: &Lab) -> Vec<String> {
    let show = |name| lab.exec(&format!("default/{name}"), &["ip", "-o", "link", "show", "eth0"]).unwrap();
    ["a", "b", "c"].map(show).to_vec()
}

fn know_the_pods(lab: &Lab, families: &[Family], places: &[Place]) {
    let route = |machine: &str, to: &str, via: &str| {
        lab.exec(machine, &["ip", "route", "add", to, "via", via]).unwrap();
    };
    for (node, rack) in [("n1", 0), ("n2", 0), ("n3", 1)] {
        for Family { subnets, .. } in families {
            let (gateway, other) = (subnets[rack].1, subnets[1 - rack].0);
            route(node, other, gateway);
            // Where nothing but tunnels' IPv4 is spoken the first plain packet over IPv6 would wait for its neighbour, in a queue of 200 KiB.
            lab.exec(node, &["ping", "-c", "1", "-W", "5", gateway]).unwrap();
        }
    }
    for place in places {
        for (pod, node) in place.pod_addresses.iter().zip(&place.addresses) {
            route("router", &pod.to_string(), &node.to_string());
        }
    }
}

pub(crate) fn set_mtu(lab: &Lab, machine: &str, devices: &[&str], mtu: u32) {
    for device in devices {
        lab.exec(machine, &["ip", "link", "set", device, "mtu", &mtu.to_string()]).unwrap();
    }
}

/// Waits until the node's learned route to an address has it.
pub(crate) fn routes_have_mtu(lab: &Lab, node: &str, address: &IpAddr, mtu: u32) {
    let (family, to) = (if address.is_ipv6() { "-6" } else { "-4" }, address.to_string());
    let route = || lab.exec(node, &["ip", family, "route", "show", "to", "match", &to, "metric", "512"]).unwrap();
    let has = within(LIMIT, "the route has the MTU", || route().contains(&format!(" mtu {mtu} ")));
    assert!(has.is_ok(), "{has:?}: {mtu} to {address} on {node}: {}", route());
}

/// From and to pods, or a tunnel's, or what could not travel whole.
fn concerns_pods(packet: &Packet) -> bool {
    let is_pods = |address: &IpAddr| match address {
        IpAddr::V4(address) => address.octets()[..2] == [10, 42],
        IpAddr::V6(address) => address.segments()[0] == 0xfd42,
    };
    packet.form != Form::Plain || packet.fragment || packet.inner.iter().all(is_pods)
}
