//! IPv6 next hops, of IPv4 prefixes too, and those that mean something on one interface only.

use super::*;
use crate::scoped::ScopedAddr;

fn on(address: &str, link: u32) -> ScopedAddr {
    ScopedAddr::new(ip(address), link)
}

fn wanted(table: &mut Table, prefix: &str) -> Option<Forward> {
    let steps = table.difference();
    steps.into_iter().find_map(|step| match step {
        Step::Replace(found, METRIC_LEARNED, forward) if found == net(prefix) => Some(forward.as_ref().clone()),
        _ => None,
    })
}

fn learn(table: &mut Table, prefix: &str, hops: &[ScopedAddr]) -> Option<Forward> {
    table.apply(vec![Change { prefix: net(prefix), next_hops: hops.to_vec() }]);
    wanted(table, prefix)
}

#[test]
fn a_link_local_next_hop_is_on_its_link_and_shares_load_with_the_same_address_on_another() {
    for encapsulation in
        [(Protocol::None, When::Always), (Protocol::VXLAN, When::CrossSubnet), (Protocol::VXLAN, When::Always)]
    {
        let mut table = table(config(encapsulation.0, encapsulation.1));
        let both = [on("fe80::1", UPLINK), on("fe80::1", SECOND_UPLINK)];
        let hops = [("fe80::1", UPLINK), ("fe80::1", SECOND_UPLINK)];
        for prefix in ["10.42.8.0/26", "fd42:8::/64"] {
            // Who has no address but that one is a router, and no node: plain.
            assert_eq!(learn(&mut table, prefix, &both), plain(&hops, Some(1400)), "{prefix} {encapsulation:?}");
            assert_eq!(learn(&mut table, prefix, &both[..1]), plain(&hops[..1], None), "{prefix} {encapsulation:?}");
        }
        table.track(both.to_vec());
        let connected = Reach::Reachable { cost: 0 };
        assert_eq!(table.reach_changes(), [(both[0], connected), (both[1], connected)]);
        let mut cut = world();
        cut.links.get_mut(&UPLINK).unwrap().up = false;
        table.set_world(cut);
        assert_eq!(table.reach_changes(), [(both[0], Reach::Unreachable)]);
        let problem = &table.status().problems[0];
        assert!(problem.text.contains("fe80::1") && problem.text.contains("down"), "{problem:?}");
    }
}

#[test]
fn without_its_interface_a_link_local_next_hop_leads_nowhere() {
    let mut table = table(config(Protocol::None, When::Always));
    assert_eq!(learn(&mut table, "10.42.8.0/26", &[on("fe80::1", 0)]), None);
    assert_eq!(learn(&mut table, "10.42.8.0/26", &[on("fe80::1", 99)]), None, "gone");
    table.track(vec![on("fe80::1", 99)]);
    assert_eq!(table.reach_changes(), [(on("fe80::1", 99), Reach::Unreachable)]);
}

#[test]
fn ipv4_prefixes_have_ipv6_next_hops_and_not_the_other_way_round() {
    let mut world = world();
    let ways = vec![Way { gateway: None, link: UPLINK }];
    world.routes.insert(ForeignRoute { prefix: net("fd31:1::/64"), metric: 256, mtu: None, ways });
    let ways = vec![Way { gateway: Some(ip("fd31:1::9")), link: UPLINK }];
    world.routes.insert(ForeignRoute { prefix: net("fd32::/64"), metric: 256, mtu: None, ways });
    let mut config = config(Protocol::VXLAN, When::CrossSubnet);
    config.nodes[1].v6 = Some("fd31:2::11".parse().unwrap());
    let mut table = table(config);
    table.set_world(world);
    let hop = |address: &str| on(address, 0);
    assert_eq!(learn(&mut table, "10.42.8.0/26", &[hop("fd31:1::2")]), plain(&[("fd31:1::2", UPLINK)], None));
    assert_eq!(learn(&mut table, "10.42.8.0/26", &[hop("fd32::2")]), plain(&[("fd31:1::9", UPLINK)], None));
    assert_eq!(learn(&mut table, "10.42.8.0/26", &[hop("fd31:2::11")]), through(VXLAN, "172.31.2.11", 1450), "a node");
    assert_eq!(learn(&mut table, "fd42:8::/64", &[hop("172.31.1.12")]), None);
    let state = table.show(&[net("fd42:8::/64")]);
    assert!(state[0].hops[0].reason.contains("family"), "{state:?}");
}
