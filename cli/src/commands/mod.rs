//! One file per command.

mod apply;
mod columns;
mod crds;
mod delete;
mod drain;
mod explain;
mod get;
mod install;
mod ipam;
mod policy;
mod ready;
mod routing;
mod status;
mod uninstall;

use crate::args::{Args, Command};
use clap::CommandFactory;
use std::process::ExitCode;

/// Exit code of an answer that reports something wrong, denied or different.
pub(crate) const DEGRADED: u8 = 2;

/// Runs what the command line asks for.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Bgpd(args) => twill_bgpd::run(args),
        Command::Felix(args) => twill_felix::run(args),
        Command::Lab(args) => twill_lab::run(args),
        Command::Apply(args) => apply::run(&args),
        Command::Get(args) => get::run(&args),
        Command::Delete(args) => delete::run(&args),
        Command::Drain(args) => drain::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Status { node, output } => status::run(&node, output.output),
        Command::Peers { node, output } => routing::peers(&node, output.output),
        Command::Routes { prefix, node, output } => routing::routes(&node, prefix, output.output),
        Command::Ready(args) => ready::run(&args),
        Command::Install(args) => install::run(&args),
        Command::Uninstall(args) => uninstall::run(&args),
        Command::Ipam(command) => ipam::run(command),
        Command::Policy(command) => policy::run(command),
        Command::Crds { output } => crds::run(output),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "twill", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// 0 if all is well, else [`DEGRADED`].
pub(crate) fn exit(well: bool) -> ExitCode {
    if well { ExitCode::SUCCESS } else { ExitCode::from(DEGRADED) }
}
