//! What is written, each call in one transaction: the object, its line in the log, the revision.

use super::{Options, read, sqlite_error};
use crate::document::{self, Outcome, Stamp, key_of, kind_id, unreadable};
use crate::io::now;
use crate::{Error, Key, Preconditions, Revision};
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior, params};
use serde_json::Value;
use std::time::{Duration, Instant};
use twill_crds::{IPPool, Kind, Object, validate};

/// The log is pruned once per so many revisions, not with every write.
const PRUNE_EVERY: u64 = 64;

/// A transaction that holds the file's write lock.
pub(super) struct Writing<'c> {
    transaction: Transaction<'c>,
    revision: u64,
    history: u64,
}

/// Runs a job in one transaction: all of it is durable when this returns, or none of it happened. A full file gives up its
/// history first, so that what is full can still be emptied.
pub(super) fn transaction<T>(
    connection: &Connection,
    options: Options,
    job: impl Fn(&mut Writing<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    match attempt(connection, options, &job) {
        Err(Error::Full(full)) => match forget_history(connection, options) {
            Ok(0) | Err(_) => Err(Error::Full(full)),
            Ok(_) => attempt(connection, options, &job),
        },
        done => done,
    }
}

fn attempt<T>(
    connection: &Connection,
    options: Options,
    job: impl Fn(&mut Writing<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let transaction = begin(connection, options.busy).map_err(sqlite_error)?;
    let (revision, _) = read::state(&transaction).map_err(sqlite_error)?;
    let mut writing = Writing { transaction, revision, history: options.history };
    let done = job(&mut writing)?;
    if writing.revision > revision {
        writing.finish(revision).map_err(sqlite_error)?;
        writing.transaction.commit().map_err(sqlite_error)?;
    }
    Ok(done)
}

/// Takes the write lock. SQLite's own waiting pauses up to 100 ms between two tries, and so starves whoever has bad luck while
/// others write without pause (measured with eight such: 745 ms); this one tries every millisecond or so.
fn begin(connection: &Connection, limit: Duration) -> rusqlite::Result<Transaction<'_>> {
    let start = Instant::now();
    loop {
        match Transaction::new_unchecked(connection, TransactionBehavior::Immediate) {
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && start.elapsed() < limit => {
                // The fraction differs between processes, so that they do not try in step.
                let jitter = start.elapsed().subsec_nanos() % 1_000;
                std::thread::sleep(Duration::from_micros(500 + u64::from(jitter)));
            }
            done => return done,
        }
    }
}

/// Prunes all of the log; watches that have not heard it are expired. Says how many changes it forgot.
fn forget_history(connection: &Connection, options: Options) -> rusqlite::Result<usize> {
    // What the write-ahead log takes beside the file comes first; without it there may be no room for the pruning itself.
    let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    let transaction = begin(connection, options.busy)?;
    let forgotten = transaction.execute("DELETE FROM changes", [])?;
    transaction.execute("UPDATE state SET floor = revision", [])?;
    transaction.commit()?;
    tracing::warn!(forgotten, "no space left, history of changes pruned");
    Ok(forgotten)
}

impl Writing<'_> {
    /// Stores a new object; `object` is admitted.
    pub(super) fn create(&mut self, kind: &Kind, object: &Value) -> Result<Value, Error> {
        let key = key_of(object);
        if self.stored(kind, &key)?.is_some() {
            return Err(Error::AlreadyExists(Error::what(kind, &key)));
        }
        self.check_others(kind, object)?;
        let stamp = Stamp { uid: uuid::Uuid::new_v4().to_string(), now: now(), revision: self.next() };
        let object = document::created(kind, object.clone(), &stamp);
        self.store(kind, &key, &object, None).map_err(sqlite_error)?;
        Ok(object)
    }

    /// Replaces all but the status.
    pub(super) fn update(&mut self, kind: &Kind, object: &Value) -> Result<Value, Error> {
        let (key, current) = self.current(kind, object)?;
        let mut object = object.clone();
        validate::admit(kind, &mut object, Some(&current))?;
        self.check_others(kind, &object)?;
        let outcome = document::updated(kind, &current, object, Revision(self.revision + 1));
        self.settle(kind, &key, &current, outcome)
    }

    /// Replaces the status alone.
    pub(super) fn update_status(&mut self, kind: &Kind, object: &Value) -> Result<Value, Error> {
        let (key, current) = self.current(kind, object)?;
        let outcome = document::status_updated(&current, object, Revision(self.revision + 1));
        self.settle(kind, &key, &current, outcome)
    }

    /// Removes the object, or marks it while it has finalizers.
    pub(super) fn delete(&mut self, kind: &Kind, key: &Key, preconditions: &Preconditions) -> Result<(), Error> {
        let what = Error::what(kind, key);
        let Some(current) = self.stored(kind, key)? else { return Err(Error::NotFound(what)) };
        document::check_preconditions(&what, &current, preconditions)?;
        let outcome = document::deleted(&current, &now(), Revision(self.revision + 1));
        self.settle(kind, key, &current, outcome).map(drop)
    }

    /// The stored object that the sent one is meant to replace.
    fn current(&self, kind: &Kind, sent: &Value) -> Result<(Key, Value), Error> {
        let key = key_of(sent);
        let what = Error::what(kind, &key);
        let Some(current) = self.stored(kind, &key)? else { return Err(Error::NotFound(what)) };
        document::check_current(&what, &current, sent)?;
        Ok((key, current))
    }

    /// A stored object that is no JSON any more can still be replaced and deleted.
    fn stored(&self, kind: &Kind, key: &Key) -> Result<Option<Value>, Error> {
        let json = read::document(&self.transaction, kind, key).map_err(sqlite_error)?;
        Ok(json.map(|json| serde_json::from_str(&json).unwrap_or_else(|_| unreadable(key))))
    }

    /// Rules between objects of one kind, which only an engine with one writer at a time can hold.
    fn check_others(&self, kind: &Kind, object: &Value) -> Result<(), Error> {
        if *kind != IPPool::kind() {
            return Ok(());
        }
        let pools = read::documents(&self.transaction, kind, None).map_err(sqlite_error)?;
        let pools: Vec<IPPool> = pools.into_iter().filter_map(|pool| serde_json::from_value(pool).ok()).collect();
        let malformed = |e: serde_json::Error| Error::Malformed { what: "IPPool".into(), problem: e.to_string() };
        Ok(validate::pools(&pools, &serde_json::from_value(object.clone()).map_err(malformed)?)?)
    }

    fn settle(&mut self, kind: &Kind, key: &Key, current: &Value, outcome: Outcome) -> Result<Value, Error> {
        match outcome {
            Outcome::Unchanged(object) => Ok(object),
            Outcome::Changed(object) => {
                self.next();
                self.store(kind, key, &object, Some(current)).map_err(sqlite_error)?;
                Ok(object)
            }
            Outcome::Removed(last) => {
                self.next();
                self.remove(kind, key, &last).map_err(sqlite_error)?;
                Ok(last)
            }
        }
    }

    fn next(&mut self) -> Revision {
        self.revision += 1;
        Revision(self.revision)
    }

    fn store(&self, kind: &Kind, key: &Key, object: &Value, old: Option<&Value>) -> rusqlite::Result<()> {
        let (id, json) = (kind_id(kind), object.to_string());
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
        if old.is_some() {
            let sql =
                "UPDATE objects SET uid = ?, revision = ?, json = ? WHERE kind = ? AND namespace = ? AND name = ?";
            let values = params![uid, self.revision, json, id, key.namespace, key.name];
            self.transaction.prepare_cached(sql)?.execute(values)?;
        } else {
            let sql =
                "INSERT OR IGNORE INTO kinds (id, grp, version, kind, plural, namespaced) VALUES (?, ?, ?, ?, ?, ?)";
            let values = params![id, kind.group, kind.version, kind.kind, kind.plural, kind.namespaced];
            self.transaction.prepare_cached(sql)?.execute(values)?;
            let sql = "INSERT INTO objects (kind, namespace, name, uid, revision, json) VALUES (?, ?, ?, ?, ?, ?)";
            let values = params![id, key.namespace, key.name, uid, self.revision, json];
            self.transaction.prepare_cached(sql)?.execute(values)?;
        }
        self.log(&id, false, &json, old)
    }

    fn remove(&self, kind: &Kind, key: &Key, last: &Value) -> rusqlite::Result<()> {
        let id = kind_id(kind);
        let sql = "DELETE FROM objects WHERE kind = ? AND namespace = ? AND name = ?";
        self.transaction.prepare_cached(sql)?.execute(params![id, key.namespace, key.name])?;
        self.log(&id, true, &last.to_string(), None)
    }

    fn log(&self, id: &str, deleted: bool, json: &str, old: Option<&Value>) -> rusqlite::Result<()> {
        let sql = "INSERT INTO changes (revision, kind, deleted, json, old) VALUES (?, ?, ?, ?, ?)";
        let values = params![self.revision, id, deleted, json, old.map(Value::to_string)];
        self.transaction.prepare_cached(sql)?.execute(values).map(drop)
    }

    /// Writes the revision, and prunes the log now and then.
    fn finish(&self, before: u64) -> rusqlite::Result<()> {
        self.transaction.prepare_cached("UPDATE state SET revision = ?")?.execute([self.revision])?;
        if before / PRUNE_EVERY != self.revision / PRUNE_EVERY && self.revision > self.history {
            let floor = self.revision - self.history;
            self.transaction.prepare_cached("DELETE FROM changes WHERE revision <= ?")?.execute([floor])?;
            self.transaction.prepare_cached("UPDATE state SET floor = max(floor, ?)")?.execute([floor])?;
        }
        Ok(())
    }
}
