//! Whether this machine goes down, and so how to leave.

use crate::fsm::Stop;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// A service manager that is asked while it ends everything answers at once or not at all.
const PATIENCE: Duration = Duration::from_secs(1);

/// How to leave after SIGTERM. `told`: it is known already that the machine goes down; else systemd is asked, where it runs.
///
/// A machine that goes down forwards nothing, so peers must not keep its routes; after everything else the kernel goes on.
pub(super) async fn farewell(told: bool) -> Stop {
    // sd_booted(3)
    let systemd = Path::new("/run/systemd/system").is_dir();
    if told || (systemd && says_stopping(OsStr::new("systemctl")).await) {
        tracing::info!("leaving, since the machine goes down: sessions are closed with Cease");
        return super::shutdown("the machine goes down");
    }
    tracing::info!("leaving: sessions are closed without NOTIFICATION, kernel routes stay");
    Stop::Silently
}

/// Whether `systemctl is-system-running` says `stopping` (systemctl(1)).
async fn says_stopping(systemctl: &OsStr) -> bool {
    let mut command = Command::new(systemctl);
    command.arg("is-system-running").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(PATIENCE, command.output()).await {
        Ok(Ok(output)) => output.stdout.trim_ascii() == b"stopping",
        Ok(Err(error)) => {
            tracing::debug!(%error, "systemd cannot be asked whether the machine goes down");
            false
        }
        Err(_) => {
            tracing::warn!("systemd does not say whether the machine goes down; leaving as for a restart");
            false
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn asked(script: &str) -> bool {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("systemctl");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(says_stopping(path.as_os_str()))
    }

    #[test]
    fn only_stopping_means_that_the_machine_goes_down() {
        // It exits with 1 for every state but running.
        assert!(asked("echo stopping; exit 1"));
        for other in ["echo running", "echo degraded; exit 1", "exit 1", "echo stopping-not", "exec sleep 60"] {
            assert!(!asked(other), "{other}");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert!(!runtime.block_on(says_stopping(OsStr::new("/nowhere/systemctl"))));
    }
}
