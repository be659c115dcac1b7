//! Several speakers, joined by the codec alone: what one builds another takes in.

mod add_path;
mod filters;
mod hosts;
mod leaving;
mod limits;
mod monitor;
mod next_hops;
mod refreshes;
mod restarts;
mod retiring;
mod roles;
mod routes;
mod withheld;

use super::config::tests::peer;
use super::plan::tests::config;
use super::*;
use crate::rib::PeerId;
use crate::wire::{
    Families, Family, Framer, GracefulRestart, LongLived, MAX_MESSAGE, MessageType, Negotiated, NextHop, RefreshKind,
    RouteRefresh, Update,
};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use twill_crds::control::RouteQuery;

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
    /// Seconds for which nodes keep paths of one that is away for long (RFC 9494), by node; without, it does not know of it.
    long: BTreeMap<u8, u32>,
    /// Sessions that nodes end because of how much was told: by whom, of whom, after how many.
    exceeded: Vec<(u8, u8, u32)>,
    /// Whether sessions have agreed on RFC 7313.
    enhanced: bool,
}

fn opening(local: &Ipv4Addr) -> Arc<crate::bmp::Opening> {
    let local = std::net::SocketAddr::new(IpAddr::V4(*local), 179);
    let (sent, received) = (bytes::Bytes::from_static(b"sent"), bytes::Bytes::from_static(b"received"));
    Arc::new(crate::bmp::Opening { local, remote_port: 40000, sent, received })
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
            long: BTreeMap::new(),
            exceeded: Vec::new(),
            enhanced: false,
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
            let add_path = |node: u8, other: u8| self.nodes[&node].plan.config.peers[&format!("n{other}")].add_path;
            let (ours, theirs) = (add_path(me, other), add_path(other, me));
            let (receives, sends) = (ours.receive && theirs.send > 0, ours.send > 0 && theirs.receive);
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
                enhanced_route_refresh: self.enhanced,
                add_path_receive: if receives { Families::ALL } else { Families::NONE },
                add_path_send: if sends { Families::ALL } else { Families::NONE },
                extended_next_hop: false,
                hold_time: 90,
                graceful_restart: Some(GracefulRestart {
                    restart_time: 120,
                    restarting: self.restarting.contains(&other),
                    families: vec![(Family::Ipv4Unicast.into(), true)],
                    ..GracefulRestart::default()
                }),
                long_lived: self
                    .long
                    .get(&other)
                    .map(|seconds| LongLived { families: vec![(Family::Ipv4Unicast.into(), true, *seconds)] }),
            };
            self.negotiated.insert((me, other), negotiated.clone());
            node.receivers.insert(id, Receiver::new(id, self.session, negotiated.clone(), Link::default()));
            let established = Established {
                negotiated,
                router_id: node.address,
                remote: IpAddr::V4(router_id),
                next_hop_v4: Some(node.address),
                next_hop_v6: Some("fd00::1".parse().unwrap()),
                link: Link::default(),
                link_local: None,
                shared: vec!["10.0.0.0/24".parse().unwrap()],
                opening: Some(opening(&node.address)),
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
            Output::Transmit(peer, session, _)
            | Output::Refresh(peer, session, _)
            | Output::Exceeded { peer, session, .. } => (*peer, *session),
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
            Output::Refresh(_, _, family) => {
                receiver.refresh(&RouteRefresh { family: family.into(), kind: RefreshKind::Request });
            }
            Output::Exceeded { limit, .. } => self.exceeded.push((from, to, limit)),
            Output::Transmit(_, _, bytes) => {
                written = bytes.len();
                let mut framer = Framer::new(&bytes, MAX_MESSAGE);
                while let Some(frame) = framer.next_frame().unwrap() {
                    if frame.kind == MessageType::RouteRefresh {
                        receiver.refresh(&RouteRefresh::decode(frame.bytes, true).unwrap().unwrap());
                        continue;
                    }
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

    /// Node `from` tells `to` by hand: a path to each of these prefixes, with an identifier or without, and what follows.
    fn say(&mut self, who: (u8, u8), paths: &[(&str, Option<u32>)], attributes: u32, then: &[Then]) {
        self.say_with(who, PathAttributes::own(), paths, attributes, then);
    }

    fn say_with(
        &mut self,
        (from, to): (u8, u8),
        set: PathAttributes,
        paths: &[(&str, Option<u32>)],
        attributes: u32,
        then: &[Then],
    ) {
        let (peer, now) = (self.peer_id(to, from), self.now);
        let set = Arc::new(PathAttributes { next_hop: Some(NextHop::V4(address(from))), ..set });
        let speaker = &mut self.nodes.get_mut(&to).unwrap().speaker;
        let key = |prefix: &str| crate::rib::Key::of(prefix.parse().unwrap()).unwrap();
        let batch = Batch {
            peer,
            session: speaker.sessions_of(peer),
            attributes: vec![set],
            v4: paths.iter().map(|(prefix, _)| Op { key: key(prefix), attributes }).collect(),
            v4_identifiers: paths.iter().filter_map(|(_, identifier)| *identifier).collect(),
            then: then.to_vec(),
            ..Batch::default()
        };
        speaker.handle(Event::Batch(batch), now);
        self.settle();
    }

    /// Time passes.
    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        let now = self.now;
        self.nodes.values_mut().for_each(|node| node.speaker.handle_timeout(now));
        self.settle();
    }

    /// `prefix via next-hop path AS…` of all used paths of a node.
    fn used(&self, node: u8) -> Vec<String> {
        let routes = self.nodes[&node].speaker.routes(&RouteQuery::default());
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
