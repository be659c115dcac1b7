//! Events for people, beside the agent: what it tells is written as it comes, repeated things as a count.

use crate::io::agent::Told;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;
use tokio::sync::mpsc;
use twill_datastore::Datastore;
use twill_datastore::event::Recorder;

/// How often old ones are removed.
const SWEEP: Duration = Duration::from_secs(600);

/// Starts the writer.
#[must_use]
pub fn start(store: Datastore, node: &str) -> mpsc::UnboundedSender<Told> {
    let (sender, mut told) = mpsc::unbounded_channel::<Told>();
    let mut recorder = Recorder::new("twill.network/felix", node);
    tokio::spawn(async move {
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            tokio::select! {
                occurrence = told.recv() => {
                    let Some(occurrence) = occurrence else { return };
                    // Random: it only has to make a name unique.
                    let id = RandomState::new().hash_one(&occurrence.note);
                    if let Err(error) = recorder.record(&store, &occurrence, jiff::Timestamp::now(), id).await {
                        tracing::warn!(%error, reason = %occurrence.reason, note = %occurrence.note, "event not written");
                    }
                }
                _ = sweep.tick() => {
                    if let Err(error) = recorder.sweep(&store, jiff::Timestamp::now()).await {
                        tracing::debug!(%error, "old events not removed; tried again later");
                    }
                }
            }
        }
    });
    sender
}
