//! Neighbours are known before packets are sent to them.

use super::*;

#[test]
#[ignore = "needs root: make test"]
fn who_is_sent_to_plainly_from_now_on_has_been_found_before() {
    // An address that is still looked at for duplicates asks for nobody.
    let prepare = "sysctl -qw net.ipv6.conf.default.accept_dad=0";
    let racks = Racks::prepared(Protocol::VXLAN, When::Always, prepare);
    let six = |protocol| {
        let mut config = cluster("n1", protocol, When::Always);
        config.pools.push(Pool {
            name: "six".to_owned(),
            cidr: "fd42::/64".parse().unwrap(),
            ..config.pools[0].clone()
        });
        config.local.v6 = "fd31:1::11".parse().ok();
        config.nodes[0].v6 = "fd31:1::12".parse().ok();
        config
    };
    let [(n1, fib), (n2, _), _] = racks.nodes.as_slice() else { panic!("three nodes") };
    n1.ip("addr add fd31:1::11/64 dev eth0 nodad");
    n2.ip("addr add fd31:1::12/64 dev eth0 nodad");
    fib.fib.configure(six(Protocol::VXLAN));
    fib.apply(&[("fd42::2:0/112", &["fd31:1::12"])]);
    fib.settled();
    for family in ["-4", "-6"] {
        n1.ip(&format!("{family} neigh flush dev eth0"));
    }
    fib.fib.configure(six(Protocol::None));
    fib.settled();
    let known = n1.ip("neigh show dev eth0");
    for address in ["172.31.1.12 lladdr", "fd31:1::12 lladdr"] {
        assert!(known.contains(address), "{address}: {known}");
    }
    // Who does not answer is waited for no longer than it takes to notice.
    n1.ip("-6 neigh flush dev eth0");
    fib.fib.configure(six(Protocol::VXLAN));
    fib.settled();
    n2.ip("link set eth0 down");
    let start = Instant::now();
    fib.fib.configure(six(Protocol::None));
    fib.settled();
    assert!(start.elapsed() < SECOND * 2, "{:?}", start.elapsed());
    assert!(n1.ip("-6 route show fd42::2:0/112").contains("via fd31:1::12"));
}
