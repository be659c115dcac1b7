//! The BGP speaker: of a node, from the datastore, or alone, from a file. In flow peers' UPDATEs, the cluster's objects
//! and the kernel's state; out flow UPDATEs, kernel routes and tunnel devices.
//!
//! ```text
//! sockets ─io─▶ wire, fsm ─batches─▶ speaker (rib, decision, export) ─messages─▶ io ─▶ sockets
//!                                          │
//!                                          └─changes─▶ fib ─▶ io::netlink ─▶ kernel
//! ```

pub mod bfd;
pub mod bmp;
mod bucket;
pub mod cluster;
pub mod config;
pub mod fib;
pub mod filter;
pub mod fsm;
pub mod io;
mod metrics;
pub mod mrt;
pub mod nd;
pub mod probe;
mod random;
pub mod replay;
pub mod rib;
pub mod scoped;
pub mod speaker;
pub mod wire;

pub use io::cluster::{LOOK_AT_SERVER, files, report_status, streams};

use anyhow::Context;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use twill_crds::control::{RouteQuery, RouteStatus};

/// `twill bgpd`: the speaker of a node (`--node`), or one that runs alone (`--config`).
#[derive(Clone, Debug, clap::Args)]
#[command(override_usage = "twill bgpd [OPTIONS]\n       twill bgpd --config FILE [--check] [--socket PATH]")]
pub struct Args {
    /// Run alone, as a router, from this YAML file; node and datastore are not looked at then.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Only check the file of --config; exit 0 if it is valid.
    #[arg(long, requires = "config")]
    pub check: bool,
    /// Control socket of a speaker that runs alone.
    #[arg(long, value_name = "PATH", requires = "config")]
    pub socket: Option<PathBuf>,
    /// Serve this node of a cluster.
    #[arg(long, value_name = "NAME", env = "TWILL_NODE")]
    pub node: Option<String>,
    /// The cluster's datastore: sqlite:/path/to/file.db, etcd:https://HOST:2379?ca=FILE&cert=FILE&key=FILE or kubernetes:[/path/to/kubeconfig]
    #[arg(long, value_name = "URL", env = "TWILL_DATASTORE")]
    pub datastore: Option<String>,
    /// Twill's own namespace, where the Secrets with passwords of sessions are.
    #[arg(long, value_name = "NAME", env = "TWILL_NAMESPACE", default_value = twill_crds::names::NAMESPACE)]
    pub namespace: String,
    /// Directory of the node's control sockets; a speaker that runs alone finds the BFD process there, or starts it.
    #[arg(long, value_name = "DIR", env = "TWILL_RUN_DIR", default_value = twill_crds::names::RUN_DIR)]
    pub run_dir: PathBuf,
    /// Start `twill bfd` where a peer is to have it and none answers; it outlives this process, and ends when it is not wanted any more.
    /// With --config it is always so.
    #[arg(long)]
    pub start_bfd: bool,
    /// Record all sessions in this file, as MRT (RFC 6396); `twill routes --replay` plays it.
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    pub record: Option<PathBuf>,
    /// Answer Prometheus at http://ADDRESS:PORT/metrics.
    #[arg(long, value_name = "ADDRESS:PORT", env = "TWILL_BGPD_METRICS")]
    pub metrics: Option<SocketAddr>,
    /// Directory of what is kept over a restart.
    #[arg(long, value_name = "DIR", env = "TWILL_STATE_DIR", default_value = twill_crds::names::STATE_DIR)]
    pub state_dir: PathBuf,
}

/// `twill bfd`: the process that speaks BFD for this node's bgpd, and outlives it.
#[derive(Clone, Debug, clap::Args)]
pub struct BfdArgs {
    /// Directory of the control socket.
    #[arg(long, value_name = "DIR", env = "TWILL_RUN_DIR", default_value = twill_crds::names::RUN_DIR)]
    pub run_dir: PathBuf,
    /// End when nobody has wanted a session for ten seconds.
    #[arg(long)]
    pub while_wanted: bool,
}

/// Runs the BFD process until told to stop by a signal.
///
/// # Errors
/// One sentence that says what is wrong with the machine, or who is there already.
pub fn run_bfd(args: &BfdArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(io::bfd::run(&args.run_dir, args.while_wanted, io::seed()))?;
    Ok(ExitCode::SUCCESS)
}

/// Exit code of a command line that is not complete.
const USAGE: u8 = 3;

/// Runs until told to stop by a signal.
///
/// # Errors
/// One sentence that says what is wrong with the arguments, the file, or the machine.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let Some(config) = &args.config else {
        let (Some(node), Some(url)) = (&args.node, &args.datastore) else {
            eprintln!(
                "twill: bgpd needs --node (TWILL_NODE) and --datastore (TWILL_DATASTORE) to serve a node, or --config to run alone"
            );
            return Ok(ExitCode::from(USAGE));
        };
        let responder =
            io::bfd::Responder { run_dir: args.run_dir.clone(), client: "bgpd".to_owned(), start: args.start_bfd };
        let extras = extras(&args)?;
        let place = (node.as_str(), args.namespace.as_str());
        runtime.block_on(io::cluster::run(place, url, responder, extras, &args.state_dir, io::seed()))?;
        return Ok(ExitCode::SUCCESS);
    };
    if args.check {
        io::lone::read(config)?;
        return Ok(ExitCode::SUCCESS);
    }
    runtime.block_on(io::lone::run(config, args.socket.as_deref(), &args.run_dir, extras(&args)?, io::seed()))?;
    Ok(ExitCode::SUCCESS)
}

fn extras(args: &Args) -> anyhow::Result<io::Extras> {
    let begin = |path: &PathBuf| {
        io::Recorder::begin(path).with_context(|| format!("--record: cannot write {}", path.display()))
    };
    let bind = |address: &SocketAddr| {
        io::Metrics::bind(*address).with_context(|| format!("--metrics: cannot listen on {address}"))
    };
    Ok(io::Extras {
        recorder: args.record.as_ref().map(begin).transpose()?,
        metrics: args.metrics.as_ref().map(bind).transpose()?,
    })
}

/// Routes that a speaker with the configuration of one file would have after the sessions that another one records, and what of those could
/// not be played.
///
/// # Errors
/// One sentence about the file that is wrong, or the peer that is not there.
pub fn replay(config: &Path, recording: &Path, query: &RouteQuery) -> anyhow::Result<(Vec<RouteStatus>, Vec<String>)> {
    let config = io::lone::read(config)?.speaker;
    if let Some(name) = query.peer.as_ref().filter(|name| !config.peers.contains_key(*name)) {
        anyhow::bail!("--peer {name}: there is no such peer in the configuration");
    }
    let bytes = std::fs::read(recording).with_context(|| format!("cannot read {}", recording.display()))?;
    let played = replay::play(config, &bytes);
    let played = played.map_err(|problem| anyhow::anyhow!("{}: {problem}", recording.display()))?;
    Ok((played.speaker.routes(query), played.problems))
}
