//! Nodes whose kernel checks sources strictly, as some distributions have it.

use super::{Racks, cluster};
use twill_crds::{Protocol, When};

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
