//! bgpd as a node's daemon: follows the datastore, hands over what it means, writes the node's status, answers on the socket.
//!
//! In flow the datastore's objects, a snapshot of them from an earlier run, signals and requests; out flow configurations for
//! the speaker and the FIB, NodeNetwork's `status.bgp`, and answers. While the datastore is away everything stays as it is.

mod follower;
mod reach;
mod snapshot;
mod status;

use super::{Beside, ControlSocket, Extras, SpeakerHandle, bfd, metrics, probe};
use crate::cluster::{Observed, scopes};
use crate::fib;
use crate::probe::Report;
use anyhow::Context;
pub use follower::streams;
use follower::{Follower, Outlets, State, StoreIdentity, Waiting};
pub use reach::LOOK_AT_SERVER;
use serde_json::{Value, json};
pub use status::report_status;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use twill_crds::control::{BgpdRequest, BgpdStatus, Waited};
use twill_crds::names::{BFD_HANDOVER, BFD_SOCKET, BGPD_SOCKET};
use twill_datastore::{Datastore, Error};

/// How often the sessions are looked at for the status.
const LOOK: Duration = Duration::from_secs(1);
/// Pause after which a datastore that did not answer is asked again.
const AGAIN: Duration = Duration::from_millis(200);

/// Serves the node, with the control socket beside the BFD process's, until SIGTERM or SIGINT, then leaves as for a graceful restart: no NOTIFICATION, kernel routes stay. If the machine goes
/// down, its peers hear Cease.
///
/// # Errors
/// One sentence that says what is wrong with the arguments or the machine.
pub(crate) async fn run(
    (node, namespace): (&str, &str),
    url: &str,
    responder: bfd::Responder,
    extras: Extras,
    state_dir: &Path,
    seed: u64,
) -> anyhow::Result<()> {
    let run_dir = responder.run_dir.clone();
    for directory in [run_dir.as_path(), state_dir] {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot make the directory {}", directory.display()))?;
    }
    let mut terminate = signal(SignalKind::terminate()).context("cannot receive SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot receive SIGINT")?;
    let control = ControlSocket::bind(&run_dir.join(BGPD_SOCKET)).await?;
    let path = state_dir.join(snapshot::NAME);
    let remembered = snapshot::load(&path).await.unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "snapshot of an earlier run left out");
        None
    });
    let speaker = SpeakerHandle::start_with(
        Some(unconfigured()),
        Beside { responder: Some(responder), recorder: extras.recorder },
        seed,
    )
    .context("cannot start the speaker's threads")?;
    let fib = speaker.fib().cloned().context("the speaker was started without a kernel")?;
    let (state_sender, state) = watch::channel(State::default());
    let reach = state_sender.clone();
    let (desired_sender, desired) = watch::channel(None);
    let (snapshot_sender, snapshots) = watch::channel(None);
    let outlets = Outlets { state: state_sender, desired: desired_sender, snapshots: snapshot_sender };
    let (observed_sender, observed) = watch::channel(Observed::default());
    let (probed_sender, probed) = watch::channel(Report::default());
    let (waiting, asks) = mpsc::unbounded_channel();
    let opened = Arc::new(OnceLock::new());
    let mut follower =
        Follower::new((node, namespace), StoreIdentity::new(state_dir), speaker.clone(), fib.clone(), outlets, asks);
    tracing::info!(node, from_snapshot = remembered.is_some(), "bgpd started");
    let left = Arc::new(Notify::new());
    let going_down = desired.clone();
    let answers = Answers {
        node: node.to_owned(),
        namespace: namespace.to_owned(),
        speaker: speaker.clone(),
        probed: probed.clone(),
        state,
        store: opened.clone(),
        waiting,
        left: left.clone(),
    };
    let follow = async {
        let patient = remembered.is_some();
        if let Some(snapshot) = remembered {
            follower.remember(snapshot).await;
        }
        let store = reach::open(url, patient, &reach).await?;
        let store = opened.get_or_init(|| store);
        tokio::join!(
            follower.run(store, streams(store, node, namespace)),
            report_status(store.clone(), node.to_owned(), desired, observed),
            snapshot::keep(path, snapshots),
            reach::watch(store, url, node, &reach),
        );
        Ok::<(), Error>(())
    };
    tokio::select! {
        result = follow => result?,
        () = observe(speaker.clone(), probed.clone(), observed_sender) => {}
        () = probe::run(speaker.clone(), fib, probed_sender, seed) => {}
        () = metrics::serve(extras.metrics, speaker.clone(), Some(probed)) => {}
        () = control.serve(move |request| answers.clone().answer(request)) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = left.notified() => return Ok(()),
    }
    let told = going_down.borrow().as_ref().is_some_and(|desired| desired.going_down);
    speaker.leave(super::system::farewell(told).await).await;
    Ok(())
}

/// The files that a node's bgpd and `twill bfd` make, whether they are there or not.
#[must_use]
pub fn files(run_dir: &Path, state_dir: &Path) -> Vec<PathBuf> {
    let snapshot = state_dir.join(snapshot::NAME);
    let in_run_dir = [BGPD_SOCKET, BFD_SOCKET, BFD_HANDOVER].map(|name| run_dir.join(name));
    in_run_dir.into_iter().chain([snapshot::unfinished(&snapshot), snapshot]).collect()
}

/// What the FIB is told before anything is known: keep what is there.
fn unconfigured() -> fib::Config {
    fib::Config { install: true, alone: false, complete: false, ..fib::Config::default() }
}

/// Looks at the running parts, for ever.
async fn observe(speaker: SpeakerHandle, probed: watch::Receiver<Report>, observed: watch::Sender<Observed>) {
    let mut status = speaker.fib_status();
    loop {
        let (peers, problems) = speaker.peers().await;
        let (up, down): (Vec<_>, Vec<_>) = peers.iter().partition(|peer| peer.state == "Established");
        let established = up.len() as u32;
        // A BGPPeer of many nodes is up if all of its sessions are; they are named `PEER/NODE`, and no object has a slash in its name.
        let object = |name: &String| name.split('/').next().unwrap_or_default().to_owned();
        let down: BTreeSet<String> = down.iter().map(|peer| object(&peer.name)).collect();
        let up = up.iter().map(|peer| object(&peer.name)).filter(|name| !down.contains(name)).collect();
        let (step, needs) = speaker.retiring().await;
        let now = Observed {
            peers: peers.len() as u32,
            established,
            up,
            step,
            needs,
            untold: speaker.untold().await,
            fib: status.borrow_and_update().clone(),
            filtered: probed.borrow().said.clone(),
            probed: probed.borrow().judged,
            problems,
        };
        observed.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        });
        // The end of the FIB's thread is no reason to look more often.
        tokio::select! {
            Ok(()) = status.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

#[derive(Clone)]
struct Answers {
    node: String,
    /// Twill's own.
    namespace: String,
    speaker: SpeakerHandle,
    /// Whether other nodes are reached by IP-in-IP.
    probed: watch::Receiver<Report>,
    state: watch::Receiver<State>,
    /// Once it is open.
    store: Arc<OnceLock<Datastore>>,
    waiting: mpsc::UnboundedSender<Waiting>,
    /// The sessions were ended on request, and the process is to end.
    left: Arc<Notify>,
}

impl Answers {
    async fn answer(self, request: BgpdRequest) -> Value {
        match request {
            BgpdRequest::Status => json!(self.status().await),
            BgpdRequest::Wait { timeout_ms } => {
                let applied = tokio::time::timeout(Duration::from_millis(timeout_ms), self.applied()).await;
                json!(Waited { applied: applied.unwrap_or(false), status: self.status().await })
            }
            BgpdRequest::Peers => json!(self.speaker.peers().await.0),
            BgpdRequest::Routes(query) => json!(self.speaker.routes(query).await),
            BgpdRequest::Leave => {
                tracing::info!("leaving on request: sessions are closed with Cease, kernel routes stay");
                let status = self.status().await;
                self.speaker.announce_leaving().await;
                self.speaker.leave(super::shutdown("removed by its operator")).await;
                self.left.notify_one();
                json!(status)
            }
        }
    }

    /// Waits until all that the datastore has now has been applied; whether that came about.
    async fn applied(&self) -> bool {
        loop {
            let barrier = async { self.store.get()?.barrier(&scopes(&self.node, &self.namespace)).await.ok() };
            if let Some(marks) = barrier.await {
                let (reply, done) = oneshot::channel();
                return self.waiting.send(Waiting { marks, reply }).is_ok() && done.await.is_ok();
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn status(&self) -> BgpdStatus {
        let (peers, sockets) = self.speaker.peers().await;
        let fib = self.speaker.fib_status().borrow().clone();
        let (_, retiring) = self.speaker.retiring().await;
        let State { in_sync, revision, drained, reflects, mut problems, remark, datastore } =
            self.state.borrow().clone();
        if datastore.is_none() && !in_sync {
            problems.push("bgpd has not heard all of the datastore yet".to_owned());
        }
        problems.extend(datastore);
        problems.extend(sockets);
        problems.extend(fib.problems.into_iter().map(|problem| problem.text));
        problems.extend(self.probed.borrow().problem());
        BgpdStatus {
            node: self.node.clone(),
            in_sync,
            revision,
            peers: peers.len() as u32,
            established: peers.iter().filter(|peer| peer.state == "Established").count() as u32,
            repairs: fib.repairs,
            drained,
            reflector: reflects,
            retiring,
            remark,
            problems,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
