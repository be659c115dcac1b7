//! Processes of a lab that are killed and started again as their supervisor would: with the command and the environment that they had.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use twill_lab::io::netns;
use twill_lab::io::process::{self, Process};

/// One of them.
pub(crate) struct Daemon {
    netns: Option<String>,
    command: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    log: PathBuf,
    process: Process,
    child: Option<Child>,
}

impl Daemon {
    /// A process that runs, in a namespace or in ours.
    pub(crate) fn of(process: Process, netns: Option<&str>, log: PathBuf) -> Self {
        let read = |what: &str| {
            let bytes = std::fs::read(format!("/proc/{}/{what}", process.pid)).unwrap();
            let parts = bytes.split(|byte| *byte == 0).filter(|part| !part.is_empty());
            parts.map(|part| OsString::from_vec(part.to_vec())).collect::<Vec<_>>()
        };
        let environment = read("environ").into_iter().filter_map(|one| {
            let bytes = one.into_vec();
            let at = bytes.iter().position(|byte| *byte == b'=')?;
            Some((OsString::from_vec(bytes[..at].to_vec()), OsString::from_vec(bytes[at + 1..].to_vec())))
        });
        let netns = netns.map(str::to_owned);
        Self { netns, command: read("cmdline"), environment: environment.collect(), log, process, child: None }
    }

    pub(crate) fn runs(&self) -> bool {
        self.process.runs()
    }

    pub(crate) fn pid(&self) -> i32 {
        self.process.pid
    }

    /// SIGKILL, and gone.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.reap();
    }

    /// Starts it, unless it runs.
    pub(crate) fn start(&mut self) {
        if self.runs() {
            return;
        }
        self.reap();
        let log = process::open_log(&self.log).unwrap();
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).env_clear().envs(self.environment.iter().cloned()).current_dir("/");
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = match &self.netns {
            Some(name) => netns::inside(name, || Ok(command.spawn()?)).unwrap(),
            None => command.spawn().unwrap(),
        };
        self.process = process::identify(&child).unwrap();
        self.child = Some(child);
    }

    /// Who traced it may have been told of its end before us; then a plugin may have its number by now, whose end is not ours to hear.
    fn reap(&mut self) {
        if let Some(mut child) = self.child.take().filter(|_| self.process.has_its_number()) {
            let _ = child.wait();
        }
    }

    /// What it logged, all its lives long.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// What it logged last.
    pub(crate) fn last_words(&self) -> String {
        self.said().lines().last().unwrap_or("without a word").to_owned()
    }
}
