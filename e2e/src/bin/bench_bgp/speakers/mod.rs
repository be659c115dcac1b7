//! The speakers: their configuration, all to one effect, their start, and what the kernel says of their processes.
//!
//! Each takes everything from its senders and tells them nothing, tells its receiver everything, waits for its neighbours to connect,
//! and writes kernel routes only in the row that asks for them.

mod bird;
mod frr;
mod gobgp;
mod openbgpd;
mod relay;
mod twill;

use super::row::Row;
use anyhow::{Context, bail};
use clap::ValueEnum;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A speaker to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Speaker {
    /// Ours.
    Twill,
    Bird,
    Frr,
    Openbgpd,
    Gobgp,
    /// No speaker: what comes from senders goes to the receiver as it is. What sender, receiver and sockets take themselves.
    Relay,
}

/// A program of a speaker.
struct Program {
    name: &'static str,
    command: Command,
    /// What there is once the next program may start.
    made: Option<PathBuf>,
}

impl Speaker {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Twill => "Twill",
            Self::Bird => "BIRD",
            Self::Frr => "FRR",
            Self::Openbgpd => "OpenBGPD",
            Self::Gobgp => "GoBGP",
            Self::Relay => "no speaker",
        }
    }

    /// Whether it gives up root for a user of its own, which takes more than a user namespace.
    pub(crate) fn needs_root(self) -> bool {
        matches!(self, Self::Frr | Self::Openbgpd)
    }

    /// Why it has no figure in this row, if so.
    pub(crate) fn cannot(self, row: Row) -> Option<&'static str> {
        match self {
            Self::Openbgpd if row.kernel => Some("writes no kernel routes on Linux"),
            Self::Gobgp if row.kernel => Some("writes no kernel routes without zebra"),
            Self::Relay if row.kernel => Some("nobody writes them"),
            _ => None,
        }
    }

    /// Starts it in the caller's network namespace, with its files in `directory`, which must be empty.
    pub(crate) fn start(self, twill: &Path, row: Row, directory: &Path) -> anyhow::Result<Running> {
        let programs = match self {
            Self::Twill => twill::programs(twill, row, directory)?,
            Self::Bird => bird::programs(row, directory)?,
            Self::Frr => frr::programs(row, directory)?,
            Self::Openbgpd => openbgpd::programs(row, directory)?,
            Self::Gobgp => gobgp::programs(row, directory)?,
            Self::Relay => {
                relay::start(row)?;
                Vec::new()
            }
        };
        let mut running = Running(Vec::new());
        for Program { name, mut command, made } in programs {
            let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
            running.0.push((name, child.with_context(|| format!("cannot start {name} of {}", self.name()))?));
            let deadline = Instant::now() + Duration::from_secs(20);
            while made.as_ref().is_some_and(|made| !made.exists()) {
                if Instant::now() > deadline {
                    bail!("{name} of {} does not come up", self.name());
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(running)
    }
}

/// The first of these that is installed.
fn installed(paths: &[&str], package: &str) -> anyhow::Result<Command> {
    let path = paths.iter().find(|path| Path::new(path).exists());
    let Some(path) = path else { bail!("{} is missing: apt install {package}", paths[0]) };
    Ok(Command::new(path))
}

fn write(directory: &Path, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let path = directory.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// A speaker that runs; killed when this is dropped.
pub(crate) struct Running(Vec<(&'static str, Child)>);

impl Running {
    /// Peak of the resident memory of each program, its processes added up, in MiB.
    pub(crate) fn peak_mib(&self) -> anyhow::Result<Vec<(&'static str, f64)>> {
        self.figures(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
            Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
        })
    }

    /// Seconds of processor that all have used.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let of_each = self.figures(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
            // Behind the name, which may contain anything: fields 14 and 15 of proc_pid_stat(5), in hundredths of a second.
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            let field = |at: usize| Ok::<f64, anyhow::Error>(fields.get(at).context("no time")?.parse()?);
            Ok((field(11)? + field(12)?) / 100.0)
        })?;
        Ok(of_each.iter().map(|(_, seconds)| seconds).sum())
    }

    fn figures(&self, of: impl Fn(u32) -> anyhow::Result<f64>) -> anyhow::Result<Vec<(&'static str, f64)>> {
        let program = |(name, child): &(&'static str, Child)| {
            let figures = tree(child.id()).into_iter().map(&of).sum::<anyhow::Result<f64>>();
            Ok((*name, figures.with_context(|| format!("{name} has ended"))?))
        };
        self.0.iter().map(program).collect()
    }
}

/// A process and all that it has started.
fn tree(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut at = 0;
    while at < all.len() {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", all[at])).unwrap_or_default();
        all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        at += 1;
    }
    all
}

impl Drop for Running {
    fn drop(&mut self) {
        for (_, child) in &mut self.0 {
            // Its own children might outlive it; all may have ended by themselves.
            for pid in tree(child.id()).into_iter().skip(1).filter_map(|pid| i32::try_from(pid).ok()) {
                let _gone = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
            drop(child.kill());
            drop(child.wait());
        }
    }
}
