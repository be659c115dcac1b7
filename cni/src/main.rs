//! `twill-cni`: hands the runtime's call to felix and prints the answer. See README.md.

mod call;

use std::io::Read;
use std::process::ExitCode;

/// More than any network configuration needs.
const LARGEST_INPUT: u64 = 1 << 20;

fn main() -> ExitCode {
    let mut input = Vec::new();
    let read = std::io::stdin().lock().take(LARGEST_INPUT).read_to_end(&mut input);
    let answer = match read {
        Ok(_) => call::answer(&|name| std::env::var(name).ok(), &input),
        Err(error) => Err(call::cannot_read(&error)),
    };
    match answer {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(result)) => {
            println!("{result}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{}", serde_json::to_string(&error).unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}
