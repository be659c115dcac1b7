//! Settings that tunnels need and that the kernel refuses.

use super::*;
use crate::fib::route::Transport;

fn refused(table: &mut Table, step: &tunnel::Step) -> bool {
    table.device_result(step, Some(Failure::Other("Operation not permitted".to_owned())))
}

fn said(table: &Table) -> Vec<String> {
    let problems = table.status().problems.into_iter();
    problems.filter(|problem| problem.condition == Condition::Setting).map(|problem| problem.text).collect()
}

#[test]
fn a_setting_that_is_refused_is_said_with_the_way_out_counted_and_tried_again_until_it_is_taken() {
    let mut table = table(config(Protocol::VXLAN, When::CrossSubnet));
    table.difference();
    assert!(!table.devices_failed());
    let why = "it loses packets";
    let cases: [(tunnel::Step, &[&str]); 4] = [
        (
            tunnel::Step::Loosen(UPLINK, "eth0.7".to_owned()),
            &["link eth0.7", "/proc/sys/net/ipv4/conf/eth0.7/rp_filter"],
        ),
        (
            tunnel::Step::DisableChecksumOffload { transport: Transport::Vxlan, why },
            &[
                "device twill-vxlan",
                why,
                "ethtool -K twill-vxlan tx off",
                "tunnelChecksumOffload of BGPConfiguration default",
            ],
        ),
        (
            tunnel::Step::AddAddress(VXLAN, ip("10.42.1.0")),
            &["device twill-vxlan", "10.42.1.0", "ip addr show dev twill-vxlan"],
        ),
        (
            tunnel::Step::AddNeighbour(VXLAN, ip("172.31.1.12"), [2; 6]),
            &["device twill-vxlan", "172.31.1.12", "net.ipv4.neigh.default.gc_thresh3"],
        ),
    ];
    for (number, (step, parts)) in cases.iter().enumerate() {
        table.begin_devices();
        assert!(refused(&mut table, step), "it is new");
        table.begin_devices();
        assert!(!refused(&mut table, step), "it was refused before");
        let texts = said(&table);
        assert_eq!(texts.len(), 1, "{texts:?}");
        for part in parts.iter().chain(&["Operation not permitted", "it is tried again"]) {
            assert!(texts[0].contains(part), "{part}: {}", texts[0]);
        }
        assert!(table.devices_failed());
        assert_eq!(table.status().settings_refused, 2 * (number as u64 + 1));
        table.device_result(step, None);
        assert_eq!((table.devices_failed(), said(&table)), (false, vec![]));
    }
}

#[test]
fn what_no_pool_needs_is_no_trouble() {
    let six = tunnel::Step::AddNeighbour(VXLAN, ip("fe80::1"), [2; 6]);
    let strict = tunnel::Step::Loosen(VXLAN, VXLAN_DEVICE.to_owned());
    let offload = tunnel::Step::DisableChecksumOffload { transport: Transport::Ipip, why: "" };
    let gone = tunnel::Step::RemoveNeighbour(VXLAN, ip("172.31.1.12"));
    for (protocol, steps) in [(Protocol::VXLAN, [&six, &offload, &gone]), (Protocol::None, [&six, &strict, &offload])] {
        let mut table = table(config(protocol, When::Always));
        table.difference();
        for step in steps {
            assert!(!refused(&mut table, step), "{step:?}");
        }
        assert_eq!((table.devices_failed(), said(&table)), (false, vec![]));
    }
    let ipip = config(Protocol::IPIP, When::Always);
    let four = tunnel::Step::AddNeighbour(VXLAN, ip("172.31.2.11"), [2; 6]);
    assert!(!refused(&mut table(ipip), &four), "nothing goes by that device");
    // Between nodes without IPv4 a route of IPv4 names the next hop by its stand-in.
    let mut bare = config(Protocol::VXLAN, When::Always);
    bare.local = NodeAddresses { name: "n1".to_owned(), v4: None, v6: "fd31:1::11".parse().ok() };
    bare.nodes = vec![NodeAddresses { name: "n2".to_owned(), v4: None, v6: "fd31:2::11".parse().ok() }];
    assert!(refused(&mut table(bare), &six));
    let mut with_six = config(Protocol::VXLAN, When::Always);
    with_six.pools.push(Pool { name: "six".to_owned(), cidr: net("fd42::/64"), ..with_six.pools[0].clone() });
    let mut table = table(with_six);
    assert!(refused(&mut table, &six));
    assert!(!refused(&mut table, &tunnel::Step::AddAddress(IPIP, ip("fd42::1"))), "IP-in-IP carries no IPv6");
}
