//! An interrupted `up` leaves nothing behind: the first signal takes the half-built lab down, so that whatever the builder
//! does next fails, and the builder's own clean-up has the last word.

use crate::io::down;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{SignalKind, signal};

/// Whether a signal came.
#[derive(Clone, Debug, Default)]
pub struct Interrupted(Arc<AtomicBool>);

impl Interrupted {
    /// Watches for SIGINT, SIGTERM and SIGHUP from now on, for as long as the process lives.
    ///
    /// # Errors
    /// No thread, or no signal handler.
    pub fn watch(lab: &str) -> anyhow::Result<Self> {
        let interrupted = Self::default();
        let (told, lab) = (interrupted.clone(), lab.to_owned());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut signals = runtime.block_on(async {
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
                .into_iter()
                .map(signal)
                .collect::<Result<Vec<_>, _>>()
        })?;
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                let first = signals.iter_mut().map(|s| Box::pin(s.recv()));
                futures::future::select_all(first).await;
            });
            told.0.store(true, Ordering::SeqCst);
            // What is left is the builder's to report.
            let _ = down::down(&lab);
        })?;
        Ok(interrupted)
    }

    /// Whether a signal came.
    #[must_use]
    pub fn came(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
