//! Whether the file that a connection has open is still the one at its path.
//!
//! Someone may put a copy in its place while daemons run. SQLite goes on with the file that it has open, which nobody else
//! sees any more: what is written there is lost, what others write is never heard.

use crate::Error;
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A path, and the file that was there.
pub(super) struct Place {
    path: PathBuf,
    file: Option<(u64, u64)>,
}

impl Place {
    /// The file that is at the path now.
    pub(super) fn of(path: PathBuf) -> Self {
        let file = identity(&path);
        Self { path, file }
    }

    /// Opens anew if another file is there; says whether it did. A file that is gone is an error and not made again: to
    /// every daemon an empty datastore would mean that everything was deleted.
    pub(super) fn ensure(
        &mut self,
        connection: &mut Connection,
        open: impl Fn() -> Result<Connection, Error>,
    ) -> Result<bool, Error> {
        let Some(now) = identity(&self.path) else {
            return Err(Error::Unavailable(format!(
                "{} is gone; put it, or a copy of it, back there",
                self.path.display()
            )));
        };
        if self.file == Some(now) {
            return Ok(false);
        }
        let fresh = open()?;
        // Closing the old one must not take away the new one's write-ahead log, which has the same name.
        let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        *connection = fresh;
        self.file = Some(now);
        Ok(true)
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}
