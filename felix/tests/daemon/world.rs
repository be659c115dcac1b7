//! Network namespaces of one test, removed with it.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A network namespace with a name that nobody else has.
pub struct Ns(pub String);

impl Ns {
    pub fn new(role: &str) -> Self {
        let name = format!("tf{}-{}-{role}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let made = Self(name);
        let output = Command::new("ip").args(["netns", "add", &made.0]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        made.run(&["ip", "link", "set", "lo", "up"]);
        made
    }

    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.0)
    }

    /// A command inside, whatever its outcome.
    pub fn output(&self, command: &[&str]) -> Output {
        self.command(command).output().unwrap()
    }

    pub fn command(&self, command: &[&str]) -> Command {
        let mut all = Command::new("ip");
        all.args(["netns", "exec", &self.0]).args(command);
        all
    }

    /// A command inside that must succeed; its output.
    pub fn run(&self, command: &[&str]) -> String {
        let output = self.output(command);
        assert!(output.status.success(), "{command:?}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn pings(&self, address: &str) -> bool {
        self.output(&["ping", "-c", "1", "-W", "1", address]).status.success()
    }
}

impl Drop for Ns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).output();
    }
}

pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Waits until `ready` says so.
pub fn until(what: &str, limit: Duration, mut ready: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !ready() {
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
