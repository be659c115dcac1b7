//! The RIB thread: events in, messages and kernel changes out. It waits for nobody but the queue of events.

use crate::fib::{Change, Feedback, Fib, Reach};
use crate::rib::PeerId;
use crate::scoped::ScopedAddr;
use crate::speaker::{Event, Output, PeerCounts, Speaker, StationEvent, StationId};
use bytes::Bytes;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use twill_crds::control::{RouteQuery, RouteStatus};

/// Events that may wait. Beyond, the I/O thread stops reading from sockets.
const QUEUE: usize = 16;
/// Prefixes per batch for the kernel.
const KERNEL_BATCH: usize = 4096;
/// How soon a full queue of the FIB is tried again.
const KERNEL_RETRY: Duration = Duration::from_millis(5);

/// What the RIB thread is asked.
pub(super) enum Command {
    /// Something happened.
    Event(Event),
    /// There is a connection with a monitoring station, which takes messages here.
    Station(StationId, mpsc::UnboundedSender<Bytes>),
    /// Routes.
    Routes(RouteQuery, oneshot::Sender<Vec<RouteStatus>>),
    /// Counts of these peers, and what is wrong with prefixes of ours.
    Counts(Vec<PeerId>, oneshot::Sender<(Vec<PeerCounts>, Vec<String>)>),
    /// The decision about sessions that is in force, and why the node needs what it does away with.
    Retiring(oneshot::Sender<(Option<u32>, Option<String>)>),
}

/// Starts the thread; it ends when the last sender is gone. `adopted`: the kernel has routes of an earlier run, and to
/// these prefixes by the word of others.
pub(super) fn start(
    fib: Option<Fib>,
    adopted: Option<BTreeSet<IpNet>>,
    feedback: mpsc::UnboundedReceiver<Feedback>,
    outputs: mpsc::UnboundedSender<Vec<Output>>,
) -> io::Result<mpsc::Sender<Command>> {
    let (sender, commands) = mpsc::channel(QUEUE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let mut speaker = Speaker::new(fib.is_some(), adopted.is_some(), Instant::now());
    speaker.adopt(adopted.unwrap_or_default());
    let rib = Rib { speaker, fib, pending: Vec::new(), in_sync: false, outputs, stations: BTreeMap::new() };
    std::thread::Builder::new().name("rib".to_owned()).spawn(move || {
        let _guard = super::EndOnPanic;
        runtime.block_on(rib.run(commands, feedback));
    })?;
    Ok(sender)
}

struct Rib {
    speaker: Speaker,
    fib: Option<Fib>,
    /// What the FIB's queue had no room for.
    pending: Vec<Change>,
    /// Whether the FIB is to hear that all peers have told everything, after the changes that this brought.
    in_sync: bool,
    outputs: mpsc::UnboundedSender<Vec<Output>>,
    /// Monitoring stations that are connected; bounded by the windows that the speaker keeps.
    stations: BTreeMap<StationId, mpsc::UnboundedSender<Bytes>>,
}

impl Rib {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>, mut feedback: mpsc::UnboundedReceiver<Feedback>) {
        let mut batch = Vec::with_capacity(QUEUE);
        loop {
            let mut wake = self.speaker.poll_timeout();
            if !self.pending.is_empty() {
                let soon = Instant::now() + KERNEL_RETRY;
                wake = Some(wake.map_or(soon, |wake| wake.min(soon)));
            }
            tokio::select! {
                // What the kernel told goes before a configuration that waited for it.
                biased;
                Some(feedback) = feedback.recv() => self.hear(feedback),
                count = commands.recv_many(&mut batch, QUEUE) => if count == 0 { return },
                () = super::sleep_until(wake) => {}
            }
            let now = Instant::now();
            self.speaker.handle_timeout(now);
            for command in batch.drain(..) {
                self.perform(command, now);
            }
            self.flush(now);
        }
    }

    fn perform(&mut self, command: Command, now: Instant) {
        // Whoever asked may have gone away.
        match command {
            Command::Event(event) => {
                if let Event::Station(id, StationEvent::Down) = event {
                    self.stations.remove(&id);
                }
                self.speaker.handle(event, now);
            }
            Command::Station(id, sender) => {
                self.stations.insert(id, sender);
                self.speaker.handle(Event::Station(id, StationEvent::Up), now);
            }
            Command::Routes(query, reply) => drop(reply.send(self.speaker.routes(&query))),
            Command::Counts(peers, reply) => {
                let counts = peers.into_iter().map(|peer| self.speaker.counts(peer)).collect();
                drop(reply.send((counts, self.speaker.problems())));
            }
            Command::Retiring(reply) => drop(reply.send(self.speaker.retiring())),
        }
    }

    fn hear(&mut self, feedback: Feedback) {
        let cost = |reach| match reach {
            Reach::Unreachable => None,
            Reach::Reachable { cost } => Some(cost),
        };
        let event = match feedback {
            Feedback::NextHops(hops) => {
                let costs: Vec<(ScopedAddr, Option<u32>)> =
                    hops.into_iter().map(|(address, reach)| (address, cost(reach))).collect();
                Event::Costs(costs)
            }
            Feedback::Hosts(hosts) => Event::Hosts(hosts),
            Feedback::Status(_) => return,
        };
        self.speaker.handle(event, Instant::now());
    }

    fn flush(&mut self, now: Instant) {
        // Next hops first: nobody hears End-of-RIB while one of them is not judged.
        let hops = self.fib.as_ref().and_then(|_| self.speaker.next_hops());
        self.in_sync |= self.speaker.came_in_sync(now);
        let mut out = Vec::new();
        self.speaker.flush(now, &mut out);
        if !out.is_empty() {
            // Fails only when the I/O thread has ended, and then the process is about to.
            drop(self.outputs.send(out));
        }
        for (id, bytes) in self.speaker.monitor() {
            match (bytes, self.stations.get(&id)) {
                // Fails only when the task has ended, which says so itself.
                (Some(bytes), Some(station)) => drop(station.send(bytes)),
                (None, _) => drop(self.stations.remove(&id)),
                (Some(_), None) => {}
            }
        }
        let Some(fib) = &self.fib else { return };
        if let Some(hops) = hops {
            fib.track(hops);
        }
        loop {
            if self.pending.is_empty() {
                self.pending = self.speaker.fib_changes(KERNEL_BATCH);
            }
            if self.pending.is_empty() {
                break;
            }
            if let Err(changes) = fib.try_apply(std::mem::take(&mut self.pending)) {
                self.pending = changes;
                return;
            }
        }
        if std::mem::take(&mut self.in_sync) {
            fib.in_sync();
        }
    }
}
