//! The memory on disk. In flow what the agent hears; out flows, once at the start, what an earlier felix heard.
//!
//! A thread of its own writes: what changed, at most once a second, each time one transaction, nothing of it on the way of an ADD. Nothing
//! is written before all kinds have been heard whole, so the file holds the state of one datastore and never a mixture of two.

mod file;

pub use file::{NAME, files};

use crate::memory::{Changes, KINDS, Kept, Remembered};
use file::File;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use twill_datastore::Followed;

/// Least time between two transactions.
const PAUSE: Duration = Duration::from_secs(1);

/// What the agent gives to the thread.
#[derive(Default)]
struct Desk {
    changes: [Changes; KINDS],
    /// The datastore that all of it is of, once everything was heard.
    identity: Option<String>,
    problem: Option<String>,
    ended: bool,
}

/// The place where the agent leaves what is to be kept. Dropping it writes what is left.
pub struct Keeper {
    desk: Arc<(Mutex<Desk>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

/// Opens the memory in a state directory. A damaged one is as good as none, and one begins anew.
///
/// # Errors
/// No thread can be started.
pub fn open(state_dir: &Path) -> std::io::Result<(Option<Remembered>, Keeper)> {
    let path = state_dir.join(NAME);
    let (file, remembered) = File::open(&path);
    let desk = Arc::new((Mutex::new(Desk::default()), Condvar::new()));
    let thread = std::thread::Builder::new().name("memory".into()).spawn({
        let desk = desk.clone();
        move || keep(&desk, file)
    })?;
    Ok((remembered, Keeper { desk, thread: Some(thread) }))
}

impl Keeper {
    /// Takes in what was told of a kind, by its number.
    pub fn hear<K: Kept>(&self, kind: usize, followed: &Followed<K>) {
        lock(&self.desk).changes[kind].hear(followed);
        self.desk.1.notify_one();
    }

    /// All kinds have been heard whole, of this datastore: from now on the file follows.
    pub fn complete(&self, identity: &str) {
        let mut desk = lock(&self.desk);
        if desk.identity.as_deref() != Some(identity) {
            desk.identity = Some(identity.to_owned());
            self.desk.1.notify_one();
        }
    }

    /// Why the file does not follow, if it does not.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        lock(&self.desk).problem.clone()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        lock(&self.desk).ended = true;
        self.desk.1.notify_one();
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn lock(desk: &(Mutex<Desk>, Condvar)) -> MutexGuard<'_, Desk> {
    desk.0.lock().unwrap_or_else(PoisonError::into_inner)
}

fn keep(desk: &(Mutex<Desk>, Condvar), mut file: File) {
    let mut next = Instant::now();
    loop {
        let idle = |desk: &mut Desk| {
            let due = desk.identity.is_some() && desk.changes.iter().any(|changes| !changes.is_empty());
            !desk.ended && !due
        };
        let waiting = desk.1.wait_while(lock(desk), idle).unwrap_or_else(PoisonError::into_inner);
        let pause = next.saturating_duration_since(Instant::now());
        // What comes meanwhile goes into the same transaction; the end does not wait.
        let paused = desk.1.wait_timeout_while(waiting, pause, |desk| !desk.ended);
        let (mut now, _) = paused.unwrap_or_else(PoisonError::into_inner);
        let (ended, identity) = (now.ended, now.identity.clone());
        let changes = std::mem::take(&mut now.changes);
        drop(now);
        next = Instant::now() + PAUSE;
        if let Some(identity) = identity {
            let outcome = file.write(&identity, &changes);
            report(&mut lock(desk), outcome, changes);
        }
        if ended {
            return;
        }
    }
}

fn report(desk: &mut Desk, outcome: Result<(), String>, changes: [Changes; KINDS]) {
    match outcome {
        Ok(()) => desk.problem = None,
        Err(problem) => {
            if desk.problem.as_ref() != Some(&problem) {
                tracing::error!(%problem, "what was heard is not kept");
            }
            desk.problem = Some(problem);
            for (newer, older) in desk.changes.iter_mut().zip(changes) {
                newer.put_back(older);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
