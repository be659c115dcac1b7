//! The FIB without a kernel: states in, differences out.

use super::route::{Forward, Found, Hop, Step, Transport, Tunnel};
use super::table::Table;
use super::tunnel::{self, Failure};
use super::world::{ForeignRoute, Link, LinkKind, Way, World};
use super::{Change, Condition, Config, NodeAddresses, Pool, Reach};
use ipnet::IpNet;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::IpAddr;
use twill_crds::names::{IPIP_DEVICE, METRIC_LEARNED, METRIC_UNREACHABLE, VXLAN_DEVICE, vxlan_mac};
use twill_crds::{Encapsulation, Protocol, When};

mod address;
mod ends;
mod hosts;
mod link_local;
mod narrow;
mod offload;
mod outer;
mod raises;
mod refusals;
mod reverse_path;

const UPLINK: u32 = 2;
const SECOND_UPLINK: u32 = 3;
const VXLAN: u32 = 9;
const IPIP: u32 = 10;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn link(index: u32, name: &str, mtu: u32, kind: LinkKind) -> Link {
    Link {
        index,
        name: name.to_owned(),
        up: true,
        mtu,
        mac: Some(vxlan_mac([172, 31, 1, 11].into())),
        kind,
        ..Link::default()
    }
}

/// A node at 172.31.1.11 with a second uplink of small MTU, a default route, and both tunnel devices ready.
fn world() -> World {
    let mut world = World::default();
    let vxlan = LinkKind::Vxlan { external: true, learning: false, port: 4789 };
    for link in [
        link(UPLINK, "eth0", 1500, LinkKind::Other),
        link(SECOND_UPLINK, "eth1", 1400, LinkKind::Other),
        link(VXLAN, VXLAN_DEVICE, 1450, vxlan),
        link(IPIP, IPIP_DEVICE, 1480, LinkKind::Ipip { external: true }),
    ] {
        world.links.insert(link.index, link);
    }
    world.addresses.insert((UPLINK, net("172.31.1.11/24")));
    world.addresses.insert((VXLAN, net("10.42.1.0/32")));
    world.addresses.insert((IPIP, net("10.42.1.0/32")));
    for (prefix, gateway, link) in [
        ("172.31.1.0/24", None, UPLINK),
        ("172.31.7.0/24", None, SECOND_UPLINK),
        ("0.0.0.0/0", Some("172.31.1.1"), UPLINK),
        ("192.0.2.0/24", Some("172.31.1.9"), UPLINK),
    ] {
        let ways = vec![Way { gateway: gateway.map(ip), link }];
        world.routes.insert(ForeignRoute { prefix: net(prefix), metric: 0, mtu: None, ways });
    }
    let config = config(Protocol::VXLAN, When::CrossSubnet);
    for step in tunnel::additions(&config, &world.clone(), &BTreeMap::new()) {
        if let tunnel::Step::AddNeighbour(_, address, mac) = step {
            world.neighbours.insert(address, mac);
        }
    }
    world
}

fn node(name: &str, v4: &str) -> NodeAddresses {
    NodeAddresses { name: name.to_owned(), v4: Some(v4.parse().unwrap()), v6: None }
}

fn config(protocol: Protocol, when: When) -> Config {
    let encapsulation = Encapsulation { protocol, when };
    Config {
        install: true,
        alone: false,
        own: [net("10.42.1.0/26")].into(),
        pools: vec![Pool { name: "default".to_owned(), cidr: net("10.42.0.0/16"), encapsulation }],
        nodes: vec![node("n2", "172.31.1.12"), node("n3", "172.31.2.11"), node("n4", "172.31.7.12")],
        local: node("n1", "172.31.1.11"),
        tunnel_sources: vec![ip("10.42.1.0")],
        ..Config::default()
    }
}

fn table(config: Config) -> Table {
    let mut table = Table::default();
    table.configure(config);
    table.observe(world(), Vec::new());
    table
}

fn change(prefix: &str, hops: &[&str]) -> Change {
    Change { prefix: net(prefix), next_hops: hops.iter().map(|hop| ip(hop).into()).collect() }
}

/// What the table wants for one prefix.
fn forward(config: Config, prefix: &str, hops: &[&str]) -> Option<Forward> {
    let mut table = table(config);
    table.apply(vec![change(prefix, hops)]);
    table.difference().into_iter().find_map(|step| match step {
        Step::Replace(found, METRIC_LEARNED, forward) if found == net(prefix) => Some(forward.as_ref().clone()),
        _ => None,
    })
}

fn plain(hops: &[(&str, u32)], mtu: Option<u32>) -> Option<Forward> {
    let hop = |(gateway, link): &(&str, u32)| Hop { gateway: Some(ip(gateway)), link: *link, tunnel: None };
    Some(Forward::Unicast { hops: hops.iter().map(hop).collect(), mtu, source: None })
}

fn through(device: u32, remote: &str, mtu: u32) -> Option<Forward> {
    let remote = remote.parse().unwrap();
    let id = if device == VXLAN { 4096 } else { 0 };
    let tunnel = Some(Tunnel { id, source: [172, 31, 1, 11].into(), remote, ttl: 64 });
    let hop = Hop { gateway: (device == VXLAN).then_some(remote), link: device, tunnel };
    Some(Forward::Unicast { hops: vec![hop], mtu: Some(mtu), source: Some(ip("10.42.1.0")) })
}

#[test]
fn encapsulation_follows_the_pool_and_the_subnet_of_the_next_hop() {
    let same_rack = |protocol, when| forward(config(protocol, when), "10.42.2.0/26", &["172.31.1.12"]);
    let other_rack = |protocol, when| forward(config(protocol, when), "10.42.3.0/26", &["172.31.2.11"]);
    let direct = plain(&[("172.31.1.12", UPLINK)], None);
    for protocol in [Protocol::None, Protocol::VXLAN, Protocol::IPIP] {
        assert_eq!(same_rack(protocol, When::CrossSubnet), direct, "{protocol:?}");
    }
    assert_eq!(other_rack(Protocol::VXLAN, When::CrossSubnet), through(VXLAN, "172.31.2.11", 1450));
    assert_eq!(other_rack(Protocol::IPIP, When::CrossSubnet), through(IPIP, "172.31.2.11", 1480));
    assert_eq!(same_rack(Protocol::VXLAN, When::Always), through(VXLAN, "172.31.1.12", 1450));
    assert_eq!(same_rack(Protocol::IPIP, When::Always), through(IPIP, "172.31.1.12", 1480));
    assert_eq!(same_rack(Protocol::None, When::Always), direct);
    assert_eq!(other_rack(Protocol::None, When::Always), None, "never plain over the default route");
}

#[test]
fn only_prefixes_of_a_pool_towards_a_node_are_encapsulated() {
    let always = || config(Protocol::VXLAN, When::Always);
    assert_eq!(forward(always(), "10.99.0.0/24", &["172.31.1.12"]), plain(&[("172.31.1.12", UPLINK)], None));
    assert_eq!(forward(always(), "10.42.9.0/26", &["172.31.1.1"]), plain(&[("172.31.1.1", UPLINK)], None));
    assert_eq!(forward(always(), "10.99.0.0/24", &["192.0.2.7"]), plain(&[("172.31.1.9", UPLINK)], None));
}

#[test]
fn one_route_carries_one_transport_and_the_smallest_mtu() {
    let cross = || config(Protocol::VXLAN, When::CrossSubnet);
    let mixed = forward(cross(), "10.42.8.0/26", &["172.31.2.11", "172.31.1.12"]);
    assert_eq!(mixed, plain(&[("172.31.1.12", UPLINK)], None), "plain goes before tunnelled");
    let both = forward(cross(), "10.42.8.0/26", &["172.31.7.12", "172.31.1.12", "172.31.1.12"]);
    assert_eq!(both, plain(&[("172.31.1.12", UPLINK), ("172.31.7.12", SECOND_UPLINK)], Some(1400)));
    let Some(Forward::Unicast { hops, mtu, .. }) =
        forward(config(Protocol::VXLAN, When::Always), "10.42.8.0/26", &["172.31.7.12", "172.31.2.11"])
    else {
        panic!("no route")
    };
    assert_eq!((hops.len(), mtu), (2, Some(1350)));
}

/// As operators say it whose racks carry jumbo frames and the way between them does not.
#[test]
fn the_mtu_of_the_route_by_which_a_next_hop_is_reached_counts() {
    let mut world = world();
    let by = |prefix: &str, link, mtu| {
        let ways = vec![Way { gateway: Some(ip("172.31.1.1")), link }];
        ForeignRoute { prefix: net(prefix), metric: 0, mtu, ways }
    };
    world.routes.insert(by("172.31.2.0/24", UPLINK, Some(1300)));
    world.routes.insert(by("192.0.2.0/28", UPLINK, Some(1500)));
    let wanted = |config, prefix, hop| {
        let mut table = Table::default();
        table.configure(config);
        table.observe(world.clone(), Vec::new());
        table.apply(vec![change(prefix, &[hop])]);
        let wanted = table.difference().into_iter().find(|step| step.key() == (net(prefix), METRIC_LEARNED));
        let Some(Step::Replace(_, _, forward)) = wanted else { panic!("{wanted:?}") };
        Some(forward.as_ref().clone())
    };
    let cross = |protocol| config(protocol, When::CrossSubnet);
    let (to_n3, n3) = ("10.42.3.0/26", "172.31.2.11");
    assert_eq!(wanted(cross(Protocol::VXLAN), to_n3, n3), through(VXLAN, n3, 1250));
    assert_eq!(wanted(cross(Protocol::IPIP), to_n3, n3), through(IPIP, n3, 1280));
    assert_eq!(wanted(cross(Protocol::None), to_n3, n3), plain(&[("172.31.1.1", UPLINK)], Some(1300)));
    let as_the_link = wanted(cross(Protocol::None), "10.99.0.0/24", "192.0.2.7");
    assert_eq!(as_the_link, plain(&[("172.31.1.1", UPLINK)], None), "and follows it");
}

#[test]
fn a_node_takes_no_default_route_and_nothing_that_covers_a_node_or_peer() {
    let mut with_peer = config(Protocol::VXLAN, When::CrossSubnet);
    with_peer.peers.insert(ip("172.31.1.1"));
    for prefix in ["0.0.0.0/0", "172.31.2.0/24", "172.31.1.1/32", "172.16.0.0/12"] {
        assert_eq!(forward(with_peer.clone(), prefix, &["172.31.1.1"]), None, "{prefix}");
        let alone = Config { alone: true, ..with_peer.clone() };
        assert_eq!(forward(alone, prefix, &["172.31.1.1"]), plain(&[("172.31.1.1", UPLINK)], None), "{prefix} alone");
    }
    assert!(forward(with_peer, "172.31.3.0/24", &["172.31.1.1"]).is_some());
}

#[test]
fn an_unresolved_next_hop_is_a_sentence_with_a_way_out_until_a_route_appears() {
    let mut table = table(config(Protocol::None, When::CrossSubnet));
    table.apply(vec![change("10.42.3.0/26", &["172.31.2.11"])]);
    assert_eq!(table.difference().len(), 1, "only the own block");
    let problems = table.status().problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].condition, Condition::Resolved);
    for part in ["172.31.2.11", "node n3", "IPPool default", "VXLAN"] {
        assert!(problems[0].text.contains(part), "{}", problems[0].text);
    }
    let mut better = world();
    let ways = vec![Way { gateway: Some(ip("172.31.1.1")), link: UPLINK }];
    better.routes.insert(ForeignRoute { prefix: net("172.31.2.0/24"), metric: 0, mtu: None, ways });
    table.set_world(better);
    let steps = table.difference();
    assert_eq!(steps.len(), 1);
    assert!(
        matches!(&steps[0], Step::Replace(_, _, forward) if Some(forward.as_ref()) == plain(&[("172.31.1.1", UPLINK)], None).as_ref())
    );
    assert_eq!(table.status().problems, []);
}

#[test]
fn tracked_next_hops_tell_their_state_once_and_again_when_it_changes() {
    let mut table = table(config(Protocol::None, When::CrossSubnet));
    let hops = ["172.31.1.12", "172.31.2.11", "192.0.2.7"].map(|hop| ip(hop).into());
    table.track(hops.to_vec());
    let reachable = |cost| Reach::Reachable { cost };
    let told = vec![(hops[0], reachable(0)), (hops[1], Reach::Unreachable), (hops[2], reachable(1))];
    assert_eq!(table.reach_changes(), told);
    assert_eq!(table.reach_changes(), []);
    assert!(table.status().problems[0].text.contains("172.31.2.11"), "a path left out by the RIB is still a sentence");
    table.configure(config(Protocol::VXLAN, When::CrossSubnet));
    assert_eq!(table.reach_changes(), [(hops[1], reachable(1))]);
    assert_eq!(table.status().problems, []);
}

#[test]
fn own_prefixes_are_unreachable_in_the_kernel_until_they_are_not_ours() {
    let mut table = table(config(Protocol::VXLAN, When::CrossSubnet));
    let steps = table.difference();
    assert_eq!(steps.iter().map(Step::key).collect::<Vec<_>>(), [(net("10.42.1.0/26"), METRIC_UNREACHABLE)]);
    assert!(table.show(&[net("10.42.1.0/26")])[0].unreachable);
    let without = Config { own: [].into(), ..config(Protocol::VXLAN, When::CrossSubnet) };
    table.configure(Config { complete: false, ..without.clone() });
    assert_eq!(table.difference(), [], "nothing goes on the word of a snapshot");
    table.configure(without);
    assert_eq!(table.difference(), [Step::Delete(net("10.42.1.0/26"), METRIC_UNREACHABLE)]);
}

#[test]
fn an_own_prefix_is_not_unreachable_while_it_leads_elsewhere() {
    let mut table = table(config(Protocol::VXLAN, When::CrossSubnet));
    let own = net("10.42.1.0/26");
    table.apply(vec![change("10.42.1.0/26", &["172.31.1.12"])]);
    assert_eq!(table.difference().iter().map(Step::key).collect::<Vec<_>>(), [(own, METRIC_LEARNED)]);
    table.apply(vec![change("10.42.1.0/26", &[])]);
    let steps: Vec<_> = table.difference().iter().map(Step::key).collect();
    assert_eq!(steps, [(own, METRIC_UNREACHABLE), (own, METRIC_LEARNED)], "first the one, then the other goes");
}

#[test]
fn what_the_kernel_refused_is_tried_again_and_said() {
    let mut table = table(config(Protocol::VXLAN, When::CrossSubnet));
    table.apply(vec![change("10.42.2.0/26", &["172.31.1.12"])]);
    let steps = table.difference();
    for step in &steps {
        table.failed(step, "Network is unreachable".to_owned());
    }
    assert!(table.routes_failed());
    assert_eq!(table.status().installed, 0);
    assert_eq!(table.status().problems.len(), 2);
    assert_eq!(table.difference(), steps);
    assert!(!table.routes_failed());
    assert_eq!((table.status().installed, table.status().problems.len()), (2, 0));
}

#[test]
fn only_what_is_still_wanted_counts_as_repaired() {
    let mut table = table(config(Protocol::VXLAN, When::CrossSubnet));
    table.apply(vec![change("10.42.2.0/26", &["172.31.1.12"]), change("10.42.3.0/26", &["172.31.2.11"])]);
    let steps = table.difference();
    table.apply(vec![change("10.42.2.0/26", &[])]);
    let repairs = table.observe(world(), Vec::new());
    assert_eq!((repairs.routes, repairs.first), (2, Some(net("10.42.1.0/26"))), "the own block and one learned route");
    let back: Vec<_> = table.difference().iter().map(Step::key).collect();
    assert_eq!(back, [(net("10.42.1.0/26"), METRIC_UNREACHABLE), (net("10.42.3.0/26"), METRIC_LEARNED)]);
    assert_eq!(steps.len(), 3);
}

#[test]
fn the_device_plan_ends_when_the_kernel_has_all_of_it() {
    let config = config(Protocol::VXLAN, When::CrossSubnet);
    let none = BTreeMap::new();
    assert_eq!(tunnel::additions(&config, &world(), &none), []);
    assert_eq!(tunnel::removals(&config, &world()), []);
    let mut bare = world();
    bare.links.retain(|_, link| link.name.starts_with("eth"));
    let steps = tunnel::additions(&config, &bare, &none);
    let mac = vxlan_mac([172, 31, 1, 11].into());
    let wanted = [tunnel::Step::CreateVxlan { mac, port: 4789, mtu: 1450 }, tunnel::Step::CreateIpip { mtu: 1480 }];
    assert_eq!(steps, wanted);
    let unsupported = [(Transport::Ipip, Failure::Unsupported)].into();
    assert_eq!(tunnel::additions(&config, &bare, &unsupported), wanted[..1]);
    // Another port cannot be set on a device that lives.
    let moved = Config { vxlan_port: 4790, ..config.clone() };
    let steps = tunnel::additions(&moved, &world(), &none);
    assert!(matches!(steps[..], [tunnel::Step::Remove(..), tunnel::Step::CreateVxlan { port: 4790, .. }]), "{steps:?}");
    // A node that left takes its neighbours along, but not on the word of a snapshot.
    let fewer = Config { nodes: config.nodes[1..].to_vec(), ..config };
    assert_eq!(tunnel::removals(&fewer, &world()).len(), 2);
    assert_eq!(tunnel::removals(&Config { complete: false, ..fewer }, &world()), []);
}

#[test]
fn an_address_of_the_node_that_is_on_no_interface_is_said() {
    let mut elsewhere = world();
    elsewhere.addresses.retain(|(link, _)| *link != UPLINK);
    let mut table = table(config(Protocol::VXLAN, When::CrossSubnet));
    assert_eq!(table.status().problems, []);
    table.set_world(elsewhere);
    let problems = table.status().problems;
    assert_eq!(problems[0].condition, Condition::Address);
    assert!(problems[0].text.contains("172.31.1.11") && problems[0].text.contains("Node n1"), "{problems:?}");
    let both = NodeAddresses { v6: Some("fd31:1::11".parse().unwrap()), ..node("n1", "172.31.1.11") };
    table.configure(Config { local: both, ..config(Protocol::VXLAN, When::CrossSubnet) });
    table.set_world(world());
    let problems = table.status().problems;
    assert!(problems.len() == 1 && problems[0].text.contains("fd31:1::11"), "one of two is there: {problems:?}");
}

/// What a kernel would hold after these steps.
fn perform(kernel: &mut BTreeMap<(IpNet, u32), Forward>, steps: &[Step]) {
    for step in steps {
        match step {
            Step::Replace(prefix, metric, forward) => drop(kernel.insert((*prefix, *metric), forward.as_ref().clone())),
            Step::Delete(prefix, metric) => drop(kernel.remove(&(*prefix, *metric))),
        }
    }
}

fn found(kernel: &BTreeMap<(IpNet, u32), Forward>) -> Vec<Found> {
    let found = |((prefix, metric), forward): (&(IpNet, u32), &Forward)| Found {
        prefix: *prefix,
        metric: *metric,
        forward: forward.clone(),
    };
    kernel.iter().map(found).collect()
}

#[derive(Clone, Debug)]
enum Event {
    Learn(u8, Vec<u8>),
    Configure(usize),
    /// A foreign hand removes this prefix, and somebody looks.
    Lose(u8),
    /// The uplink's address goes or comes.
    Uplink(bool),
    Write,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0..6u8, prop::collection::vec(0..4u8, 0..3)).prop_map(|(prefix, hops)| Event::Learn(prefix, hops)),
        (0..4usize).prop_map(Event::Configure),
        (0..6u8).prop_map(Event::Lose),
        any::<bool>().prop_map(Event::Uplink),
        Just(Event::Write),
    ]
}

fn configurations() -> [Config; 4] {
    [
        config(Protocol::VXLAN, When::CrossSubnet),
        config(Protocol::VXLAN, When::Always),
        config(Protocol::None, When::CrossSubnet),
        Config { own: [].into(), ..config(Protocol::IPIP, When::CrossSubnet) },
    ]
}

fn down() -> World {
    let mut world = world();
    world.addresses.retain(|(link, _)| *link != UPLINK);
    world.routes = Default::default();
    world
}

#[test]
fn an_adopted_route_stays_until_the_configuration_is_complete() {
    let complete = configurations()[0].clone();
    let mut table = table(Config { complete: false, ..complete.clone() });
    let prefix = net("10.42.9.0/26");
    table.observe(world(), vec![Found { prefix, metric: METRIC_LEARNED, forward: Forward::Unreachable }]);
    table.learned_in_sync();
    let delete = Step::Delete(prefix, METRIC_LEARNED);
    assert!(!table.difference().contains(&delete), "only a snapshot is known");
    table.configure(complete);
    assert!(table.difference().contains(&delete));
}

proptest! {
    /// Whatever the road, the kernel ends with what a table that knows only the last state would write.
    #[test]
    fn the_kernel_depends_on_the_state_and_not_on_the_road(events in prop::collection::vec(event(), 0..40)) {
        let hops = ["172.31.1.12", "172.31.2.11", "172.31.7.12", "192.0.2.7"];
        let mut kernel = BTreeMap::new();
        let mut table = table(configurations()[0].clone());
        table.learned_in_sync();
        let (mut learned, mut configured, mut up) = (BTreeMap::new(), 0, true);
        let world_now = |up| if up { world() } else { down() };
        for event in events {
            match event {
                Event::Learn(prefix, numbers) => {
                    let names: Vec<&str> = numbers.iter().map(|number| hops[usize::from(*number)]).collect();
                    let change = change(&format!("10.42.{}.0/26", prefix + 2), &names);
                    learned.insert(change.prefix, change.clone());
                    table.apply(vec![change]);
                }
                Event::Configure(number) => {
                    configured = number;
                    table.configure(configurations()[number].clone());
                }
                Event::Lose(prefix) => {
                    perform(&mut kernel, &table.difference());
                    kernel.remove(&(net(&format!("10.42.{}.0/26", prefix + 2)), METRIC_LEARNED));
                    table.observe(world_now(up), found(&kernel));
                }
                Event::Uplink(now) => {
                    up = now;
                    table.set_world(world_now(up));
                }
                Event::Write => perform(&mut kernel, &table.difference()),
            }
        }
        perform(&mut kernel, &table.difference());
        let mut fresh = self::table(configurations()[configured].clone());
        fresh.set_world(world_now(up));
        fresh.apply(learned.into_values().collect());
        let mut wanted = BTreeMap::new();
        perform(&mut wanted, &fresh.difference());
        prop_assert_eq!(&kernel, &wanted);
        prop_assert_eq!(table.status().problems, fresh.status().problems);
        // And what the kernel tells back is no reason for another write.
        table.observe(world_now(up), found(&kernel));
        prop_assert_eq!(table.difference(), []);
    }
}
