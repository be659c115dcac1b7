//! Follows the datastore for a node, hands over what it means, and writes the node's status.
//!
//! In flow the datastore's objects, a snapshot of them from an earlier run, and what the running parts observe; out flow
//! configurations for the speaker and the FIB, the applied revision, and NodeNetwork's `status.bgp`. While the datastore
//! is away everything stays as it is.

use crate::cluster::{Desired, Heard, Objects, Observed, Snapshot, desired, report};
use crate::fib::Fib;
use crate::speaker;
use futures::stream::{BoxStream, SelectAll, StreamExt};
use futures::{FutureExt, stream};
use jiff::Timestamp;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use twill_crds::{BGPConfiguration, BGPPeer, IPBlock, IPPool, Node, NodeNetwork, NodeNetworkSpec};
use twill_datastore::{Datastore, Error, Filter, Key, follow};

/// Steps that are taken in before the whole is considered.
const STEPS: usize = 10_000;
/// Changes of the status that come within this time are written at once.
const REPORT: Duration = Duration::from_millis(300);
/// After a failed write of the status; doubled up to [`RETRY_MAX`].
const RETRY: Duration = Duration::from_millis(500);
/// See [`RETRY`].
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Name of the snapshot inside the state directory.
const SNAPSHOT: &str = "bgpd.json";

/// What the cluster's objects act on, and what it hears from there.
pub struct Hands {
    /// Takes a new configuration of the speaker; must not block.
    pub speaker: Box<dyn Fn(speaker::Config) + Send>,
    /// The kernel.
    pub fib: Fib,
    /// What the running parts say; its changes are reported.
    pub observed: watch::Receiver<Observed>,
    /// Where [`State`] is told.
    pub state: watch::Sender<State>,
}

/// How far this node is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Whether the datastore was heard as a whole.
    pub in_sync: bool,
    /// Everything up to here has been handed over, and the kernel has it.
    pub revision: u64,
    /// What is wrong with objects, one sentence each. What the FIB says is not among it.
    pub problems: Vec<String>,
}

/// Runs for ever.
pub async fn run(store: Datastore, node: String, state_dir: PathBuf, hands: Hands) {
    let path = state_dir.join(SNAPSHOT);
    let (applied_sender, applied) = mpsc::unbounded_channel();
    let (desired_sender, desired) = watch::channel(None);
    let (snapshot_sender, snapshots) = watch::channel(None);
    let observed = hands.observed.clone();
    let mut follower = Follower {
        node: node.clone(),
        objects: Objects::default(),
        current: None,
        asked: None,
        hands,
        applied: applied_sender,
        desired: desired_sender,
        snapshots: snapshot_sender,
    };
    match load(&path).await {
        Ok(Some(snapshot)) => follower.remember(snapshot),
        Ok(None) => {}
        Err(error) => tracing::warn!(path = %path.display(), %error, "snapshot of an earlier run left out"),
    }
    let heard = streams(&store, &node);
    let (following, reporting, keeping) =
        (follower.run(heard, applied), report_status(store, node, desired, observed), keep(path, snapshots));
    tokio::join!(following, reporting, keeping);
}

fn streams(store: &Datastore, node: &str) -> SelectAll<BoxStream<'static, Heard>> {
    let own = Filter { fields: vec![("spec.node".to_owned(), node.to_owned())], ..Filter::default() };
    stream::select_all([
        follow::<Node>(store, Filter::default()).map(Heard::Node).boxed(),
        follow::<IPPool>(store, Filter::default()).map(Heard::Pool).boxed(),
        follow::<IPBlock>(store, own).map(Heard::Block).boxed(),
        follow::<BGPConfiguration>(store, Filter::default()).map(Heard::Configuration).boxed(),
        follow::<BGPPeer>(store, Filter::default()).map(Heard::Peer).boxed(),
    ])
}

struct Follower {
    node: String,
    objects: Objects,
    current: Option<Arc<Desired>>,
    /// Revision of which the FIB was asked last.
    asked: Option<u64>,
    hands: Hands,
    applied: mpsc::UnboundedSender<u64>,
    desired: watch::Sender<Option<Arc<Desired>>>,
    snapshots: watch::Sender<Option<Snapshot>>,
}

impl Follower {
    /// Starts from what an earlier run knew: nothing is removed on its word.
    fn remember(&mut self, snapshot: Snapshot) {
        let mut wanted = desired(&self.node, &Objects::remembered(snapshot));
        wanted.fib.complete = false;
        self.hand_over(wanted);
    }

    async fn run(mut self, mut heard: SelectAll<BoxStream<'static, Heard>>, mut applied: mpsc::UnboundedReceiver<u64>) {
        loop {
            tokio::select! {
                Some(step) = heard.next() => {
                    let mut changed = self.objects.apply(step);
                    for _ in 0..STEPS {
                        let Some(Some(step)) = heard.next().now_or_never() else { break };
                        changed |= self.objects.apply(step);
                    }
                    self.consider(changed);
                }
                Some(revision) = applied.recv() => {
                    self.hands.state.send_if_modified(|state| {
                        let later = !state.in_sync || state.revision < revision;
                        (state.in_sync, state.revision) = (true, revision.max(state.revision));
                        later
                    });
                }
                else => return,
            }
        }
    }

    fn consider(&mut self, changed: bool) {
        if !self.objects.in_sync() {
            return;
        }
        if changed || self.asked.is_none() {
            self.hand_over(desired(&self.node, &self.objects));
            self.snapshots.send_replace(Some(self.objects.snapshot()));
        }
        let revision = self.objects.revision().0;
        if self.asked != Some(revision) {
            self.asked = Some(revision);
            let applied = self.applied.clone();
            // Fails only if this task has ended, and then nobody waits.
            self.hands.fib.settle(move |_| {
                let _ = applied.send(revision);
            });
        }
    }

    fn hand_over(&mut self, wanted: Desired) {
        if self.current.as_deref() == Some(&wanted) {
            return;
        }
        for problem in wanted.node_problems.iter().chain(&wanted.problems) {
            let known = |old: &Arc<Desired>| old.node_problems.contains(problem) || old.problems.contains(problem);
            if !self.current.as_ref().is_some_and(known) {
                tracing::warn!(problem, "an object cannot be obeyed");
            }
        }
        let wanted = Arc::new(wanted);
        // The unreachable route first: what is advertised must not loop.
        self.hands.fib.configure(wanted.fib.clone());
        if self.current.as_ref().is_none_or(|old| old.speaker != wanted.speaker) {
            (self.hands.speaker)(wanted.speaker.clone());
        }
        let problems = wanted.node_problems.iter().chain(&wanted.problems).cloned().collect();
        self.hands.state.send_modify(|state| state.problems = problems);
        self.desired.send_replace(Some(wanted.clone()));
        self.current = Some(wanted);
    }
}

/// Writes the status whenever it is another.
async fn report_status(
    store: Datastore,
    node: String,
    mut desired: watch::Receiver<Option<Arc<Desired>>>,
    mut observed: watch::Receiver<Observed>,
) {
    let mut wait = REPORT;
    loop {
        tokio::time::sleep(wait).await;
        let wanted = desired.borrow_and_update().clone();
        let seen = observed.borrow_and_update().clone();
        wait = REPORT;
        if let Some(wanted) = wanted.filter(|wanted| wanted.node_exists)
            && let Err(error) = write_status(&store, &node, &wanted, &seen).await
        {
            tracing::warn!(%error, "status of the node cannot be written now");
            wait = if matches!(error, Error::Conflict(_)) { RETRY } else { (wait * 2).clamp(RETRY, RETRY_MAX) };
            continue;
        }
        let more = tokio::select! {
            changed = desired.changed() => changed,
            changed = observed.changed() => changed,
        };
        if more.is_err() {
            return;
        }
    }
}

async fn write_status(store: &Datastore, node: &str, desired: &Desired, observed: &Observed) -> Result<(), Error> {
    let key = Key::cluster(node);
    let mut object = match store.get::<NodeNetwork>(&key).await? {
        Some(object) => object,
        None => store.create(&NodeNetwork::new(node, NodeNetworkSpec {})).await?,
    };
    let status = object.status.get_or_insert_default();
    let new = report(desired, observed, &status.bgp, Timestamp::now());
    if status.bgp == new {
        return Ok(());
    }
    status.bgp = new;
    store.update_status(&object).await.map(|_| ())
}

async fn load(path: &Path) -> io::Result<Option<Snapshot>> {
    match tokio::fs::read(path).await {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::from),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Keeps what was read, for the next start.
async fn keep(path: PathBuf, mut snapshots: watch::Receiver<Option<Snapshot>>) {
    let mut kept = None;
    while snapshots.changed().await.is_ok() {
        let snapshot = snapshots.borrow_and_update().clone();
        if snapshot.is_none() || snapshot == kept {
            continue;
        }
        match store_file(&path, &snapshot).await {
            Ok(()) => kept = snapshot,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "snapshot cannot be kept; a restart will wait for the datastore")
            }
        }
    }
}

async fn store_file(path: &Path, snapshot: &Option<Snapshot>) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut options = tokio::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new).await?;
    tokio::io::AsyncWriteExt::write_all(&mut file, &serde_json::to_vec(snapshot)?).await?;
    file.sync_all().await?;
    tokio::fs::rename(&new, path).await
}
