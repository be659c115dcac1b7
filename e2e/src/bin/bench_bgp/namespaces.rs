//! Three network namespaces without names: they go when the threads and processes in them have gone.

use anyhow::{Context, bail};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getgid, gettid, getuid};
use std::process::Command;
use std::sync::mpsc;
use std::thread::JoinHandle;

/// Root in a user namespace of our own, if we are not root already. Before the first thread.
pub(crate) fn become_root() -> anyhow::Result<()> {
    let (uid, gid) = (getuid(), getgid());
    if uid.is_root() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWUSER).context("no user namespaces here; run as root")?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    Ok(())
}

/// Runs `work` on a thread in a network namespace of its own. Returns the thread's number, by which `ip` finds the
/// namespace, once it exists.
pub(crate) fn spawn<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<(i32, JoinHandle<anyhow::Result<T>>)> {
    let (made, is_made) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let result = unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace");
        if result.is_ok() {
            made.send(gettid().as_raw()).context("nobody waits for the namespace")?;
        }
        result.and_then(|()| work())
    });
    let id = is_made.recv().context("the thread ended before it had a namespace")?;
    Ok((id, thread))
}

/// Runs `ip` in the caller's namespace.
pub(crate) fn ip(arguments: &str) -> anyhow::Result<()> {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().context("cannot run ip (iproute2)")?;
    if !output.status.success() {
        bail!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
