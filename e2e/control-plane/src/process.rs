//! A server's process.

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest time until a server is ready; machines are shared.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(50);

/// How to start a server, and its process while it runs.
pub(crate) struct Process {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    pub(crate) fn new(name: &'static str, program: PathBuf, arguments: Vec<String>, directory: &Path) -> Self {
        Self { name, program, arguments, log: directory.join(format!("{name}.log")), child: None }
    }

    /// Starts it, unless it runs, and waits until `ready` says so.
    pub(crate) fn start(&mut self, ready: impl Fn() -> bool) -> anyhow::Result<()> {
        if self.child.is_none() {
            let log = File::options().create(true).append(true).open(&self.log)?;
            // It must not outlive a test that is killed.
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "--"]).arg(&self.program).args(&self.arguments);
            command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
            self.child = Some(command.spawn().with_context(|| format!("starting {}", self.program.display()))?);
        }
        let began = Instant::now();
        while !ready() {
            let ended = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            if ended.is_some() || began.elapsed() > PATIENCE {
                let why = ended.map_or_else(|| "is not ready in time".to_owned(), |status| format!("ended: {status}"));
                bail!("{} {why}; its last words: {}", self.name, self.last_words());
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" / ")
    }

    /// Ends it as a power cut does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// It answers nobody any more, and its connections stay.
    pub(crate) fn pause(&self) {
        self.signal(Signal::SIGSTOP);
        // Its threads stop one after the other, each when it runs next.
        let end = Instant::now() + Duration::from_secs(10);
        while !self.is_stopped() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether every thread is stopped (`T` in `/proc/PID/task/*/stat`), or it is gone.
    fn is_stopped(&self) -> bool {
        let Some(tasks) = self.pid().and_then(|pid| std::fs::read_dir(format!("/proc/{pid}/task")).ok()) else {
            return true;
        };
        let stats = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
        // The state stands behind the name, which is in brackets and may be anything.
        stats.into_iter().all(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T')))
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid().and_then(|pid| i32::try_from(pid).ok()) {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
