//! The BGP speaker: of a node, from the datastore, or alone, from a file. In flow peers' UPDATEs, the cluster's objects
//! and the kernel's state; out flow UPDATEs, kernel routes and tunnel devices.
//!
//! ```text
//! sockets ─io─▶ wire, fsm ─batches─▶ speaker (rib, decision, export) ─messages─▶ io ─▶ sockets
//!                                          │
//!                                          └─changes─▶ fib ─▶ io::netlink ─▶ kernel
//! ```

pub mod bfd;
pub mod cluster;
pub mod config;
pub mod fib;
pub mod filter;
pub mod fsm;
pub mod io;
mod random;
pub mod rib;
pub mod speaker;
pub mod wire;

pub use io::cluster::{LOOK_AT_SERVER, files, report_status, streams};

use anyhow::Context;
use std::path::PathBuf;
use std::process::ExitCode;

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
    /// Directory of the node's control sockets; a speaker that runs alone finds the BFD process there, or starts it.
    #[arg(long, value_name = "DIR", env = "TWILL_RUN_DIR", default_value = twill_crds::names::RUN_DIR)]
    pub run_dir: PathBuf,
    /// Start `twill bfd` where a peer is to have it and none answers; it outlives this process, and ends when it is not wanted any more.
    /// With --config it is always so.
    #[arg(long)]
    pub start_bfd: bool,
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
        runtime.block_on(io::cluster::run(node, url, responder, &args.state_dir, io::seed()))?;
        return Ok(ExitCode::SUCCESS);
    };
    if args.check {
        io::lone::read(config)?;
        return Ok(ExitCode::SUCCESS);
    }
    runtime.block_on(io::lone::run(config, args.socket.as_deref(), &args.run_dir, io::seed()))?;
    Ok(ExitCode::SUCCESS)
}
