//! The thread that notices commits, of this process and of others, and keeps the last changes for all watches.
//!
//! In flow two signals: an eventfd that our own writer rings after each commit, and inotify on the write-ahead log, whose
//! time every writer touches after each commit ([`touch`]); SQLite's own writes do not wake it. `PRAGMA data_version` tells
//! whether there is something new. Out flow the changes, read once per process, in a ring. Idle, the thread looks four
//! times a second, in case a writer was killed between commit and touch, or was not ours.

use super::place::Place;
use super::{Options, read, schema, worker};
use crate::{Error, Revision};
use nix::fcntl::AT_FDCWD;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use read::Change;
use rusqlite::Connection;
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// Changes kept in memory; a watch that is further behind reads the file.
const RING: usize = 512;
/// Pause between two looks when nothing happens and inotify would tell.
const IDLE: Duration = Duration::from_millis(250);
/// Pause between two looks without inotify.
const BLIND: Duration = Duration::from_millis(10);

/// What the thread shares with the watches.
pub(super) struct Hub {
    ring: Mutex<Ring>,
    latest: watch::Sender<Latest>,
    bell: EventFd,
    stopped: AtomicBool,
}

/// How far changes can be had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Latest {
    /// Grows when the file's history is another than before: a copy was put in its place. Earlier watches end.
    pub(super) history: u64,
    /// Revision.
    pub(super) revision: u64,
}

/// The last changes of all kinds: every one after `from` up to `latest`.
#[derive(Debug, Default)]
struct Ring {
    changes: VecDeque<Arc<Change>>,
    from: u64,
    latest: u64,
}

impl Hub {
    /// Starts the thread.
    pub(super) async fn spawn(path: PathBuf, options: Options) -> Result<Arc<Self>, Error> {
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|e| Error::Unavailable(format!("no eventfd can be had: {e}")))?;
        let stopped = AtomicBool::new(false);
        let hub = Arc::new(Self { ring: Mutex::default(), latest: watch::Sender::default(), bell, stopped });
        let (opened, result) = oneshot::channel();
        let thread = {
            let hub = hub.clone();
            move || match Watcher::open(hub, &path, options) {
                Ok(mut watcher) => {
                    if opened.send(Ok(())).is_ok() {
                        watcher.run();
                    }
                }
                Err(error) => drop(opened.send(Err(error))),
            }
        };
        worker::start("sqlite-watch", thread)?;
        result.await.unwrap_or_else(|_| Err(Error::Unavailable("its watch thread has ended".into())))?;
        Ok(hub)
    }

    /// Something was committed here.
    pub(super) fn wake(&self) {
        // Full means that the thread has yet to hear an earlier ring: as good.
        let _ = self.bell.write(1);
    }

    /// Ends the thread.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// The revision up to which changes can be had; changes whenever it grows.
    pub(super) fn latest(&self) -> watch::Receiver<Latest> {
        self.latest.subscribe()
    }

    /// The changes after `from` and the revision that they lead to; none if the ring does not reach back so far.
    pub(super) fn changes(&self, from: u64) -> Option<(Vec<Arc<Change>>, Revision)> {
        let ring = self.lock();
        if from < ring.from || from > ring.latest {
            return None;
        }
        let start = ring.changes.partition_point(|change| change.revision <= from);
        Some((ring.changes.range(start..).cloned().collect(), Revision(ring.latest)))
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Watcher {
    hub: Arc<Hub>,
    place: Place,
    path: PathBuf,
    options: Options,
    connection: Connection,
    failing: bool,
    version: i64,
    inotify: Option<Inotify>,
}

impl Watcher {
    fn open(hub: Arc<Hub>, path: &Path, options: Options) -> Result<Self, Error> {
        let mut connection = schema::open_reader(path, options.busy)?;
        let revision = read::revision(&mut connection)?.0;
        *hub.lock() = Ring { changes: VecDeque::new(), from: revision, latest: revision };
        hub.latest.send_replace(Latest { history: 0, revision });
        let inotify = if options.inotify { watch_log(path) } else { None };
        // 0 is never a version: the first look reads what was committed since the line above.
        let place = Place::of(path.to_owned(), &connection)?;
        Ok(Self { hub, place, path: path.to_owned(), options, connection, failing: false, version: 0, inotify })
    }

    fn run(&mut self) {
        while !self.hub.stopped.load(Ordering::Relaxed) {
            let looked = self.look();
            if let Err(error) = &looked {
                if !self.failing {
                    tracing::warn!(%error, "the datastore's changes cannot be read, trying again");
                }
                self.version = 0;
            }
            self.failing = looked.is_err();
            self.wait();
        }
    }

    /// Reads what was committed since the last look.
    fn look(&mut self) -> Result<(), Error> {
        let (path, options) = (&self.path, self.options);
        if self.place.ensure(&mut self.connection, || schema::open_reader(path, options.busy))? {
            self.inotify = if options.inotify { watch_log(path) } else { None };
            self.version = 0;
            let revision = read::revision(&mut self.connection)?.0;
            self.restart(revision);
        }
        let version = self
            .connection
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut pragma| pragma.query_row([], |row| row.get(0)))
            .map_err(super::sqlite_error)?;
        if version == self.version {
            return Ok(());
        }
        self.fetch()?;
        self.version = version;
        Ok(())
    }

    /// The history up to here is another than the one that watches were told.
    fn restart(&mut self, revision: u64) {
        tracing::warn!(path = %self.path.display(), revision, "another file, or an older copy, is in the datastore's place: all is read again");
        *self.hub.lock() = Ring { changes: VecDeque::new(), from: revision, latest: revision };
        self.hub.latest.send_modify(|latest| *latest = Latest { history: latest.history + 1, revision });
    }

    fn fetch(&mut self) -> Result<(), Error> {
        let from = self.hub.lock().latest;
        let found = match read::changes(&mut self.connection, None, from, RING + 1) {
            Ok(found) if found.changes.len() <= RING => Some(found),
            Ok(_) | Err(Error::Expired) => None,
            Err(error) => return Err(error),
        };
        let upto = match &found {
            Some(found) => found.upto,
            None => read::revision(&mut self.connection)?.0,
        };
        if upto < from {
            self.restart(upto);
            return Ok(());
        }
        let mut ring = self.hub.lock();
        match found {
            Some(found) => ring.changes.extend(found.changes.into_iter().map(Arc::new)),
            None => {
                ring.changes.clear();
                ring.from = upto;
            }
        }
        ring.latest = upto;
        while ring.changes.len() > RING {
            let oldest = ring.changes.pop_front();
            ring.from = oldest.map_or(ring.from, |change| change.revision);
        }
        drop(ring);
        self.hub.latest.send_if_modified(|latest| std::mem::replace(&mut latest.revision, upto) != upto);
        Ok(())
    }

    /// Waits for a signal, or until the next look is due.
    fn wait(&self) {
        let mut signals = vec![PollFd::new(self.hub.bell.as_fd(), PollFlags::POLLIN)];
        signals.extend(self.inotify.iter().map(|inotify| PollFd::new(inotify.as_fd(), PollFlags::POLLIN)));
        let pause = if self.inotify.is_some() { IDLE } else { BLIND };
        // Errors are interruptions, or that there is nothing to collect: the loop looks and waits again.
        let _ = poll(&mut signals, PollTimeout::try_from(pause).unwrap_or(PollTimeout::from(10_u8)));
        let _ = self.hub.bell.read();
        if let Some(inotify) = &self.inotify {
            let _ = inotify.read_events();
        }
    }
}

/// Tells the watch threads of all processes that something was committed.
pub(super) fn touch(path: &Path) {
    let now = TimeSpec::UTIME_NOW;
    if let Err(error) = utimensat(AT_FDCWD, &log(path), &now, &now, UtimensatFlags::FollowSymlink) {
        tracing::debug!(%error, "the write-ahead log cannot be touched, others will notice a little later");
    }
}

/// The write-ahead log, which exists while a connection is open.
fn log(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

/// Signals of touches of the write-ahead log. None where they cannot be had (the kernel allows a user 128 of them by
/// default).
fn watch_log(path: &Path) -> Option<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).and_then(|inotify| {
        inotify.add_watch(&log(path), AddWatchFlags::IN_ATTRIB)?;
        Ok(inotify)
    });
    inotify.inspect_err(|error| tracing::debug!(%error, "no inotify on the write-ahead log, looking every 10 ms")).ok()
}
