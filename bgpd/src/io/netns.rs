//! Network namespaces for tests against the kernel.

use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A network namespace that goes with its value.
pub(crate) struct Netns {
    pub(crate) name: String,
}

impl Netns {
    pub(crate) fn new(label: &str) -> Self {
        let name = format!("twfib-{}-{}-{label}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        run("ip", &format!("netns add {name}"));
        let netns = Self { name };
        netns.ip("link set lo up");
        netns
    }

    pub(crate) fn ip(&self, arguments: &str) -> String {
        run("ip", &format!("-n {} {arguments}", self.name))
    }

    /// Whether the command succeeds inside.
    pub(crate) fn succeeds(&self, command: &str) -> bool {
        let mut all = vec!["netns", "exec", &self.name];
        all.extend(command.split_whitespace());
        Command::new("ip").args(all).output().unwrap().status.success()
    }

    pub(crate) fn exec(&self, command: &str) -> String {
        run("ip", &format!("netns exec {} {command}", self.name))
    }

    pub(crate) fn enter<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.name)).unwrap();
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(file, CloneFlags::CLONE_NEWNET).unwrap();
                action()
            });
            inside.join().unwrap()
        })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

pub(crate) fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until the condition holds and says how long that took.
pub(crate) fn within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::yield_now();
    }
    start.elapsed()
}

pub(crate) const SECOND: Duration = Duration::from_secs(1);
