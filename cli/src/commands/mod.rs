//! One file per command.

mod apply;
mod cluster;
mod columns;
mod crds;
mod delete;
mod drain;
mod drops;
mod explain;
mod get;
mod install;
mod ipam;
mod policy;
mod ready;
mod routing;
mod status;
mod trace;
mod uninstall;

use crate::args::{Args, Command};
use clap::CommandFactory;
use std::process::ExitCode;
use twill_crds::Pod;

/// Exit code of an answer that reports something wrong, denied or different.
pub(crate) const DEGRADED: u8 = 2;

/// Runs what the command line asks for.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Bgpd(args) => twill_bgpd::run(args),
        Command::Bfd(args) => twill_bgpd::run_bfd(&args),
        Command::Felix(args) => twill_felix::run(args),
        Command::Controller(args) => twill_controller::run(args),
        Command::Lab(args) => twill_lab::run(args),
        Command::Apply(args) => apply::run(&args),
        Command::Get(args) => get::run(&args),
        Command::Delete(args) => delete::run(&args),
        Command::Drain(args) => drain::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Status { cluster: true, store, output, .. } => cluster::run(&store.datastore, output.output),
        Command::Status { node, output, .. } => status::run(&node, output.output),
        Command::Peers { node, output } => routing::peers(&node, output.output),
        Command::Routes(args) => routing::routes(&args),
        Command::Drops(args) => drops::run(&args),
        Command::Trace(args) => trace::run(&args),
        Command::Ready(args) => ready::run(&args),
        Command::Install(args) => install::run(&args),
        Command::Uninstall(args) => uninstall::run(&args),
        Command::Ipam(command) => ipam::run(command),
        Command::Policy(command) => policy::run(command),
        Command::Crds { output } => crds::run(output),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut offered(&Args::command()), "twill", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The command line without what is hidden: a shell offers whatever it is told of.
fn offered(command: &clap::Command) -> clap::Command {
    let shown = command.get_subcommands().filter(|inner| !inner.is_hide_set()).map(offered);
    // clap keeps names for as long as the process runs, and this is its last act.
    let name: &'static str = Box::leak(command.get_name().to_owned().into_boxed_str());
    let arguments = command.get_arguments().filter(|argument| !argument.is_hide_set()).cloned();
    let copy = clap::Command::new(name).args(arguments).subcommands(shown).version(env!("CARGO_PKG_VERSION"));
    copy.propagate_version(true).about(command.get_about().cloned().unwrap_or_default())
}

/// 0 if all is well, else [`DEGRADED`].
pub(crate) fn exit(well: bool) -> ExitCode {
    if well { ExitCode::SUCCESS } else { ExitCode::from(DEGRADED) }
}

/// `1 pod`, `2 pods`.
pub(crate) fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Whether a pod has a network of its own, and runs.
pub(crate) fn is_attached(pod: &Pod) -> bool {
    let host = pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or_default();
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !host && phase == Some("Running")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_offers_what_help_shows() {
        let mut script = Vec::new();
        clap_complete::generate(clap_complete::Shell::Bash, &mut offered(&Args::command()), "twill", &mut script);
        let script = String::from_utf8_lossy(&script);
        for shown in ["uninstall", "partition", "--datastore", "--state-dir", "completion"] {
            assert!(script.contains(shown), "{shown}");
        }
        for hidden in ["hold", "run-detached", "--boot-id"] {
            assert!(!script.contains(hidden), "{hidden}");
        }
    }
}
