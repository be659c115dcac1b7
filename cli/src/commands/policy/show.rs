//! `twill policy show`: what felix means the kernel to hold, and a warning where that does not.

use crate::args::{Node, Output};
use crate::io::control::ask;
use crate::output::{Format, print_line, print_value};
use serde_json::Value;
use std::process::ExitCode;
use twill_crds::control::FelixRequest;
use twill_crds::names::FELIX_SOCKET;

pub(crate) fn run(node: &Node, output: &Output) -> anyhow::Result<ExitCode> {
    let ruleset: Value = ask(&node.run_dir.join(FELIX_SOCKET), &FelixRequest::Ruleset)?;
    match (output.output, ruleset.get("text").and_then(Value::as_str)) {
        (Format::Table, Some(text)) => {
            let differs = ruleset.get("differs").and_then(Value::as_array).into_iter().flatten();
            differs.filter_map(Value::as_str).for_each(|part| eprintln!("warning: the kernel differs: {part}"));
            print_line(text)?;
        }
        (format, _) => print_value(format, &ruleset)?,
    }
    Ok(ExitCode::SUCCESS)
}
