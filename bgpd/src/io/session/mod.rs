//! The I/O thread: all sockets of all peers, their FSMs and timers, framing and decoding. It never waits for the RIB:
//! when that is behind, sockets are not read; timers and writes go on.

mod callers;
mod configure;
mod connect;
mod detection;
mod drive;
mod record;
mod transfer;

use super::bfd;
use super::connection::{Connection, Key, Ready};
use super::handle::Beside;
use super::listeners::Listeners;
use super::planner::Planner;
use super::rib;
use super::throttle::Throttle;
use crate::fsm::{self, State, Stop};
use crate::rib::PeerId;
use crate::scoped::ScopedAddr;
use crate::speaker::{Event, Output, Peer, PeerAsn, Plan, SessionId};
use crate::wire::MAX_MESSAGE;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use twill_crds::control::{BfdEnds, BfdSession};

/// Octets read at once.
const READ: usize = 64 << 10;
/// How long a connection may take to say its last words.
const LINGER: Duration = Duration::from_secs(1);
/// Connections of one peer that may be saying theirs at once.
const LAST_WORDS: usize = 4;

/// What the I/O thread is asked.
pub(super) enum Command {
    /// A new configuration, which the RIB has got already.
    Plan(Arc<Plan>),
    /// State of all sessions.
    Sessions(oneshot::Sender<Sessions>),
    /// Ends all sessions in this way and the thread with them.
    Leave(Stop, oneshot::Sender<()>),
}

/// What the kernel has of us, and so what the restart bits of OPEN say (RFC 4724 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forwarding {
    /// Routes of an earlier run were found: it has forwarded all the while.
    Adopted,
    /// Routes go into the kernel, and it had none when we started.
    Fresh,
    /// None of our routes go into the kernel.
    Elsewhere,
}

/// State of everything that has to do with sockets.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    pub(super) peers: Vec<SessionState>,
    /// Who may still have routes of ours without a session.
    pub(super) untold: Vec<String>,
    pub(super) problems: Vec<String>,
}

/// State of one peer's session.
#[derive(Debug)]
pub(super) struct SessionState {
    pub(super) peer: PeerId,
    pub(super) name: String,
    pub(super) address: ScopedAddr,
    pub(super) interface: Option<String>,
    pub(super) asn: u32,
    pub(super) state: State,
    pub(super) since: Duration,
    /// How long ago the last message of the session came, at most.
    pub(super) heard: Option<Duration>,
    pub(super) last_error: Option<String>,
    /// State of BFD with it, if it is configured.
    pub(super) bfd: Option<String>,
    /// Sessions that were Established.
    pub(super) sessions: u64,
    pub(super) role: &'static str,
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
    /// Its connections that were the last to end; most of them have gone.
    closing: VecDeque<Key>,
    /// When its FSM wants to be woken, as [`Io::timers`] has it.
    timer: Option<fsm::Time>,
    last_error: Option<String>,
    /// Sessions that were Established.
    sessions: u64,
    /// For how long it is remembered after its session, if it is there because it called.
    kept: Duration,
    /// Lines about UPDATEs of its that were malformed.
    malformed: Throttle,
    /// Lines about sessions of its that could not be.
    failed: Throttle,
}

/// The I/O thread's state.
pub(super) struct Io {
    started: Instant,
    seed: u64,
    plan: Option<Arc<Plan>>,
    peers: BTreeMap<PeerId, Neighbour>,
    by_address: HashMap<ScopedAddr, PeerId>,
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
    /// The sessions end because we do: the RIB, and so the kernel, keeps what it has.
    leaving: bool,
    kernel: Forwarding,
    bfd: bfd::Client,
    /// What the BFD process last said.
    bfd_sessions: BTreeMap<BfdEnds, BfdSession>,
    /// Why nothing is known of BFD.
    bfd_problem: Option<String>,
    /// Addresses of peers with which there was a session since we started, configured or not.
    met: BTreeSet<ScopedAddr>,
    /// Peers that were configured in the first while after the start, by address: name, and whether a session has been Established. One with
    /// whom none has may believe in routes of an earlier run.
    spoken_to: BTreeMap<ScopedAddr, (String, bool)>,
    /// Peers that keep our routes since their session ended, by address: name, and when (for one that has heard nothing, when that will be).
    lost: BTreeMap<ScopedAddr, (String, Instant)>,
    /// To whom it is said who calls from a range.
    planner: Weak<Planner>,
    /// Addresses of callers that are not peers any more, as long as something may depend on there having been a session.
    strangers_met: Vec<ScopedAddr>,
    /// Callers of whom the planner has been told that they are gone: whoever calls from there is a new one.
    going: BTreeSet<PeerId>,
    /// Those who wait until they are peers, and since when.
    callers: BTreeMap<ScopedAddr, (TcpStream, Instant)>,
    /// When peers that are there because they called are forgotten, unless they call again.
    expiries: BTreeSet<(fsm::Time, PeerId)>,
    /// Lines about connections that nobody wants.
    strangers: Throttle,
    /// Lines about listeners that have no connection to give.
    refused: Throttle,
    buffer: Vec<u8>,
    recording: Option<record::Recording>,
}

impl Io {
    /// To be called on a runtime. `beside`: what works beside it.
    pub(super) fn new(
        rib: mpsc::Sender<rib::Command>,
        seed: u64,
        kernel: Forwarding,
        beside: Beside,
        planner: Weak<Planner>,
    ) -> Self {
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
            leaving: false,
            kernel,
            bfd: bfd::Client::start(beside.responder),
            bfd_sessions: BTreeMap::new(),
            bfd_problem: None,
            met: BTreeSet::new(),
            spoken_to: BTreeMap::new(),
            lost: BTreeMap::new(),
            planner,
            strangers_met: Vec::new(),
            going: BTreeSet::new(),
            callers: BTreeMap::new(),
            expiries: BTreeSet::new(),
            strangers: Throttle::default(),
            refused: Throttle::default(),
            buffer: vec![0; READ + MAX_MESSAGE],
            recording: beside.recorder.map(record::Recording::new),
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
                Some(event) = self.bfd.next() => self.detected(event),
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

    pub(super) fn now(&self) -> fsm::Time {
        self.started.elapsed()
    }

    fn wake(&self) -> Option<Instant> {
        let listeners = self.listeners.retry_at();
        let timer = self.timers.first().map(|(at, _)| self.started + *at);
        let expiry = self.expiries.first().map(|(at, _)| self.started + *at);
        listeners.into_iter().chain(timer).chain(expiry).min()
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
            address: peer.config.remote(),
            interface: peer.config.interface.as_ref().map(|interface| interface.name.clone()),
            asn: peer.fsm.negotiated().map_or_else(
                || match peer.config.asn {
                    PeerAsn::Number(asn) => asn,
                    PeerAsn::External => 0,
                },
                |negotiated| negotiated.peer_asn,
            ),
            state: peer.fsm.state(),
            since: now.saturating_sub(peer.fsm.since()),
            heard: peer.fsm.heard().map(|at| now.saturating_sub(at)),
            last_error: peer.last_error.clone(),
            bfd: self.detection(&peer.config),
            sessions: peer.sessions,
            role: peer.config.role(),
        };
        let peers = self.peers.iter().map(state).collect();
        let problems = self.listeners.problems().into_iter().chain(self.detection_problems()).collect();
        Sessions { peers, untold: self.untold().into_iter().collect(), problems }
    }

    /// Who keeps our routes for the restart time, since he was told nothing: peers whose session was lost, those that have not heard our
    /// last words, and those of an earlier run.
    fn untold(&self) -> BTreeSet<String> {
        let lost = self.lost.values().filter(|(_, at)| at.elapsed() < configure::RESTART_TIME);
        let earlier = self.kernel == Forwarding::Adopted && self.is_recent();
        let silent = self.spoken_to.values().filter(|(_, spoken)| earlier && !spoken).map(|(name, _)| name.clone());
        let unknown = (earlier && self.spoken_to.is_empty()).then(|| "the peers of bgpd's last run".to_owned());
        let unheard = self.connections.values().filter_map(Connection::unheard).map(|farewell| farewell.name.clone());
        lost.map(|(name, _)| name.clone()).chain(unheard).chain(silent).chain(unknown).collect()
    }

    async fn leave(mut self, stop: &Stop, done: oneshot::Sender<()>) {
        self.leaving = true;
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
        if matches!(stop, Stop::Notify(_)) {
            self.bfd.renounce().await;
        }
        // What happened is on record before anybody ends the process.
        self.recording = None;
        // Whoever asked may have gone away.
        let _gone = done.send(());
    }
}
