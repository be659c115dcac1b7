//! What touches the world: the datastore, the clock, signals, the control socket.

pub mod daemon;
pub mod heard;
pub mod lead;
pub mod perform;
pub mod server;
mod term;

use jiff::Timestamp;
use std::time::{Duration, Instant};

/// A clock that does not jump, and says when it is.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    began: Instant,
    at: Timestamp,
}

impl Clock {
    /// From now on.
    #[must_use]
    pub fn start() -> Self {
        Self { began: Instant::now(), at: Timestamp::now() }
    }

    /// How long it has run.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// When it is, whatever is done to the machine's time meanwhile: nothing runs out early.
    #[must_use]
    pub fn steady(&self) -> Timestamp {
        jiff::SignedDuration::try_from(self.elapsed())
            .ok()
            .and_then(|passed| self.at.checked_add(passed).ok())
            .unwrap_or(self.at)
    }
}
