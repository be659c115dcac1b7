//! Tombstones that the plugin left: DELs that no felix may have heard of. In flow a directory, out flow detachments.

use super::{Calls, detach};
use crate::cni::{self, Del};
use crate::pace::Failing;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};
use twill_crds::cni::{CniRequest, Generation};
use twill_crds::names::CNI_DELETED;
use twill_ipam::Attachment;

/// How often it is looked for them.
const EVERY: Duration = Duration::from_secs(1);
/// How old one is before it is thought that its plugin will not call any more. One that calls after all finds nothing.
const OLD: Duration = Duration::from_secs(3);
/// How old what a killed plugin did not write to its end is before it is taken away.
const FORGOTTEN: Duration = Duration::from_secs(3600);

/// Where tombstones are.
#[derive(Clone, Debug)]
pub struct Tombstones(Vec<PathBuf>);

/// One of them.
#[derive(Clone, Debug)]
pub struct Tombstone {
    path: PathBuf,
    /// What was to be deleted.
    pub del: Del,
}

impl Tombstones {
    /// Those of the plugins that lead to one felix: in its state directory, or beside its socket.
    #[must_use]
    pub fn of(state_dir: &Path, run_dir: &Path) -> Self {
        Self(vec![state_dir.join(CNI_DELETED), run_dir.join(CNI_DELETED)])
    }

    /// The directories.
    #[must_use]
    pub fn directories(&self) -> &[PathBuf] {
        &self.0
    }

    /// What is in them.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        self.0.iter().flat_map(fs::read_dir).flatten().flatten().map(|entry| entry.path()).collect()
    }

    /// All that are at least so old, the oldest first. What is no tombstone is left where it is, and said.
    pub fn read(&self, age: Duration) -> Vec<Tombstone> {
        let now = SystemTime::now();
        let is_old = |path: &Path, age: Duration| {
            let written = path.symlink_metadata().and_then(|found| found.modified());
            written.is_ok_and(|written| now.duration_since(written).is_ok_and(|since| since >= age)) || age.is_zero()
        };
        let mut paths: Vec<PathBuf> = Vec::new();
        for path in self.0.iter().flat_map(fs::read_dir).flatten().flatten().map(|entry| entry.path()) {
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if hidden && is_old(&path, FORGOTTEN) {
                let _ = fs::remove_file(&path);
            } else if !hidden && is_old(&path, age) {
                paths.push(path);
            }
        }
        paths.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
        paths.into_iter().filter_map(read).collect()
    }
}

impl Tombstone {
    /// What it means is gone.
    pub fn remove(self) {
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %self.path.display(), "a DEL that was performed is still noted");
        }
    }
}

fn read(path: PathBuf) -> Option<Tombstone> {
    let text = match fs::read_to_string(&path) {
        // Its plugin has just done what it means.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        text => text.map_err(|error| error.to_string()),
    };
    let request = text.and_then(|text| serde_json::from_str::<CniRequest>(&text).map_err(|error| error.to_string()));
    match request.and_then(|request| cni::del(&request).map_err(|failure| failure.to_string())) {
        Ok(del) => Some(Tombstone { path, del }),
        Err(error) => {
            tracing::debug!(%error, path = %path.display(), "this is no DEL that a plugin left");
            None
        }
    }
}

/// Whether a DEL means an attachment: of its network, and not attached later.
pub(crate) fn means(del: &Del, held: &Attachment) -> bool {
    let same = |a: &str, b: &str| a.is_empty() || b.is_empty() || a == b;
    if !same(&del.network, &held.origin.network) {
        return false;
    }
    match (&del.generation, held.origin.generation.parse::<Generation>()) {
        (Some(del), Ok(attached)) => attached.is_up_to(del, &boot()),
        _ => true,
    }
}

/// The boot that runs, as the plugin tells it.
fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Performs, until the process ends, DELs whose plugin was killed before it could call, or found no felix.
pub async fn replay(calls: Calls, tombstones: Tombstones) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failing = Failing::default();
    loop {
        tick.tick().await;
        let at = tombstones.clone();
        let all = tokio::task::spawn_blocking(move || at.read(OLD)).await.unwrap_or_default();
        for tombstone in all {
            let what = tombstone.path.display().to_string();
            if !failing.may_try(&what, Instant::now()) {
                continue;
            }
            match perform(&calls, &tombstone.del).await {
                Ok(()) => {
                    let del = &tombstone.del;
                    tracing::info!(container = %del.sandbox.container_id, interface = %del.sandbox.ifname,
                        "DEL that the plugin had left was performed");
                    failing.succeeded(&what);
                    tombstone.remove();
                }
                Err(error) => {
                    if failing.failed(&what, error.message.clone(), Instant::now()) {
                        tracing::warn!(%error, path = %what, "DEL that the plugin had left was not performed; tried again");
                    }
                }
            }
        }
        failing.forget_others();
    }
}

async fn perform(calls: &Calls, del: &Del) -> Result<(), cni::Failure> {
    let _held = calls.sandboxes.delete(&del.sandbox, del.generation.as_ref()).await;
    match calls.attachment(&del.sandbox).await? {
        Some(held) if means(del, &held) => detach(calls, &del.sandbox).await,
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn whole_ones_are_read_in_their_order_and_the_rest_is_left_alone() {
        let state = tempfile::tempdir().unwrap();
        let run = tempfile::tempdir().unwrap();
        let tombstones = Tombstones::of(state.path(), run.path());
        assert!(tombstones.read(Duration::ZERO).is_empty(), "there is no directory");
        let write = |directory: &Path, name: &str, text: &str| {
            fs::create_dir_all(directory.join(CNI_DELETED)).unwrap();
            fs::write(directory.join(CNI_DELETED).join(name), text).unwrap();
        };
        let del = |container: &str| {
            json!({"command": "DEL", "containerId": container, "ifname": "eth0", "config": {}}).to_string()
        };
        write(state.path(), "2-b", &del("b"));
        write(run.path(), "1-a", &del("a"));
        write(state.path(), "3-c", &del("../c"));
        write(state.path(), "4-d", "{");
        write(state.path(), ".5-e.new", &del("e"));
        let read = tombstones.read(Duration::ZERO);
        let names: Vec<&str> = read.iter().map(|one| one.del.sandbox.container_id.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(tombstones.read(OLD).is_empty(), "they are new");
        read.into_iter().for_each(Tombstone::remove);
        assert_eq!(fs::read_dir(state.path().join(CNI_DELETED)).unwrap().count(), 3);
    }
}
