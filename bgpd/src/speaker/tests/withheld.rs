//! What peers are not told, and why.

use super::*;
use crate::wire::{Attributes, Edits, Value};
use twill_crds::control::RouteView;

/// Attributes with so many communities, four octets each.
fn with_communities(count: u16) -> PathAttributes {
    let list: Vec<[u8; 4]> = (0..count).map(|i| [0xfd, 0xe9, (i >> 8) as u8, i as u8]).collect();
    let mut canonical = Vec::new();
    let edits = Edits { communities: Value::Set(&list), ..Edits::default() };
    Attributes::default().export(&edits, true, &mut canonical);
    PathAttributes { canonical: canonical.into(), ..PathAttributes::own() }
}

impl Net {
    /// `prefix from peer: why` of what node 2 does not tell node 3.
    fn withheld(&self) -> Vec<String> {
        let query = RouteQuery { prefix: None, view: RouteView::Withheld, peer: Some("n3".to_owned()) };
        let routes = self.nodes[&2].speaker.routes(&query).into_iter();
        routes.map(|route| format!("{} from {}: {}", route.prefix, route.peer, route.reason)).collect()
    }

    fn too_long(&self) -> (u64, Vec<String>) {
        let speaker = &self.nodes[&2].speaker;
        (speaker.counts(self.peer_id(2, 3)).too_long, speaker.problems())
    }
}

#[test]
fn what_grows_beyond_a_message_is_withdrawn_and_said() {
    for paths in [0, 4] {
        let mut net = Net::new(&[(1, 65001), (2, 65002), (3, 65003)], &LINE, |me, other, peer| {
            peer.add_path = AddPath { receive: me == 3, send: if (me, other) == (2, 3) { paths } else { 0 } };
        });
        net.settle();
        let grows = [("10.7.0.0/24", None)];
        let has = |net: &Net| net.used(3).iter().any(|route| route.starts_with("10.7.0.0/24"));
        net.say_with((1, 2), with_communities(1000), &grows, 0, &[]);
        assert!(has(&net) && net.too_long() == (0, Vec::new()));

        net.say_with((1, 2), with_communities(1100), &grows, 0, &[]);
        assert!(!has(&net), "{:?}", net.used(3));
        let (count, problems) = net.too_long();
        assert_eq!((count, problems.len()), (1, 1));
        assert_eq!(
            problems[0],
            "peer n3: 1 IPv4 unicast prefix is not told, since the attributes leave no room in a message of 4096 octets (twill routes advertised \
             --rejected --peer n3); remove communities by an export rule, or have the peer speak RFC 8654, extended messages"
        );
        let why = net.withheld();
        assert!(why[0].starts_with("10.3.0.0/16 from n3: the peer has told it itself"), "{why:?}");
        assert!(why[1].starts_with("10.7.0.0/24 from n1: its attributes have 44"), "{why:?}");
        assert!(why[1].ends_with("octets, which leaves no room in a message of 4096") && why.len() == 2, "{why:?}");
        // Who has told it is told nothing of it anyway.
        assert_eq!(net.nodes[&2].speaker.counts(net.peer_id(2, 1)).too_long, 0);

        net.say_with((1, 2), with_communities(900), &grows, 0, &[]);
        assert!(has(&net) && net.too_long() == (0, Vec::new()));
        net.say_with((1, 2), with_communities(1100), &grows, 0, &[]);
        net.say((1, 2), &grows, WITHDRAW, &[]);
        assert_eq!(net.too_long(), (0, Vec::new()));
    }
}

#[test]
fn every_reason_has_words() {
    let mut net = Net::new(&[(1, 65001), (2, 65001), (3, 65001)], &LINE, |_, _, _| ());
    net.settle();
    let of_first = |net: &Net| net.withheld().into_iter().find(|why| why.starts_with("10.1.")).unwrap();
    assert!(of_first(&net).contains("reflectorClient"), "{:?}", net.withheld());
    net.reconfigure(2, |config| config.peers.get_mut("n3").unwrap().export = Export::None);
    assert!(of_first(&net).contains("export tells nothing"), "{:?}", net.withheld());
    let spec = serde_json::json!([{"match": {"prefixes": [{"cidr": "10.1.0.0/16"}]}, "action": "Reject"}]);
    let rules: Vec<twill_crds::bgp_filter::FilterRule> = serde_json::from_value(spec).unwrap();
    let filter = crate::filter::Filter::new(&[crate::filter::Part { name: "f", rules: &rules }], false);
    net.reconfigure(2, |config| {
        let peer = config.peers.get_mut("n3").unwrap();
        (peer.export, peer.export_filter, peer.reflector_client) = (Export::All, filter.clone(), true);
    });
    assert!(of_first(&net).ends_with("rejected by f[0]"), "{:?}", net.withheld());

    let mut net = Net::new(&[(1, 65001), (2, 65002), (3, 65001)], &LINE, |_, _, _| ());
    net.settle();
    assert!(of_first(&net).contains("asOverride"), "{:?}", net.withheld());
    net.reconfigure(2, |config| config.peers.get_mut("n3").unwrap().as_override = true);
    assert_eq!(net.withheld(), ["10.3.0.0/16 from n3: the peer has told it itself"]);
}

/// What is asked every second of all peers does not look at all peers for each.
#[test]
#[allow(clippy::disallowed_methods)]
fn counts_of_five_thousand_peers_of_a_group_cost_what_they_say() {
    let mut net = Net::new(&[(1, 65001), (2, 65002), (3, 65003)], &LINE, |_, _, _| ());
    net.settle();
    let third = net.peer_id(2, 3);
    let v4 = &mut net.nodes.get_mut(&2).unwrap().speaker.v4;
    let policy = v4.policy_of(third).unwrap().clone();
    let peers = || (1000..6000).map(PeerId);
    for peer in peers() {
        v4.join(peer, IpAddr::V4(address(9)), 1, policy.clone(), None);
    }
    let began = Instant::now();
    let sum: u64 =
        peers().map(|peer| net.nodes[&2].speaker.counts(peer)).map(|counts| counts.advertised + counts.too_long).sum();
    // Unoptimised, on a busy machine; a look at all for each takes a hundred times as long.
    assert!(sum == 0 && began.elapsed() < Duration::from_millis(700), "{:?}", began.elapsed());
    let v4 = &mut net.nodes.get_mut(&2).unwrap().speaker.v4;
    assert!(peers().step_by(2).all(|peer| v4.leave(peer).is_some()));
    let left: Vec<u16> = peers().filter(|peer| v4.group_of(*peer).is_some()).map(|peer| peer.0).collect();
    assert!(left.len() == 2500 && left.iter().all(|peer| peer % 2 == 1), "who is left is found");
    assert!(v4.group_of(third).is_some() && v4.leave(PeerId(1000)).is_none());
}
