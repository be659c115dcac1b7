//! The `twill` binary: every daemon, the lab, and the operator's commands.

mod args;
mod commands;
mod destination;
mod fitness;
mod io;
mod output;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    let started = io::log::start(&args.log, args.log_format);
    started.and_then(|()| commands::run(args)).unwrap_or_else(|error| {
        if output::nobody_reads(&error) {
            return ExitCode::SUCCESS;
        }
        eprintln!("twill: {error:#}");
        ExitCode::from(1)
    })
}

/// Help and version go to standard output with exit code 0, anything else is a usage error: 3.
fn usage(error: &clap::Error) -> ExitCode {
    // That nobody reads the help to its end (`twill --help | head`) is no error.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(3) } else { ExitCode::SUCCESS }
}
