//! One measurement.

use super::row::{Neighbour, Row};
use super::speakers::{Running, Speaker};
use super::{kernel, namespaces, peers};
use anyhow::Context;
use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the sessions of a speaker may take.
const SESSIONS: Duration = Duration::from_secs(90);

/// What was measured.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// From the word to all senders until the last prefix was there; until the limit, if it was not.
    pub(crate) seconds: f64,
    /// Until the last sender had written everything.
    pub(crate) sent: Option<f64>,
    /// Prefixes that were there in the end.
    pub(crate) distinct: u32,
    pub(crate) updates: u64,
    /// Of each program.
    pub(crate) peak_mib: Vec<(&'static str, f64)>,
    pub(crate) cpu_seconds: f64,
}

/// Starts the speaker afresh in a new network namespace and sends it all prefixes.
pub(crate) fn run(speaker: Speaker, twill: &Path, row: Row, limit: Duration) -> anyhow::Result<Outcome> {
    let directory = tempfile::tempdir()?;
    // Some speakers give up root.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(directory.path(), open)?;
    let measured = std::thread::scope(|scope| {
        scope.spawn(|| Bench::new(row, limit)?.measure(speaker, twill, directory.path())).join()
    });
    measured.map_err(|_| anyhow::anyhow!("the measuring thread panicked"))?
}

/// Namespaces and threads of one measurement; the caller's thread is in the speaker's.
struct Bench {
    row: Row,
    limit: Duration,
    receiver: Option<Party<peers::Heard>>,
    senders: Vec<Party<Option<Instant>>>,
}

/// A neighbour's thread.
struct Party<T> {
    /// Connect now.
    go: mpsc::Sender<()>,
    is_up: mpsc::Receiver<()>,
    /// Send now.
    start: mpsc::Sender<()>,
    /// Open until the measurement is over.
    _lives: mpsc::Sender<()>,
    thread: JoinHandle<anyhow::Result<T>>,
}

impl Bench {
    fn new(row: Row, limit: Duration) -> anyhow::Result<Self> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
            .context("cannot make a network namespace; run as root")?;
        namespaces::ip("link set lo up")?;
        let mut bench = Self { row, limit, receiver: None, senders: Vec::new() };
        for neighbour in row.neighbours() {
            if neighbour.sends {
                let sender = party(neighbour, move |is_up, starts, is_over| {
                    peers::send(row, neighbour, is_up, starts, is_over)
                })?;
                bench.senders.push(sender);
            } else {
                bench.receiver = Some(party(neighbour, move |is_up, _, _| peers::receive(row, limit, is_up))?);
            }
        }
        Ok(bench)
    }

    fn measure(self, speaker: Speaker, twill: &Path, directory: &Path) -> anyhow::Result<Outcome> {
        let running = speaker.start(twill, self.row, directory)?;
        if let Some(receiver) = &self.receiver {
            receiver.connect().context("receiver")?;
        }
        for (number, party) in (1..).zip(&self.senders) {
            party.connect().with_context(|| format!("sender {number}"))?;
        }
        let routes = if self.row.kernel { kernel::prefixes()? } else { 0 };
        let started = Instant::now();
        for party in &self.senders {
            party.start.send(()).context("a sender ended early")?;
        }
        let heard = match self.receiver {
            Some(receiver) => receiver.end().context("receiver")?,
            None => kernel::fill(routes, self.row.total(), self.limit)?,
        };
        let (peak_mib, cpu_seconds) = (running.peak_mib()?, running.cpu_seconds()?);
        finish(running, self.senders, started, &heard, peak_mib, cpu_seconds)
    }
}

/// The speaker first: one that is still busy takes no more from its senders, and they end with it.
fn finish(
    running: Running,
    senders: Vec<Party<Option<Instant>>>,
    started: Instant,
    heard: &peers::Heard,
    peak_mib: Vec<(&'static str, f64)>,
    cpu_seconds: f64,
) -> anyhow::Result<Outcome> {
    drop(running);
    let since = |at: Instant| at.saturating_duration_since(started).as_secs_f64();
    let mut sent = Some(0.0);
    for sender in senders {
        let at = sender.end().context("sender")?;
        sent = sent.zip(at).map(|(last, at)| since(at).max(last));
    }
    Ok(Outcome {
        seconds: since(heard.at),
        sent,
        distinct: heard.distinct,
        updates: heard.updates,
        peak_mib,
        cpu_seconds,
    })
}

impl<T> Party<T> {
    fn connect(&self) -> anyhow::Result<()> {
        self.go.send(()).context("ended early")?;
        self.is_up.recv_timeout(SESSIONS).context("no session")
    }

    fn end(self) -> anyhow::Result<T> {
        let Self { go, start, _lives: lives, thread, .. } = self;
        drop((go, start, lives));
        thread.join().map_err(|_| anyhow::anyhow!("its thread panicked"))?
    }
}

/// A neighbour in a namespace of its own, on a link with the caller's.
fn party<T: Send + 'static>(
    neighbour: Neighbour,
    work: impl FnOnce(&mpsc::Sender<()>, &mpsc::Receiver<()>, &mpsc::Receiver<()>) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<Party<T>> {
    let (go, goes) = mpsc::channel::<()>();
    let (up, is_up) = mpsc::channel();
    let (start, starts) = mpsc::channel();
    let (lives, is_over) = mpsc::channel();
    let (id, thread) = namespaces::spawn(move || {
        goes.recv()?;
        work(&up, &starts, &is_over)
    })?;
    let number = neighbour.number;
    namespaces::ip(&format!("link add d{number} type veth peer name p{number} netns {id}"))?;
    namespaces::ip(&format!("address add 10.98.{number}.1/24 dev d{number}"))?;
    namespaces::ip(&format!("link set d{number} up"))?;
    Ok(Party { go, is_up, start, _lives: lives, thread })
}
