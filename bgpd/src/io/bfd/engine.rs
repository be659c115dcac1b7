//! The thread that speaks BFD: it alone has the sockets, the sessions and their timers. In flow packets, clients' wishes and time; out flow
//! packets, and lines to clients.
//!
//! What has come is read before any timer is looked at: a thread that was late, or a machine that stood still, takes nobody for dead whose
//! packets wait in the socket.

use super::live::Live;
use super::sockets::{Arrival, BATCH, Ports, Receiver, Transmitter};
use crate::bfd::{
    Change, ClientId, Clients, Handover, Kept, Output, Packet, Session, State, TTL, Time, Timing, Wanted,
};
use crate::random::Random;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::os::fd::AsFd;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc as lines, oneshot, watch};
use tracing::{info, warn};
use twill_crds::control::{BfdEnds, BfdSession, BfdStatus};

/// How often a socket is read before the next one and the timers have their turn.
const READS: usize = 64;
/// With so many sessions, packets and timers are looked at once per [`ROUND`] instead of one by one.
const MANY: usize = 50;
/// Far below what any session's times would notice.
const ROUND: Duration = Duration::from_millis(1);
/// How soon a socket that could not be opened, or leads nowhere, is opened again.
const REOPEN: Duration = Duration::from_secs(2);
/// How long peers may take to answer that they are going to be patient.
const SUSPENSION: Duration = Duration::from_secs(1);
/// How long a socket is used while its session is Down: addresses and routes change.
const FRUITLESS: Duration = Duration::from_secs(10);

/// What the thread is asked.
#[derive(Debug)]
pub(super) enum Command {
    /// A client wants these sessions for now, and to be told of them.
    Want { client: ClientId, name: String, keep: Duration, wanted: Wanted, tell: lines::UnboundedSender<BfdSession> },
    /// A client's connection has ended.
    Gone(ClientId),
    /// All sessions.
    Status(oneshot::Sender<BfdStatus>),
    /// End, after every peer was told that this is no failure.
    Leave(oneshot::Sender<()>),
    /// End, after every peer was told to be patient; a successor goes on with what is handed over.
    Suspend(oneshot::Sender<Handover>),
}

/// The thread, to those who ask it.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    commands: mpsc::Sender<Command>,
    wake: Arc<EventFd>,
    /// Whether nobody wants anything, and nothing is left to be done.
    pub(super) idle: watch::Receiver<bool>,
}

impl Engine {
    /// Starts the thread in the caller's network namespace.
    ///
    /// # Errors
    /// A port is taken, or the kernel refuses something.
    pub(super) fn start(handover: Option<Handover>, seed: u64) -> anyhow::Result<Self> {
        let receivers = Receiver::all()?;
        let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
        let (commands, asked) = mpsc::channel();
        let (idle_sender, idle) = watch::channel(true);
        let mut thread = Thread {
            started: Instant::now(),
            random: Random::new(seed),
            ports: Ports::new(seed),
            clients: Clients::default(),
            tell: HashMap::new(),
            sessions: HashMap::new(),
            by_ends: BTreeMap::new(),
            by_peer: HashMap::new(),
            timers: BTreeSet::new(),
            round: Time::ZERO,
            discarded: 0,
            leaving: None,
            suspending: None,
            left: false,
            idle: idle_sender,
        };
        let woken = wake.clone();
        std::thread::Builder::new().name("bfd".to_owned()).spawn(move || {
            let _guard = crate::io::EndOnPanic;
            super::realtime::ask();
            handover.into_iter().for_each(|handover| thread.take_over(handover));
            thread.run(&receivers, &asked, &woken);
        })?;
        Ok(Self { commands, wake, idle })
    }

    pub(super) fn ask(&self, command: Command) {
        // Both fail only when the thread has ended, and then the process is about to.
        drop(self.commands.send(command));
        let _ = self.wake.write(1);
    }
}

struct Thread {
    started: Instant,
    random: Random,
    ports: Ports,
    clients: Clients,
    tell: HashMap<ClientId, lines::UnboundedSender<BfdSession>>,
    /// By our discriminator.
    sessions: HashMap<u32, Live>,
    by_ends: BTreeMap<BfdEnds, u32>,
    by_peer: HashMap<IpAddr, Vec<u32>>,
    timers: BTreeSet<(Time, u32)>,
    /// When packets were last looked for.
    round: Time,
    discarded: u64,
    leaving: Option<oneshot::Sender<()>>,
    /// Whom to hand over to, and until when peers may take to answer.
    suspending: Option<(oneshot::Sender<Handover>, Time)>,
    /// A session has ended: one that waited for it may start.
    left: bool,
    idle: watch::Sender<bool>,
}

impl Thread {
    fn run(&mut self, receivers: &[Receiver], asked: &mpsc::Receiver<Command>, wake: &EventFd) {
        loop {
            self.wait(receivers, wake);
            receivers.iter().for_each(|receiver| self.drain(receiver));
            // Cleared before the commands are read, so that none is left without a wake-up. An error means that nobody woke us.
            let _ = wake.read();
            loop {
                match asked.try_recv() {
                    Ok(command) => self.perform(command),
                    Err(mpsc::TryRecvError::Empty) => break,
                    Err(mpsc::TryRecvError::Disconnected) => return,
                }
            }
            self.timeout();
            let nothing = self.sessions.is_empty();
            if nothing && let Some(done) = self.leaving.take() {
                // Whoever asked may have gone away.
                let _ = done.send(());
                return;
            }
            if self.is_suspended()
                && let Some((successor, _)) = self.suspending.take()
            {
                // Nobody may be interested.
                drop(successor.send(self.hand_over()));
                return;
            }
            let idle = nothing && self.clients.is_empty();
            self.idle.send_if_modified(|before| std::mem::replace(before, idle) != idle);
        }
    }

    fn now(&self) -> Time {
        self.started.elapsed()
    }

    fn wait(&mut self, receivers: &[Receiver], wake: &EventFd) {
        let timer = self.timers.first().map(|(at, _)| *at);
        let suspending = self.suspending.as_ref().map(|(_, until)| *until);
        let until = timer.into_iter().chain(self.clients.poll_timeout()).chain(suspending).min();
        if self.sessions.len() >= MANY {
            let next_round = TimeSpec::from_duration((self.round + ROUND).saturating_sub(self.now()));
            let _ = ppoll(&mut [PollFd::new(wake.as_fd(), PollFlags::POLLIN)], Some(next_round), None);
        }
        let now = self.now();
        self.round = now;
        let timeout = until.map(|at| TimeSpec::from_duration(at.saturating_sub(now)));
        let fds = receivers.iter().map(Receiver::fd).chain([wake.as_fd()]);
        let mut fds: Vec<PollFd<'_>> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        // A signal or an error: everything is looked at all the same.
        let _ = ppoll(&mut fds, timeout, None);
    }

    fn drain(&mut self, receiver: &Receiver) {
        for _ in 0..READS {
            let arrivals = receiver.receive();
            arrivals.iter().for_each(|arrival| self.receive(arrival));
            if arrivals.len() < BATCH {
                break;
            }
        }
    }

    fn perform(&mut self, command: Command) {
        match command {
            Command::Want { client, name, keep, wanted, tell } => {
                self.clients.want(client, &name, keep, wanted.clone());
                self.reconcile();
                let known = wanted.keys().filter_map(|ends| self.sessions.get(self.by_ends.get(ends)?));
                let now = self.now();
                // A send fails when the client has gone, which we hear of.
                known.for_each(|live| drop(tell.send(live.show(now))));
                self.tell.insert(client, tell);
            }
            Command::Gone(client) => {
                self.tell.remove(&client);
                self.clients.disconnected(client, self.now());
                self.reconcile();
            }
            Command::Status(reply) => {
                let now = self.now();
                let sessions = self.by_ends.values().filter_map(|id| self.sessions.get(id)).map(|live| live.show(now));
                // Whoever asked may have gone away.
                drop(reply.send(BfdStatus { sessions: sessions.collect(), discarded: self.discarded }));
            }
            Command::Leave(done) => {
                self.leaving = Some(done);
                self.reconcile();
            }
            Command::Suspend(successor) => {
                let now = self.now();
                self.suspending = Some((successor, now + SUSPENSION));
                let all: Vec<u32> = self.by_ends.values().copied().collect();
                all.into_iter().for_each(|id| self.drive(id, now, |session, now, _| session.quiesce(now)));
            }
        }
    }

    /// Sessions that nobody wants any more are taken down, those that are new start, the others get the timing that is wanted. Not while
    /// sessions are being handed over: their peers have been asked for patience, and who wants what goes over with them.
    fn reconcile(&mut self) {
        if self.suspending.is_some() {
            return;
        }
        let wanted = if self.leaving.is_some() { Wanted::new() } else { self.clients.wanted() };
        let now = self.now();
        let gone: Vec<u32> =
            self.by_ends.iter().filter(|(ends, _)| !wanted.contains_key(*ends)).map(|(_, id)| *id).collect();
        for id in gone {
            self.drive(id, now, |session, now, out| session.admin_down(now, out));
            if let Some(live) = self.sessions.get(&id) {
                self.by_ends.remove(&live.ends);
            }
        }
        for (ends, timing) in wanted {
            match self.by_ends.get(&ends) {
                Some(id) => self.drive(*id, now, |session, now, _| session.reconfigure(now, timing)),
                // What is still said for the one before, its peer would take for word of this one. It starts when that is said.
                None if self.is_being_left(ends.peer) => {}
                None => self.add(ends, timing, now),
            }
        }
    }

    /// Whether a session with this peer says its last words.
    fn is_being_left(&self, peer: IpAddr) -> bool {
        let of_peer = self.by_peer.get(&peer).into_iter().flatten().filter_map(|id| self.sessions.get(id));
        of_peer.into_iter().any(|live| live.session.state() == State::AdminDown)
    }

    /// Whether every session that can be handed over can be now, or the time for that is over.
    fn is_suspended(&self) -> bool {
        let Some((_, until)) = &self.suspending else { return false };
        let mut sessions = self.sessions.values().map(|live| &live.session);
        *until <= self.now() || sessions.all(|session| session.state() != State::Up || session.suspended().is_some())
    }

    fn hand_over(&self) -> Handover {
        let kept =
            |live: &Live| Some(Kept { ends: live.ends.clone(), port: live.port?, session: live.session.suspended()? });
        let sessions = self.by_ends.values().filter_map(|id| kept(self.sessions.get(id)?)).collect();
        Handover { clients: self.clients.clone(), sessions }
    }

    /// Goes on where another process has ended.
    fn take_over(&mut self, handover: Handover) {
        let now = self.now();
        self.clients = handover.clients;
        self.clients.take_over(now);
        info!(sessions = handover.sessions.len(), "going on where the process before ended");
        for Kept { ends, port, session } in handover.sessions {
            self.ports.claim(port);
            let session = Session::resume(&session, self.random.next(), now);
            self.insert(Live { port: Some(port), ..Live::new(ends, session, now) }, now);
        }
        self.reconcile();
    }

    fn add(&mut self, ends: BfdEnds, timing: Timing, now: Time) {
        let id = loop {
            let number = NonZeroU32::new(self.random.next() as u32);
            match number.filter(|number| !self.sessions.contains_key(&number.get())) {
                Some(number) => break number,
                None => continue,
            }
        };
        info!(peer = %ends.peer, interval = ?timing.desired_min_tx, multiplier = timing.detect_mult, "session added");
        let session = Session::new(id, timing, self.random.next(), now);
        let port = self.ports.take();
        self.insert(Live { port, ..Live::new(ends, session, now) }, now);
    }

    fn insert(&mut self, live: Live, now: Time) {
        let id = live.session.discriminator().get();
        self.by_ends.insert(live.ends.clone(), id);
        self.by_peer.entry(live.ends.peer).or_default().push(id);
        self.sessions.insert(id, live);
        self.open(id, now);
        self.drive(id, now, |_, _, _| ());
    }

    /// Opens, or opens again, the socket of a session.
    fn open(&mut self, id: u32, now: Time) {
        let Some(live) = self.sessions.get_mut(&id) else { return };
        live.opened = now;
        // First the old one goes: both have the same port.
        live.transmitter = None;
        let mut result = Err(std::io::ErrorKind::AddrInUse.into());
        while let Some(port) = live.port {
            result = Transmitter::open(&live.ends, port);
            if !result.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse) {
                break;
            }
            // Another program has it. It stays taken until the end, so that it is not tried again.
            live.port = self.ports.take();
        }
        match result {
            Ok(transmitter) => {
                live.transmitter = Some(transmitter);
                live.problem = None;
            }
            Err(error) => {
                let problem = format!("BFD cannot send to {}: {error}", live.ends.peer);
                if live.problem.as_ref() != Some(&problem) {
                    warn!(peer = %live.ends.peer, %error, "cannot send");
                }
                live.problem = Some(problem);
            }
        }
    }

    /// Lets a session do something, and does what it asks for.
    fn drive(&mut self, id: u32, now: Time, act: impl FnOnce(&mut Session, Time, &mut Vec<Output>)) {
        let Some(live) = self.sessions.get_mut(&id) else { return };
        let mut out = Vec::new();
        act(&mut live.session, now, &mut out);
        for output in out {
            match output {
                Output::Transmit(packet) => self.transmit(id, &packet, now),
                Output::Changed(change) => self.changed(id, change, now),
            }
        }
        let Some(live) = self.sessions.get_mut(&id) else { return };
        if live.session.is_over() {
            self.remove(id);
            // Another one with its peer may have waited for that.
            self.left = true;
            return;
        }
        let timer = live.session.poll_timeout();
        if timer != live.timer {
            if let Some(at) = live.timer {
                self.timers.remove(&(at, id));
            }
            self.timers.extend(timer.map(|at| (at, id)));
            live.timer = timer;
        }
    }

    fn remove(&mut self, id: u32) {
        let Some(live) = self.sessions.remove(&id) else { return };
        info!(peer = %live.ends.peer, "session removed");
        if let Some(at) = live.timer {
            self.timers.remove(&(at, id));
        }
        live.port.into_iter().for_each(|port| self.ports.give_back(port));
        if let Some(others) = self.by_peer.get_mut(&live.ends.peer) {
            others.retain(|other| *other != id);
            if others.is_empty() {
                self.by_peer.remove(&live.ends.peer);
            }
        }
    }

    fn transmit(&mut self, id: u32, packet: &Packet, now: Time) {
        let Some(live) = self.sessions.get(&id) else { return };
        let patience = match (&live.transmitter, packet.state) {
            (None, _) => REOPEN,
            (Some(_), State::Down) => FRUITLESS,
            _ => Duration::MAX,
        };
        if now.saturating_sub(live.opened) >= patience {
            self.open(id, now);
        }
        let Some(live) = self.sessions.get_mut(&id) else { return };
        let Some(transmitter) = &live.transmitter else { return };
        if let Err(error) = transmitter.send(&packet.encode()) {
            live.problem = Some(format!("BFD cannot send to {}: {error}", live.ends.peer));
            if now.saturating_sub(live.opened) >= REOPEN {
                self.open(id, now);
            }
        }
    }

    fn changed(&mut self, id: u32, change: Change, now: Time) {
        let Some(live) = self.sessions.get(&id) else { return };
        let Change { from, to } = change;
        let (peer, remote, diagnostic) = (live.ends.peer, live.session.remote_state(), live.session.diagnostic());
        match (from, to) {
            (State::Up, State::Down) => warn!(%peer, %remote, %diagnostic, "session down"),
            _ => info!(%peer, %from, %to, %remote, "session changed"),
        }
        let line = live.show(now);
        for client in self.clients.interested(&live.ends) {
            if let Some(tell) = self.tell.get(&client) {
                // A client that has gone is heard of soon.
                drop(tell.send(line.clone()));
            }
        }
    }

    fn receive(&mut self, arrival: &Arrival) {
        let Some((id, packet)) = self.accept(arrival) else {
            self.discarded += 1;
            return;
        };
        let now = self.now();
        self.drive(id, now, |session, now, out| session.receive(now, &packet, out));
    }

    /// The session that a packet belongs to; none if it is to be discarded (RFC 5880 section 6.8.6, 5881 section 5, 5883 section 4).
    fn accept(&mut self, arrival: &Arrival) -> Option<(u32, Packet)> {
        if !arrival.multihop && arrival.ttl != Some(TTL) {
            return None;
        }
        let packet = Packet::decode(arrival.payload()).ok()?;
        let id = match packet.your_discriminator {
            0 => {
                let is_met = |live: &Live| live.is_met_by(arrival) && live.session.state() != State::AdminDown;
                *self.by_peer.get(&arrival.from)?.iter().find(|id| self.sessions.get(id).is_some_and(is_met))?
            }
            id => id,
        };
        self.sessions.get(&id)?.is_met_by(arrival).then_some((id, packet))
    }

    fn timeout(&mut self) {
        let now = self.now();
        if self.clients.poll_timeout().is_some_and(|at| at <= now) {
            self.clients.handle_timeout(now);
            self.reconcile();
        }
        while let Some((at, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, id));
            if let Some(live) = self.sessions.get_mut(&id) {
                live.timer = None;
            }
            self.drive(id, now, |session, now, out| session.handle_timeout(now, out));
        }
        if std::mem::take(&mut self.left) {
            self.reconcile();
        }
    }
}
