//! Ports of this node that lead to its workloads.
//!
//! In flow, per interface, what its runtime asked for and the addresses that the workload owns; out flow elements of the skeleton's maps. A
//! port leads somewhere only while the workload's interface is open.

use super::Compiler;
use crate::base;
use crate::ruleset::{Key, Name, Value};
use crate::workload::PortMapping;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What was asked for, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Ports {
    asked: BTreeMap<String, Vec<PortMapping>>,
    changed: BTreeSet<String>,
    placed: BTreeMap<String, BTreeSet<Place>>,
    /// Who has a place, by interface. The agent gives it to one only; should there be two, the first by name has it, whoever came first.
    claims: BTreeMap<Place, BTreeMap<String, Value>>,
}

/// A map and a key in it.
type Place = (Name, Key);

impl Compiler {
    /// These ports of this node lead to the workload behind an interface from the next commit on; none: no port does.
    pub fn map_ports(&mut self, ifname: &str, ports: &[PortMapping]) {
        let asked = self.ports.asked.get(ifname).map(Vec::as_slice).unwrap_or_default();
        if asked == ports {
            return;
        }
        if ports.is_empty() {
            self.ports.asked.remove(ifname);
        } else {
            self.ports.asked.insert(ifname.to_owned(), ports.to_vec());
        }
        self.ports.changed.insert(ifname.to_owned());
    }

    /// All ports of this node that were asked for, by interface.
    pub fn asked_ports(&self) -> impl Iterator<Item = (&str, &[PortMapping])> {
        self.ports.asked.iter().map(|(ifname, ports)| (ifname.as_str(), ports.as_slice()))
    }

    /// Compiles what was asked for since the last call.
    pub(super) fn update_asked_ports(&mut self) {
        for ifname in std::mem::take(&mut self.ports.changed) {
            let addresses = self.endpoints.get(&ifname).map(|state| state.addresses.clone()).unwrap_or_default();
            self.update_ports(&ifname, &addresses);
        }
    }

    /// Compiles the ports that lead to one interface anew; `addresses` are the workload's own, none of one that is closed.
    pub(super) fn update_ports(&mut self, ifname: &str, addresses: &BTreeSet<IpAddr>) {
        let asked = self.ports.asked.get(ifname).map(Vec::as_slice).unwrap_or_default();
        let new: BTreeMap<Place, Value> =
            addresses.iter().flat_map(|address| asked.iter().flat_map(|port| elements(port, *address))).collect();
        let old = self.ports.placed.remove(ifname).unwrap_or_default();
        let touched: BTreeSet<Place> = old.into_iter().chain(new.keys().cloned()).collect();
        if !new.is_empty() {
            self.ports.placed.insert(ifname.to_owned(), new.keys().cloned().collect());
        }
        for place in touched {
            let claims = self.ports.claims.entry(place.clone()).or_default();
            match new.get(&place) {
                Some(value) => drop(claims.insert(ifname.to_owned(), value.clone())),
                None => drop(claims.remove(ifname)),
            }
            let (map, key) = &place;
            match claims.first_key_value() {
                Some((_, value)) => self.desired.put(map, key.clone(), value.clone()),
                None => {
                    self.desired.remove(map, key);
                    self.ports.claims.remove(&place);
                }
            }
        }
    }
}

/// What one mapping contributes for one of the workload's addresses; nothing if it is about the other family.
fn elements(mapping: &PortMapping, address: IpAddr) -> Vec<(Place, Value)> {
    let v4 = address.is_ipv4();
    if mapping.host_ip.is_some_and(|at| at.is_ipv4() != v4) {
        return Vec::new();
    }
    let [all, one, hairpin] = if v4 {
        [base::HOSTPORT_V4, base::HOSTPORT_AT_V4, base::HAIRPIN_V4]
    } else {
        [base::HOSTPORT_V6, base::HOSTPORT_AT_V6, base::HAIRPIN_V6]
    };
    let (protocol, port) = (mapping.protocol.0, mapping.host_port);
    let place = match mapping.host_ip.filter(|at| !at.is_unspecified()) {
        Some(at) => (base::name(one), Key::addr(at).and_protocol(protocol).and_port(port)),
        None => (base::name(all), Key::protocol(protocol).and_port(port)),
    };
    let to = Value::Mapped(Key::addr(address).and_port(mapping.container_port));
    vec![(place, to), ((base::name(hairpin), Key::addr(address).and_addr(address)), Value::Plain)]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::base::{Settings, skeleton};
    use crate::compile::interpret::{Packet, translated};
    use crate::index::{Endpoint, Event};
    use crate::model::{Pod, PodKey, Protocol};
    use crate::ruleset::Hook;

    const POD: [&str; 2] = ["10.42.0.5", "fd42::5"];

    fn mapping(host_ip: Option<&str>, host_port: u16, container_port: u16) -> PortMapping {
        let host_ip = host_ip.map(|text| text.parse().unwrap());
        PortMapping { host_ip, host_port, container_port, protocol: Protocol::TCP }
    }

    fn attach(compiler: &mut Compiler, ifname: &str, pod: &str, addresses: &[&str]) {
        let key = PodKey { namespace: "shop".into(), name: pod.into() };
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let told = serde_json::json!({
            "metadata": {"namespace": "shop", "name": pod, "uid": pod}, "spec": {"nodeName": "n1", "containers": []},
        });
        let told = Pod::read(&serde_json::from_value(told).unwrap());
        compiler.apply(Event::PodApplied(told));
        let endpoint =
            Endpoint { ifname: ifname.into(), pod: key, uid: pod.into(), addresses: addresses.into_iter().collect() };
        compiler.apply(Event::EndpointAttached(endpoint));
    }

    /// Where a connection to a port of the node ends.
    fn sent(compiler: &Compiler, at: &str, port: u16) -> (String, u16) {
        let dst: IpAddr = at.parse().unwrap();
        let src = if dst.is_ipv4() { "192.0.2.9" } else { "2001:db8::9" };
        let packet = Packet {
            in_interface: Some("eth0".into()),
            out_interface: None,
            src: src.parse().unwrap(),
            dst,
            protocol: 6,
            src_port: 40_000,
            dst_port: port,
            came_to: None,
        };
        let ends = [Hook::Prerouting, Hook::Output].map(|hook| translated(compiler.ruleset(), hook, &packet));
        assert_eq!(ends[0], ends[1], "the node itself is sent where others are");
        (ends[0].0.to_string(), ends[0].1)
    }

    #[test]
    fn a_port_leads_to_the_workload_while_its_interface_is_open() {
        let mut compiler = Compiler::new(skeleton(&Settings::default()));
        attach(&mut compiler, "twla", "web", &POD);
        compiler.map_ports("twla", &[mapping(None, 80, 8080)]);
        let delta = compiler.commit();
        assert!(delta.elements.contains_key(base::KNOWN) && delta.elements.contains_key(base::HOSTPORT_V4), "at once");
        compiler.ruleset().check().unwrap();
        assert_eq!(sent(&compiler, "172.31.1.11", 80), (POD[0].into(), 8080));
        assert_eq!(sent(&compiler, "fd31::11", 80), (POD[1].into(), 8080));
        assert_eq!(sent(&compiler, "172.31.1.11", 81), ("172.31.1.11".into(), 81));
        for spared in ["127.0.0.1", "::1", "fe80::1"] {
            assert_eq!(sent(&compiler, spared, 80), (spared.into(), 80));
        }
        compiler.apply(Event::EndpointDetached { ifname: "twla".into() });
        compiler.commit();
        assert_eq!(sent(&compiler, "172.31.1.11", 80), ("172.31.1.11".into(), 80));
        attach(&mut compiler, "twla", "web", &POD);
        compiler.commit();
        assert_eq!(sent(&compiler, "172.31.1.11", 80), (POD[0].into(), 8080), "an interface that comes back");
        compiler.map_ports("twla", &[]);
        compiler.apply(Event::EndpointDetached { ifname: "twla".into() });
        compiler.commit();
        let empty = |set: &str| compiler.ruleset().sets[set].elements.is_empty();
        assert!([base::HOSTPORT_V4, base::HOSTPORT_V6, base::HAIRPIN_V4, base::HAIRPIN_V6].into_iter().all(empty));
        assert!(
            compiler.ports.claims.is_empty() && compiler.ports.placed.is_empty() && compiler.ports.asked.is_empty()
        );
    }

    #[test]
    fn a_port_of_one_address_goes_before_that_of_all_and_says_its_family() {
        let mut compiler = Compiler::new(skeleton(&Settings::default()));
        attach(&mut compiler, "twla", "web", &POD);
        attach(&mut compiler, "twlb", "other", &["10.42.0.6", "fd42::6"]);
        compiler.map_ports("twla", &[mapping(Some("172.31.1.11"), 80, 1), mapping(Some("fd31::11"), 80, 2)]);
        compiler.map_ports("twlb", &[mapping(Some("0.0.0.0"), 80, 3)]);
        compiler.commit();
        assert_eq!(sent(&compiler, "172.31.1.11", 80), (POD[0].into(), 1));
        assert_eq!(sent(&compiler, "fd31::11", 80), (POD[1].into(), 2));
        assert_eq!(sent(&compiler, "172.31.1.12", 80), ("10.42.0.6".into(), 3));
        assert_eq!(sent(&compiler, "fd31::12", 80), ("fd31::12".into(), 80), "0.0.0.0 is of IPv4");
    }

    #[test]
    fn a_port_of_a_loopback_address_is_for_what_the_node_sends_in_another_name() {
        let mut compiler = Compiler::new(skeleton(&Settings::default()));
        attach(&mut compiler, "twla", "web", &POD);
        compiler.map_ports("twla", &[mapping(Some("127.0.0.1"), 80, 8080), mapping(Some("::1"), 80, 8081)]);
        compiler.commit();
        compiler.ruleset().check().unwrap();
        let ends = |hook, src: &str, dst: &str| {
            let packet = Packet {
                in_interface: None,
                out_interface: Some("lo".into()),
                src: src.parse().unwrap(),
                dst: dst.parse().unwrap(),
                protocol: 6,
                src_port: 40_000,
                dst_port: 80,
                came_to: None,
            };
            translated(compiler.ruleset(), hook, &packet).0.to_string()
        };
        for (node, localhost, pod) in [("172.31.1.11", "127.0.0.1", POD[0]), ("fd31::11", "::1", POD[1])] {
            assert_eq!(ends(Hook::Output, node, localhost), pod);
            assert_eq!(ends(Hook::Output, localhost, localhost), localhost, "it could not be answered");
            assert_eq!(ends(Hook::Prerouting, node, localhost), localhost, "of no packet that came in");
            assert_eq!(ends(Hook::Output, node, node), node, "no other address's port");
        }
    }

    #[test]
    fn of_two_who_claim_one_port_the_same_has_it_whoever_came_first() {
        let ends: Vec<_> = [["twla", "twlb"], ["twlb", "twla"]]
            .into_iter()
            .map(|order| {
                let mut compiler = Compiler::new(skeleton(&Settings::default()));
                for ifname in order {
                    let address = if ifname == "twla" { "10.42.0.5" } else { "10.42.0.6" };
                    attach(&mut compiler, ifname, ifname, &[address]);
                    compiler.map_ports(ifname, &[mapping(None, 80, 80)]);
                    compiler.commit();
                }
                let both = sent(&compiler, "172.31.1.11", 80);
                compiler.apply(Event::EndpointDetached { ifname: "twla".into() });
                compiler.commit();
                (both, sent(&compiler, "172.31.1.11", 80))
            })
            .collect();
        assert_eq!(ends[0], ends[1]);
        assert_eq!(ends[0], (("10.42.0.5".into(), 80), ("10.42.0.6".into(), 80)));
    }
}
