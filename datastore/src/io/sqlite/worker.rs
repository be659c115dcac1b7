//! A thread with a connection, and jobs for it.

use super::place::Place;
use crate::Error;
use rusqlite::Connection;
use std::path::PathBuf;
use std::sync::mpsc;
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce(Result<&mut Connection, Error>) + Send>;

/// Hands jobs to a thread that owns a connection; the thread ends with it.
pub(super) struct Worker {
    jobs: mpsc::Sender<Job>,
}

impl Worker {
    /// Starts the thread and opens its connection there; again whenever another file is in the place of the one that is open.
    pub(super) async fn spawn(
        name: &str,
        path: PathBuf,
        open: impl Fn() -> Result<Connection, Error> + Send + 'static,
    ) -> Result<Self, Error> {
        let (jobs, received) = mpsc::channel::<Job>();
        let (opened, result) = oneshot::channel();
        let run = move || match open().and_then(|connection| Ok((Place::of(path, &connection)?, connection))) {
            Ok((mut place, mut connection)) => {
                if opened.send(Ok(())).is_ok() {
                    received
                        .into_iter()
                        .for_each(|job| job(place.ensure(&mut connection, &open).map(|_| &mut connection)));
                }
            }
            Err(error) => drop(opened.send(Err(error))),
        };
        start(name, run)?;
        result.await.unwrap_or_else(|_| Err(gone()))?;
        Ok(Self { jobs })
    }

    /// Runs a job on the thread. Once begun it runs to its end, whether the caller still waits or not.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (done, result) = oneshot::channel();
        let job: Job = Box::new(move |connection| drop(done.send(connection.and_then(job))));
        self.jobs.send(job).map_err(|_| gone())?;
        result.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// Starts a named thread.
pub(super) fn start(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let thread = std::thread::Builder::new().name(name.into());
    thread.spawn(run).map(drop).map_err(|e| Error::Unavailable(format!("no thread can be started: {e}")))
}

fn gone() -> Error {
    Error::Unavailable("its thread has ended".into())
}
