//! A speaker that is about to go says so first (RFC 8326).

use super::*;
use twill_crds::control::RouteView;

/// Node 3 hears of 1 and 2, which both tell a prefix: by eBGP or inside one AS.
fn net(asn: u32) -> Net {
    let mut net = Net::new(&[(1, asn), (2, asn), (3, 65003)], &[(1, 3), (2, 3)], |_, _, peer| {
        peer.next_hop = NextHopRule::Own;
    });
    for node in [1, 2] {
        net.reconfigure(node, |config| config.originate = ["10.9.0.0/16".parse().unwrap()].into());
    }
    net
}

#[test]
fn others_are_preferred_before_it_goes_and_no_longer_when_it_stays() {
    for asn in [65001, 65003] {
        let mut net = net(asn);
        let ways = |net: &Net| -> Vec<String> {
            let all = net.used(3).into_iter().filter(|route| route.starts_with("10.9."));
            all.filter_map(|route| route.split(' ').nth(2).map(str::to_owned)).collect()
        };
        assert_eq!(ways(&net), ["10.0.0.1", "10.0.0.2"], "both share the load, AS {asn}");
        net.reconfigure(1, |config| config.leaving = true);
        assert_eq!(ways(&net), ["10.0.0.2"], "AS {asn}");
        let told = net.view(3, RouteView::Taken, Some("n1"));
        assert!(told.iter().any(|route| route.contains("pref=0") && route.ends_with("graceful-shutdown")), "{told:?}");
        net.reconfigure(1, |config| config.leaving = false);
        assert_eq!(ways(&net), ["10.0.0.1", "10.0.0.2"], "AS {asn}");
    }
}
