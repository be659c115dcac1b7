//! How often a peer or a stranger can make us write a line.

use crate::bucket::Bucket;
use std::time::{Duration, Instant};

/// Lines at once.
const BURST: u32 = 5;
/// One more line after each of these.
const REFILL: Duration = Duration::from_secs(10);

/// Lines of one kind. What is left out is counted and told with the next line.
#[derive(Debug)]
pub(super) struct Throttle {
    lines: Bucket,
    left_out: u64,
}

impl Default for Throttle {
    fn default() -> Self {
        Self { lines: Bucket::new(BURST, REFILL), left_out: 0 }
    }
}

impl Throttle {
    /// Whether a line may be written now; then how many were left out before.
    pub(super) fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.lines.take(now) {
            return Some(std::mem::take(&mut self.left_out));
        }
        self.left_out += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_writes_few_lines_and_says_how_many_it_left_out() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        let lines: Vec<u64> = (0..1000).filter_map(|_| throttle.admit(start)).collect();
        assert_eq!(lines, [0; 5]);
        assert_eq!(throttle.admit(start + REFILL / 2), None);
        assert_eq!(throttle.admit(start + REFILL), Some(996));
        assert_eq!(throttle.admit(start + REFILL), None);
        assert_eq!(throttle.admit(start + REFILL * 100), Some(1));
    }
}
