//! Monitoring stations: what one has heard is what the speaker has.

use super::*;
use crate::wire::{NextHop, Prefixes};
use proptest::prelude::*;
use twill_crds::control::{RouteStatus, RouteView};

/// Peer, prefix, identifier.
type PathName = (IpAddr, ipnet::IpNet, u32);

/// A station, which believes what it hears.
#[derive(Default)]
struct Station {
    /// With whom there are sessions.
    up: Vec<IpAddr>,
    paths: BTreeMap<PathName, Option<IpAddr>>,
    /// Kinds of messages, in order.
    heard: Vec<u8>,
    ends: usize,
    unread: Vec<u8>,
}

fn net_of(key: impl crate::rib::Key) -> ipnet::IpNet {
    key.net()
}

impl Station {
    fn hear(&mut self, bytes: &[u8], sessions: &BTreeMap<IpAddr, Negotiated>) {
        self.unread.extend_from_slice(bytes);
        while self.unread.len() >= 6 {
            let length = u32::from_be_bytes(self.unread[1..5].try_into().unwrap()) as usize;
            let message: Vec<u8> = self.unread.drain(..length).collect();
            self.heard.push(message[5]);
            if message[5] > 3 {
                continue;
            }
            let peer = IpAddr::from(<[u8; 4]>::try_from(&message[28..32]).unwrap());
            match message[5] {
                3 => self.up.push(peer),
                2 => {
                    self.up.retain(|up| *up != peer);
                    self.paths.retain(|(of, ..), _| *of != peer);
                }
                0 => {
                    assert!(self.up.contains(&peer), "routes of {peer}, with whom there is no session");
                    assert_eq!(message[7], 0x40, "after our filters");
                    self.learn(peer, &message[48..], &sessions[&peer]);
                }
                _ => {}
            }
        }
    }

    fn learn(&mut self, peer: IpAddr, message: &[u8], session: &Negotiated) {
        let update = Update::decode(message, session).unwrap();
        self.ends += usize::from(update.end_of_rib.is_some());
        for prefixes in update.withdrawn() {
            for (net, id) in named(prefixes) {
                assert!(self.paths.remove(&(peer, net, id)).is_some(), "{net} of {peer} was not known");
            }
        }
        for reach in update.announced() {
            for (net, id) in named(reach.prefixes) {
                self.paths.insert((peer, net, id), Some(NextHop::address(reach.next_hop)));
            }
        }
    }
}

fn named(prefixes: Prefixes<'_>) -> Vec<(ipnet::IpNet, u32)> {
    use crate::rib::{Key, V4, V6};
    match prefixes {
        Prefixes::V4(mut keys) => {
            std::iter::from_fn(|| keys.next_path()).map(|(id, key)| (net_of(V4::from_wire(key)), id)).collect()
        }
        Prefixes::V6(mut keys) => {
            std::iter::from_fn(|| keys.next_path()).map(|(id, key)| (net_of(V6::from_wire(key)), id)).collect()
        }
    }
}

const STATION: StationId = 1;

/// Carries what node 9 has for the station, `taken` of it: what is not taken keeps the window shut.
fn carry(net: &mut Net, station: &mut Station, taken: bool) {
    let sessions = net.negotiated.iter().filter(|((me, _), _)| *me == 9);
    let sessions: BTreeMap<IpAddr, Negotiated> =
        sessions.map(|((_, other), session)| (IpAddr::V4(address(*other)), session.clone())).collect();
    let now = net.now;
    let speaker = &mut net.nodes.get_mut(&9).unwrap().speaker;
    for _ in 0..100 {
        let out = speaker.monitor();
        if out.is_empty() {
            return;
        }
        for (to, bytes) in out {
            let bytes = bytes.unwrap();
            station.hear(&bytes, &sessions);
            if taken {
                speaker.handle(Event::Station(to, StationEvent::Written(bytes.len())), now);
            }
        }
    }
    panic!("messages without end");
}

fn connect(net: &mut Net) -> Station {
    let now = net.now;
    net.nodes.get_mut(&9).unwrap().speaker.handle(Event::Station(STATION, StationEvent::Up), now);
    let mut station = Station::default();
    carry(net, &mut station, true);
    station
}

/// What node 9 has of peers that are up, as the station should know it.
fn expected(net: &Net) -> BTreeMap<PathName, Option<IpAddr>> {
    let node = &net.nodes[&9];
    let routes = node.speaker.routes(&RouteQuery { view: RouteView::Taken, ..RouteQuery::default() });
    let fresh = |route: &RouteStatus| !route.peer.is_empty() && !route.reason.contains("restarts");
    let name = |route: RouteStatus| {
        let peer = node.plan.config.peers[&route.peer].address;
        ((peer, route.prefix, route.path_id.unwrap_or(0)), route.next_hop)
    };
    routes.into_iter().filter(fresh).map(name).collect()
}

fn star() -> Net {
    let nodes = [(1, 65000), (2, 65000), (3, 65001), (9, 65000)];
    let mut net = Net::new(&nodes, &[(1, 9), (2, 9), (3, 9)], |me, other, peer| {
        peer.reflector_client = me == 9 && other != 3;
        peer.add_path = AddPath { receive: me == 9 && other == 2, send: if me == 2 { 4 } else { 0 } };
    });
    net.settle();
    net
}

#[test]
fn a_station_hears_of_sessions_then_of_paths_then_that_this_was_all() {
    let mut net = star();
    let station = connect(&mut net);
    assert_eq!(station.heard[..4], [4, 3, 3, 3], "Initiation, and Peer Up of three");
    assert!(station.heard[4..].iter().all(|kind| *kind == 0), "{:?}", station.heard);
    assert_eq!((station.paths.len(), station.ends), (3, 6), "End-of-RIB for both families of three peers");
    assert_eq!(station.paths, expected(&net));
}

#[test]
fn a_session_that_ends_takes_its_paths_with_it_also_if_they_are_kept_for_a_restart() {
    let mut net = star();
    let mut station = connect(&mut net);
    net.disconnect(1, 9, Loss::Restarting);
    carry(&mut net, &mut station, true);
    assert_eq!((station.up.len(), station.paths.len()), (2, 2));
    assert_eq!(station.paths, expected(&net));
    net.connect(1, 9);
    net.settle();
    carry(&mut net, &mut station, true);
    assert_eq!((station.up.len(), station.paths.len()), (3, 3));
    net.reconfigure(9, |config| drop(config.peers.remove("n1")));
    carry(&mut net, &mut station, true);
    assert_eq!((station.up.len(), station.paths.len(), station.heard.last()), (2, 2, Some(&2)));
}

#[test]
fn counts_are_reported_once_a_minute() {
    let mut net = star();
    let mut station = connect(&mut net);
    for _ in 0..2 {
        net.now += Duration::from_secs(60);
        let now = net.now;
        net.nodes.get_mut(&9).unwrap().speaker.handle_timeout(now);
        carry(&mut net, &mut station, true);
    }
    assert_eq!(station.heard.iter().filter(|kind| **kind == 1).count(), 6);
}

#[test]
fn a_station_that_takes_nothing_makes_nothing_grow_but_its_list() {
    let mut net = star();
    let mut station = connect(&mut net);
    let mut octets = 0;
    for round in 0..400u32 {
        net.reconfigure(1, |config| {
            // Never the same ones again.
            let prefix = |n| format!("{}.{}.{n}.0/24", 20 + round / 200, round % 200).parse().unwrap();
            config.originate = (0..64u8).map(prefix).collect();
        });
        let speaker = &mut net.nodes.get_mut(&9).unwrap().speaker;
        for (_, bytes) in speaker.monitor() {
            let bytes = bytes.unwrap();
            octets += bytes.len();
            station.unread.extend_from_slice(&bytes);
        }
    }
    assert!(octets < 512 << 10, "{octets} octets are on their way");
    let numbers = net.nodes[&9].speaker.numbers_in_use();
    assert!(numbers < 1000, "{numbers} prefixes have numbers, of which 67 are there");
    let now = net.now;
    let written = Event::Station(STATION, StationEvent::Written(octets));
    net.nodes.get_mut(&9).unwrap().speaker.handle(written, now);
    carry(&mut net, &mut station, true);
    assert_eq!(station.paths, expected(&net), "it is told what is, not what was");
}

#[derive(Clone, Debug)]
enum Step {
    Originate(u8, u8),
    Withdraw(u8, u8),
    Lose(u8, bool),
    Meet(u8),
    Again,
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 1..4u8;
    prop_oneof![
        6 => (node(), 0..4u8).prop_map(|(node, prefix)| Step::Originate(node, prefix)),
        4 => (node(), 0..4u8).prop_map(|(node, prefix)| Step::Withdraw(node, prefix)),
        2 => (node(), any::<bool>()).prop_map(|(node, graceful)| Step::Lose(node, graceful)),
        3 => node().prop_map(Step::Meet),
        1 => Just(Step::Again),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_a_station_knows_what_the_speaker_has(steps in prop::collection::vec((step(), any::<bool>()), 1..40)) {
        let mut net = star();
        let mut station = connect(&mut net);
        for (step, looks) in &steps {
            let linked = |node: u8| net.nodes[&node].receivers.contains_key(&net.peer_id(node, 9));
            let prefix = |number: u8| -> ipnet::IpNet { format!("10.20{number}.0.0/16").parse().unwrap() };
            match *step {
                Step::Originate(node, number) => net.reconfigure(node, |config| {
                    config.originate.extend([prefix(number)]);
                }),
                Step::Withdraw(node, number) => net.reconfigure(node, |config| {
                    config.originate.retain(|net| *net != prefix(number));
                }),
                Step::Lose(node, graceful) if linked(node) => {
                    net.disconnect(node, 9, if graceful { Loss::Restarting } else { Loss::Final });
                }
                Step::Meet(node) if !linked(node) => {
                    net.connect(node, 9);
                    net.settle();
                }
                Step::Again => {
                    let now = net.now;
                    let down = Event::Station(STATION, StationEvent::Down);
                    net.nodes.get_mut(&9).unwrap().speaker.handle(down, now);
                    station = connect(&mut net);
                }
                Step::Lose(..) | Step::Meet(_) => {}
            }
            if *looks {
                carry(&mut net, &mut station, true);
                prop_assert_eq!(&station.paths, &expected(&net));
            }
        }
        carry(&mut net, &mut station, true);
        prop_assert_eq!(&station.paths, &expected(&net));
    }
}
