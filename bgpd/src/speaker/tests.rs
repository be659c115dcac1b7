//! Several speakers, joined by the codec alone: what one builds another takes in.

use super::config::tests::peer;
use super::plan::tests::config;
use super::*;
use crate::rib::PeerId;
use crate::wire::{Families, Family, Framer, GracefulRestart, MAX_MESSAGE, MessageType, Negotiated, Update};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

struct Node {
    asn: u32,
    address: Ipv4Addr,
    speaker: Speaker,
    plan: Arc<Plan>,
    receivers: BTreeMap<PeerId, Receiver>,
}

/// Nodes and what is on the way between them.
struct Net {
    nodes: BTreeMap<u8, Node>,
    now: Instant,
    session: SessionId,
    /// Peers of a node whose sockets take nothing.
    stuck: Vec<(u8, u8)>,
    held: Vec<(u8, Output)>,
    /// UPDATEs with prefixes that arrived at a node.
    updates: BTreeMap<u8, usize>,
    negotiated: BTreeMap<(u8, u8), Negotiated>,
    /// Nodes whose OPEN has the R bit.
    restarting: Vec<u8>,
}

fn address(node: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, node)
}

impl Net {
    /// Nodes with their AS; every pair that `links` names is configured on both sides, changed by `change`.
    fn new(nodes: &[(u8, u32)], links: &[(u8, u8)], change: impl Fn(u8, u8, &mut Peer)) -> Self {
        let now = Instant::now();
        let asn: BTreeMap<u8, u32> = nodes.iter().copied().collect();
        let mut net = Self {
            nodes: BTreeMap::new(),
            now,
            session: 0,
            stuck: Vec::new(),
            held: Vec::new(),
            updates: BTreeMap::new(),
            negotiated: BTreeMap::new(),
            restarting: Vec::new(),
        };
        for (id, own) in nodes {
            let others = links.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]).filter(|(a, _)| a == id);
            let peers: Vec<_> = others
                .map(|(_, other)| {
                    let mut peer = peer(&address(other).to_string(), asn[&other]);
                    change(*id, other, &mut peer);
                    (format!("n{other}"), peer)
                })
                .collect();
            let named: Vec<_> = peers.iter().map(|(name, peer)| (name.as_str(), peer.clone())).collect();
            let mut config = config(&named);
            (config.asn, config.router_id) = (*own, address(*id));
            config.originate = [format!("10.{id}.0.0/16").parse().unwrap()].into();
            let plan = Arc::new(Plan::first(config));
            let mut speaker = Speaker::new(false, false, now);
            speaker.handle(Event::Plan(Arc::clone(&plan)), now);
            let node = Node { asn: *own, address: address(*id), speaker, plan, receivers: BTreeMap::new() };
            net.nodes.insert(*id, node);
        }
        for (a, b) in links {
            net.connect(*a, *b);
        }
        net
    }

    fn peer_id(&self, node: u8, other: u8) -> PeerId {
        let name = format!("n{other}");
        *self.nodes[&node].plan.ids.iter().find(|(_, known)| **known == name).unwrap().0
    }

    fn connect(&mut self, a: u8, b: u8) {
        self.session += 1;
        for (me, other) in [(a, b), (b, a)] {
            let id = self.peer_id(me, other);
            let (asn, router_id) = (self.nodes[&other].asn, self.nodes[&other].address);
            let node = self.nodes.get_mut(&me).unwrap();
            let negotiated = Negotiated {
                local_asn: node.asn,
                peer_asn: asn,
                peer_id: router_id,
                ebgp: node.asn != asn,
                families: Families::ALL,
                four_octet_as: true,
                extended_message: false,
                route_refresh: true,
                enhanced_route_refresh: false,
                add_path_receive: Families::NONE,
                add_path_send: Families::NONE,
                extended_next_hop: false,
                hold_time: 90,
                graceful_restart: Some(GracefulRestart {
                    restart_time: 120,
                    restarting: self.restarting.contains(&other),
                    families: vec![(Family::Ipv4Unicast.into(), true)],
                    ..GracefulRestart::default()
                }),
            };
            self.negotiated.insert((me, other), negotiated.clone());
            node.receivers.insert(id, Receiver::new(id, self.session, negotiated.clone()));
            let established = Established {
                negotiated,
                router_id: node.address,
                remote: IpAddr::V4(router_id),
                next_hop_v4: Some(node.address),
                next_hop_v6: Some("fd00::1".parse().unwrap()),
                shared: vec!["10.0.0.0/24".parse().unwrap()],
            };
            node.speaker.handle(Event::Up(id, self.session, Box::new(established)), self.now);
        }
    }

    fn disconnect(&mut self, a: u8, b: u8, loss: Loss) {
        for (me, other) in [(a, b), (b, a)] {
            let id = self.peer_id(me, other);
            let node = self.nodes.get_mut(&me).unwrap();
            if node.receivers.remove(&id).is_some() {
                let session = node.speaker.sessions_of(id);
                node.speaker.handle(Event::Down(id, session, loss), self.now);
            }
        }
        self.settle();
    }

    /// Carries messages until there are none.
    fn settle(&mut self) {
        for _ in 0..1000 {
            let mut outputs = std::mem::take(&mut self.held);
            for (id, node) in &mut self.nodes {
                let mut out = Vec::new();
                node.speaker.flush(self.now, &mut out);
                outputs.extend(out.into_iter().map(|output| (*id, output)));
            }
            let mut moved = false;
            for (from, output) in outputs {
                moved |= self.carry(from, output);
            }
            if !moved {
                return;
            }
        }
        panic!("messages go round for ever");
    }

    fn carry(&mut self, from: u8, output: Output) -> bool {
        let (peer, session) = match &output {
            Output::Transmit(peer, session, _) | Output::Refresh(peer, session, _) => (*peer, *session),
        };
        let (name, _) = self.nodes[&from].plan.peer(peer).unwrap();
        let to: u8 = name[1..].parse().unwrap();
        if self.stuck.contains(&(from, to)) {
            self.held.push((from, output));
            return false;
        }
        let back = self.peer_id(to, from);
        let Some(receiver) = self.nodes.get_mut(&to).unwrap().receivers.get_mut(&back) else { return false };
        let mut written = 0;
        match output {
            Output::Refresh(_, _, family) => receiver.refresh(family),
            Output::Transmit(_, _, bytes) => {
                written = bytes.len();
                let mut framer = Framer::new(&bytes, MAX_MESSAGE);
                while let Some(frame) = framer.next_frame().unwrap() {
                    assert_eq!(frame.kind, MessageType::Update);
                    if !receiver.repeats(frame.bytes) {
                        let update = Update::decode(frame.bytes, &self.negotiated[&(to, from)]).unwrap();
                        assert_eq!(receiver.update(frame.bytes, &update), None);
                    }
                    *self.updates.entry(to).or_default() += 1;
                }
                assert_eq!(framer.consumed(), written, "whole messages only");
            }
        }
        let batch = receiver.take();
        let now = self.now;
        if let Some(batch) = batch {
            self.nodes.get_mut(&to).unwrap().speaker.handle(Event::Batch(batch), now);
        }
        self.nodes.get_mut(&from).unwrap().speaker.handle(Event::Written(peer, session, written), now);
        true
    }

    /// `prefix via next-hop path AS…` of all used paths of a node.
    fn used(&self, node: u8) -> Vec<String> {
        let routes = self.nodes[&node].speaker.routes(None);
        let show = |route: &twill_crds::control::RouteStatus| {
            let next_hop = route.next_hop.map(|hop| format!(" via {hop}")).unwrap_or_default();
            let space = if route.as_path.is_empty() { "" } else { " " };
            format!("{}{next_hop}{space}{}", route.prefix, route.as_path)
        };
        let mut used: Vec<_> = routes.iter().filter(|route| route.best).map(show).collect();
        // A reflected path beside the direct one leads to the same place.
        used.dedup();
        used
    }

    fn reconfigure(&mut self, node: u8, change: impl Fn(&mut Config)) {
        let node = self.nodes.get_mut(&node).unwrap();
        let mut config = (*node.plan.config).clone();
        change(&mut config);
        node.plan = Arc::new(node.plan.next(config));
        node.speaker.handle(Event::Plan(Arc::clone(&node.plan)), self.now);
        self.settle();
    }
}

const LINE: [(u8, u8); 2] = [(1, 2), (2, 3)];

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
            Output::Refresh(..) => 0,
        })
        .sum();
    assert!(waiting < 600_000, "{waiting} octets wait for a peer that takes nothing");
    net.stuck.clear();
    net.settle();
    assert_eq!(net.used(3).len(), 50_002);
    assert_eq!(net.nodes[&2].speaker.counts(net.peer_id(2, 3)).advertised, 50_001);
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
    fn restart(&mut self, id: u8) {
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
        let routes = self.nodes[&node].speaker.routes(None);
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
