//! One call per container and interface at a time, and what ends an ADD early: a DEL of the same, or that nobody waits for it any more.

use crate::cni::{Failure, Reason};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedMutexGuard, watch};
use twill_crds::cni::Generation;
use twill_ipam::Sandbox;

/// Who has calls under way.
#[derive(Clone, Default)]
pub(super) struct Sandboxes(Arc<Mutex<HashMap<Sandbox, Arc<One>>>>);

struct One {
    lock: Arc<tokio::sync::Mutex<()>>,
    deleted: watch::Sender<Deleted>,
}

/// DELs so far, and up to when the last one goes.
#[derive(Clone, Debug, Default)]
struct Deleted {
    count: u64,
    up_to: Option<Generation>,
}

/// The right to change an attachment, until it is dropped.
pub(super) struct Held {
    _one: Arc<One>,
    _guard: OwnedMutexGuard<()>,
}

/// What ends an ADD early.
pub(super) struct Stop {
    /// So that those who come later mean the same one.
    _one: Arc<One>,
    gone: watch::Receiver<bool>,
    deleted: watch::Receiver<Deleted>,
    before: u64,
    generation: Option<Generation>,
}

impl Sandboxes {
    fn one(&self, sandbox: &Sandbox) -> Arc<One> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, one| Arc::strong_count(one) > 1);
        let new = || Arc::new(One { lock: Arc::default(), deleted: watch::Sender::default() });
        all.entry(sandbox.clone()).or_insert_with(new).clone()
    }

    /// Waits for the calls before this one.
    pub(super) async fn hold(&self, sandbox: &Sandbox) -> Held {
        let one = self.one(sandbox);
        let guard = one.lock.clone().lock_owned().await;
        Held { _one: one, _guard: guard }
    }

    /// The same for a DEL, which ends an ADD that is earlier.
    pub(super) async fn delete(&self, sandbox: &Sandbox, up_to: Option<&Generation>) -> Held {
        let one = self.one(sandbox);
        one.deleted.send_modify(|deleted| {
            deleted.count += 1;
            deleted.up_to = up_to.cloned();
        });
        self.hold(sandbox).await
    }

    /// What will end an ADD that begins now.
    pub(super) fn stop(&self, sandbox: &Sandbox, generation: Option<Generation>, gone: watch::Receiver<bool>) -> Stop {
        let one = self.one(sandbox);
        let deleted = one.deleted.subscribe();
        let before = deleted.borrow().count;
        Stop { _one: one, gone, deleted, before, generation }
    }
}

impl Stop {
    /// Waits until it is to end.
    pub(super) async fn wait(&mut self) -> Failure {
        loop {
            if let Some(why) = self.now() {
                return why;
            }
            tokio::select! {
                // Its sender is held here.
                _ = self.deleted.changed() => {}
                changed = self.gone.changed() => if changed.is_err() { return gone() },
            }
        }
    }

    /// Whether it is to end now.
    pub(super) fn now(&self) -> Option<Failure> {
        if *self.gone.borrow() {
            return Some(gone());
        }
        let deleted = self.deleted.borrow();
        let means_this = match (&self.generation, &deleted.up_to) {
            (Some(own), Some(up_to)) => own.is_up_to(up_to, &own.boot),
            _ => true,
        };
        let message = "a DEL of the same container and interface came while its ADD was under way";
        (deleted.count > self.before && means_this).then(|| Failure::new(Reason::TryAgain, message))
    }
}

fn gone() -> Failure {
    Failure::new(Reason::TryAgain, "nobody waits for the ADD any more; it was taken back")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn sandbox() -> Sandbox {
        Sandbox { container_id: "c".into(), ifname: "eth0".into() }
    }

    fn at(at: u64) -> Option<Generation> {
        Some(Generation { boot: "b".into(), at })
    }

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
    }

    #[test]
    fn a_del_ends_an_add_that_came_before_it_and_waits_until_it_has_ended() {
        run(async {
            let all = Sandboxes::default();
            let (_alive, gone) = watch::channel(false);
            let mut stop = all.stop(&sandbox(), at(5), gone);
            let held = all.hold(&sandbox()).await;
            assert!(stop.now().is_none());
            let (deleting, its) = (all.clone(), sandbox());
            let del = tokio::spawn(async move { deleting.delete(&its, at(6).as_ref()).await });
            assert!(stop.wait().await.message.contains("DEL"));
            assert!(!del.is_finished());
            drop(held);
            drop(del.await.unwrap());
        });
    }

    #[test]
    fn neither_an_earlier_del_nor_one_that_came_before_ends_an_add() {
        run(async {
            let all = Sandboxes::default();
            let (_alive, gone) = watch::channel(false);
            let first = all.stop(&sandbox(), at(5), gone.clone());
            drop(all.delete(&sandbox(), at(4).as_ref()).await);
            assert!(first.now().is_none(), "it is later than the DEL");
            drop(all.delete(&sandbox(), None).await);
            assert!(first.now().is_some());
            assert!(all.stop(&sandbox(), None, gone).now().is_none());
        });
    }

    #[test]
    fn who_is_gone_ends_it() {
        run(async {
            let (alive, gone) = watch::channel(false);
            let mut stop = Sandboxes::default().stop(&sandbox(), None, gone);
            alive.send(true).unwrap();
            assert!(stop.wait().await.message.contains("nobody waits"));
        });
    }
}
