//! `twill uninstall`: Twill away from this node, or from every node of the cluster with all of its objects.

mod cluster;
mod identity;
mod node;
mod objects;

use crate::args::Uninstall;
use anyhow::{bail, ensure};
use nix::sys::signal::{SigSet, Signal};
use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

pub(crate) fn run(args: &Uninstall) -> anyhow::Result<ExitCode> {
    if args.cluster {
        return cluster::run(args);
    }
    ensure!(nix::unistd::geteuid().is_root(), "twill uninstall needs root: it changes this node's network");
    // Held back from now on, so that one which comes early ends the waiting, too.
    let ends = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    if args.stay {
        ends.thread_block()?;
    }
    let code = node::run(args)?;
    if args.stay {
        ends.wait()?;
    }
    Ok(code)
}

/// Asks a person, where there is one; `question` says what is going to be lost.
fn confirm(args: &Uninstall, question: impl FnOnce() -> anyhow::Result<String>) -> anyhow::Result<()> {
    let stdin = std::io::stdin();
    if args.yes || !stdin.is_terminal() {
        return Ok(());
    }
    let mut stderr = std::io::stderr();
    write!(stderr, "{} Go on? [y/N] ", question()?)?;
    stderr.flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    if !matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        bail!("nothing was changed");
    }
    Ok(())
}
