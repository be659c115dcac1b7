//! All that touches the world: sockets, the kernel, the datastore, the clock.

pub(crate) mod cluster;
pub mod netlink;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod netns;

pub mod bfd;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod bird_tests;
mod bmp;
mod connection;
mod control;
mod handle;
mod interfaces;
mod keys;
mod listeners;
pub(crate) mod lone;
mod md5;
mod metrics;
mod nd;
mod planner;
mod probe;
mod recorder;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod restart_tests;
mod rib;
mod session;
mod sockets;
mod system;
mod throttle;

use crate::fsm::Stop;
use crate::wire::{Notification, cease};
pub use control::ControlSocket;
pub use handle::{Beside, SpeakerHandle};
pub(crate) use metrics::Metrics;
pub(crate) use recorder::Recorder;

/// What a speaker does beside its work, if it is asked to.
#[derive(Default)]
pub(crate) struct Extras {
    /// Who writes down what happens on sessions.
    pub(crate) recorder: Option<Recorder>,
    /// Who answers Prometheus.
    pub(crate) metrics: Option<Metrics>,
}

/// Waits until `wake`, or for ever.
async fn sleep_until(wake: Option<std::time::Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake.into()).await,
        None => std::future::pending().await,
    }
}

/// Ends the process when its thread panics: a speaker of which one half is dead must not look alive. Kernel routes stay,
/// and peers take it for a restart.
struct EndOnPanic;

impl Drop for EndOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

/// An end after which no peer keeps what it has of us: Cease, Administrative Shutdown, with the text of RFC 9003.
fn shutdown(why: &str) -> Stop {
    Stop::Notify(Notification::cease(cease::SHUTDOWN, why))
}

/// A number that differs from process to process, for jitter.
pub(crate) fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}
