//! `twill policy`: look at it, test it, see what a change of it would do.

mod connections;
mod diff;
mod host;
mod objects;
mod show;
mod test;
pub(super) mod told;

use objects::Putting;
pub(super) use objects::{Cluster, declared};

use crate::args::Policy;
use std::process::ExitCode;

pub(crate) fn run(command: Policy) -> anyhow::Result<ExitCode> {
    match command {
        Policy::Show { node, output } => show::run(&node, &output),
        Policy::Test(args) => test::run(&args),
        Policy::Diff(args) => diff::run(&args),
        Policy::Host { node, output } => host::show(&node, &output),
        Policy::Confirm(args) => host::confirm(&args),
        Policy::Retry(args) => host::retry(&args),
    }
}
