//! The I/O thread: all sockets of all peers, their FSMs and timers, framing and decoding. It never waits for the RIB:
//! when that is behind, sockets are not read; timers and writes go on.

use super::connection::{Connection, Key, Ready};
use super::listeners::Listeners;
use super::{interfaces, rib, sockets};
use crate::fsm::{self, RemoteAs, State, Stop};
use crate::rib::PeerId;
use crate::speaker::{Established, Event, Loss, Output, Peer, PeerAsn, PeerChange, Plan, Receiver, SessionId};
use crate::wire::{
    AfiSafi, Frame, Framer, GracefulRestart, HEADER_LEN, MAX_MESSAGE, MessageType, Negotiated, Notification,
    RefreshKind, RouteRefresh, cease,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info, warn};

/// Octets read at once.
const READ: usize = 64 << 10;
/// How long a connection may take to say its last words.
const LINGER: Duration = Duration::from_secs(1);

/// What the I/O thread is asked.
pub(super) enum Command {
    /// A new configuration, which the RIB has got already.
    Plan(Arc<Plan>),
    /// State of all sessions.
    Sessions(oneshot::Sender<Sessions>),
    /// Ends all sessions in this way and the thread with them.
    Leave(Stop, oneshot::Sender<()>),
}

/// State of everything that has to do with sockets.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    pub(super) peers: Vec<SessionState>,
    pub(super) problems: Vec<String>,
}

/// State of one peer's session.
#[derive(Debug)]
pub(super) struct SessionState {
    pub(super) peer: PeerId,
    pub(super) name: String,
    pub(super) address: IpAddr,
    pub(super) asn: u32,
    pub(super) state: State,
    pub(super) since: Duration,
    pub(super) last_error: Option<String>,
}

/// A peer.
struct Neighbour {
    name: String,
    config: Peer,
    external: bool,
    fsm: fsm::Peer,
    /// Its connections by the FSM's number.
    connections: BTreeMap<fsm::ConnId, Key>,
    session: Option<(SessionId, Key)>,
    /// When its FSM wants to be woken, as [`Io::timers`] has it.
    timer: Option<fsm::Time>,
    last_error: Option<String>,
}

/// The I/O thread's state.
pub(super) struct Io {
    started: Instant,
    seed: u64,
    plan: Option<Arc<Plan>>,
    peers: BTreeMap<PeerId, Neighbour>,
    by_address: HashMap<IpAddr, PeerId>,
    timers: BTreeSet<(fsm::Time, PeerId)>,
    listeners: Listeners,
    connections: HashMap<Key, Connection>,
    next_key: Key,
    next_session: SessionId,
    ready: FuturesUnordered<BoxFuture<'static, Ready>>,
    rib: mpsc::Sender<rib::Command>,
    /// What the RIB's queue had no room for, in order.
    pending: VecDeque<Event>,
    /// Connections that are not read until `pending` is empty.
    paused: Vec<Key>,
    buffer: Vec<u8>,
}

impl Io {
    pub(super) fn new(rib: mpsc::Sender<rib::Command>, seed: u64) -> Self {
        Self {
            started: Instant::now(),
            seed,
            plan: None,
            peers: BTreeMap::new(),
            by_address: HashMap::new(),
            timers: BTreeSet::new(),
            listeners: Listeners::default(),
            connections: HashMap::new(),
            next_key: 1,
            next_session: 1,
            ready: FuturesUnordered::new(),
            rib,
            pending: VecDeque::new(),
            paused: Vec::new(),
            buffer: vec![0; READ + MAX_MESSAGE],
        }
    }

    pub(super) async fn run(
        mut self,
        mut commands: mpsc::UnboundedReceiver<Command>,
        mut outputs: mpsc::UnboundedReceiver<Vec<Output>>,
    ) {
        loop {
            let wake = self.wake();
            let rib = self.rib.clone();
            tokio::select! {
                command = commands.recv() => match command {
                    None => return,
                    Some(Command::Leave(stop, done)) => return self.leave(&stop, done).await,
                    Some(command) => self.perform(command),
                },
                Some(outputs) = outputs.recv() => outputs.into_iter().for_each(|output| self.output(output)),
                Some(ready) = self.ready.next(), if !self.ready.is_empty() => self.on_ready(ready),
                permit = rib.reserve(), if !self.pending.is_empty() => match (permit, self.pending.pop_front()) {
                    (Ok(permit), Some(event)) => permit.send(rib::Command::Event(event)),
                    _ => return,
                },
                () = super::sleep_until(wake) => self.timeout(),
            }
            self.resume();
        }
    }

    fn now(&self) -> fsm::Time {
        self.started.elapsed()
    }

    fn wake(&self) -> Option<Instant> {
        let listeners = self.listeners.retry_at();
        let timer = self.timers.first().map(|(at, _)| self.started + *at);
        listeners.into_iter().chain(timer).min()
    }

    fn perform(&mut self, command: Command) {
        match command {
            Command::Plan(plan) => self.follow(plan),
            Command::Sessions(reply) => drop(reply.send(self.sessions())),
            Command::Leave(..) => {}
        }
    }

    fn sessions(&self) -> Sessions {
        let now = self.now();
        let state = |(id, peer): (&PeerId, &Neighbour)| SessionState {
            peer: *id,
            name: peer.name.clone(),
            address: peer.config.address,
            asn: peer.fsm.negotiated().map_or_else(
                || match peer.config.asn {
                    PeerAsn::Number(asn) => asn,
                    PeerAsn::External => 0,
                },
                |negotiated| negotiated.peer_asn,
            ),
            state: peer.fsm.state(),
            since: now.saturating_sub(peer.fsm.since()),
            last_error: peer.last_error.clone(),
        };
        Sessions { peers: self.peers.iter().map(state).collect(), problems: self.listeners.problems() }
    }

    // --- configuration ---

    fn follow(&mut self, plan: Arc<Plan>) {
        let old = self.plan.replace(Arc::clone(&plan));
        for change in &plan.changes {
            match change {
                PeerChange::Removed(peer) => self.remove(*peer, cease::DECONFIGURED),
                PeerChange::Reset(peer) => {
                    self.remove(*peer, cease::CONFIG_CHANGE);
                    self.add(*peer, &plan);
                }
                PeerChange::Added(peer) => self.add(*peer, &plan),
                PeerChange::Soft(peer) => self.adjust(*peer, &plan),
            }
        }
        if old.is_none_or(|old| old.config.listen != plan.config.listen) {
            self.listeners.configure(&plan.config.listen);
        }
        self.listeners.set_keys(&plan.config);
        self.listeners.open(&mut self.ready);
    }

    fn add(&mut self, id: PeerId, plan: &Plan) {
        let Some((name, peer)) = plan.peer(id) else { return };
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let config = fsm_config(plan, peer);
        let neighbour = Neighbour {
            name: name.to_owned(),
            external: peer.is_external(plan.config.asn),
            config: peer.clone(),
            fsm: fsm::Peer::new(config, self.seed),
            connections: BTreeMap::new(),
            session: None,
            timer: None,
            last_error: None,
        };
        self.by_address.insert(peer.address, id);
        self.peers.insert(id, neighbour);
        self.drive(id, |fsm, now, _| fsm.start(now));
    }

    fn remove(&mut self, id: PeerId, subcode: u8) {
        let stop = Stop::Notify(Notification::cease(subcode, ""));
        self.drive(id, |fsm, now, out| fsm.stop(now, &stop, out));
        let Some(peer) = self.peers.remove(&id) else { return };
        if let Some(at) = peer.timer {
            self.timers.remove(&(at, id));
        }
        self.by_address.remove(&peer.config.address);
    }

    /// A change that needs no new session.
    fn adjust(&mut self, id: PeerId, plan: &Plan) {
        let (Some((_, config)), Some(peer)) = (plan.peer(id), self.peers.get_mut(&id)) else { return };
        let old = std::mem::replace(&mut peer.config, config.clone());
        *peer.fsm.config_mut() = fsm_config(plan, config);
        let (external, restart) = (peer.external, old.passive != config.passive || old.port != config.port);
        let keys: Vec<Key> = peer.connections.values().copied().collect();
        if old.ttl != config.ttl {
            for key in keys {
                let stream = self.connections.get(&key).and_then(|connection| connection.stream.clone());
                if let Some(Err(error)) = stream.map(|stream| sockets::prepare(&stream, config, external)) {
                    warn!(%error, "cannot change the ttl of a session");
                }
            }
        }
        let idle = self.peers.get(&id).is_some_and(|peer| peer.fsm.state() < State::OpenConfirm);
        if restart && idle {
            self.drive(id, |fsm, now, out| {
                fsm.stop(now, &Stop::Silently, out);
                fsm.start(now);
            });
        }
    }

    // --- the FSM ---

    /// Lets a peer's FSM do something, and does what it asks for.
    fn drive<T>(
        &mut self,
        id: PeerId,
        act: impl FnOnce(&mut fsm::Peer, fsm::Time, &mut Vec<fsm::Output>) -> T,
    ) -> Option<T> {
        let now = self.now();
        let mut out = Vec::new();
        let result = act(&mut self.peers.get_mut(&id)?.fsm, now, &mut out);
        self.obey(id, out);
        Some(result)
    }

    fn obey(&mut self, id: PeerId, out: Vec<fsm::Output>) {
        for output in out {
            self.obey_one(id, output);
        }
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let timer = peer.fsm.poll_timeout();
        if timer != peer.timer {
            if let Some(at) = peer.timer {
                self.timers.remove(&(at, id));
            }
            self.timers.extend(timer.map(|at| (at, id)));
            peer.timer = timer;
        }
    }

    fn obey_one(&mut self, id: PeerId, output: fsm::Output) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let key_of = |conn: &fsm::ConnId| peer.connections.get(conn).copied();
        match output {
            fsm::Output::Connect { conn } => self.dial(id, conn),
            fsm::Output::Send { conn, bytes } => {
                if let Some(key) = key_of(&conn) {
                    self.send(key, bytes.into(), false);
                }
            }
            fsm::Output::Close { conn, flush } => {
                if let Some(key) = peer.connections.remove(&conn) {
                    self.close(key, flush);
                }
            }
            fsm::Output::SessionUp { conn, negotiated } => {
                if let Some(key) = key_of(&conn) {
                    self.session_up(id, key, &negotiated);
                }
            }
            fsm::Output::Established { conn } => {
                info!(peer = peer.name, address = %peer.config.address, "session established");
                if let Some(connection) = key_of(&conn).and_then(|key| self.connections.get_mut(&key)) {
                    connection.established = true;
                }
            }
            fsm::Output::SessionDown { conn, reason, graceful } => {
                warn!(peer = peer.name, address = %peer.config.address, %reason, graceful, "session down");
                peer.last_error = Some(reason.to_string());
                let session = peer.session.take();
                peer.connections.remove(&conn);
                if let Some((session, _)) = session {
                    let loss = if graceful { Loss::Restarting } else { Loss::Final };
                    self.tell(Event::Down(id, session, loss));
                }
            }
            fsm::Output::Failed { conn, reason } => {
                let text = reason.to_string();
                // A peer that is not there is said once, not at every attempt.
                if peer.last_error.as_ref() == Some(&text) {
                    debug!(peer = peer.name, address = %peer.config.address, %reason, "no session");
                } else {
                    warn!(peer = peer.name, address = %peer.config.address, %reason, "no session");
                }
                peer.last_error = Some(text);
                peer.connections.remove(&conn);
            }
        }
    }

    fn session_up(&mut self, id: PeerId, key: Key, negotiated: &Arc<Negotiated>) {
        let (Some(plan), Some(peer)) = (&self.plan, self.peers.get_mut(&id)) else { return };
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let local = connection.stream.as_ref().and_then(|stream| stream.local_addr().ok()).map(|local| local.ip());
        let link = local.map(|local| interfaces::link(local, peer.config.address)).unwrap_or_default();
        let session = self.next_session;
        self.next_session += 1;
        peer.session = Some((session, key));
        connection.receiver = Some(Receiver::new(id, session, (**negotiated).clone()));
        let established = Established {
            negotiated: (**negotiated).clone(),
            router_id: plan.config.router_id,
            remote: peer.config.address,
            next_hop_v4: peer.config.next_hop_v4.or(link.v4),
            next_hop_v6: peer.config.next_hop_v6.or(link.v6),
            shared: link.shared,
        };
        self.tell(Event::Up(id, session, Box::new(established)));
    }

    fn timeout(&mut self) {
        let now = self.now();
        while let Some((at, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, id));
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            peer.timer = None;
            // RFC 4271's hold timer is about the peer, not about how busy we are: unread data are a sign of life.
            for (conn, key) in &peer.connections {
                if self.connections.get(key).is_some_and(|connection| has_unread(connection)) {
                    peer.fsm.data_pending(*conn);
                }
            }
            self.drive(id, |fsm, now, out| fsm.handle_timeout(now, out));
        }
        self.listeners.open(&mut self.ready);
    }

    // --- sockets ---

    fn dial(&mut self, id: PeerId, conn: fsm::ConnId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let key = self.next_key;
        self.next_key += 1;
        let remote = std::net::SocketAddr::new(peer.config.address, peer.config.port);
        let socket = sockets::dial(&peer.config, peer.external);
        peer.connections.insert(conn, key);
        self.connections.insert(key, Connection::new(id, conn, None));
        self.ready.push(Box::pin(async move {
            let result = match socket {
                Ok(socket) => socket.connect(remote).await,
                Err(error) => Err(error),
            };
            Ready::Connected(key, result)
        }));
    }

    fn on_ready(&mut self, ready: Ready) {
        match ready {
            Ready::Connected(key, result) => self.connected(key, result),
            Ready::Readable(key) => self.read(key),
            Ready::Writable(key) => {
                if let Some(connection) = self.connections.get_mut(&key) {
                    connection.waits = false;
                    self.write(key);
                }
            }
            Ready::Expired(key) => self.discard(key),
            Ready::Accepted(listener, result) => {
                self.listeners.again(listener, &mut self.ready);
                match result {
                    Ok((stream, remote)) => self.accepted(stream, remote.ip()),
                    Err(error) => warn!(%error, "cannot accept a connection"),
                }
            }
        }
    }

    fn connected(&mut self, key: Key, result: io::Result<TcpStream>) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let (id, conn) = (connection.peer, connection.id);
        // The FSM gave it up meanwhile, or the peer has gone.
        let Some(peer) = self.peers.get(&id).filter(|peer| peer.connections.get(&conn) == Some(&key)) else {
            self.connections.remove(&key);
            return;
        };
        let result = result.and_then(|stream| sockets::prepare(&stream, &peer.config, peer.external).map(|()| stream));
        match result {
            Ok(stream) => {
                connection.stream = Some(Arc::new(stream));
                self.await_readable(key);
                self.drive(id, |fsm, now, out| fsm.tcp_connected(now, conn, out));
            }
            Err(error) => {
                debug!(peer = peer.name, address = %peer.config.address, %error, "cannot connect");
                self.connections.remove(&key);
                self.drive(id, |fsm, now, out| fsm.tcp_failed(now, conn, out));
            }
        }
    }

    fn accepted(&mut self, stream: TcpStream, remote: IpAddr) {
        let Some(id) = self.by_address.get(&remote).copied() else {
            info!(%remote, "connection closed: no peer with this address is configured");
            return;
        };
        let Some(peer) = self.peers.get(&id) else { return };
        if let Err(error) = sockets::prepare(&stream, &peer.config, peer.external) {
            debug!(peer = peer.name, %error, "connection lost at once");
            return;
        }
        let key = self.next_key;
        self.next_key += 1;
        let now = self.now();
        let mut out = Vec::new();
        let Some(conn) = self.peers.get_mut(&id).and_then(|peer| {
            let conn = peer.fsm.accept(now, &mut out)?;
            peer.connections.insert(conn, key);
            Some(conn)
        }) else {
            debug!(%remote, "connection closed: not wanted now");
            return self.obey(id, out);
        };
        self.connections.insert(key, Connection::new(id, conn, Some(Arc::new(stream))));
        self.await_readable(key);
        self.obey(id, out);
    }

    fn await_readable(&mut self, key: Key) {
        let Some(stream) = self.connections.get(&key).and_then(|connection| connection.stream.clone()) else { return };
        self.ready.push(Box::pin(async move {
            // An error shows again when it is read.
            drop(stream.readable().await);
            Ready::Readable(key)
        }));
    }

    fn close(&mut self, key: Key, flush: bool) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        if !flush || connection.stream.is_none() {
            return self.discard(key);
        }
        connection.closing = true;
        connection.receiver = None;
        self.write(key);
        self.ready.push(Box::pin(async move {
            tokio::time::sleep(LINGER).await;
            Ready::Expired(key)
        }));
    }

    /// Forgets a connection. What still waits for its socket wakes up by the shutdown, and lets go of it.
    fn discard(&mut self, key: Key) {
        if let Some(stream) = self.connections.remove(&key).and_then(|connection| connection.stream) {
            drop(socket2::SockRef::from(&*stream).shutdown(std::net::Shutdown::Both));
        }
    }

    // --- writing ---

    fn output(&mut self, output: Output) {
        match output {
            Output::Transmit(peer, session, bytes) => {
                if let Some(key) = self.key_of(peer, session) {
                    self.send(key, bytes, true);
                }
            }
            Output::Refresh(peer, session, family) => {
                let Some(key) = self.key_of(peer, session) else { return };
                let able = self.peers[&peer].fsm.negotiated().is_some_and(|negotiated| negotiated.route_refresh);
                if able {
                    let mut bytes = Vec::new();
                    RouteRefresh { family: AfiSafi::from(family), kind: RefreshKind::Request }.encode(&mut bytes);
                    self.send(key, bytes.into(), false);
                } else if let Some(conn) = self.connections.get(&key).map(|connection| connection.id) {
                    let notification = Notification::cease(cease::CONFIG_CHANGE, "");
                    self.drive(peer, |fsm, now, out| fsm.reset(now, conn, notification, out));
                }
            }
        }
    }

    fn key_of(&self, peer: PeerId, session: SessionId) -> Option<Key> {
        let (current, key) = self.peers.get(&peer)?.session?;
        (current == session).then_some(key)
    }

    fn send(&mut self, key: Key, bytes: Bytes, counted: bool) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        connection.push(bytes, counted);
        if !connection.waits {
            self.write(key);
        }
    }

    fn write(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let written = connection.write();
        let (id, conn, closing) = (connection.peer, connection.id, connection.closing);
        if let (true, Some(stream)) = (written.left, connection.stream.clone()) {
            connection.waits = true;
            self.ready.push(Box::pin(async move {
                drop(stream.writable().await);
                Ready::Writable(key)
            }));
        } else if closing {
            // The peer reads our last words, and then the end.
            if let Some(stream) = &connection.stream {
                drop(socket2::SockRef::from(&**stream).shutdown(std::net::Shutdown::Write));
            }
        }
        if closing {
            return;
        }
        let now = self.now();
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.fsm.send_state(now, conn, written.progressed, written.left);
            if let Some((session, _)) = peer.session.filter(|(_, of)| *of == key && written.counted > 0) {
                self.tell(Event::Written(id, session, written.counted));
            }
        }
        if written.failed {
            // Reading tells it to the FSM, after what the peer may have said before.
            debug!(key, "write failed");
        }
    }

    // --- reading ---

    fn read(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let Some(stream) = connection.stream.clone() else { return };
        let mut buffer = std::mem::take(&mut self.buffer);
        let held = connection.partial.len();
        if buffer.len() < held + READ {
            buffer.resize(held + READ, 0);
        }
        buffer[..held].copy_from_slice(&connection.partial);
        let result = stream.try_read(&mut buffer[held..]);
        let (id, conn, closing) = (connection.peer, connection.id, connection.closing);
        match result {
            Ok(octets) if octets > 0 => {
                if !closing {
                    self.take_in(key, &buffer[..held + octets]);
                }
                self.await_more(key);
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                self.await_more(key);
            }
            _ if closing => self.discard(key),
            _ => {
                self.drive(id, |fsm, now, out| fsm.tcp_closed(now, conn, out));
                self.discard(key);
            }
        }
        self.buffer = buffer;
    }

    /// Waits for more to read, unless the RIB is behind.
    fn await_more(&mut self, key: Key) {
        if !self.connections.contains_key(&key) {
            return;
        }
        if self.pending.is_empty() {
            self.await_readable(key);
        } else {
            self.paused.push(key);
        }
    }

    /// Reads go on once the RIB has taken everything.
    fn resume(&mut self) {
        if self.pending.is_empty() && !self.paused.is_empty() {
            for key in std::mem::take(&mut self.paused) {
                self.await_readable(key);
            }
        }
    }

    /// Takes the whole messages out of `bytes` and keeps the rest.
    fn take_in(&mut self, key: Key, bytes: &[u8]) {
        let mut at = 0;
        while self.connections.get(&key).is_some_and(|connection| !connection.closing) {
            match self.take_message(key, &bytes[at..]) {
                Some(octets) => at += octets,
                None => break,
            }
        }
        let Some(connection) = self.connections.get_mut(&key) else { return };
        connection.partial.clear();
        connection.partial.extend_from_slice(&bytes[at..]);
        let batch = connection.receiver.as_mut().and_then(Receiver::take);
        if let Some(batch) = batch {
            self.tell(Event::Batch(batch));
        }
    }

    /// Takes in messages from the start of `bytes`; returns how many octets they have, none if none is whole or the
    /// stream is lost.
    fn take_message(&mut self, key: Key, bytes: &[u8]) -> Option<usize> {
        let connection = self.connections.get_mut(&key)?;
        let (id, conn) = (connection.peer, connection.id);
        let peer = self.peers.get_mut(&id)?;
        let mut framer = Framer::new(bytes, peer.fsm.max_message(conn));
        let mut repeated = 0;
        let other = loop {
            match framer.next_frame() {
                Ok(Some(frame)) if connection.established && frame.kind == MessageType::Update => {
                    let Some(receiver) = &mut connection.receiver else { return None };
                    if !receiver.repeats(frame.bytes) {
                        break Ok(Some(frame));
                    }
                    repeated += 1;
                    if receiver.is_full() {
                        break Ok(None);
                    }
                }
                other => break other,
            }
        };
        let consumed = framer.consumed();
        let full = connection.receiver.as_mut().filter(|receiver| receiver.is_full()).and_then(Receiver::take);
        if repeated > 0 {
            // To the FSM, an UPDATE whose attributes were judged before is a sign of life like a KEEPALIVE.
            let alive = Frame { kind: MessageType::Keepalive, bytes: &[] };
            self.drive(id, |fsm, now, out| fsm.receive(now, conn, alive, out).is_some());
        }
        full.into_iter().for_each(|batch| self.tell(Event::Batch(batch)));
        match other {
            Ok(Some(frame)) => self.take_frame(key, id, conn, frame),
            Ok(None) => {}
            Err(notification) => {
                self.drive(id, |fsm, now, out| fsm.reset(now, conn, notification, out));
            }
        }
        (consumed > 0).then_some(consumed)
    }

    /// A message that is the FSM's business, or has attributes that must be judged.
    fn take_frame(&mut self, key: Key, id: PeerId, conn: fsm::ConnId, frame: Frame<'_>) {
        let received = self.drive(id, |fsm, now, out| fsm.receive(now, conn, frame, out)).flatten();
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let Some(receiver) = connection.receiver.as_mut().filter(|_| !connection.closing) else { return };
        match received {
            Some(fsm::Received::Update(update)) => {
                if let Some(problem) = receiver.update(frame.bytes, &update) {
                    let name = self.peers.get(&id).map(|peer| peer.name.as_str());
                    warn!(peer = name, problem, "malformed UPDATE");
                }
            }
            Some(fsm::Received::RouteRefresh(refresh)) if refresh.kind == RefreshKind::Request => {
                refresh.family.family().into_iter().for_each(|family| receiver.refresh(family));
            }
            _ => {}
        }
        let full = receiver.is_full().then(|| receiver.take()).flatten();
        full.into_iter().for_each(|batch| self.tell(Event::Batch(batch)));
    }

    /// Hands an event to the RIB, or keeps it until there is room.
    fn tell(&mut self, event: Event) {
        if !self.pending.is_empty() {
            return self.pending.push_back(event);
        }
        if let Err(mpsc::error::TrySendError::Full(rib::Command::Event(event))) =
            self.rib.try_send(rib::Command::Event(event))
        {
            self.pending.push_back(event);
        }
    }

    // --- the end ---

    async fn leave(mut self, stop: &Stop, done: oneshot::Sender<()>) {
        for id in self.peers.keys().copied().collect::<Vec<_>>() {
            self.drive(id, |fsm, now, out| fsm.stop(now, stop, out));
        }
        let deadline = Instant::now() + LINGER;
        while self.connections.values().any(|connection| connection.closing && connection.has_output()) {
            tokio::select! {
                Some(ready) = self.ready.next() => self.on_ready(ready),
                () = super::sleep_until(Some(deadline)) => break,
            }
        }
        drop(self);
        // Whoever asked may have gone away.
        let _gone = done.send(());
    }
}

fn has_unread(connection: &Connection) -> bool {
    let Some(stream) = &connection.stream else { return false };
    let mut octet = [std::mem::MaybeUninit::uninit()];
    socket2::SockRef::from(&**stream).peek(&mut octet).is_ok_and(|octets| octets > 0)
}

fn fsm_config(plan: &Plan, peer: &Peer) -> fsm::PeerConfig {
    let families = peer.families.iter().map(|family| (AfiSafi::from(family), false)).collect();
    fsm::PeerConfig {
        local_asn: peer.local_asn.unwrap_or(plan.config.asn),
        remote_asn: match peer.asn {
            PeerAsn::Number(asn) => RemoteAs::Exactly(asn),
            PeerAsn::External => RemoteAs::External,
        },
        identifier: plan.config.router_id,
        hold_time: peer.hold_time,
        families: peer.families,
        passive: peer.passive,
        graceful_restart: peer.graceful_restart.map(|restart_time| GracefulRestart {
            restarting: false,
            notification: false,
            restart_time,
            families,
        }),
    }
}

const _: () = assert!(HEADER_LEN < MAX_MESSAGE);
