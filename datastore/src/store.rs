//! The typed handle.

use crate::io::reach::Reach;
use crate::{Engine, Error, Filter, Key, Mark, Page, Preconditions, RawEvent, Revision, Scope};
use futures::stream::{BoxStream, StreamExt};
use std::sync::Arc;
use tokio::sync::watch;
use twill_crds::Object;

/// A handle to the datastore; cheap to clone.
#[derive(Clone)]
pub struct Datastore {
    engine: Arc<dyn Engine>,
    reach: Arc<Reach>,
}

/// Objects that existed together at one revision.
#[derive(Clone, Debug)]
pub struct List<K> {
    /// The objects, ordered by key; malformed ones are left out and logged.
    pub items: Vec<K>,
    /// The revision to watch from.
    pub revision: Revision,
}

/// One step of history.
#[derive(Clone, Debug)]
pub enum WatchEvent<K> {
    /// Created, changed, or came into the filter.
    Applied(K, Revision),
    /// Deleted, or left the filter; its last state.
    Deleted(K, Revision),
    /// All events up to here have been told.
    Bookmark(Revision),
}

/// A watch of one kind.
pub type WatchStream<K> = BoxStream<'static, Result<WatchEvent<K>, Error>>;

impl Datastore {
    /// A handle on an engine.
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine, reach: Arc::default() }
    }

    /// The untyped engine, for objects whose kind is known only at run time.
    #[must_use]
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// Why somebody who follows objects by this handle or a clone of it does not hear the datastore; none while all do. A server whose
    /// watches live counts as heard, whether or not it could answer a question.
    #[must_use]
    pub fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.reach.trouble()
    }

    /// For a follower.
    pub(crate) fn reach(&self) -> &Arc<Reach> {
        &self.reach
    }

    /// The object, or none.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Malformed`].
    pub async fn get<K: Object>(&self, key: &Key) -> Result<Option<K>, Error> {
        self.engine.get(&K::kind(), key).await?.map(decode).transpose()
    }

    /// All objects within the filter. Of a kind that a cluster may be without there are none where the engine does not know it; the
    /// revision is 0 then, from which a watch begins as soon as the kind is there.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn list<K: Object>(&self, filter: &Filter) -> Result<List<K>, Error> {
        typed_or_none(self.engine.list(&K::kind(), filter).await)
    }

    /// The same of which only what followers read is certain to be there; never to be written back.
    pub(crate) async fn list_trimmed<K: Object>(&self, filter: &Filter) -> Result<List<K>, Error> {
        typed_or_none(self.engine.list_trimmed(&K::kind(), filter).await)
    }

    /// What happens after `from`. See [`Engine::watch`]. An object that cannot be read is left out; if it is deleted, the
    /// stream ends with [`Error::Malformed`], as nothing of the type can be told: list again.
    ///
    /// # Errors
    /// [`Error::Expired`], [`Error::Unavailable`].
    pub async fn watch<K: Object>(&self, filter: &Filter, from: Revision) -> Result<WatchStream<K>, Error> {
        Ok(events(self.engine.watch(&K::kind(), filter, from).await?))
    }

    /// The same of objects as [`Datastore::list_trimmed`] gives them.
    pub(crate) async fn watch_trimmed<K: Object>(
        &self,
        filter: &Filter,
        from: Revision,
    ) -> Result<WatchStream<K>, Error> {
        Ok(events(self.engine.watch_trimmed(&K::kind(), filter, from).await?))
    }

    /// Creates it.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::Invalid`], [`Error::Unavailable`], [`Error::Full`].
    pub async fn create<K: Object>(&self, object: &K) -> Result<K, Error> {
        decode(self.engine.create(&K::kind(), encode(object)?).await?)
    }

    /// Replaces all but the status, by compare-and-swap on the revision that `object` carries.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Conflict`], [`Error::Invalid`], [`Error::Unavailable`], [`Error::Full`].
    pub async fn update<K: Object>(&self, object: &K) -> Result<K, Error> {
        decode(self.engine.update(&K::kind(), encode(object)?).await?)
    }

    /// Replaces the status, by compare-and-swap on the revision that `object` carries.
    ///
    /// # Errors
    /// As [`Datastore::update`].
    pub async fn update_status<K: Object>(&self, object: &K) -> Result<K, Error> {
        decode(self.engine.update_status(&K::kind(), encode(object)?).await?)
    }

    /// Deletes it if the preconditions hold.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Conflict`], [`Error::Unavailable`].
    pub async fn delete<K: Object>(&self, key: &Key, preconditions: &Preconditions) -> Result<(), Error> {
        self.engine.delete(&K::kind(), key, preconditions).await
    }

    /// What must have been heard of each scope to know every change until now; [`crate::Told`] says whether it was.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn barrier(&self, scopes: &[Scope]) -> Result<Vec<Mark>, Error> {
        self.engine.barrier(scopes).await
    }

    /// Differs between two datastores, and is the same for copies of one.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn identity(&self) -> Result<String, Error> {
        self.engine.identity().await
    }
}

/// Of a kind that a cluster may be without there are no objects where the engine does not know it.
fn typed_or_none<K: Object>(page: Result<Page, Error>) -> Result<List<K>, Error> {
    match page {
        Ok(Page { items, revision }) => {
            Ok(List { items: items.into_iter().filter_map(decode_or_log).collect(), revision })
        }
        Err(Error::UnknownKind(_)) if K::kind().is_optional() => Ok(List { items: Vec::new(), revision: Revision(0) }),
        Err(error) => Err(error),
    }
}

fn events<K: Object>(raw: BoxStream<'static, Result<RawEvent, Error>>) -> WatchStream<K> {
    let typed = raw.map(|event| match event? {
        // One that cannot be read is told as far as its revision goes, or whoever waits for that waits for ever.
        RawEvent::Applied(value, revision) => Ok(match decode_or_log(value) {
            Some(object) => WatchEvent::Applied(object, revision),
            None => WatchEvent::Bookmark(revision),
        }),
        RawEvent::Deleted(value, revision) => decode(value).map(|object| WatchEvent::Deleted(object, revision)),
        RawEvent::Bookmark(revision) => Ok(WatchEvent::Bookmark(revision)),
    });
    typed.boxed()
}

fn encode<K: Object>(object: &K) -> Result<serde_json::Value, Error> {
    serde_json::to_value(object)
        .map_err(|e| Error::Malformed { what: format!("{} {}", K::kind().kind, object.name()), problem: e.to_string() })
}

fn decode<K: Object>(value: serde_json::Value) -> Result<K, Error> {
    let name = value.pointer("/metadata/name").and_then(|n| n.as_str()).unwrap_or_default().to_owned();
    serde_json::from_value(value)
        .map_err(|e| Error::Malformed { what: format!("{} {name}", K::kind().kind), problem: e.to_string() })
}

fn decode_or_log<K: Object>(value: serde_json::Value) -> Option<K> {
    decode(value).inspect_err(|error| tracing::warn!(%error, "stored object left out")).ok()
}
