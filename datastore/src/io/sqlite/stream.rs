//! One watch: the changes of one kind within a filter, from the hub's ring, or from the file when it is behind.

use super::Shared;
use super::hub::Latest;
use super::read::{self, Change};
use crate::document::kind_id;
use crate::{Error, Filter, RawEvent, Revision};
use futures::stream::{BoxStream, StreamExt};
use serde_json::Value;
use std::borrow::Borrow;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::watch;
use twill_crds::Kind;

/// Changes read from the file at once.
const BATCH: usize = 500;

struct Watch {
    shared: Arc<Shared>,
    kind: String,
    filter: Filter,
    /// All up to here is in `told` or was told.
    heard: u64,
    latest: watch::Receiver<Latest>,
    /// The history that it was begun in.
    history: u64,
    /// The first part comes from the file, which knows whether `heard` is still, or at all, a point of its history.
    begun: bool,
    told: VecDeque<RawEvent>,
    failed: bool,
}

pub(super) fn watch(
    shared: Arc<Shared>,
    kind: &Kind,
    filter: Filter,
    from: Revision,
) -> BoxStream<'static, Result<RawEvent, Error>> {
    let latest = shared.hub.latest();
    let history = latest.borrow().history;
    let (kind, told) = (kind_id(kind), VecDeque::new());
    let watch = Watch { shared, kind, filter, heard: from.0, latest, history, begun: false, told, failed: false };
    futures::stream::unfold(watch, |mut watch| async move {
        if watch.failed {
            return None;
        }
        let event = watch.next().await;
        watch.failed = event.is_err();
        Some((event, watch))
    })
    .boxed()
}

impl Watch {
    async fn next(&mut self) -> Result<RawEvent, Error> {
        loop {
            if let Some(event) = self.told.pop_front() {
                return Ok(event);
            }
            if self.begun {
                let (heard, history) = (self.heard, self.history);
                let ended = |_| Error::Unavailable("its watch thread has ended".into());
                let news = |latest: &Latest| latest.revision > heard || latest.history != history;
                let latest = *self.latest.wait_for(news).await.map_err(ended)?;
                if latest.history != history {
                    return Err(Error::Expired);
                }
            }
            self.read_on().await?;
        }
    }

    async fn read_on(&mut self) -> Result<(), Error> {
        let from_ring = if self.begun { self.shared.hub.changes(self.heard) } else { None };
        let upto = match from_ring {
            Some((changes, upto)) => {
                self.tell(&changes)?;
                upto.0
            }
            None => {
                let (kind, from) = (self.kind.clone(), self.heard);
                let read = move |c: &mut rusqlite::Connection| read::changes(c, Some(&kind), from, BATCH);
                let found = self.shared.reader.run(read).await?;
                self.tell(&found.changes)?;
                found.upto
            }
        };
        self.begun = true;
        self.heard = upto;
        self.told.push_back(RawEvent::Bookmark(Revision(upto)));
        Ok(())
    }

    fn tell<C: Borrow<Change>>(&mut self, changes: &[C]) -> Result<(), Error> {
        for change in changes.iter().map(Borrow::borrow).filter(|change: &&Change| change.kind == self.kind) {
            self.told.extend(event(&self.kind, &self.filter, change)?);
        }
        Ok(())
    }
}

/// What a change means to a watch with this filter; none if nothing, or if the document is no JSON. Whoever was told of a
/// document that is gone and no JSON either must list again, as nothing names it any more.
fn event(kind: &str, filter: &Filter, change: &Change) -> Result<Option<RawEvent>, Error> {
    let revision = Revision(change.revision);
    let Some(object) = read::parse(kind, &change.json) else {
        return if change.deleted { Err(Error::Expired) } else { Ok(None) };
    };
    if change.deleted {
        return Ok(filter.matches(&object).then_some(RawEvent::Deleted(object, revision)));
    }
    if filter.matches(&object) {
        return Ok(Some(RawEvent::Applied(object, revision)));
    }
    let was_in = |old: &String| serde_json::from_str::<Value>(old).map_or(true, |old| filter.matches(&old));
    Ok(change.old.as_ref().is_some_and(was_in).then_some(RawEvent::Deleted(object, revision)))
}
