//! What a lab file means in namespaces, wires, addresses, routes and speakers. In flows a [`LabFile`], out flows a [`Plan`];
//! nothing is touched.

use crate::file::{LabFile, Rack, Router, TRANSIT_V4, TRANSIT_V6, Topology, host};
use crate::names::{device, machine_netns};
use crate::routers::Software;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
    /// Name in the lab file, or `tor-RACK`, `spine`, `router`.
    pub name: String,
    /// Its namespace.
    pub netns: String,
    /// What it is.
    pub role: Role,
    /// Bridges inside it, one per L2 segment that ends here.
    pub bridges: Vec<String>,
    /// Addresses by device.
    pub addresses: Vec<(String, IpNet)>,
    /// Static routes: destination and gateway.
    pub routes: Vec<(IpNet, IpAddr)>,
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
    /// A node of the router's rack: it connects to us, and all nodes have one AS, so that its own AS in what we send becomes ours.
    pub node: bool,
}

/// The uplink of every node.
pub const UPLINK: &str = "eth0";

/// The loopback device of every machine.
const LOOPBACK: &str = "lo";

/// Plans the underlay; `node_asn` is the nodes' AS, which a Fabric's ToRs must know.
#[must_use]
pub fn plan(file: &LabFile, node_asn: u32) -> Plan {
    let mut plan = Plan { lab: file.name.clone(), machines: Vec::new(), wires: Vec::new() };
    let homes = if file.racks.iter().any(|r| r.tor.is_some()) {
        tors(&mut plan, file, node_asn)
    } else {
        plan.add("router", Role::Router(None));
        vec![0; file.racks.len()]
    };
    for (rack, home) in file.racks.iter().zip(homes) {
        plan.rack(rack, home);
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

    /// Gives followers of GoBGP their addresses.
    fn follow_gobgp(&mut self, v4: bool, v6: bool) {
        for (number, machine) in self.machines.iter_mut().enumerate() {
            let Role::Router(Some(speaker)) = &mut machine.role else { continue };
            if speaker.software == Software::Gobgp {
                speaker.loopbacks = loopbacks(number, v4, v6);
                machine.addresses.extend(speaker.loopbacks.iter().map(|a| (LOOPBACK.to_owned(), IpNet::from(*a))));
            }
        }
    }

    /// The rack's segment is a bridge inside its router; every node hangs on it and routes by default through it.
    fn rack(&mut self, rack: &Rack, home: usize) {
        let bridge = device("br-", &rack.name);
        self.machines[home].bridges.push(bridge.clone());
        let gateways = rack.gateways();
        let lengths = rack.subnets.iter().map(IpNet::prefix_len);
        let own = gateways.iter().zip(lengths).filter_map(|(a, l)| IpNet::new(*a, l).ok()).collect::<Vec<_>>();
        self.address(home, &bridge, own);
        for (n, name) in rack.nodes.iter().enumerate() {
            let node = self.add(name, Role::Node { rack: rack.name.clone() });
            self.address(node, UPLINK, rack.addresses(n));
            self.machines[node].routes.extend(gateways.iter().map(|g| (default_route(*g), *g)));
            self.wires.push(Wire {
                a: End { machine: node, device: UPLINK.to_owned(), bridge: None },
                b: End { machine: home, device: device("to-", name), bridge: Some(bridge.clone()) },
            });
        }
    }
}

fn default_route(family: IpAddr) -> IpNet {
    match family {
        IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
    }
}

/// One ToR per rack, joined by the spine, or by a segment that all of them share. Says which machine is which rack's home.
fn tors(plan: &mut Plan, file: &LabFile, node_asn: u32) -> Vec<usize> {
    let spine = file.spine.map(|s| (plan.add("spine", Role::Router(None)), s));
    let homes = file.racks.iter().map(|r| plan.add(&format!("tor-{}", r.name), Role::Router(None))).collect::<Vec<_>>();
    let v4 = file.racks[0].subnets.iter().any(|s| s.addr().is_ipv4());
    let v6 = file.racks[0].subnets.iter().any(|s| s.addr().is_ipv6());
    let mut speakers = file
        .racks
        .iter()
        .zip(&homes)
        .map(|(rack, home)| {
            let tor = rack.tor.unwrap_or_default();
            let mut speaker = speaker(tor, *home, rack.subnets.clone());
            if file.topology == Topology::Fabric {
                speaker.peers.extend(fabric_peers(rack, node_asn));
            }
            speaker
        })
        .collect::<Vec<_>>();
    match spine {
        Some((spine, router)) => {
            let mut spine_speaker = speaker(router, spine, Vec::new());
            for (i, (rack, home)) in file.racks.iter().zip(&homes).enumerate() {
                let port = device("to-", &rack.name);
                let near = transit(i, v4, v6, 1);
                let far = transit(i, v4, v6, 2);
                plan.wires.push(Wire {
                    a: End { machine: *home, device: "spine".to_owned(), bridge: None },
                    b: End { machine: spine, device: port.clone(), bridge: None },
                });
                plan.address(spine, &port, near.clone());
                plan.address(*home, "spine", far.clone());
                let tor = plan.machines[*home].name.clone();
                let tor_asn = speakers[i].asn;
                speakers[i].peers.extend(near.iter().map(|a| peer("spine", a.addr(), router.asn)));
                spine_speaker.peers.extend(far.iter().map(|a| peer(&tor, a.addr(), tor_asn)));
            }
            plan.machines[spine].role = Role::Router(Some(spine_speaker));
        }
        None => share_segment(plan, &homes, &mut speakers, v4, v6),
    }
    for (home, speaker) in homes.iter().zip(speakers) {
        plan.machines[*home].role = Role::Router(Some(speaker));
    }
    plan.follow_gobgp(v4, v6);
    homes
}

/// Without a spine the ToRs meet on one segment, a bridge inside the first of them, and all peer with all.
fn share_segment(plan: &mut Plan, homes: &[usize], speakers: &mut [Speaker], v4: bool, v6: bool) {
    if homes.len() < 2 {
        return;
    }
    let bridge = "transit".to_owned();
    plan.machines[homes[0]].bridges.push(bridge.clone());
    for (i, home) in homes.iter().enumerate() {
        if i > 0 {
            plan.wires.push(Wire {
                a: End { machine: *home, device: bridge.clone(), bridge: None },
                b: End { machine: homes[0], device: format!("{bridge}{i}"), bridge: Some(bridge.clone()) },
            });
        }
        plan.address(*home, &bridge, transit(0, v4, v6, i + 1));
        let name = plan.machines[*home].name.clone();
        let asn = speakers[i].asn;
        for (j, other) in speakers.iter_mut().enumerate() {
            if i != j {
                other.peers.extend(transit(0, v4, v6, i + 1).iter().map(|a| peer(&name, a.addr(), asn)));
            }
        }
    }
}

/// Address number `n` on transit link `link`: a /24 and a /64 each.
fn transit(link: usize, v4: bool, v6: bool, n: usize) -> Vec<IpNet> {
    let offset = u32::try_from(link).unwrap_or(u32::MAX);
    let mut addresses = Vec::new();
    if let (true, IpNet::V4(range)) = (v4, TRANSIT_V4) {
        let net = Ipv4Addr::from(u32::from(range.network()) + (offset << 8));
        addresses.extend(Ipv4Net::new(net, 24).ok().map(IpNet::V4));
    }
    if let (true, IpNet::V6(range)) = (v6, TRANSIT_V6) {
        let net = Ipv6Addr::from(u128::from(range.network()) + (u128::from(offset) << 64));
        addresses.extend(Ipv6Net::new(net, 64).ok().map(IpNet::V6));
    }
    addresses.into_iter().filter_map(|net| IpNet::new(host(net, n)?, net.prefix_len()).ok()).collect()
}

fn speaker(router: Router, number: usize, originate: Vec<IpNet>) -> Speaker {
    Speaker {
        software: router.speaker,
        asn: router.asn,
        router_id: Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 19, 0, 1)) + u32::try_from(number).unwrap_or_default()),
        originate,
        loopbacks: Vec::new(),
        peers: Vec::new(),
    }
}

/// GoBGP leaves the kernel to a follower, which speaks with it from addresses of its own.
fn loopbacks(number: usize, v4: bool, v6: bool) -> Vec<IpAddr> {
    let number = u32::try_from(number).unwrap_or_default();
    let v4 = v4.then(|| IpAddr::V4(Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 19, 128, 1)) + number)));
    let v6 = v6.then(|| {
        let first = Ipv6Addr::new(0xfd00, 0x7477, 0x696c, 0xffff, 0, 0, 0, 1);
        IpAddr::V6(Ipv6Addr::from(u128::from(first) + u128::from(number)))
    });
    v4.into_iter().chain(v6).collect()
}

fn peer(name: &str, address: IpAddr, asn: u32) -> Peer {
    let name = if address.is_ipv6() { format!("{name}-v6") } else { name.to_owned() };
    Peer { name, address, asn, node: false }
}

fn fabric_peers(rack: &Rack, node_asn: u32) -> Vec<Peer> {
    let node = |(n, name): (usize, &String)| {
        let peers = rack.addresses(n).into_iter().map(|a| Peer { node: true, ..peer(name, a.addr(), node_asn) });
        peers.collect::<Vec<_>>()
    };
    rack.nodes.iter().enumerate().flat_map(node).collect()
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
        plan(&parse(&text, "t").unwrap(), 64512)
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
        assert_eq!(n2.routes[0], ("0.0.0.0/0".parse().unwrap(), "172.31.1.1".parse().unwrap()));
        assert_eq!(n2.routes[1], ("::/0".parse().unwrap(), "fd31:1::1".parse().unwrap()));
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
        let nodes = speaker.peers.iter().filter(|p| p.node && p.asn == 64512).count();
        assert_eq!(nodes, 4, "two nodes, two families");
    }
}
