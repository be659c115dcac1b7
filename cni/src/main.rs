//! `twill-cni`: hands the runtime's call to felix and prints the answer; under the name `twill-ipam` it asks for addresses alone. See README.md.

mod answer;
mod call;
mod delegate;
mod felix;
mod tombstone;

use crate::call::{Environment, Time};
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use twill_crds::cni::CniError;
use twill_crds::names::CNI_IPAM_PLUGIN;

/// Longest time that a verb takes; felix itself gives up earlier.
const DEADLINE: Duration = Duration::from_secs(40);
/// More than any network configuration needs.
const LARGEST_INPUT: u64 = 1 << 20;

fn main() -> ExitCode {
    let named = std::env::args_os().next().unwrap_or_default();
    let delegated = Path::new(&named).file_name().is_some_and(|name| name == CNI_IPAM_PLUGIN);
    let time = Time::new(DEADLINE);
    let environment = Environment { variable: &|name| std::env::var(name).ok(), delegated, time };
    let mut input = Vec::new();
    let read = std::io::stdin().lock().take(LARGEST_INPUT).read_to_end(&mut input);
    let answer = match read {
        Ok(_) => answer::answer(&environment, &input),
        Err(error) => Err(call::cannot_read(&error)),
    };
    match answer {
        Ok(answer) => {
            if let Some(result) = &answer.printed
                && print(&result.to_string()).is_err()
            {
                // Who asked is gone. Without a word from here felix takes the attachment back.
                return ExitCode::FAILURE;
            }
            answer.delivered();
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error),
    }
}

fn fail(error: &CniError) -> ExitCode {
    // Nobody is left to be told if that fails.
    let _ = print(&serde_json::to_string(error).unwrap_or_default());
    ExitCode::FAILURE
}

fn print(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
