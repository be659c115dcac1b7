//! Whether those who follow hear the datastore.
//!
//! In flow each follower's successes and failures; out flows one sentence while some of them do not hear, for whoever says how this
//! node is. It costs the datastore no question.

use crate::Error;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// Who does not hear the datastore, and why.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    followers: Mutex<Followers>,
    trouble: watch::Sender<Option<String>>,
}

#[derive(Debug, Default)]
struct Followers {
    /// How many there have been.
    made: u64,
    away: BTreeMap<u64, String>,
}

/// One follower's word on it, which goes with it.
#[derive(Debug)]
pub(crate) struct Hearing {
    reach: Arc<Reach>,
    number: u64,
}

impl Reach {
    pub(crate) fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.trouble.subscribe()
    }

    /// A new follower, of whom nothing is known.
    pub(crate) fn hearing(self: &Arc<Self>) -> Hearing {
        let mut followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        followers.made += 1;
        Hearing { reach: self.clone(), number: followers.made }
    }

    fn note(&self, number: u64, problem: Option<String>) {
        let mut followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            Some(problem) => drop(followers.away.insert(number, problem)),
            None => drop(followers.away.remove(&number)),
        }
        let problem = followers.away.values().next().cloned();
        self.trouble.send_if_modified(|told| {
            let changed = *told != problem;
            *told = problem;
            changed
        });
    }
}

impl Hearing {
    pub(crate) fn hears(&self) {
        self.reach.note(self.number, None);
    }

    /// A failure that says that there is no answer; any other is one.
    pub(crate) fn fails(&self, error: &Error) {
        let away = matches!(error, Error::Unavailable(_) | Error::Full(_));
        self.reach.note(self.number, away.then(|| error.to_string()));
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        self.hears();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn there_is_trouble_while_some_follower_does_not_hear_and_an_answer_that_is_a_refusal_is_none() {
        let reach = Arc::new(Reach::default());
        let (one, other) = (reach.hearing(), reach.hearing());
        let trouble = reach.trouble();
        let away = |why: &str| Error::Unavailable(why.into());
        assert_eq!(*trouble.borrow(), None);
        one.fails(&away("no route"));
        other.fails(&away("no answer"));
        assert_eq!(trouble.borrow().as_deref(), Some(&*away("no route").to_string()));
        one.hears();
        assert_eq!(trouble.borrow().as_deref(), Some(&*away("no answer").to_string()));
        other.fails(&Error::UnknownKind("it does not know IPPool".into()));
        assert_eq!(*trouble.borrow(), None);
        other.fails(&away("no answer"));
        drop(other);
        assert_eq!(*trouble.borrow(), None, "whoever follows no more misses nothing");
    }
}
