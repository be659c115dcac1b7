//! The table's owner: what it does to the kernel, in whole transactions.

use super::actual::{self, TableState};
use super::batch::{self, Extras, TABLE_OWNER, TABLE_PERSIST};
use super::connection::{Connection, Outcome};
use super::left::Left;
use super::steps::{self, Steps};
use super::verify::{Meant, Transactions};
use super::{Commit, Error, Event, Expiring, Ownership, Refusal};
use crate::ruleset::{Delta, Name, Ruleset};
use nix::errno::Errno;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};

/// How often a resync that somebody's commit has overtaken is begun anew before it goes without that guard.
const OVERTAKEN: usize = 5;

/// What the thread has.
pub(super) struct Owner {
    connection: Connection,
    /// What the table is to hold; `None` after adoption until the first resync.
    desired: Option<Arc<Ruleset>>,
    /// What the kernel holds besides, out of use.
    left: Left,
    /// What to create if the table vanishes before that.
    skeleton: Ruleset,
    ownership: Ownership,
    /// Whether the kernel keeps others from changing the table.
    owned: bool,
    events: mpsc::UnboundedSender<Event>,
    failing: bool,
    transactions: Transactions,
}

impl Owner {
    /// Nothing is done yet.
    pub(super) fn new(
        connection: Connection,
        skeleton: Ruleset,
        ownership: Ownership,
        events: mpsc::UnboundedSender<Event>,
    ) -> Owner {
        let (left, transactions) = (Left::default(), Transactions::default());
        Owner {
            connection,
            desired: None,
            left,
            skeleton,
            ownership,
            owned: false,
            events,
            failing: false,
            transactions,
        }
    }

    /// Whether the kernel keeps others from changing the table.
    pub(super) fn is_protected(&self) -> bool {
        self.owned
    }

    /// Whether the table is not as wanted.
    pub(super) fn is_failing(&self) -> bool {
        self.failing
    }

    /// When something is to be deleted.
    pub(super) fn next_sweep(&self) -> Option<Instant> {
        self.left.next()
    }

    /// Adopts or creates; answers the living owner's port if that is another.
    pub(super) fn take(&mut self) -> Result<Option<u32>, Error> {
        self.skeleton.check()?;
        match actual::table(&mut self.connection)? {
            Some(TableState { owner: Some(port), .. }) if port != self.connection.port() => Ok(Some(port)),
            Some(state) if state.flags & (TABLE_OWNER | TABLE_PERSIST) == 0 => {
                info!("table adopted; it was made without an owner, changes by others are repaired, not prevented");
                Ok(None)
            }
            // The table of a dead owner: the kernel has taken the flag from it.
            Some(_) => {
                let extras = Extras { table: Some(TABLE_OWNER | TABLE_PERSIST), ..Extras::default() };
                match self.transact(&Delta::default(), extras, None)? {
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
                self.desired = Some(Arc::new(self.skeleton.clone()));
                info!("table created");
                Ok(None)
            }
        }
    }

    /// Creates the table with all its content. Ownership cannot be added later, so it is asked for first, and both flags
    /// together: `owner` alone would delete the table, and open the node, when this process ends.
    pub(super) fn create(&mut self, ruleset: &Ruleset) -> Result<Commit, Error> {
        let begun = Instant::now();
        self.left = Left::default();
        let all = batch::everything(ruleset);
        let mut flags = match self.ownership {
            Ownership::WherePossible => TABLE_OWNER | TABLE_PERSIST,
            Ownership::Never => 0,
        };
        loop {
            let extras = Extras { table: Some(flags), ..Extras::default() };
            match self.transact(&all, extras, Some(ruleset))? {
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

    pub(super) fn commit(&mut self, delta: Delta, compare: bool) -> Result<Commit, Error> {
        let begun = Instant::now();
        let Some(desired) = self.desired.take() else { return Err(Error::NotSynced) };
        let (result, desired) = self.commit_to(desired, &delta, compare);
        self.desired = Some(desired);
        result.map(|commit| Commit { took: begun.elapsed(), ..commit })
    }

    /// Answers the result and what is desired from now on.
    fn commit_to(
        &mut self,
        mut desired: Arc<Ruleset>,
        delta: &Delta,
        compare: bool,
    ) -> (Result<Commit, Error>, Arc<Ruleset>) {
        if delta.is_empty() {
            return (Ok(Commit::default()), desired);
        }
        let steps = steps::steps(&self.left.with_returning(delta), &desired, self.left.ruleset());
        let refused = match self.perform(steps, Extras::default(), &desired) {
            Ok((Outcome::Committed, commit)) => {
                Arc::make_mut(&mut desired).apply(delta);
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
        let mut wanted = Ruleset::clone(&desired);
        wanted.apply(delta);
        // What expires is in the ruleset without elements, so that no repair brings them back; this is when they are to come.
        let mut begun = wanted.clone();
        begun.begin(delta);
        match wanted.check().map_err(Error::from).and_then(|()| self.equalize(&begun)) {
            Ok(commit) => (Ok(Commit { resynced: true, ..commit }), Arc::new(wanted)),
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

    pub(super) fn resync(&mut self, desired: Ruleset) -> Result<Commit, Error> {
        let begun = Instant::now();
        desired.check()?;
        let commit = self.equalize(&desired)?;
        self.desired = Some(Arc::new(desired));
        self.recovered();
        Ok(Commit { took: begun.elapsed(), resynced: true, ..commit })
    }

    pub(super) fn inherited(&mut self) -> Result<Option<Ruleset>, Error> {
        if self.desired.is_some() {
            return Ok(None);
        }
        let actual = actual::read(&mut self.connection)?;
        Ok(actual.table.is_some().then(|| actual.seen_by(&Ruleset::default())))
    }

    pub(super) fn expiring(&mut self, set: &Name) -> Result<Vec<Expiring>, Error> {
        actual::expiring(&mut self.connection, set)
    }

    pub(super) fn meant(&self) -> Result<Meant, Error> {
        Meant::of(self.desired.as_ref().ok_or(Error::NotSynced)?, &self.left, &self.transactions)
    }

    pub(super) fn repair(&mut self, by: &str) {
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
        self.desired = Some(Arc::new(self.skeleton.clone()));
        Ok(commit)
    }

    /// Reads the kernel and commits what differs from `desired`.
    fn equalize(&mut self, desired: &Ruleset) -> Result<Commit, Error> {
        for attempt in 0.. {
            let actual = actual::read(&mut self.connection)?;
            let Some(state) = actual.table else { return self.create(desired) };
            let seen = actual.seen_by(desired);
            let (delta, later) = difference(&seen, desired);
            let policies = actual.changed_policies(desired);
            let dormant = state.flags & 1 != 0;
            let steps = steps::steps(&delta, &seen, &Ruleset::default());
            self.left = Left::default();
            if steps.new.is_empty() && steps.change.is_empty() && policies.is_empty() && !dormant {
                self.left.follow(&steps.change, steps.left_elements, Instant::now());
                self.left.put(steps.left, Instant::now());
                return Ok(Commit::default());
            }
            let extras = Extras {
                table: dormant.then_some(state.flags & !1),
                policies: &policies,
                generation: (attempt < OVERTAKEN).then_some(actual.generation),
            };
            match self.perform(steps, extras, desired)? {
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

    /// Performs a change step by step. `declared` has the declarations of sets whose elements change.
    fn perform(&mut self, steps: Steps, extras: Extras<'_>, declared: &Ruleset) -> Result<(Outcome, Commit), Error> {
        let (mut extras, mut before) = (extras, Commit::default());
        if !steps.new.is_empty() {
            let here = Extras { generation: extras.generation, ..Extras::default() };
            let (outcome, commit) = self.transact(&steps.new, here, None)?;
            if !matches!(outcome, Outcome::Committed) {
                return Ok((outcome, commit));
            }
            // Until something leads to it, it is out of use as well.
            self.left.apply(&steps.new, Instant::now());
            (extras.generation, before) = (None, commit);
        }
        let (outcome, commit) = match steps.change.is_empty() && extras.table.is_none() && extras.policies.is_empty() {
            true => (Outcome::Committed, Commit::default()),
            false => self.transact(&steps.change, extras, Some(declared))?,
        };
        if matches!(outcome, Outcome::Committed) {
            let now = Instant::now();
            self.left.take_back(&steps.used);
            self.left.follow(&steps.change, steps.left_elements, now);
            self.left.put(steps.left, now);
        }
        let commit = Commit {
            messages: before.messages + commit.messages,
            bytes: before.bytes + commit.bytes,
            took: before.took + commit.took,
            ..commit
        };
        Ok((outcome, commit))
    }

    /// Deletes what has been out of use for long enough.
    pub(super) fn sweep(&mut self) {
        let due = self.left.due(Instant::now());
        if due.is_empty() {
            return;
        }
        match self.transact(&due.removal(), Extras::default(), None) {
            Ok((Outcome::Committed, commit)) => debug!(messages = commit.messages, "what was out of use is gone"),
            // The kernel is not what we took it for: compared, what is there that should not be is found again.
            _ => self.repair("unknown"),
        }
    }

    /// `declared` has the declarations of sets whose elements change; none: they are out of use.
    fn transact(
        &mut self,
        delta: &Delta,
        extras: Extras<'_>,
        declared: Option<&Ruleset>,
    ) -> Result<(Outcome, Commit), Error> {
        let begun = Instant::now();
        let declared = declared.unwrap_or(self.left.ruleset());
        let batch = batch::encode(delta, extras, self.connection.next_sequence(), |name| declared.sets.get(name));
        self.transactions.count();
        let outcome = self.connection.transact(&batch);
        self.transactions.count();
        let outcome = outcome?;
        let commit = Commit { messages: batch.len(), bytes: batch.bytes.len(), took: begun.elapsed(), resynced: false };
        Ok((outcome, commit))
    }

    pub(super) fn fail(&mut self, error: &Error) {
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
pub(super) fn difference(seen: &Ruleset, desired: &Ruleset) -> (Delta, bool) {
    let mut delta = seen.difference(desired);
    let is_base = |ruleset: &Ruleset, name: &_| ruleset.chains.get(name).is_some_and(|c| c.base.is_some());
    let old = delta.remove_chains.iter().any(|n| is_base(seen, n) && !delta.add_chains.contains_key(n));
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
