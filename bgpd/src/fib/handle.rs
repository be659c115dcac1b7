//! The handle that feeds the FIB's thread, and what comes back from it.

use super::{Change, Config, Ends, Hosts};
use crate::scoped::ScopedAddr;
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

/// Batches that may wait for the kernel. A full queue makes [`Fib::apply`] wait and [`Fib::try_apply`] hand the batch back.
const QUEUE: usize = 256;
/// Changes that may wait for the kernel: beyond, [`Fib::try_apply`] hands them back, to who keeps them as numbers. Written in less than a
/// tenth of a second.
const WAITING: usize = 16 << 10;

/// Feeds the FIB's thread; cheap to clone. Commands are carried out in order. When the last handle is dropped the
/// thread ends and leaves every route and device in place.
#[derive(Clone)]
pub struct Fib {
    commands: SyncSender<Command>,
    wake: Arc<dyn Fn() + Send + Sync>,
    waiting: Arc<AtomicUsize>,
}

/// So many changes wait for the kernel while this lives.
pub struct Waiting {
    all: Arc<AtomicUsize>,
    these: usize,
}

impl Waiting {
    fn more(all: &Arc<AtomicUsize>, these: usize) -> Self {
        all.fetch_add(these, Ordering::Relaxed);
        Self { all: Arc::clone(all), these }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.all.fetch_sub(self.these, Ordering::Relaxed);
    }
}

/// What the FIB's thread is asked.
pub enum Command {
    /// Replace the configuration.
    Configure(Box<Config>),
    /// Remember what the RIB chose.
    Apply(Vec<Change>, Waiting),
    /// All peers have sent End-of-RIB, or the limit is over: what is adopted and was not learned again may go.
    InSync,
    /// Follow these next hops, and no others; their state is told at once and whenever it changes.
    Track(Vec<ScopedAddr>),
    /// Where routes by IP-in-IP lead that the kernel has.
    Ends(Box<dyn FnOnce(Ends) + Send>),
    /// State of these prefixes, in the order asked.
    Show(Vec<IpNet>, Box<dyn FnOnce(Vec<RouteState>) + Send>),
    /// Called once everything asked before has been tried on the kernel.
    Settle(Box<dyn FnOnce(Status) + Send>),
}

/// What the FIB's thread tells unasked. The receiver must not block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Feedback {
    /// Next hops that are tracked and whose state is new.
    NextHops(Vec<(ScopedAddr, Reach)>),
    /// Workloads outside of our blocks are others than before, or are all now.
    Hosts(Hosts),
    /// The status changed.
    Status(Status),
}

/// Whether and how a next hop can be reached (RFC 4271 section 9.1.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Nothing resolves it; a path through it is not eligible.
    Unreachable,
    /// By the kernel's routes or a tunnel; the interior cost (RFC 4271 section 9.1.2.2 e), 0 for a connected one.
    Reachable {
        /// Interior cost.
        cost: u32,
    },
}

/// State of the FIB as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Routes in the kernel that are ours.
    pub installed: u64,
    /// Routes that others removed or changed and that were repaired.
    pub repairs: u64,
    /// How often checksum offload of a tunnel device was turned off: at first, and after somebody had turned it on.
    pub offloads_disabled: u64,
    /// How often the kernel refused a setting that tunnels need.
    pub settings_refused: u64,
    /// By what the node would better be known, where an address by which it is does not do and its Node lists another that does; else empty.
    pub better: Vec<IpAddr>,
    /// What is wrong, with what kind of thing it concerns.
    pub problems: Vec<Problem>,
}

/// One sentence about what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Condition that it makes false.
    pub condition: Condition,
    /// The sentence.
    pub text: String,
}

/// Conditions of a NodeNetwork that the FIB decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// `AddressValid`: an address of the node is not on this machine, or on a link by which no other node reaches it.
    Address,
    /// `TunnelHealthy`: a tunnel device cannot be made or used.
    Tunnel,
    /// `TunnelHealthy`, with a reason of its own: the kernel refused a setting without which some packets do not arrive.
    Setting,
    /// `RoutesResolved`: a next hop leads nowhere, or a route is refused by rule.
    Resolved,
    /// `RoutesInstalled`: the kernel refused a change.
    Installed,
}

/// State of one prefix in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteState {
    /// The prefix.
    pub prefix: IpNet,
    /// Whether the kernel has an unreachable route for it because it is our own.
    pub unreachable: bool,
    /// Each next hop that the RIB chose.
    pub hops: Vec<HopState>,
}

/// State of one next hop of a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HopState {
    /// The next hop.
    pub address: ScopedAddr,
    /// Whether the kernel's route uses it.
    pub installed: bool,
    /// `plain`, `VXLAN`, `IPIP`; empty when it is not installed.
    pub encapsulation: &'static str,
    /// Why it is not installed, or how its next hop was resolved; may be empty.
    pub reason: String,
}

impl Fib {
    /// A handle and the queue that it fills; `wake` is called after each command.
    #[must_use]
    pub fn channel(wake: Arc<dyn Fn() + Send + Sync>) -> (Self, Receiver<Command>) {
        let (commands, queue) = sync_channel(QUEUE);
        (Self { commands, wake, waiting: Arc::default() }, queue)
    }

    /// Replaces the configuration.
    pub fn configure(&self, config: Config) {
        self.send(Command::Configure(Box::new(config)));
    }

    /// Hands over what the RIB chose, later words about a prefix replacing earlier ones; waits while the queue is full.
    pub fn apply(&self, changes: Vec<Change>) {
        let waiting = Waiting::more(&self.waiting, changes.len());
        self.send(Command::Apply(changes, waiting));
    }

    /// As [`Fib::apply`], but never waits.
    ///
    /// # Errors
    /// Gives the changes back when the queue is full, or much waits in it already.
    pub fn try_apply(&self, changes: Vec<Change>) -> Result<(), Vec<Change>> {
        if self.waiting.load(Ordering::Relaxed) >= WAITING {
            return Err(changes);
        }
        let waiting = Waiting::more(&self.waiting, changes.len());
        match self.commands.try_send(Command::Apply(changes, waiting)) {
            Ok(()) => {
                (self.wake)();
                Ok(())
            }
            Err(TrySendError::Full(Command::Apply(changes, _))) => Err(changes),
            Err(_) => Ok(()),
        }
    }

    /// What is adopted from an earlier run and was not learned again may go: every configured peer has sent End-of-RIB for its families,
    /// or `restartTime` is over (RFC 4724 section 4.1), and what they told was chosen and handed over before.
    pub fn in_sync(&self) {
        self.send(Command::InSync);
    }

    /// Follows these next hops, and no others.
    pub fn track(&self, next_hops: Vec<ScopedAddr>) {
        self.send(Command::Track(next_hops));
    }

    /// Asks where IP-in-IP leads; `reply` is called on the FIB's thread. Never waits: false if nobody could be asked now.
    pub fn try_ends(&self, reply: impl FnOnce(Ends) + Send + 'static) -> bool {
        let asked = self.commands.try_send(Command::Ends(Box::new(reply))).is_ok();
        if asked {
            (self.wake)();
        }
        asked
    }

    /// Asks for the state of prefixes; `reply` is called on the FIB's thread.
    pub fn show(&self, prefixes: Vec<IpNet>, reply: impl FnOnce(Vec<RouteState>) + Send + 'static) {
        self.send(Command::Show(prefixes, Box::new(reply)));
    }

    /// Calls `done` on the FIB's thread once everything asked before has been tried on the kernel.
    pub fn settle(&self, done: impl FnOnce(Status) + Send + 'static) {
        self.send(Command::Settle(Box::new(done)));
    }

    fn send(&self, command: Command) {
        // The thread ends only after the last handle; a send can fail only if it panicked, and then its status stops too.
        if self.commands.send(command).is_ok() {
            (self.wake)();
        }
    }
}
