//! The links on which a node's address may stand, as the kernel tells them.

use super::*;

#[test]
#[ignore = "needs root: make test"]
fn an_address_on_a_bridge_within_the_machine_is_told_until_another_node_is_reached_by_it() {
    let (node, _router) = one_node();
    let uplink = fib(&node, cluster("n1", Protocol::None, When::Always));
    assert_eq!(uplink.settled().problems, [], "a veth by which the other nodes are reached");
    drop(uplink);
    node.ip("link add docker0 type bridge");
    node.ip("addr add 172.17.0.1/16 dev docker0");
    node.ip("link set docker0 up");
    let mut config = cluster("n1", Protocol::None, When::Always);
    config.local.v4 = Some([172, 17, 0, 1].into());
    let fib = fib(&node, config);
    let problems = fib.settled().problems;
    assert!(problems.len() == 1 && problems[0].condition == Condition::Address, "{problems:?}");
    let text = &problems[0].text;
    assert!(
        text.contains("on docker0, a bridge without a wire") && text.contains("eth0, which has 172.31.1.11"),
        "{text}"
    );
    // A container in it is no way out; a route to another node is.
    node.ip("link add veth1 type veth peer name inside");
    node.ip("link set veth1 master docker0");
    assert_eq!(fib.settled().problems, problems);
    node.ip("route add 172.31.2.0/24 dev docker0");
    within(SECOND, "another node is reached by it", || fib.status().problems.is_empty());
}
