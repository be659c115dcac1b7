//! felix's routes to workloads outside of our blocks.

use super::*;

#[test]
#[ignore = "needs root: make test"]
fn workloads_outside_of_the_blocks_are_told_as_they_come_and_go() {
    let (node, _router) = one_node();
    let (sender, told) = channel();
    let feedback = move |feedback| {
        if let Feedback::Hosts(hosts) = feedback {
            drop(sender.send(hosts));
        }
    };
    let wanted = cluster("n1", Protocol::None, When::Always);
    let (fib, _adopted) = node.enter(|| start(wanted.clone(), feedback).unwrap());
    let next = || {
        let hosts = told.recv_timeout(SECOND * 10).unwrap();
        assert!(hosts.complete);
        hosts.prefixes.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(next().is_empty());
    for name in ["twl00000000001", "twl00000000002"] {
        node.ip(&format!("link add {name} type veth peer name p{}", &name[3..]));
        node.ip(&format!("link set p{} up", &name[3..]));
        node.ip(&format!("link set {name} up"));
    }
    // In a block of ours, by another's word, and with another metric: none of them counts.
    node.ip("route add 10.42.1.5/32 dev twl00000000001 proto 85");
    node.ip("route add 10.42.7.7/32 dev twl00000000001 proto static");
    node.ip("route add 10.42.7.8/32 dev twl00000000001 proto 85 metric 9");
    node.ip("route add 10.42.7.9/32 dev twl00000000001 proto 85");
    assert_eq!(next(), ["10.42.7.9/32"]);
    node.ip("route add 10.42.8.9/32 dev twl00000000002 proto 85");
    assert_eq!(next(), ["10.42.7.9/32", "10.42.8.9/32"]);
    node.ip("route del 10.42.7.9/32 dev twl00000000001 proto 85");
    assert_eq!(next(), ["10.42.8.9/32"]);
    // Of IPv4 routes that go with their link the kernel says nothing.
    node.ip("link del twl00000000002");
    assert!(next().is_empty());
    fib.configure(Config { own: ["10.42.2.0/26".parse().unwrap()].into(), ..wanted });
    assert_eq!(next(), ["10.42.1.5/32"], "the block that it lies in is not ours any more");
}
