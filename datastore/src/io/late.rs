//! A datastore that could not be opened when its daemon started.
//!
//! In flow calls, out flows one answer, that it is away and why, until it could be opened; then everything goes to the engine.

use crate::{Datastore, Engine, Error, Filter, Key, Mark, Page, Preconditions, RawEvent, Revision, Scope};
use async_trait::async_trait;
use futures::stream::BoxStream;
use serde_json::Value;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;
use twill_crds::Kind;

/// How long a daemon that has something else to do waits for the first attempt.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// Pause between two attempts.
const AGAIN: Duration = Duration::from_secs(1);

/// An engine that may not be there yet.
pub(super) struct Late {
    engine: OnceLock<Arc<dyn Engine>>,
    problem: RwLock<String>,
}

impl Late {
    /// Goes on trying as long as somebody holds it.
    pub(super) fn start(url: String, component: &'static str, error: Error) -> Arc<Self> {
        tracing::warn!(%error, "the datastore cannot be opened; trying again");
        let late = Arc::new(Self { engine: OnceLock::new(), problem: RwLock::new(error.to_string()) });
        tokio::spawn(open(url, component, Arc::downgrade(&late)));
        late
    }

    fn engine(&self) -> Result<&Arc<dyn Engine>, Error> {
        self.engine
            .get()
            .ok_or_else(|| Error::Unavailable(self.problem.read().unwrap_or_else(PoisonError::into_inner).clone()))
    }
}

async fn open(url: String, component: &'static str, late: Weak<Late>) {
    loop {
        tokio::time::sleep(AGAIN).await;
        if late.strong_count() == 0 {
            return;
        }
        let outcome = Datastore::open_existing_as(&url, component).await;
        let Some(late) = late.upgrade() else { return };
        match outcome {
            Ok(store) => {
                tracing::info!("the datastore is open");
                let _ = late.engine.set(store.engine().clone());
                return;
            }
            Err(error) => {
                tracing::debug!(%error, "the datastore cannot be opened; trying again");
                *late.problem.write().unwrap_or_else(PoisonError::into_inner) = error.to_string();
            }
        }
    }
}

#[async_trait]
impl Engine for Late {
    async fn get(&self, kind: &Kind, key: &Key) -> Result<Option<Value>, Error> {
        self.engine()?.get(kind, key).await
    }

    async fn list(&self, kind: &Kind, filter: &Filter) -> Result<Page, Error> {
        self.engine()?.list(kind, filter).await
    }

    async fn watch(
        &self,
        kind: &Kind,
        filter: &Filter,
        from: Revision,
    ) -> Result<BoxStream<'static, Result<RawEvent, Error>>, Error> {
        self.engine()?.watch(kind, filter, from).await
    }

    async fn list_trimmed(&self, kind: &Kind, filter: &Filter) -> Result<Page, Error> {
        self.engine()?.list_trimmed(kind, filter).await
    }

    async fn watch_trimmed(
        &self,
        kind: &Kind,
        filter: &Filter,
        from: Revision,
    ) -> Result<BoxStream<'static, Result<RawEvent, Error>>, Error> {
        self.engine()?.watch_trimmed(kind, filter, from).await
    }

    async fn create(&self, kind: &Kind, object: Value) -> Result<Value, Error> {
        self.engine()?.create(kind, object).await
    }

    async fn update(&self, kind: &Kind, object: Value) -> Result<Value, Error> {
        self.engine()?.update(kind, object).await
    }

    async fn update_status(&self, kind: &Kind, object: Value) -> Result<Value, Error> {
        self.engine()?.update_status(kind, object).await
    }

    async fn delete(&self, kind: &Kind, key: &Key, preconditions: &Preconditions) -> Result<(), Error> {
        self.engine()?.delete(kind, key, preconditions).await
    }

    async fn delete_ended(&self, kind: &Kind, key: &Key, preconditions: &Preconditions) -> Result<(), Error> {
        self.engine()?.delete_ended(kind, key, preconditions).await
    }

    async fn barrier(&self, scopes: &[Scope]) -> Result<Vec<Mark>, Error> {
        self.engine()?.barrier(scopes).await
    }

    fn keeps_events(&self) -> bool {
        self.engine.get().is_none_or(|engine| engine.keeps_events())
    }

    async fn identity(&self) -> Result<String, Error> {
        self.engine()?.identity().await
    }

    async fn kinds(&self) -> Result<Vec<Kind>, Error> {
        self.engine()?.kinds().await
    }
}
