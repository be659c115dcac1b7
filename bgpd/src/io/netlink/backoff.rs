//! When something that the kernel refused is tried again.

use std::time::{Duration, Instant};

/// After the first refusal; doubled up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(500);
/// See [`FIRST`].
const LONGEST: Duration = Duration::from_secs(30);

/// Pauses between tries, ever longer while nothing helps.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    next: Option<(Instant, Duration)>,
}

impl Backoff {
    /// When there is to be another try, if any.
    pub(super) fn due(&self) -> Option<Instant> {
        self.next.map(|(at, _)| at)
    }

    /// Whether that is now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due().is_some_and(|at| at <= now)
    }

    /// How things stand after a try, or after other work, which does not put off what is due.
    pub(super) fn went(&mut self, failed: bool, now: Instant) {
        self.next = failed.then(|| match self.next {
            None => (now + FIRST, FIRST),
            Some((at, wait)) if at > now => (at, wait),
            Some((_, wait)) => {
                let wait = (wait * 2).min(LONGEST);
                (now + wait, wait)
            }
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_when_all_went_well() {
        let (start, mut backoff) = (Instant::now(), Backoff::default());
        let mut pauses = Vec::new();
        let mut now = start;
        for _ in 0..8 {
            backoff.went(true, now);
            let at = backoff.due().unwrap();
            pauses.push((at - now).as_millis());
            backoff.went(true, at - Duration::from_millis(1));
            assert_eq!(backoff.due(), Some(at), "other work puts nothing off");
            assert!(!backoff.is_due(at - Duration::from_millis(1)) && backoff.is_due(at));
            now = at;
        }
        assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
        backoff.went(false, now);
        assert_eq!(backoff.due(), None);
        backoff.went(true, now);
        assert_eq!(backoff.due(), Some(now + FIRST));
    }
}
