//! `twill install`: the plugin into the place where the runtime looks for it. What an init container runs before the daemons start, and
//! an admin before the first.
//!
//! The network configuration, which makes a kubelet call its node ready, is not written here: felix does so when it can serve.

mod check;

use crate::args::Install;
use crate::output::print;
use anyhow::{Context, ensure};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use twill_crds::names::{CNI_IPAM_PLUGIN, CNI_PLUGIN};
use twill_felix::io::conflist::{Conflist, overruled};
use twill_felix::io::place::place;

/// What is where.
#[derive(Serialize)]
struct Report {
    plugin: PathBuf,
    /// Whether it was not so before.
    changed: bool,
    warnings: Vec<String>,
}

pub(crate) fn run(args: &Install) -> anyhow::Result<ExitCode> {
    if args.check {
        return check::run(args);
    }
    let source = match &args.source {
        Some(source) => source.clone(),
        None => std::env::current_exe().context("this executable cannot be found")?.with_file_name(CNI_PLUGIN),
    };
    let content = std::fs::read(&source)
        .with_context(|| format!("{} cannot be read; name the plugin's executable with --source", source.display()))?;
    try_run(&source)?;
    let plugin = args.cni_bin_dir.join(CNI_PLUGIN);
    let put = |name: &str| {
        place(&args.cni_bin_dir.join(name), &content, 0o755)
            .with_context(|| "the plugin cannot be put in place; is it the runtime's directory, and writable?")
    };
    // The same under the name by which other plugins ask for addresses. A copy: a link would lead astray who mounts the directory elsewhere.
    let ipam = put(CNI_IPAM_PLUGIN)?;
    let changed = put(CNI_PLUGIN)? || ipam;
    let preferred = Conflist::new(&args.cni_conf_dir, &args.node.run_dir).preferred().map_err(anyhow::Error::msg)?;
    let warnings = Vec::from_iter(overruled(&args.cni_conf_dir, &preferred));
    let state = if changed { "installed" } else { "unchanged" };
    let report = Report { plugin, changed, warnings };
    let row = vec![report.plugin.display().to_string(), state.to_owned()];
    print(args.output.output, &report, &["FILE", "STATE"], [row])?;
    report.warnings.iter().for_each(|warning| eprintln!("twill: warning: {warning}"));
    Ok(ExitCode::SUCCESS)
}

/// One that does not run on this machine is not to take the place of one that does.
fn try_run(source: &Path) -> anyhow::Result<()> {
    let named = || format!("{} does not run on this machine; is it for another?", source.display());
    let mut command = Command::new(source);
    command.env_clear().env("CNI_COMMAND", "VERSION").stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::piped());
    let mut child = command.spawn().with_context(named)?;
    if let Some(mut stdin) = child.stdin.take() {
        use std::io::Write;
        // One that does not read its input is none of ours; its exit code says so.
        let _ = stdin.write_all(br#"{"cniVersion": "1.0.0", "name": "twill"}"#);
    }
    let status = child.wait().with_context(named)?;
    ensure!(status.success(), "{} is no CNI plugin: asked for its VERSION, it ended with {status}", source.display());
    Ok(())
}
