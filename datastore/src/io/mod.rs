//! The engines, and what reads a clock or waits.

pub mod etcd;
pub mod follow;
pub mod kubernetes;
mod late;
pub(crate) mod reach;
pub mod servers;
pub mod sqlite;
mod unreachable;

use crate::{Datastore, Error};
use std::sync::Arc;

/// The forms of a datastore's URL.
const FORMS: &str = "write sqlite:/path/to/file.db, etcd:http://HOST:2379, kubernetes: (this pod's service account, or $KUBECONFIG) or \
                     kubernetes:/path/to/kubeconfig?context=NAME";

impl Datastore {
    /// Opens the datastore that a URL names, or makes it where that is a file or etcd's: `sqlite:/path/to/file.db`,
    /// `etcd:http://HOST:PORT` (more of it in [`etcd`]), `kubernetes:` (this pod's service account, or else `$KUBECONFIG` or
    /// `~/.kube/config`) or `kubernetes:/path/to/kubeconfig?context=NAME`. For those who set up a cluster.
    ///
    /// # Errors
    /// [`Error::Open`]; where there are servers, [`Error::Unavailable`] and [`Error::Forbidden`].
    pub async fn open(url: &str) -> Result<Self, Error> {
        Self::open_with(url, sqlite::Options::default(), COMMAND).await
    }

    /// Opens a datastore that is there. For daemons: one that they made themselves would tell them that all was deleted. A server
    /// need not answer yet; while etcd has no datastore, calls are [`Error::Unavailable`].
    ///
    /// # Errors
    /// [`Error::Open`], also if there is no such file.
    pub async fn open_existing(url: &str) -> Result<Self, Error> {
        Self::open_existing_as(url, COMMAND).await
    }

    /// The same, for a component that a server is to know by its name, e.g. `felix`.
    ///
    /// # Errors
    /// As [`Datastore::open_existing`].
    pub async fn open_existing_as(url: &str, component: &str) -> Result<Self, Error> {
        Self::open_with(url, sqlite::Options { create: false, ..sqlite::Options::default() }, component).await
    }

    /// The same for a daemon that has something to go on with: a datastore that cannot be opened yet is tried again and again, and
    /// until then every call is [`Error::Unavailable`] with the reason.
    pub async fn open_patiently(url: &str, component: &'static str) -> Self {
        let error = match tokio::time::timeout(late::PATIENCE, Self::open_existing_as(url, component)).await {
            Ok(Ok(store)) => return store,
            Ok(Err(error)) => error,
            Err(_) => Error::Unavailable(format!("{url} does not answer")),
        };
        Self::new(late::Late::start(url.to_owned(), component, error))
    }

    async fn open_with(url: &str, options: sqlite::Options, component: &str) -> Result<Self, Error> {
        let wrong = |problem: String| Error::Open { url: url.to_owned(), problem };
        match url.split_once(':') {
            Some(("sqlite", path)) if !path.trim_start_matches('/').is_empty() => {
                // `sqlite:///path` is the same file as `sqlite:/path`.
                let path = path.strip_prefix("//").unwrap_or(path);
                let engine = sqlite::Sqlite::open(path.as_ref(), options).await?;
                Ok(Self::new(Arc::new(engine)))
            }
            Some(("sqlite", _)) => Err(wrong("names no file; write sqlite:/path/to/file.db".into())),
            Some(("etcd", _)) => {
                let engine = etcd::Etcd::open(url)?;
                if options.create {
                    engine.make().await?;
                }
                Ok(Self::new(Arc::new(engine)))
            }
            Some(("kubernetes", _)) => Ok(Self::new(Arc::new(kubernetes::Kubernetes::open(url, component).await?))),
            _ => Err(wrong(format!("is no datastore that this release knows; {FORMS}"))),
        }
    }
}

/// What a server knows those by who give no other name.
const COMMAND: &str = "cli";

/// RFC 3339, whole seconds, as an API server writes times.
fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
