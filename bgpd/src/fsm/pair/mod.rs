//! Two peers, a network between them and a virtual clock.

mod cases;

use super::{ConnId, LocalRole, Output, Peer, PeerConfig, Reason, Received, RemoteAs, State, Stop, Time};
use crate::random::Random;
use crate::wire::{Code, Families, Family, Framer, GracefulRestart, Notification, cease, encode_end_of_rib};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What travels on a connection, in order per direction.
#[derive(Clone, Debug)]
enum Item {
    Bytes(Vec<u8>),
    Closed,
}

/// One TCP connection: the end of the caller and that of the called, and what is on its way to each.
#[derive(Debug, Default)]
struct Link {
    ends: [Option<(usize, ConnId)>; 2],
    /// Which end is closed: nothing reaches it any more.
    closed: [bool; 2],
    /// Whether the caller has learned that the connection is there.
    connected: bool,
    /// Not delivered to that end for ever: the peer is gone or does not read.
    stuck: [bool; 2],
    queues: [VecDeque<Item>; 2],
    last: [Time; 2],
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// The SYN reaches the called side.
    Syn(usize),
    /// The called side's program accepts.
    Accept(usize),
    /// The caller learns that the connection is there.
    Connected(usize),
    Refused(usize, ConnId),
    /// The next item of a queue is due.
    Deliver(usize, usize),
}

/// One side: its FSM and what it has said.
struct Side {
    peer: Peer,
    listening: bool,
    buffers: BTreeMap<ConnId, Vec<u8>>,
    links: BTreeMap<ConnId, (usize, usize)>,
    up: Option<ConnId>,
    established: Option<ConnId>,
    downs: Vec<(Reason, bool)>,
    failures: Vec<Reason>,
    updates: usize,
    dials: usize,
    /// Whether it sends an End-of-RIB in the write of its KEEPALIVE, as the speaker does.
    eager: bool,
}

struct Pair {
    sides: [Side; 2],
    links: Vec<Link>,
    events: BTreeMap<(Time, u64), Event>,
    sequence: u64,
    now: Time,
    random: Random,
    /// Longest delay of anything on the network.
    delay: Duration,
}

fn config(asn: u32, remote: RemoteAs, id: u8) -> PeerConfig {
    PeerConfig {
        local_asn: asn,
        remote_asn: remote,
        identifier: [10, 0, 0, id].into(),
        hold_time: 90,
        families: Families::ALL,
        extended_next_hop: false,
        passive: false,
        graceful_restart: None,
        long_lived: None,
        role: None,
        add_path_receive: false,
        add_path_send: false,
    }
}

/// Graceful restart for both families.
fn restart() -> Option<GracefulRestart> {
    let families = Family::ALL.map(|family| (family.into(), false)).to_vec();
    Some(GracefulRestart { restarting: false, notification: true, restart_time: 120, families })
}

impl Pair {
    fn new(a: PeerConfig, b: PeerConfig, seed: u64, delay: Duration) -> Self {
        let side = |config, seed| Side {
            peer: Peer::new(config, seed),
            listening: false,
            buffers: BTreeMap::new(),
            links: BTreeMap::new(),
            up: None,
            established: None,
            downs: Vec::new(),
            failures: Vec::new(),
            updates: 0,
            dials: 0,
            eager: false,
        };
        Pair {
            sides: [side(a, seed * 2 + 1), side(b, seed * 2 + 2)],
            links: Vec::new(),
            events: BTreeMap::new(),
            sequence: 0,
            now: Time::ZERO,
            random: Random::new(!seed),
            delay,
        }
    }

    /// iBGP between 10.0.0.1 and 10.0.0.2.
    fn internal(seed: u64, delay: Duration) -> Self {
        let mut pair = Pair::new(
            config(64512, RemoteAs::Exactly(64512), 1),
            config(64512, RemoteAs::Exactly(64512), 2),
            seed,
            delay,
        );
        pair.sides[0].eager = true;
        pair
    }

    fn start(&mut self, side: usize) {
        self.sides[side].listening = true;
        self.sides[side].peer.start(self.now);
    }

    fn push(&mut self, at: Time, event: Event) {
        self.sequence += 1;
        self.events.insert((at, self.sequence), event);
    }

    fn latency(&mut self) -> Time {
        self.now + self.random.up_to(self.delay)
    }

    /// Puts an item on its way to `end` of a link, behind everything that is on it already.
    fn send(&mut self, link: usize, end: usize, item: Item) {
        let at = self.latency().max(self.links[link].last[end]);
        self.links[link].last[end] = at;
        self.links[link].queues[end].push_back(item);
        self.push(at, Event::Deliver(link, end));
    }

    fn perform(&mut self, side: usize, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Connect { conn } => {
                    self.sides[side].dials += 1;
                    let mut link = Link::default();
                    link.ends[0] = Some((side, conn));
                    self.links.push(link);
                    self.sides[side].links.insert(conn, (self.links.len() - 1, 0));
                    let at = self.latency();
                    self.push(at, Event::Syn(self.links.len() - 1));
                }
                Output::Send { conn, mut bytes } => {
                    let side_state = &self.sides[side];
                    if side_state.eager && side_state.up == Some(conn) && side_state.established.is_none() {
                        encode_end_of_rib(Family::Ipv4Unicast, &mut bytes);
                    }
                    let Some(&(link, end)) = self.sides[side].links.get(&conn) else { continue };
                    self.send(link, 1 - end, Item::Bytes(bytes));
                }
                Output::Close { conn, .. } => {
                    let Some((link, end)) = self.sides[side].links.remove(&conn) else { continue };
                    if !self.links[link].closed[end] {
                        self.links[link].closed[end] = true;
                        self.send(link, 1 - end, Item::Closed);
                    }
                }
                Output::SessionUp { conn, .. } => {
                    assert_eq!(self.sides[side].up, None, "one session at a time");
                    self.sides[side].up = Some(conn);
                }
                Output::Established { conn } => {
                    assert_eq!(self.sides[side].up, Some(conn));
                    self.sides[side].established = Some(conn);
                }
                Output::SessionDown { conn, reason, graceful, established } => {
                    let state = &mut self.sides[side];
                    assert_eq!(state.up.take(), Some(conn));
                    assert_eq!(state.established.take().is_some(), established);
                    state.downs.push((reason, graceful));
                }
                Output::Failed { reason, .. } => self.sides[side].failures.push(reason),
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Syn(link) => {
                let Some((caller, conn)) = self.links[link].ends[0] else { return };
                let at = self.latency();
                if self.sides[1 - caller].listening {
                    self.push(at, Event::Connected(link));
                    let at = self.latency();
                    self.push(at, Event::Accept(link));
                } else {
                    self.push(at, Event::Refused(caller, conn));
                }
            }
            Event::Refused(caller, conn) => {
                self.with(caller, |peer, now, out| peer.tcp_failed(now, conn, out));
            }
            Event::Connected(link) => {
                let Some((caller, conn)) = self.links[link].ends[0] else { return };
                self.links[link].connected = true;
                self.with(caller, |peer, now, out| peer.tcp_connected(now, conn, out));
                for _ in 0..self.links[link].queues[0].len() {
                    self.push(self.now, Event::Deliver(link, 0));
                }
            }
            Event::Accept(link) => {
                let Some((caller, _)) = self.links[link].ends[0] else { return };
                let called = 1 - caller;
                let (now, mut out) = (self.now, Vec::new());
                match self.sides[called].peer.accept(now, &mut out) {
                    Some(conn) => {
                        self.links[link].ends[1] = Some((called, conn));
                        self.sides[called].links.insert(conn, (link, 1));
                        self.perform(called, out);
                        // What came before the program accepted.
                        for _ in 0..self.links[link].queues[1].len() {
                            self.push(now, Event::Deliver(link, 1));
                        }
                    }
                    None => {
                        self.perform(called, out);
                        self.links[link].closed[1] = true;
                        self.send(link, 0, Item::Closed);
                    }
                }
            }
            Event::Deliver(link, end) => self.deliver(link, end),
        }
    }

    fn deliver(&mut self, link: usize, end: usize) {
        let state = &mut self.links[link];
        if state.stuck[end] {
            return;
        }
        let not_yet = if end == 0 { !state.connected } else { state.ends[1].is_none() && !state.closed[1] };
        if not_yet {
            return;
        }
        let Some(item) = state.queues[end].pop_front() else { return };
        let Some((side, conn)) = state.ends[end].filter(|_| !state.closed[end]) else { return };
        match item {
            Item::Closed => {
                state.closed[end] = true;
                self.with(side, |peer, now, out| peer.tcp_closed(now, conn, out));
            }
            Item::Bytes(bytes) => self.bytes(side, conn, &bytes),
        }
    }

    fn bytes(&mut self, side: usize, conn: ConnId, bytes: &[u8]) {
        let mut buffer = self.sides[side].buffers.remove(&conn).unwrap_or_default();
        buffer.extend_from_slice(bytes);
        loop {
            let max = self.sides[side].peer.max_message(conn);
            let mut framer = Framer::new(&buffer, max);
            let (now, mut out) = (self.now, Vec::new());
            match framer.next_frame() {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    if let Some(Received::Update(_)) = self.sides[side].peer.receive(now, conn, frame, &mut out) {
                        assert_eq!(self.sides[side].peer.state(), State::Established);
                        self.sides[side].updates += 1;
                    }
                    let consumed = framer.consumed();
                    buffer.drain(..consumed);
                    self.perform(side, out);
                }
                Err(notification) => {
                    buffer.clear();
                    self.sides[side].peer.reset(now, conn, notification, &mut out);
                    self.perform(side, out);
                    break;
                }
            }
        }
        self.sides[side].buffers.insert(conn, buffer);
    }

    fn with(&mut self, side: usize, act: impl FnOnce(&mut Peer, Time, &mut Vec<Output>)) {
        let mut out = Vec::new();
        act(&mut self.sides[side].peer, self.now, &mut out);
        self.perform(side, out);
    }

    /// Lets `time` pass, or stops as soon as `done`; the steps are bounded.
    fn run(&mut self, time: Duration, done: impl Fn(&Pair) -> bool) {
        let end = self.now + time;
        for _ in 0..1_000_000 {
            if done(self) {
                return;
            }
            let timer = (0..2).filter_map(|side| Some((self.sides[side].peer.poll_timeout()?, side))).min();
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let next = timer.map(|(at, _)| at).into_iter().chain(event).min();
            let Some(next) = next.filter(|at| *at <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            match event {
                Some(at) if at <= next => {
                    let Some((_, event)) = self.events.pop_first() else { return };
                    self.event(event);
                }
                _ => {
                    let Some((_, side)) = timer else { return };
                    self.with(side, |peer, now, out| peer.handle_timeout(now, out));
                }
            }
        }
        panic!("no end of events at {:?}", self.now);
    }

    fn established(&self) -> bool {
        self.sides.iter().all(|side| side.established.is_some())
    }

    /// Both are Established, on one and the same connection.
    fn agree(&self) -> bool {
        let link =
            |side: usize| self.sides[side].established.and_then(|conn| self.sides[side].links.get(&conn)).map(|l| l.0);
        self.established() && link(0).is_some() && link(0) == link(1)
    }

    /// The link of side 0's session.
    fn session_link(&self) -> (usize, usize) {
        self.sides[0].links[&self.sides[0].up.expect("a session")]
    }

    /// The connection is cut: both ends learn that it is closed.
    fn cut(&mut self, link: usize) {
        for end in 0..2 {
            self.links[link].queues[end].clear();
            self.send(link, end, Item::Closed);
        }
    }
}
