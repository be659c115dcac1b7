//! `maxPrefixes`: what happens to a peer that tells too much.

use super::*;
use twill_crds::control::RouteView;

const PAIR: [(u8, u32); 2] = [(1, 65001), (2, 65002)];

/// Node 1 tells `count` prefixes, of which node 2 takes `limit`.
fn net(count: u8, limit: u32, then: Beyond) -> Net {
    let mut net = Net::new(&PAIR, &[(1, 2)], |me, _, peer| {
        peer.max_prefixes = (me == 2).then_some(MaxPrefixes { limit, then });
    });
    net.tell(count);
    net
}

impl Net {
    /// Node 1 has so many prefixes.
    fn tell(&mut self, count: u8) {
        let own =
            (0..count).map(|i| format!("10.1.{i}.0/24").parse().unwrap()).collect::<std::collections::BTreeSet<_>>();
        self.reconfigure(1, |config| config.originate = own.clone());
    }

    fn taken(&self) -> u64 {
        self.nodes[&2].speaker.counts(self.peer_id(2, 1)).received
    }

    fn limit(&mut self, limit: u32, then: Beyond) {
        self.reconfigure(2, |config| {
            config.peers.get_mut("n1").unwrap().max_prefixes = Some(MaxPrefixes { limit, then });
        });
    }
}

const CLOSE: Beyond = Beyond::Close(Duration::from_secs(300));

#[test]
fn as_many_as_the_limit_are_taken_and_one_more_ends_the_session_once() {
    let mut net = net(5, 5, CLOSE);
    assert_eq!((net.taken(), net.exceeded.as_slice()), (5, &[][..]));
    net.tell(9);
    assert_eq!((net.taken(), net.exceeded.as_slice()), (5, &[(2, 1, 5)][..]));
    // The session is about to end: what else comes is not said again.
    net.tell(12);
    assert_eq!(net.exceeded.len(), 1);
    net.disconnect(1, 2, Loss::Final);
    assert_eq!(net.taken(), 0);
}

#[test]
fn a_lower_limit_ends_a_session_that_has_told_more() {
    let mut net = net(5, 10, CLOSE);
    net.limit(4, CLOSE);
    assert_eq!(net.exceeded, [(2, 1, 4)]);
}

#[test]
fn what_is_more_is_refused_and_asked_for_when_there_is_room() {
    let mut net = net(20, 10, Beyond::Refuse);
    let said = |net: &Net| net.nodes[&2].speaker.problems();
    assert_eq!(net.taken(), 10);
    assert_eq!(
        said(&net),
        [
            "peer n1: has told more IPv4 unicast prefixes than the 10 that are taken, and maxPrefixes is 10; look at what it leaks, or raise it"
        ]
    );
    let rejected = net.view(2, RouteView::Rejected, None);
    assert_eq!((rejected.len(), &*rejected[0]), (10, "10.1.10.0/24 path 65001: maxPrefixes are there already"));
    // A change of one that is there already takes no room.
    net.reconfigure(1, |config| config.peers.get_mut("n2").unwrap().next_hop = NextHopRule::Own);
    assert_eq!(net.taken(), 10);

    let own: std::collections::BTreeSet<_> = (8..14u8).map(|i| format!("10.1.{i}.0/24").parse().unwrap()).collect();
    net.reconfigure(1, |config| config.originate = own.clone());
    assert_eq!((net.taken(), said(&net)), (6, Vec::<String>::new()), "two that were there, four that were refused");

    net.tell(20);
    net.limit(30, Beyond::Refuse);
    assert_eq!((net.taken(), said(&net)), (20, Vec::new()));
    assert!(net.exceeded.is_empty());
}

#[test]
fn a_warning_takes_everything() {
    let net = net(6, 5, Beyond::Warn);
    assert_eq!(net.taken(), 6);
    assert_eq!(
        net.nodes[&2].speaker.problems(),
        ["peer n1: has told 6 IPv4 unicast prefixes, and maxPrefixes is 5; look at what it leaks, or raise it"]
    );
}

#[test]
fn a_peer_that_restarts_with_other_prefixes_is_not_closed_for_those_of_before() {
    let mut net = net(5, 5, CLOSE);
    net.disconnect(1, 2, Loss::Restarting);
    assert_eq!(net.taken(), 5, "kept as stale");
    let other: std::collections::BTreeSet<_> =
        (100..105u8).map(|i| format!("10.1.{i}.0/24").parse().unwrap()).collect();
    net.reconfigure(1, |config| config.originate = other.clone());
    net.connect(1, 2);
    net.settle();
    assert_eq!((net.taken(), net.exceeded.as_slice()), (5, &[][..]));
    assert_eq!(net.view(2, RouteView::Taken, Some("n1"))[0], "10.1.100.0/24 path 65001");

    // Too many are found out when it has told all.
    net.disconnect(1, 2, Loss::Restarting);
    net.tell(6);
    net.connect(1, 2);
    net.settle();
    assert_eq!(net.exceeded, [(2, 1, 5)]);
}

#[test]
fn a_limit_that_refuses_holds_through_a_restart() {
    let mut net = net(10, 10, Beyond::Refuse);
    net.disconnect(1, 2, Loss::Restarting);
    // Ten others first, and then those that are kept as stale.
    let other: Vec<ipnet::IpNet> = (100..110u8).map(|i| format!("10.1.{i}.0/24").parse().unwrap()).collect();
    net.reconfigure(1, |config| config.originate.extend(&other));
    net.connect(1, 2);
    net.settle();
    assert_eq!(net.taken(), 10);
    assert_eq!(net.nodes[&2].speaker.problems().len(), 1, "and it is said");
    net.say((1, 2), &[("10.9.0.0/24", None)], 0, &[]);
    assert_eq!(net.taken(), 10);

    // By hand, in the other order: what is told while others are stale.
    let mut net = self::net(10, 10, Beyond::Refuse);
    net.disconnect(1, 2, Loss::Restarting);
    net.tell(0);
    net.connect(1, 2);
    let tell = |net: &mut Net, range: std::ops::Range<u8>| {
        let names: Vec<String> = range.map(|i| format!("10.2.{i}.0/24")).collect();
        let paths: Vec<(&str, Option<u32>)> = names.iter().map(|name| (name.as_str(), None)).collect();
        net.say((1, 2), &paths, 0, &[]);
    };
    tell(&mut net, 0..10);
    tell(&mut net, 10..20);
    net.say((1, 2), &[], 0, &[Then::EndOfRib(Family::Ipv4Unicast)]);
    assert_eq!(net.taken(), 10);
}
