//! Twill's speaker beside BIRD: one sender → speaker → one receiver that is up first, everything in private network
//! namespaces that go with the process. Prints seconds from the first byte sent to the last distinct prefix received,
//! and peak memory, as medians of interleaved rounds, and their ratios.

mod daemon;
mod message;
mod namespaces;
mod run;

use anyhow::{Context, bail};
use clap::Parser;
use daemon::Speaker;
use run::{Load, Outcome};
use std::path::PathBuf;
use std::process::Command;

#[derive(Parser)]
#[command(about = "Twill's speaker beside BIRD: seconds and memory")]
struct Args {
    /// Prefixes, all /24s.
    #[arg(long, default_value_t = 500_000)]
    prefixes: u32,
    /// Attribute sets, which the UPDATEs have in turn.
    #[arg(long, default_value_t = 20)]
    sets: u32,
    /// Rounds; the medians count.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Measure only this speaker: `twill` or `bird`.
    #[arg(long)]
    only: Option<String>,
    /// The twill binary; default: the release build, made afresh.
    #[arg(long)]
    twill: Option<PathBuf>,
    /// Prefixes per UPDATE.
    #[arg(long, value_delimiter = ',', default_values_t = [50, 1])]
    per_update: Vec<u32>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let twill = match args.twill {
        Some(path) => path,
        None => build()?,
    };
    let mut speakers = vec![Speaker::Twill(twill), Speaker::Bird];
    match args.only.as_deref() {
        None => {}
        Some("twill") => speakers.truncate(1),
        Some("bird") => drop(speakers.remove(0)),
        Some(other) => bail!("--only {other}: it is twill or bird"),
    }
    namespaces::become_root()?;
    println!("{} prefixes, {} attribute sets, {} rounds, medians\n", args.prefixes, args.sets, args.rounds);
    println!("| | per UPDATE | seconds | (all rounds) | UPDATEs out | peak MiB | CPU s |");
    println!("|---|---|---|---|---|---|---|");
    for per_update in args.per_update {
        let mut outcomes: Vec<Vec<Outcome>> = vec![Vec::new(); speakers.len()];
        for _ in 0..args.rounds {
            for (speaker, outcomes) in speakers.iter().zip(&mut outcomes) {
                let load = Load { prefixes: args.prefixes, per_update, sets: args.sets };
                let outcome = run::run(speaker, load);
                outcomes.push(outcome.with_context(|| format!("{} at {per_update} per UPDATE", speaker.name()))?);
            }
        }
        let medians: Vec<Outcome> = outcomes.iter().map(|outcomes| median(outcomes)).collect();
        for ((speaker, median), all) in speakers.iter().zip(&medians).zip(&outcomes) {
            let seconds: Vec<String> = all.iter().map(|outcome| format!("{:.2}", outcome.seconds)).collect();
            println!(
                "| {} | {per_update} | {:.2} | {} | {} | {:.0} | {:.2} |",
                speaker.name(),
                median.seconds,
                seconds.join(" "),
                median.updates,
                median.peak_mib,
                median.cpu_seconds
            );
        }
        if let [twill, bird] = &medians[..] {
            let (time, memory) = (twill.seconds / bird.seconds, twill.peak_mib / bird.peak_mib);
            println!("| Twill / BIRD | {per_update} | {time:.2} × | | | {memory:.2} × | |");
        }
    }
    Ok(())
}

/// Builds the release binary and says where it is.
fn build() -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo).args(["build", "--locked", "--release", "-p", "twill"]).status();
    if !status.context("cannot run cargo")?.success() {
        bail!("cargo build --release -p twill failed; its output is above");
    }
    let here = std::env::current_exe().context("where is this program?")?;
    let target = here.ancestors().nth(2).context("this program is not in a target directory")?;
    Ok(target.join("release/twill"))
}

/// Each figure's own median.
fn median(outcomes: &[Outcome]) -> Outcome {
    let middle = |figure: fn(&Outcome) -> f64| {
        let mut figures: Vec<f64> = outcomes.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    Outcome {
        seconds: middle(|outcome| outcome.seconds),
        updates: middle(|outcome| outcome.updates as f64) as u64,
        peak_mib: middle(|outcome| outcome.peak_mib),
        cpu_seconds: middle(|outcome| outcome.cpu_seconds),
    }
}
