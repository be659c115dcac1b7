//! Randomness, and when to try again.

use super::Time;
use std::time::Duration;

/// SplitMix64: enough for jitter, and reproducible.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Three quarters of `time` up to all of it (RFC 4271 section 10).
    pub(super) fn jitter(&mut self, time: Duration) -> Duration {
        time.mul_f64(0.75 + 0.25 * (self.next() >> 11) as f64 / (1_u64 << 53) as f64)
    }

    /// Nothing up to all of `time`.
    pub(super) fn up_to(&mut self, time: Duration) -> Duration {
        time.mul_f64((self.next() >> 11) as f64 / (1_u64 << 53) as f64)
    }
}

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
