//! The one connection of a handle: made when it is first needed, given up for another server when it does not do.
//!
//! HTTP/2 carries all calls and watches of the process at once. Its tasks run on a thread of the engine's own, so that neither a
//! runtime that computes for seconds nor one that stands still between two calls lets it die.

use super::address::Address;
use super::failure::{Failure, causes};
use super::files;
use crate::io::unreachable::unreachable;
use etcd_client::{Client, ConnectOptions, KvClient, WatchClient};
use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

/// TCP, TLS and login, each.
const CONNECT: Duration = Duration::from_secs(3);
/// How long one of several servers has for an answer before the next is asked …
const PATIENCE_OF_MANY: Duration = Duration::from_secs(4);
/// … and the only one. etcd itself gives up after 7 s.
const PATIENCE: Duration = Duration::from_secs(8);
/// A silent connection is asked for a sign of life this often (etcd ends those of who asks more often than every 5 s) …
const PING: Duration = Duration::from_secs(10);
/// … and given up when it gives none for so long.
const PONG: Duration = Duration::from_secs(5);
/// What one call or watch may have on the way that its caller has not taken yet.
const STREAM_WINDOW: u32 = 2 << 20;
/// That of all together is no less than the sum: a watch that nobody listens to must not stop the others.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
/// Longest answer that is taken; the longest request that etcd takes is 1.5 MiB by default.
const LONGEST: usize = 64 << 20;

/// Whether a call may be made again when it is unknown whether it was done.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Repeat {
    Always,
    IfNotSent,
}

pub(super) struct Connection {
    address: Address,
    thread: IoThread,
    live: Mutex<Option<Live>>,
    /// Held by who connects or logs in; what became of the last attempt.
    attempt: tokio::sync::Mutex<Option<Failure>>,
    attempts: AtomicU64,
    /// The server to try first.
    next: AtomicUsize,
    /// Of the next connection or login.
    number: AtomicU64,
}

/// A connection that works, as far as is known.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) kv: KvClient,
    pub(super) watch: WatchClient,
    channel: Channel,
    server: usize,
    number: u64,
}

impl Connection {
    /// Nothing is connected yet.
    pub(super) fn new(address: Address) -> Result<Self, String> {
        files::check(&address)?;
        endpoint(&address, 0)?;
        let thread = IoThread::spawn().map_err(|error| format!("cannot be used, as no thread can be made: {error}"))?;
        Ok(Self {
            address,
            thread,
            live: Mutex::default(),
            attempt: tokio::sync::Mutex::default(),
            attempts: AtomicU64::default(),
            next: AtomicUsize::default(),
            number: AtomicU64::default(),
        })
    }

    /// Who we are to etcd, for messages.
    pub(super) fn who(&self) -> String {
        match (&self.address.login, &self.address.tls) {
            (Some(login), _) => format!("etcd's user {}", login.user),
            (None, Some(tls)) => match &tls.own {
                Some((certificate, _)) => format!("the client of certificate {}", certificate.display()),
                None => "a client without certificate".to_owned(),
            },
            (None, None) => "a client without user".to_owned(),
        }
    }

    /// Makes a call, at another server if one is away, and once more after a new login if the old one has run out.
    pub(super) async fn call<T, F>(&self, repeat: Repeat, op: impl Fn(Live) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let (mut renewed, mut moves) = (false, 0);
        loop {
            let live = self.live().await?;
            let failure = match timeout(self.patience(), op(live.clone())).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(error)) => Failure::of(&error),
                Err(_) => Failure::Away { problem: self.silent(), sent: true },
            };
            match failure {
                Failure::Token if !renewed => {
                    renewed = true;
                    self.renew(&live).await?;
                }
                Failure::Away { problem, sent } => {
                    self.leave(&live);
                    moves += 1;
                    let again = !sent || repeat == Repeat::Always;
                    if !again || moves > self.address.endpoints.len() {
                        let problem = unreachable(&self.address.endpoints[live.server], &problem);
                        return Err(Failure::Away { problem, sent });
                    }
                }
                other => return Err(other),
            }
        }
    }

    /// The connection, made if there is none. Who waits for another's attempt shares its failure.
    pub(super) async fn live(&self) -> Result<Live, Failure> {
        let before = self.attempts.load(Ordering::Acquire);
        if let Some(live) = self.current() {
            return Ok(live);
        }
        let mut attempt = self.attempt.lock().await;
        if let Some(live) = self.current() {
            return Ok(live);
        }
        if let (true, Some(failure)) = (self.attempts.load(Ordering::Acquire) != before, &*attempt) {
            return Err(failure.clone());
        }
        let done = self.connect().await;
        self.attempts.fetch_add(1, Ordering::AcqRel);
        *attempt = done.as_ref().err().cloned();
        Ok(self.set(done?))
    }

    /// Gives a connection up; the next call makes another, with the next server if there are several.
    pub(super) fn leave(&self, live: &Live) {
        let mut current = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|current| current.number == live.number) {
            *current = None;
            self.next.store(live.server + 1, Ordering::Relaxed);
        }
    }

    /// Logs in again on the same connection.
    async fn renew(&self, live: &Live) -> Result<(), Failure> {
        let _attempt = self.attempt.lock().await;
        if self.is_current(live) {
            self.set(self.login(live.channel.clone(), live.server).await?);
        }
        Ok(())
    }

    /// Whether it is what calls use.
    pub(super) fn is_current(&self, live: &Live) -> bool {
        self.current().is_some_and(|current| current.number == live.number)
    }

    fn current(&self) -> Option<Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, mut live: Live) -> Live {
        let mut current = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.number = self.number.fetch_add(1, Ordering::Relaxed);
        *current = Some(live.clone());
        live
    }

    /// Connects with the first server that can be had.
    async fn connect(&self) -> Result<Live, Failure> {
        let servers = self.address.endpoints.len();
        let first = self.next.load(Ordering::Relaxed);
        let mut problems = Vec::new();
        for server in (first..first + servers).map(|server| server % servers) {
            let done = match self.channel(server).await {
                Ok(channel) => self.login(channel, server).await,
                Err(problem) => Err(Failure::Away { problem, sent: false }),
            };
            match done {
                Ok(live) => return Ok(live),
                Err(Failure::Away { problem, .. }) => {
                    problems.push(unreachable(&self.address.endpoints[server], &problem));
                }
                Err(other) => return Err(other),
            }
        }
        Err(Failure::Away { problem: problems.join("; "), sent: false })
    }

    async fn channel(&self, server: usize) -> Result<Channel, String> {
        let endpoint = endpoint(&self.address, server)?;
        let connecting = async move {
            match timeout(CONNECT, endpoint.connect()).await {
                Ok(done) => done.map_err(|error| causes(&error)),
                Err(_) => Err(format!("no connection within {} s", CONNECT.as_secs())),
            }
        };
        self.thread.run(connecting).await.unwrap_or_else(|| Err("the engine is being closed".into()))
    }

    async fn login(&self, channel: Channel, server: usize) -> Result<Live, Failure> {
        let away = |problem| Failure::Away { problem, sent: false };
        let plain = || ConnectOptions::new().with_require_leader(true);
        let options = match &self.address.login {
            None => plain(),
            Some(login) => plain().with_user(&login.user, files::password(login).map_err(away)?),
        };
        let log_in = |options| {
            timeout(CONNECT, Client::from_channel(etcd_client::Channel::Tonic(channel.clone()), Some(options)))
        };
        let silent = |_| away(format!("no answer to the login within {} s", CONNECT.as_secs()));
        let client = match log_in(options).await.map_err(silent)?.map_err(|error| Failure::of(&error)) {
            // As etcd's own client does: whoever was given a user may do without while authentication is off.
            Err(Failure::NoLogin) => log_in(plain()).await.map_err(silent)?.map_err(|error| Failure::of(&error))?,
            done => done?,
        };
        let kv = client.kv_client().max_decoding_message_size(LONGEST);
        let watch = client.watch_client().max_decoding_message_size(LONGEST);
        Ok(Live { kv, watch, channel, server, number: 0 })
    }

    fn patience(&self) -> Duration {
        if self.address.endpoints.len() > 1 { PATIENCE_OF_MANY } else { PATIENCE }
    }

    fn silent(&self) -> String {
        format!("it gives no answer within {} s", self.patience().as_secs())
    }
}

/// How a server is reached, with the certificates as they are in the files now.
fn endpoint(address: &Address, server: usize) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(address.endpoints[server].clone())
        .map_err(|error| causes(&error))?
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PONG)
        .keep_alive_while_idle(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let Some(tls) = &address.tls else { return Ok(endpoint) };
    let unusable = |error| format!("has certificates that cannot be used ({}); name other files", causes(&error));
    endpoint.tls_config(files::tls(tls)?).map_err(unusable)
}

/// A thread with a runtime, which ends with this value.
struct IoThread {
    runtime: tokio::runtime::Handle,
    _stop: oneshot::Sender<()>,
}

impl IoThread {
    fn spawn() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        std::thread::Builder::new().name("etcd".into()).spawn(move || {
            // Ends when the sender is dropped.
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, _stop: stop })
    }

    async fn run<T: Send + 'static>(&self, job: impl Future<Output = T> + Send + 'static) -> Option<T> {
        self.runtime.spawn(job).await.ok()
    }
}
