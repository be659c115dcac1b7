//! What a lab file means in namespaces, wires, addresses, routes and speakers. In flows a [`LabFile`], out flows a [`Plan`];
//! nothing is touched.

mod routers;

use crate::file::{LabFile, Rack};
use crate::names::{V6, device, machine_netns};
use crate::routers::Software;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// The whole underlay.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Name of the lab.
    pub lab: String,
    /// Routers first, then nodes; wires refer to positions here.
    pub machines: Vec<Machine>,
    /// Wires between them.
    pub wires: Vec<Wire>,
}

/// One network namespace of the underlay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Name in the lab file, or `tor-RACK`, `tor-RACK-2`, `spine`, `router`.
    pub name: String,
    /// Its namespace.
    pub netns: String,
    /// What it is.
    pub role: Role,
    /// Bridges inside it, one per L2 segment that ends here.
    pub bridges: Vec<String>,
    /// Addresses by device.
    pub addresses: Vec<(String, IpNet)>,
    /// Static routes: destination and gateways, which share its load.
    pub routes: Vec<(IpNet, Vec<IpAddr>)>,
}

/// What a machine is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Role {
    /// A node of this rack.
    Node {
        /// Name of the rack.
        rack: String,
    },
    /// A router with its speaker's configuration; none: static routes only.
    Router(Option<Speaker>),
}

/// A veth pair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Wire {
    /// One end; the pair is made from here.
    pub a: End,
    /// The other end.
    pub b: End,
}

/// One end of a wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// Position in [`Plan::machines`].
    pub machine: usize,
    /// Name of the device.
    pub device: String,
    /// The bridge it is a port of.
    pub bridge: Option<String>,
}

/// What a router's speaker has to do, whatever software it is: `routers` writes it down for each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Speaker {
    /// What it runs.
    pub software: Software,
    /// AS of the router.
    pub asn: u32,
    /// RFC 4271's BGP Identifier.
    pub router_id: Ipv4Addr,
    /// Prefixes of its own.
    pub originate: Vec<IpNet>,
    /// Addresses on the loopback device from which a follower speaks with it, one per family; only GoBGP needs one.
    pub loopbacks: Vec<IpAddr>,
    /// Its peers: what they say is believed and passed on, and goes into the kernel.
    pub peers: Vec<Peer>,
}

impl Speaker {
    /// How many sessions it has before nodes are started.
    #[must_use]
    pub fn sessions(&self) -> u32 {
        let routers = self.peers.iter().filter(|p| !p.node).count();
        u32::try_from(routers + self.loopbacks.len()).unwrap_or(u32::MAX)
    }
}

/// A peer of a router; a session carries the family of its address alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// The machine behind it, with `-v6` for the session of that family.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its AS.
    pub asn: u32,
    /// A node of the router's rack: it connects to us.
    pub node: bool,
    /// A node whose AS other nodes have, too: its own AS in what we send becomes ours, or it would not take it.
    pub shares_as: bool,
}

/// The uplink of every node.
pub const UPLINK: &str = "eth0";

/// The device of a further ToR on its rack's segment.
const SEGMENT: &str = "segment";

/// The loopback device of every machine.
const LOOPBACK: &str = "lo";

/// Plans the underlay; `asns` are those of the nodes, which a Fabric's ToRs must know. A node that is not among them has the default.
#[must_use]
pub fn plan(file: &LabFile, asns: &BTreeMap<String, u32>) -> Plan {
    let mut plan = Plan { lab: file.name.clone(), machines: Vec::new(), wires: Vec::new() };
    let homes = if file.racks.iter().any(|r| !r.tors.is_empty()) {
        routers::tors(&mut plan, file, asns)
    } else {
        plan.add("router", Role::Router(None));
        vec![vec![0]; file.racks.len()]
    };
    for (rack, homes) in file.racks.iter().zip(homes) {
        plan.rack(rack, &homes);
    }
    plan
}

impl Plan {
    /// The nodes, with their rack.
    pub fn nodes(&self) -> impl Iterator<Item = (&Machine, &str)> {
        self.machines.iter().filter_map(|m| match &m.role {
            Role::Node { rack } => Some((m, rack.as_str())),
            Role::Router(_) => None,
        })
    }

    /// The routers, with their speaker if they have one.
    pub fn routers(&self) -> impl Iterator<Item = (&Machine, Option<&Speaker>)> {
        self.machines.iter().filter_map(|m| match &m.role {
            Role::Router(speaker) => Some((m, speaker.as_ref())),
            Role::Node { .. } => None,
        })
    }

    /// The AS of every node that a router peers with.
    #[must_use]
    pub fn node_asns(&self) -> BTreeMap<&str, u32> {
        let peers = self.routers().filter_map(|(_, speaker)| speaker).flat_map(|s| &s.peers).filter(|p| p.node);
        peers.map(|p| (p.name.strip_suffix(V6).filter(|_| p.address.is_ipv6()).unwrap_or(&p.name), p.asn)).collect()
    }

    /// Position of a machine.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.machines.iter().position(|m| m.name == name)
    }

    /// Wires that end at a machine, each with its other end.
    pub fn wires_of(&self, machine: usize) -> impl Iterator<Item = (&Wire, &End)> {
        self.wires.iter().filter_map(move |wire| match (wire.a.machine == machine, wire.b.machine == machine) {
            (true, _) => Some((wire, &wire.b)),
            (_, true) => Some((wire, &wire.a)),
            _ => None,
        })
    }

    fn add(&mut self, name: &str, role: Role) -> usize {
        self.machines.push(Machine {
            name: name.to_owned(),
            netns: machine_netns(&self.lab, name),
            role,
            bridges: Vec::new(),
            addresses: Vec::new(),
            routes: Vec::new(),
        });
        self.machines.len() - 1
    }

    fn address(&mut self, machine: usize, device: &str, addresses: impl IntoIterator<Item = IpNet>) {
        self.machines[machine].addresses.extend(addresses.into_iter().map(|a| (device.to_owned(), a)));
    }

    /// The rack's segment is a bridge inside its first router. Its other routers and every node hang on it; nodes route by default
    /// through all routers.
    fn rack(&mut self, rack: &Rack, homes: &[usize]) {
        let Some(first) = homes.first().copied() else { return };
        let bridge = device("br-", &rack.name);
        self.machines[first].bridges.push(bridge.clone());
        let mut defaults: Vec<(IpNet, Vec<IpAddr>)> =
            rack.subnets.iter().map(|s| (default_route(*s), Vec::new())).collect();
        for (index, home) in homes.iter().enumerate() {
            let own = if index == 0 { bridge.as_str() } else { SEGMENT };
            self.address(*home, own, rack.gateways(index));
            for ((_, gateways), gateway) in defaults.iter_mut().zip(rack.gateways(index)) {
                gateways.push(gateway.addr());
            }
            if index > 0 {
                self.port(*home, SEGMENT, first, &bridge);
            }
        }
        for (n, name) in rack.nodes.iter().enumerate() {
            let node = self.add(name, Role::Node { rack: rack.name.clone() });
            self.address(node, UPLINK, rack.addresses(n));
            self.machines[node].routes.clone_from(&defaults);
            self.port(node, UPLINK, first, &bridge);
        }
    }

    /// Wires a machine to a bridge of another.
    fn port(&mut self, machine: usize, own: &str, home: usize, bridge: &str) {
        let port = device("to-", &self.machines[machine].name);
        self.wires.push(Wire {
            a: End { machine, device: own.to_owned(), bridge: None },
            b: End { machine: home, device: port, bridge: Some(bridge.to_owned()) },
        });
    }
}

fn default_route(family: IpNet) -> IpNet {
    match family {
        IpNet::V4(_) => IpNet::V4(Ipv4Net::default()),
        IpNet::V6(_) => IpNet::V6(Ipv6Net::default()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::file::parse;
    use std::collections::BTreeSet;

    fn planned(racks: &str, rest: &str) -> Plan {
        let text = format!(
            "apiVersion: twill.network/v1\nkind: Lab\nmetadata: {{name: t}}\nspec:\n  racks: [{racks}]\n{rest}"
        );
        plan(&parse(&text, "t").unwrap(), &BTreeMap::from([("n3".to_owned(), 65203)]))
    }

    const R1: &str = "{name: r1, subnets: [172.31.1.0/24, 'fd31:1::/64'], nodes: [n1, n2], tor: {asn: 65101}}";
    const R2: &str = "{name: r2, subnets: [172.31.2.0/24, 'fd31:2::/64'], nodes: [n3], tor: {asn: 65102}}";
    const R3: &str = "{name: r3, subnets: [172.31.3.0/24, 'fd31:3::/64'], nodes: [n4], tor: {asn: 65103}}";

    fn machine<'a>(plan: &'a Plan, name: &str) -> &'a Machine {
        plan.machines.iter().find(|m| m.name == name).unwrap()
    }

    fn consistent(plan: &Plan) {
        let mut devices = BTreeSet::new();
        for wire in &plan.wires {
            for end in [&wire.a, &wire.b] {
                assert!(end.device.len() <= 15, "{}", end.device);
                assert!(devices.insert((end.machine, &end.device)), "{} twice", end.device);
                let machine = &plan.machines[end.machine];
                assert!(end.bridge.iter().all(|b| machine.bridges.contains(b)));
            }
        }
        for (i, machine) in plan.machines.iter().enumerate() {
            for (device, _) in &machine.addresses {
                assert!(
                    devices.contains(&(i, device)) || machine.bridges.contains(device) || device == LOOPBACK,
                    "{device} of {}",
                    machine.name
                );
            }
        }
        let all = plan.machines.iter().flat_map(|m| m.addresses.iter().map(|a| a.1.addr())).collect::<Vec<_>>();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "an address twice");
        for (_, speaker) in plan.routers() {
            for peer in speaker.iter().flat_map(|s| &s.peers) {
                assert!(all.contains(&peer.address), "{} is nobody's address", peer.address);
            }
        }
    }

    #[test]
    fn nodes_route_by_default_through_their_router() {
        let plan = planned(&format!("{R1}, {R2}"), "  spine: {asn: 65000}");
        consistent(&plan);
        let n2 = machine(&plan, "n2");
        assert_eq!(n2.netns, "twill_t_n2");
        assert_eq!(n2.addresses[0], ("eth0".to_owned(), "172.31.1.12/24".parse().unwrap()));
        assert_eq!(n2.routes[0], ("0.0.0.0/0".parse().unwrap(), vec!["172.31.1.1".parse().unwrap()]));
        assert_eq!(n2.routes[1], ("::/0".parse().unwrap(), vec!["fd31:1::1".parse().unwrap()]));
    }

    #[test]
    fn no_name_of_a_node_is_in_the_way_of_the_segment_between_tors() {
        let r1 = R1.replace("[n1, n2]", "[tor1, transit1, transit]");
        consistent(&planned(&format!("{r1}, {R2}, {R3}"), ""));
    }

    #[test]
    fn tors_peer_with_the_spine_and_carry_their_racks() {
        let plan = planned(&format!("{R1}, {R2}"), "  spine: {asn: 65000}");
        let speakers = plan.routers().map(|(m, s)| (m.name.as_str(), s.unwrap())).collect::<Vec<_>>();
        assert_eq!(speakers.iter().map(|s| s.0).collect::<Vec<_>>(), ["spine", "tor-r1", "tor-r2"]);
        assert_eq!(speakers[0].1.peers.len(), 4, "two ToRs, two families");
        assert_eq!(
            speakers[1].1.originate,
            ["172.31.1.0/24".parse().unwrap(), "fd31:1::/64".parse::<IpNet>().unwrap()]
        );
        assert!(speakers[1].1.peers.iter().all(|p| p.asn == 65000 && !p.node));
    }

    #[test]
    fn further_tors_hang_on_the_segment_and_nodes_route_through_all() {
        let r1 = R1.replace("tor: {asn: 65101}", "tors: [{asn: 65101}, {asn: 65111}, {asn: 65101}]");
        let plan = planned(&format!("{r1}, {R2}"), "  spine: {asn: 65000}\n  topology: Fabric");
        consistent(&plan);
        let third = machine(&plan, "tor-r1-3");
        assert!(third.bridges.is_empty());
        assert!(third.addresses.contains(&("segment".to_owned(), "172.31.1.3/24".parse().unwrap())));
        let gateways = ["172.31.1.1", "172.31.1.2", "172.31.1.3"].map(|g| g.parse().unwrap());
        assert_eq!(machine(&plan, "n1").routes[0], ("0.0.0.0/0".parse().unwrap(), gateways.to_vec()));
        let peers = |name: &str| plan.routers().find(|(m, _)| m.name == name).unwrap().1.unwrap().peers.len();
        assert_eq!((peers("spine"), peers("tor-r1"), peers("tor-r1-3"), peers("tor-r2")), (8, 6, 6, 4));
    }

    #[test]
    fn on_a_shared_segment_tors_of_one_rack_and_as_do_not_peer() {
        let r1 = R1.replace("tor: {asn: 65101}", "tors: [{asn: 65101}, {asn: 65111}, {asn: 65101}]");
        let plan = planned(&format!("{r1}, {R2}"), "");
        consistent(&plan);
        let peers = plan.routers().map(|(_, s)| s.unwrap().peers.len()).collect::<Vec<_>>();
        assert_eq!(peers, [4, 6, 4, 6], "two families each");
    }

    #[test]
    fn gobgp_has_an_address_per_family_for_its_follower() {
        let r1 = R1.replace("asn: 65101", "asn: 65101, speaker: gobgp");
        let plan = planned(&format!("{r1}, {R2}"), "  spine: {asn: 65000, speaker: gobgp}");
        consistent(&plan);
        let speakers = plan.routers().map(|(_, s)| s.unwrap()).collect::<Vec<_>>();
        assert_eq!(speakers.iter().map(|s| s.loopbacks.len()).collect::<Vec<_>>(), [2, 2, 0]);
        assert_eq!(speakers[1].sessions(), 4, "two families with the spine, two with the follower");
        assert_eq!(machine(&plan, "tor-r1").addresses[2], ("lo".to_owned(), "198.19.128.2/32".parse().unwrap()));
    }

    #[test]
    fn without_spine_all_tors_share_a_segment() {
        let plan = planned(&format!("{R1}, {R2}, {R3}"), "");
        consistent(&plan);
        for (machine, speaker) in plan.routers() {
            assert_eq!(speaker.unwrap().peers.len(), 4, "{}", machine.name);
        }
    }

    #[test]
    fn without_tors_one_router_joins_the_racks() {
        let bare = |r: &str| r.split(", tor").next().unwrap().to_owned() + "}";
        let plan = planned(&format!("{}, {}", bare(R1), bare(R2)), "");
        consistent(&plan);
        assert_eq!(plan.routers().count(), 1);
        assert_eq!(machine(&plan, "router").bridges, ["br-r1", "br-r2"]);
        assert_eq!(machine(&plan, "router").addresses.len(), 4);
    }

    #[test]
    fn in_a_fabric_the_tor_awaits_its_nodes() {
        let plan = planned(&format!("{R1}, {R2}"), "  spine: {asn: 65000}\n  topology: Fabric");
        let Role::Router(Some(speaker)) = &machine(&plan, "tor-r1").role else { panic!("a speaker") };
        let nodes = speaker.peers.iter().filter(|p| p.node && p.shares_as && p.asn == 64512).count();
        assert_eq!(nodes, 4, "two nodes, two families");
        assert_eq!(plan.node_asns()["n1"], 64512);
        let Role::Router(Some(speaker)) = &machine(&plan, "tor-r2").role else { panic!("a speaker") };
        let alone = speaker.peers.iter().filter(|p| p.node && !p.shares_as && p.asn == 65203).count();
        assert_eq!(alone, 2, "an AS of its own, two families");
    }
}
