//! The file that keeps the objects over a restart.

use crate::cluster::Snapshot;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Name of the file inside the state directory.
pub(super) const NAME: &str = "bgpd.json";

/// What an earlier run kept, if there was one.
pub(super) async fn load(path: &Path) -> io::Result<Option<Snapshot>> {
    match tokio::fs::read(path).await {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::from),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// How many times as long as a write takes there is none: in a large cluster, where something changes all the time, it is megabytes.
const PAUSE: u32 = 20;
/// And no longer than this: one write on a disk that hung says nothing of the next, and a restart is to know what is in force.
const LONGEST: Duration = Duration::from_secs(30);

/// Keeps what was read, for the next start.
pub(super) async fn keep(path: PathBuf, mut snapshots: watch::Receiver<Option<Snapshot>>) {
    let mut kept = None;
    while snapshots.changed().await.is_ok() {
        let snapshot = snapshots.borrow_and_update().clone();
        if snapshot.is_none() || snapshot == kept {
            continue;
        }
        let began = Instant::now();
        match store_file(&path, &snapshot).await {
            Ok(()) => {
                kept = snapshot;
                tokio::time::sleep(pause_after(began.elapsed())).await;
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "snapshot cannot be kept; a restart will wait for the datastore")
            }
        }
    }
}

/// For how long there is no write after one that took `took`.
fn pause_after(took: Duration) -> Duration {
    took.saturating_mul(PAUSE).min(LONGEST)
}

/// The file as long as it is written.
pub(super) fn unfinished(path: &Path) -> PathBuf {
    path.with_extension("new")
}

async fn store_file(path: &Path, snapshot: &Option<Snapshot>) -> io::Result<()> {
    let new = unfinished(path);
    let mut options = tokio::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new).await?;
    tokio::io::AsyncWriteExt::write_all(&mut file, &serde_json::to_vec(snapshot)?).await?;
    file.sync_all().await?;
    tokio::fs::rename(&new, path).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_write_does_not_keep_the_file_old_for_long() {
        let pauses = [50, 1_000, 60_000].map(|took| pause_after(Duration::from_millis(took)).as_millis());
        assert_eq!(pauses, [1_000, 20_000, 30_000]);
    }
}
