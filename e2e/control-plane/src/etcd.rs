//! An etcd of one member.

use crate::ports::free_port;
use crate::process::Process;
use crate::{Authority, Identity};
use anyhow::Context;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// An etcd of one member on loopback.
pub struct Etcd {
    process: Process,
    port: u16,
    tls: Option<Tls>,
    directory: TempDir,
}

/// A server that shows a certificate and asks for one.
struct Tls {
    authority: Authority,
}

impl Etcd {
    /// Starts one without TLS: `program` as [`crate::asset`] or [`crate::distribution_etcd`] give it.
    ///
    /// # Errors
    /// It does not start; with its last words.
    pub fn start(program: &Path) -> anyhow::Result<Self> {
        Self::start_with(program, false)
    }

    /// Starts one that speaks TLS alone, and only with clients that [`Etcd::authority`] signed.
    ///
    /// # Errors
    /// It does not start; with its last words.
    pub fn start_with_tls(program: &Path) -> anyhow::Result<Self> {
        Self::start_with(program, true)
    }

    fn start_with(program: &Path, tls: bool) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir().context("making a directory for etcd")?;
        let (port, peer) = (free_port()?, free_port()?);
        let mut arguments = arguments(directory.path(), port, peer, tls);
        let tls = if tls {
            let authority = Authority::new(directory.path())?;
            let Identity { certificate, key } = authority.server("etcd", &[])?;
            let path = |path: &PathBuf| path.display().to_string();
            arguments.push(format!("--cert-file={}", path(&certificate)));
            arguments.push(format!("--key-file={}", path(&key)));
            arguments.push(format!("--trusted-ca-file={}", path(&authority.certificate)));
            arguments.push("--client-cert-auth=true".to_owned());
            Some(Tls { authority })
        } else {
            None
        };
        let process = Process::new("etcd", program.to_owned(), arguments, directory.path());
        let mut etcd = Self { process, port, tls, directory };
        etcd.start_again()?;
        Ok(etcd)
    }

    /// Where clients find it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", if self.tls.is_some() { "https" } else { "http" }, self.port)
    }

    /// Who signs its clients' certificates, where it speaks TLS.
    #[must_use]
    pub fn authority(&self) -> Option<&Authority> {
        self.tls.as_ref().map(|tls| &tls.authority)
    }

    /// Its directory, which is gone with it.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Ends it as a power cut does.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it at the same place, with what it had.
    ///
    /// # Errors
    /// It does not start; with its last words.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        let port = self.port;
        self.process.start(|| answers(port))
    }

    /// It answers nobody, and its connections stay.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// After [`Etcd::pause`].
    pub fn resume(&self) {
        self.process.resume();
    }

    /// Its process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }
}

/// Common to 3.4 and later.
fn arguments(directory: &Path, port: u16, peer: u16, tls: bool) -> Vec<String> {
    let client = format!("{}://127.0.0.1:{port}", if tls { "https" } else { "http" });
    let peer = format!("http://127.0.0.1:{peer}");
    vec![
        "--name=default".to_owned(),
        format!("--data-dir={}", directory.join("data").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        "--logger=zap".to_owned(),
        "--log-level=warn".to_owned(),
    ]
}

/// It listens to clients only once it takes part in its cluster.
fn answers(port: u16) -> bool {
    TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), Duration::from_secs(1)).is_ok()
}
