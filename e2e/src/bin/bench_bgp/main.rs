//! Twill's speaker beside BIRD, FRR, OpenBGPD and GoBGP: senders → speaker → one receiver that is up first, or the kernel;
//! everything in private network namespaces that go with the process. Prints seconds from the first byte sent to the last distinct
//! prefix received, peak memory and processor time, as medians of interleaved rounds, and their ratios to Twill's.
//!
//! The row "no speaker" is what senders, receiver and sockets take without anything between them.

mod kernel;
mod message;
mod namespaces;
mod peers;
mod report;
mod row;
mod run;
mod speakers;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use report::Entry;
use row::{ROWS, Row};
use speakers::Speaker;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

#[derive(Parser)]
#[command(about = "Twill's speaker beside BIRD, FRR, OpenBGPD and GoBGP: seconds and memory")]
struct Args {
    /// Rows of the table: 50, 1 (prefixes per UPDATE), sets (100,000 attribute sets), ten (senders), kernel (needs root).
    #[arg(long, value_delimiter = ',', default_values_t = ROWS.map(|row| row.name.to_owned()))]
    rows: Vec<String>,
    /// Who is measured; FRR and OpenBGPD need root.
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [Speaker::Relay, Speaker::Twill, Speaker::Bird, Speaker::Frr, Speaker::Openbgpd, Speaker::Gobgp])]
    speakers: Vec<Speaker>,
    /// Rounds of Twill and BIRD; the medians count.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Rounds of all others.
    #[arg(long, default_value_t = 1)]
    other_rounds: usize,
    /// A fraction of all prefixes: 10 for a tenth.
    #[arg(long, default_value_t = 1)]
    divide: u32,
    /// Seconds after which a speaker has not finished.
    #[arg(long, default_value_t = 120)]
    limit: u64,
    /// The twill binary; default: the release build, made afresh.
    #[arg(long)]
    twill: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let rows = args.rows.iter().map(|name| chosen(name, args.divide)).collect::<anyhow::Result<Vec<Row>>>()?;
    ensure!(!args.speakers.is_empty() && args.rounds > 0 && args.other_rounds > 0, "nothing to measure");
    check_root(&rows, &args.speakers)?;
    let twill = match &args.twill {
        Some(path) => path.canonicalize().with_context(|| format!("--twill {}", path.display()))?,
        None => build()?,
    };
    namespaces::become_root()?;
    for row in &rows {
        println!("{}", row.about());
    }
    println!(
        "medians of {} rounds, of {} for others than Twill and BIRD\n\n{}",
        args.rounds,
        args.other_rounds,
        report::HEAD
    );
    let mut verdicts = Vec::new();
    for row in rows {
        let entries = measure(row, &args, &twill)?;
        let of = |speaker| entries.iter().find(|entry| entry.speaker == speaker);
        for entry in &entries {
            println!("{}", entry.line(of(Speaker::Twill)));
        }
        let twill = of(Speaker::Twill);
        verdicts.extend(twill.zip(of(Speaker::Bird)).and_then(|(twill, bird)| report::verdict(twill, bird)));
        verdicts.extend(twill.zip(of(Speaker::Relay)).and_then(|(twill, relay)| report::floor(relay, twill)));
    }
    println!();
    verdicts.iter().for_each(|verdict| println!("{verdict}"));
    Ok(())
}

fn chosen(name: &str, divide: u32) -> anyhow::Result<Row> {
    let known = || ROWS.map(|row| row.name).join(", ");
    let row = ROWS.into_iter().find(|row| row.name == name);
    Ok(row.with_context(|| format!("--rows {name}: there is {}", known()))?.divided(divide.max(1)))
}

/// Says what needs root, and how to do without, before anything is measured.
fn check_root(rows: &[Row], speakers: &[Speaker]) -> anyhow::Result<()> {
    if nix::unistd::getuid().is_root() {
        return Ok(());
    }
    let rows = rows.iter().filter(|row| row.kernel).map(|row| format!("row {}", row.name));
    let names = speakers.iter().filter(|speaker| speaker.needs_root()).map(|speaker| speaker.name().to_owned());
    let needing: Vec<String> = rows.chain(names).collect();
    ensure!(
        needing.is_empty(),
        "{} cannot be measured without root: run as root, or leave them out with --rows 50,1,sets,ten --speakers relay,twill,bird,gobgp",
        needing.join(", ")
    );
    Ok(())
}

/// All rounds of a row, the speakers in turn.
fn measure(row: Row, args: &Args, twill: &Path) -> anyhow::Result<Vec<Entry>> {
    let entry = |speaker: &Speaker| {
        let cannot = speaker.cannot(row).map(str::to_owned);
        Entry { row, speaker: *speaker, rounds: cannot.map_or(Ok(Vec::new()), Err) }
    };
    let mut entries: Vec<Entry> = args.speakers.iter().map(entry).collect();
    let rounds =
        |speaker| if matches!(speaker, Speaker::Twill | Speaker::Bird) { args.rounds } else { args.other_rounds };
    for round in 0..args.rounds.max(args.other_rounds) {
        for Entry { speaker, rounds: outcomes, .. } in &mut entries {
            let Ok(all) = outcomes else { continue };
            if round >= rounds(*speaker) {
                continue;
            }
            match run::run(*speaker, twill, row, Duration::from_secs(args.limit)) {
                Ok(outcome) => all.push(outcome),
                // What is wrong with ours ends it; of another it is what there is to say.
                Err(error) if matches!(speaker, Speaker::Twill | Speaker::Relay) => {
                    return Err(error.context(format!("{} in row {}", speaker.name(), row.name)));
                }
                Err(error) => *outcomes = Err(format!("failed: {error:#}")),
            }
        }
    }
    Ok(entries)
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
