//! Several paths to a prefix (RFC 7911).

use super::*;
use proptest::prelude::*;
use twill_crds::control::{RouteStatus, RouteView};

/// 4 hears of the prefix of 1, 2 and 3 through the reflector 9; all are in one AS but 5, whose AS is another.
const STAR: [(u8, u8); 4] = [(1, 9), (2, 9), (3, 9), (4, 9)];
const SHARED: &str = "10.200.0.0/16";

fn star(change: impl Fn(u8, u8, &mut Peer)) -> Net {
    let nodes = [(1, 65000), (2, 65000), (3, 65000), (4, 65000), (9, 65000)];
    let mut net = Net::new(&nodes, &STAR, |me, other, peer| {
        peer.reflector_client = me == 9;
        peer.add_path = AddPath { receive: me == 4, send: if me == 9 { 64 } else { 0 } };
        change(me, other, peer);
    });
    for node in 1..=3 {
        net.originate(node, SHARED, true);
    }
    net
}

impl Net {
    fn routes(&self, node: u8, view: RouteView, peer: Option<&str>) -> Vec<RouteStatus> {
        let query = RouteQuery { prefix: None, view, peer: peer.map(ToOwned::to_owned) };
        self.nodes[&node].speaker.routes(&query)
    }

    fn originate(&mut self, node: u8, prefix: &str, there: bool) {
        let prefix = prefix.parse().unwrap();
        self.reconfigure(node, |config| {
            let _changed = if there { config.originate.insert(prefix) } else { config.originate.remove(&prefix) };
        });
    }

    /// Next hops of the paths of the shared prefix that a node has from the reflector, with identifiers.
    fn shared(&self, node: u8) -> Vec<(String, Option<u32>)> {
        let routes = self.routes(node, RouteView::Taken, Some("n9")).into_iter();
        let of_shared = routes.filter(|route| route.prefix.to_string() == SHARED);
        let mut all: Vec<_> = of_shared.map(|route| (route.next_hop.unwrap().to_string(), route.path_id)).collect();
        all.sort();
        all
    }

    fn hops(&self, node: u8) -> Vec<String> {
        self.shared(node).into_iter().map(|(hop, _)| hop).collect()
    }
}

#[test]
fn a_reflector_tells_several_paths_and_withdraws_one_of_them() {
    let mut net = star(|_, _, _| ());
    assert_eq!(net.hops(4), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    let used = net.used(4).into_iter().filter(|route| route.starts_with(SHARED)).count();
    assert_eq!(used, 3, "they share load");
    let before = net.shared(4);
    let mut identifiers: Vec<_> = before.iter().map(|(_, id)| id.unwrap()).collect();
    identifiers.dedup();
    assert!(identifiers.len() == 3 && !identifiers.contains(&0), "{identifiers:?}");
    // 2, which takes no identifiers, hears of the best one.
    assert_eq!(net.shared(2), [("10.0.0.1".to_owned(), None)]);

    net.updates.clear();
    net.originate(2, SHARED, false);
    assert_eq!(net.shared(4), [before[0].clone(), before[2].clone()], "the others keep theirs");
    assert_eq!(net.updates[&4], 1, "and are not told again");
    assert_eq!(net.shared(2), [("10.0.0.1".to_owned(), None)]);
    net.disconnect(1, 9, Loss::Final);
    assert_eq!(net.shared(2), [("10.0.0.3".to_owned(), None)]);
    net.disconnect(3, 9, Loss::Final);
    assert!(net.hops(4).is_empty());
}

#[test]
fn what_is_shown_of_both_sides_agrees() {
    let net = star(|_, _, _| ());
    let told = net.routes(9, RouteView::Advertised, Some("n4")).into_iter();
    let told: Vec<_> = told.map(|route| (route.prefix, route.next_hop, route.path_id)).collect();
    let mut taken: Vec<_> =
        net.routes(4, RouteView::Taken, Some("n9")).into_iter().map(|r| (r.prefix, r.next_hop, r.path_id)).collect();
    taken.sort();
    assert_eq!(told.len(), 7, "the prefixes of four others, and the shared one thrice: {told:?}");
    let mut told = told;
    told.sort();
    assert_eq!(told, taken);
    assert_eq!(net.nodes[&9].speaker.counts(net.peer_id(9, 4)).advertised, 7);
}

#[test]
fn so_many_are_told_as_are_wanted_and_the_number_changes_softly() {
    let mut net = star(|me, other, peer| {
        if (me, other) == (9, 4) {
            peer.add_path.send = 2
        }
    });
    assert_eq!(net.hops(4), ["10.0.0.1", "10.0.0.2"], "the best by identifier");
    let session = net.session;
    net.reconfigure(9, |config| config.peers.get_mut("n4").unwrap().add_path.send = 3);
    assert_eq!(net.hops(4).len(), 3);
    net.reconfigure(9, |config| config.peers.get_mut("n4").unwrap().add_path.send = 1);
    assert_eq!((net.hops(4), net.session), (vec!["10.0.0.1".to_owned()], session));
    // The best one goes: the next one takes its place.
    net.originate(1, SHARED, false);
    assert_eq!(net.hops(4), ["10.0.0.2"]);
}

#[test]
fn nobody_hears_his_own_path_and_all_others_beside_it() {
    let mut net = star(|_, _, peer| peer.add_path.receive = true);
    for (node, expected) in [(1, ["10.0.0.2", "10.0.0.3"]), (2, ["10.0.0.1", "10.0.0.3"])] {
        assert_eq!(net.hops(node), expected, "node {node}");
    }
    // They share a group and a dirty list, and differ in what they know.
    net.originate(1, SHARED, false);
    assert_eq!(net.hops(1), ["10.0.0.2", "10.0.0.3"]);
    assert_eq!((net.hops(2), net.hops(3)), (vec!["10.0.0.3".to_owned()], vec!["10.0.0.2".to_owned()]));
    net.originate(1, SHARED, true);
    assert_eq!(net.hops(3), ["10.0.0.1", "10.0.0.2"]);
}

#[test]
fn filters_judge_every_path() {
    let mut net = star(|_, _, _| ());
    let reject = |hop: &str| {
        let spec = serde_json::json!([{"match": {"nextHops": [hop]}, "action": "Reject"}]);
        let rules: Vec<twill_crds::bgp_filter::FilterRule> = serde_json::from_value(spec).unwrap();
        crate::filter::Filter::new(&[crate::filter::Part { name: "f", rules: &rules }], false)
    };
    net.reconfigure(9, |config| config.peers.get_mut("n4").unwrap().export_filter = reject("10.0.0.2/32"));
    assert_eq!(net.hops(4), ["10.0.0.1", "10.0.0.3"]);
    net.reconfigure(4, |config| config.peers.get_mut("n9").unwrap().import_filter = reject("10.0.0.3/32"));
    assert_eq!(net.hops(4), ["10.0.0.1"]);
    let rejected = net.routes(4, RouteView::Rejected, Some("n9"));
    assert!(rejected.iter().any(|route| route.path_id.is_some()), "{rejected:?}");
    net.reconfigure(4, |config| config.peers.get_mut("n9").unwrap().import_filter = Default::default());
    net.reconfigure(9, |config| config.peers.get_mut("n4").unwrap().export_filter = Default::default());
    assert_eq!(net.hops(4).len(), 3);
}

#[test]
fn paths_of_a_restart_are_kept_and_swept_one_by_one() {
    let mut net = star(|_, _, _| ());
    let told = net.shared(4);
    net.disconnect(4, 9, Loss::Restarting);
    net.originate(2, SHARED, false);
    assert_eq!(net.hops(4).len(), 3, "kept as stale");
    net.connect(4, 9);
    net.settle();
    assert_eq!(net.shared(4), [told[0].clone(), told[2].clone()], "End-of-RIB sweeps what was not told again");
}

#[test]
fn a_refresh_tells_all_paths_again_and_loses_no_withdrawal() {
    let mut net = star(|_, _, _| ());
    net.stuck.push((9, 4));
    net.originate(2, SHARED, false);
    let (peer, now) = (net.peer_id(9, 4), net.now);
    let session = net.nodes[&9].speaker.sessions_of(peer);
    let batch = Batch { peer, session, then: vec![Then::Refresh(Family::Ipv4Unicast)], ..Batch::default() };
    net.updates.clear();
    net.nodes.get_mut(&9).unwrap().speaker.handle(Event::Batch(batch), now);
    net.stuck.clear();
    net.settle();
    assert_eq!(net.hops(4), ["10.0.0.1", "10.0.0.3"]);
    assert!(net.updates[&4] >= 2, "all was told again");
}

#[test]
fn a_peer_cannot_make_us_keep_more_paths_than_the_limit() {
    let mut net = Net::new(&[(1, 65001), (2, 65002)], &[(1, 2)], |me, _, peer| {
        peer.add_path = AddPath { receive: me == 2, send: if me == 1 { 64 } else { 0 } };
    });
    net.settle();
    let tell = |net: &mut Net, identifiers: std::ops::RangeInclusive<u32>, attributes| {
        let paths: Vec<(&str, Option<u32>)> = identifiers.map(|identifier| (SHARED, Some(identifier))).collect();
        net.say((1, 2), &paths, attributes, &[]);
    };
    let counts = |net: &Net| net.nodes[&2].speaker.counts(net.peer_id(2, 1));
    (1..=65).for_each(|identifier| tell(&mut net, identifier..=identifier, 0));
    assert_eq!(counts(&net), PeerCounts { received: 65, advertised: 1, rejected: 1, too_long: 0 });
    let rejected = net.routes(2, RouteView::Rejected, None).remove(0);
    assert!(rejected.reason.contains("more than the 64 paths") && rejected.path_id == Some(65), "{rejected:?}");

    // Where there is room again it is taken, and the peer need not tell it again.
    tell(&mut net, 1..=1, WITHDRAW);
    assert_eq!(counts(&net), PeerCounts { received: 65, advertised: 1, rejected: 0, too_long: 0 });
    assert!(net.routes(2, RouteView::Taken, Some("n1")).iter().any(|route| route.path_id == Some(65)));
    tell(&mut net, 100..=104, 0);
    tell(&mut net, 100..=101, WITHDRAW);
    assert_eq!(counts(&net).rejected, 3, "what was refused and is withdrawn is gone");
    tell(&mut net, 2..=3, WITHDRAW);
    assert_eq!((counts(&net).received, counts(&net).rejected), (65, 1));

    // Stale paths take no room: who restarts with other identifiers is heard in full, and keeps no more than others.
    net.disconnect(1, 2, Loss::Restarting);
    net.connect(1, 2);
    tell(&mut net, 200..=264, 0);
    net.say((1, 2), &[], 0, &[Then::EndOfRib(Family::Ipv4Unicast)]);
    assert_eq!(counts(&net), PeerCounts { received: 65, advertised: 1, rejected: 1, too_long: 0 });
}

#[test]
fn what_was_too_much_to_remember_is_asked_for_and_not_at_every_turn() {
    let mut net = Net::new(&[(1, 65001), (2, 65002)], &[(1, 2)], |me, _, peer| {
        peer.add_path = AddPath { receive: me == 2, send: if me == 1 { 64 } else { 0 } };
    });
    net.settle();
    let names: Vec<String> = (0..=150u8).map(|i| format!("10.200.{i}.0/24")).collect();
    for name in &names {
        let paths: Vec<(&str, Option<u32>)> = (1..=131).map(|identifier| (name.as_str(), Some(identifier))).collect();
        net.say((1, 2), &paths, 0, &[]);
    }
    let counts = |net: &Net| net.nodes[&2].speaker.counts(net.peer_id(2, 1));
    assert_eq!(counts(&net).rejected, 10_000, "67 of each of 151 would be 10,117");
    // Asking again makes node 1 tell what it has, which is its own prefix.
    net.updates.clear();
    net.say((1, 2), &[(names[150].as_str(), Some(1))], WITHDRAW, &[]);
    assert_eq!(net.updates.get(&2), Some(&1), "asked for what is not remembered");
    net.say((1, 2), &[(names[150].as_str(), Some(130)), (names[150].as_str(), Some(131))], 0, &[]);
    net.say((1, 2), &[(names[150].as_str(), Some(2))], WITHDRAW, &[]);
    assert_eq!(net.updates[&2], 1, "not again within a minute");
    let minute = net.now + Duration::from_secs(60);
    assert!(net.nodes[&2].speaker.poll_timeout().is_some_and(|at| at <= minute), "it is not forgotten");
    net.pass(59);
    assert_eq!(net.updates[&2], 1);
    net.pass(1);
    assert_eq!(net.updates[&2], 2, "whatever the peer tells or not");
    net.pass(60);
    assert_eq!(net.updates[&2], 2, "once");
    let more: Vec<(&str, Option<u32>)> = (500..510).map(|identifier| (names[150].as_str(), Some(identifier))).collect();
    net.say((1, 2), &more, 0, &[]);
    net.say((1, 2), &[(names[150].as_str(), Some(3))], WITHDRAW, &[]);
    net.pass(59);
    assert_eq!(net.updates[&2], 2, "the pause is twice as long where the last one was used up");
    net.pass(1);
    assert_eq!(net.updates[&2], 3);
}

#[test]
fn who_tells_too_much_again_is_asked_once_more_only_when_something_has_gone() {
    let mut net = Net::new(&[(1, 65001), (2, 65002)], &[(1, 2)], |me, _, peer| {
        peer.add_path = AddPath { receive: me == 2, send: if me == 1 { 64 } else { 0 } };
    });
    net.settle();
    let own = net.routes(2, RouteView::Taken, Some("n1")).remove(0);
    let (own, identifier) = (own.prefix.to_string(), own.path_id);
    let names: Vec<String> = (0..200u8).map(|i| format!("10.200.{i}.0/24")).collect();
    let paths = |from: u32| -> Vec<(&str, Option<u32>)> {
        names.iter().flat_map(|name| (from..=131).map(move |number| (name.as_str(), Some(number)))).collect()
    };
    net.say((1, 2), &paths(1), 0, &[Then::EndOfRib(Family::Ipv4Unicast)]);
    net.updates.clear();
    let first: Vec<(&str, Option<u32>)> = names.iter().map(|name| (name.as_str(), Some(1))).collect();
    net.say((1, 2), &first, WITHDRAW, &[]);
    assert_eq!(net.updates.remove(&2), Some(1), "asked for what is not remembered");
    // Its answer is as much as before.
    net.say((1, 2), &[(own.as_str(), identifier)], 0, &[Then::RefreshBegins(Family::Ipv4Unicast)]);
    net.say((1, 2), &[(own.as_str(), identifier)], 0, &[]);
    net.say((1, 2), &paths(2), 0, &[Then::RefreshEnds(Family::Ipv4Unicast)]);
    net.say((1, 2), &[], 0, &[Then::EndOfRib(Family::Ipv4Unicast)]);
    net.pass(86_400);
    assert_eq!(net.updates.get(&2), None, "nothing has gone since");
}

/// What a node does to one of the shared prefixes.
#[derive(Clone, Debug)]
enum Step {
    Originate(u8, u8),
    Withdraw(u8, u8),
    Med(u8, u32),
    Send(u8),
    Stick(bool),
    Refresh,
    Lose(u8, bool),
    Meet(u8),
    Sender(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 1..4u8;
    prop_oneof![
        6 => (node(), 0..3u8).prop_map(|(node, prefix)| Step::Originate(node, prefix)),
        4 => (node(), 0..3u8).prop_map(|(node, prefix)| Step::Withdraw(node, prefix)),
        2 => (node(), 0..3u32).prop_map(|(node, med)| Step::Med(node, med)),
        1 => (1..4u8).prop_map(Step::Send),
        2 => any::<bool>().prop_map(Step::Stick),
        1 => Just(Step::Refresh),
        1 => (node(), any::<bool>()).prop_map(|(node, graceful)| Step::Lose(node, graceful)),
        2 => node().prop_map(Step::Meet),
        1 => any::<bool>().prop_map(Step::Sender),
    ]
}

fn shared_prefix(number: u8) -> ipnet::IpNet {
    format!("10.20{number}.0.0/16").parse().unwrap()
}

impl Net {
    fn perform(&mut self, step: &Step) {
        let linked = |net: &Net, node: u8| net.nodes[&node].receivers.contains_key(&net.peer_id(node, 9));
        match step {
            Step::Originate(node, prefix) => {
                self.originate(*node, &shared_prefix(*prefix).to_string(), true);
            }
            Step::Withdraw(node, prefix) => {
                self.originate(*node, &shared_prefix(*prefix).to_string(), false);
            }
            Step::Med(node, med) => {
                let spec = serde_json::json!([{"set": {"med": med}}]);
                let rules: Vec<twill_crds::bgp_filter::FilterRule> = serde_json::from_value(spec).unwrap();
                let filter = crate::filter::Filter::new(&[crate::filter::Part { name: "f", rules: &rules }], false);
                self.reconfigure(*node, |config| config.peers.get_mut("n9").unwrap().export_filter = filter.clone());
            }
            Step::Send(count) => {
                self.reconfigure(9, |config| config.peers.get_mut("n4").unwrap().add_path.send = *count);
            }
            Step::Stick(stuck) => {
                self.stuck.clear();
                if *stuck {
                    self.stuck.push((9, 4));
                }
                self.settle();
            }
            Step::Refresh => {
                let (peer, now) = (self.peer_id(9, 4), self.now);
                let speaker = &mut self.nodes.get_mut(&9).unwrap().speaker;
                let session = speaker.sessions_of(peer);
                let batch = Batch { peer, session, then: vec![Then::Refresh(Family::Ipv4Unicast)], ..Batch::default() };
                speaker.handle(Event::Batch(batch), now);
                self.settle();
            }
            Step::Lose(node, graceful) if linked(self, *node) => {
                self.disconnect(*node, 9, if *graceful { Loss::Restarting } else { Loss::Final });
            }
            Step::Meet(node) if !linked(self, *node) => {
                self.connect(*node, 9);
                self.settle();
            }
            Step::Sender(client) => {
                self.reconfigure(9, |config| config.peers.get_mut("n2").unwrap().reflector_client = *client);
            }
            Step::Lose(..) | Step::Meet(_) => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_peer_knows_in_the_end_what_it_is_to_know(steps in prop::collection::vec(step(), 1..40)) {
        let mut net = star(|_, _, _| ());
        for step in &steps {
            net.perform(step);
            if net.stuck.is_empty() {
                net.compare()?;
            }
        }
        net.perform(&Step::Stick(false));
        net.compare()?;
    }
}

impl Net {
    /// What 4 has of 9 is what 9 says that it has told, and that is the best paths of its table.
    fn compare(&self) -> Result<(), TestCaseError> {
        let show = |route: RouteStatus| (route.prefix, route.path_id, route.next_hop, route.med);
        let mut told: Vec<_> = self.routes(9, RouteView::Advertised, Some("n4")).into_iter().map(show).collect();
        let mut taken: Vec<_> = self.routes(4, RouteView::Taken, Some("n9")).into_iter().map(show).collect();
        told.sort();
        taken.sort();
        prop_assert_eq!(&told, &taken);
        let send = usize::from(self.nodes[&9].plan.config.peers["n4"].add_path.send);
        for prefix in (0..3).map(shared_prefix) {
            let all = self.routes(9, RouteView::Taken, None);
            let of_prefix: Vec<_> = all.iter().filter(|route| route.prefix == prefix).collect();
            let known = told.iter().filter(|(of, ..)| *of == prefix);
            prop_assert_eq!(known.clone().count(), of_prefix.len().min(send), "{} of {:?}", prefix, of_prefix);
            let used = of_prefix.iter().filter(|route| route.best).map(|route| route.next_hop);
            let mut known = known.map(|(_, _, hop, _)| *hop);
            let missing =
                used.take(send).count() > 0 && !known.any(|hop| Some(hop) == of_prefix.first().map(|r| r.next_hop));
            prop_assert!(!missing, "the best of {} is not told", prefix);
        }
        Ok(())
    }
}
