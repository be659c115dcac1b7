//! What a container runtime does for one pod: a namespace, and the plugin's process with its environment and configuration.

use anyhow::{Context, bail};
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use twill_crds::{Object, Pod};
use twill_lab::io::netns;
use twill_lab::names::netns_path;

/// A plugin and its configuration.
pub(crate) struct Plugin {
    pub(crate) executable: PathBuf,
    pub(crate) config: Value,
}

/// The namespace of a pod, gone with this.
pub(crate) struct Sandbox {
    netns: String,
    container_id: String,
    args: String,
}

impl Sandbox {
    pub(crate) fn new(pod: &Pod) -> anyhow::Result<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let netns = format!("bench-cni-{}-{number}", std::process::id());
        netns::create(&netns, || Ok(()))?;
        let uid = pod.meta().uid.clone().unwrap_or_default();
        let args = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_UID={uid}",
            pod.namespace(),
            pod.name()
        );
        Ok(Self { netns, container_id: format!("bench{:x}n{number}", std::process::id()), args })
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Err(error) = netns::remove(&self.netns) {
            eprintln!("{error:#}");
        }
    }
}

impl Plugin {
    /// ADD; how long it took.
    pub(crate) fn add(&self, sandbox: &Sandbox) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        self.call("ADD", sandbox)?;
        Ok(begin.elapsed())
    }

    pub(crate) fn del(&self, sandbox: &Sandbox) -> anyhow::Result<()> {
        self.call("DEL", sandbox)
    }

    fn call(&self, command: &str, sandbox: &Sandbox) -> anyhow::Result<()> {
        let name = self.executable.display();
        let mut child = Command::new(&self.executable)
            .env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &sandbox.container_id)
            .env("CNI_NETNS", netns_path(&sandbox.netns))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_ARGS", &sandbox.args)
            .env("CNI_PATH", self.executable.parent().unwrap_or(Path::new("/")))
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| name.to_string())?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        stdin.write_all(self.config.to_string().as_bytes())?;
        drop(stdin);
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            bail!("{name} {command}: {out} {err}");
        }
        Ok(())
    }
}
