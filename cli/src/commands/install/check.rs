//! `twill install --check`: whether this node is fit for Twill, before anything of it is there. Reads and tries, and changes nothing.

use crate::args::Install;
use crate::commands::exit;
use crate::fitness::{self, Finding, State};
use crate::io::look;
use crate::output::print;
use anyhow::ensure;
use std::process::ExitCode;

pub(super) fn run(args: &Install) -> anyhow::Result<ExitCode> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "twill install --check needs root: it tries the kernel in a network namespace"
    );
    let links = look::links()?;
    let findings: Vec<Finding> = [
        fitness::kernel::verdict(&look::kernel()?),
        fitness::settings::verdict(&look::settings()),
        fitness::others::verdict(&look::others(args, &links)?),
        fitness::ports::verdict(&look::ports(args)?),
        fitness::host::verdict(&look::host(args, &links)),
        fitness::datastore::verdict(&look::datastore(&args.store.datastore)),
    ]
    .concat();
    let rows = findings.iter().map(|Finding { check, state, found, remedy }| {
        vec![(*check).to_owned(), word(*state).to_owned(), found.clone(), remedy.clone()]
    });
    print(args.output.output, &findings, &["CHECK", "STATE", "FOUND", "DO"], rows)?;
    Ok(exit(fitness::is_fit(&findings)))
}

fn word(state: State) -> &'static str {
    match state {
        State::Fine => "fine",
        State::Warning => "warning",
        State::Unfit => "UNFIT",
    }
}
