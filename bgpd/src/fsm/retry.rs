//! When to try again.

use super::Time;
use crate::random::Random;
use std::time::Duration;

/// First delay; doubled by every failure. Short, because the nodes of a mesh start at once and the first attempts meet
/// listeners that are not there yet.
const FIRST: Duration = Duration::from_millis(250);
/// Longest delay.
const LONGEST: Duration = Duration::from_secs(60);
/// A session that lived so long makes the next failure the first one.
const STABLE: Duration = Duration::from_secs(120);
/// Failures after which the delay is a second: the least that an error of the protocol costs.
const SECOND: u32 = 2;

/// Exponential back-off.
#[derive(Clone, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The delay before the next attempt, after one more failure.
    pub(super) fn next(&mut self, random: &mut Random) -> Duration {
        let delay = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        random.jitter(delay)
    }

    /// The same after an error of the protocol, which is unlikely to heal soon.
    pub(super) fn next_after_error(&mut self, random: &mut Random) -> Duration {
        self.failures = self.failures.max(SECOND);
        self.next(random)
    }

    /// A session ended that had been Established at `since`.
    pub(super) fn session_ended(&mut self, since: Time, now: Time) {
        if now.saturating_sub(since) >= STABLE {
            self.failures = 0;
        }
    }

    /// Forgets all failures.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}
