//! The embedded engine: one SQLite file in WAL mode, shared by all processes of a machine.
//!
//! In flow calls from any task; each runs on one of two threads of the engine's own, one that writes and one that reads,
//! never on a runtime's thread. A third thread, the [`hub`], notices commits of this and of other processes and feeds all
//! watches. A write is one `BEGIN IMMEDIATE` transaction with `synchronous=FULL`: it is on the disk when the call returns,
//! and a killed writer leaves the state before or after it, nothing between.

mod hub;
mod place;
mod read;
mod schema;
mod stream;
mod worker;
mod write;

use crate::{Engine, Error, Filter, Key, Mark, Page, Preconditions, RawEvent, Revision, Scope};
use async_trait::async_trait;
use futures::stream::BoxStream;
use hub::Hub;
use rusqlite::Connection;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use twill_crds::{Kind, validate};
use worker::Worker;

/// What can be chosen when a file is opened; the same for all processes on it, or the smallest `history` counts.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Changes kept for watches to go on from; below that, a watch is [`Error::Expired`].
    pub history: u64,
    /// How long a call waits for another process's write before it is [`Error::Unavailable`].
    pub busy: Duration,
    /// Whether other processes' commits are noticed at once, by inotify on the write-ahead log, or else by a look every 10 ms.
    pub inotify: bool,
    /// Upper limit of the file in pages of 4 KiB; beyond it a write is [`Error::Full`].
    pub max_pages: Option<u32>,
    /// Whether a file that is missing is made; else it is [`Error::Open`].
    pub create: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { history: 10_000, busy: Duration::from_secs(10), inotify: true, max_pages: None, create: true }
    }
}

/// An open file.
pub struct Sqlite {
    shared: Arc<Shared>,
}

/// What the engine and its watches hold together; the threads end with the last of them.
struct Shared {
    writer: Worker,
    reader: Worker,
    hub: Arc<Hub>,
    options: Options,
    path: PathBuf,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.hub.stop();
    }
}

impl Sqlite {
    /// Opens the file, or makes it, readable by its owner alone.
    ///
    /// # Errors
    /// [`Error::Open`] if the path, the file or its schema is not ours to use; [`Error::Unavailable`] if it stays locked.
    pub async fn open(path: &Path, options: Options) -> Result<Self, Error> {
        let path: PathBuf = path.to_owned();
        let writer = Worker::spawn("sqlite-write", path.clone(), {
            let path = path.clone();
            move || schema::open_writer(&path, options)
        })
        .await?;
        let reader = Worker::spawn("sqlite-read", path.clone(), {
            let path = path.clone();
            move || schema::open_reader(&path, options.busy)
        })
        .await?;
        let hub = Hub::spawn(path.clone(), options).await?;
        Ok(Self { shared: Arc::new(Shared { writer, reader, hub, options, path }) })
    }

    async fn write<T: Send + 'static>(
        &self,
        job: impl Fn(&mut write::Writing<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let shared = self.shared.clone();
        let run = move |connection: &mut Connection| {
            let done = write::transaction(connection, shared.options, job)?;
            shared.hub.wake();
            hub::touch(&shared.path);
            Ok(done)
        };
        self.shared.writer.run(run).await
    }
}

#[async_trait]
impl Engine for Sqlite {
    async fn get(&self, kind: &Kind, key: &Key) -> Result<Option<Value>, Error> {
        let (kind, key) = (kind.clone(), key.clone());
        self.shared.reader.run(move |connection| read::get(connection, &kind, &key)).await
    }

    async fn list(&self, kind: &Kind, filter: &Filter) -> Result<Page, Error> {
        let (kind, filter) = (kind.clone(), filter.clone());
        self.shared.reader.run(move |connection| read::list(connection, &kind, &filter)).await
    }

    async fn watch(
        &self,
        kind: &Kind,
        filter: &Filter,
        from: Revision,
    ) -> Result<BoxStream<'static, Result<RawEvent, Error>>, Error> {
        Ok(stream::watch(self.shared.clone(), kind, filter.clone(), from))
    }

    async fn create(&self, kind: &Kind, object: Value) -> Result<Value, Error> {
        let (kind, mut object) = (kind.clone(), object);
        validate::admit(&kind, &mut object, None)?;
        self.write(move |writing| writing.create(&kind, &object)).await
    }

    async fn update(&self, kind: &Kind, object: Value) -> Result<Value, Error> {
        let kind = kind.clone();
        self.write(move |writing| writing.update(&kind, &object)).await
    }

    async fn update_status(&self, kind: &Kind, object: Value) -> Result<Value, Error> {
        let kind = kind.clone();
        self.write(move |writing| writing.update_status(&kind, &object)).await
    }

    async fn delete(&self, kind: &Kind, key: &Key, preconditions: &Preconditions) -> Result<(), Error> {
        let (kind, key, preconditions) = (kind.clone(), key.clone(), preconditions.clone());
        self.write(move |writing| writing.delete(&kind, &key, &preconditions)).await
    }

    async fn barrier(&self, scopes: &[Scope]) -> Result<Vec<Mark>, Error> {
        let revision = self.shared.reader.run(read::revision).await?;
        Ok(scopes.iter().map(|scope| Mark { scope: scope.clone(), revision, present: None }).collect())
    }

    async fn identity(&self) -> Result<String, Error> {
        self.shared.reader.run(|connection| place::identity(connection)).await
    }

    async fn kinds(&self) -> Result<Vec<Kind>, Error> {
        self.shared.reader.run(read::kinds).await
    }
}

/// SQLite's error in the words a caller acts on.
fn sqlite_error(error: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode;
    let text = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Error::Full(text),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            Error::Unavailable("another process has kept the file locked".into())
        }
        // The index of the log cannot grow: that, too, is a full disk.
        _ if error.sqlite_error().is_some_and(|e| e.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE) => {
            Error::Full(text)
        }
        _ => Error::Unavailable(text),
    }
}
