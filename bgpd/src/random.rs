//! Randomness from a seed, for jitter.

use std::time::Duration;

/// SplitMix64: enough for jitter, and reproducible.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Three quarters of `time` up to all of it (RFC 4271 section 10).
    pub(crate) fn jitter(&mut self, time: Duration) -> Duration {
        self.between(time.mul_f64(0.75), time)
    }

    /// Nothing up to all of `time`.
    pub(crate) fn up_to(&mut self, time: Duration) -> Duration {
        self.between(Duration::ZERO, time)
    }

    /// From `least` up to `most`.
    pub(crate) fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let part = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        least + most.saturating_sub(least).mul_f64(part)
    }
}
