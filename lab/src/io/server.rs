//! The server behind a lab's datastore, where it is no file: an etcd that the lab starts, or the API server of `$KUBECONFIG`.

use crate::file::Datastore;
use crate::io::process;
use crate::names;
use crate::state::{State, Store};
use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long etcd may take to listen.
const START: Duration = Duration::from_secs(30);
/// Where etcd listens on loopback.
const PORTS: Range<u16> = 20_000..30_000;
const NO_PORT: &str = "no port from 20000 to 29999 is free on loopback";

/// Where a new lab's objects will be; nothing is made yet.
///
/// # Errors
/// etcd is not installed, or `$KUBECONFIG` names no API server that the lab's nodes can reach.
pub fn find(datastore: Datastore, lab: &str) -> anyhow::Result<Store> {
    match datastore {
        Datastore::Sqlite => {
            let url = format!("sqlite:{}", names::lab_dir(lab).join("datastore.db").display());
            Ok(Store { url, server: None })
        }
        Datastore::Etcd => {
            etcd()?;
            let port = free_ports(lab).next().context(NO_PORT)?;
            Ok(Store { url: format!("etcd:http://127.0.0.1:{port}"), server: Some(port) })
        }
        Datastore::Kubernetes => {
            let path = kubeconfig()?;
            let text = std::fs::read_to_string(&path).with_context(|| format!("$KUBECONFIG: {}", path.display()))?;
            let port = port_of(&text).with_context(|| format!("$KUBECONFIG: {}", path.display()))?;
            Ok(Store { url: format!("kubernetes:{}", path.display()), server: Some(port) })
        }
    }
}

/// Starts what the lab itself starts.
///
/// # Errors
/// It does not listen in time.
pub fn start(datastore: Datastore, state: &State) -> anyhow::Result<()> {
    let (Datastore::Etcd, Some(port)) = (datastore, state.server) else { return Ok(()) };
    let (dir, mark) = (names::lab_dir(&state.name), names::mark(&state.name));
    let (data, log) = (dir.join("etcd"), dir.join("etcd.log"));
    let peers = free_ports(&state.name).find(|free| *free != port).context(NO_PORT)?;
    let (clients, peers) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peers}"));
    let (data, members) = (data.display().to_string(), format!("{mark}={peers}"));
    let args = [
        ["--name", &mark],
        ["--data-dir", &data],
        ["--listen-client-urls", &clients],
        ["--advertise-client-urls", &clients],
        ["--listen-peer-urls", &peers],
        ["--initial-advertise-peer-urls", &peers],
        ["--initial-cluster", &members],
        ["--logger", "zap"],
    ];
    process::start_here(&etcd()?, args.as_flattened(), &log)?;
    let listens = || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
    let last = || crate::io::daemons::last_line(&log);
    ensure!(process::until(START, listens), "etcd is not ready after {} s: {}", START.as_secs(), last());
    Ok(())
}

fn etcd() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join("etcd")).find(|program| program.is_file());
    found.context("spec.datastore: etcd is not installed here; apt-get install etcd-server, or use sqlite")
}

fn kubeconfig() -> anyhow::Result<PathBuf> {
    let value = std::env::var_os("KUBECONFIG").unwrap_or_default();
    let first = std::env::split_paths(&value).next().filter(|path| !path.as_os_str().is_empty());
    let path = first.context(
        "spec.datastore: kubernetes needs $KUBECONFIG, the kubeconfig of an API server that is there for this lab alone",
    )?;
    Path::new(&path).canonicalize().with_context(|| format!("$KUBECONFIG: {}", path.display()))
}

/// Port of the server that the current context means. Nodes reach it by this machine's loopback.
fn port_of(kubeconfig: &str) -> anyhow::Result<u16> {
    let config: Value =
        serde_saphyr::from_str(kubeconfig).map_err(|error| anyhow::anyhow!("is no kubeconfig: {error}"))?;
    let named = |list: &str, name: &Value| -> Value {
        let all = config[list].as_array().map(Vec::as_slice).unwrap_or_default();
        all.iter().find(|one| one["name"] == *name).cloned().unwrap_or_default()
    };
    let context = named("contexts", &config["current-context"]);
    let server = named("clusters", &context["context"]["cluster"])["cluster"]["server"].clone();
    let Some(server) = server.as_str() else { bail!("its current-context names no cluster with a server") };
    let authority = server.strip_prefix("https://").unwrap_or(server).trim_end_matches('/');
    let port = ["127.0.0.1:", "localhost:"].iter().find_map(|host| authority.strip_prefix(host)?.parse().ok());
    port.with_context(|| {
        format!("server {server} is not at https://127.0.0.1:PORT, by which alone a lab's nodes reach it; forward a port to it")
    })
}

/// Ports of loopback that are free now, from one of the lab's own on. Below those that the kernel gives to whoever asks for any (`ip_local_port_range`): until etcd
/// starts, and whenever it is down, a connection that somebody opens would have it.
fn free_ports(lab: &str) -> impl Iterator<Item = u16> {
    let first = names::hash(lab) % PORTS.len() as u64;
    let of_lab = (PORTS.start + first as u16..PORTS.end).chain(PORTS);
    of_lab.filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const CONFIG: &str = "
current-context: b
contexts:
- {name: a, context: {cluster: other}}
- {name: b, context: {cluster: lab, user: admin}}
clusters:
- {name: other, cluster: {server: 'https://10.0.0.1:6443'}}
- {name: lab, cluster: {server: 'https://127.0.0.1:4711'}}
";

    #[test]
    fn the_current_contexts_server_is_meant_and_must_be_on_loopback() {
        assert_eq!(port_of(CONFIG).unwrap(), 4711);
        assert_eq!(port_of(&CONFIG.replace("127.0.0.1", "localhost")).unwrap(), 4711);
        let refused = |text: &str| port_of(text).unwrap_err().to_string();
        let elsewhere = refused(&CONFIG.replace("current-context: b", "current-context: a"));
        assert!(elsewhere.contains("https://10.0.0.1:6443") && elsewhere.contains("forward a port"), "{elsewhere}");
        assert!(refused("current-context: c").contains("names no cluster"));
        assert!(refused("[").contains("is no kubeconfig"));
    }
}
