//! Nodes whose kernel checks sources strictly, as some distributions have it.

use super::*;

#[test]
#[ignore = "needs root: make test"]
fn a_packet_is_taken_whose_way_back_is_another_one() {
    for whose in ["default", "all"] {
        let strict = format!("sysctl -qw net.ipv4.conf.{whose}.rp_filter=1");
        let racks = Racks::prepared(Protocol::VXLAN, When::CrossSubnet, &strict);
        let n1 = &racks.nodes[0].0;
        // From the node's own address: through the tunnel there, plainly back.
        assert!(n1.succeeds("ping -c1 -W1 -I 172.31.1.11 10.42.3.5"), "{whose}");
        // One node has heard of another encapsulation, its neighbour not yet.
        for (first, tunnelled) in [(0, true), (1, false)] {
            racks.configure(Protocol::None, When::CrossSubnet);
            racks.nodes[first].1.fib.configure(cluster(&format!("n{}", first + 1), Protocol::VXLAN, When::Always));
            racks.nodes[first].1.settled();
            assert_eq!(racks.ping(2), (true, tunnelled), "{whose}: n{} is the first", first + 1);
        }
    }
}

#[test]
#[ignore = "needs root: make test"]
fn the_uplink_and_the_tunnels_stay_loose_and_no_other_link_is_touched() {
    let (node, _router) = one_node();
    let of = |link: &str| node.exec(&format!("cat /proc/sys/net/ipv4/conf/{link}/rp_filter")).trim().to_owned();
    let set = |link: &str, value: u8| drop(node.exec(&format!("sysctl -qw net.ipv4.conf.{link}.rp_filter={value}")));
    node.ip("link add other0 type veth peer name other1");
    set("eth0", 1);
    set("other0", 1);
    let fib = fib(&node, cluster("n1", Protocol::None, When::Always));
    fib.settled();
    assert_eq!((of("eth0"), of("other0")), ("1".to_owned(), "1".to_owned()), "nothing goes through a tunnel");
    fib.fib.configure(cluster("n1", Protocol::VXLAN, When::CrossSubnet));
    fib.settled();
    assert_eq!((of("eth0"), of("other0")), ("2".to_owned(), "1".to_owned()));
    for link in ["eth0", "twill-vxlan"] {
        nothing_is_pending();
        set(link, 1);
        within(SECOND, "loose again", || of(link) == "2");
    }
    // For all: what is greater counts.
    set("eth0", 0);
    nothing_is_pending();
    set("all", 1);
    within(SECOND, "loose though all are strict", || of("eth0") == "2");
    assert_eq!(of("other0"), "1");
}

#[test]
#[ignore = "needs root: make test"]
fn a_node_whose_address_is_routed_has_its_uplinks_loose_and_its_tunnels_as_wide_as_they_are() {
    let (node, router) = (Netns::new("n1"), Netns::new("r"));
    for number in [1, 2] {
        node.ip(&format!("link add eth{number} type veth peer name e{number} netns {}", router.name));
        node.ip(&format!("addr add 192.0.2.{number}1/28 dev eth{number}"));
        router.ip(&format!("link set e{number} up"));
        node.ip(&format!("link set eth{number} up mtu 1600"));
        node.exec(&format!("sysctl -qw net.ipv4.conf.eth{number}.rp_filter=1"));
    }
    node.ip("addr add 172.31.1.11/32 dev lo");
    node.ip("route add default nexthop via 192.0.2.1 dev eth1 nexthop via 192.0.2.17 dev eth2");
    let fib = fib(&node, cluster("n1", Protocol::VXLAN, When::Always));
    assert_eq!(fib.settled().problems, []);
    for link in ["eth1", "eth2"] {
        let value = node.exec(&format!("cat /proc/sys/net/ipv4/conf/{link}/rp_filter"));
        assert_eq!(value.trim(), "2", "{link}");
    }
    let tunnel = node.ip("link show dev twill-vxlan");
    assert!(tunnel.contains("mtu 1550"), "{tunnel}");
}

/// Each change of a link brings another look at the kernel, 200 ms later at most; that one is not to find what the next event has to be heard for.
fn nothing_is_pending() {
    std::thread::sleep(Duration::from_millis(400));
}
