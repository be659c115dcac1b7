//! A daemon that is to leave: asked on its socket, and waited for until its process has ended, so that nothing of it writes any more.

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, setsockopt, socket, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use twill_crds::control::{BfdRequest, BgpdRequest, FelixRequest};
use twill_crds::names::{BFD_SOCKET, BGPD_SOCKET, FELIX_SOCKET};

/// A daemon that is alive answers at once; Cease to every peer takes a moment.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two looks whether a process has ended.
const PAUSE: Duration = Duration::from_millis(10);

/// A daemon of this node, whether it runs or not.
pub(crate) struct Daemon {
    name: &'static str,
    socket: PathBuf,
    /// Whether it says which node it serves.
    named: bool,
    status: Vec<u8>,
    leave: Vec<u8>,
}

/// What both statuses say.
#[derive(Deserialize)]
struct Serves {
    node: String,
}

impl Daemon {
    /// The node's daemons, in the order in which they leave: peers are to stop sending before pods go.
    /// BFD follows bgpd, which starts it again where it runs without a supervisor.
    pub(crate) fn all(run_dir: &Path) -> anyhow::Result<[Self; 3]> {
        let bfd = Self::new("bfd", run_dir.join(BFD_SOCKET), &BfdRequest::Status, &BfdRequest::Leave)?;
        Ok([
            Self::new("bgpd", run_dir.join(BGPD_SOCKET), &BgpdRequest::Status, &BgpdRequest::Leave)?,
            Self { named: false, ..bfd },
            Self::new("felix", run_dir.join(FELIX_SOCKET), &FelixRequest::Status, &FelixRequest::Leave)?,
        ])
    }

    fn new<Q: Serialize>(name: &'static str, socket: PathBuf, status: &Q, leave: &Q) -> anyhow::Result<Self> {
        let line = |request| serde_json::to_vec(request).map(|mut line| (line.push(b'\n'), line).1);
        Ok(Self { name, socket, named: true, status: line(status)?, leave: line(leave)? })
    }

    /// The node that it serves; none if it does not run.
    pub(crate) fn node(&self) -> anyhow::Result<Option<String>> {
        if !self.named {
            return Ok(None);
        }
        let Some(stream) = self.connect()? else { return Ok(None) };
        let process = Process::behind(&stream);
        let answer = self.ask(stream, &self.status, process)?;
        let Serves { node } = serde_json::from_str(&answer)
            .with_context(|| format!("{} at {} gave no answer of this release", self.name, self.socket.display()))?;
        if node.is_empty() {
            bail!(
                "the {} at {} serves no node, it runs alone from a file; twill uninstall is for nodes of a cluster",
                self.name,
                self.socket.display()
            );
        }
        Ok(Some(node))
    }

    /// Asks it to end and waits until it has. One that does not run is fine.
    pub(crate) fn leave(&self) -> anyhow::Result<()> {
        let Some(stream) = self.connect()? else { return Ok(()) };
        let process = Process::behind(&stream);
        self.ask(stream, &self.leave, process)?;
        let until = Instant::now() + PATIENCE;
        loop {
            let here = self.connect()?.map(|stream| Process::behind(&stream));
            match (process.is_some_and(Process::runs), here) {
                (false, None) => return Ok(()),
                (_, Some(other)) if process.is_some() && other.is_some() && other != process => return self.back(),
                _ => {}
            }
            if Instant::now() >= until {
                bail!(
                    "{} does not end within {} s after it was asked to{}",
                    self.name,
                    PATIENCE.as_secs(),
                    way_out(process)
                );
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// That it does not run.
    ///
    /// # Errors
    /// It does: somebody has started it.
    pub(crate) fn back(&self) -> anyhow::Result<()> {
        let Some(stream) = self.connect()? else { return Ok(()) };
        let pid = Process::behind(&stream).map(|process| format!(" as process {}", process.pid)).unwrap_or_default();
        bail!(
            "{} was started again{pid} while Twill was removed; stop its service first, then run twill uninstall again",
            self.name
        )
    }

    /// None if nobody listens. A connect waits as long as a daemon's queue is full, but not for ever.
    fn connect(&self) -> anyhow::Result<Option<UnixStream>> {
        let failed = || format!("{} at {}", self.name, self.socket.display());
        let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).with_context(failed)?;
        let patience = TimeVal::seconds(PATIENCE.as_secs() as i64);
        setsockopt(&fd, sockopt::SendTimeout, &patience).with_context(failed)?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &patience).with_context(failed)?;
        match connect(fd.as_raw_fd(), &UnixAddr::new(&self.socket).with_context(failed)?) {
            Ok(()) => Ok(Some(UnixStream::from(fd))),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ECONNREFUSED) => Ok(None),
            Err(Errno::EAGAIN) => bail!("{}", self.hangs(None)),
            Err(error) => Err(error).with_context(failed),
        }
    }

    /// Its answer; nothing if it ended the connection instead.
    fn ask(&self, mut stream: UnixStream, request: &[u8], process: Option<Process>) -> anyhow::Result<String> {
        let mut answer = String::new();
        let asked = stream.write_all(request).and_then(|()| BufReader::new(stream).read_line(&mut answer));
        match asked {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => bail!("{}", self.hangs(process)),
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
                Ok(String::new())
            }
            asked => {
                asked.with_context(|| format!("{} at {}", self.name, self.socket.display()))?;
                Ok(answer)
            }
        }
    }

    fn hangs(&self, process: Option<Process>) -> String {
        let at = self.socket.display();
        format!("{} listens at {at} and does not answer within {} s{}", self.name, PATIENCE.as_secs(), way_out(process))
    }
}

fn way_out(process: Option<Process>) -> String {
    match process {
        Some(Process { pid, .. }) => {
            format!("; it is process {pid}: end it with kill -9 {pid}, then run twill uninstall again")
        }
        None => "; end its process, then run twill uninstall again".to_owned(),
    }
}

/// A process that cannot be mistaken for another that got its number later.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: i32,
    /// In clock ticks since boot (`/proc/PID/stat`, field 22).
    start_time: u64,
}

impl Process {
    /// The one that listens at the other end; none if it lives where we cannot see it.
    fn behind(stream: &UnixStream) -> Option<Self> {
        let pid = getsockopt(stream, sockopt::PeerCredentials).ok()?.pid();
        Some(Self { pid, start_time: alive(pid)? })
    }

    fn runs(self) -> bool {
        alive(self.pid) == Some(self.start_time)
    }
}

/// Start time of a process that is neither gone nor a zombie.
fn alive(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let mut fields = stat.get(stat.rfind(')')? + 2..)?.split(' ');
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") { None } else { fields.nth(18)?.parse().ok() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn one(directory: &Path) -> (Daemon, UnixListener) {
        let [_, _, felix] = Daemon::all(directory).unwrap();
        (felix, UnixListener::bind(directory.join(FELIX_SOCKET)).unwrap())
    }

    fn answering(listener: UnixListener, answer: &'static str) {
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut String::new()).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
    }

    #[test]
    fn a_daemon_that_does_not_run_has_left_already() {
        let directory = tempfile::tempdir().unwrap();
        let (felix, listener) = one(directory.path());
        drop(listener);
        assert!(directory.path().join(FELIX_SOCKET).exists(), "a killed daemon leaves its socket");
        assert_eq!(felix.node().unwrap(), None);
        felix.leave().unwrap();
        felix.back().unwrap();
    }

    #[test]
    fn a_daemon_says_which_node_it_serves_and_a_lone_one_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (felix, listener) = one(directory.path());
        answering(listener, "{\"node\":\"n1\",\"inSync\":false}\n");
        assert_eq!(felix.node().unwrap().as_deref(), Some("n1"));
        let directory = tempfile::tempdir().unwrap();
        let (felix, listener) = one(directory.path());
        answering(listener, "{\"node\":\"\"}\n");
        assert!(felix.node().unwrap_err().to_string().contains("runs alone from a file"));
    }

    #[test]
    fn one_that_listens_is_back_and_named_by_its_process() {
        let directory = tempfile::tempdir().unwrap();
        let (felix, _listener) = one(directory.path());
        let error = felix.back().unwrap_err().to_string();
        assert!(error.contains(&format!("as process {}", std::process::id())), "{error}");
        assert!(error.contains("stop its service first"), "{error}");
    }
}
