//! Other network namespaces. A thread of its own enters one and ends there: no thread of felix ever changes its namespace.

use nix::sched::{CloneFlags, setns};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// A network namespace, held open so that it cannot be replaced under its path.
#[derive(Debug)]
pub struct Netns(File);

impl Netns {
    /// Opens the namespace at a path. Whatever else lies there, a pipe without a writer for one, is opened without waiting: the
    /// caller may be the thread that everything else waits for.
    ///
    /// # Errors
    /// `NotFound` if the path does not exist.
    pub fn open(path: &Path) -> io::Result<Self> {
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).map(Self)
    }

    /// Whether it is the calling thread's own.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn is_own(&self) -> io::Result<bool> {
        let own = File::open("/proc/thread-self/ns/net")?.metadata()?;
        let other = self.0.metadata()?;
        Ok((own.dev(), own.ino()) == (other.dev(), other.ino()))
    }

    /// Whether it is a network namespace at all.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn is_namespace(&self) -> io::Result<bool> {
        use nix::sys::statfs::{FsType, fstatfs};
        if fstatfs(&self.0).map_err(io::Error::from)?.filesystem_type() != FsType(libc::NSFS_MAGIC as _) {
            return Ok(false);
        }
        // A file of nsfs can be a namespace of another type; entering it says so.
        match self.run(|| ()) {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// The open file, for messages that name a namespace.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.0
    }

    /// Runs `work` inside.
    ///
    /// # Errors
    /// `InvalidInput` if the file is no network namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET)?;
                Ok(work())
            });
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the work inside the network namespace panicked")))
        })
    }
}
