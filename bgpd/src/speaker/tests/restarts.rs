//! Speakers that go and come back.

use super::*;
use twill_crds::control::RouteView;

#[test]
fn paths_of_a_peer_that_restarts_stay_until_it_is_back_or_its_time_is_over() {
    let mut net = Net::new(&[(1, 65001), (2, 65002)], &[(1, 2)], |_, _, _| ());
    net.settle();
    net.disconnect(1, 2, Loss::Restarting);
    assert_eq!(net.used(2).len(), 2);
    net.now += Duration::from_secs(60);
    let now = net.now;
    net.nodes.get_mut(&2).unwrap().speaker.handle_timeout(now);
    assert_eq!(net.used(2).len(), 2, "not before restart_time is over");
    net.reconfigure(1, |config| config.originate = ["10.7.0.0/16".parse().unwrap()].into());
    net.connect(1, 2);
    net.settle();
    assert_eq!(net.used(2), ["10.2.0.0/16", "10.7.0.0/16 via 10.0.0.1 65001"], "End-of-RIB sweeps what is stale");

    net.disconnect(1, 2, Loss::Restarting);
    net.now += Duration::from_secs(121);
    let now = net.now;
    net.nodes.get_mut(&2).unwrap().speaker.handle_timeout(now);
    assert_eq!(net.used(2), ["10.2.0.0/16"]);
}

impl Net {
    /// The speaker of a node is killed and started again; its kernel goes on forwarding.
    pub(super) fn restart(&mut self, id: u8) {
        let others: Vec<u8> = self.nodes.keys().copied().filter(|other| *other != id).collect();
        for other in others {
            if self.negotiated.contains_key(&(id, other)) {
                self.disconnect(id, other, Loss::Restarting);
            }
        }
        let node = self.nodes.get_mut(&id).unwrap();
        node.speaker = Speaker::new(false, true, self.now);
        node.plan = Arc::new(Plan::first((*node.plan.config).clone()));
        node.speaker.handle(Event::Plan(Arc::clone(&node.plan)), self.now);
    }

    fn is_stale(&self, node: u8, prefix: &str) -> bool {
        let routes = self.nodes[&node].speaker.routes(&RouteQuery::default());
        let route = routes.iter().find(|route| route.prefix.to_string() == prefix).unwrap();
        route.reason.ends_with("its peer restarts")
    }
}

#[test]
fn a_speaker_that_restarts_says_end_of_rib_only_when_it_knows_what_others_have_said() {
    let mut net = Net::new(&[(1, 65001), (2, 65002), (3, 65003)], &LINE, |_, _, _| ());
    net.settle();
    net.restart(2);
    net.connect(1, 2);
    net.settle();
    assert!(!net.is_stale(1, "10.2.0.0/16"), "its own prefixes leave at once");
    assert!(net.is_stale(1, "10.3.0.0/16"), "what only 3 can say again is not swept");
    net.connect(2, 3);
    net.settle();
    assert!(!net.is_stale(1, "10.3.0.0/16") && !net.is_stale(3, "10.1.0.0/16"));
    net.reconfigure(3, |config| config.originate.clear());
    assert_eq!(net.used(1).len(), 2, "nothing is held back any more");
}

#[test]
fn end_of_rib_waits_until_what_the_last_peer_told_can_be_told_on() {
    let mut net = Net::new(&[(1, 65001), (2, 65002), (3, 65003)], &LINE, |_, _, _| ());
    net.settle();
    net.restart(2);
    let now = net.now;
    let node = net.nodes.get_mut(&2).unwrap();
    node.speaker = Speaker::new(true, true, now);
    node.speaker.handle(Event::Hosts(crate::fib::Hosts { complete: true, ..Default::default() }), now);
    node.speaker.handle(Event::Plan(Arc::clone(&node.plan)), now);
    net.connect(1, 2);
    net.connect(2, 3);
    // All have told everything before any message of 2's own leaves.
    for from in [1, 3] {
        let mut out = Vec::new();
        net.nodes.get_mut(&from).unwrap().speaker.flush(now, &mut out);
        for output in out {
            net.carry(from, output);
        }
    }
    let hops = net.nodes.get_mut(&2).unwrap().speaker.next_hops().unwrap();
    net.settle();
    assert!(net.is_stale(1, "10.3.0.0/16"), "not swept");
    let costs = hops.into_iter().map(|hop| (hop, Some(0))).collect();
    net.nodes.get_mut(&2).unwrap().speaker.handle(Event::Costs(costs), now);
    net.settle();
    assert!(!net.is_stale(1, "10.3.0.0/16") && !net.is_stale(3, "10.1.0.0/16"));
}

#[test]
fn a_dead_peer_holds_end_of_rib_back_for_the_restart_time_alone_and_announcements_never() {
    let mut net = Net::new(&[(1, 65001), (2, 65002), (3, 65003)], &LINE, |_, _, peer| {
        peer.graceful_restart = Some(30);
    });
    net.settle();
    net.restart(2);
    net.connect(1, 2);
    net.settle();
    let node = net.nodes.get_mut(&2).unwrap();
    assert_eq!(node.speaker.poll_timeout(), Some(net.now + Duration::from_secs(30)));
    net.now += Duration::from_secs(30);
    net.settle();
    assert_eq!(net.used(1), ["10.1.0.0/16", "10.2.0.0/16 via 10.0.0.2 65002"], "3 never came back");
}

#[test]
fn speakers_that_restart_together_do_not_wait_for_each_other() {
    let mut net = Net::new(&[(1, 65001), (2, 65002)], &[(1, 2)], |_, _, _| ());
    net.settle();
    net.restarting = vec![1, 2];
    net.restart(1);
    net.restart(2);
    net.connect(1, 2);
    net.settle();
    let now = net.now;
    for node in [1, 2] {
        assert!(net.nodes.get_mut(&node).unwrap().speaker.came_in_sync(now), "{node} has heard End-of-RIB");
    }
}

#[test]
fn a_session_that_never_was_established_takes_nothing_that_is_stale_away() {
    let mut net = Net::new(&[(1, 65001), (2, 65002)], &[(1, 2)], |_, _, _| ());
    net.settle();
    net.disconnect(1, 2, Loss::Restarting);
    let limit = net.nodes[&2].speaker.poll_timeout();
    net.stuck = vec![(1, 2), (2, 1)];
    net.connect(1, 2);
    net.settle();
    net.disconnect(1, 2, Loss::Aborted);
    assert_eq!(net.used(2).len(), 2, "killed between OPEN and KEEPALIVE");
    assert_eq!(net.nodes[&2].speaker.poll_timeout(), limit, "and no more time for it");
    net.held.clear();
    net.connect(1, 2);
    net.settle();
    net.disconnect(1, 2, Loss::Restarting);
    assert_eq!(net.used(2).len(), 1, "a whole session in which nothing was said again (RFC 4724 section 4.2)");
}

#[test]
fn a_configuration_of_an_earlier_run_is_not_in_sync_and_ends_nothing() {
    let mut net = Net::new(&[(1, 65001), (2, 65002)], &[(1, 2)], |_, _, _| ());
    net.settle();
    net.restart(2);
    net.reconfigure(2, |config| config.complete = false);
    net.connect(1, 2);
    net.settle();
    let now = net.now;
    assert!(!net.nodes.get_mut(&2).unwrap().speaker.came_in_sync(now + Duration::from_secs(3600)));
    net.reconfigure(2, |config| config.complete = true);
    assert!(net.nodes.get_mut(&2).unwrap().speaker.came_in_sync(now));
}

#[test]
fn a_speaker_is_in_sync_when_all_peers_have_sent_end_of_rib() {
    let mut net = Net::new(&[(1, 65001), (2, 65002), (3, 65003)], &LINE, |_, _, _| ());
    let now = net.now;
    assert!(!net.nodes.get_mut(&2).unwrap().speaker.came_in_sync(now));
    net.settle();
    let middle = &mut net.nodes.get_mut(&2).unwrap().speaker;
    assert!(middle.came_in_sync(now) && !middle.came_in_sync(now), "once");
}

#[test]
fn a_speaker_is_in_sync_only_when_every_next_hop_has_a_cost() {
    let links = [(1, 2)];
    let mut net = Net::new(&[(1, 65001), (2, 65002)], &links, |_, _, _| ());
    let now = net.now;
    let node = net.nodes.get_mut(&2).unwrap();
    node.speaker = Speaker::new(true, false, now);
    node.speaker.handle(Event::Plan(Arc::clone(&node.plan)), now);
    net.connect(1, 2);
    net.settle();
    let speaker = &mut net.nodes.get_mut(&2).unwrap().speaker;
    assert_eq!(speaker.next_hops(), Some(vec![address(1).into()]));
    assert!(!speaker.came_in_sync(now), "the peer has told all, but its next hop is not known");
    assert!(!speaker.came_in_sync(now + Duration::from_secs(3600)), "nor does the limit change that");
    speaker.handle(Event::Costs(vec![(address(1).into(), Some(0))]), now);
    let handed_over = speaker.fib_changes(100);
    assert!(handed_over.iter().any(|change| change.prefix.to_string() == "10.1.0.0/16"), "{handed_over:?}");
    assert!(speaker.came_in_sync(now));
}

#[test]
fn a_next_hop_that_nobody_can_reach_does_not_keep_a_speaker_from_being_in_sync() {
    let mut net = Net::new(&[(1, 65001), (2, 65002)], &[(1, 2)], |_, _, _| ());
    let now = net.now;
    let node = net.nodes.get_mut(&2).unwrap();
    node.speaker = Speaker::new(true, false, now);
    node.speaker.handle(Event::Plan(Arc::clone(&node.plan)), now);
    net.connect(1, 2);
    net.settle();
    let speaker = &mut net.nodes.get_mut(&2).unwrap().speaker;
    assert!(speaker.next_hops().is_some() && !speaker.came_in_sync(now));
    speaker.handle(Event::Costs(vec![(address(1).into(), None)]), now);
    assert!(speaker.came_in_sync(now));
}

#[test]
fn a_prefix_that_was_withheld_before_a_restart_is_withheld_after_it() {
    let mut net = Net::new(&[(1, 65001), (2, 65002), (3, 65003)], &LINE, |_, _, _| ());
    net.settle();
    let claimed: ipnet::IpNet = "10.1.0.0/16".parse().unwrap();
    let now = net.now;
    for still_told in [true, false] {
        net.restart(2);
        let node = net.nodes.get_mut(&2).unwrap();
        node.speaker = Speaker::new(false, true, now);
        node.speaker.adopt([claimed].into());
        let mut config = (*node.plan.config).clone();
        config.exclusive = true;
        config.originate = ["10.2.0.0/16".parse().unwrap(), claimed].into();
        node.plan = Arc::new(Plan::first(config));
        node.speaker.handle(Event::Plan(Arc::clone(&node.plan)), now);
        let told = |net: &Net| net.used(3).contains(&"10.1.0.0/16 via 10.0.0.2 65002".to_owned());
        net.connect(2, 3);
        net.settle();
        assert!(!told(&net), "one peer has spoken, and not the one that told it");
        if !still_told {
            net.reconfigure(1, |config| config.originate.clear());
        }
        net.connect(1, 2);
        net.settle();
        let in_sync = net.nodes.get_mut(&2).unwrap().speaker.came_in_sync(now);
        net.settle();
        assert!(in_sync);
        assert_eq!(told(&net), !still_told, "{:?}", net.used(3));
    }
}

impl Net {
    /// All sessions anew, with these nodes knowing RFC 9494.
    fn with_long_lived(mut self, nodes: &[u8], links: &[(u8, u8)]) -> Self {
        self.long = nodes.iter().map(|node| (*node, 3600)).collect();
        for (a, b) in links {
            self.disconnect(*a, *b, Loss::Final);
            self.connect(*a, *b);
        }
        self.settle();
        self
    }

    /// Time goes on for everybody.
    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        let now = self.now;
        self.nodes.values_mut().for_each(|node| node.speaker.handle_timeout(now));
        self.settle();
    }
}

#[test]
fn paths_of_a_peer_that_is_away_for_long_are_the_last_choice_and_told_on_as_such() {
    let nodes = [(1, 65001), (2, 65002), (3, 65003), (4, 65004)];
    let links = [(1, 2), (2, 3), (2, 4)];
    let mut net = Net::new(&nodes, &links, |_, _, _| ()).with_long_lived(&[1, 2, 3], &links);
    net.disconnect(1, 2, Loss::Restarting);
    net.wait(121);
    let of_1 = |net: &Net, node: u8| -> Vec<String> {
        net.view(node, RouteView::Taken, None).into_iter().filter(|route| route.starts_with("10.1.")).collect()
    };
    assert_eq!(of_1(&net, 2), ["10.1.0.0/16 path 65001 llgr-stale"]);
    assert_eq!(of_1(&net, 3), ["10.1.0.0/16 path 65002 65001 llgr-stale"]);
    assert!(of_1(&net, 4).is_empty(), "4 does not know what that means");
    assert_eq!(net.used(2)[0], "10.1.0.0/16 via 10.0.0.1 65001");

    // A longer path of somebody who is there goes before.
    net.reconfigure(3, |config| {
        config.originate.insert("10.1.0.0/16".parse().unwrap());
    });
    net.reconfigure(3, |config| config.peers.values_mut().for_each(|peer| peer.as_override = true));
    assert_eq!(net.used(2)[0], "10.1.0.0/16 via 10.0.0.3 65003");
    assert_eq!(of_1(&net, 4), ["10.1.0.0/16 path 65002 65003"]);
    net.reconfigure(3, |config| config.originate.retain(|net| net.to_string() != "10.1.0.0/16"));

    net.wait(3600);
    assert!((2..=4).all(|node| of_1(&net, node).is_empty()), "and then it is over");
}

#[test]
fn a_peer_that_is_back_after_long_has_what_it_says_again() {
    let mut net = Net::new(&[(1, 65001), (2, 65002)], &[(1, 2)], |_, _, _| ()).with_long_lived(&[1, 2], &[(1, 2)]);
    net.disconnect(1, 2, Loss::Restarting);
    net.wait(500);
    net.reconfigure(1, |config| {
        config.originate.insert("10.7.0.0/16".parse().unwrap());
    });
    net.reconfigure(1, |config| config.originate.retain(|net| net.to_string() != "10.1.0.0/16"));
    assert_eq!(net.used(2)[0], "10.1.0.0/16 via 10.0.0.1 65001");
    net.connect(1, 2);
    net.settle();
    assert_eq!(net.used(2), ["10.2.0.0/16", "10.7.0.0/16 via 10.0.0.1 65001"]);
}

#[test]
fn what_must_not_be_kept_for_long_goes_with_the_restart_time() {
    let mut net = Net::new(&[(1, 65001), (2, 65002)], &[(1, 2)], |me, _, peer| {
        if me == 1 {
            let rules = serde_json::json!([{"set": {"addCommunities": ["no-llgr"]}}]);
            let rules: Vec<twill_crds::bgp_filter::FilterRule> = serde_json::from_value(rules).unwrap();
            peer.export_filter = crate::filter::Filter::new(&[crate::filter::Part { name: "f", rules: &rules }], false);
        }
    })
    .with_long_lived(&[1, 2], &[(1, 2)]);
    net.disconnect(1, 2, Loss::Restarting);
    net.wait(60);
    assert_eq!(net.used(2).len(), 2);
    net.wait(61);
    assert_eq!(net.used(2), ["10.2.0.0/16"]);
}

#[test]
fn a_prefix_of_ours_is_not_withheld_for_one_that_is_away_for_long() {
    let nodes = [(1, 65001), (2, 65002), (3, 65003)];
    let links = [(1, 2), (2, 3)];
    let mut net = Net::new(&nodes, &links, |_, _, _| ()).with_long_lived(&[1, 2, 3], &links);
    net.disconnect(1, 2, Loss::Restarting);
    net.reconfigure(3, |config| {
        config.exclusive = true;
        config.originate.insert("10.1.0.0/16".parse().unwrap());
    });
    assert!(net.used(2)[0].starts_with("10.1.0.0/16 via 10.0.0.1"), "1 may be back any moment");
    net.wait(121);
    assert_eq!(net.used(2)[0], "10.1.0.0/16 via 10.0.0.3 65003");
}

#[test]
fn where_anybody_may_call_a_restart_is_over_with_its_time() {
    let mut net = Net::new(&[(1, 65001), (2, 65002)], &[(1, 2)], |_, _, _| ());
    net.settle();
    net.restart(2);
    net.reconfigure(2, |config| {
        let peer = config.peers.values().next().unwrap().clone();
        let range = Range { prefix: "10.9.0.0/16".parse().unwrap(), most: 10, peer };
        config.templates.ranges.insert("servers".to_owned(), range);
    });
    net.connect(1, 2);
    net.settle();
    let speaker = &mut net.nodes.get_mut(&2).unwrap().speaker;
    assert!(!speaker.came_in_sync(net.now), "what callers told the run before is not taken away for their silence");
    net.now += Duration::from_secs(120);
    assert!(net.nodes.get_mut(&2).unwrap().speaker.came_in_sync(net.now));
}
