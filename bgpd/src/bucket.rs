//! A token bucket: how often may happen what costs us something and others ask for.

use std::time::{Duration, Instant};

/// Full at first. All that is kept is when it will be full again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    size: u32,
    refill: Duration,
    full: Option<Instant>,
}

impl Bucket {
    /// Of `size` tokens; one more comes in after each `refill`.
    pub(crate) const fn new(size: u32, refill: Duration) -> Self {
        Self { size, refill, full: None }
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let is_there = self.next().is_none_or(|at| at <= now);
        if is_there {
            self.full = Some(self.full.map_or(now, |full| full.max(now)) + self.refill);
        }
        is_there
    }

    /// Since when, or from when on, there is a token.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.full?.checked_sub(self.refill * (self.size - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_at_once_as_it_holds_and_then_one_at_a_time() {
        let (mut bucket, start) = (Bucket::new(3, Duration::from_secs(10)), Instant::now());
        let mut taken = |seconds: u64| {
            let now = start + Duration::from_secs(seconds);
            let count = (0..100).filter(|_| bucket.take(now)).count();
            (count, bucket.next().map(|at| at - start))
        };
        let at = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(taken(0), (3, at(10)));
        assert_eq!(taken(9), (0, at(10)));
        assert_eq!(taken(10), (1, at(20)));
        assert_eq!(taken(35), (2, at(40)), "what nobody took is there later");
        assert_eq!(taken(1000), (3, at(1010)), "and no more than it holds");
    }
}
