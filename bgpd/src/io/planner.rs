//! The planner's thread: from configurations, what is found on interfaces and who calls, to the plans that the RIB and the I/O thread
//! follow. It alone makes plans, so that they come in one order.

use super::nd::{Sights, Watch};
use super::{rib, session};
use crate::nd::Sight;
use crate::scoped::ScopedAddr;
use crate::speaker::{Absent, Config, Event, Plan, Seen};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

/// How long after a start interfaces may take to show their routers, before what an earlier run left of them goes.
const SETTLE: Duration = Duration::from_secs(30);

/// What the thread is asked.
pub(super) enum Command {
    /// From now on this configuration; answered when the plan is on its way.
    Configure(Box<Config>, oneshot::Sender<()>),
    /// Interfaces look like this.
    Sights(Sights),
    /// Somebody calls from a range, which has room.
    Caller(ScopedAddr, String),
    /// Of a caller nothing is kept any more.
    Gone(ScopedAddr),
    /// The configuration in force, without what was found.
    Configuration(oneshot::Sender<Option<Config>>),
    /// Who is configured and not there, and what is odd.
    Absent(oneshot::Sender<(Vec<Absent>, Vec<String>)>),
}

/// To the thread; it ends when the last one is gone.
pub(super) type Planner = Sender<Command>;

struct Thread {
    config: Option<Config>,
    seen: Seen,
    plan: Option<Plan>,
    watch: Option<Watch>,
    rib: mpsc::Sender<rib::Command>,
    io: mpsc::UnboundedSender<session::Command>,
    /// Until when routers are waited for.
    settles: Option<Instant>,
    seed: u64,
    /// Commands from others to itself.
    own: std::sync::Weak<Planner>,
}

/// The queue to a planner that is to be started.
pub(super) struct Queue {
    commands: Receiver<Command>,
    own: std::sync::Weak<Planner>,
}

/// A planner's end for those who ask it, and the queue that it will read.
pub(super) fn channel_pair() -> (Arc<Planner>, Queue) {
    let (sender, commands) = channel();
    let sender = Arc::new(sender);
    let own = Arc::downgrade(&sender);
    (sender, Queue { commands, own })
}

impl Queue {
    /// Starts the thread, in the caller's network namespace.
    pub(super) fn start(
        self,
        rib: mpsc::Sender<rib::Command>,
        io: mpsc::UnboundedSender<session::Command>,
        seed: u64,
    ) -> io::Result<()> {
        let settles = Some(Instant::now() + SETTLE);
        let mut thread = Thread {
            config: None,
            seen: Seen::default(),
            plan: None,
            watch: None,
            rib,
            io,
            settles,
            seed,
            own: self.own,
        };
        std::thread::Builder::new().name("planner".to_owned()).spawn(move || {
            let _guard = super::EndOnPanic;
            thread.run(&self.commands);
        })?;
        Ok(())
    }
}

impl Thread {
    fn run(&mut self, commands: &Receiver<Command>) {
        loop {
            let next = match self.settles {
                Some(at) => commands.recv_timeout(at.saturating_duration_since(Instant::now())),
                None => commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match next {
                Ok(command) => self.perform(command),
                Err(RecvTimeoutError::Timeout) => {
                    self.settles = None;
                    self.follow();
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn perform(&mut self, command: Command) {
        match command {
            Command::Configure(config, done) => {
                self.watch(&config);
                self.seen.forget_strangers(&config);
                self.config = Some(*config);
                self.follow();
                // Whoever asked may have gone away.
                let _ = done.send(());
            }
            Command::Sights(sights) => {
                self.note(&sights);
                self.seen.sights = sights;
                self.follow();
            }
            Command::Caller(address, range) => {
                self.seen.callers.insert(address, range);
                if let Some(config) = &self.config {
                    self.seen.forget_strangers(config);
                }
                self.follow();
            }
            Command::Gone(address) => {
                self.seen.callers.remove(&address);
                self.follow();
            }
            Command::Configuration(reply) => {
                let _ = reply.send(self.config.clone());
            }
            Command::Absent(reply) => {
                let said = self.config.as_ref().map(|config| (self.seen.absent(config), self.seen.problems(config)));
                let _ = reply.send(said.unwrap_or_default());
            }
        }
    }

    /// Watches the interfaces of unnumbered peers. The socket is there only where there are some.
    fn watch(&mut self, config: &Config) {
        let names: BTreeSet<String> =
            config.templates.unnumbered.values().map(|template| template.interface.clone()).collect();
        if names.is_empty() {
            self.watch = None;
            self.seen.sights.clear();
            return;
        }
        if self.watch.is_none() {
            // Weak, or the thread that watches would keep this one for ever.
            let own = self.own.clone();
            let tell = move |sights| {
                if let Some(own) = own.upgrade() {
                    drop(own.send(Command::Sights(sights)));
                }
            };
            match Watch::start(self.seed, tell) {
                Ok(watch) => self.watch = Some(watch),
                Err(error) => {
                    let why = format!(
                        "router advertisements cannot be heard or sent: {error}; unnumbered peers need CAP_NET_RAW, and IPv6 in the kernel"
                    );
                    warn!("{why}");
                    self.seen.sights = names.iter().map(|name| (name.clone(), Sight::Deaf(why.clone()))).collect();
                }
            }
        }
        if let Some(watch) = &self.watch {
            watch.want(names);
        }
    }

    /// Lines for people about what was found and lost.
    fn note(&self, sights: &Sights) {
        for (interface, sight) in sights {
            match (self.seen.sights.get(interface), sight) {
                (Some(old), new) if old == new => {}
                (_, Sight::Up { router: Some(router), own, .. }) => {
                    info!(interface, %router, %own, "router found");
                }
                (_, sight) => {
                    if let Some(missing) = sight.missing(interface, false) {
                        info!(interface, missing, "no router");
                    }
                }
            }
        }
    }

    fn follow(&mut self) {
        let Some(config) = &self.config else { return };
        let mut expanded = self.seen.expand(config);
        // A router that is not found yet may be the one whose routes an earlier run left in the kernel.
        if self.settles.is_some() && self.seen.is_settled(config) {
            self.settles = None;
        }
        expanded.complete &= self.settles.is_none();
        let plan = match &self.plan {
            None => Plan::first(expanded),
            Some(plan) => plan.next(expanded),
        };
        self.plan = Some(plan.clone());
        let plan = Arc::new(plan);
        // The RIB first, so that it knows the peers of the sessions that come up. A send fails only at the end.
        drop(self.rib.blocking_send(rib::Command::Event(Event::Plan(Arc::clone(&plan)))));
        drop(self.io.send(session::Command::Plan(plan)));
    }
}
