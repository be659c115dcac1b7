//! The engine on etcd, 3.4 or later: a document is a key, a revision is etcd's.
//!
//! In flow calls from any task; each is one transaction, or a read and a transaction that compares what was read. Each holds only
//! in the datastore that the handle began with: it compares `PREFIX/.identity` too, as another etcd at the same address, or an
//! empty one, would tell every daemon that all was deleted.

mod address;
mod connection;
mod failure;
mod files;
mod layout;
mod past;
mod place;
mod read;
mod stream;
mod write;

use super::servers::{Server, server_of};
use crate::{Engine, Error, Filter, Key, Mark, Page, Preconditions, RawEvent, Revision, Scope};
use address::Address;
use async_trait::async_trait;
use connection::Connection;
use failure::Failure;
use futures::stream::BoxStream;
use layout::Layout;
use past::Pasts;
use serde_json::Value;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;
use twill_crds::{Kind, validate};

/// How long a call may take; a list has this for each page.
const DEADLINE: Duration = Duration::from_secs(10);

/// The servers that a URL names.
///
/// # Errors
/// [`Error::Open`] if the URL is wrong.
pub(super) fn servers(url: &str) -> Result<Vec<Server>, Error> {
    let wrong = |problem| Error::Open { url: address::shown(url), problem };
    let address = Address::parse(url).map_err(wrong)?;
    let one = |endpoint: &String| endpoint.parse::<http::Uri>().ok().as_ref().and_then(server_of);
    Ok(address.endpoints.iter().filter_map(one).collect())
}

/// A datastore in etcd.
pub struct Etcd {
    shared: Arc<Shared>,
}

/// What the engine and its watches hold together; the connection ends with the last of them.
struct Shared {
    connection: Connection,
    layout: Layout,
    /// Of the datastore that this handle is of, once it is known.
    identity: OnceCell<String>,
    /// What watches have told, by which an etcd that was put back to an older state is known.
    pasts: Pasts,
}

impl Etcd {
    /// The datastore that a URL names:
    /// `etcd:http://HOST:PORT[,HOST:PORT…][/PREFIX][?ca=FILE&cert=FILE&key=FILE&user=NAME&passwordFile=FILE]`. Connects when it is first needed: the servers
    /// may be away.
    ///
    /// # Errors
    /// [`Error::Open`] if the URL is wrong or a file that it names cannot be used.
    pub fn open(url: &str) -> Result<Self, Error> {
        let wrong = |problem| Error::Open { url: address::shown(url), problem };
        let mut address = Address::parse(url).map_err(wrong)?;
        let layout = Layout::new(std::mem::take(&mut address.prefix));
        let connection = Connection::new(address).map_err(wrong)?;
        Ok(Self { shared: Arc::new(Shared { connection, layout, identity: OnceCell::new(), pasts: Pasts::default() }) })
    }

    /// Makes the datastore if there is none under the prefix.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Forbidden`], [`Error::Full`].
    pub async fn make(&self) -> Result<(), Error> {
        within(async {
            let made = self.shared.make().await;
            made.map_err(|failure| self.shared.error(failure, || format!("make {}", self.shared.layout.identity())))
        })
        .await
    }
}

impl Shared {
    /// A failure to read a kind.
    fn unread(&self, failure: Failure, kind: &Kind) -> Error {
        let keys = self.layout.of(kind);
        self.error(failure, || format!("read {} objects (etcd: keys from {})", kind.kind, keys.all()))
    }

    fn error(&self, failure: Failure, what: impl FnOnce() -> String) -> Error {
        failure.error(&self.connection.who(), what)
    }
}

/// A call that etcd does not answer is as good as one that it refuses.
async fn within<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let silent = |_| Error::Unavailable(format!("no answer within {} s", DEADLINE.as_secs()));
    tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|elapsed| Err(silent(elapsed)))
}

#[async_trait]
impl Engine for Etcd {
    async fn get(&self, kind: &Kind, key: &Key) -> Result<Option<Value>, Error> {
        within(self.shared.get(kind, key)).await
    }

    async fn list(&self, kind: &Kind, filter: &Filter) -> Result<Page, Error> {
        self.shared.list(kind, filter).await
    }

    async fn watch(
        &self,
        kind: &Kind,
        filter: &Filter,
        from: Revision,
    ) -> Result<BoxStream<'static, Result<RawEvent, Error>>, Error> {
        Ok(stream::watch(self.shared.clone(), kind.clone(), filter.clone(), from))
    }

    async fn create(&self, kind: &Kind, object: Value) -> Result<Value, Error> {
        let mut object = object;
        validate::admit(kind, &mut object, None)?;
        within(self.shared.create(kind, object)).await
    }

    async fn update(&self, kind: &Kind, object: Value) -> Result<Value, Error> {
        within(self.shared.update(kind, &object)).await
    }

    async fn update_status(&self, kind: &Kind, object: Value) -> Result<Value, Error> {
        within(self.shared.update_status(kind, &object)).await
    }

    async fn delete(&self, kind: &Kind, key: &Key, preconditions: &Preconditions) -> Result<(), Error> {
        within(self.shared.delete(kind, key, preconditions)).await
    }

    async fn barrier(&self, scopes: &[Scope]) -> Result<Vec<Mark>, Error> {
        within(self.shared.barrier(scopes)).await
    }

    async fn identity(&self) -> Result<String, Error> {
        let identity = async { self.shared.identity().await.cloned() };
        let what = || format!("read {}", self.shared.layout.identity());
        within(async { identity.await.map_err(|failure| self.shared.error(failure, what)) }).await
    }

    async fn kinds(&self) -> Result<Vec<Kind>, Error> {
        self.shared.kinds().await
    }
}
