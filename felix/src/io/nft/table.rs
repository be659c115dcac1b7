//! The thread that owns the table, and the handle to it.

use super::connection::Connection;
use super::monitor::Monitor;
use super::owner::Owner;
use super::verify::{Compared, Meant};
use super::{Commit, Error, Event, Expiring, Options, Verified};
use crate::ruleset::{Delta, Name, Part, Ruleset};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tracing::{error, warn};

/// How often a table of another owner, or one that could not be put right, is tried again.
const OWNED_RETRY: Duration = Duration::from_millis(250);
const REPAIR_RETRY: Duration = Duration::from_secs(1);
/// Verification without a reason: for what no notification tells.
const VERIFY_EVERY: Duration = Duration::from_secs(600);

/// How often the kernel is read while commits come in between.
const DISTURBED: u32 = 5;

type Reply = oneshot::Sender<Result<Commit, Error>>;

enum Command {
    Commit(Delta, Reply),
    Attempt(Delta, Reply),
    Resync(Ruleset, Reply),
    Inherited(oneshot::Sender<Result<Option<Ruleset>, Error>>),
    Expiring(Name, oneshot::Sender<Result<Vec<Expiring>, Error>>),
    Meant(oneshot::Sender<Result<Meant, Error>>),
}

/// Handle to the table. When the last one is gone, the thread ends; the table stays.
#[derive(Clone, Debug)]
pub struct Table {
    commands: mpsc::UnboundedSender<Command>,
}

impl Table {
    /// Takes the table over, or creates it with `skeleton` if there is none. Does not return while another process owns it. The
    /// thread lives in the calling thread's network namespace.
    ///
    /// # Errors
    /// If the kernel has no nf_tables, or this process no right to it.
    pub async fn open(skeleton: Ruleset) -> Result<(Table, mpsc::UnboundedReceiver<Event>), Error> {
        Table::open_with(skeleton, Options::default()).await
    }

    /// As [`Table::open`], with a choice.
    ///
    /// # Errors
    /// As [`Table::open`].
    pub async fn open_with(
        skeleton: Ruleset,
        options: Options,
    ) -> Result<(Table, mpsc::UnboundedReceiver<Event>), Error> {
        let (commands, inbox) = mpsc::unbounded_channel();
        let (events, outbox) = mpsc::unbounded_channel();
        let (opened, answer) = oneshot::channel();
        // What the caller hears of its own log, it hears of this one.
        let log = tracing::dispatcher::get_default(Clone::clone);
        let owner = move |connection| Owner::new(connection, skeleton, options.ownership, events);
        std::thread::Builder::new()
            .name("nft".into())
            .spawn(move || tracing::dispatcher::with_default(&log, || run(inbox, opened, options, owner)))?;
        answer.await.map_err(|_| Error::Ended)??;
        Ok((Table { commands }, outbox))
    }

    /// Performs a delta in one transaction. On an error the table is as before.
    ///
    /// # Errors
    /// [`Error::Refused`] names the object that the kernel does not take.
    pub async fn commit(&self, delta: Delta) -> Result<Commit, Error> {
        self.ask(|reply| Command::Commit(delta, reply)).await
    }

    /// As [`Table::commit`], where a refusal is no surprise: the kernel is not read and compared.
    ///
    /// # Errors
    /// As [`Table::commit`].
    pub async fn attempt(&self, delta: Delta) -> Result<Commit, Error> {
        self.ask(|reply| Command::Attempt(delta, reply)).await
    }

    /// Makes the table equal to `desired`, which from now on is what repairs restore.
    ///
    /// # Errors
    /// As [`Table::commit`], and if the ruleset is not consistent.
    pub async fn resync(&self, desired: Ruleset) -> Result<Commit, Error> {
        self.ask(|reply| Command::Resync(desired, reply)).await
    }

    /// The table as an earlier process left it, its chains [unread](crate::ruleset::Chain::unread); none if this one made it. Before the
    /// first resync.
    ///
    /// # Errors
    /// The kernel could not be read.
    pub async fn inherited(&self) -> Result<Option<Ruleset>, Error> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Inherited(reply)).map_err(|_| Error::Ended)?;
        answer.await.map_err(|_| Error::Ended)?
    }

    /// The elements of a set that expires, which the kernel changes by itself.
    ///
    /// # Errors
    /// The kernel could not be read.
    pub async fn expiring(&self, set: Name) -> Result<Vec<Expiring>, Error> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Expiring(set, reply)).map_err(|_| Error::Ended)?;
        answer.await.map_err(|_| Error::Ended)?
    }

    /// Reads the kernel and says in which parts it is not what is wanted. Nothing is changed, and no commit waits for it. Where commits come
    /// faster than the kernel is read, what differs each time counts.
    ///
    /// # Errors
    /// [`Error::NotSynced`]: nothing is wanted yet. The kernel could not be read.
    pub async fn verify(&self) -> Result<Verified, Error> {
        let mut always: Option<BTreeSet<Part>> = None;
        for attempt in 1.. {
            let meant = self.meant().await?;
            let compared = tokio::task::spawn_blocking(move || meant.compare()).await.map_err(|_| Error::Ended)??;
            let Compared { verified, undisturbed } = compared;
            if undisturbed {
                return Ok(verified);
            }
            let differs = always.map_or(verified.differs.clone(), |always| &always & &verified.differs);
            if differs.is_empty() || attempt == DISTURBED {
                return Ok(Verified { differs, ..verified });
            }
            always = Some(differs);
        }
        Err(Error::Torn)
    }

    /// What is wanted at this moment, to be compared with the kernel by anybody.
    ///
    /// # Errors
    /// [`Error::NotSynced`]: nothing is wanted yet.
    pub async fn meant(&self) -> Result<Meant, Error> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Meant(reply)).map_err(|_| Error::Ended)?;
        answer.await.map_err(|_| Error::Ended)?
    }

    async fn ask(&self, command: impl FnOnce(Reply) -> Command) -> Result<Commit, Error> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).map_err(|_| Error::Ended)?;
        answer.await.map_err(|_| Error::Ended)?
    }
}

fn run(
    inbox: mpsc::UnboundedReceiver<Command>,
    opened: oneshot::Sender<Result<(), Error>>,
    options: Options,
    owner: impl FnOnce(Connection) -> Owner,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return drop(opened.send(Err(e.into()))),
    };
    runtime.block_on(async {
        match open(owner, options, &opened).await {
            Ok((owner, monitor)) => {
                if opened.send(Ok(())).is_ok() {
                    serve(owner, inbox, monitor).await;
                }
            }
            Err(e) => drop(opened.send(Err(e))),
        }
    });
}

async fn open(
    owner: impl FnOnce(Connection) -> Owner,
    options: Options,
    opened: &oneshot::Sender<Result<(), Error>>,
) -> Result<(Owner, Monitor), Error> {
    let connection = Connection::open_with(options.longest_transaction)?;
    // Before the first look, so that nothing happens between the two.
    let monitor = Monitor::open(connection.port())?;
    let mut owner = owner(connection);
    let mut told = false;
    while !opened.is_closed() {
        match owner.take()? {
            None => return Ok((owner, monitor)),
            Some(port) if !told => {
                told = true;
                warn!(port, "table inet twill belongs to another process; waiting until it ends");
            }
            Some(_) => {}
        }
        sleep(OWNED_RETRY).await;
    }
    Err(Error::Ended)
}

async fn serve(mut owner: Owner, mut inbox: mpsc::UnboundedReceiver<Command>, mut monitor: Monitor) {
    let mut next_look = tokio::time::Instant::now() + VERIFY_EVERY;
    loop {
        if let Err(e) = monitor.listen(!owner.is_protected()) {
            owner.fail(&e);
        }
        tokio::select! {
            command = inbox.recv() => match command {
                Some(Command::Commit(delta, reply)) => drop(reply.send(owner.commit(delta, true))),
                Some(Command::Attempt(delta, reply)) => drop(reply.send(owner.commit(delta, false))),
                Some(Command::Resync(desired, reply)) => drop(reply.send(owner.resync(desired))),
                Some(Command::Inherited(reply)) => drop(reply.send(owner.inherited())),
                Some(Command::Expiring(set, reply)) => drop(reply.send(owner.expiring(&set))),
                Some(Command::Meant(reply)) => drop(reply.send(owner.meant())),
                None => return,
            },
            changed = monitor.changed() => match changed {
                Ok(by) => owner.repair(&by),
                Err(e) => {
                    error!(error = %e, "notifications of changes to the table failed; it is checked every second");
                    sleep(REPAIR_RETRY).await;
                    owner.repair("unknown");
                }
            },
            () = tokio::time::sleep_until(next_look) => owner.repair("unknown"),
            () = until(owner.next_sweep()) => {
                owner.sweep();
                continue;
            }
        }
        let pause = if owner.is_failing() { REPAIR_RETRY } else { VERIFY_EVERY };
        next_look = tokio::time::Instant::now() + pause;
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
