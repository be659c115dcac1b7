//! A kube-apiserver with an etcd behind it.

use crate::process::{Process, free_port};
use crate::{Authority, Etcd, Identity, asset};
use anyhow::{Context, ensure};
use serde_json::json;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// A kube-apiserver on loopback: RBAC, no controller manager, no scheduler, so pods need no service account, and a namespace that is
/// deleted stays.
pub struct ApiServer {
    process: Process,
    etcd: Etcd,
    authority: Authority,
    kubectl: PathBuf,
    port: u16,
    directory: TempDir,
}

impl ApiServer {
    /// Starts both.
    ///
    /// # Errors
    /// A program is missing, or does not start; with its last words.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_with(&[])
    }

    /// Starts both, with further arguments for the API server.
    ///
    /// # Errors
    /// As [`ApiServer::start`].
    pub fn start_with(more: &[&str]) -> anyhow::Result<Self> {
        let (program, kubectl) = (asset("kube-apiserver")?, asset("kubectl")?);
        let etcd = Etcd::start(&asset("etcd")?)?;
        let directory = tempfile::tempdir().context("making a directory for the API server")?;
        let authority = Authority::new(directory.path())?;
        let port = free_port()?;
        let mut arguments = arguments(directory.path(), &etcd, &authority, port)?;
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        let process = Process::new("kube-apiserver", program, arguments, directory.path());
        authority.client("admin", &["system:masters"])?;
        let mut server = Self { process, etcd, authority, kubectl, port, directory };
        server.write_kubeconfig("admin")?;
        server.start_again()?;
        Ok(server)
    }

    /// Where clients find it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// A kubeconfig of somebody who may do everything.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("admin.kubeconfig")
    }

    /// A kubeconfig of a user with these groups, who may do what RBAC grants them. The service account NAME of NAMESPACE is the user
    /// `system:serviceaccount:NAMESPACE:NAME` of the groups `system:serviceaccounts`, `system:serviceaccounts:NAMESPACE`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn kubeconfig_of(&self, user: &str, groups: &[&str]) -> anyhow::Result<PathBuf> {
        self.authority.client(user, groups)?;
        self.write_kubeconfig(user)
    }

    fn write_kubeconfig(&self, user: &str) -> anyhow::Result<PathBuf> {
        let file = user.replace([':', '/'], "-");
        let at = |name: String| self.directory.path().join(name).display().to_string();
        let cluster = json!({"server": self.url(), "certificate-authority": self.authority.certificate});
        let who = json!({"client-certificate": at(format!("{file}.crt")), "client-key": at(format!("{file}.key"))});
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": user, "user": who}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
        });
        let path = self.directory.path().join(format!("{file}.kubeconfig"));
        fs::write(&path, config.to_string()).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// Its directory, which is gone with it; `audit.log` and such may be put there.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The etcd behind it.
    pub fn etcd(&mut self) -> &mut Etcd {
        &mut self.etcd
    }

    /// kubectl as admin.
    ///
    /// # Errors
    /// It cannot be started; its exit status is in the output.
    pub fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        self.kubectl_with(&self.kubeconfig(), arguments, "")
    }

    /// kubectl as somebody, with a standard input.
    ///
    /// # Errors
    /// It cannot be started; its exit status is in the output.
    pub fn kubectl_with(&self, kubeconfig: &Path, arguments: &[&str], input: &str) -> anyhow::Result<Output> {
        let mut command = Command::new(&self.kubectl);
        command.env("KUBECONFIG", kubeconfig).env("HOME", self.directory.path()).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("starting kubectl")?;
        // It may not read.
        let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
        child.wait_with_output().context("waiting for kubectl")
    }

    /// Applies manifests, as admin.
    ///
    /// # Errors
    /// What kubectl said.
    pub fn apply(&self, manifests: &str) -> anyhow::Result<()> {
        let output = self.kubectl_with(&self.kubeconfig(), &["apply", "--server-side", "-f", "-"], manifests)?;
        ensure!(output.status.success(), "kubectl apply: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Ends it as a power cut does; its etcd goes on.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it at the same place, with what it had.
    ///
    /// # Errors
    /// It does not start; with its last words.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        let (kubectl, kubeconfig) = (self.kubectl.clone(), self.kubeconfig());
        self.process.start(|| {
            let mut command = Command::new(&kubectl);
            command.env("KUBECONFIG", &kubeconfig).args(["get", "--raw", "/readyz"]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        })
    }

    /// It answers nobody, and its connections stay.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// After [`ApiServer::pause`].
    pub fn resume(&self) {
        self.process.resume();
    }

    /// Its process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }
}

fn arguments(directory: &Path, etcd: &Etcd, authority: &Authority, port: u16) -> anyhow::Result<Vec<String>> {
    let Identity { certificate, key } = authority.server("kube-apiserver")?;
    let (token_key, token_public) = authority.token_key()?;
    let path = |name: &str, path: &Path| format!("--{name}={}", path.display());
    Ok(vec![
        format!("--etcd-servers={}", etcd.url()),
        "--bind-address=127.0.0.1".to_owned(),
        "--advertise-address=127.0.0.1".to_owned(),
        format!("--secure-port={port}"),
        path("cert-dir", directory),
        path("tls-cert-file", &certificate),
        path("tls-private-key-file", &key),
        path("client-ca-file", &authority.certificate),
        "--authorization-mode=RBAC".to_owned(),
        format!("--service-account-issuer=https://127.0.0.1:{port}/"),
        path("service-account-key-file", &token_public),
        path("service-account-signing-key-file", &token_key),
        // Nobody makes the service accounts that it would ask for.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
        "--allow-privileged=true".to_owned(),
        "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
    ])
}
