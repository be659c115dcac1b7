//! The way in: one client, few connections, made anew when the files that it was made of change or the server no longer
//! accepts what was in them.

use super::address::{Address, Loaded, chain};
use crate::Error;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ConfigExt};
use kube::config::Config;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Mutex;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// A connection that is silent for this long is asked whether it lives …
const PING: Duration = Duration::from_secs(10);
/// … and given up if no answer comes for this long: all that waits on it fails and goes elsewhere.
const PONG: Duration = Duration::from_secs(8);
/// What a watch may have sent that nobody has taken yet; and all of them together, or some who do not listen for a while
/// would stop all calls on the connection.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 32 << 20;
/// How often the files are looked at, at most.
const LOOK: Duration = Duration::from_secs(1);

/// The way in.
pub(super) struct Access {
    url: String,
    address: Address,
    agent: String,
    state: Mutex<State>,
}

struct State {
    /// None while a program that a kubeconfig names gives no credentials.
    client: Option<kube::Client>,
    source: String,
    server: String,
    files: Vec<(PathBuf, Stamp)>,
    looked: Instant,
    made: Instant,
    generation: u64,
}

impl State {
    /// Whether a file is another than the one that was read.
    fn is_stale(&self) -> bool {
        self.files.iter().any(|(path, stamp)| stamp_of(path) != *stamp)
    }
}

/// What tells a file from what it was.
type Stamp = Option<(SystemTime, u64)>;

/// A client, and which it is.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) client: kube::Client,
    pub(super) generation: u64,
    /// Where the server is, for people.
    pub(super) server: String,
}

impl Access {
    /// Reads the credentials. The server need not be there.
    pub(super) async fn open(url: &str, address: Address, component: &str) -> Result<Self, Error> {
        let open = |problem| Error::Open { url: url.to_owned(), problem };
        // Only the first call of a process does something; a program that wants another provider installs it before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let agent = format!("twill-{component}/{}", env!("CARGO_PKG_VERSION"));
        let loaded = address.load().await.map_err(open)?;
        let (files, source, server) = (stamped(loaded.files.clone()), loaded.source.clone(), loaded.server());
        let client = match client(loaded, &agent).await {
            Ok(client) => Some(client),
            Err(Refused::Later(problem)) => {
                tracing::warn!(%problem, "no credentials yet");
                None
            }
            Err(Refused::Wrong(problem)) => return Err(open(format!("{source}: {problem}; correct it"))),
        };
        let now = Instant::now();
        let state = State { client, source, server, files, looked: now, made: now, generation: 0 };
        Ok(Self { url: url.to_owned(), address, agent, state: Mutex::new(state) })
    }

    /// The client, anew if its files have changed.
    pub(super) async fn client(&self) -> Result<Client, Error> {
        let mut state = self.state.lock().await;
        if state.looked.elapsed() > LOOK || state.client.is_none() {
            state.looked = Instant::now();
            if state.is_stale() || state.client.is_none() {
                self.renew(&mut state).await;
            }
        }
        let (generation, server) = (state.generation, state.server.clone());
        let client = state
            .client
            .clone()
            .ok_or_else(|| Error::Unavailable(format!("{} gives no credentials for {}", state.source, self.url)))?;
        Ok(Client { client, generation, server })
    }

    /// The server did not accept this client. Whether there is another now, to try once more.
    pub(super) async fn refused(&self, generation: u64) -> bool {
        let mut state = self.state.lock().await;
        if state.generation == generation && (state.is_stale() || state.made.elapsed() > LOOK) {
            self.renew(&mut state).await;
        }
        state.generation != generation
    }

    /// Where the credentials are from, for people.
    pub(super) async fn source(&self) -> String {
        self.state.lock().await.source.clone()
    }

    /// Makes the client anew; the old one serves on if that cannot be, as while its files are being replaced.
    async fn renew(&self, state: &mut State) {
        state.made = Instant::now();
        let made = match self.address.load().await {
            Ok(loaded) => {
                let (files, source, server) = (stamped(loaded.files.clone()), loaded.source.clone(), loaded.server());
                let made = client(loaded, &self.agent).await;
                made.map(|client| (client, files, source, server)).map_err(Refused::problem)
            }
            Err(problem) => Err(problem),
        };
        match made {
            Ok((client, files, source, server)) => {
                tracing::info!(%source, "credentials read again");
                (state.client, state.files) = (Some(client), files);
                (state.source, state.server) = (source, server);
                state.generation += 1;
            }
            Err(problem) => tracing::warn!(%problem, "credentials cannot be read again, going on with the old"),
        }
    }
}

fn stamped(files: Vec<PathBuf>) -> Vec<(PathBuf, Stamp)> {
    files.into_iter().map(|path| (path.clone(), stamp_of(&path))).collect()
}

fn stamp_of(path: &PathBuf) -> Stamp {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// Why there is no client.
enum Refused {
    /// A field is wrong, or a file cannot be read.
    Wrong(String),
    /// A program that the kubeconfig names did not give credentials this time.
    Later(String),
}

impl Refused {
    fn problem(self) -> String {
        let (Self::Wrong(problem) | Self::Later(problem)) = self;
        problem
    }
}

/// A client of these credentials. Apart from the runtime's thread, as a kubeconfig may name a program to run.
async fn client(loaded: Loaded, agent: &str) -> Result<kube::Client, Refused> {
    let agent = agent.to_owned();
    let has_program = loaded.config.auth_info.exec.is_some();
    let made = tokio::task::spawn_blocking(move || {
        let _runtime = tokio::runtime::Handle::current().enter();
        stack(&loaded.config, &agent)
    });
    let made = made.await.map_err(|e| Refused::Later(e.to_string()))?;
    made.map_err(|e| match e {
        kube::Error::Auth(kube::client::AuthError::AuthExecStart(_)) => Refused::Wrong(chain(&e)),
        kube::Error::Auth(_) if has_program => Refused::Later(chain(&e)),
        _ => Refused::Wrong(chain(&e)),
    })
}

/// Like the client that `kube` makes by default, but over HTTP/2, so that all watches and calls share one connection, and
/// with a sign of life from it. No timeouts here: each call has its own.
fn stack(config: &Config, agent: &str) -> Result<kube::Client, kube::Error> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT));
    tcp.set_keepalive(Some(PING));
    tcp.set_tcp_user_timeout(Some(PING + PONG));
    let mut tls =
        hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(config.rustls_client_config()?).https_or_http();
    if let Some(name) = &config.tls_server_name {
        let name = name
            .clone()
            .try_into()
            .map_err(|e| kube::Error::RustlsTls(kube::client::RustlsTlsError::InvalidServerName(e)))?;
        tls = tls.with_server_name_resolver(hyper_rustls::FixedServerNameResolver::new(name));
    }
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_keep_alive_interval(PING)
        .http2_keep_alive_timeout(PONG)
        .http2_keep_alive_while_idle(true)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .build::<_, Body>(tls.enable_all_versions().wrap_connector(tcp));
    let mut config = config.clone();
    let agent = agent.parse().map_err(|e: http::header::InvalidHeaderValue| kube::Error::HttpError(e.into()))?;
    config.headers.push((http::header::USER_AGENT, agent));
    let service = tower::ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(tower::BoxError::from)
        .service(http);
    Ok(kube::Client::new(service, config.default_namespace))
}
