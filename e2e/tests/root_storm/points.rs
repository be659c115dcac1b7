//! A process that is killed when it is about to write for the n-th time: to a file, or into a socket, which the kernel's netlink is, too.
//!
//! In flow a process and a number, out flows the system call that it did not come to any more. All its threads are traced from one thread
//! of ours; when that ends, the kernel lets all of them go.

use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

/// What changes something outside the process.
const WRITES: [(libc::c_long, &str); 14] = [
    (libc::SYS_write, "write"),
    (libc::SYS_writev, "writev"),
    (libc::SYS_pwrite64, "pwrite"),
    (libc::SYS_fsync, "fsync"),
    (libc::SYS_fdatasync, "fdatasync"),
    (libc::SYS_ftruncate, "ftruncate"),
    (libc::SYS_sendto, "sendto"),
    (libc::SYS_sendmsg, "sendmsg"),
    (libc::SYS_sendmmsg, "sendmmsg"),
    (libc::SYS_renameat, "renameat"),
    (libc::SYS_renameat2, "renameat2"),
    (libc::SYS_unlinkat, "unlinkat"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rename, "rename"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_unlink, "unlink"),
];
/// Threads waking each other, the log, and what felix remembers of the datastore once a second, which no call waits for.
const OTHERS: [&str; 3] = ["anon_inode:", ".log", "/felix.db"];
/// Between two looks when nothing has stopped.
const PAUSE: Duration = Duration::from_micros(200);

/// A process that waits for its end.
pub(crate) struct Doomed {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Option<String>>,
}

impl Doomed {
    /// Begins to count; returns when every thread is watched, or the process is gone.
    pub(crate) fn at(pid: i32, n: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, watched) = mpsc::channel();
        let thread = {
            let stop = stop.clone();
            std::thread::spawn(move || Trace::begin(pid)?.run(n, &stop, &ready))
        };
        let _ = watched.recv();
        Self { stop, thread }
    }

    /// Whether it has been killed, or has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// Lets it live, if it does. What it was killed before.
    pub(crate) fn end(self) -> Option<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

struct Trace {
    pid: Pid,
    /// Threads that have not stopped for the first time.
    fresh: BTreeSet<Pid>,
    writes: usize,
}

impl Trace {
    fn begin(pid: i32) -> Option<Self> {
        let mut all = BTreeSet::new();
        // A thread that is born meanwhile is either listed or inherits being traced.
        loop {
            let before = all.len();
            for task in std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
                let thread = Pid::from_raw(task.file_name().to_str()?.parse().ok()?);
                let options = Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_TRACESYSGOOD;
                if !all.contains(&thread) && ptrace::seize(thread, options).is_ok() {
                    let _ = ptrace::interrupt(thread);
                    all.insert(thread);
                }
            }
            if all.len() == before {
                break;
            }
        }
        (!all.is_empty()).then_some(Self { pid: Pid::from_raw(pid), fresh: all, writes: 0 })
    }

    fn run(mut self, n: usize, stop: &AtomicBool, ready: &mpsc::Sender<()>) -> Option<String> {
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD | WaitPidFlag::WNOHANG;
        loop {
            if self.fresh.is_empty() {
                let _ = ready.send(());
            }
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            let (thread, signal) = match waitpid(Pid::from_raw(-1), Some(flags)) {
                Ok(WaitStatus::StillAlive) => {
                    std::thread::sleep(PAUSE);
                    continue;
                }
                Ok(WaitStatus::PtraceSyscall(thread)) => {
                    if let Some(what) = self.writes(thread) {
                        self.writes += 1;
                        if self.writes == n {
                            kill(self.pid, Signal::SIGKILL).unwrap();
                            self.bury();
                            return Some(what);
                        }
                    }
                    (thread, None)
                }
                Ok(WaitStatus::PtraceEvent(thread, ..)) => (thread, None),
                Ok(WaitStatus::Stopped(thread, signal)) => (thread, Some(signal)),
                Ok(WaitStatus::Exited(thread, _) | WaitStatus::Signaled(thread, ..)) => {
                    self.fresh.remove(&thread);
                    if thread == self.pid {
                        return None;
                    }
                    continue;
                }
                Ok(_) => continue,
                // Nobody is left.
                Err(_) => return None,
            };
            self.fresh.remove(&thread);
            let _ = ptrace::syscall(thread, signal);
        }
    }

    /// What a thread is about to write; none if it is something else, or has been done.
    fn writes(&self, thread: Pid) -> Option<String> {
        let info = ptrace::syscall_info(thread).ok()?;
        if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            return None;
        }
        let line = std::fs::read_to_string(format!("/proc/{}/task/{thread}/syscall", self.pid)).ok()?;
        let mut fields = line.split(' ');
        let number: libc::c_long = fields.next()?.parse().ok()?;
        let (_, name) = WRITES.iter().find(|(write, _)| *write == number)?;
        if name.starts_with("rename") || name.starts_with("unlink") {
            return Some((*name).to_owned());
        }
        let file = u32::from_str_radix(fields.next()?.trim_start_matches("0x"), 16).ok()?;
        let target = std::fs::read_link(format!("/proc/{}/fd/{file}", self.pid)).ok()?.display().to_string();
        let other = file <= 2 || OTHERS.iter().any(|other| target.contains(other));
        let short = target.rsplit('/').next().unwrap_or_default().split(':').next().unwrap_or_default();
        (!other).then(|| format!("{name} {short}"))
    }

    /// Waits until all of it is gone.
    fn bury(&self) {
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        while let Ok(status) = waitpid(Pid::from_raw(-1), Some(flags)) {
            match status {
                WaitStatus::Exited(thread, _) | WaitStatus::Signaled(thread, ..) if thread == self.pid => return,
                _ => {}
            }
        }
    }
}
