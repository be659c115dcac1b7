//! The file: how it is opened, and its tables.

use super::{Options, sqlite_error};
use crate::Error;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// `PRAGMA application_id` of our files: `twil`.
const APPLICATION: i64 = 0x7477_696c;
/// `PRAGMA user_version`: raised when the tables change.
const SCHEMA: i64 = 1;

const TABLES: &str = "
    -- One row: the revision of the last change, the greatest that is pruned, and what only copies of this file share.
    CREATE TABLE state (
        id INTEGER PRIMARY KEY CHECK (id = 1), revision INTEGER NOT NULL, floor INTEGER NOT NULL, identity TEXT NOT NULL
    );
    INSERT INTO state VALUES (1, 0, 0, lower(hex(randomblob(16))));
    CREATE TABLE kinds (
        id TEXT PRIMARY KEY, grp TEXT NOT NULL, version TEXT NOT NULL, kind TEXT NOT NULL, plural TEXT NOT NULL,
        namespaced INTEGER NOT NULL
    );
    CREATE TABLE objects (
        kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, uid TEXT NOT NULL, revision INTEGER NOT NULL,
        json TEXT NOT NULL
    );
    CREATE UNIQUE INDEX objects_by_key ON objects (kind, namespace, name);
    -- Every change in order. `json` is the state after, or the last one of what was deleted;
    -- `old` the state before a change, so that a filter can tell what left it.
    CREATE TABLE changes (
        revision INTEGER PRIMARY KEY, kind TEXT NOT NULL, deleted INTEGER NOT NULL, json TEXT NOT NULL, old TEXT
    );
    CREATE INDEX changes_by_kind ON changes (kind, revision);
";

/// The connection that writes; makes the file and its tables if there are none.
pub(super) fn open_writer(path: &Path, options: Options) -> Result<Connection, Error> {
    if options.create {
        make_file(path)?;
    } else if !path.exists() {
        let problem = "does not exist; check the path, make it with: twill apply, or name another datastore: --datastore kubernetes:".to_owned();
        return Err(open_error(path, problem));
    }
    let mut connection = connect(path, options.busy)?;
    let opened = retry_while_busy(options.busy, || prepare(&mut connection));
    opened.map_err(|e| opening(path, &e))?.map_err(|problem| open_error(path, problem))?;
    // From here on waiting for the write lock is `write`'s.
    connection.busy_timeout(Duration::ZERO).map_err(sqlite_error)?;
    if let Some(pages) = options.max_pages {
        connection.execute_batch(&format!("PRAGMA max_page_count = {pages}")).map_err(sqlite_error)?;
    }
    Ok(connection)
}

/// A connection that only reads.
pub(super) fn open_reader(path: &Path, busy: Duration) -> Result<Connection, Error> {
    let connection = connect(path, busy)?;
    connection.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -512;").map_err(sqlite_error)?;
    Ok(connection)
}

fn connect(path: &Path, busy: Duration) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|e| opening(path, &e))?;
    connection.busy_timeout(busy).map_err(sqlite_error)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// SQLite would make the file by the umask; ours holds passwords and is its owner's alone.
fn make_file(path: &Path) -> Result<(), Error> {
    match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Err(open_error(path, format!("the directory {} does not exist; create it first", parent.display())))
        }
        Err(e) => Err(open_error(path, format!("cannot be created: {e}; choose a path that this user may write"))),
    }
}

/// WAL, durable commits, our tables. The outer error is SQLite's, the inner one is what is wrong with the file.
fn prepare(connection: &mut Connection) -> Result<Result<(), String>, rusqlite::Error> {
    let pragma = |c: &Connection, name: &str| c.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
    let (application, schema) = (pragma(connection, "application_id")?, pragma(connection, "user_version")?);
    if application == APPLICATION && schema > SCHEMA {
        return Ok(Err(format!(
            "was written by a newer release (schema {schema}, this one knows {SCHEMA}); upgrade twill, or choose another file"
        )));
    }
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Ok(Err(format!(
            "its file system allows no write-ahead log (journal mode {mode}); choose a path on a local file system"
        )));
    }
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA cache_size = -2048;")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if pragma(&transaction, "user_version")? == 0 {
        let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if tables > 0 {
            return Ok(Err("is a database of another program; choose another file".into()));
        }
        transaction.execute_batch(TABLES)?;
        transaction
            .execute_batch(&format!("PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {SCHEMA};"))?;
    } else if pragma(&transaction, "application_id")? != APPLICATION {
        return Ok(Err("is a database of another program; choose another file".into()));
    }
    transaction.commit()?;
    Ok(Ok(()))
}

/// SQLite answers busy at once, whatever the timeout, while another process switches to WAL or recovers the log.
fn retry_while_busy<T>(
    limit: Duration,
    mut call: impl FnMut() -> Result<T, rusqlite::Error>,
) -> Result<T, rusqlite::Error> {
    let start = Instant::now();
    loop {
        match call() {
            Err(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) && start.elapsed() < limit => {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

fn opening(path: &Path, error: &rusqlite::Error) -> Error {
    use rusqlite::ErrorCode;
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            Error::Unavailable(format!("{} is locked by another process", path.display()))
        }
        Some(ErrorCode::DiskFull) => Error::Full(format!("{}: {error}", path.display())),
        Some(ErrorCode::NotADatabase) => open_error(path, "is no SQLite database; choose another file".into()),
        Some(ErrorCode::DatabaseCorrupt) => {
            open_error(path, "is damaged; restore it from a copy, or remove it and apply the objects again".into())
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => open_error(
            path,
            format!(
                "cannot be opened for writing: {error}; check that it is a file and that this user may write it and its directory"
            ),
        ),
        _ => open_error(path, format!("cannot be opened: {error}")),
    }
}

fn open_error(path: &Path, problem: String) -> Error {
    Error::Open { url: format!("sqlite:{}", path.display()), problem }
}
