//! One kind, followed for ever: list, watch, and again whenever the engine cannot go on.

use super::reach::Hearing;
use crate::{Datastore, Error, Filter, Revision, WatchEvent, WatchStream};
use futures::stream::{BoxStream, StreamExt};
use std::time::Duration;
use twill_crds::Object;

/// How often a kind that a cluster may be without, and is, is asked for at least.
const UNKNOWN: Duration = Duration::from_secs(10);

/// What happens to one kind, told without end and without error.
#[derive(Clone, Debug, PartialEq)]
pub enum Followed<K> {
    /// All there is: replaces everything told before. First of all, and again when history had a gap.
    Synced {
        /// The objects, ordered by key; malformed ones are left out and logged.
        items: Vec<K>,
        /// They existed together at this revision.
        revision: Revision,
    },
    /// Created, changed, or came into the filter.
    Applied(K, Revision),
    /// Deleted, or left the filter; its last state.
    Deleted(K, Revision),
    /// All up to here has been told.
    Bookmark(Revision),
}

/// Follows the objects of a kind within a filter. The stream never ends: while the engine does not answer it waits, with
/// growing pauses, and goes on from where it was. An object that cannot be read is left out and logged; the one that was
/// told before stays in force until it is deleted.
///
/// What is told is to be read, never to be written back: of Pods, Nodes and Namespaces a Kubernetes server's engine keeps only what is
/// read of them here (`io/kubernetes/trimmed.rs`). Who reads more of them adds it there.
#[must_use]
pub fn follow<K: Object>(store: &Datastore, filter: Filter) -> BoxStream<'static, Followed<K>> {
    let hearing = store.reach().hearing();
    let follower = Follower { store: store.clone(), hearing, filter, step: Step::List, failures: 0 };
    futures::stream::unfold(follower, |mut follower| async move {
        let followed = follower.next().await;
        Some((followed, follower))
    })
    .boxed()
}

struct Follower<K> {
    store: Datastore,
    hearing: Hearing,
    filter: Filter,
    step: Step<K>,
    failures: u32,
}

enum Step<K> {
    List,
    /// Watch from here.
    Watch(Revision),
    /// Watching; all up to here was told.
    Hear(WatchStream<K>, Revision),
}

impl<K: Object> Follower<K> {
    async fn next(&mut self) -> Followed<K> {
        loop {
            match std::mem::replace(&mut self.step, Step::List) {
                Step::List => match self.store.list_trimmed::<K>(&self.filter).await {
                    Ok(list) => {
                        self.step = Step::Watch(list.revision);
                        self.failures = 0;
                        self.hearing.hears();
                        return Followed::Synced { items: list.items, revision: list.revision };
                    }
                    Err(error) => self.wait(&error).await,
                },
                Step::Watch(from) => match self.store.watch_trimmed::<K>(&self.filter, from).await {
                    Ok(events) => self.step = Step::Hear(events, from),
                    Err(error) => self.recover(&error, from).await,
                },
                Step::Hear(mut events, heard) => match events.next().await {
                    Some(Ok(event)) => {
                        self.hearing.hears();
                        let (upto, followed) = match event {
                            WatchEvent::Applied(object, at) => (heard, Followed::Applied(object, at)),
                            WatchEvent::Deleted(object, at) => (heard, Followed::Deleted(object, at)),
                            WatchEvent::Bookmark(at) => (at, Followed::Bookmark(at)),
                        };
                        // An engine that begins watches, tells nothing new in them and ends them is not back yet.
                        if upto != heard || !matches!(followed, Followed::Bookmark(_)) {
                            self.failures = 0;
                        }
                        self.step = Step::Hear(events, upto);
                        return followed;
                    }
                    Some(Err(error)) => self.recover(&error, heard).await,
                    None => self.recover(&Error::Unavailable("the watch ended".into()), heard).await,
                },
            }
        }
    }

    /// Goes on watching from `heard` after a pause, or lists again where history has a gap or an object that was told can
    /// no longer be named.
    async fn recover(&mut self, error: &Error, heard: Revision) {
        match error {
            Error::Expired | Error::Malformed { .. } => {
                tracing::info!(kind = %K::kind().kind, %error, "listing again");
                self.step = Step::List;
            }
            Error::UnknownKind(_) if K::kind().is_optional() => {
                self.step = Step::Watch(heard);
                tokio::time::sleep(UNKNOWN.mul_f64(0.5 + rand_unit() / 2.0)).await;
            }
            _ => {
                self.step = Step::Watch(heard);
                self.wait(error).await;
            }
        }
    }

    async fn wait(&mut self, error: &Error) {
        let pause = pause(self.failures, rand_unit());
        self.failures = self.failures.saturating_add(1);
        self.hearing.fails(error);
        tracing::warn!(kind = %K::kind().kind, %error, ?pause, "datastore away, trying again");
        tokio::time::sleep(pause).await;
    }
}

/// 50 ms doubled per failure up to 5 s, and of that between half and all, so that a hundred daemons do not come at once.
fn pause(failures: u32, unit: f64) -> Duration {
    let full = Duration::from_millis(50).saturating_mul(1 << failures.min(7)).min(Duration::from_secs(5));
    full.mul_f64(0.5 + unit / 2.0)
}

/// A random number from 0 to 1.
pub(super) fn rand_unit() -> f64 {
    f64::from((uuid::Uuid::new_v4().as_u128() & 0xffff_ffff) as u32) / f64::from(u32::MAX)
}
