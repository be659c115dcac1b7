//! Workload interfaces in the kernel: two pods of one node reach each other over both families.

use crate::world::Ns;
use std::net::IpAddr;
use twill_felix::io::{inspect, link, netns::Netns, route, rtnl::Rtnl, sysctl, uplink};
use twill_felix::workload::{Plan, alias, interface_name, pod_mac};
use twill_ipam::Sandbox;

fn plan(container: &str, addresses: &[&str]) -> Plan {
    Plan {
        host_name: interface_name(container, "eth0"),
        pod_name: "eth0".into(),
        pod_mac: pod_mac(container, "eth0"),
        mtu: 1400,
        alias: alias(&Sandbox { container_id: container.into(), ifname: "eth0".into() }, "uid", "claimant"),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        bandwidth: None,
    }
}

#[test]
#[ignore = "needs root: make test"]
fn two_pods_of_one_node_reach_each_other_over_both_families() {
    let (node, a, b) = (Ns::new("node"), Ns::new("a"), Ns::new("b"));
    let plans = [plan("ca", &["10.42.0.1", "fd42::1"]), plan("cb", &["10.42.0.2", "fd42::2"])];
    Netns::open(&node.path())
        .unwrap()
        .run(|| {
            sysctl::node().unwrap();
            sysctl::forward_ipv6().unwrap();
            let mut rtnl = Rtnl::open().unwrap();
            for (plan, pod) in plans.iter().zip([&a, &b]) {
                let netns = Netns::open(&pod.path()).unwrap();
                assert!(!netns.is_own().unwrap());
                let made = link::create(&mut rtnl, plan, &netns).unwrap();
                assert_eq!((made.mtu, made.alias.as_str()), (1400, plan.alias.as_str()));
                for address in &plan.addresses {
                    assert!(!route::in_use(&mut rtnl, *address, false).unwrap());
                    route::add(&mut rtnl, *address, made.index).unwrap();
                    route::add(&mut rtnl, *address, made.index).unwrap();
                    assert!(route::in_use(&mut rtnl, *address, false).unwrap());
                }
                assert_eq!(link::by_name(&mut rtnl, &plan.host_name).unwrap(), Some(made));
            }
            assert_eq!(route::locals(&mut rtnl).unwrap().len(), 4);
        })
        .unwrap();
    for address in ["10.42.0.2", "fd42::2"] {
        assert!(a.pings(address), "{address}\n{}", a.run(&["ip", "-6", "route"]));
    }
    assert!(b.pings("10.42.0.1"));
    let (inside, name) = (Netns::open(&b.path()).unwrap(), plans[1].host_name.clone());
    let differences = || {
        let found = Netns::open(&node.path()).unwrap().run(|| inspect::differences(&plans[1], &inside));
        found.unwrap().unwrap()
    };
    assert!(differences().is_empty(), "{:?}", differences());
    node.run(&["ip", "link", "add", "br0", "type", "bridge"]);
    node.run(&["ip", "link", "set", &name, "master", "br0"]);
    let said = format!("interface {name} is a part of another interface, which takes its packets");
    assert_eq!(differences(), [said]);
    Netns::open(&node.path())
        .unwrap()
        .run(|| {
            let mut rtnl = Rtnl::open().unwrap();
            let name = &plans[0].host_name;
            assert!(link::delete(&mut rtnl, name).unwrap());
            assert!(!link::delete(&mut rtnl, name).unwrap());
            assert_eq!(link::by_name(&mut rtnl, name).unwrap(), None);
            assert_eq!(route::locals(&mut rtnl).unwrap().len(), 2);
            route::delete(&mut rtnl, "10.42.0.1".parse::<IpAddr>().unwrap()).unwrap();
            route::delete(&mut rtnl, "10.42.0.2".parse::<IpAddr>().unwrap()).unwrap();
            assert_eq!(route::locals(&mut rtnl).unwrap().len(), 1);
        })
        .unwrap();
    assert!(!a.run(&["ip", "-o", "link"]).contains("eth0"));
}

#[test]
#[ignore = "needs root: make test"]
fn an_address_of_a_block_is_free_and_one_of_the_node_is_in_use() {
    let node = Ns::new("node");
    node.run(&["ip", "route", "add", "unreachable", "10.42.0.0/26", "proto", "84", "metric", "4096"]);
    node.run(&["ip", "route", "add", "unreachable", "10.43.0.0/26", "proto", "84", "metric", "512"]);
    node.run(&["ip", "route", "add", "unreachable", "fd42::/122", "proto", "84", "metric", "4096"]);
    node.run(&["ip", "addr", "add", "10.42.0.9/32", "dev", "lo"]);
    node.run(&["ip", "link", "add", "up0", "mtu", "1430", "type", "veth", "peer", "name", "up1"]);
    node.run(&["ip", "addr", "add", "172.31.1.11/24", "dev", "up0"]);
    node.run(&["ip", "link", "set", "up0", "up"]);
    node.run(&["ip", "link", "add", "wide0", "mtu", "1450", "up", "type", "veth", "peer", "name", "wide1"]);
    node.run(&["ip", "addr", "add", "172.31.9.9/24", "dev", "wide0"]);
    let hops = ["nexthop", "dev", "up0", "nexthop", "dev", "wide0"];
    node.run(&[&["ip", "route", "add", "192.0.2.8/29"], &hops[..]].concat());
    Netns::open(&node.path())
        .unwrap()
        .run(|| {
            let mut rtnl = Rtnl::open().unwrap();
            let mut used = |text: &str| route::in_use(&mut rtnl, text.parse().unwrap(), false).unwrap();
            assert!(used("10.42.0.9"));
            assert!(!used("10.42.0.10"));
            assert!(!used("fd42::5"));
            assert!(!used("192.0.2.1"));
            let mut blocks = route::unreachable(&mut rtnl).unwrap();
            blocks.sort();
            assert_eq!(blocks, ["10.42.0.0/26".parse().unwrap(), "fd42::/122".parse().unwrap()]);
            let mut uplinks = |own: &str, others: &[&str]| {
                let others: Vec<_> = others.iter().map(|other| other.parse().unwrap()).collect();
                uplink::read(&mut rtnl, &[own.parse().unwrap()], others).unwrap()
            };
            let ways = |found: uplink::Uplinks| found.indices.len();
            assert_eq!(ways(uplinks("172.31.1.11", &[])), 1, "that with the address");
            assert_eq!(ways(uplinks("172.31.1.11", &["192.0.2.9"])), 2, "and those to others");
            assert_eq!(ways(uplinks("10.42.0.9", &["192.0.2.1"])), 0, "lo is none");
            let mut mtu = |own: &str, others: &[&str]| uplinks(own, others).mtu;
            assert_eq!(mtu("172.31.1.11", &["192.0.2.1"]), Some(1430));
            assert_eq!(mtu("172.31.1.12", &["172.31.1.13"]), None);
            let routed = "10.42.0.9";
            assert_eq!([mtu(routed, &[]), mtu(routed, &["192.0.2.1"])], [None, None], "lo's is nobody's");
            assert_eq!(mtu(routed, &["172.31.1.12"]), Some(1430));
            assert_eq!(mtu(routed, &["172.31.1.12", "192.0.2.9"]), Some(1450), "by either next hop");
            let several = ["172.31.9.9", "172.31.1.11"].map(|own| own.parse().unwrap());
            let found = uplink::read(&mut rtnl, &several, []).unwrap();
            assert_eq!(found.mtu, Some(1450), "of the one that the node is known by");
        })
        .unwrap();
}

#[test]
#[ignore = "needs root: make test"]
fn a_host_route_of_another_metric_is_not_felixs_whatever_protocol_it_names() {
    let node = Ns::new("metric");
    node.run(&["ip", "link", "set", "lo", "up"]);
    for (address, metric) in [("10.80.0.1", "1"), ("fd80::1", "65")] {
        node.run(&["ip", "route", "add", address, "dev", "lo", "proto", "85", "metric", metric]);
    }
    Netns::open(&node.path())
        .unwrap()
        .run(|| {
            let mut rtnl = Rtnl::open().unwrap();
            assert!(route::locals(&mut rtnl).unwrap().is_empty());
            for address in ["10.80.0.2", "fd80::2"].map(|text| text.parse::<IpAddr>().unwrap()) {
                route::add(&mut rtnl, address, 1).unwrap();
                assert_eq!(route::locals(&mut rtnl).unwrap().into_keys().collect::<Vec<_>>(), [address]);
                route::delete(&mut rtnl, address).unwrap();
            }
        })
        .unwrap();
}
