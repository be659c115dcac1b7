//! The two speakers: their configuration, start, and what the kernel says of them.

use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A speaker to be measured.
pub(crate) enum Speaker {
    /// Ours, with its binary.
    Twill(PathBuf),
    /// Debian's bird2.
    Bird,
}

const TWILL: &str = "\
asn: 65000
routerID: 10.98.1.1
listen: [{address: 0.0.0.0}]
peers:
- {name: sender, address: 10.98.1.2, asn: 65001, passive: true, import: all, export: none, families: [ipv4]}
- {name: receiver, address: 10.98.2.2, asn: 65002, passive: true, import: none, export: all, families: [ipv4]}
";

const BIRD: &str = "\
log \"/dev/null\" all;
router id 10.98.1.1;
protocol device {}
protocol bgp sender {
  local as 65000; neighbor 10.98.1.2 as 65001; passive;
  ipv4 { import all; export none; };
}
protocol bgp receiver {
  local as 65000; neighbor 10.98.2.2 as 65002; passive;
  ipv4 { import none; export all; };
}
";

impl Speaker {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Twill(_) => "Twill",
            Self::Bird => "BIRD",
        }
    }

    /// Starts it in the caller's network namespace, with its files in `directory`.
    pub(crate) fn start(&self, directory: &Path) -> anyhow::Result<Running> {
        let file = directory.join("config");
        let mut command = match self {
            Self::Twill(binary) => {
                std::fs::write(&file, TWILL)?;
                let mut command = Command::new(binary);
                command.args(["bgpd", "--config"]).arg(&file);
                command
            }
            Self::Bird => {
                std::fs::write(&file, BIRD)?;
                let path = ["/usr/sbin/bird", "/usr/local/sbin/bird"].into_iter().find(|path| Path::new(path).exists());
                let Some(path) = path else { bail!("BIRD is missing: apt install bird2") };
                let mut command = Command::new(path);
                command.arg("-f").arg("-c").arg(&file).arg("-s").arg(directory.join("control"));
                command
            }
        };
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn();
        Ok(Running(child.with_context(|| format!("cannot start {}", self.name()))?))
    }
}

/// A speaker that runs; killed when this is dropped.
pub(crate) struct Running(Child);

impl Running {
    /// Peak of its resident memory in MiB.
    pub(crate) fn peak_mib(&self) -> anyhow::Result<f64> {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).context("the speaker has ended")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }

    /// Seconds of processor that it has used.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).context("the speaker has ended")?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: f64 =
            fields.get(11).context("no utime")?.parse::<f64>()? + fields.get(12).context("no stime")?.parse::<f64>()?;
        Ok(ticks / 100.0)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
