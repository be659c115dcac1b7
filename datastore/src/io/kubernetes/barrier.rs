//! What there is now, for those who wait until their watches have told it: one consistent list a scope, shared by all who
//! ask before it is sent.

use super::Shared;
use super::call::Request;
use super::document::{key_of, revision, revision_of};
use super::list::Item;
use super::path;
use super::representation::Extent;
use super::selection::one;
use super::status::Asked;
use crate::{Error, Key, Mark, Present, Revision, Scope};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// The metadata of one object alone.
const ONE: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// Who waits for what.
#[derive(Default)]
pub(super) struct Queue {
    /// Scopes that a task is busy with, and who asked since it sent its last list.
    busy: Mutex<Vec<(Scope, Vec<Waiter>)>>,
}

type Waiter = oneshot::Sender<Result<Mark, Error>>;

impl Queue {
    /// In the queue of its scope; whether nobody is busy with it.
    fn join(&self, scope: &Scope, waiter: Waiter) -> bool {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        match busy.iter_mut().find(|(busy, _)| busy == scope) {
            Some((_, waiters)) => {
                waiters.push(waiter);
                false
            }
            None => {
                busy.push((scope.clone(), vec![waiter]));
                true
            }
        }
    }

    /// All who have asked until now; with none of them the scope is at rest.
    fn take(&self, scope: &Scope) -> Vec<Waiter> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(place) = busy.iter().position(|(busy, _)| busy == scope) else { return Vec::new() };
        let waiters = std::mem::take(&mut busy[place].1);
        if waiters.is_empty() {
            busy.swap_remove(place);
        }
        waiters
    }
}

/// What a watch of the scope must have told to know all until now.
pub(super) async fn mark(shared: &Arc<Shared>, scope: &Scope) -> Result<Mark, Error> {
    let (waiter, waits) = oneshot::channel();
    if shared.queue.join(scope, waiter) {
        // Apart from whoever asked first: others wait for it, too.
        tokio::spawn(serve(shared.clone(), scope.clone()));
    }
    let answer = waits.await.unwrap_or_else(|_| Err(Error::Unavailable("the question was dropped; ask again".into())));
    match answer {
        // There is nothing of it to hear.
        Err(Error::UnknownKind(_)) if scope.kind.is_optional() => {
            Ok(Mark { scope: scope.clone(), revision: Revision(0), present: None })
        }
        answer => answer,
    }
}

/// Asks until nobody waits. Those who ask while a list is under way get the next one, as theirs must not be older than they are.
async fn serve(shared: Arc<Shared>, scope: Scope) {
    // If this task ends before its time, with its runtime, whoever waits must not wait for it.
    let mut unserved = Unserved { shared: &shared, scope: &scope, done: false };
    loop {
        let waiters = shared.queue.take(&scope);
        if waiters.is_empty() {
            break;
        }
        let mark = shared.mark(&scope).await;
        for waiter in waiters {
            let _ = waiter.send(mark.clone());
        }
    }
    unserved.done = true;
}

struct Unserved<'a> {
    shared: &'a Shared,
    scope: &'a Scope,
    done: bool,
}

impl Drop for Unserved<'_> {
    fn drop(&mut self) {
        while !self.done && !self.shared.queue.take(self.scope).is_empty() {}
    }
}

impl Shared {
    async fn mark(&self, scope: &Scope) -> Result<Mark, Error> {
        if let Some(key) = one(&scope.kind, &scope.filter)
            && let Some(at) = self.revision_of(scope, &key).await?
        {
            return Ok(mark_of(scope, at, vec![key], at));
        }
        let told = self.told(&scope.kind);
        let (items, at, rest) = self.list_metadata(&scope.kind, &scope.filter).await?;
        // What was told is of another past, which says nothing of what there is now. The watch hears so with its next bookmark.
        if at < told {
            let problem =
                "the API server's storage was put back to an older state, of which the watches have not heard yet";
            return Err(Error::Unavailable(problem.into()));
        }
        if !rest.is_empty() {
            return self.mark_by_hand(scope).await;
        }
        let mut latest = Revision(0);
        for item in &items {
            latest = latest.max(revision(&scope.kind, &item.metadata.resource_version)?);
        }
        let key = |item: Item| Key { namespace: item.metadata.namespace, name: item.metadata.name };
        Ok(mark_of(scope, latest, items.into_iter().map(key).collect(), at))
    }

    /// The revision of one object, if there is such.
    async fn revision_of(&self, scope: &Scope, key: &Key) -> Result<Option<Revision>, Error> {
        let asked = Asked::new("get", &scope.kind, Some(key));
        let request = Request { accept: ONE, ..Request::get(asked, path::object(&scope.kind, key)?) };
        match self.access.call::<Item>(&request).await.map_err(|failure| failure.error(&request.asked)) {
            Ok(item) => revision(&scope.kind, &item.metadata.resource_version).map(Some),
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Of a scope that the server cannot select: metadata alone does not tell who is in it.
    async fn mark_by_hand(&self, scope: &Scope) -> Result<Mark, Error> {
        let page = self.list(&scope.kind, &scope.filter, Extent::Whole).await?;
        let mut latest = Revision(0);
        for item in &page.items {
            latest = latest.max(revision_of(&scope.kind, item)?);
        }
        let keys = page.items.iter().map(|item| key_of(&scope.kind, item)).collect();
        Ok(mark_of(scope, latest, keys, page.revision))
    }

    /// The UID of the namespace that every cluster has, and has for ever.
    pub(super) async fn identity(&self) -> Result<String, Error> {
        let kind = <twill_crds::Namespace as twill_crds::Object>::kind();
        let key = Key::cluster("kube-system");
        let asked = Asked::new("get", &kind, Some(&key));
        let request = Request { accept: ONE, ..Request::get(asked, path::object(&kind, &key)?) };
        let item: Item = self.access.call(&request).await.map_err(|failure| failure.error(&request.asked))?;
        Ok(item.metadata.uid)
    }
}

fn mark_of(scope: &Scope, revision: Revision, keys: Vec<Key>, at: Revision) -> Mark {
    Mark { scope: scope.clone(), revision, present: Some(Present { keys, at }) }
}
