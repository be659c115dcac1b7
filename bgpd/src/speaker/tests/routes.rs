//! What peers are told, and what becomes of what they tell.

use super::*;

#[test]
fn ebgp_carries_prefixes_along_a_line_with_paths_and_next_hops() {
    let mut net = Net::new(&[(1, 65001), (2, 65002), (3, 65003)], &LINE, |_, _, _| ());
    net.settle();
    // All share one subnet: the third party's own address stays (RFC 4271 section 5.1.3).
    assert_eq!(net.used(3), ["10.1.0.0/16 via 10.0.0.1 65002 65001", "10.2.0.0/16 via 10.0.0.2 65002", "10.3.0.0/16"]);
    net.disconnect(1, 2, Loss::Final);
    assert_eq!(net.used(3), ["10.2.0.0/16 via 10.0.0.2 65002", "10.3.0.0/16"]);
}

#[test]
fn next_hop_self_and_keep_override_the_rule() {
    let own = |me: u8, _: u8, peer: &mut Peer| {
        if me == 2 {
            peer.next_hop = NextHopRule::Own;
        }
    };
    let mut net = Net::new(&[(1, 65001), (2, 65002), (3, 65003)], &LINE, own);
    net.settle();
    assert_eq!(net.used(3)[0], "10.1.0.0/16 via 10.0.0.2 65002 65001");
}

#[test]
fn ibgp_does_not_pass_on_what_ibgp_told_unless_it_reflects() {
    let nodes = [(1, 65000), (2, 65000), (3, 65000)];
    let mut net = Net::new(&nodes, &LINE, |_, _, _| ());
    net.settle();
    assert_eq!(net.used(3), ["10.2.0.0/16 via 10.0.0.2", "10.3.0.0/16"]);

    net.reconfigure(2, |config| config.peers.get_mut("n1").unwrap().reflector_client = true);
    assert_eq!(net.used(3), ["10.1.0.0/16 via 10.0.0.1", "10.2.0.0/16 via 10.0.0.2", "10.3.0.0/16"]);
    assert_eq!(net.used(1).len(), 3, "non-clients' prefixes are reflected to clients");

    net.reconfigure(2, |config| config.peers.get_mut("n1").unwrap().reflector_client = false);
    assert_eq!(net.used(3).len(), 2, "and withdrawn again");
}

#[test]
fn a_ring_of_reflectors_does_not_loop() {
    let nodes = [(1, 65000), (2, 65000), (3, 65000), (4, 65000)];
    let links = [(1, 2), (2, 3), (3, 1), (3, 4)];
    let mut net = Net::new(&nodes, &links, |_, _, peer| peer.reflector_client = true);
    net.settle();
    for node in 1..=4 {
        assert_eq!(net.used(node).len(), 4, "node {node}");
    }
    net.disconnect(3, 4, Loss::Final);
    assert!((1..=3).all(|node| net.used(node).len() == 3), "no path may survive by reflection alone");
}

#[test]
fn a_node_that_exports_its_own_prefixes_never_transits() {
    let own = |me: u8, _: u8, peer: &mut Peer| {
        if me == 2 {
            peer.export = Export::Own;
        }
    };
    let mut net = Net::new(&[(1, 65001), (2, 65002), (3, 65003)], &LINE, own);
    net.settle();
    assert_eq!(net.used(3), ["10.2.0.0/16 via 10.0.0.2 65002", "10.3.0.0/16"]);
    net.reconfigure(2, |config| config.peers.get_mut("n3").unwrap().export = Export::None);
    assert_eq!(net.used(3), ["10.3.0.0/16"], "a filter that becomes tighter withdraws");
    net.reconfigure(2, |config| config.peers.get_mut("n3").unwrap().export = Export::All);
    assert_eq!(net.used(3).len(), 3, "and one that opens announces");
}

#[test]
fn nodes_of_one_as_behind_a_tor_hear_each_other_by_as_override_or_allow_own_as() {
    let nodes = [(1, 64512), (2, 65002), (3, 64512)];
    let mut plain = Net::new(&nodes, &LINE, |_, _, _| ());
    plain.settle();
    assert_eq!(plain.used(3).len(), 2);

    let mut over = Net::new(&nodes, &LINE, |me, _, peer| peer.as_override = me == 2);
    over.settle();
    assert_eq!(over.used(3)[0], "10.1.0.0/16 via 10.0.0.1 65002 65002");

    plain.reconfigure(2, |config| config.peers.values_mut().for_each(|peer| peer.as_override = true));
    assert_eq!(plain.used(3).len(), 3, "a soft change gets the same");
}

#[test]
fn an_import_filter_that_opens_asks_for_a_refresh_and_one_that_closes_drops() {
    let mut net = Net::new(&[(1, 65001), (2, 65002), (3, 65003)], &LINE, |me, _, peer| {
        if me == 3 {
            peer.import = Import::Within(["10.2.0.0/16".parse().unwrap()].into());
        }
    });
    net.settle();
    assert_eq!(net.used(3), ["10.2.0.0/16 via 10.0.0.2 65002", "10.3.0.0/16"]);
    net.reconfigure(3, |config| config.peers.get_mut("n2").unwrap().import = Import::All);
    assert_eq!(net.used(3).len(), 3);
    net.reconfigure(3, |config| config.peers.get_mut("n2").unwrap().import = Import::None);
    assert_eq!(net.used(3), ["10.3.0.0/16"]);
}

#[test]
fn a_refresh_tells_everything_again_and_loses_no_withdrawal() {
    let mut net = Net::new(&[(1, 65001), (2, 65002)], &[(1, 2)], |_, _, _| ());
    net.settle();
    net.updates.clear();
    let (peer, now) = (net.peer_id(1, 2), net.now);
    let node = net.nodes.get_mut(&1).unwrap();
    let mut config = (*node.plan.config).clone();
    config.originate = ["10.8.0.0/16".parse().unwrap()].into();
    node.plan = Arc::new(node.plan.next(config));
    node.speaker.handle(Event::Plan(Arc::clone(&node.plan)), now);
    let batch =
        Batch { peer, session: net.session, then: vec![Then::Refresh(Family::Ipv4Unicast)], ..Batch::default() };
    node.speaker.handle(Event::Batch(batch), now);
    net.settle();
    assert_eq!(net.used(2), ["10.2.0.0/16", "10.8.0.0/16 via 10.0.0.1 65001"]);
    assert_eq!(net.updates[&2], 2, "one withdraws, one announces, and no second End-of-RIB");
}

#[test]
fn originated_prefixes_come_and_go_with_the_configuration() {
    let mut net = Net::new(&[(1, 65001), (2, 65002)], &[(1, 2)], |_, _, _| ());
    net.settle();
    net.reconfigure(1, |config| {
        config.originate = ["10.9.0.0/16".parse().unwrap(), "fd09::/64".parse().unwrap()].into();
    });
    let expected = ["10.2.0.0/16", "10.9.0.0/16 via 10.0.0.1 65001", "fd09::/64 via fd00::1 65001"];
    // The two share an IPv6 address here, so that node 2 must refuse its own as next hop.
    assert_eq!(net.used(2), expected[..2]);
    assert_eq!(net.used(1), ["10.2.0.0/16 via 10.0.0.2 65002", "10.9.0.0/16", "fd09::/64"]);
}

#[test]
fn an_exclusive_prefix_that_a_peer_still_tells_is_announced_when_he_ceases() {
    let mut net = Net::new(&[(1, 65001), (2, 65002), (3, 65003)], &LINE, |_, _, _| ());
    net.settle();
    let claimed = "10.1.0.0/16".parse().unwrap();
    net.reconfigure(2, |config| {
        config.exclusive = true;
        config.originate.insert(claimed);
    });
    let through = "10.1.0.0/16 via 10.0.0.1 65002 65001";
    assert!(net.used(3).iter().any(|route| route == through), "{:?}", net.used(3));
    let problems = net.nodes[&2].speaker.problems();
    assert!(problems.len() == 1 && problems[0].contains("10.1.0.0/16") && problems[0].contains("n1"), "{problems:?}");
    net.reconfigure(1, |config| config.originate.clear());
    assert!(net.used(3).iter().any(|route| route == "10.1.0.0/16 via 10.0.0.2 65002"), "{:?}", net.used(3));
    assert!(net.nodes[&2].speaker.problems().is_empty());
    net.reconfigure(1, |config| config.originate = [claimed].into());
    assert_eq!(net.used(2).iter().filter(|route| *route == "10.1.0.0/16").count(), 1, "what is announced stays");
    net.reconfigure(2, |config| config.originate.clear());
    assert!(net.used(3).iter().any(|route| route == through), "and goes when it is not ours any more");
}

#[test]
fn two_paths_of_equal_rank_share_load_across_ases() {
    let links = [(1, 2), (1, 3), (2, 4), (3, 4)];
    let mut net = Net::new(&[(1, 65001), (2, 65002), (3, 65003), (4, 65004)], &links, |me, other, peer| {
        if other == 4 && me != 4 {
            peer.next_hop = NextHopRule::Own;
        }
    });
    net.settle();
    let to_first: Vec<_> = net.used(4).into_iter().filter(|route| route.starts_with("10.1.")).collect();
    assert_eq!(to_first, ["10.1.0.0/16 via 10.0.0.2 65002 65001", "10.1.0.0/16 via 10.0.0.3 65003 65001"]);
}

#[test]
fn a_peer_that_takes_nothing_holds_nobody_back_and_catches_up() {
    let mut net = Net::new(&[(1, 65001), (2, 65002), (3, 65003)], &[(1, 2), (2, 3)], |me, _, peer| {
        if me == 2 {
            // One update group for both.
            peer.as_override = false;
        }
    });
    net.settle();
    net.stuck = vec![(2, 3)];
    let many = |count: u32| (0..count).map(|i| format!("11.{}.{}.0/24", i / 256, i % 256).parse().unwrap()).collect();
    net.reconfigure(1, |config| config.originate = many(60_000));
    net.reconfigure(1, |config| config.originate = many(50_000));
    assert_eq!(net.used(2).len(), 50_002);
    let waiting: usize = net
        .held
        .iter()
        .map(|(_, output)| match output {
            Output::Transmit(_, _, bytes) => bytes.len(),
            Output::Refresh(..) | Output::Exceeded { .. } => 0,
        })
        .sum();
    assert!(waiting < 600_000, "{waiting} octets wait for a peer that takes nothing");
    net.stuck.clear();
    net.settle();
    assert_eq!(net.used(3).len(), 50_002);
    assert_eq!(net.nodes[&2].speaker.counts(net.peer_id(2, 3)).advertised, 50_001);
}

#[test]
fn what_comes_and_goes_while_a_peer_takes_nothing_makes_nothing_grow() {
    for paths in [0, 4] {
        let mut net = Net::new(&[(1, 65001), (2, 65002), (3, 65003)], &[(1, 2), (2, 3)], |me, other, peer| {
            let send = if (me, other) == (2, 3) { paths } else { 0 };
            peer.add_path = AddPath { receive: me == 3, send };
        });
        net.settle();
        net.stuck = vec![(2, 3)];
        for round in 0..300u32 {
            let prefix = |n| format!("{}.{}.{n}.0/24", 20 + round / 200, round % 200).parse().unwrap();
            net.reconfigure(1, |config| config.originate = (0..200u8).map(prefix).collect());
        }
        let numbers = net.nodes[&2].speaker.numbers_in_use();
        assert!(numbers < 2000, "{numbers} of 60,000 prefixes have numbers, and 201 are there");
        net.stuck.clear();
        net.settle();
        assert_eq!((net.used(3).len(), net.used(2).len()), (202, 202));
        assert_eq!(net.nodes[&2].speaker.numbers_in_use(), 202);
    }
}

#[test]
fn what_a_slow_peer_once_made_us_remember_is_no_measure_for_the_next_time() {
    let mut net = Net::new(&[(1, 65001), (2, 65002), (3, 65003)], &[(1, 2), (2, 3)], |_, _, _| ());
    net.settle();
    type Prefixes = std::collections::BTreeSet<ipnet::IpNet>;
    let some = |from: u32, to: u32| -> Prefixes {
        (from..to).map(|i| format!("11.{}.{}.0/24", i / 256, i % 256).parse().unwrap()).collect()
    };
    let tell = |net: &mut Net, all: &[Prefixes]| {
        all.iter().for_each(|prefixes| net.reconfigure(1, |config| config.originate.clone_from(prefixes)));
    };
    // The window of a peer that takes nothing is full once it knows 28,000; then they go.
    net.stuck = vec![(2, 3)];
    let (none, many) = (Prefixes::new(), some(0, 20_000));
    tell(&mut net, &[many.clone(), none.clone(), many.clone(), some(0, 28_000), none.clone()]);
    assert!(net.nodes[&2].speaker.numbers_in_use() > 28_000);
    net.stuck.clear();
    net.settle();
    // Another time it knows 5,000.
    net.stuck = vec![(2, 3)];
    tell(&mut net, &[many, none.clone(), some(0, 10_000), none.clone(), some(0, 5_000), none]);
    for round in 0..200u32 {
        let prefix = |n| format!("20.{round}.{n}.0/24").parse().unwrap();
        tell(&mut net, &[(0..200u8).map(prefix).collect()]);
    }
    let numbers = net.nodes[&2].speaker.numbers_in_use();
    assert!(numbers < 20_000, "{numbers} prefixes have numbers, and 200 are there");
}

#[test]
fn prefixes_of_one_attribute_set_share_messages() {
    let mut net = Net::new(&[(1, 65001), (2, 65002)], &[(1, 2)], |_, _, _| ());
    net.settle();
    net.updates.clear();
    net.reconfigure(1, |config| {
        config.originate = (0..8000u32).map(|i| format!("11.{}.{}.0/24", i / 256, i % 256).parse().unwrap()).collect();
    });
    assert!(net.updates[&2] <= 10, "{} messages", net.updates[&2]);
}
