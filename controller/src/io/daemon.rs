//! The process: it answers on its socket, seeks the Lease, and while it has it, leads.

use super::lead::{Candidate, News};
use super::server::ControlSocket;
use super::term;
use crate::plan::Controller;
use anyhow::Context;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use twill_crds::control::ControllerStatus;
use twill_crds::names::{CONTROLLER_LEASE, CONTROLLER_SOCKET, RUN_DIR};
use twill_datastore::Datastore;

/// Frees what deleted nodes left, and writes the status of pools and peers. Several may run; one leads.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// URL of the datastore, e.g. kubernetes: or sqlite:/var/lib/twill/cluster.db
    #[arg(long, env = "TWILL_DATASTORE")]
    pub datastore: String,
    /// Directory of the socket
    #[arg(long, env = "TWILL_RUN_DIR", default_value = RUN_DIR)]
    pub run_dir: PathBuf,
    /// Namespace of the Lease by which one controller leads
    #[arg(long, env = "POD_NAMESPACE", default_value = "kube-system")]
    pub namespace: String,
    /// How long a node must be gone, and no pod name it, before its blocks are freed, e.g. 15m
    #[arg(long, default_value = "15m", value_parser = duration)]
    pub quarantine: Duration,
    /// Seconds that the Lease lasts without renewal, for tests
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=3600), hide = true)]
    pub lease: u16,
}

/// Runs until SIGTERM or SIGINT, and then lets the Lease go.
///
/// # Errors
/// What could not be started, in one sentence.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(serve(args));
    runtime.shutdown_background();
    outcome.map(|()| ExitCode::SUCCESS)
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot receive SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot receive SIGINT")?;
    let control = ControlSocket::bind(&args.run_dir.join(CONTROLLER_SOCKET)).await?;
    let identity = identity()?;
    let store = Datastore::open_existing_as(&args.datastore, "controller").await?;
    let mut candidate = Candidate::new(store.clone(), &args.namespace, CONTROLLER_LEASE, &identity, args.lease);
    let waiting = ControllerStatus { identity: identity.clone(), ..ControllerStatus::default() };
    let (board, status) = watch::channel(waiting.clone());
    tracing::info!(%identity, "controller started");
    let show = |controller: &Controller| drop(board.send_replace(leading(&identity, controller)));
    let led = candidate.run(
        |tenure| term::lead(&store, args.quarantine, tenure, show),
        |news| drop(board.send_replace(following(&waiting, news))),
    );
    tokio::select! {
        () = led => {}
        () = control.serve(status) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    candidate.release().await;
    tracing::info!("controller stopped");
    Ok(())
}

fn leading(identity: &str, controller: &Controller) -> ControllerStatus {
    let in_sync = controller.world().in_sync();
    let mut problems = controller.problems().to_vec();
    if !in_sync {
        problems.push("the controller has not heard all of the datastore yet".to_owned());
    }
    ControllerStatus {
        identity: identity.to_owned(),
        leading: true,
        leader: Some(identity.to_owned()),
        in_sync,
        freed: controller.freed_blocks(),
        gone: u32::try_from(controller.gone_nodes()).unwrap_or(u32::MAX),
        problems,
    }
}

fn following(waiting: &ControllerStatus, news: News) -> ControllerStatus {
    match news {
        News::Leader(leader) => {
            ControllerStatus { in_sync: true, leader: (!leader.is_empty()).then_some(leader), ..waiting.clone() }
        }
        News::Unknown(problem) => {
            let problems = vec![format!("who leads is not known: {problem}")];
            ControllerStatus { problems, ..waiting.clone() }
        }
    }
}

/// Another one in each life of a process. People find the machine in it.
fn identity() -> anyhow::Result<String> {
    let host = nix::unistd::gethostname().context("reading the host name")?;
    Ok(format!("{}_{}", host.to_string_lossy(), uuid::Uuid::new_v4()))
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|length| Duration::try_from(length).ok());
    parsed.ok_or_else(|| "is no duration; write e.g. 15m or 90s".to_owned())
}
