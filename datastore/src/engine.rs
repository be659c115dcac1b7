//! The interface that an engine implements: JSON documents by kind and key, revisions, one stream of changes.

use crate::Error;
use async_trait::async_trait;
use futures::stream::BoxStream;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;
use std::fmt;
use twill_crds::Kind;

pub use crate::fresh::{Mark, Scope};

/// A point in the datastore's history. Only an engine makes one; a greater one is later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// Name of an object inside its kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Empty for kinds without namespaces.
    pub namespace: String,
    /// Never empty.
    pub name: String,
}

impl Key {
    /// Key of an object without namespace.
    pub fn cluster(name: impl Into<String>) -> Self {
        Self { namespace: String::new(), name: name.into() }
    }
    /// Key of an object in a namespace.
    pub fn namespaced(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// Which objects of a kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Only this namespace.
    pub namespace: Option<String>,
    /// Only objects whose labels match.
    pub labels: Option<LabelSelector>,
    /// Only objects with these values at these paths, e.g. `("spec.nodeName", "n1")`.
    pub fields: Vec<(String, String)>,
}

/// What must still hold for a delete.
#[derive(Clone, Debug, Default)]
pub struct Preconditions {
    /// The object's UID.
    pub uid: Option<String>,
    /// The object's revision.
    pub revision: Option<Revision>,
}

/// Documents that existed together at one revision.
#[derive(Clone, Debug)]
pub struct Page {
    /// The documents, ordered by key.
    pub items: Vec<Value>,
    /// The revision to watch from.
    pub revision: Revision,
}

/// One step of history, as an engine tells it.
#[derive(Clone, Debug)]
pub enum RawEvent {
    /// The object was created or changed, or came into the filter.
    Applied(Value, Revision),
    /// The object was deleted, or left the filter; its last state.
    Deleted(Value, Revision),
    /// All events up to here have been told.
    Bookmark(Revision),
}

/// An engine. Documents carry `metadata.uid`, `resourceVersion`, `generation` and `creationTimestamp` as an API server would
/// set them. Every call returns after the change is durable.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// The object, or none.
    async fn get(&self, kind: &Kind, key: &Key) -> Result<Option<Value>, Error>;
    /// All objects of a kind within the filter, at one revision.
    async fn list(&self, kind: &Kind, filter: &Filter) -> Result<Page, Error>;
    /// What happens after `from`, in order and without a gap, a [`RawEvent::Bookmark`] at least after each batch. The stream
    /// ends with one error: [`Error::Expired`], or [`Error::Unavailable`] after which the caller watches again from the last
    /// revision that it heard.
    async fn watch(
        &self,
        kind: &Kind,
        filter: &Filter,
        from: Revision,
    ) -> Result<BoxStream<'static, Result<RawEvent, Error>>, Error>;
    /// As [`Engine::list`], for who reads and never writes back what was read: an engine may leave out of the documents what nobody
    /// reads who follows.
    async fn list_trimmed(&self, kind: &Kind, filter: &Filter) -> Result<Page, Error> {
        self.list(kind, filter).await
    }
    /// As [`Engine::watch`], with documents as [`Engine::list_trimmed`] gives them.
    async fn watch_trimmed(
        &self,
        kind: &Kind,
        filter: &Filter,
        from: Revision,
    ) -> Result<BoxStream<'static, Result<RawEvent, Error>>, Error> {
        self.watch(kind, filter, from).await
    }
    /// Creates it; [`Error::AlreadyExists`] if the name is taken.
    async fn create(&self, kind: &Kind, object: Value) -> Result<Value, Error>;
    /// Replaces all but the status if `metadata.resourceVersion` is still that of the object (absent: whatever it is).
    async fn update(&self, kind: &Kind, object: Value) -> Result<Value, Error>;
    /// Replaces the status alone, by the same rule.
    async fn update_status(&self, kind: &Kind, object: Value) -> Result<Value, Error>;
    /// Deletes it if the preconditions hold.
    async fn delete(&self, kind: &Kind, key: &Key, preconditions: &Preconditions) -> Result<(), Error>;
    /// The same for a Pod whose containers have ended, as its kubelet does it: where [`Engine::delete`] gives a Pod on a node the
    /// time that it asks for to end them, this removes it at once.
    async fn delete_ended(&self, kind: &Kind, key: &Key, preconditions: &Preconditions) -> Result<(), Error> {
        self.delete(kind, key, preconditions).await
    }
    /// What a watch of each of these must have told to know every change that was durable when the call was made, in their
    /// order. One read of the whole where the engine has a revision of the whole, else one coalesced consistent read for each.
    async fn barrier(&self, scopes: &[Scope]) -> Result<Vec<Mark>, Error>;
    /// Differs between two datastores, whatever is in them, and is the same for copies of one.
    async fn identity(&self) -> Result<String, Error>;
    /// All kinds that have an object, for `twill get` and the lab.
    async fn kinds(&self) -> Result<Vec<Kind>, Error>;
    /// Whether Events stay until somebody deletes them; an API server forgets them by itself.
    fn keeps_events(&self) -> bool {
        true
    }
}
