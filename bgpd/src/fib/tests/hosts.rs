//! Workloads outside of this node's blocks.

use super::*;
use crate::fib::Hosts;
use crate::fib::hosts::HostRoute;

const WORKLOAD: u32 = 20;

fn with_hosts(hosts: &[(&str, u32)]) -> World {
    let mut world = world();
    world.links.insert(WORKLOAD, link(WORKLOAD, "twl0123456789a", 1500, LinkKind::Other));
    world.hosts = hosts.iter().map(|(address, link)| HostRoute { net: net(address), link: *link }).collect();
    world
}

#[test]
fn what_lies_in_a_pool_and_in_no_block_of_ours_is_told_while_its_route_is_there() {
    let mut table = Table::default();
    let config = config(Protocol::None, When::Always);
    table.configure(Config { complete: false, ..config.clone() });
    table.observe(world(), Vec::new());
    assert_eq!(table.host_changes(), Some(Hosts::default()), "not all by this configuration");
    assert!(!table.configure(config.clone()), "the kernel need not be read again");
    assert_eq!(table.host_changes(), Some(Hosts { complete: true, ..Hosts::default() }));

    let own = config.own.iter().next().unwrap().hosts().nth(5).unwrap().to_string() + "/32";
    let hosts =
        [(own.as_str(), WORKLOAD), ("10.42.9.9/32", WORKLOAD), ("198.51.100.9/32", WORKLOAD), ("10.42.9.8/32", UPLINK)];
    table.observe(with_hosts(&hosts), Vec::new());
    let told = Hosts { prefixes: [net("10.42.9.9/32")].into(), complete: true };
    assert_eq!((table.host_changes(), table.host_changes()), (Some(told), None));
    let more = Config { own: config.own.iter().copied().chain([net("10.42.9.0/26")]).collect(), ..config.clone() };
    assert!(table.configure(more), "routes outside of other blocks are followed");
    assert_eq!(table.host_changes().unwrap().prefixes, [].into(), "its block is ours now");
    assert!(table.configure(config));
    assert_eq!(table.host_changes().unwrap().prefixes.len(), 1);
    table.observe(with_hosts(&[]), Vec::new());
    assert_eq!(table.host_changes().unwrap().prefixes, [].into());
}

#[test]
fn a_workload_of_another_node_inside_of_our_block_gets_its_route() {
    let mut table = Table::default();
    let config = config(Protocol::None, When::Always);
    let moved = IpNet::from(config.own.iter().next().unwrap().hosts().nth(5).unwrap());
    table.configure(config);
    table.observe(world(), Vec::new());
    table.apply(vec![Change { prefix: moved, next_hops: vec![ip("172.31.1.12").into()] }]);
    let steps = table.difference();
    assert!(
        steps.iter().any(|step| matches!(step, Step::Replace(prefix, METRIC_LEARNED, _) if *prefix == moved)),
        "{steps:?}"
    );
}
