//! What the tests share that run whole labs: one lab per test, built by the real binary, gone when the test ends.
//!
//! In flow lab files and manifests as text, out flow the answers of `twill lab`. Nothing here looks inside Twill.

pub mod messages;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A lab that is taken down when this is dropped.
pub struct Lab {
    /// Its name.
    pub name: String,
    twill: PathBuf,
    dir: PathBuf,
    environment: Vec<(String, String)>,
}

/// `twill lab status -o json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// URL of the datastore.
    pub datastore: String,
    /// Nodes.
    pub nodes: Vec<Node>,
    /// Pods.
    pub pods: Vec<Pod>,
}

/// A node of [`Status`].
#[derive(Clone, Debug, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its network namespace.
    pub netns: String,
    /// Its addresses.
    pub addresses: Vec<String>,
}

/// A pod of [`Status`].
#[derive(Clone, Debug, Deserialize)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its node.
    pub node: String,
    /// Its network namespace.
    pub netns: String,
    /// Its addresses.
    pub ips: Vec<String>,
    /// Its phase.
    pub phase: String,
}

/// `twill lab probe -o json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Probe {
    /// One per source, target, address and port.
    pub cells: Vec<Cell>,
    /// How many differ.
    pub differences: usize,
}

/// A cell of [`Probe`].
#[derive(Clone, Debug, Deserialize)]
pub struct Cell {
    /// `NAMESPACE/NAME`.
    pub from: String,
    /// `NAMESPACE/NAME`.
    pub to: String,
    /// Port.
    pub port: u16,
    /// `TCP`, `UDP`, `SCTP`.
    pub protocol: String,
    /// `reached` or `denied`.
    pub expected: String,
    /// `reached`, `denied`, `unreachable` or `unsupported`.
    pub observed: String,
    /// Whether both differ.
    pub differs: bool,
    /// Why policy says so.
    pub reason: String,
}

/// Root of the repository.
#[must_use]
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

/// Directory of the example applications: `$TWILL_EXAMPLES`, or `shared/examples` beside the repository.
///
/// # Errors
/// It is not there; says how to name it.
pub fn examples() -> anyhow::Result<PathBuf> {
    let dir = match std::env::var_os("TWILL_EXAMPLES") {
        Some(dir) => PathBuf::from(dir),
        None => repository().join("../shared/examples"),
    };
    ensure!(dir.is_dir(), "{} is no directory; name that of the example applications in TWILL_EXAMPLES", dir.display());
    Ok(dir.canonicalize()?)
}

/// The `twill` of `$TWILL_EXECUTABLE`, or that in the same target directory as this test.
///
/// # Errors
/// It is not built.
pub fn twill() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("TWILL_EXECUTABLE") {
        return Ok(PathBuf::from(path));
    }
    let test = std::env::current_exe()?;
    let dir = test.ancestors().find(|d| d.join("twill").is_file() && d.join("twill-cni").is_file());
    let dir = dir.context("twill and twill-cni are not built; build them with: cargo build -p twill -p twill-cni")?;
    Ok(dir.join("twill"))
}

impl Lab {
    /// Builds the lab of a text; `files` are written beside it. `name` becomes part of the lab's name.
    ///
    /// # Errors
    /// What `twill lab up` says, also if the lab stands and something in it does not work.
    pub fn up(name: &str, lab: &str, files: &[(&str, &str)]) -> anyhow::Result<Self> {
        let new = Self::new(name)?;
        new.up_text(lab, files)?;
        Ok(new)
    }

    /// Builds the lab of a text; `files` are written beside it.
    ///
    /// # Errors
    /// What `twill lab up` says, also if the lab stands and something in it does not work.
    pub fn up_text(&self, lab: &str, files: &[(&str, &str)]) -> anyhow::Result<String> {
        fs::write(self.dir.join("lab.yaml"), lab)?;
        for (file, text) in files {
            fs::write(self.dir.join(file), text)?;
        }
        self.up_file(&self.dir.join("lab.yaml"))
    }

    /// A lab that is not up yet.
    ///
    /// # Errors
    /// No `twill`, or no room for files.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("{name}-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(format!("twill-e2e-{name}"));
        fs::create_dir_all(&dir)?;
        Ok(Self { name, twill: twill()?, dir, environment: Vec::new() })
    }

    /// Its commands have `$KUBECONFIG`.
    #[must_use]
    pub fn with_kubeconfig(self, path: PathBuf) -> Self {
        self.with_environment("KUBECONFIG", &path.display().to_string())
    }

    /// Its commands have a variable, and so have the daemons that they start.
    #[must_use]
    pub fn with_environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Builds the lab of a file.
    ///
    /// # Errors
    /// What `twill lab up` says.
    pub fn up_file(&self, file: &Path) -> anyhow::Result<String> {
        succeeded(self.lab(["up", &file.display().to_string()]).output()?)
    }

    /// `twill lab ARGS --name NAME`, to be run.
    #[must_use]
    pub fn lab<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.twill);
        let mut args = args.into_iter();
        command.arg("lab").args(args.next()).arg("--name").arg(&self.name).args(args);
        command.stdin(Stdio::null()).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command inside a node, router or pod.
    ///
    /// # Errors
    /// It exits with another code than 0.
    pub fn exec(&self, target: &str, command: &[&str]) -> anyhow::Result<String> {
        succeeded(self.exec_command(target, command).output()?)
    }

    /// The same, to be run.
    #[must_use]
    pub fn exec_command(&self, target: &str, command: &[&str]) -> Command {
        self.lab(["exec", target, "--"].iter().chain(command))
    }

    /// `twill ARGS` against the daemons of a node.
    ///
    /// # Errors
    /// It exits with another code than 0.
    pub fn ask(&self, node: &str, args: &[&str]) -> anyhow::Result<String> {
        let twill = self.twill.display().to_string();
        let command = [twill.as_str()].into_iter().chain(args.iter().copied()).collect::<Vec<_>>();
        self.exec(node, &command)
    }

    /// Applies a manifest; that something in the lab does not work is no error here.
    ///
    /// # Errors
    /// What `twill lab apply` says, but for what does not work.
    pub fn apply(&self, manifest: &str) -> anyhow::Result<String> {
        self.with_file("apply", manifest)
    }

    /// Deletes what a manifest names.
    ///
    /// # Errors
    /// What `twill lab delete` says.
    pub fn delete(&self, manifest: &str) -> anyhow::Result<String> {
        self.with_file("delete", manifest)
    }

    fn with_file(&self, verb: &str, manifest: &str) -> anyhow::Result<String> {
        let file = self.dir.join("change.yaml");
        fs::write(&file, manifest)?;
        let output = self.lab([verb, "-f", &file.display().to_string()]).output()?;
        ensure!(matches!(output.status.code(), Some(0 | 2)), "{}", said(&output));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What there is.
    ///
    /// # Errors
    /// What `twill lab status` says.
    pub fn status(&self) -> anyhow::Result<Status> {
        Ok(serde_json::from_str(&succeeded(self.lab(["status", "-o", "json"]).output()?)?)?)
    }

    /// A pod by `NAMESPACE/NAME`.
    ///
    /// # Errors
    /// There is none.
    pub fn pod(&self, name: &str) -> anyhow::Result<Pod> {
        let pods = self.status()?.pods;
        pods.into_iter()
            .find(|p| format!("{}/{}", p.namespace, p.name) == name)
            .with_context(|| format!("no pod {name}"))
    }

    /// Tries every pod to every pod; a difference is no error here.
    ///
    /// # Errors
    /// What `twill lab probe` says, but for differences.
    pub fn probe(&self, args: &[&str]) -> anyhow::Result<Probe> {
        let output = self.lab(["probe", "-o", "json"].iter().chain(args)).output()?;
        ensure!(matches!(output.status.code(), Some(0 | 2)), "{}", said(&output));
        let probe: Probe = serde_json::from_slice(&output.stdout)?;
        ensure!((probe.differences == 0) == output.status.success(), "exit code and differences disagree");
        Ok(probe)
    }
}

impl Lab {
    /// Where a node's kernel does not hold what its felix means it to hold, by `nft`'s reading and by felix's own. None: there is no felix
    /// that means anything.
    fn table_differences(&self, node: &str) -> anyhow::Result<Option<Vec<String>>> {
        let Ok(meant) = self.ask(node, &["policy", "show", "-o", "json"]) else { return Ok(None) };
        let meant: serde_json::Value = serde_json::from_str(&meant)?;
        let kernel = self.exec(node, &["nft", "-j", "list", "table", "inet", "twill"])?;
        let mut found = twill_table_check::differences(&kernel, meant["text"].as_str().unwrap_or_default())?;
        found.extend(meant["differs"].as_array().into_iter().flatten().map(ToString::to_string));
        Ok(Some(found))
    }

    /// Every kernel holds what was meant, at the end of every test, whatever it was about.
    fn hold_to_what_was_meant(&self) -> anyhow::Result<()> {
        // Of a lab that was taken down nothing is meant.
        let Ok(status) = self.status() else { return Ok(()) };
        for node in status.nodes {
            let mut last = String::new();
            let held = within(Duration::from_secs(10), "the kernel holds what was meant", || {
                match self.table_differences(&node.name) {
                    Ok(None) => {
                        println!("{}: no felix, so nothing is meant", node.name);
                        true
                    }
                    Ok(Some(found)) => {
                        last = found.join("\n");
                        found.is_empty()
                    }
                    Err(error) => {
                        last = format!("{error:#}");
                        false
                    }
                }
            });
            held.with_context(|| format!("{}: {last}", node.name))?;
        }
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let held = if std::thread::panicking() { Ok(()) } else { self.hold_to_what_was_meant() };
        let down = self.lab(["down"]).output();
        if !down.as_ref().is_ok_and(|o| o.status.success()) {
            eprintln!("lab {} is left behind: {down:?}", self.name);
        }
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.dir);
        }
        assert!(held.is_ok(), "{held:?}");
    }
}

/// Standard output of a command that succeeded.
///
/// # Errors
/// Its whole output, if it failed.
pub fn succeeded(output: Output) -> anyhow::Result<String> {
    if !output.status.success() {
        bail!("{}", said(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Exit code and standard error of a command that must fail.
///
/// # Errors
/// It succeeded.
pub fn failed(output: Output) -> anyhow::Result<String> {
    ensure!(!output.status.success(), "it should have failed, but said: {}", said(&output));
    Ok(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    format!("{}: {} {}", output.status, text(&output.stdout), text(&output.stderr))
}

/// Waits until `done`, at most `limit`; says how long it took.
///
/// # Errors
/// It was not done in time; `what` says what.
pub fn within(limit: Duration, what: &str, mut done: impl FnMut() -> bool) -> anyhow::Result<Duration> {
    let began = Instant::now();
    while !done() {
        ensure!(began.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(began.elapsed())
}
