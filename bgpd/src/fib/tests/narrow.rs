//! Uplinks that are too narrow for IPv6 inside of VXLAN.

use super::*;

#[test]
fn a_tunnel_that_is_too_narrow_for_ipv6_is_said_and_ipv4_goes_on() {
    let mut both = config(Protocol::VXLAN, When::CrossSubnet);
    both.pools.push(Pool { name: "six".to_owned(), cidr: net("fd42::/64"), ..both.pools[0].clone() });
    both.tunnel_sources.push(ip("fd42::1:0"));
    both.nodes[1].v6 = "fd31:2::11".parse().ok();
    for (mtu, fits) in [(1330, true), (1329, false)] {
        let mut narrow = world();
        narrow.links.get_mut(&UPLINK).unwrap().mtu = mtu;
        narrow.links.get_mut(&VXLAN).unwrap().mtu = mtu - 50;
        narrow.neighbours.clear();
        let steps = tunnel::additions(&both, &narrow, &BTreeMap::new());
        let six = steps.iter().filter(|step| match step {
            tunnel::Step::AddAddress(link, address) => *link == VXLAN && address.is_ipv6(),
            tunnel::Step::AddNeighbour(_, address, _) => address.is_ipv6(),
            _ => false,
        });
        assert_eq!(six.count(), if fits { 4 } else { 0 });
        let mut table = Table::default();
        table.configure(both.clone());
        table.observe(narrow, Vec::new());
        table.apply(vec![change("fd42::3:0/112", &["fd31:2::11"]), change("10.42.3.0/26", &["172.31.2.11"])]);
        let written: Vec<String> = table.difference().iter().map(|step| step.key().0.to_string()).collect();
        assert!(written.contains(&"10.42.3.0/26".to_owned()), "{written:?}");
        assert_eq!(written.contains(&"fd42::3:0/112".to_owned()), fits, "{written:?}");
        let problems = table.status().problems;
        assert_eq!(problems.len(), usize::from(!fits), "{problems:?}");
        for problem in problems {
            assert_eq!(problem.condition, Condition::Tunnel);
            for part in ["IPPool six", "leaves 1279", "1280", "1330 or more"] {
                assert!(problem.text.contains(part), "{part}: {}", problem.text);
            }
        }
    }
}
