//! Checksum offload of a real tunnel device.

use super::*;
use crate::fib::offload::Fault;
use crate::fib::route::Transport;
use twill_crds::ChecksumOffload;

/// As if what stands under this test's node were an interface that is known to get VXLAN wrong.
static VETH: &[Fault] = &[Fault {
    transports: &[Transport::Vxlan],
    since: None,
    before: None,
    driver: Some("veth"),
    why: "it is of this test",
}];

#[test]
#[ignore = "needs root: make test"]
fn a_fault_that_is_known_is_turned_off_and_stays_so_as_the_operator_says() {
    let (node, _router) = one_node();
    let cluster = cluster("n1", Protocol::VXLAN, When::Always);
    let fib = fib(&node, cluster.clone());
    let tool = node.enter(|| super::super::ethtool::Ethtool::open().unwrap());
    let on = || tool.checksum_offload("twill-vxlan");
    fib.settled();
    assert_eq!((on(), fib.status().offloads_disabled), (Some(true), 0), "nothing is known of this machine");

    fib.fib.configure(Config { offload_faults: VETH, ..cluster.clone() });
    assert_eq!((fib.settled().offloads_disabled, on()), (1, Some(false)));
    tool.set_checksum_offload("twill-vxlan", true).unwrap();
    within(SECOND, "off again after somebody has turned it on", || on() == Some(false));
    within(SECOND, "and counted", || fib.status().offloads_disabled == 2);
    node.ip("link del twill-vxlan");
    within(SECOND, "a new device has it off, too", || on() == Some(false));

    let left = Config { offload_faults: VETH, checksum_offload: ChecksumOffload::Unchanged, ..cluster.clone() };
    fib.fib.configure(left);
    fib.settled();
    tool.set_checksum_offload("twill-vxlan", true).unwrap();
    // What would have been turned off by the word of this event has been when the next one is heard of.
    node.ip("link set twill-vxlan down");
    within(SECOND, "the event is heard", || node.ip("link show dev twill-vxlan").contains(",UP"));
    assert_eq!(on(), Some(true), "the machine's operator has it on");

    fib.fib.configure(Config { checksum_offload: ChecksumOffload::Disabled, ..cluster });
    fib.settled();
    assert_eq!(on(), Some(false), "off without a known fault");
}
