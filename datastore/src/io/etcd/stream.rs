//! One watch: a watcher of its own on the kind's keys.
//!
//! In flow etcd's events of documents and of the kind's head; out flow those within the filter, and a bookmark for each head: a
//! write puts the head behind its document, one watcher tells in the order of writing, so all up to the head has been told.
//! Order between two watchers, and progress that is asked for, are not relied on: before 3.4.25 and 3.5.8 the latter may
//! overtake events. The progress that etcd tells a watcher by itself, every ten minutes, comes in order, and keeps the point to go
//! on from ahead of compaction.

use super::connection::Live;
use super::failure::Failure;
use super::layout::{self, Keys};
use super::place::head_of;
use super::{DEADLINE, Shared};
use crate::document::set_revision;
use crate::{Error, Filter, RawEvent, Revision};
use etcd_client::{Event, EventType, KeyValue, WatchOptions, WatchResponse, WatchStream};
use futures::stream::{BoxStream, StreamExt};
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::time::timeout;
use twill_crds::Kind;

struct Watch {
    shared: Arc<Shared>,
    kind: Kind,
    keys: Keys,
    filter: Filter,
    from: Revision,
    /// Once begun, and on which connection.
    watcher: Option<(WatchStream, Live)>,
    told: VecDeque<RawEvent>,
    failed: bool,
}

pub(super) fn watch(
    shared: Arc<Shared>,
    kind: Kind,
    filter: Filter,
    from: Revision,
) -> BoxStream<'static, Result<RawEvent, Error>> {
    let keys = shared.layout.of(&kind);
    let watch = Watch { shared, kind, keys, filter, from, watcher: None, told: VecDeque::new(), failed: false };
    futures::stream::unfold(watch, |mut watch| async move {
        if watch.failed {
            return None;
        }
        let event = watch.next().await;
        if matches!(event, Err(Error::Expired)) {
            watch.shared.pasts.forget(&watch.keys.head(), &watch.filter);
        }
        watch.failed = event.is_err();
        if watch.failed {
            watch.watcher = None;
        }
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
            let Some((stream, live)) = &mut self.watcher else {
                self.begin().await.map_err(|failure| self.shared.unread(failure, &self.kind))?;
                self.told.push_back(RawEvent::Bookmark(self.from));
                continue;
            };
            let heard = next_of(stream).await.inspect_err(|failure| leave(&self.shared, live, failure));
            let heard = heard.map_err(|failure| self.shared.unread(failure, &self.kind))?;
            self.tell(&heard)?;
        }
    }

    /// Begins. Where etcd says "permission denied" it may mean a token that has run out (3.4 does): a read tells, and logs in
    /// anew if so.
    async fn begin(&mut self) -> Result<(), Failure> {
        match self.try_begin().await {
            Err((refused @ (Failure::Token | Failure::Forbidden), Some(live))) => {
                self.shared.ask().await?;
                if self.shared.connection.is_current(&live) {
                    return Err(refused);
                }
                self.try_begin().await.map_err(|(failure, _)| failure)
            }
            done => done.map_err(|(failure, _)| failure),
        }
    }

    async fn try_begin(&mut self) -> Result<(), (Failure, Option<Live>)> {
        let silent = || Failure::Away { problem: format!("no answer within {} s", DEADLINE.as_secs()), sent: true };
        let live = timeout(DEADLINE, self.shared.connection.live()).await.unwrap_or_else(|_| Err(silent()));
        let live = live.map_err(|failure| (failure, None))?;
        let begun = timeout(DEADLINE, self.watcher(&live)).await.unwrap_or_else(|_| Err(silent()));
        match begun {
            Ok(stream) => {
                self.watcher = Some((stream, live));
                Ok(())
            }
            Err(failure) => {
                leave(&self.shared, &live, &failure);
                Err((failure, Some(live)))
            }
        }
    }

    async fn watcher(&self, live: &Live) -> Result<WatchStream, Failure> {
        let options = WatchOptions::new()
            .with_range(layout::end(self.keys.all()))
            .with_start_revision(layout::number_of(self.from).saturating_add(1))
            .with_prev_key()
            .with_fragment()
            .with_progress_notify();
        let begun = live.watch.clone().watch(self.keys.all(), Some(options)).await;
        let mut stream = begun.map_err(|error| Failure::of(&error))?;
        while !next_of(&mut stream).await?.created() {}
        // It is this datastore still, with the past that was told, and not one that was put back to before it: etcd would wait for
        // it to come there.
        self.shared.go_on(&self.keys, &self.filter, self.from).await?;
        Ok(stream)
    }

    fn tell(&mut self, heard: &WatchResponse) -> Result<(), Error> {
        let events = heard.events();
        // Of the heads in one message the last says it all.
        let last = events.iter().rposition(|event| event.kv().is_some_and(|kv| self.keys.is_head(kv.key())));
        for (at, event) in events.iter().enumerate() {
            let Some(kv) = event.kv() else { continue };
            if Some(at) == last {
                let (up_to, head) = (layout::revision_of(kv.mod_revision()), head_of(kv));
                self.shared.pasts.told(&self.keys.head(), &self.filter, up_to, Some(head));
                self.told.push_back(RawEvent::Bookmark(up_to));
            } else {
                self.told.extend(told(&self.kind, &self.keys, &self.filter, event, kv)?);
            }
        }
        if events.is_empty() && !heard.created() {
            let up_to = heard.header().map(|header| layout::revision_of(header.revision()));
            if let Some(up_to) = up_to {
                self.shared.pasts.told(&self.keys.head(), &self.filter, up_to, None);
                self.told.push_back(RawEvent::Bookmark(up_to));
            }
        }
        Ok(())
    }
}

/// The watcher's next message, which may be a refusal.
async fn next_of(stream: &mut WatchStream) -> Result<WatchResponse, Failure> {
    let ended = || Failure::Away { problem: "the server ended the watch".into(), sent: true };
    let heard = stream.message().await.map_err(|error| Failure::of(&error))?.ok_or_else(ended)?;
    match (heard.canceled(), heard.compact_revision()) {
        (false, _) => Ok(heard),
        (true, compacted) if compacted > 0 => Err(Failure::Compacted),
        (true, _) => Err(Failure::of_cancel(heard.cancel_reason())),
    }
}

fn leave(shared: &Shared, live: &Live, failure: &Failure) {
    if matches!(failure, Failure::Away { .. }) {
        shared.connection.leave(live);
    }
}

/// What an event means to a watch with this filter; none if nothing, or if the document cannot be read. Whoever was told of a
/// document that is gone and cannot be read either must list again, as nothing names it any more.
fn told(kind: &Kind, keys: &Keys, filter: &Filter, event: &Event, kv: &KeyValue) -> Result<Option<RawEvent>, Error> {
    let Some(key) = keys.key(kv.key()) else { return Ok(None) };
    if filter.namespace.as_ref().is_some_and(|namespace| *namespace != key.namespace) {
        return Ok(None);
    }
    let at = layout::revision_of(kv.mod_revision());
    let before = || -> Option<Value> {
        let kv = event.prev_kv()?;
        layout::document(kind, &key, kv.value(), kv.mod_revision()).ok()
    };
    if event.event_type() == EventType::Delete {
        let Some(mut last) = before() else { return Err(Error::Expired) };
        let within = filter.matches(&last);
        set_revision(&mut last, at);
        return Ok(within.then_some(RawEvent::Deleted(last, at)));
    }
    let object = match layout::document(kind, &key, kv.value(), kv.mod_revision()) {
        Ok(object) => object,
        Err(error) => {
            tracing::warn!(%error, "stored object left out");
            return Ok(None);
        }
    };
    if filter.matches(&object) {
        return Ok(Some(RawEvent::Applied(object, at)));
    }
    // One whose state before cannot be told any more may have been within the filter.
    let was_within = kv.version() > 1 && before().is_none_or(|before| filter.matches(&before));
    Ok(was_within.then_some(RawEvent::Deleted(object, at)))
}
