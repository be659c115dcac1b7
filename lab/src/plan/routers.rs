//! Routers of a plan: the ToRs of racks, the spine, and how they meet.

use super::{End, LOOPBACK, Peer, Plan, Role, Speaker, Wire};
use crate::file::{LabFile, Rack, Router, TRANSIT_V4, TRANSIT_V6, Topology, host};
use crate::names::{V6, device};
use crate::routers::Software;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use twill_crds::names::DEFAULT_ASN;

/// A ToR on its way into the plan.
struct Tor<'a> {
    rack: &'a Rack,
    name: String,
    machine: usize,
    speaker: Speaker,
}

#[derive(Clone, Copy)]
struct Families {
    v4: bool,
    v6: bool,
}

/// All ToRs, joined by the spine, or by a segment that all of them share. Says which machines are which rack's.
pub(super) fn tors(plan: &mut Plan, file: &LabFile, asns: &BTreeMap<String, u32>) -> Vec<Vec<usize>> {
    let families = Families {
        v4: file.racks[0].subnets.iter().any(|s| s.addr().is_ipv4()),
        v6: file.racks[0].subnets.iter().any(|s| s.addr().is_ipv6()),
    };
    let spine = file.spine.map(|router| (plan.add("spine", Role::Router(None)), router));
    let mut tors = Vec::new();
    for rack in &file.racks {
        for (router, name) in rack.tors.iter().zip(rack.tor_names()) {
            let machine = plan.add(&name, Role::Router(None));
            let mut speaker = speaker(*router, machine, rack.subnets.clone());
            if file.topology == Topology::Fabric {
                speaker.peers.extend(nodes(file, rack, asns));
            }
            tors.push(Tor { rack, name, machine, speaker });
        }
    }
    match spine {
        Some((machine, router)) => join(plan, machine, router, &mut tors, families),
        None => share_segment(plan, &mut tors, families),
    }
    let homes = |rack: &Rack| tors.iter().filter(|t| t.rack.name == rack.name).map(|t| t.machine).collect();
    let homes = file.racks.iter().map(homes).collect();
    for tor in tors {
        plan.machines[tor.machine].role = Role::Router(Some(tor.speaker));
    }
    follow_gobgp(plan, families);
    homes
}

/// The spine has a link to every ToR.
fn join(plan: &mut Plan, spine: usize, router: Router, tors: &mut [Tor<'_>], families: Families) {
    let mut speaker = speaker(router, spine, Vec::new());
    for (link, tor) in tors.iter_mut().enumerate() {
        let port = device("to-", tor.name.strip_prefix("tor-").unwrap_or(&tor.name));
        let (near, far) = (transit(link, families, 1), transit(link, families, 2));
        plan.wires.push(Wire {
            a: End { machine: tor.machine, device: "spine".to_owned(), bridge: None },
            b: End { machine: spine, device: port.clone(), bridge: None },
        });
        plan.address(spine, &port, near.clone());
        plan.address(tor.machine, "spine", far.clone());
        tor.speaker.peers.extend(near.iter().map(|a| peer("spine", a.addr(), router.asn)));
        speaker.peers.extend(far.iter().map(|a| peer(&tor.name, a.addr(), tor.speaker.asn)));
    }
    plan.machines[spine].role = Role::Router(Some(speaker));
}

/// Without a spine the ToRs meet on one segment, a bridge inside the first of them, and all peer with all, but for those of one rack
/// and AS.
fn share_segment(plan: &mut Plan, tors: &mut [Tor<'_>], families: Families) {
    if tors.len() < 2 {
        return;
    }
    let bridge = "transit".to_owned();
    plan.machines[tors[0].machine].bridges.push(bridge.clone());
    for i in 0..tors.len() {
        if i > 0 {
            plan.wires.push(Wire {
                a: End { machine: tors[i].machine, device: bridge.clone(), bridge: None },
                b: End { machine: tors[0].machine, device: format!("{bridge}{i}"), bridge: Some(bridge.clone()) },
            });
        }
        let own = transit(0, families, i + 1);
        plan.address(tors[i].machine, &bridge, own.clone());
        let (name, asn, rack) = (tors[i].name.clone(), tors[i].speaker.asn, tors[i].rack.name.clone());
        for other in tors.iter_mut().filter(|o| o.name != name && (o.rack.name != rack || o.speaker.asn != asn)) {
            other.speaker.peers.extend(own.iter().map(|a| peer(&name, a.addr(), asn)));
        }
    }
}

/// GoBGP leaves the kernel to a follower, which speaks with it from addresses of its own.
fn follow_gobgp(plan: &mut Plan, families: Families) {
    for (number, machine) in plan.machines.iter_mut().enumerate() {
        let Role::Router(Some(speaker)) = &mut machine.role else { continue };
        if speaker.software == Software::Gobgp {
            speaker.loopbacks = loopbacks(number, families);
            machine.addresses.extend(speaker.loopbacks.iter().map(|a| (LOOPBACK.to_owned(), IpNet::from(*a))));
        }
    }
}

fn loopbacks(number: usize, families: Families) -> Vec<IpAddr> {
    let number = u32::try_from(number).unwrap_or_default();
    let v4 = Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 19, 128, 1)) + number);
    let first = Ipv6Addr::new(0xfd00, 0x7477, 0x696c, 0xffff, 0, 0, 0, 1);
    let v6 = Ipv6Addr::from(u128::from(first) + u128::from(number));
    let v4 = families.v4.then_some(IpAddr::V4(v4));
    v4.into_iter().chain(families.v6.then_some(IpAddr::V6(v6))).collect()
}

/// Address number `n` on transit link `link`: a /24 and a /64 each.
fn transit(link: usize, families: Families, n: usize) -> Vec<IpNet> {
    let offset = u32::try_from(link).unwrap_or(u32::MAX);
    let mut addresses = Vec::new();
    if let (true, IpNet::V4(range)) = (families.v4, TRANSIT_V4) {
        let net = Ipv4Addr::from(u32::from(range.network()) + (offset << 8));
        addresses.extend(Ipv4Net::new(net, 24).ok().map(IpNet::V4));
    }
    if let (true, IpNet::V6(range)) = (families.v6, TRANSIT_V6) {
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

fn peer(name: &str, address: IpAddr, asn: u32) -> Peer {
    let name = if address.is_ipv6() { format!("{name}{V6}") } else { name.to_owned() };
    Peer { name, address, asn, node: false, shares_as: false }
}

fn nodes(file: &LabFile, rack: &Rack, asns: &BTreeMap<String, u32>) -> Vec<Peer> {
    let asn = |node: &String| asns.get(node).copied().unwrap_or(DEFAULT_ASN);
    let all = file.racks.iter().flat_map(|r| &r.nodes).map(asn).collect::<Vec<_>>();
    let node = |(n, name): (usize, &String)| {
        let shares_as = all.iter().filter(|other| **other == asn(name)).count() > 1;
        let addresses = rack.addresses(n).into_iter();
        addresses.map(|a| Peer { node: true, shares_as, ..peer(name, a.addr(), asn(name)) }).collect::<Vec<_>>()
    };
    rack.nodes.iter().enumerate().flat_map(node).collect()
}
