//! The FIB's thread: commands and notifications in, one round of observation and difference out.

use super::backoff::Backoff;
use super::kernel::Kernel;
use super::monitor::{Judge, Monitor};
use crate::fib::table::Table;
use crate::fib::{Command, Config, Feedback, Fib, RouteState, Status, tunnel};
use ipnet::IpNet;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};
use twill_crds::names::VXLAN_DEVICE;

/// Events that come within this time of each other bring one look at the kernel…
const QUIET: Duration = Duration::from_millis(20);
/// …which is never put off for longer than this.
const AT_LATEST: Duration = Duration::from_millis(200);
/// Greater MTUs wait until the first of them has waited for so long, and are then written together: where they go up and down, that is how often.
const STANDS: Duration = Duration::from_secs(15);
/// A status is told at most this often.
const STATUS: Duration = Duration::from_millis(100);
/// Commands that one round takes in.
const COMMANDS: usize = 256;
/// Rounds of device changes: make, look, adjust, look, set up and address, look.
const DEVICE_ROUNDS: usize = 5;

/// Starts the thread in the caller's network namespace. Routes that an earlier run left are adopted: kept until they are
/// replaced, or [`Fib::in_sync`] was called and nobody announced them. `feedback` is called on the thread and must not
/// block. The thread ends, and leaves everything in place, when the last handle is dropped. Beside the handle: whether such routes were
/// found, which means that this machine has forwarded by them all the while, since a reboot would have removed them; and which of them were
/// learned.
///
/// # Errors
/// If the netlink sockets cannot be opened.
pub fn start(
    config: Config,
    feedback: impl Fn(Feedback) + Send + 'static,
) -> io::Result<(Fib, Option<BTreeSet<IpNet>>)> {
    let kernel = Kernel::open()?;
    let monitor = Monitor::open(kernel.port())?;
    let (sender, receiver) = UnixStream::pair()?;
    sender.set_nonblocking(true)?;
    receiver.set_nonblocking(true)?;
    // A full pipe means that the thread is awake already.
    let wake = move || drop((&sender).write(&[1]));
    let (fib, queue) = Fib::channel(Arc::new(wake));
    let mut worker = Worker {
        kernel,
        monitor,
        table: Table::default(),
        queue,
        wake: receiver,
        feedback: Box::new(feedback),
        told: Status::default(),
        told_at: None,
        untold: false,
        pending: None,
        route_retry: Backoff::default(),
        device_retry: Backoff::default(),
        raise: None,
        settles: Vec::new(),
        shows: Vec::new(),
        more: false,
        work: Work { routes: true, devices: true, reach: true },
    };
    worker.table.configure(config);
    worker.observe("start");
    let adopted = worker.table.has_adopted().then(|| worker.table.adopted());
    std::thread::Builder::new().name("fib".to_owned()).spawn(move || worker.run())?;
    Ok((fib, adopted))
}

/// Takes the answer to a [`Command::Show`].
type Reply = Box<dyn FnOnce(Vec<RouteState>) + Send>;

struct Worker {
    kernel: Kernel,
    monitor: Monitor,
    table: Table,
    queue: Receiver<Command>,
    wake: UnixStream,
    feedback: Box<dyn Fn(Feedback) + Send>,
    told: Status,
    told_at: Option<Instant>,
    /// The status may be another than the one that was told.
    untold: bool,
    pending: Option<Pending>,
    /// A setting that is refused for good keeps no route waiting.
    route_retry: Backoff,
    device_retry: Backoff,
    /// When routes that wait for a greater MTU get it.
    raise: Option<Instant>,
    settles: Vec<Box<dyn FnOnce(Status) + Send>>,
    shows: Vec<(Vec<IpNet>, Reply)>,
    /// Commands wait that no wake-up will announce again.
    more: bool,
    work: Work,
}

/// What a round has to look at.
#[derive(Default)]
struct Work {
    routes: bool,
    devices: bool,
    reach: bool,
}

/// A look at the kernel that is due.
struct Pending {
    reason: &'static str,
    first: Instant,
    last: Instant,
}

impl Pending {
    fn due(&self) -> Instant {
        (self.last + QUIET).min(self.first + AT_LATEST)
    }
}

impl Worker {
    fn run(mut self) {
        let mut open = true;
        while open {
            self.round();
            self.sleep();
            open = self.commands();
            self.listen();
        }
        self.round();
    }

    /// Looks at the kernel if that is due, writes the difference, and tells what is new.
    fn round(&mut self) {
        let now = Instant::now();
        if let Some(reason) = self.pending.take_if(|pending| pending.due() <= now).map(|pending| pending.reason) {
            self.observe(reason);
        }
        self.work.routes |= self.route_retry.is_due(now);
        self.work.devices |= self.device_retry.is_due(now);
        if self.raise.take_if(|at| *at <= now).is_some() {
            self.table.raise();
            self.work.routes = true;
        }
        let work = std::mem::take(&mut self.work);
        if (work.routes || work.devices)
            && let Err(error) = self.converge(work.devices)
        {
            tracing::warn!(%error, "kernel routes cannot be written now");
            self.expect("a netlink error");
        }
        if work.routes || work.devices {
            self.route_retry.went(self.table.routes_failed(), now);
            self.device_retry.went(self.table.devices_failed(), now);
            self.raise = self.table.waits_to_raise().then(|| self.raise.unwrap_or(now + STANDS));
        }
        if work.reach || std::mem::take(&mut self.work.reach) {
            let changes = self.table.reach_changes();
            if !changes.is_empty() {
                (self.feedback)(Feedback::NextHops(changes));
            }
            if let Some(hosts) = self.table.host_changes() {
                (self.feedback)(Feedback::Hosts(hosts));
            }
        }
        for (prefixes, reply) in std::mem::take(&mut self.shows) {
            reply(self.table.show(&prefixes));
        }
        self.tell(now);
    }

    fn observe(&mut self, reason: &'static str) {
        match self.kernel.read(self.table.config()) {
            Ok((world, found)) => {
                let repairs = self.table.observe(world, found);
                if repairs.routes > 0 {
                    let first = repairs.first.map(|prefix| prefix.to_string());
                    tracing::warn!(
                        reason,
                        routes = repairs.routes,
                        first,
                        "kernel routes of ours were gone or changed"
                    );
                }
                self.work = Work { routes: true, devices: true, reach: true };
            }
            Err(error) => {
                tracing::warn!(%error, reason, "the kernel's routes cannot be read now");
                self.expect(reason);
            }
        }
    }

    fn converge(&mut self, devices: bool) -> io::Result<()> {
        if devices {
            self.add_devices()?;
        }
        let steps = self.table.difference();
        let neighbours = self.table.new_neighbours();
        if !neighbours.is_empty()
            && let Err(error) = self.kernel.resolve(&neighbours)
        {
            tracing::debug!(%error, "neighbours cannot be looked for now");
        }
        let mut reason = None;
        let (kernel, monitor, table) = (&mut self.kernel, &mut self.monitor, &self.table);
        let judge = judge(table);
        let failed = kernel.write(&steps, table.config(), || {
            // Our own notifications must not fill the socket while we write.
            reason = reason.or(monitor.drain(&judge).unwrap_or(Some("notifications cannot be read")));
        })?;
        for (step, text) in failed {
            let (prefix, metric) = step.key();
            tracing::warn!(%prefix, metric, text, "the kernel refused a route");
            self.table.failed(step, text);
        }
        if let Some(reason) = reason {
            self.expect(reason);
        }
        if devices {
            self.remove_devices()?;
        }
        Ok(())
    }

    fn add_devices(&mut self) -> io::Result<()> {
        self.table.begin_devices();
        for _ in 0..DEVICE_ROUNDS {
            let steps = self.table.device_additions();
            let mut done = 0;
            for step in &steps {
                done += u32::from(self.device(step)?);
            }
            if done == 0 {
                break;
            }
            let world = self.kernel.read_devices(self.table.world())?;
            self.table.set_world(world);
            self.work.reach = true;
        }
        Ok(())
    }

    fn remove_devices(&mut self) -> io::Result<()> {
        let steps = self.table.device_removals();
        for step in &steps {
            self.device(step)?;
        }
        if !steps.is_empty() {
            let world = self.kernel.read_devices(self.table.world())?;
            self.table.set_world(world);
        }
        Ok(())
    }

    fn device(&mut self, step: &tunnel::Step) -> io::Result<bool> {
        let failure = self.kernel.device(step)?;
        let is_new = self.table.device_result(step, failure.clone());
        match (step, &failure) {
            (tunnel::Step::DisableChecksumOffload { transport, why }, None) => {
                tracing::warn!(tunnel = transport.name(), why, "checksum offload of a tunnel device turned off");
            }
            (_, None) => tracing::info!(?step, "device changed"),
            (_, Some(failure)) if is_new => {
                tracing::warn!(?step, ?failure, "the kernel refused a setting that tunnels need; it is tried again");
            }
            (_, Some(failure)) => tracing::debug!(?step, ?failure, "device not changed"),
        }
        Ok(failure.is_none())
    }

    fn tell(&mut self, now: Instant) {
        let settles = std::mem::take(&mut self.settles);
        let recent = self.told_at.is_some_and(|at| now < at + STATUS);
        self.untold = recent && settles.is_empty();
        if self.untold {
            return;
        }
        let status = self.table.status();
        for settle in settles {
            settle(status.clone());
        }
        self.told_at = Some(now);
        if status != self.told {
            (self.feedback)(Feedback::Status(status.clone()));
            self.told = status;
        }
    }

    fn expect(&mut self, reason: &'static str) {
        let now = Instant::now();
        let pending = self.pending.get_or_insert(Pending { reason, first: now, last: now });
        pending.last = now;
    }

    /// Waits for a command, a notification, or the next time at which something is due.
    fn sleep(&mut self) {
        let status = self.told_at.map(|at| at + STATUS).filter(|_| self.untold);
        let pending = self.pending.as_ref().map(Pending::due);
        let due = [pending, self.route_retry.due(), self.device_retry.due(), self.raise, status];
        let timeout = match due.into_iter().flatten().min() {
            _ if self.more => PollTimeout::ZERO,
            None => PollTimeout::NONE,
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now()).as_millis() + 1;
                PollTimeout::try_from(left.min(60_000)).unwrap_or(PollTimeout::MAX)
            }
        };
        let mut fds =
            [PollFd::new(self.wake.as_fd(), PollFlags::POLLIN), PollFd::new(self.monitor.fd(), PollFlags::POLLIN)];
        // An interrupted or failed poll only means an early look at both queues.
        let _ = poll(&mut fds, timeout);
        let mut bytes = [0; 256];
        while matches!(self.wake.read(&mut bytes), Ok(n) if n == bytes.len()) {}
    }

    /// Takes in what the handles sent; false once there is no handle any more.
    fn commands(&mut self) -> bool {
        for _ in 0..COMMANDS {
            match self.queue.try_recv() {
                Ok(command) => self.command(command),
                Err(TryRecvError::Empty) => {
                    self.more = false;
                    return true;
                }
                Err(TryRecvError::Disconnected) => return false,
            }
        }
        self.more = true;
        true
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Configure(config) => {
                self.work = Work { routes: true, devices: true, reach: true };
                if self.table.configure(*config) {
                    self.observe("the configuration changed");
                }
            }
            // From here on the next ones may wait, so that there is something to write when these are.
            Command::Apply(changes, _waiting) => {
                self.work.routes = true;
                self.table.apply(changes);
            }
            Command::InSync => {
                self.work.routes = true;
                self.table.learned_in_sync();
            }
            Command::Track(next_hops) => {
                self.work.reach = true;
                self.table.track(next_hops);
            }
            Command::Ends(reply) => reply(self.table.ends()),
            Command::Show(prefixes, reply) => self.shows.push((prefixes, reply)),
            Command::Settle(done) => self.settles.push(done),
        }
    }

    fn listen(&mut self) {
        let judge = judge(&self.table);
        match self.monitor.drain(&judge) {
            Ok(None) => {}
            Ok(Some(reason)) => self.expect(reason),
            Err(error) => {
                tracing::warn!(%error, "the kernel's notifications cannot be read now");
                self.expect("notifications cannot be read");
            }
        }
    }
}

fn judge(table: &Table) -> Judge<'_> {
    let vxlan = table.world().link(VXLAN_DEVICE).map(|link| link.index);
    Judge { config: table.config(), vxlan, world: table.world() }
}
