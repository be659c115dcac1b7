//! The thread that owns the table, and the handle to it.

use super::actual::{self, Actual, TableState};
use super::batch::{self, Extras, TABLE_OWNER, TABLE_PERSIST};
use super::connection::{Connection, Outcome};
use super::monitor::Monitor;
use super::{Commit, Error, Event, Options, Ownership, Refusal};
use crate::ruleset::{Delta, Ruleset};
use nix::errno::Errno;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tracing::{debug, error, info, warn};

/// How often a table of another owner, or one that could not be put right, is tried again.
const OWNED_RETRY: Duration = Duration::from_millis(250);
const REPAIR_RETRY: Duration = Duration::from_secs(1);
/// Verification without a reason: for what no notification tells.
const VERIFY_EVERY: Duration = Duration::from_secs(600);
/// How often a resync that somebody's commit has overtaken is begun anew before it goes without that guard.
const OVERTAKEN: usize = 5;

type Reply = oneshot::Sender<Result<Commit, Error>>;

enum Command {
    Commit(Delta, Reply),
    Attempt(Delta, Reply),
    Resync(Ruleset, Reply),
    Inherited(oneshot::Sender<Result<Option<Ruleset>, Error>>),
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
        let owner = move |connection| Owner {
            connection,
            desired: None,
            skeleton,
            ownership: options.ownership,
            owned: false,
            events,
            failing: false,
        };
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
                    owner.serve(inbox, monitor).await;
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
    owner.skeleton.check()?;
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

struct Owner {
    connection: Connection,
    /// What the table is to hold; `None` after adoption until the first resync.
    desired: Option<Ruleset>,
    /// What to create if the table vanishes before that.
    skeleton: Ruleset,
    ownership: Ownership,
    /// Whether the kernel keeps others from changing the table.
    owned: bool,
    events: mpsc::UnboundedSender<Event>,
    failing: bool,
}

impl Owner {
    /// Adopts or creates; answers the living owner's port if that is another.
    fn take(&mut self) -> Result<Option<u32>, Error> {
        match actual::table(&mut self.connection)? {
            Some(TableState { owner: Some(port), .. }) if port != self.connection.port() => Ok(Some(port)),
            Some(state) if state.flags & (TABLE_OWNER | TABLE_PERSIST) == 0 => {
                info!("table adopted; it was made without an owner, changes by others are repaired, not prevented");
                Ok(None)
            }
            // The table of a dead owner: the kernel has taken the flag from it.
            Some(_) => {
                let extras = Extras { table: Some(TABLE_OWNER | TABLE_PERSIST), ..Extras::default() };
                match self.transact(&Delta::default(), extras, &Ruleset::default())? {
                    (Outcome::Committed, _) => {
                        info!("table adopted");
                        self.owned = true;
                        Ok(None)
                    }
                    (outcome, _) => match refusal(outcome, &Delta::default()) {
                        // Somebody was faster.
                        error if error.is_refused_with(Errno::EPERM) => Ok(Some(0)),
                        error => Err(error),
                    },
                }
            }
            None => {
                self.create(&self.skeleton.clone())?;
                self.desired = Some(self.skeleton.clone());
                info!("table created");
                Ok(None)
            }
        }
    }

    /// Creates the table with all its content. Ownership cannot be added later, so it is asked for first, and both flags
    /// together: `owner` alone would delete the table, and open the node, when this process ends.
    fn create(&mut self, ruleset: &Ruleset) -> Result<Commit, Error> {
        let begun = Instant::now();
        let all = batch::everything(ruleset);
        let mut flags = match self.ownership {
            Ownership::WherePossible => TABLE_OWNER | TABLE_PERSIST,
            Ownership::Never => 0,
        };
        loop {
            let extras = Extras { table: Some(flags), ..Extras::default() };
            match self.transact(&all, extras, ruleset)? {
                (Outcome::Committed, commit) => {
                    self.owned = flags != 0;
                    return Ok(Commit { took: begun.elapsed(), ..commit });
                }
                (Outcome::Refused(refusals), _) if flags != 0 && lacks_flags(&refusals) => {
                    info!(
                        "this kernel has no owner, persist for tables: changes by others are repaired, not prevented"
                    );
                    flags = 0;
                }
                (outcome, _) => return Err(refusal(outcome, &all)),
            }
        }
    }

    async fn serve(mut self, mut inbox: mpsc::UnboundedReceiver<Command>, mut monitor: Monitor) {
        let mut next_look = tokio::time::Instant::now() + VERIFY_EVERY;
        loop {
            if let Err(e) = monitor.listen(!self.owned) {
                self.fail(&e);
            }
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(Command::Commit(delta, reply)) => drop(reply.send(self.commit(delta, true))),
                    Some(Command::Attempt(delta, reply)) => drop(reply.send(self.commit(delta, false))),
                    Some(Command::Resync(desired, reply)) => drop(reply.send(self.resync(desired))),
                    Some(Command::Inherited(reply)) => drop(reply.send(self.inherited())),
                    None => return,
                },
                changed = monitor.changed() => match changed {
                    Ok(by) => self.repair(&by),
                    Err(e) => {
                        error!(error = %e, "notifications of changes to the table failed; it is checked every second");
                        sleep(REPAIR_RETRY).await;
                        self.repair("unknown");
                    }
                },
                () = tokio::time::sleep_until(next_look) => self.repair("unknown"),
            }
            let pause = if self.failing { REPAIR_RETRY } else { VERIFY_EVERY };
            next_look = tokio::time::Instant::now() + pause;
        }
    }

    fn commit(&mut self, delta: Delta, compare: bool) -> Result<Commit, Error> {
        let begun = Instant::now();
        let Some(desired) = self.desired.take() else { return Err(Error::NotSynced) };
        let (result, desired) = self.commit_to(desired, &delta, compare);
        self.desired = Some(desired);
        result.map(|commit| Commit { took: begun.elapsed(), ..commit })
    }

    /// Answers the result and what is desired from now on.
    fn commit_to(&mut self, mut desired: Ruleset, delta: &Delta, compare: bool) -> (Result<Commit, Error>, Ruleset) {
        if delta.is_empty() {
            return (Ok(Commit::default()), desired);
        }
        let refused = match self.transact(delta, Extras::default(), &desired) {
            Ok((Outcome::Committed, commit)) => {
                desired.apply(delta);
                return (Ok(commit), desired);
            }
            Ok((outcome, _)) => refusal(outcome, delta),
            Err(e) => e,
        };
        if !compare {
            return (Err(refused), desired);
        }
        // The kernel may not be what we took it for. Compare, and bring it to the new state in whatever way it takes.
        debug!(error = %refused, "transaction failed; comparing with the kernel");
        let mut wanted = desired.clone();
        wanted.apply(delta);
        match wanted.check().map_err(Error::from).and_then(|()| self.equalize(&wanted)) {
            Ok(commit) => (Ok(Commit { resynced: true, ..commit }), wanted),
            Err(e) => {
                // Back to where we were, should that not be where we are.
                if let Err(e) = self.equalize(&desired) {
                    self.fail(&e);
                }
                // What is refused after the comparison is at fault by itself.
                (Err(if matches!(e, Error::Refused { .. } | Error::Fault(_)) { e } else { refused }), desired)
            }
        }
    }

    fn resync(&mut self, desired: Ruleset) -> Result<Commit, Error> {
        let begun = Instant::now();
        desired.check()?;
        let commit = self.equalize(&desired)?;
        self.desired = Some(desired);
        self.recovered();
        Ok(Commit { took: begun.elapsed(), resynced: true, ..commit })
    }

    fn inherited(&mut self) -> Result<Option<Ruleset>, Error> {
        if self.desired.is_some() {
            return Ok(None);
        }
        let actual = actual::read(&mut self.connection)?;
        Ok(actual.table.is_some().then(|| actual.seen_by(&Ruleset::default())))
    }

    fn repair(&mut self, by: &str) {
        let begun = Instant::now();
        let result = match self.desired.take() {
            Some(desired) => {
                let result = self.equalize(&desired);
                self.desired = Some(desired);
                result
            }
            None => self.guard(),
        };
        match result {
            Ok(commit) => {
                self.recovered();
                if commit.messages > 0 {
                    let took = begun.elapsed();
                    warn!(by, ?took, messages = commit.messages, "table was changed by another process; repaired");
                    drop(self.events.send(Event::Repaired { by: by.into(), took }));
                }
            }
            Err(e) => self.fail(&e),
        }
    }

    /// Before the first resync nothing is known of what should be in the table, but that there should be one.
    fn guard(&mut self) -> Result<Commit, Error> {
        if actual::table(&mut self.connection)?.is_some() {
            return Ok(Commit::default());
        }
        let commit = self.create(&self.skeleton.clone())?;
        self.desired = Some(self.skeleton.clone());
        Ok(commit)
    }

    /// Reads the kernel and commits what differs from `desired`.
    fn equalize(&mut self, desired: &Ruleset) -> Result<Commit, Error> {
        for attempt in 0.. {
            let actual = actual::read(&mut self.connection)?;
            let Some(state) = actual.table else { return self.create(desired) };
            let (delta, later) = difference(&actual, desired);
            let policies = actual.changed_policies(desired);
            let dormant = state.flags & 1 != 0;
            if delta.is_empty() && policies.is_empty() && !dormant {
                return Ok(Commit::default());
            }
            let extras = Extras {
                table: dormant.then_some(state.flags & !1),
                policies: &policies,
                generation: (attempt < OVERTAKEN).then_some(actual.generation),
            };
            match self.transact(&delta, extras, desired)? {
                (Outcome::Committed, commit) if later => {
                    let rest = self.equalize(desired)?;
                    return Ok(Commit {
                        messages: commit.messages + rest.messages,
                        bytes: commit.bytes + rest.bytes,
                        ..commit
                    });
                }
                (Outcome::Committed, commit) => return Ok(commit),
                (Outcome::Overtaken, _) if attempt < OVERTAKEN => {}
                (outcome, _) => return Err(refusal(outcome, &delta)),
            }
        }
        Err(Error::Torn)
    }

    fn transact(&mut self, delta: &Delta, extras: Extras<'_>, declared: &Ruleset) -> Result<(Outcome, Commit), Error> {
        let begun = Instant::now();
        let batch = batch::encode(delta, extras, self.connection.next_sequence(), |name| declared.sets.get(name));
        let outcome = self.connection.transact(&batch)?;
        let commit = Commit { messages: batch.len(), bytes: batch.bytes.len(), took: begun.elapsed(), resynced: false };
        Ok((outcome, commit))
    }

    fn fail(&mut self, error: &Error) {
        let problem = format!("table inet twill is not as wanted: {error}");
        if !std::mem::replace(&mut self.failing, true) {
            error!(%error, "table is not as wanted and cannot be put right; trying every second");
        }
        drop(self.events.send(Event::Failing { problem }));
    }

    fn recovered(&mut self) {
        if std::mem::take(&mut self.failing) {
            drop(self.events.send(Event::Recovered));
        }
    }
}

/// What to commit so that the kernel equals `desired`, and whether a second step must follow: base chains that are replaced by
/// others (a new schema) go only after the new ones are in force, with all that they still use.
fn difference(actual: &Actual, desired: &Ruleset) -> (Delta, bool) {
    let seen = actual.seen_by(desired);
    let mut delta = seen.difference(desired);
    let is_base = |ruleset: &Ruleset, name: &_| ruleset.chains.get(name).is_some_and(|c| c.base.is_some());
    let old = delta.remove_chains.iter().any(|n| is_base(&seen, n) && !delta.add_chains.contains_key(n));
    let new = delta.add_chains.values().any(|c| c.base.is_some());
    if old && new {
        delta.remove_chains.retain(|n| delta.add_chains.contains_key(n));
        delta.remove_sets.retain(|n| delta.add_sets.contains_key(n));
    }
    (delta, old && new)
}

fn refusal(outcome: Outcome, delta: &Delta) -> Error {
    match outcome {
        Outcome::Refused(refusals) => Error::Refused { refusals, parts: delta.parts() },
        Outcome::Committed | Outcome::Overtaken => Error::Torn,
    }
}

/// Whether a kernel says that it does not know `owner, persist`.
fn lacks_flags(refusals: &[Refusal]) -> bool {
    let table = |one: &Refusal| one.part.is_none() && one.object.starts_with("table");
    refusals.first().is_some_and(|one| table(one) && matches!(one.errno, Errno::EOPNOTSUPP | Errno::EINVAL))
}
