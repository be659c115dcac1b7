//! Growing pauses. In flow the time and how attempts ended; out flows what may be tried, or looked at, now, and what of it is to be said.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// When the same is done next, if it is to be done less and less often.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    first: Duration,
    longest: Duration,
    pause: Duration,
    due: Option<Instant>,
}

impl Pace {
    /// Due at once; then after `first`, which doubles up to `longest`.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, pause: first, due: None }
    }

    /// Whether it is time.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| now >= due)
    }

    /// It was done, and has to be done again.
    pub fn again(&mut self, now: Instant) {
        self.due = Some(now + self.pause);
        self.pause = (self.pause * 2).min(self.longest);
    }

    /// Something is new: due at once.
    pub fn reset(&mut self) {
        *self = Self::new(self.first, self.longest);
    }
}

/// What could not be done, by what it is of: each is tried again after pauses of its own, and said once.
#[derive(Debug, Default)]
pub struct Failing(BTreeMap<String, Failed>);

#[derive(Debug)]
struct Failed {
    sentence: String,
    pace: Pace,
    /// It was asked for, or failed, since the last [`Failing::forget_others`].
    seen: bool,
}

/// First pause after a failure.
const FIRST: Duration = Duration::from_secs(1);
/// The longest.
const LONGEST: Duration = Duration::from_secs(60);

impl Failing {
    /// Whether this may be tried.
    pub fn may_try(&mut self, what: &str, now: Instant) -> bool {
        let Some(failed) = self.0.get_mut(what) else { return true };
        failed.seen = true;
        failed.pace.is_due(now)
    }

    /// It did not succeed, for this reason. Whether that has not been said yet.
    pub fn failed(&mut self, what: &str, sentence: String, now: Instant) -> bool {
        let new = || Failed { sentence: String::new(), pace: Pace::new(FIRST, LONGEST), seen: true };
        let failed = self.0.entry(what.to_owned()).or_insert_with(new);
        failed.seen = true;
        failed.pace.again(now);
        let is_new = failed.sentence != sentence;
        failed.sentence = sentence;
        is_new
    }

    /// It succeeded. Whether it had failed before.
    pub fn succeeded(&mut self, what: &str) -> bool {
        self.0.remove(what).is_some()
    }

    /// Forgets what was not of interest since this was called last: it is no longer there.
    pub fn forget_others(&mut self) {
        self.0.retain(|_, failed| std::mem::take(&mut failed.seen));
    }

    /// All that fails, for people; none if nothing does.
    #[must_use]
    pub fn sentence(&self) -> Option<String> {
        let first = &self.0.values().next()?.sentence;
        Some(match self.0.len() - 1 {
            0 => first.clone(),
            more => format!("{first} (and {more} more)"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn pauses_double_up_to_the_longest_until_something_is_new() {
        let begin = Instant::now();
        let mut pace = Pace::new(seconds(1), seconds(5));
        assert!(pace.is_due(begin));
        let mut now = begin;
        for pause in [1, 2, 4, 5, 5] {
            pace.again(now);
            assert!(!pace.is_due(now + seconds(pause) - Duration::from_millis(1)));
            now += seconds(pause);
            assert!(pace.is_due(now));
        }
        pace.again(now);
        pace.reset();
        assert!(pace.is_due(now));
        pace.again(now);
        assert!(pace.is_due(now + seconds(1)), "from the first pause on");
    }

    #[test]
    fn each_failure_is_said_once_and_hinders_nothing_else() {
        let now = Instant::now();
        let mut failing = Failing::default();
        for (at, new) in [(0, true), (1, false), (3, false)] {
            for what in ["a", "b"] {
                assert!(failing.may_try(what, now + seconds(at)));
                assert_eq!(failing.failed(what, format!("{what} is in the way"), now + seconds(at)), new);
                assert!(!failing.may_try(what, now + seconds(at)));
            }
        }
        assert!(failing.may_try("c", now));
        assert_eq!(failing.sentence().as_deref(), Some("a is in the way (and 1 more)"));
        assert!(failing.failed("a", "a is away".into(), now), "another reason is news");
        assert!(failing.succeeded("a") && !failing.succeeded("a"));
        assert_eq!(failing.sentence().as_deref(), Some("b is in the way"));
        failing.forget_others();
        assert!(failing.sentence().is_some());
        failing.forget_others();
        assert!(failing.sentence().is_none(), "nobody asked for b any more");
    }
}
