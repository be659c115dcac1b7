//! A kube-apiserver with an etcd behind it.

use crate::ports::free_port;
use crate::process::Process;
use crate::{Authority, Etcd, Identity, asset};
use anyhow::{Context, ensure};
use serde_json::json;
use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// The first of the services' addresses, by which pods find the API server.
pub const KUBERNETES_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const SERVICES: &str = "10.0.0.0/24";

/// A kube-apiserver on loopback: RBAC, no controller manager, no scheduler, so pods need no service account, and a namespace that is
/// deleted stays. Or one that nodes can join, with both.
pub struct ApiServer {
    controllers: Vec<Process>,
    process: Process,
    etcd: Etcd,
    authority: Authority,
    kubectl: PathBuf,
    address: Ipv4Addr,
    port: u16,
    directory: TempDir,
}

/// For whom it is.
enum Clients<'a> {
    /// Clients on this machine, with further arguments.
    Local(&'a [&'a str]),
    /// Nodes, which reach this address.
    Nodes(Ipv4Addr),
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
        Self::start_for(&Clients::Local(more))
    }

    /// Starts what a cluster with kubelets needs: the API server at an address of this network namespace, the controller manager and the
    /// scheduler. Pods have service accounts; a node may write what is its own.
    ///
    /// # Errors
    /// As [`ApiServer::start`].
    pub fn start_for_nodes(address: Ipv4Addr) -> anyhow::Result<Self> {
        let mut server = Self::start_for(&Clients::Nodes(address))?;
        server.controllers = vec![server.controller_manager()?, server.scheduler()?];
        Ok(server)
    }

    fn start_for(clients: &Clients<'_>) -> anyhow::Result<Self> {
        let (program, kubectl) = (asset("kube-apiserver")?, asset("kubectl")?);
        let etcd = Etcd::start(&asset("etcd")?)?;
        let directory = tempfile::tempdir().context("making a directory for the API server")?;
        let authority = Authority::new(directory.path())?;
        let port = free_port()?;
        let admin = authority.client("admin", &["system:masters"])?;
        let mut arguments = arguments(directory.path(), &etcd, &authority, port)?;
        let address = match clients {
            Clients::Local(more) => {
                arguments.extend(local(&authority, more)?);
                Ipv4Addr::LOCALHOST
            }
            Clients::Nodes(address) => {
                arguments.extend(for_nodes(&authority, *address, &admin)?);
                *address
            }
        };
        let process = Process::new("kube-apiserver", program, arguments, directory.path());
        let mut server = Self { controllers: Vec::new(), process, etcd, authority, kubectl, address, port, directory };
        server.write_kubeconfig("admin")?;
        server.start_again()?;
        Ok(server)
    }

    /// Where clients find it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}:{}", self.address, self.port)
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Certificate of who signs its clients' certificates, and its own.
    #[must_use]
    pub fn authority(&self) -> &Path {
        &self.authority.certificate
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

impl ApiServer {
    /// Ready once there are service accounts: it makes them.
    fn controller_manager(&self) -> anyhow::Result<Process> {
        let user = "system:kube-controller-manager";
        let arguments = vec![
            path("kubeconfig", &self.kubeconfig_of(user, &[])?),
            path("service-account-private-key-file", &self.directory.path().join("tokens.key")),
            path("root-ca-file", &self.authority.certificate),
            "--use-service-account-credentials=true".to_owned(),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
        ];
        let program = asset("kube-controller-manager")?;
        let mut process = Process::new("kube-controller-manager", program, arguments, self.directory.path());
        let account = ["get", "serviceaccount", "default", "--namespace", "default"];
        process.start(|| self.kubectl(&account).is_ok_and(|output| output.status.success()))?;
        Ok(process)
    }

    /// That it works shows when something is scheduled.
    fn scheduler(&self) -> anyhow::Result<Process> {
        let kubeconfig = self.kubeconfig_of("system:kube-scheduler", &[])?;
        let arguments =
            vec![path("kubeconfig", &kubeconfig), "--leader-elect=false".to_owned(), "--secure-port=0".to_owned()];
        let mut process = Process::new("kube-scheduler", asset("kube-scheduler")?, arguments, self.directory.path());
        process.start(|| true)?;
        Ok(process)
    }
}

/// For whoever is there.
fn arguments(directory: &Path, etcd: &Etcd, authority: &Authority, port: u16) -> anyhow::Result<Vec<String>> {
    let (token_key, token_public) = authority.token_key()?;
    Ok(vec![
        format!("--etcd-servers={}", etcd.url()),
        format!("--secure-port={port}"),
        path("cert-dir", directory),
        path("client-ca-file", &authority.certificate),
        format!("--service-account-issuer=https://127.0.0.1:{port}/"),
        path("service-account-key-file", &token_public),
        path("service-account-signing-key-file", &token_key),
        "--allow-privileged=true".to_owned(),
        format!("--service-cluster-ip-range={SERVICES}"),
    ])
}

fn local(authority: &Authority, more: &[&str]) -> anyhow::Result<Vec<String>> {
    let mut arguments = serving(authority, Ipv4Addr::LOCALHOST)?;
    arguments.push("--authorization-mode=RBAC".to_owned());
    // Nobody makes the service accounts that it would ask for.
    arguments.push("--disable-admission-plugins=ServiceAccount".to_owned());
    arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
    Ok(arguments)
}

/// `admin`: as whom it asks kubelets.
fn for_nodes(authority: &Authority, address: Ipv4Addr, admin: &Identity) -> anyhow::Result<Vec<String>> {
    let mut arguments = serving(authority, address)?;
    arguments.push("--authorization-mode=Node,RBAC".to_owned());
    arguments.push("--enable-admission-plugins=NodeRestriction".to_owned());
    // Nobody resolves the nodes' names.
    arguments.push("--kubelet-preferred-address-types=InternalIP".to_owned());
    arguments.push(path("kubelet-client-certificate", &admin.certificate));
    arguments.push(path("kubelet-client-key", &admin.key));
    Ok(arguments)
}

fn serving(authority: &Authority, address: Ipv4Addr) -> anyhow::Result<Vec<String>> {
    let Identity { certificate, key } = authority.server("kube-apiserver", &[address, KUBERNETES_SERVICE])?;
    Ok(vec![
        format!("--bind-address={address}"),
        format!("--advertise-address={address}"),
        path("tls-cert-file", &certificate),
        path("tls-private-key-file", &key),
    ])
}

fn path(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}
