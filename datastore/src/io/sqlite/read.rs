//! What is read, each in one transaction and so at one revision.

use super::sqlite_error;
use crate::document::kind_id;
use crate::{Error, Filter, Key, Page, Revision};
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;
use std::borrow::Cow;
use twill_crds::Kind;

/// A row of the log; its documents are read when a watch of the kind comes to it.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) revision: u64,
    pub(super) kind: String,
    pub(super) deleted: bool,
    pub(super) json: String,
    pub(super) old: Option<String>,
}

/// A part of the log: all that there is of it after the revision asked for and up to `upto`.
#[derive(Debug)]
pub(super) struct Changes {
    pub(super) changes: Vec<Change>,
    pub(super) upto: u64,
}

pub(super) fn get(connection: &mut Connection, kind: &Kind, key: &Key) -> Result<Option<Value>, Error> {
    let json = document(connection, kind, key).map_err(sqlite_error)?;
    let malformed = |e: serde_json::Error| Error::Malformed { what: Error::what(kind, key), problem: e.to_string() };
    json.map(|json| serde_json::from_str(&json).map_err(malformed)).transpose()
}

/// The stored text of an object.
pub(super) fn document(connection: &Connection, kind: &Kind, key: &Key) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("SELECT json FROM objects WHERE kind = ? AND namespace = ? AND name = ?")?
        .query_row(params![kind_id(kind), key.namespace, key.name], |row| row.get(0))
        .optional()
}

pub(super) fn list(connection: &mut Connection, kind: &Kind, filter: &Filter) -> Result<Page, Error> {
    let transaction = connection.transaction().map_err(sqlite_error)?;
    let mut items = documents(&transaction, kind, filter.namespace.as_deref()).map_err(sqlite_error)?;
    items.retain(|item| filter.matches(item));
    let (revision, _) = state(&transaction).map_err(sqlite_error)?;
    Ok(Page { items, revision: Revision(revision) })
}

/// All documents of a kind, ordered by key; one that is no JSON is left out and logged.
pub(super) fn documents(connection: &Connection, kind: &Kind, namespace: Option<&str>) -> rusqlite::Result<Vec<Value>> {
    let mut select = connection.prepare_cached(
        "SELECT json FROM objects WHERE kind = ?1 AND (?2 IS NULL OR namespace = ?2) ORDER BY namespace, name",
    )?;
    let rows = select.query_map(params![kind_id(kind), namespace], |row| row.get::<_, String>(0))?;
    let mut documents = Vec::new();
    for json in rows {
        documents.extend(parse(&kind.kind, &json?));
    }
    Ok(documents)
}

/// A stored document; none, and a line in the log, if it is no JSON.
pub(super) fn parse(kind: &str, json: &str) -> Option<Value> {
    serde_json::from_str(json)
        .inspect_err(|error| tracing::warn!(kind, %error, "stored object is no JSON, left out"))
        .ok()
}

pub(super) fn revision(connection: &mut Connection) -> Result<Revision, Error> {
    Ok(Revision(state(connection).map_err(sqlite_error)?.0))
}

/// The revision of the last change, and the greatest that is pruned.
pub(super) fn state(connection: &Connection) -> rusqlite::Result<(u64, u64)> {
    connection.prepare_cached("SELECT revision, floor FROM state")?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
}

pub(super) fn kinds(connection: &mut Connection) -> Result<Vec<Kind>, Error> {
    let read = |connection: &Connection| -> rusqlite::Result<Vec<Kind>> {
        let mut select = connection.prepare_cached(
            "SELECT grp, version, kind, plural, namespaced FROM kinds
             WHERE EXISTS (SELECT 1 FROM objects WHERE objects.kind = kinds.id) ORDER BY id",
        )?;
        let rows = select.query_map([], |row| {
            let text = |column| row.get::<_, String>(column).map(Cow::Owned);
            let (group, version, kind, plural) = (text(0)?, text(1)?, text(2)?, text(3)?);
            Ok(Kind { group, version, kind, plural, namespaced: row.get(4)? })
        })?;
        rows.collect()
    };
    read(connection).map_err(sqlite_error)
}

/// The log of one kind (all kinds: none) after `from`, at most `limit` changes.
pub(super) fn changes(
    connection: &mut Connection,
    kind: Option<&str>,
    from: u64,
    limit: usize,
) -> Result<Changes, Error> {
    let transaction = connection.transaction().map_err(sqlite_error)?;
    let (revision, floor) = state(&transaction).map_err(sqlite_error)?;
    // Later than the last change: another file than the one that the revision is of.
    if from < floor || from > revision {
        return Err(Error::Expired);
    }
    let changes = rows(&transaction, kind, from, limit).map_err(sqlite_error)?;
    let upto = if changes.len() < limit { revision } else { changes.last().map_or(revision, |last| last.revision) };
    Ok(Changes { changes, upto })
}

fn rows(connection: &Connection, kind: Option<&str>, from: u64, limit: usize) -> rusqlite::Result<Vec<Change>> {
    let mut select = connection.prepare_cached(if kind.is_some() {
        "SELECT revision, kind, deleted, json, old FROM changes WHERE kind = ?1 AND revision > ?2 ORDER BY revision LIMIT ?3"
    } else {
        "SELECT revision, kind, deleted, json, old FROM changes WHERE ?1 IS NULL AND revision > ?2 ORDER BY revision LIMIT ?3"
    })?;
    let rows = select.query_map(params![kind, from, limit], |row| {
        Ok(Change {
            revision: row.get(0)?,
            kind: row.get(1)?,
            deleted: row.get(2)?,
            json: row.get(3)?,
            old: row.get(4)?,
        })
    })?;
    rows.collect()
}
