//! What a real kernel refuses to set.

use super::*;

#[test]
#[ignore = "needs root: make test"]
fn an_address_that_the_kernel_refuses_is_said_and_there_soon_after_it_would_be_taken() {
    let (node, _router) = one_node();
    node.exec("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
    let mut config = cluster("n1", Protocol::VXLAN, When::Always);
    let six = Pool { name: "six".to_owned(), cidr: "fd42::/64".parse().unwrap(), ..config.pools[0].clone() };
    config.pools.push(six);
    config.tunnel_sources.push("fd42::1:0".parse().unwrap());
    let fib = fib(&node, config);
    let problems = fib.settled().problems;
    assert_eq!(problems.len(), 2, "{problems:?}");
    for (problem, what) in problems.iter().zip(["address fd42::1:0", "neighbour fe80::ac1f:10c and 1 more"]) {
        assert_eq!(problem.condition, Condition::Setting);
        for part in ["device twill-vxlan", what, "net.ipv6.conf.twill-vxlan.disable_ipv6=0"] {
            assert!(problem.text.contains(part), "{part}: {}", problem.text);
        }
    }
    node.exec("sysctl -qw net.ipv6.conf.twill-vxlan.disable_ipv6=0");
    within(SECOND * 5, "it is tried again", || node.ip("addr show dev twill-vxlan").contains("fd42::1:0"));
    within(SECOND, "and nothing is said any more", || fib.status().problems.is_empty());
    assert!(fib.status().settings_refused > 0);
}
