//! Whether the file that a connection has open is still the one at its path.
//!
//! Someone may put a copy in its place while daemons run. SQLite goes on with the file that it has open, which nobody else
//! sees any more: what is written there is lost, what others write is never heard.

use super::sqlite_error;
use crate::Error;
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A path, the file that was there, and the datastore that was in it.
pub(super) struct Place {
    path: PathBuf,
    file: Option<(u64, u64)>,
    datastore: String,
}

impl Place {
    /// What is at the path now, which `connection` has open.
    pub(super) fn of(path: PathBuf, connection: &Connection) -> Result<Self, Error> {
        Ok(Self { file: file(&path), datastore: identity(connection)?, path })
    }

    /// Opens anew if another file is there; says whether it did. Only a copy of the same datastore is taken. A file that is
    /// gone is an error and not made again, and one that another process made meanwhile is an error too: to every daemon an
    /// empty datastore would mean that everything was deleted.
    pub(super) fn ensure(
        &mut self,
        connection: &mut Connection,
        open: impl Fn() -> Result<Connection, Error>,
    ) -> Result<bool, Error> {
        let path = self.path.display();
        let Some(now) = file(&self.path) else {
            return Err(Error::Unavailable(format!("{path} is gone; put it, or a copy of it, back there")));
        };
        if self.file == Some(now) {
            return Ok(false);
        }
        let fresh = open()?;
        if identity(&fresh)? != self.datastore {
            return Err(Error::Unavailable(format!(
                "{path} is another datastore than the one that was there; put that one, or a copy of it, back, or start \
                 this process again to go on with the new one"
            )));
        }
        // Closing the old one must not take away the new one's write-ahead log, which has the same name.
        let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        *connection = fresh;
        self.file = Some(now);
        Ok(true)
    }
}

fn file(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// Which datastore a connection has open.
pub(super) fn identity(connection: &Connection) -> Result<String, Error> {
    connection.query_row("SELECT identity FROM state", [], |row| row.get(0)).map_err(sqlite_error)
}
