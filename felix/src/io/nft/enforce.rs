//! The table brought to what is wanted even if the kernel refuses a part of it: that is left out, its pods are closed, and the rest is
//! committed. What was left out is tried again when it changes, and by the clock.

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use super::{Commit, Error, Refusal, Table};
use crate::refused::{Complaint, Refused, without};
use crate::ruleset::{Delta, Name, Part, Ruleset};
use nix::errno::Errno;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How many parts may turn out to be at fault, one after the other, before it is given up for this time.
const ROUNDS: usize = 16;
/// What is left out in doubt is tried for so long at once; then others have their turn.
const AT_ONCE: Duration = Duration::from_millis(500);
/// Pause before what is refused is tried again, doubled each time up to the second.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// What transactions are for: the table, or in tests one that is played.
pub trait Kernel {
    /// As [`Table::commit`].
    ///
    /// # Errors
    /// As there.
    fn commit(&self, delta: Delta) -> impl Future<Output = Result<Commit, Error>>;

    /// As [`Table::attempt`].
    ///
    /// # Errors
    /// As there.
    fn attempt(&self, delta: Delta) -> impl Future<Output = Result<Commit, Error>>;

    /// As [`Table::resync`].
    ///
    /// # Errors
    /// As there.
    fn resync(&self, desired: Ruleset) -> impl Future<Output = Result<Commit, Error>>;
}

impl Kernel for Table {
    async fn commit(&self, delta: Delta) -> Result<Commit, Error> {
        Table::commit(self, delta).await
    }

    async fn attempt(&self, delta: Delta) -> Result<Commit, Error> {
        Table::attempt(self, delta).await
    }

    async fn resync(&self, desired: Ruleset) -> Result<Commit, Error> {
        Table::resync(self, desired).await
    }
}

/// What of the wanted ruleset is in force.
#[derive(Debug, Default)]
pub struct Enforced {
    refused: Refused,
    /// What the kernel holds, while something is left out.
    held: Option<Ruleset>,
    /// When what is left out is tried again.
    due: Option<Instant>,
    pause: Duration,
    /// The kernel was out of memory the last time.
    exhausted: bool,
}

impl Enforced {
    /// What is left out.
    #[must_use]
    pub fn refused(&self) -> &Refused {
        &self.refused
    }

    /// What the kernel holds, if this is what is wanted.
    #[must_use]
    pub fn held<'a>(&'a self, wanted: &'a Ruleset) -> &'a Ruleset {
        self.held.as_ref().unwrap_or(wanted)
    }

    /// Whether something that was left out is to be tried now.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.due.is_some_and(|due| due <= Instant::now())
    }

    /// Brings the table from the last wanted state to `wanted`, which differs from that by `delta`. What the commit says of itself is
    /// `resynced` also if something is left out that was not, or the other way round.
    ///
    /// # Errors
    /// As [`Table::commit`]: what the kernel refuses cannot be left out.
    pub async fn commit(&mut self, kernel: &impl Kernel, delta: Delta, wanted: &Ruleset) -> Result<Commit, Error> {
        let Some(held) = self.held.take() else {
            return match kernel.commit(delta).await {
                Ok(commit) => {
                    self.exhausted = false;
                    Ok(commit)
                }
                Err(error) => self.leave_out(kernel, wanted, error).await,
            };
        };
        let aside = self.refused.aside();
        if delta.parts().iter().any(|part| aside.contains(part)) {
            self.try_soon();
        }
        self.refused.keep_wanted(wanted);
        let closed = without(wanted, &self.refused.aside());
        let mut begun = closed.clone();
        begun.begin(&delta);
        let mut change = held.difference(&begun);
        self.held = Some(held);
        // What expires is not compared.
        let expiring = |name: &Name| wanted.sets.get(name).is_some_and(|set| set.timeout.is_some());
        change.elements.extend(delta.elements.into_iter().filter(|(name, _)| expiring(name)));
        match kernel.commit(change).await {
            Ok(commit) => self.now_held(kernel, wanted, closed, commit).await,
            Err(error) => self.leave_out(kernel, wanted, error).await,
        }
    }

    /// Compares the table with `wanted`, and makes it equal.
    ///
    /// # Errors
    /// As [`Table::resync`]: what the kernel refuses cannot be left out.
    pub async fn resync(&mut self, kernel: &impl Kernel, wanted: &Ruleset) -> Result<Commit, Error> {
        self.refused.keep_wanted(wanted);
        let closed = without(wanted, &self.refused.aside());
        if self.refused.is_none() {
            return match kernel.resync(closed).await {
                Ok(commit) => {
                    (self.held, self.due, self.exhausted) = (None, None, false);
                    Ok(commit)
                }
                Err(error) => self.leave_out(kernel, wanted, error).await,
            };
        }
        match kernel.resync(closed.clone()).await {
            Ok(commit) => self.now_held(kernel, wanted, closed, commit).await,
            Err(error) => self.leave_out(kernel, wanted, error).await,
        }
    }

    /// Tries again what is left out, if it is due.
    ///
    /// # Errors
    /// Something else than a refusal.
    pub async fn retry(&mut self, kernel: &impl Kernel, wanted: &Ruleset) -> Result<Commit, Error> {
        if !self.refused.is_in_doubt() {
            self.refused.again();
        }
        let mut commit = Commit::default();
        self.admit(kernel, wanted, &mut commit).await.map(|()| commit)
    }

    /// A transaction failed: finds out why, leaves it out and commits the rest.
    async fn leave_out(&mut self, kernel: &impl Kernel, wanted: &Ruleset, error: Error) -> Result<Commit, Error> {
        let mut error = error;
        for _ in 0..ROUNDS {
            if is_exhausted(&error) && !std::mem::replace(&mut self.exhausted, true) {
                return Err(error);
            }
            let blamed = complaint(&error).is_some_and(|complaint| self.refused.blame(wanted, &complaint));
            if !blamed {
                break;
            }
            tracing::warn!(%error, "the kernel refuses a part of the ruleset; committed without it");
            let closed = without(wanted, &self.refused.aside());
            match kernel.resync(closed.clone()).await {
                Ok(commit) => {
                    self.pause = PAUSES[0];
                    self.due = Some(Instant::now() + self.pause);
                    return self.now_held(kernel, wanted, closed, Commit { resynced: true, ..commit }).await;
                }
                Err(next) => error = next,
            }
        }
        // All of it is tried at the next resync: what was blamed for nothing must not stay closed.
        (self.refused, self.held, self.due) = (Refused::default(), None, None);
        Err(error)
    }

    /// The kernel holds `closed`; what is in doubt or due is tried.
    async fn now_held(
        &mut self,
        kernel: &impl Kernel,
        wanted: &Ruleset,
        closed: Ruleset,
        mut commit: Commit,
    ) -> Result<Commit, Error> {
        self.exhausted = false;
        self.held = Some(closed);
        if self.is_due() {
            self.refused.again();
        }
        self.admit(kernel, wanted, &mut commit).await.map(|()| commit)
    }

    /// Tries what is in doubt, group by group.
    async fn admit(&mut self, kernel: &impl Kernel, wanted: &Ruleset, commit: &mut Commit) -> Result<(), Error> {
        let until = Instant::now() + AT_ONCE;
        let tried = self.refused.is_in_doubt();
        while let Some(group) = self.refused.next_trial(wanted) {
            let open = without(wanted, &self.refused.aside());
            let delta = self.held(wanted).difference(&open);
            let outcome = if delta.is_empty() { Ok(Commit::default()) } else { kernel.attempt(delta).await };
            match outcome.map_err(|error| (complaint(&error), error)) {
                Ok(more) => {
                    self.held = Some(open);
                    commit.messages += more.messages;
                    commit.bytes += more.bytes;
                    commit.resynced = true;
                }
                Err((Some(complaint), _)) => self.refused.tried(group, &complaint),
                Err((None, error)) => {
                    self.refused.put_back(group);
                    self.due = Some(Instant::now() + self.pause);
                    return Err(error);
                }
            }
            if Instant::now() >= until {
                break;
            }
        }
        if self.refused.is_none() {
            (self.held, self.due, self.pause) = (None, None, PAUSES[0]);
        } else if self.refused.is_in_doubt() {
            self.due = Some(Instant::now());
        } else if tried {
            self.due = Some(Instant::now() + self.pause);
            self.pause = (self.pause * 2).clamp(PAUSES[0], PAUSES[1]);
        }
        Ok(())
    }

    fn try_soon(&mut self) {
        self.pause = PAUSES[0];
        self.due = Some(Instant::now());
    }
}

/// What an error says against the ruleset; none if it is about something else.
fn complaint(error: &Error) -> Option<Complaint> {
    match error {
        Error::Refused { .. } if error.is_refused_with(Errno::EPERM) => None,
        Error::Refused { refusals, parts } => {
            let named = refusals.iter().filter_map(|one| Some((one.part.clone()?, reason(one)))).collect();
            let why = refusals.first().map(reason).unwrap_or_default();
            Some(Complaint { named, parts: parts.clone(), why })
        }
        Error::Fault(fault) => {
            let (part, why) = (fault.part.clone(), fault.problem.clone());
            Some(Complaint { named: vec![(part.clone(), why.clone())], parts: BTreeSet::from([part]), why })
        }
        _ => None,
    }
}

/// Whether the kernel only was short of memory.
fn is_exhausted(error: &Error) -> bool {
    [Errno::ENOMEM, Errno::ENOBUFS, Errno::EINTR].iter().any(|errno| error.is_refused_with(*errno))
}

/// The kernel's word, and what it means here.
fn reason(refusal: &Refusal) -> String {
    let means = match refusal.errno {
        Errno::ENFILE => "the set is full",
        Errno::ENOMEM => "no memory",
        Errno::EMSGSIZE => "too long for one transaction",
        Errno::EMLINK | Errno::ELOOP => "chains lead too deep",
        Errno::ENOENT | Errno::EOPNOTSUPP => "this kernel lacks something that it needs",
        Errno::E2BIG | Errno::EINVAL | Errno::ERANGE => "it breaks a limit of this kernel",
        Errno::EBUSY => "something still refers to it",
        Errno::EEXIST => "it is there already, and different",
        _ => return refusal.errno.to_string(),
    };
    match &refusal.part {
        Some(Part::Chain(_)) => format!("{}: {means}, in {}", refusal.errno, refusal.object),
        _ => format!("{}: {means}", refusal.errno),
    }
}
