//! Hears the datastore's objects, and hands over what they mean to the speaker and the FIB.

use super::super::SpeakerHandle;
use crate::cluster::{Claimant, Desired, Heard, Objects, Snapshot, desired, scopes};
use crate::fib::Fib;
use futures::FutureExt;
use futures::stream::{self, AbortHandle, BoxStream, SelectAll, StreamExt, abortable};
use k8s_openapi::api::core::v1::Secret;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use twill_crds::{
    BGPConfiguration, BGPFilter, BGPPeer, EndpointSlice, IPBlock, IPPool, Node, NodeNetwork, Object, Service,
};
use twill_datastore::{Datastore, Filter, Followed, Mark, Scope, follow};

/// Steps that are taken in before the whole is considered.
const STEPS: usize = 10_000;

/// All that bgpd follows of the datastore, on one stream.
pub fn streams(store: &Datastore, node: &str, namespace: &str) -> SelectAll<BoxStream<'static, Heard>> {
    let scopes = scopes(node, namespace);
    stream::select_all([
        followed::<Node>(store, &scopes).map(|step| Heard::Node(Box::new(step))).boxed(),
        followed::<IPPool>(store, &scopes).map(Heard::Pool).boxed(),
        followed::<IPBlock>(store, &scopes).map(Heard::Block).boxed(),
        followed::<BGPConfiguration>(store, &scopes).map(Heard::Configuration).boxed(),
        followed::<BGPPeer>(store, &scopes).map(Heard::Peer).boxed(),
        followed::<BGPFilter>(store, &scopes).map(Heard::Filter).boxed(),
        followed::<Secret>(store, &scopes).map(|step| Heard::Secret(Box::new(step))).boxed(),
        followed::<NodeNetwork>(store, &scopes).map(Heard::Network).boxed(),
    ])
}

/// Services and their endpoints, which only those follow who are to tell of them.
fn follow_services(store: &Datastore) -> BoxStream<'static, Heard> {
    let services = follow::<Service>(store, Filter::default()).map(|step| Heard::Service(Box::new(step)));
    let slices = follow::<EndpointSlice>(store, Filter::default()).map(Heard::Slice);
    stream::select(services, slices).boxed()
}

fn followed<K: Object>(store: &Datastore, scopes: &[Scope]) -> BoxStream<'static, Followed<K>> {
    let scope = scopes.iter().find(|scope| scope.kind == K::kind());
    follow(store, scope.map(|scope| scope.filter.clone()).unwrap_or_default())
}

/// How often the store's identity is looked for while it is not known.
const LOOK: Duration = Duration::from_millis(500);
/// How long felix may take to make it when the node is new.
const PATIENCE: Duration = Duration::from_secs(5);

/// Identity of the store of addresses that felix keeps in the same state directory. It never changes while it is there.
pub(super) struct StoreIdentity {
    directory: PathBuf,
    known: Option<String>,
    started: Instant,
    patience: Duration,
}

impl StoreIdentity {
    pub(super) fn new(state_dir: &Path) -> Self {
        let directory = state_dir.join(twill_ipam::io::store::DIRECTORY);
        Self { directory, known: None, started: Instant::now(), patience: PATIENCE }
    }

    fn is_known(&self) -> bool {
        self.known.is_some()
    }

    fn read(&mut self) -> Claimant {
        self.known = self.known.take().or_else(|| twill_ipam::io::identity::kept(&self.directory));
        match &self.known {
            Some(identity) => Claimant::Known(identity.clone()),
            None if self.started.elapsed() < self.patience => Claimant::Awaited,
            None => Claimant::Unknown,
        }
    }
}

/// Who waits until all that some marks stand for has been applied.
pub(super) struct Waiting {
    pub(super) marks: Vec<Mark>,
    pub(super) reply: oneshot::Sender<()>,
}

/// Where the follower says what it knows.
pub(super) struct Outlets {
    pub(super) state: watch::Sender<State>,
    /// What was handed over last.
    pub(super) desired: watch::Sender<Option<Arc<Desired>>>,
    pub(super) snapshots: watch::Sender<Option<Snapshot>>,
}

/// Hears the objects and hands over what they mean.
pub(super) struct Follower {
    node: String,
    namespace: String,
    store: StoreIdentity,
    objects: Objects,
    current: Option<Arc<Desired>>,
    /// Revision of which the FIB was asked last.
    asked: Option<u64>,
    speaker: SpeakerHandle,
    fib: Fib,
    outlets: Outlets,
    asks: mpsc::UnboundedReceiver<Waiting>,
    waiting: Vec<Waiting>,
}

/// How far this node is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// Whether the datastore was heard as a whole.
    pub(super) in_sync: bool,
    /// Everything up to here has been handed over, and the kernel has it.
    pub(super) revision: u64,
    /// Whether an operator drained the node.
    pub(super) drained: bool,
    /// Whether it reflects.
    pub(super) reflects: bool,
    /// What is wrong with objects, one sentence each.
    pub(super) problems: Vec<String>,
    /// What is odd about Services, in one sentence.
    pub(super) remark: Option<String>,
    /// Why the datastore cannot be opened or does not answer.
    pub(super) datastore: Option<String>,
}

impl Follower {
    pub(super) fn new(
        (node, namespace): (&str, &str),
        store: StoreIdentity,
        speaker: SpeakerHandle,
        fib: Fib,
        outlets: Outlets,
        asks: mpsc::UnboundedReceiver<Waiting>,
    ) -> Self {
        let (objects, waiting) = (Objects::of(node, namespace), Vec::new());
        let (node, namespace) = (node.to_owned(), namespace.to_owned());
        Self { node, namespace, store, objects, current: None, asked: None, speaker, fib, outlets, asks, waiting }
    }

    /// Starts from what an earlier run knew: nothing is removed on its word.
    pub(super) async fn remember(&mut self, snapshot: Snapshot) {
        let mut objects = Objects::remembered(&self.node, &self.namespace, snapshot);
        // There was an earlier run, and so a felix, if it is of a release that claims by identity.
        self.store.patience = Duration::ZERO;
        objects.claimed_by(self.store.read());
        let mut wanted = desired(&self.node, &objects);
        wanted.fib.complete = false;
        wanted.speaker.complete = false;
        self.hand_over(wanted).await;
    }

    /// Runs for ever.
    pub(super) async fn run(mut self, store: &Datastore, mut heard: SelectAll<BoxStream<'static, Heard>>) {
        let (sender, mut applied) = mpsc::unbounded_channel();
        let mut look = tokio::time::interval(LOOK);
        let mut services: Option<AbortHandle> = None;
        loop {
            match (&services, self.objects.wants_services()) {
                (None, true) => {
                    let (stream, handle) = abortable(follow_services(store));
                    heard.push(stream.boxed());
                    services = Some(handle);
                }
                (Some(handle), false) => {
                    handle.abort();
                    services = None;
                    self.objects.forget_services();
                }
                _ => {}
            }
            tokio::select! {
                _ = look.tick(), if !self.store.is_known() => {
                    let changed = self.objects.claimed_by(self.store.read());
                    self.consider(changed, &sender).await;
                }
                Some(step) = heard.next() => {
                    // Before its first claim felix has made its identity.
                    let mut changed = self.objects.claimed_by(self.store.read());
                    changed |= self.objects.apply(step);
                    for _ in 0..STEPS {
                        let Some(Some(step)) = heard.next().now_or_never() else { break };
                        changed |= self.objects.apply(step);
                    }
                    self.consider(changed, &sender).await;
                }
                Some(waiting) = self.asks.recv() => {
                    self.waiting.push(waiting);
                    self.answer();
                }
                Some(revision) = applied.recv() => {
                    self.outlets.state.send_if_modified(|state| {
                        let later = !state.in_sync || state.revision < revision;
                        (state.in_sync, state.revision) = (true, revision.max(state.revision));
                        later
                    });
                }
                else => return,
            }
        }
    }

    async fn consider(&mut self, changed: bool, applied: &mpsc::UnboundedSender<u64>) {
        if !self.objects.in_sync() {
            return;
        }
        if changed || self.asked.is_none() {
            self.hand_over(desired(&self.node, &self.objects)).await;
            let snapshot = self.current.as_deref().map(|current| self.objects.snapshot(current));
            self.outlets.snapshots.send_replace(snapshot);
        }
        let remark = self.objects.remark();
        self.outlets.state.send_if_modified(|state| {
            let changed = state.remark != remark;
            state.remark = remark;
            changed
        });
        let revision = self.objects.revision().0;
        if self.asked != Some(revision) {
            self.asked = Some(revision);
            let applied = applied.clone();
            // Fails only if this task has ended, and then nobody waits.
            self.fib.settle(move |_| {
                let _ = applied.send(revision);
            });
        }
        self.answer();
    }

    /// Answers who waited for what is known now, once the kernel has it.
    fn answer(&mut self) {
        if !self.objects.in_sync() || self.asked.is_none() {
            return;
        }
        let reached = |waiting: &mut Waiting| self.objects.reached(&waiting.marks);
        for Waiting { reply, .. } in self.waiting.extract_if(.., reached) {
            // Fails only if nobody waits any more.
            self.fib.settle(move |_| {
                let _ = reply.send(());
            });
        }
        self.waiting.retain(|waiting| !waiting.reply.is_closed());
    }

    async fn hand_over(&mut self, wanted: Desired) {
        if self.current.as_deref() == Some(&wanted) {
            return;
        }
        for problem in wanted.node_problems.iter().chain(&wanted.problems) {
            let known = |old: &Arc<Desired>| old.node_problems.contains(problem) || old.problems.contains(problem);
            if !self.current.as_ref().is_some_and(known) {
                tracing::warn!(problem, "an object cannot be obeyed");
            }
        }
        if wanted.speaker.shutdown.is_some() {
            self.speaker.announce_leaving().await;
        }
        let wanted = Arc::new(wanted);
        self.fib.configure(wanted.fib.clone());
        if self.current.as_ref().is_none_or(|old| old.fib.own != wanted.fib.own) {
            self.settled().await;
        }
        if self.current.as_ref().is_none_or(|old| old.speaker != wanted.speaker) {
            self.speaker.reconfigure(wanted.speaker.clone()).await;
        }
        let problems = wanted.node_problems.iter().chain(&wanted.problems).cloned().collect();
        let (drained, reflects) = (wanted.speaker.shutdown.is_some(), wanted.reflects);
        self.outlets.state.send_modify(|state| {
            (state.problems, state.drained, state.reflects) = (problems, drained, reflects);
        });
        self.outlets.desired.send_replace(Some(wanted.clone()));
        self.current = Some(wanted);
    }

    /// Waits until the kernel has what it was configured with, and the speaker has been told what workloads are outside of the blocks. The
    /// unreachable route is there before a block is told, so that nothing goes round; and workloads of a block that is lost are told
    /// before it is withdrawn, so that its next owner sees at every moment that somebody has addresses of it.
    async fn settled(&self) {
        let (done, settled) = oneshot::channel();
        // Fails only if the FIB's thread has panicked; then its status says so.
        self.fib.settle(move |_| {
            let _ = done.send(());
        });
        let _ = settled.await;
    }
}
