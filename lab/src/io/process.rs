//! Processes inside namespaces: started detached, found again by pid and start time, killed.

use crate::io::netns;
use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A process that cannot be mistaken for another that got its number later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// When it was started, in clock ticks since boot (`/proc/PID/stat`, field 22).
    pub start_time: u64,
}

impl Process {
    fn of(pid: i32) -> Option<Self> {
        alive(pid).map(|start_time| Self { pid, start_time })
    }

    /// Whether it still runs; a zombie does not.
    #[must_use]
    pub fn runs(&self) -> bool {
        alive(self.pid) == Some(self.start_time)
    }

    /// Whether it has its number still: it runs, or nobody has waited for it. Of another process with that number its parent would hear.
    #[must_use]
    pub fn has_its_number(&self) -> bool {
        stat(self.pid).is_some_and(|(_, start_time)| start_time == self.start_time)
    }

    /// SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// It runs on for five seconds, or the last of its threads for a minute, which a disk can take that it waits for.
    pub fn kill(&self) -> anyhow::Result<()> {
        if self.runs() {
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
        let is_gone =
            until(Duration::from_secs(5), || !self.runs()) && until(Duration::from_secs(60), || !self.lingers());
        if !is_gone {
            bail!("process {} does not go away after SIGKILL", self.pid);
        }
        Ok(())
    }

    /// Whether threads of it are still on their way out. Its first one may be a zombie before them, and until the last one has gone its sockets
    /// answer and its locks hold.
    fn lingers(&self) -> bool {
        let threads = || fs::read_dir(format!("/proc/{}/task", self.pid)).into_iter().flatten().count();
        self.has_its_number() && threads() > 1
    }
}

/// Start time of a process that is neither gone nor a zombie.
fn alive(pid: i32) -> Option<u64> {
    stat(pid).filter(|(state, _)| !matches!(state.as_str(), "Z" | "X" | "x")).map(|(_, start_time)| start_time)
}

/// State and start time of a process.
fn stat(pid: i32) -> Option<(String, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let mut fields = stat.get(stat.rfind(')')? + 2..)?.split(' ');
    Some((fields.next()?.to_owned(), fields.nth(18)?.parse().ok()?))
}

/// Polls until `done` or the limit; says which.
pub fn until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The running executable: every process of a lab is another call of it.
///
/// # Errors
/// `/proc` is not mounted.
pub fn own_executable() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("the path of the running executable is not known")
}

/// Starts `twill ARGS` in a session of its own inside a namespace, its output appended to `log`. The process outlives us.
///
/// # Errors
/// The namespace, the log or the executable cannot be used.
pub fn start(
    netns_name: &str,
    args: &[String],
    environment: &[(&str, String)],
    log: &Path,
    stdout: Stdio,
) -> anyhow::Result<std::process::Child> {
    start_program(netns_name, &own_executable()?, args, environment, log, stdout)
}

/// As [`start`], with any program; one that is missing says so in the log.
///
/// # Errors
/// The namespace, the log or our own executable cannot be used.
pub fn start_program(
    netns_name: &str,
    program: &Path,
    args: &[String],
    environment: &[(&str, String)],
    log: &Path,
    stdout: Stdio,
) -> anyhow::Result<std::process::Child> {
    let log_file = open_log(log)?;
    let executable = own_executable()?;
    let environment = environment.iter().map(|(key, value)| (*key, value.as_str()));
    netns::inside(netns_name, move || {
        Command::new(&executable)
            .args(["lab", "run-detached", "--"])
            .arg(program)
            .args(args)
            .envs(environment)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(log_file)
            .current_dir("/")
            .spawn()
            .with_context(|| format!("{} cannot be started", executable.display()))
    })
}

/// Opens a log to append to.
///
/// # Errors
/// The file cannot be made.
pub fn open_log(log: &Path) -> anyhow::Result<File> {
    OpenOptions::new().create(true).append(true).open(log).with_context(|| format!("log {}", log.display()))
}

/// What names a child that was just started.
///
/// # Errors
/// It is dead already.
pub fn identify(child: &std::process::Child) -> anyhow::Result<Process> {
    let pid = i32::try_from(child.id())?;
    Process::of(pid).with_context(|| format!("process {pid} ended at once"))
}

/// All processes inside the named namespaces, ourselves excepted.
#[must_use]
pub fn inside(namespaces: &[String]) -> Vec<Process> {
    let inodes = namespaces.iter().filter_map(|n| netns::inode(n)).collect::<BTreeSet<_>>();
    let own = nix::unistd::getpid().as_raw();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|m| inodes.contains(&m.ino())))
        .filter_map(Process::of)
        .collect()
}

/// Starts a program in a session of its own, in our own namespace, its output appended to `log`. The process outlives us.
///
/// # Errors
/// The log or our own executable cannot be used; a program that is missing says so in the log.
pub fn start_here(program: &Path, args: &[&str], log: &Path) -> anyhow::Result<()> {
    let (log_file, executable) = (open_log(log)?, own_executable()?);
    let mut command = Command::new(&executable);
    command.args(["lab", "run-detached", "--"]).arg(program).args(args).current_dir("/");
    command.stdin(Stdio::null()).stdout(log_file.try_clone()?).stderr(log_file);
    command.spawn().with_context(|| format!("{} cannot be started", executable.display()))?;
    Ok(())
}

/// All processes that were given each of these arguments, ourselves excepted.
#[must_use]
pub fn with_arguments(wanted: &[&str]) -> Vec<Process> {
    let own = nix::unistd::getpid().as_raw();
    let given = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let arguments = || line.split(|byte| *byte == 0);
        wanted.iter().all(|wanted| arguments().any(|argument| argument == wanted.as_bytes()))
    };
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != own)
        .filter(given)
        .filter_map(Process::of)
        .collect()
}

/// SIGKILLs everything inside the named namespaces until nothing is left.
///
/// # Errors
/// Something is left after five seconds.
pub fn kill_inside(namespaces: &[String]) -> anyhow::Result<()> {
    let mut left = Vec::new();
    let gone = until(Duration::from_secs(5), || {
        left = inside(namespaces);
        for process in &left {
            let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
        }
        left.is_empty()
    });
    if !gone {
        bail!("processes {:?} do not go away after SIGKILL", left.iter().map(|p| p.pid).collect::<Vec<_>>());
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_time_too() {
        let me = Process::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(me.runs());
        assert!(!Process { start_time: me.start_time + 1, ..me }.runs());
    }

    #[test]
    fn a_zombie_does_not_run() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let process = identify(&child).unwrap();
        process.kill().unwrap();
        assert!(!process.runs());
        child.wait().unwrap();
    }
}
