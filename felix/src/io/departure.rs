//! The end of Twill on this node, as `twill uninstall --cluster` asks for it: in flows this node's NodeNetwork, out flows one command.
//!
//! felix becomes the uninstaller instead of starting one: the process stays the one that its supervisor looks after, which kills
//! whatever else is left of a service, or of a container, when that has ended. Its log goes on.

use crate::io::daemon::Args;
use crate::io::removal;
use anyhow::Context;
use futures::StreamExt;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use twill_crds::control::BgpdRequest;
use twill_crds::names::BGPD_SOCKET;
use twill_crds::{NodeNetwork, Object};
use twill_datastore::{Datastore, Filter, Followed, follow};

/// This executable, also if its file was replaced meanwhile.
const OWN: &str = "/proc/self/exe";
/// How long bgpd may take to say that it lives.
const PATIENCE: Duration = Duration::from_secs(5);
/// After a hindrance.
const AGAIN: Duration = Duration::from_secs(10);

/// File in the state directory that says, while an uninstall is under way, what the datastore knows this node by.
pub const UNDER_WAY: &str = "uninstall";

/// Returns when the node's NodeNetwork says that Twill is to be removed. Beside the kinds that policy and addresses come from: no ADD
/// waits for it.
pub async fn asked(datastore: &Datastore, node: &str) {
    let own = Filter { fields: vec![("metadata.name".to_owned(), node.to_owned())], ..Filter::default() };
    let mut told = follow::<NodeNetwork>(datastore, own);
    while let Some(step) = told.next().await {
        let asked = match &step {
            Followed::Synced { items, .. } => items.iter().any(|object| is_asked(object, node)),
            Followed::Applied(object, _) => is_asked(object, node),
            Followed::Deleted(..) | Followed::Bookmark(_) => false,
        };
        if asked {
            return;
        }
    }
    // It never ends; if it did, nobody would be asked.
    std::future::pending().await
}

/// Waits until nothing hinders the uninstaller at its first steps: once felix has ended for it, nobody would attach pods here any more.
pub async fn unhindered(args: &Args) {
    while let Err(hindrance) = beginning(args).await {
        tracing::error!(%hindrance, "Twill is to be removed from this node, and cannot be yet");
        tokio::time::sleep(AGAIN).await;
    }
}

/// # Errors
/// A sentence.
async fn beginning(args: &Args) -> Result<(), String> {
    let path = args.state_dir.join(UNDER_WAY);
    let claimant = removal::claimant(&args.state_dir).unwrap_or_default();
    std::fs::write(&path, format!("{}\n{claimant}\n", args.node))
        .map_err(|error| format!("{} cannot be written: {error}; make room, or make it writable", path.display()))?;
    let socket = args.run_dir.join(BGPD_SOCKET);
    // No bgpd is fine: it has ended already.
    let Ok(stream) = UnixStream::connect(&socket).await else { return Ok(()) };
    let answers = async {
        let (read, mut write) = stream.into_split();
        let mut request = serde_json::to_vec(&BgpdRequest::Status)?;
        request.push(b'\n');
        write.write_all(&request).await?;
        BufReader::new(read).read_line(&mut String::new()).await
    };
    match tokio::time::timeout(PATIENCE, answers).await {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("bgpd on {} does not answer; end it: kill -9", socket.display())),
    }
}

fn is_asked(object: &NodeNetwork, node: &str) -> bool {
    object.name() == node && object.spec.uninstall
}

/// Becomes `twill uninstall` of this node, with the places that felix was given. What it prints goes where felix's log goes.
///
/// # Errors
/// Always: it returns only if the executable cannot be run.
pub fn become_uninstaller(args: &Args) -> anyhow::Result<std::convert::Infallible> {
    let log = std::io::stderr().as_fd().try_clone_to_owned().context("standard error")?;
    let error = Command::new(OWN)
        .arg0("twill")
        .args(["uninstall", "--yes", "--node", &args.node, "--datastore", &args.datastore])
        .arg("--run-dir")
        .arg(&args.run_dir)
        .arg("--state-dir")
        .arg(&args.state_dir)
        .arg("--cni-conf-dir")
        .arg(&args.cni_conf_dir)
        .arg("--cni-bin-dir")
        .arg(&args.cni_bin_dir)
        .stdin(Stdio::null())
        .stdout(Stdio::from(log))
        .exec();
    Err(error).context("twill uninstall cannot be run; run it by hand on this node")
}
