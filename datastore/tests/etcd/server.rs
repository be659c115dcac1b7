//! etcd of this machine on loopback, with its data in a temporary directory; killed when dropped.

use etcd_client::Client;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use twill_control_plane::free_port;

pub struct Server {
    pub directory: TempDir,
    pub port: u16,
    pub scheme: &'static str,
    peer: u16,
    name: String,
    cluster: String,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Server {
    /// Started, and ready for calls.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    pub async fn with(arguments: &[&str]) -> Self {
        let mut server = Self::prepared(arguments);
        server.run().await;
        server
    }

    /// Not started.
    pub fn prepared(arguments: &[&str]) -> Self {
        let [port, peer] = std::array::from_fn(|_| free_port().unwrap());
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let cluster = format!("t=http://127.0.0.1:{peer}");
        let directory = tempfile::tempdir().unwrap();
        Self { directory, port, scheme: "http", peer, name: "t".into(), cluster, arguments, child: None }
    }

    /// As a member of a cluster, before it is started.
    pub fn join(&mut self, name: &str, cluster: &str) {
        (self.name, self.cluster) = (name.to_owned(), cluster.to_owned());
    }

    /// More arguments, before it is started.
    pub fn add(&mut self, arguments: &[&str]) {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
    }

    pub fn url(&self) -> String {
        format!("etcd:{}", self.endpoint())
    }

    pub fn endpoint(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    pub fn peer(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer)
    }

    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Starts it, again after [`Server::kill`].
    pub async fn run(&mut self) {
        self.spawn();
        self.ready().await;
    }

    pub fn spawn(&mut self) {
        let program = std::env::var("TWILL_ETCD").unwrap_or_else(|_| "etcd".into());
        let log = std::fs::File::create(self.directory.path().join("log")).unwrap();
        let (clients, peers) = (self.endpoint(), self.peer());
        // It must not outlive a test that is killed.
        let mut command = Command::new("setpriv");
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.args(["--pdeathsig", "KILL", "--", &program, "--data-dir"]).arg(self.data());
        command.args(["--name", &self.name, "--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
        command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
        command.args(["--initial-cluster", &self.cluster]).args(&self.arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    pub async fn ready(&mut self) {
        let start = Instant::now();
        while !log_of(self.directory.path()).contains("ready to serve client requests")
            && start.elapsed().as_secs() < 30
        {
            let exited = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(
                exited.is_none(),
                "etcd ended (none? apt-get install etcd-server): {}",
                log_of(self.directory.path())
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(start.elapsed().as_secs() < 30, "etcd does not come: {}", log_of(self.directory.path()));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// As a power cut would.
    pub fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.as_ref().unwrap().id() as i32)
    }

    /// etcd's own interface.
    pub async fn raw(&self) -> Client {
        Client::connect([self.endpoint()], None).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn log_of(directory: &Path) -> String {
    std::fs::read_to_string(directory.join("log")).unwrap_or_default()
}
