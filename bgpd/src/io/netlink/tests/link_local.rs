//! Routes over link-local and IPv6 next hops in a real kernel.

use super::*;
use crate::scoped::ScopedAddr;

fn index(netns: &Netns, name: &str) -> u32 {
    let shown = netns.ip(&format!("-o link show {name}"));
    shown.split(':').next().unwrap().parse().unwrap()
}

#[test]
#[ignore = "needs root: make test"]
fn routes_over_link_local_next_hops_are_read_back_as_they_were_written() {
    let (node, router) = (Netns::new("n1"), Netns::new("r"));
    for link in ["0", "1"] {
        node.ip(&format!(
            "link add eth{link} address 02:00:00:00:00:1{link} type veth peer name e{link} netns {}",
            router.name
        ));
        // One address on both links.
        router.ip(&format!("link set e{link} address 02:00:00:00:00:01"));
        router.ip(&format!("link set e{link} up"));
        node.ip(&format!("link set eth{link} up"));
    }
    router.exec("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    let gateway: IpAddr = "fe80::ff:fe00:1".parse().unwrap();
    let on = |name: &str| ScopedAddr::new(gateway, index(&node, name));
    let fib = fib(&node, alone());
    let apply = |prefix: &str, hops: Vec<ScopedAddr>| {
        fib.fib.apply(vec![Change { prefix: prefix.parse().unwrap(), next_hops: hops }]);
    };
    for (prefix, both) in [("10.1.0.0/24", "10.2.0.0/24"), ("fd01::/64", "fd02::/64")] {
        apply(prefix, vec![on("eth0")]);
        apply(both, vec![on("eth0"), on("eth1")]);
    }
    assert_eq!(fib.settled().problems, []);
    let v4 = node.ip("route show proto 84");
    assert!(v4.contains("10.1.0.0/24 via inet6 fe80::ff:fe00:1 dev eth0"), "{v4}");
    assert_eq!(v4.matches("nexthop via inet6 fe80::ff:fe00:1 dev eth").count(), 2, "{v4}");
    let v6 = node.ip("-6 route show proto 84");
    assert!(v6.contains("fd01::/64 via fe80::ff:fe00:1 dev eth0"), "{v6}");

    // What a look at the kernel finds is what was written: nothing is put right.
    node.ip("addr add 192.0.2.1/32 dev lo");
    node.ip("addr add fd00::1/128 dev lo");
    within(SECOND, "the kernel was looked at", || fib.show("10.1.0.0/24").hops[0].installed);
    assert_eq!((fib.settled().repairs, node.ip("route show proto 84")), (0, v4.clone()));

    // Real packets, of both families, without an IPv4 address on the link.
    router.ip("addr add 10.1.0.9/32 dev lo");
    router.ip("addr add fd01::9/128 dev lo");
    router.ip(&format!("route add 192.0.2.1/32 via inet6 {} dev e0", link_local_of(&node, "eth0")));
    router.ip(&format!("route add fd00::1/128 via {} dev e0", link_local_of(&node, "eth0")));
    for command in ["ping -c1 -W1 -I 192.0.2.1 10.1.0.9", "ping -c1 -W1 -I fd00::1 fd01::9"] {
        within(SECOND * 5, command, || node.succeeds(command));
    }

    node.ip("link set eth0 down");
    within(SECOND, "the other link carries all", || {
        let now = node.ip("route show proto 84");
        !now.contains("dev eth0") && now.contains("10.2.0.0/24 via inet6 fe80::ff:fe00:1 dev eth1")
    });
    node.ip("link set eth0 up");
    within(SECOND, "and both again", || node.ip("route show proto 84") == v4);
}

fn link_local_of(netns: &Netns, name: &str) -> String {
    let shown = netns.ip(&format!("-o -6 addr show dev {name} scope link"));
    shown.split_whitespace().nth(3).unwrap().split('/').next().unwrap().to_owned()
}
