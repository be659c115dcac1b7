//! Routes follow the MTU of the way to the other node.

use super::*;

#[test]
#[ignore = "needs root: make test"]
fn a_smaller_mtu_is_there_at_once_and_a_greater_one_once_it_has_stood() {
    let (node, _router) = one_node();
    let fib = fib(&node, cluster("n1", Protocol::VXLAN, When::CrossSubnet));
    fib.apply(&[("10.42.3.0/26", &["172.31.2.11"])]);
    fib.settled();
    let has = |mtu: u32| node.ip("route show 10.42.3.0/26").contains(&format!("mtu {mtu}"));
    let default = |mtu: &str| drop(node.ip(&format!("route replace default via 172.31.1.1 {mtu}")));
    assert!(has(1450));
    default("mtu 1400");
    within(SECOND, "smaller", || has(1350));
    let start = Instant::now();
    default("");
    // What this brings is written after the look at the default route.
    node.ip("route del 10.42.1.0/26 proto 84");
    within(SECOND, "the kernel was looked at", || !node.ip("route show 10.42.1.0/26").is_empty());
    assert!(has(1350));
    within(SECOND * 30, "greater", || has(1450));
    assert!(start.elapsed() > SECOND * 14, "{:?}", start.elapsed());
}

#[test]
#[ignore = "needs root: make test"]
fn ipv6_begins_with_an_uplink_that_is_wide_enough_for_it() {
    let (node, _router) = one_node();
    node.ip("link set eth0 mtu 1329");
    let mut config = cluster("n1", Protocol::VXLAN, When::Always);
    let six = Pool { name: "six".to_owned(), cidr: "fd42::/64".parse().unwrap(), ..config.pools[0].clone() };
    config.pools.push(six);
    config.tunnel_sources.push("fd42::1:0".parse().unwrap());
    config.nodes[1].v6 = "fd31:2::11".parse().ok();
    let fib = fib(&node, config);
    fib.apply(&[("fd42::3:0/112", &["fd31:2::11"])]);
    let problems = fib.settled().problems;
    assert!(problems.len() == 1 && problems[0].text.contains("MTU of 1330 or more"), "{problems:?}");
    node.ip("link set eth0 mtu 1330");
    within(SECOND, "the route is there", || node.ip("-6 route show fd42::3:0/112").contains("mtu 1280"));
    within(SECOND, "nothing is wrong any more", || fib.status().problems.is_empty());
}
