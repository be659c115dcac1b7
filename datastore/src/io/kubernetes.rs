//! The engine of a Kubernetes cluster: its API server.
//!
//! In flow calls from any task, out flow requests of its REST API with JSON documents. All of a handle share one HTTP/2 connection,
//! whose life is asked for when it is silent; a call fails within ten seconds. What an API server does for objects (metadata,
//! validation, status, compare-and-swap) is its own; nothing of it is done again here.

mod access;
mod address;
mod barrier;
mod call;
mod document;
mod list;
mod path;
mod protobuf;
mod representation;
mod selection;
mod status;
mod trimmed;
mod watch;
mod write;

use super::servers::{Server, server_of};
use crate::{Engine, Error, Filter, Key, Mark, Page, Preconditions, RawEvent, Revision, Scope};
use access::Access;
use address::Address;
use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use representation::Extent;
use rustc_hash::{FxHashMap, FxHashSet};
use selection::Selection;
use serde_json::Value;
use status::Status;
use std::sync::{Arc, Mutex, PoisonError};
use twill_crds::{Kind, known};
use write::Part;

/// The API server that a URL leads to.
///
/// # Errors
/// [`Error::Open`] if the URL, the kubeconfig or a file that it names is wrong.
pub(super) async fn server(url: &str) -> Result<Server, Error> {
    let wrong = |problem: String| Error::Open { url: url.to_owned(), problem };
    let address = Address::parse(url.strip_prefix("kubernetes:").unwrap_or(url)).map_err(wrong)?;
    let loaded = address.load().await.map_err(wrong)?;
    server_of(&loaded.config.cluster_url).ok_or_else(|| wrong(format!("server {} names no host", loaded.server())))
}

/// An API server.
pub struct Kubernetes {
    shared: Arc<Shared>,
}

/// What the engine and its watches hold together.
struct Shared {
    access: Access,
    queue: barrier::Queue,
    /// Fields that the server does not select by.
    refused: Mutex<FxHashSet<(Kind, String)>>,
    /// Of kinds that are not Kubernetes' own: whether their status is a subresource.
    apart: Mutex<FxHashMap<Kind, bool>>,
    /// Up to where watches have told each kind.
    told: Mutex<FxHashMap<Kind, Revision>>,
    /// Kinds that the server does not give as protobuf, or not so that we can read it.
    json_only: Mutex<FxHashSet<Kind>>,
}

impl Kubernetes {
    /// Reads who we are and where the server is: `kubernetes:` is this pod's service account or else `$KUBECONFIG` or
    /// `~/.kube/config`, `kubernetes:/path/to/kubeconfig?context=NAME` that file. The server is told that `twill-component` asks; it
    /// need not be there.
    ///
    /// # Errors
    /// [`Error::Open`] if the URL, the kubeconfig or a file that it names is wrong.
    pub async fn open(url: &str, component: &str) -> Result<Self, Error> {
        let wrong = |problem: String| Error::Open { url: url.to_owned(), problem };
        let address = Address::parse(url.strip_prefix("kubernetes:").unwrap_or(url)).map_err(wrong)?;
        let access = Access::open(url, address, component).await?;
        let (queue, refused, apart, told, json_only) = Default::default();
        Ok(Self { shared: Arc::new(Shared { access, queue, refused, apart, told, json_only }) })
    }
}

impl Shared {
    /// Watches have told a kind up to here.
    fn tell(&self, kind: &Kind, at: Revision) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let up_to = told.entry(kind.clone()).or_default();
        *up_to = at.max(*up_to);
    }

    fn told(&self, kind: &Kind) -> Revision {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).get(kind).copied().unwrap_or_default()
    }

    /// What is listed replaces what was told.
    fn listed_at(&self, kind: &Kind, at: Revision) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(kind.clone(), at);
    }

    fn selection(&self, kind: &Kind, filter: &Filter) -> Selection {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        Selection::of(kind, filter, |field| refused.contains(&(kind.clone(), field.to_owned())))
    }

    /// Whether this says that the server does not select by a field of the filter, which we did not know.
    fn learns(&self, kind: &Kind, filter: &Filter, status: &Status) -> bool {
        let Some(field) = status.refused_field() else { return false };
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        filter.fields.iter().any(|(named, _)| named == field) && refused.insert((kind.clone(), field.to_owned()))
    }
}

#[async_trait]
impl Engine for Kubernetes {
    async fn get(&self, kind: &Kind, key: &Key) -> Result<Option<Value>, Error> {
        self.shared.get(kind, key).await
    }

    async fn list(&self, kind: &Kind, filter: &Filter) -> Result<Page, Error> {
        self.shared.list(kind, filter, Extent::Whole).await
    }

    async fn watch(
        &self,
        kind: &Kind,
        filter: &Filter,
        from: Revision,
    ) -> Result<BoxStream<'static, Result<RawEvent, Error>>, Error> {
        Ok(watch::watch(self.shared.clone(), kind, filter, Extent::Whole, from))
    }

    async fn list_trimmed(&self, kind: &Kind, filter: &Filter) -> Result<Page, Error> {
        self.shared.list(kind, filter, Extent::Trimmed).await
    }

    async fn watch_trimmed(
        &self,
        kind: &Kind,
        filter: &Filter,
        from: Revision,
    ) -> Result<BoxStream<'static, Result<RawEvent, Error>>, Error> {
        Ok(watch::watch(self.shared.clone(), kind, filter, Extent::Trimmed, from))
    }

    async fn create(&self, kind: &Kind, object: Value) -> Result<Value, Error> {
        self.shared.create(kind, object).await
    }

    async fn update(&self, kind: &Kind, object: Value) -> Result<Value, Error> {
        self.shared.update(kind, object, Part::Main).await
    }

    async fn update_status(&self, kind: &Kind, object: Value) -> Result<Value, Error> {
        self.shared.update(kind, object, Part::Status).await
    }

    async fn delete(&self, kind: &Kind, key: &Key, preconditions: &Preconditions) -> Result<(), Error> {
        self.shared.delete(kind, key, preconditions, None).await
    }

    async fn delete_ended(&self, kind: &Kind, key: &Key, preconditions: &Preconditions) -> Result<(), Error> {
        self.shared.delete(kind, key, preconditions, Some(0)).await
    }

    async fn barrier(&self, scopes: &[Scope]) -> Result<Vec<Mark>, Error> {
        futures::future::try_join_all(scopes.iter().map(|scope| barrier::mark(&self.shared, scope))).await
    }

    async fn identity(&self) -> Result<String, Error> {
        self.shared.identity().await
    }

    /// Of those that this release knows by name; without those that the server does not, or that we may not list.
    async fn kinds(&self) -> Result<Vec<Kind>, Error> {
        let shared = &self.shared;
        let asked = futures::stream::iter(known::all()).map(|kind| async move {
            match shared.has_one(&kind).await {
                Ok(has) => Ok(has.then_some(kind)),
                Err(Error::UnknownKind(_) | Error::Forbidden { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        });
        asked.buffered(8).try_filter_map(|kind| async move { Ok(kind) }).try_collect().await
    }

    fn keeps_events(&self) -> bool {
        false
    }
}
