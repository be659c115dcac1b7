//! The engines, and what reads a clock or waits.

pub mod follow;
mod late;
pub mod sqlite;

use crate::{Datastore, Error};
use std::sync::Arc;

impl Datastore {
    /// Opens the datastore that a URL names, or makes it: `sqlite:/path/to/file.db`. For those who set up a cluster.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub async fn open(url: &str) -> Result<Self, Error> {
        Self::open_with(url, sqlite::Options::default()).await
    }

    /// Opens a datastore that is there. For daemons: one that they made themselves would tell them that all was deleted.
    ///
    /// # Errors
    /// [`Error::Open`], also if there is none.
    pub async fn open_existing(url: &str) -> Result<Self, Error> {
        Self::open_with(url, sqlite::Options { create: false, ..sqlite::Options::default() }).await
    }

    /// The same for a daemon that has something to go on with: a datastore that cannot be opened yet is tried again and again, and
    /// until then every call is [`Error::Unavailable`] with the reason.
    pub async fn open_patiently(url: &str) -> Self {
        let error = match tokio::time::timeout(late::PATIENCE, Self::open_existing(url)).await {
            Ok(Ok(store)) => return store,
            Ok(Err(error)) => error,
            Err(_) => Error::Unavailable(format!("{url} does not answer")),
        };
        Self::new(late::Late::start(url.to_owned(), error))
    }

    async fn open_with(url: &str, options: sqlite::Options) -> Result<Self, Error> {
        let wrong = |problem: &str| Error::Open { url: url.to_owned(), problem: problem.to_owned() };
        match url.split_once(':') {
            Some(("sqlite", path)) if !path.trim_start_matches('/').is_empty() => {
                // `sqlite:///path` is the same file as `sqlite:/path`.
                let path = path.strip_prefix("//").unwrap_or(path);
                let engine = sqlite::Sqlite::open(path.as_ref(), options).await?;
                Ok(Self::new(Arc::new(engine)))
            }
            Some(("sqlite", _)) => Err(wrong("names no file; write sqlite:/path/to/file.db")),
            _ => Err(wrong("is no datastore that this release knows; write sqlite:/path/to/file.db")),
        }
    }
}
