//! VXLAN between nodes that have IPv6 alone.

use super::*;

/// A node of its own subnet behind the router, with what stands for a pod of each family, and its FIB.
fn behind(router: &Netns, number: u8) -> (Netns, Node) {
    let node = Netns::new(&format!("n{number}"));
    node.exec("sysctl -qw net.ipv6.conf.all.forwarding=1 net.ipv4.ip_forward=1");
    node.ip(&format!("link add eth0 type veth peer name p{number} netns {}", router.name));
    for command in [
        format!("addr add fd31:{number}::11/64 dev eth0 nodad"),
        "link set eth0 up".to_owned(),
        format!("addr add 10.42.{number}.5/32 dev lo"),
        format!("addr add fd42::{number}:5/128 dev lo"),
    ] {
        node.ip(&command);
    }
    router.ip(&format!("addr add fd31:{number}::1/64 dev p{number} nodad"));
    router.ip(&format!("link set p{number} up"));
    node.ip(&format!("-6 route add default via fd31:{number}::1"));
    let of = |number: u8| NodeAddresses {
        name: format!("n{number}"),
        v4: None,
        v6: format!("fd31:{number}::11").parse().ok(),
    };
    let mut config = cluster(&format!("n{number}"), Protocol::VXLAN, When::Always);
    let six = Pool { name: "six".to_owned(), cidr: "fd42::/64".parse().unwrap(), ..config.pools[0].clone() };
    config.pools.push(six);
    config.own.insert(format!("fd42::{number}:0/112").parse().unwrap());
    config.tunnel_sources.push(format!("fd42::{number}:0").parse().unwrap());
    (config.local, config.nodes) = (of(number), vec![of(3 - number)]);
    let fib = fib(&node, config);
    let (other, hop) = (3 - number, format!("fd31:{}::11", 3 - number));
    fib.apply(&[(&format!("10.42.{other}.0/26"), &[&hop]), (&format!("fd42::{other}:0/112"), &[&hop])]);
    (node, fib)
}

#[test]
#[ignore = "needs root: make test"]
fn nodes_with_ipv6_alone_carry_both_families_in_vxlan() {
    let router = Netns::new("r");
    router.exec("sysctl -qw net.ipv6.conf.all.forwarding=1");
    let [(n1, first), (n2, second)] = [1, 2].map(|number| behind(&router, number));
    for fib in [&first, &second] {
        assert_eq!(fib.settled().problems, []);
    }
    for (family, pod, own) in [("-4", "10.42.2.5", "10.42.1.5"), ("-6", "fd42::2:5", "fd42::1:5")] {
        // As large as the route says, and larger.
        for size in ["56", "1382", "4000"] {
            let line = format!("ping {family} -c 1 -W 2 -I {own} -s {size} {pod}");
            within(SECOND * 3, &line, || n1.succeeds(&line));
        }
        let route = n1.ip(&format!("{family} route get {pod}"));
        assert!(route.contains("dev twill-vxlan"), "{route}");
    }
    assert!(n1.ip("route show 10.42.2.0/26").contains("mtu 1430"), "{}", n1.ip("route show 10.42.2.0/26"));
    // What is read back is what was written.
    n1.ip("addr add 192.0.2.9/32 dev lo");
    n1.ip("link set eth0 mtu 1400");
    within(SECOND, "the kernel was looked at", || n1.ip("route show 10.42.2.0/26").contains("mtu 1330"));
    assert_eq!(first.settled().repairs, 0);
    n1.ip("route flush proto 84");
    within(SECOND, "the route is back", || n1.ip("route show 10.42.2.0/26").contains("mtu 1330"));
    assert!(n1.succeeds("ping -c 1 -W 2 -I 10.42.1.5 10.42.2.5"));
    assert_eq!(n2.ip("-6 neigh show dev twill-vxlan nud permanent").lines().count(), 1);
}
