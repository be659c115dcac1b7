//! Outer headers of IPv6: nodes that have no IPv4 address.

use super::*;

fn six(name: &str, v6: &str) -> NodeAddresses {
    NodeAddresses { name: name.to_owned(), v4: None, v6: Some(v6.parse().unwrap()) }
}

fn six_only(protocol: Protocol) -> Config {
    let mut config = config(protocol, When::Always);
    config.local = six("n1", "fd31:1::11");
    config.nodes = vec![six("n2", "fd31:2::11"), node("n4", "172.31.7.12")];
    config.tunnel_sources = vec![ip("10.42.1.0")];
    config
}

fn six_world() -> World {
    let mut world = world();
    world.addresses.insert((UPLINK, net("fd31:1::11/64")));
    let ways = vec![Way { gateway: Some(ip("fd31:1::1")), link: UPLINK }];
    world.routes.insert(ForeignRoute { prefix: net("::/0"), metric: 1024, mtu: None, ways });
    world
}

fn wanted(config: Config, next_hop: &str) -> (Option<Forward>, Vec<String>) {
    let mut table = Table::default();
    table.configure(config);
    table.observe(six_world(), Vec::new());
    table.apply(vec![change("10.42.2.0/26", &[next_hop])]);
    let steps = table.difference();
    let forward = steps.into_iter().find_map(|step| match step {
        Step::Replace(_, METRIC_LEARNED, forward) => Some(forward.as_ref().clone()),
        _ => None,
    });
    (forward, table.status().problems.into_iter().map(|problem| problem.text).collect())
}

#[test]
fn nodes_without_ipv4_are_ends_of_vxlan_by_their_ipv6_addresses() {
    let config = six_only(Protocol::VXLAN);
    let (forward, problems) = wanted(config.clone(), "fd31:2::11");
    let stand_in = IpAddr::V6(config.nodes[0].vxlan_neighbour().unwrap());
    let tunnel = Some(Tunnel { id: 4096, source: ip("fd31:1::11"), remote: ip("fd31:2::11"), ttl: 64 });
    let hop = Hop { gateway: Some(stand_in), link: VXLAN, tunnel };
    let expected = Forward::Unicast { hops: vec![hop], mtu: Some(1430), source: Some(ip("10.42.1.0")) };
    assert_eq!((forward, problems), (Some(expected), Vec::new()));
    // The device has the MAC that others derive, room for the larger header, and knows who is behind that address; there is none for IP-in-IP.
    let mut bare = six_world();
    bare.links.retain(|index, _| *index == UPLINK);
    let mac = config.local.vxlan_mac().unwrap();
    let steps = tunnel::additions(&config, &bare, &BTreeMap::new());
    assert_eq!(steps, [tunnel::Step::CreateVxlan { mac, port: 4789, mtu: 1430 }]);
    let neighbours = tunnel::additions(&config, &six_world(), &BTreeMap::new());
    let its = config.nodes[0].vxlan_mac().unwrap();
    assert!(neighbours.contains(&tunnel::Step::AddNeighbour(VXLAN, stand_in, its)), "{neighbours:?}");
}

#[test]
fn an_uplink_too_narrow_for_the_stand_ins_is_said_of_pools_of_ipv4_too() {
    for (mtu, fits) in [(1350, true), (1349, false)] {
        let mut narrow = six_world();
        narrow.links.get_mut(&UPLINK).unwrap().mtu = mtu;
        narrow.links.get_mut(&VXLAN).unwrap().mtu = mtu - 70;
        let mut table = Table::default();
        table.configure(Config { nodes: vec![six("n2", "fd31:2::11")], ..six_only(Protocol::VXLAN) });
        table.observe(narrow, Vec::new());
        let problems = table.status().problems;
        let told = problems.iter().any(|one| one.condition == Condition::Tunnel && one.text.contains("1350 or more"));
        assert_eq!(told, !fits, "{mtu}: {problems:?}");
    }
}

#[test]
fn two_nodes_without_a_family_in_common_or_without_what_ipip_needs_are_named() {
    let (none, problems) = wanted(six_only(Protocol::VXLAN), "172.31.7.12");
    assert!(
        none.is_none() && problems[0].contains("node n4 and this one have no InternalIP of the same family"),
        "{problems:?}"
    );
    let (none, problems) = wanted(six_only(Protocol::IPIP), "fd31:2::11");
    assert!(
        none.is_none() && problems[0].contains("node n1 has no IPv4 InternalIP for the outer header of IPIP"),
        "{problems:?}"
    );
}

#[test]
fn who_has_both_families_is_an_end_by_ipv4_and_named_by_it() {
    let both = NodeAddresses { v6: "fd31:1::11".parse().ok(), ..node("n1", "172.31.1.11") };
    let ends = |a: &NodeAddresses, b: &NodeAddresses| a.ends(b, Transport::Vxlan);
    assert_eq!(ends(&both, &node("n2", "172.31.1.12")), Some((ip("172.31.1.11"), ip("172.31.1.12"))));
    assert_eq!(ends(&both, &six("n3", "fd31:2::11")), Some((ip("fd31:1::11"), ip("fd31:2::11"))));
    assert_eq!(both.vxlan_mac(), Some([2, 0, 172, 31, 1, 11]));
    assert_eq!(both.vxlan_neighbour(), Some("fe80::ac1f:10b".parse().unwrap()));
    // Nodes may differ in their subnet alone, or in their last octet alone.
    let macs = ["fd31:1::11", "fd31:2::11", "fd31:1::12", "fd31:1::1:11"].map(|v6| six("n", v6).vxlan_mac().unwrap());
    let distinct: std::collections::BTreeSet<_> = macs.iter().collect();
    assert!(distinct.len() == 4 && macs.iter().all(|mac| mac[0] == 6), "{macs:?}");
}
