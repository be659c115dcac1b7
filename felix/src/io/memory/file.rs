//! The file: SQLite with a write-ahead log and `synchronous=NORMAL`. A killed felix loses what it has not written yet, a power cut
//! what the kernel had not; either leaves the state after some transaction. The sum of all lines' digests, kept in the same transaction,
//! shows a file that anything else has damaged.
//!
//! A file that cannot follow what is heard must not be taken for what was heard last, so it lies under another name until it can.

use crate::memory::{Changes, KINDS, Remembered, digest};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use std::collections::HashMap;
use std::fs::{self, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use twill_datastore::Key;

/// Name of the file inside the state directory.
pub const NAME: &str = "felix.db";

/// Raised with every change of the tables or of the lines; a file of another release's is as good as none.
const SCHEMA: i64 = 4;
const TABLES: &str = "
    CREATE TABLE line (kind INTEGER NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, line TEXT NOT NULL,
        digest INTEGER NOT NULL, PRIMARY KEY (kind, namespace, name)) STRICT, WITHOUT ROWID;
    CREATE TABLE state (only INTEGER PRIMARY KEY CHECK (only = 1), identity TEXT NOT NULL, lines INTEGER NOT NULL,
        sum INTEGER NOT NULL) STRICT;
    PRAGMA user_version = 4;
";
/// Larger logs are cut after a checkpoint.
const LOG: i64 = 4 << 20;

/// The files of a memory in a state directory, whether they are there or not.
#[must_use]
pub fn files(state_dir: &Path) -> Vec<PathBuf> {
    let path = state_dir.join(NAME);
    let mut files = vec![path.clone(), outdated(&path)];
    files.extend(companions(&path));
    files
}

/// Where a file that cannot follow is meanwhile.
fn outdated(path: &Path) -> PathBuf {
    path.with_extension("outdated")
}

fn companions(path: &Path) -> [PathBuf; 2] {
    ["-wal", "-shm"].map(|suffix| PathBuf::from(format!("{}{suffix}", path.display())))
}

/// What the lines of a file add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    lines: i64,
    digests: i64,
}

impl Sum {
    fn add(&mut self, digest: i64) {
        *self = Self { lines: self.lines + 1, digests: self.digests.wrapping_add(digest) };
    }

    fn take(&mut self, digest: i64) {
        *self = Self { lines: self.lines - 1, digests: self.digests.wrapping_sub(digest) };
    }
}

/// An open file, or why there is none.
pub(super) struct File {
    path: PathBuf,
    open: Option<(Connection, Sum)>,
    outdated: bool,
}

impl File {
    /// Opens the file, and reads it if an earlier felix completed it. What cannot be read is removed.
    pub(super) fn open(path: &Path) -> (Self, Option<Remembered>) {
        let begun = std::time::Instant::now();
        let mut file = Self { path: path.to_owned(), open: None, outdated: false };
        if !path.exists() {
            return (file, None);
        }
        match file.read() {
            Ok(Some(remembered)) => {
                tracing::info!(pods = remembered.pods.len(), policies = remembered.policies.len(), took = ?begun.elapsed(),
                    "what an earlier felix heard was read");
                (file, Some(remembered))
            }
            Ok(None) => (file, None),
            Err(problem) => {
                tracing::warn!(path = %path.display(), %problem,
                    "what an earlier felix heard cannot be read and counts as absent; begun anew");
                file.open = None;
                (file, None)
            }
        }
    }

    fn read(&mut self) -> Result<Option<Remembered>, String> {
        let connection = connect(&self.path).map_err(text)?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(text)?;
        if version != SCHEMA {
            return Err(format!("it is of schema {version}, this release writes {SCHEMA}"));
        }
        let state = connection.query_row("SELECT identity, lines, sum FROM state", [], |row| {
            Ok((row.get::<_, String>(0)?, Sum { lines: row.get(1)?, digests: row.get(2)? }))
        });
        let Some((identity, kept)) = state.optional().map_err(text)? else {
            return Ok(None);
        };
        let mut remembered = Remembered { identity, ..Remembered::default() };
        let sum = lines(&connection, &mut remembered)?;
        if sum != kept {
            return Err(format!(
                "it holds {} lines that do not add up to the {} that were written",
                sum.lines, kept.lines
            ));
        }
        self.open = Some((connection, sum));
        Ok(Some(remembered))
    }

    /// Writes what changed. After a failure the file lies under another name until a write succeeds.
    ///
    /// # Errors
    /// One sentence.
    pub(super) fn write(&mut self, identity: &str, changes: &[Changes; KINDS]) -> Result<(), String> {
        let outcome = self.try_write(identity, changes);
        let at = self.path.display();
        if let Err(problem) = outcome {
            if self.open.is_some() && !self.outdated {
                self.outdated = fs::rename(&self.path, outdated(&self.path)).is_ok();
            }
            return Err(format!(
                "{at} cannot be written ({problem}): after a restart while the datastore is away, felix would know nothing; make \
                 room, or make it writable"
            ));
        }
        if self.outdated {
            fs::rename(outdated(&self.path), &self.path)
                .map_err(|error| format!("{at} cannot be put in place: {error}"))?;
            self.outdated = false;
        }
        Ok(())
    }

    fn try_write(&mut self, identity: &str, changes: &[Changes; KINDS]) -> Result<(), String> {
        let (connection, sum) = match &mut self.open {
            Some((connection, sum)) => (connection, sum),
            none => {
                let connection = begin(&self.path)?;
                let (connection, sum) = none.insert((connection, Sum::default()));
                (connection, sum)
            }
        };
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(text)?;
        let mut next = *sum;
        for (kind, changes) in changes.iter().enumerate().filter(|(_, changes)| !changes.is_empty()) {
            write_kind(&transaction, kind, changes, &mut next).map_err(text)?;
        }
        let state =
            "INSERT INTO state VALUES (1, ?1, ?2, ?3) ON CONFLICT DO UPDATE SET identity = ?1, lines = ?2, sum = ?3
            WHERE (identity, lines, sum) <> (?1, ?2, ?3)";
        transaction.execute(state, params![identity, next.lines, next.digests]).map_err(text)?;
        transaction.commit().map_err(text)?;
        *sum = next;
        Ok(())
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(3))?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "journal_size_limit", LOG)?;
    Ok(connection)
}

/// An empty file, readable by its owner alone, in the place of whatever is there.
fn begin(path: &Path) -> Result<Connection, String> {
    for old in std::iter::once(path.to_owned()).chain([outdated(path)]).chain(companions(path)) {
        match fs::remove_file(&old) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.to_string()),
            _ => {}
        }
    }
    let made = OpenOptions::new().create_new(true).append(true).mode(0o600).open(path);
    made.and_then(|file| file.set_permissions(Permissions::from_mode(0o600))).map_err(|error| error.to_string())?;
    let connection = connect(path).map_err(text)?;
    connection.execute_batch(TABLES).map_err(text)?;
    Ok(connection)
}

fn lines(connection: &Connection, remembered: &mut Remembered) -> Result<Sum, String> {
    let mut sum = Sum::default();
    let mut select = connection.prepare("SELECT kind, namespace, name, line FROM line").map_err(text)?;
    let mut rows = select.query([]).map_err(text)?;
    while let Some(row) = rows.next().map_err(text)? {
        let kind: usize = row.get(0).map_err(text)?;
        let key = Key::namespaced(row.get::<_, String>(1).map_err(text)?, row.get::<_, String>(2).map_err(text)?);
        let line = row.get_ref(3).map_err(text)?.as_str().map_err(|error| error.to_string())?;
        sum.add(digest(kind, &key, line).cast_signed());
        remembered.read(kind, key, line)?;
    }
    Ok(sum)
}

/// Writes only lines that are others: after a list of everything that is usually none.
fn write_kind(transaction: &Transaction<'_>, kind: usize, changes: &Changes, sum: &mut Sum) -> rusqlite::Result<()> {
    let mut find =
        transaction.prepare_cached("SELECT digest FROM line WHERE (kind, namespace, name) = (?1, ?2, ?3)")?;
    let mut put = transaction.prepare_cached("INSERT OR REPLACE INTO line VALUES (?1, ?2, ?3, ?4, ?5)")?;
    let mut delete = transaction.prepare_cached("DELETE FROM line WHERE (kind, namespace, name) = (?1, ?2, ?3)")?;
    let mut old: HashMap<Key, i64> = if changes.whole { all(transaction, kind)? } else { HashMap::new() };
    for (key, line) in &changes.lines {
        let (namespace, name) = (&key.namespace, &key.name);
        let before = if changes.whole {
            old.remove(key)
        } else {
            find.query_row(params![kind, namespace, name], |row| row.get(0)).optional()?
        };
        let after = line.as_ref().map(|line| digest(kind, key, line).cast_signed());
        if before == after {
            continue;
        }
        before.into_iter().for_each(|digest| sum.take(digest));
        match (line, after) {
            (Some(line), Some(digest)) => {
                sum.add(digest);
                put.execute(params![kind, namespace, name, line, digest])?;
            }
            _ => drop(delete.execute(params![kind, namespace, name])?),
        }
    }
    for (key, digest) in old {
        sum.take(digest);
        delete.execute(params![kind, key.namespace, key.name])?;
    }
    Ok(())
}

fn all(transaction: &Transaction<'_>, kind: usize) -> rusqlite::Result<HashMap<Key, i64>> {
    let mut select = transaction.prepare_cached("SELECT namespace, name, digest FROM line WHERE kind = ?1")?;
    let rows = select.query_map([kind], |row| {
        Ok((Key::namespaced(row.get::<_, String>(0)?, row.get::<_, String>(1)?), row.get(2)?))
    })?;
    rows.collect()
}

fn text(error: rusqlite::Error) -> String {
    error.to_string()
}
