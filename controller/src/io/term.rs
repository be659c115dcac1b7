//! One term of a leader: it hears everything, and once a second does what follows from it. It ends by being dropped.

use super::lead::Tenure;
use super::perform::Wrote;
use super::{Clock, heard, perform};
use crate::plan::{Action, Controller, Now, Written};
use futures::StreamExt;
use jiff::Timestamp;
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior, interval};
use twill_datastore::Datastore;
use twill_datastore::event::{Occurrence, Recorder};

/// How often it is decided anew, which is what coalesces changes.
const TICK: Duration = Duration::from_secs(1);
/// How often old Events are removed.
const SWEEP: Duration = Duration::from_secs(600);
/// How controllers sign Events: one acts at a time, and whoever comes next removes the old ones.
const REPORTER: &str = "twill-controller";

/// Leads. `show` hears how it is, about once a second.
pub(super) async fn lead(store: &Datastore, quarantine: Duration, tenure: Tenure, show: impl Fn(&Controller)) {
    let mut term = Term {
        store: store.clone(),
        clock: Clock::start(),
        controller: Controller::new(quarantine),
        recorder: Recorder::new("twill.network/controller", REPORTER),
    };
    let mut facts = heard::follow_all(store);
    let (mut tick, mut sweep) = (every(TICK), every(SWEEP));
    loop {
        tokio::select! {
            Some(batch) = facts.next() => batch.into_iter().for_each(|fact| term.controller.hear(fact)),
            _ = tick.tick() => {
                for action in term.controller.plan(term.now()) {
                    if !tenure.lasts() {
                        return;
                    }
                    term.perform(action).await;
                }
                show(&term.controller);
            }
            _ = sweep.tick() => {
                if let Err(error) = term.recorder.sweep(&term.store, Timestamp::now()).await {
                    tracing::debug!(%error, "old events not removed; tried again later");
                }
            }
        }
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

struct Term {
    store: Datastore,
    clock: Clock,
    controller: Controller,
    recorder: Recorder,
}

impl Term {
    fn now(&self) -> Now {
        let at = u64::try_from(self.clock.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now { at, wall: Timestamp::now() }
    }

    async fn perform(&mut self, action: Action) {
        match action {
            Action::Look { node } => {
                let pods = perform::pods_of(&self.store, &node).await;
                let pods =
                    pods.inspect_err(|error| tracing::warn!(%error, %node, "pods of a deleted node not read")).ok();
                self.controller.looked(&node, pods, self.now().at);
            }
            Action::Free(left) => {
                let outcome = perform::free(&self.store, &left).await;
                if let Some(told) = self.controller.freed(&left.node, &outcome, self.now().at) {
                    self.tell(&told).await;
                }
            }
            Action::Write(written, tells) => {
                let wrote = match &written {
                    Written::Pool(pool) => perform::write(&self.store, pool.as_ref()).await,
                    Written::Reservation(one) => perform::write(&self.store, one.as_ref()).await,
                    Written::Peer(peer) => perform::write(&self.store, peer.as_ref()).await,
                    Written::Filter(filter) => perform::write(&self.store, filter.as_ref()).await,
                    Written::ClusterPolicy(policy) => perform::write(&self.store, policy.as_ref()).await,
                    Written::Isolation(isolation) => perform::write(&self.store, isolation.as_ref()).await,
                    Written::Configuration(configuration) => perform::write(&self.store, configuration.as_ref()).await,
                };
                self.controller.wrote(&written, wrote != Wrote::Refused);
                if wrote == Wrote::Stored {
                    self.tell_all(&tells).await;
                }
            }
            Action::Release(reservation) => perform::release(&self.store, *reservation).await,
            Action::Configure => perform::configure(&self.store).await,
            Action::Tell(occurrence) => self.tell(&occurrence).await,
        }
    }

    async fn tell_all(&mut self, occurrences: &[Occurrence]) {
        for occurrence in occurrences {
            self.tell(occurrence).await;
        }
    }

    async fn tell(&mut self, occurrence: &Occurrence) {
        // Random: it only has to make a name unique.
        let id = uuid::Uuid::new_v4().as_u64_pair().0;
        if let Err(error) = self.recorder.record(&self.store, occurrence, Timestamp::now(), id).await {
            tracing::warn!(%error, reason = %occurrence.reason, note = %occurrence.note, "event not written");
        }
    }
}
