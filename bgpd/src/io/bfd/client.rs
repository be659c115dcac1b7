//! bgpd's end of the BFD process's socket. In flow the sessions that bgpd wants; out flow their states, and that the process cannot be
//! asked, which says nothing about any path.

use super::server::netns;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::info;
use twill_crds::control::{Answer, BfdRequest, BfdSession, BfdWanted};
use twill_crds::names::BFD_SOCKET;

/// Pauses between attempts to reach the process: the first, and the longest.
const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How long one that was started may take until it answers.
const STARTING: Duration = Duration::from_secs(1);
/// How soon one that was started and does not answer is started once more: why it failed may have passed.
const RESPAWN: Duration = Duration::from_secs(10);
/// How long the process may take to take our last wish.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Where the BFD process is, and whose business it is to start it.
#[derive(Clone, Debug)]
pub struct Responder {
    /// Directory of its socket.
    pub run_dir: PathBuf,
    /// Our name there.
    pub client: String,
    /// Whether we start one where none answers.
    pub start: bool,
}

/// What is heard of BFD.
#[derive(Debug)]
pub(in crate::io) enum Event {
    /// A session's state, the first on this connection or another one.
    Session(BfdSession),
    /// Nothing is known of any session, for this reason.
    Unknown(String),
}

/// Sessions that are wanted, and how long they are to outlive us, in seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::io) struct Wishes {
    pub(in crate::io) sessions: Vec<BfdWanted>,
    pub(in crate::io) keep: u64,
}

/// The connection; it ends, and sessions outlive it, when this is dropped.
#[derive(Debug)]
pub(in crate::io) struct Client {
    wishes: watch::Sender<Wishes>,
    events: mpsc::UnboundedReceiver<Event>,
    task: JoinHandle<()>,
}

impl Client {
    /// A client on the current runtime. Without a responder, every wish is answered by [`Event::Unknown`].
    pub(in crate::io) fn start(responder: Option<Responder>) -> Self {
        let (wishes, wished) = watch::channel(Wishes::default());
        let (tell, events) = mpsc::unbounded_channel();
        let task = tokio::spawn(Task { responder, wished, tell }.run());
        Self { wishes, events, task }
    }

    /// From now on these sessions and no others.
    pub(in crate::io) fn want(&self, wishes: Wishes) {
        self.wishes.send_if_modified(|before| {
            let changed = *before != wishes;
            *before = wishes;
            changed
        });
    }

    /// What happens next.
    pub(in crate::io) async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Nothing is wanted any more, and nothing is to outlive us.
    pub(in crate::io) async fn renounce(self) {
        self.want(Wishes::default());
        drop(self.wishes);
        // A process that does not answer is not waited for: it forgets us when the time is over.
        drop(tokio::time::timeout(LAST_WORDS, self.task).await);
    }
}

struct Task {
    responder: Option<Responder>,
    wished: watch::Receiver<Wishes>,
    tell: mpsc::UnboundedSender<Event>,
}

/// How an attempt to be told of sessions ended.
enum End {
    /// Nothing is wanted any more, and nobody listens.
    Done,
    /// The process has ended the connection.
    Lost(String),
    /// There was none, or it refused.
    Failed(String),
    /// One was started and will answer soon.
    Started,
}

impl Task {
    async fn run(mut self) {
        let mut pause = AGAIN.0;
        let mut started = None;
        // An error means that the client was dropped.
        while self.wished.wait_for(|wishes| !wishes.sessions.is_empty()).await.is_ok() {
            let problem = match self.attempt(&mut started).await {
                End::Done => return,
                End::Started => None,
                End::Failed(problem) => Some(problem),
                End::Lost(problem) => {
                    pause = AGAIN.0;
                    Some(problem)
                }
            };
            if let Some(problem) = problem
                && self.tell.send(Event::Unknown(problem)).is_err()
            {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(AGAIN.1);
        }
    }

    /// `started`: when a process was last started.
    async fn attempt(&mut self, started: &mut Option<Instant>) -> End {
        let Some(responder) = self.responder.clone() else {
            return End::Failed("this bgpd was started without a BFD process".to_owned());
        };
        let socket = responder.run_dir.join(BFD_SOCKET);
        let error = match UnixStream::connect(&socket).await {
            Ok(stream) => {
                *started = None;
                return match self.converse(stream, &responder.client).await {
                    Ok(true) => End::Done,
                    Ok(false) => {
                        End::Lost(format!("the BFD process on {} has ended; start twill bfd again", socket.display()))
                    }
                    Err(error) => End::Failed(error.to_string()),
                };
            }
            Err(error) => error,
        };
        if responder.start && started.is_none_or(|at| at.elapsed() > RESPAWN) {
            *started = Some(Instant::now());
            return match spawn(&responder.run_dir) {
                Ok(()) => End::Started,
                Err(error) => End::Failed(format!("twill bfd cannot be started: {error}")),
            };
        }
        if started.is_some_and(|at| at.elapsed() < STARTING) {
            return End::Started;
        }
        End::Failed(format!(
            "no BFD process answers on {} ({error}): dead peers are found by their hold time only; start twill bfd with this --run-dir",
            socket.display()
        ))
    }

    /// Until one side ends it; whether it was us.
    async fn converse(&mut self, stream: UnixStream, name: &str) -> io::Result<bool> {
        let (reader, mut writer) = stream.into_split();
        let mut lines = BufReader::new(reader).lines();
        self.wished.mark_changed();
        loop {
            tokio::select! {
                changed = self.wished.changed() => match changed {
                    Ok(()) => self.ask(&mut writer, name).await?,
                    Err(_) => return Ok(true),
                },
                line = lines.next_line() => match line? {
                    Some(line) => self.hear(&line)?,
                    None => return Ok(false),
                },
            }
        }
    }

    async fn ask(&mut self, writer: &mut OwnedWriteHalf, name: &str) -> io::Result<()> {
        let Wishes { sessions, keep } = self.wished.borrow_and_update().clone();
        let netns = netns().map_err(io::Error::other)?;
        let mut line = serde_json::to_vec(&BfdRequest::Want { client: name.to_owned(), netns, keep, sessions })?;
        line.push(b'\n');
        writer.write_all(&line).await
    }

    fn hear(&self, line: &str) -> io::Result<()> {
        match serde_json::from_str(line)? {
            // That nobody listens is heard of by the end of the wishes.
            Answer::Is(session) => drop(self.tell.send(Event::Session(session))),
            Answer::Failed { error } => return Err(io::Error::other(error)),
        }
        Ok(())
    }
}

/// Starts a BFD process that outlives us: in a session of its own, so that no terminal's signal reaches it, and until nobody wants a
/// session any more.
fn spawn(run_dir: &Path) -> io::Result<()> {
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.arg("bfd").arg("--run-dir").arg(run_dir).arg("--while-wanted");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    detach(&mut command);
    let mut child = command.spawn()?;
    info!(pid = child.id(), run_dir = %run_dir.display(), "started twill bfd, since none answered");
    // Its end is reaped, should it come before ours.
    std::thread::Builder::new().name("bfd-child".to_owned()).spawn(move || drop(child.wait()))?;
    Ok(())
}

#[allow(unsafe_code)]
fn detach(command: &mut std::process::Command) {
    // SAFETY: between fork and exec only setsid(2) is called, which is async-signal-safe and touches no memory.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(io::Error::from));
    }
}
