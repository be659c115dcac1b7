//! The file in which one process leaves its sessions to the next.

use crate::bfd::{Handover, SILENCE};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tracing::{info, warn};
use twill_crds::names::BFD_HANDOVER;

/// Above this age peers may have lost their patience: a packet of theirs and ours takes some time, too.
const AGE: Duration = SILENCE.saturating_sub(Duration::from_secs(10));

/// The file, and what it must fit to.
pub(super) struct Place {
    path: PathBuf,
    netns: u64,
    boot: String,
}

#[derive(Serialize, Deserialize)]
struct File {
    /// Sessions belong to one network namespace of one boot.
    netns: u64,
    boot: String,
    written: SystemTime,
    handover: Handover,
}

impl Place {
    pub(super) fn new(run_dir: &Path, netns: u64) -> Self {
        // Without it, only the age counts.
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self { path: run_dir.join(BFD_HANDOVER), netns, boot }
    }

    /// What the process before has left, if it is of any use; the file goes.
    pub(super) fn take(&self) -> Option<Handover> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                warn!(path = %self.path.display(), %error, "sessions of the process before are lost");
                return None;
            }
        };
        if let Err(error) = fs::remove_file(&self.path) {
            warn!(path = %self.path.display(), %error, "cannot remove what was taken over");
            return None;
        }
        let file: File = serde_json::from_slice(&text).ok()?;
        let young = file.written.elapsed().is_ok_and(|age| age < AGE);
        let fits = young && file.netns == self.netns && file.boot == self.boot;
        if !fits {
            info!("what an earlier process left is too old, or of another place");
        }
        fits.then_some(file.handover)
    }

    /// # Errors
    /// The file cannot be written.
    pub(super) fn leave(&self, handover: &Handover) -> anyhow::Result<()> {
        if handover.sessions.is_empty() {
            return Ok(());
        }
        let Self { path, netns, boot } = self;
        let unfinished = path.with_extension("new");
        let write = || {
            let file =
                serde_json::json!({"netns": netns, "boot": boot, "written": SystemTime::now(), "handover": handover});
            fs::write(&unfinished, file.to_string())?;
            fs::rename(&unfinished, path)
        };
        write().with_context(|| format!("sessions cannot be handed over: {}", path.display()))?;
        info!(sessions = handover.sessions.len(), patience = ?SILENCE, "sessions left to the next process");
        Ok(())
    }
}
