//! Network namespaces without names: each belongs to a thread and goes with it, however the test ends.

use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;

type Job = Box<dyn FnOnce() + Send>;

/// A namespace, and the thread that lives in it.
pub(crate) struct Namespace {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// What `ip link set … netns` takes.
    pub(crate) path: String,
}

impl Namespace {
    pub(crate) fn new() -> Namespace {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (tell, path) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a namespace needs root");
            tell.send(format!("/proc/{}/task/{}/ns/net", std::process::id(), nix::unistd::gettid())).unwrap();
            sh("ip link set lo up");
            inbox.into_iter().for_each(|job| job());
        });
        Namespace { jobs: Some(jobs), thread: Some(thread), path: path.recv().expect("the namespace's thread") }
    }

    /// Starts `f` in the namespace; the receiver gets its result. One job at a time.
    pub(crate) fn start<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> mpsc::Receiver<T> {
        let (done, result) = mpsc::channel();
        let job: Job = Box::new(move || drop(done.send(f())));
        self.jobs.as_ref().unwrap().send(job).expect("the namespace's thread");
        result
    }

    /// Runs `f` in the namespace.
    pub(crate) fn run<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> T {
        self.start(f).recv().expect("the job ended")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // The panic of a job is the test's, and was seen by whoever waited for its result.
            drop(thread.join());
        }
    }
}

/// Runs a command line in the calling thread's namespace; it must succeed.
pub(crate) fn sh(line: &str) -> String {
    let (ok, out) = try_sh(line);
    assert!(ok, "{line}: {out}");
    out
}

/// Runs a command line in the calling thread's namespace: whether it succeeded, and what it said.
pub(crate) fn try_sh(line: &str) -> (bool, String) {
    let out = Command::new("sh").args(["-c", line]).stdin(Stdio::null()).output().unwrap();
    (out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr))
}

/// Gives nft a script in the calling thread's namespace.
pub(crate) fn nft(script: &str) {
    use std::io::Write;
    let mut child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{script}");
}
