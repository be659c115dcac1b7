//! A speaker that runs alone from a file: signals, reload, control socket.

use super::{Beside, ControlSocket, Extras, SpeakerHandle, bfd, metrics};
use crate::config::LoneConfig;
use crate::fib;
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tracing::{error, info, warn};
use twill_crds::control::{BgpdRequest, BgpdStatus, Waited};

/// Reads and checks the file.
///
/// # Errors
/// One sentence with the name of the file.
pub(crate) fn read(path: &Path) -> anyhow::Result<LoneConfig> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    match LoneConfig::parse(&text) {
        Ok(config) => Ok(config),
        Err(error) => bail!("{}: {error}", path.display()),
    }
}

/// Runs until SIGTERM or SIGINT, then leaves as for a graceful restart: no NOTIFICATION, kernel routes stay. If the machine goes down, its
/// peers hear Cease.
pub(crate) async fn run(
    path: &Path,
    socket: Option<&Path>,
    run_dir: &Path,
    extras: Extras,
    seed: u64,
) -> anyhow::Result<()> {
    let mut config = read(path)?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot receive SIGHUP")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot receive SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot receive SIGINT")?;
    let control = match socket {
        Some(path) => Some(ControlSocket::bind(path).await?),
        None => None,
    };
    let client = format!("bgpd {}", std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display());
    let responder = bfd::Responder { run_dir: run_dir.to_owned(), client, start: true };
    let beside = Beside { responder: Some(responder), recorder: extras.recorder };
    let handle = SpeakerHandle::start_with(config.install_routes.then(|| fib_config(&config)), beside, seed)
        .context("cannot start the speaker's threads")?;
    handle.reconfigure(config.speaker.clone()).await;
    info!(asn = config.speaker.asn, router_id = %config.speaker.router_id, "speaker started");
    let left = Arc::new(Notify::new());
    let answers = (handle.clone(), left.clone());
    let serve = async {
        match &control {
            Some(control) => control.serve(move |request| answer(answers.clone(), request)).await,
            None => std::future::pending().await,
        }
    };
    let measure = metrics::serve(extras.metrics, handle.clone(), None);
    tokio::pin!(serve, measure);
    loop {
        tokio::select! {
            _ = hangup.recv() => reload(path, &mut config, &handle).await,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = left.notified() => return Ok(()),
            () = &mut serve => {}
            () = &mut measure => {}
        }
    }
    handle.leave(super::system::farewell(false).await).await;
    Ok(())
}

async fn reload(path: &Path, config: &mut LoneConfig, handle: &SpeakerHandle) {
    let mut new = match read(path) {
        Ok(new) => new,
        Err(error) => return error!("not reloaded, the configuration before stays in force: {error}"),
    };
    if (new.install_routes, new.route_protocol) != (config.install_routes, config.route_protocol) {
        warn!("installRoutes and routeProtocol take effect at the next start; all else does now");
        (new.install_routes, new.route_protocol) = (config.install_routes, config.route_protocol);
    }
    *config = new;
    if let Some(fib) = handle.fib() {
        fib.configure(fib_config(config));
    }
    handle.reconfigure(config.speaker.clone()).await;
    info!("reloaded");
}

fn fib_config(config: &LoneConfig) -> fib::Config {
    fib::Config {
        install: true,
        alone: true,
        complete: true,
        peers: config.speaker.peers.values().map(|peer| peer.address).collect::<std::collections::BTreeSet<IpAddr>>(),
        protocol: config.route_protocol,
        ..fib::Config::default()
    }
}

async fn answer((handle, left): (SpeakerHandle, Arc<Notify>), request: BgpdRequest) -> Value {
    match request {
        BgpdRequest::Status => json!(status(&handle).await),
        // Alone there is no datastore, and so nothing to wait for.
        BgpdRequest::Wait { .. } => json!(Waited { applied: true, status: status(&handle).await }),
        BgpdRequest::Peers => json!(handle.peers().await.0),
        BgpdRequest::Routes(query) => json!(handle.routes(query).await),
        BgpdRequest::Leave => {
            info!("leaving on request: sessions are closed with Cease, kernel routes stay");
            let status = status(&handle).await;
            handle.announce_leaving().await;
            handle.leave(super::shutdown("removed by its operator")).await;
            left.notify_one();
            json!(status)
        }
    }
}

async fn status(handle: &SpeakerHandle) -> BgpdStatus {
    let (peers, mut problems) = handle.peers().await;
    let fib = handle.fib_status().borrow().clone();
    problems.extend(fib.problems.into_iter().map(|problem| problem.text));
    BgpdStatus {
        in_sync: true,
        peers: peers.len() as u32,
        established: peers.iter().filter(|peer| peer.state == "Established").count() as u32,
        repairs: fib.repairs,
        problems,
        ..BgpdStatus::default()
    }
}
