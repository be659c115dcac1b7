//! Calls the plugin as a container runtime does: the plugin's executable, the node's conflist, the specification's environment.

use crate::io::process::own_executable;
use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use twill_crds::cni::CniError;
use twill_crds::names::{CNI_CONFLIST, CNI_PLUGIN};

/// A sandbox to attach or detach.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// CNI_NETNS.
    pub netns: PathBuf,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// UID of the pod.
    pub uid: String,
    /// What the pod asks for by capabilities; those that the network does not have are left out.
    pub capabilities: BTreeMap<&'static str, Value>,
}

/// Installs the plugin on a node: its executable, and the network configuration, which says where the node's felix listens. Twice is no
/// error.
///
/// # Errors
/// The disk, or there is no executable.
pub fn install(dir: &Path, felix_socket: &Path) -> anyhow::Result<()> {
    let plugin = plugin(dir);
    let plugins = bin_dir(dir);
    fs::create_dir_all(&plugins).with_context(|| plugins.display().to_string())?;
    match std::os::unix::fs::symlink(executable()?, &plugin) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| plugin.display().to_string());
        }
        _ => {}
    }
    let path = conflist(dir);
    fs::write(&path, twill_crds::cni::conflist(felix_socket, dir)).with_context(|| path.display().to_string())
}

/// Directory of a node's plugins; that of its network configurations is the machine's own.
#[must_use]
pub fn bin_dir(dir: &Path) -> PathBuf {
    dir.join("cni-bin")
}

fn plugin(dir: &Path) -> PathBuf {
    bin_dir(dir).join(CNI_PLUGIN)
}

fn conflist(dir: &Path) -> PathBuf {
    dir.join(CNI_CONFLIST)
}

/// The plugin's executable, which lies beside ours.
///
/// # Errors
/// It is not there.
pub fn executable() -> anyhow::Result<PathBuf> {
    let own = own_executable()?;
    let plugin = own.with_file_name(CNI_PLUGIN);
    ensure!(
        plugin.is_file(),
        "{CNI_PLUGIN} is missing beside {}; build both with: cargo build -p twill -p {CNI_PLUGIN}",
        own.display()
    );
    Ok(plugin)
}

/// ADD: the addresses that the plugin gave.
///
/// # Errors
/// What the plugin says.
pub fn add(dir: &Path, sandbox: &Sandbox) -> anyhow::Result<Vec<IpAddr>> {
    let result = call("ADD", dir, sandbox)?;
    let result: Value = serde_json::from_str(&result).with_context(|| format!("the plugin's result {result:?}"))?;
    let ips = result["ips"].as_array().map(Vec::as_slice).unwrap_or_default();
    let address = |ip: &Value| ip["address"].as_str()?.split('/').next()?.parse().ok();
    let addresses = ips.iter().filter_map(address).collect::<Vec<IpAddr>>();
    ensure!(!addresses.is_empty(), "the plugin gave no address: {result}");
    Ok(addresses)
}

/// DEL. A node from which Twill was uninstalled has nothing to take away any more.
///
/// # Errors
/// What the plugin says.
pub fn del(dir: &Path, sandbox: &Sandbox) -> anyhow::Result<()> {
    if !conflist(dir).exists() {
        return Ok(());
    }
    call("DEL", dir, sandbox).map(drop)
}

fn call(command: &str, dir: &Path, sandbox: &Sandbox) -> anyhow::Result<String> {
    let path = conflist(dir);
    let list = fs::read_to_string(&path).with_context(|| {
        format!(
            "{}: the node has no network configuration; twill lab start NODE felix installs it again",
            path.display()
        )
    })?;
    let mut list: Value = serde_json::from_str(&list).with_context(|| path.display().to_string())?;
    let mut config = list["plugins"][0].take();
    config["name"] = list["name"].take();
    config["cniVersion"] = list["cniVersion"].take();
    let Sandbox { container_id, netns, namespace, pod, uid, capabilities } = sandbox;
    for (name, asked) in capabilities {
        if config["capabilities"][*name] == true {
            config["runtimeConfig"][*name] = asked.clone();
        }
    }
    let args = format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={pod};K8S_POD_INFRA_CONTAINER_ID={container_id};\
         K8S_POD_UID={uid}"
    );
    let mut child = Command::new(plugin(dir))
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", container_id)
        .env("CNI_NETNS", netns)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_ARGS", args)
        .env("CNI_PATH", bin_dir(dir))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context(CNI_PLUGIN)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(config.to_string().as_bytes()).context(CNI_PLUGIN)?;
    }
    let output = child.wait_with_output().context(CNI_PLUGIN)?;
    let stdout = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    match serde_json::from_str::<CniError>(&stdout) {
        Ok(error) if error.details.is_empty() => bail!("CNI {command}: {} (code {})", error.msg, error.code),
        Ok(error) => bail!("CNI {command}: {} (code {}); {}", error.msg, error.code, error.details),
        Err(_) => bail!("CNI {command}: {} {}", stdout, String::from_utf8_lossy(&output.stderr).trim()),
    }
}
