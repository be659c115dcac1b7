//! The process: control socket and signals around the thread that speaks.

use super::engine::{Command, Engine};
use super::handover;
use crate::bfd::{ClientId, Timing, Wanted};
use crate::io::control::{self, ControlSocket};
use anyhow::Context;
use serde::Serialize;
use serde_json::json;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, oneshot};
use tracing::info;
use twill_crds::control::{BfdRequest, BfdSession, BfdStatus, BfdWanted};
use twill_crds::names::BFD_SOCKET;

/// How long telling peers AdminDown may take at the end: a slow session has a second between packets.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long one that runs while it is wanted waits for somebody to want something.
const UNWANTED: Duration = Duration::from_secs(10);

/// Runs until SIGTERM or SIGINT, and lets a successor go on with all sessions; or until a request, and tells every peer that this is no
/// failure. `while_wanted`: or until nobody wants anything for ten seconds.
///
/// # Errors
/// One sentence: the socket or a port is taken, or the kernel refuses something.
pub async fn run(run_dir: &Path, while_wanted: bool, seed: u64) -> anyhow::Result<()> {
    std::fs::create_dir_all(run_dir).with_context(|| format!("cannot make the directory {}", run_dir.display()))?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot receive SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot receive SIGINT")?;
    // Who starts it in the background may go away with its terminal.
    let mut hangup = signal(SignalKind::hangup()).context("cannot receive SIGHUP")?;
    let control = ControlSocket::bind(&run_dir.join(BFD_SOCKET)).await?;
    let place = handover::Place::new(run_dir, netns()?);
    let handover = place.take();
    let next = Arc::new(AtomicU64::new(handover.as_ref().map_or(0, |handover| handover.clients.next_id())));
    let engine = Engine::start(handover, seed)?;
    let server = Server { engine: engine.clone(), netns: netns()?, next, left: Arc::default() };
    info!(run_dir = %run_dir.display(), "bfd started");
    let left = server.left.clone();
    let serve = control.each(move |stream| server.clone().converse(stream));
    let unwanted = async { if while_wanted { idle(&engine).await } else { std::future::pending().await } };
    tokio::pin!(serve);
    tokio::pin!(unwanted);
    loop {
        tokio::select! {
            () = &mut serve => break,
            () = &mut unwanted => {
                info!("nobody wants a session any more");
                return Ok(());
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {}
            () = left.notified() => return Ok(()),
        }
    }
    let (successor, handover) = oneshot::channel();
    engine.ask(Command::Suspend(successor));
    match handover.await {
        Ok(handover) => place.leave(&handover),
        // The thread has ended on request meanwhile.
        Err(_) => Ok(()),
    }
}

/// The inode of this process's network namespace.
pub(in crate::io) fn netns() -> anyhow::Result<u64> {
    // The thread's, since tests enter one with a thread of theirs.
    let path = "/proc/thread-self/ns/net";
    Ok(std::fs::metadata(path).with_context(|| format!("cannot see {path}"))?.ino())
}

async fn idle(engine: &Engine) {
    let mut idle = engine.idle.clone();
    loop {
        // An error means that the thread has ended.
        if idle.wait_for(|idle| *idle).await.is_err() {
            return;
        }
        if tokio::time::timeout(UNWANTED, idle.wait_for(|idle| !*idle)).await.is_err() {
            return;
        }
    }
}

async fn leave(engine: &Engine) {
    let (done, told) = oneshot::channel();
    engine.ask(Command::Leave(done));
    // Late or not, this is the end.
    drop(tokio::time::timeout(FAREWELL, told).await);
}

#[derive(Clone)]
struct Server {
    engine: Engine,
    netns: u64,
    next: Arc<AtomicU64>,
    left: Arc<Notify>,
}

/// Why a request cannot be.
#[derive(Serialize)]
struct Refusal {
    error: String,
}

impl Server {
    async fn converse(self, stream: UnixStream) -> io::Result<()> {
        let client = self.next.fetch_add(1, Ordering::Relaxed);
        let (reader, mut writer) = stream.into_split();
        let result = self.answer(client, BufReader::new(reader), &mut writer).await;
        self.engine.ask(Command::Gone(client));
        result
    }

    async fn answer(
        &self,
        client: ClientId,
        mut reader: BufReader<OwnedReadHalf>,
        writer: &mut OwnedWriteHalf,
    ) -> io::Result<()> {
        let (tell, mut told) = mpsc::unbounded_channel();
        // Reading a line is not to be given up halfway, so it has a task of its own.
        let (lines_in, mut lines) = mpsc::channel(1);
        let reading = tokio::spawn(async move {
            while let Ok(Some(line)) = control::line(&mut reader).await {
                if lines_in.send(line).await.is_err() {
                    break;
                }
            }
        });
        let result = loop {
            let written = tokio::select! {
                line = lines.recv() => match line {
                    Some(line) => self.obey(client, &line, &tell, writer).await,
                    None => break Ok(()),
                },
                Some(session) = told.recv() => control::write(writer, &session).await,
            };
            if written.is_err() {
                break written;
            }
        };
        reading.abort();
        result
    }

    async fn obey(
        &self,
        client: ClientId,
        line: &str,
        tell: &mpsc::UnboundedSender<BfdSession>,
        writer: &mut OwnedWriteHalf,
    ) -> io::Result<()> {
        match serde_json::from_str(line) {
            Ok(BfdRequest::Want { client: name, netns, keep, sessions }) => match self.wanted(netns, &sessions) {
                Ok(wanted) => {
                    let keep = Duration::from_secs(keep);
                    self.engine.ask(Command::Want { client, name, keep, wanted, tell: tell.clone() });
                    Ok(())
                }
                Err(error) => control::write(writer, &Refusal { error }).await,
            },
            Ok(BfdRequest::Status) => control::write(writer, &self.status().await).await,
            Ok(BfdRequest::Leave) => {
                info!("leaving on request: peers are told that this is no failure");
                let status = self.status().await;
                leave(&self.engine).await;
                let written = control::write(writer, &status).await;
                self.left.notify_one();
                written
            }
            Err(error) => {
                let error = format!("not a request that twill bfd knows: {error}");
                control::write(writer, &json!(Refusal { error })).await
            }
        }
    }

    async fn status(&self) -> BfdStatus {
        let (reply, status) = oneshot::channel();
        self.engine.ask(Command::Status(reply));
        status.await.unwrap_or_default()
    }

    /// What a client wants, or why that cannot be.
    fn wanted(&self, netns: u64, sessions: &[BfdWanted]) -> Result<Wanted, String> {
        if netns != self.netns {
            return Err("the BFD process on this socket runs in another network namespace, and its packets would go out there; start one here, \
                 with a --run-dir of its own"
                .to_owned());
        }
        let millis = |millis: u32| Duration::from_millis(millis.into());
        let one = |session: &BfdWanted| {
            if session.min_tx == 0 || session.min_rx == 0 || session.multiplier == 0 {
                return Err(format!("session with {}: minTx, minRx and multiplier must be above 0", session.ends.peer));
            }
            let timing = Timing {
                desired_min_tx: millis(session.min_tx),
                required_min_rx: millis(session.min_rx),
                detect_mult: session.multiplier,
            };
            Ok((session.ends.clone(), timing))
        };
        sessions.iter().map(one).collect()
    }
}
