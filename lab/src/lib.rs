//! Clusters made of network namespaces on one machine: racks, routers, nodes and pods, without container runtime, image or
//! API server. In flow a lab file and manifests, out flow namespaces in which the real daemons run.
//!
//! The lab plays only what surrounds Twill: wires and routers, kubelet, scheduler. See README.md.

pub mod capabilities;
pub mod changes;
pub mod file;
pub mod io;
pub mod matrix;
pub mod names;
pub mod nodes;
pub mod plan;
pub mod ports;
pub mod report;
pub mod resources;
pub mod routers;
pub mod state;

mod args;

pub use args::Args;

use anyhow::{Context, bail, ensure};
use args::{Command, Format};
use io::cluster::{self, Cluster};
use io::{cni, daemons, down, health, holder, kubelet, labs, manifests, netns, outage, probe, process, relay};
use state::{Daemon, State};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Runs a `twill lab` command. Exit codes: 0 done, 1 error, 2 done and something does not work, or the matrix differs; `exec` has that
/// of its command.
///
/// # Errors
/// One sentence.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Up { file, name } => up(&file, name.as_deref()),
        Command::Status { name, output } => status(name.name.as_deref(), output.output),
        Command::Exec { name, target, command } => exec(name.name.as_deref(), &target, &command),
        Command::Apply { name, files } => change(name.name.as_deref(), &files, Change::Apply),
        Command::Delete { name, files } => change(name.name.as_deref(), &files, Change::Delete),
        Command::Probe { name, output, ports, from, to } => {
            let selection = probe::Selection { from, to, ports };
            matrix(name.name.as_deref(), &selection, output.output)
        }
        Command::Kill { name, node, daemon } => kill(name.name.as_deref(), &node, daemon),
        Command::Start { name, node, daemon } => start(name.name.as_deref(), &node, daemon),
        Command::Reboot { name, node } => reboot(name.name.as_deref(), &node),
        Command::Partition { name, node } => partition(name.name.as_deref(), &node),
        Command::Heal { name, node } => heal(name.name.as_deref(), &node),
        Command::Down { name } => take_down(name.name.as_deref()),
        Command::Hold { answer, addresses, ports } => {
            holder::run(&answer, &addresses, &ports)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Relay { netns, port, .. } => {
            relay::run(&netns, port)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::RunDetached { command } => run_detached(&command),
    }
}

fn up(file: &std::path::Path, name: Option<&str>) -> anyhow::Result<ExitCode> {
    let built = io::up::up(file, name)?;
    let pods = built.cluster.list::<twill_crds::Pod>()?;
    let blocks = built.cluster.list::<twill_crds::IPBlock>()?;
    let text = report::built(&built.cluster.state, &pods, &blocks, &built.notes);
    print(&format!("{text}up in {:.1} s\n", built.took.as_secs_f64()))?;
    let name = &built.cluster.state.name;
    Ok(degraded(
        &built.problems,
        &format!("lab {name} stays up to be looked at; take it away with: twill lab down --name {name}"),
    ))
}

/// Says what does not work, if anything, and what to do then.
fn degraded(problems: &[String], way_out: &str) -> ExitCode {
    if problems.is_empty() {
        return ExitCode::SUCCESS;
    }
    problems.iter().for_each(|problem| eprintln!("twill: {problem}"));
    eprintln!("twill: {way_out}");
    ExitCode::from(DEGRADED)
}

/// Exit code of what was done and leaves something that does not work.
const DEGRADED: u8 = 2;

/// Prints an answer; that nobody reads on (`twill lab status | head`) is no error.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("standard output"),
        _ => Ok(()),
    }
}

fn open(name: Option<&str>, what: &str) -> anyhow::Result<Cluster> {
    labs::need_root(what)?;
    Cluster::open(labs::load(&labs::chosen(name)?)?)
}

/// As [`open`], with the lab's lock; the state is read after the lock was got.
fn open_locked(name: Option<&str>, what: &str) -> anyhow::Result<(Cluster, labs::Lock)> {
    labs::need_root(what)?;
    let name = labs::chosen(name)?;
    labs::load(&name)?;
    let lock = labs::lock(&name)?;
    Ok((Cluster::open(labs::load(&name)?)?, lock))
}

fn status(name: Option<&str>, format: Format) -> anyhow::Result<ExitCode> {
    let cluster = open(name, "twill lab status")?;
    let pods = cluster.list::<twill_crds::Pod>()?;
    match format {
        Format::Json => print(&format!("{:#}\n", report::status(&cluster.state, &pods, &cluster.drained()?)))?,
        Format::Table => {
            let mut notes = daemons::absent(&cluster.state);
            notes.extend(report::partitioned(&cluster.state));
            notes.extend(report::drained(&cluster.drained()?));
            notes.extend(health::problems(&cluster.state));
            print(&report::built(&cluster.state, &pods, &cluster.list()?, &notes))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn exec(name: Option<&str>, target: &str, command: &[String]) -> anyhow::Result<ExitCode> {
    labs::need_root("twill lab exec")?;
    let state = labs::load(&labs::chosen(name)?)?;
    let environment = environment(&state, target);
    let mut space = state.netns(target)?;
    if netns::inode(&space).is_none() {
        space = pod_home(state, target)?;
    }
    netns::enter_with_sys(&space)?;
    let [program, arguments @ ..] = command else { bail!("no command; write: twill lab exec {target} -- COMMAND") };
    let mut command = std::process::Command::new(program);
    let error = command.args(arguments).envs(environment).exec();
    eprintln!("twill: {program}: {error}");
    // As a shell says it, so that it is not taken for the command's own.
    Ok(ExitCode::from(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 }))
}

/// On a node or router, the operator's commands of `twill` find its daemons and the datastore by themselves. Nowhere in a lab do they
/// find those of the host, whatever they are asked to remove.
fn environment(state: &State, target: &str) -> Vec<(&'static str, String)> {
    let pod = target.contains('/');
    let dir = if pod { names::lab_dir(&state.name).join("pods") } else { state.machine_dir(target) };
    let (bin, dir) = (cni::bin_dir(&dir).display().to_string(), dir.display().to_string());
    let mut environment = vec![
        ("TWILL_RUN_DIR", dir.clone()),
        ("TWILL_STATE_DIR", dir.clone()),
        ("TWILL_CNI_CONF_DIR", dir.clone()),
        ("TWILL_CNI_BIN_DIR", bin),
        ("TWILL_DATASTORE", state.datastore.clone()),
    ];
    if !pod {
        // birdc and vtysh of a router's own, which know its sockets.
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
        environment.push(("PATH", format!("{dir}/bin:{path}")));
    }
    environment
}

/// The namespace of a pod that has none of its own: its node's, if it is a hostNetwork pod.
fn pod_home(state: State, target: &str) -> anyhow::Result<String> {
    let cluster = Cluster::open(state)?;
    let is =
        |p: &twill_crds::Pod| format!("{}/{}", twill_crds::Object::namespace(p), twill_crds::Object::name(p)) == target;
    let Some(pod) = cluster.list::<twill_crds::Pod>()?.into_iter().find(is) else {
        bail!("lab {} has no pod {target}; twill lab status lists them", cluster.state.name);
    };
    if !kubelet::host_network(&pod) {
        bail!("pod {target} does not run");
    }
    Ok(cluster.state.node(kubelet::node_name(&pod))?.netns.clone())
}

#[derive(Clone, Copy)]
enum Change {
    Apply,
    Delete,
}

fn change(name: Option<&str>, files: &[PathBuf], change: Change) -> anyhow::Result<ExitCode> {
    let manifests = manifests::read(files)?;
    ensure!(!manifests.is_empty(), "the files hold no objects");
    let (mut cluster, _lock) = open_locked(name, "changing a lab")?;
    let documents = manifests.clone();
    let (notes, done, verb) = match change {
        Change::Apply => (cluster.apply(resources::desired(documents)?)?, manifests.len(), "applied"),
        Change::Delete => {
            let absent = cluster.remove(documents)?;
            let gone = manifests.len().saturating_sub(absent.len());
            (absent, gone, "deleted")
        }
    };
    for note in notes {
        eprintln!("{note}");
    }
    for daemon in cluster.followed()? {
        eprintln!("{daemon} does not run; it applies this when it is started");
    }
    print(&format!("{done} {} {verb}\n", if done == 1 { "object" } else { "objects" }))?;
    let problems = health::after(&cluster, &manifests);
    Ok(degraded(&problems, "the lab does not work as a whole; correct what is named, and apply it again"))
}

fn matrix(name: Option<&str>, selection: &probe::Selection, format: Format) -> anyhow::Result<ExitCode> {
    let cluster = open(name, "twill lab probe")?;
    let cells = probe::probe(&cluster, selection)?;
    let differences = cells.iter().filter(|c| c.differs).count();
    match format {
        Format::Json => {
            let answer = serde_json::json!({"cells": cells, "differences": differences});
            print(&format!("{answer:#}\n"))?;
        }
        Format::Table => print(&format!("{}\n", matrix::render(&cells)))?,
    }
    Ok(if differences == 0 { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

fn kill(name: Option<&str>, node: &str, daemon: Daemon) -> anyhow::Result<ExitCode> {
    labs::need_root("twill lab kill")?;
    let name = labs::chosen(name)?;
    labs::load(&name)?;
    let _lock = labs::lock(&name)?;
    daemons::kill(&labs::load(&name)?, node, daemon)?;
    print(&format!("{daemon} of {node} is killed; start it again with: twill lab start {node} {daemon}\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn start(name: Option<&str>, node: &str, daemon: Daemon) -> anyhow::Result<ExitCode> {
    let (mut cluster, _lock) = open_locked(name, "twill lab start")?;
    cluster::must_be_down(&cluster.state, node, daemon)?;
    let asked = cluster.asked(node);
    let leaves =
        daemon == Daemon::Felix && asked.as_ref().is_ok_and(|asked| asked.as_ref().is_some_and(|a| a.uninstall));
    daemons::start(&mut cluster.state, node, daemon)?;
    labs::save(&cluster.state)?;
    if leaves {
        return left(&cluster, node);
    }
    let cut = cluster.state.server.is_some() && cluster.state.node(node)?.partitioned;
    if cut || asked.is_err() {
        daemons::answers(&cluster.state, node, daemon, START)?;
        print(&format!("{daemon} of {node} runs; it does not reach the datastore, and goes on with what it knew\n"))?;
        return Ok(ExitCode::from(2));
    }
    daemons::in_sync(&cluster.state, node, daemon, START)?;
    print(&format!("{daemon} of {node} runs and is in sync\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// How long a daemon may take until it is in sync, or has done what it was asked.
const START: Duration = Duration::from_secs(30);

/// A felix that was started while its node is to be uninstalled does that, and ends; the end of the NodeNetwork is its report.
fn left(cluster: &Cluster, node: &str) -> anyhow::Result<ExitCode> {
    let gone = process::until(START, || !cluster.state.runs(node, Daemon::Felix));
    let log = cluster.state.machine_dir(node).join("felix.log");
    ensure!(
        gone && cluster.asked(node)?.is_none(),
        "twill uninstall --cluster asks felix of {node} to remove Twill, and it has not within {} s: {}",
        START.as_secs(),
        daemons::last_line(&log)
    );
    print(&format!(
        "felix of {node} has removed Twill from there and ended, as twill uninstall --cluster asked; install it again with: twill lab \
         start {node} bgpd, and {node} felix\n"
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn reboot(name: Option<&str>, node: &str) -> anyhow::Result<ExitCode> {
    let (mut cluster, _lock) = open_locked(name, "twill lab reboot")?;
    let booted = outage::reboot(&mut cluster, node)?;
    for note in booted.notes {
        eprintln!("{note}");
    }
    let cut = cluster.state.node(node)?.partitioned;
    print(&format!(
        "{node} is back: {} {} attached, everything applied{} {:.1} s after its daemons were started{}\n",
        booted.pods,
        if booted.pods == 1 { "pod" } else { "pods" },
        if cut { "" } else { " and routed" },
        booted.took.as_secs_f64(),
        if cut {
            format!("; its links are still cut, and nothing is routed until: twill lab heal {node}")
        } else {
            String::new()
        },
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn partition(name: Option<&str>, node: &str) -> anyhow::Result<ExitCode> {
    let (mut cluster, _lock) = open_locked(name, "twill lab partition")?;
    outage::partition(&mut cluster, node)?;
    print(&format!("the links of {node} are cut; restore them with: twill lab heal {node}\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn heal(name: Option<&str>, node: &str) -> anyhow::Result<ExitCode> {
    let (mut cluster, _lock) = open_locked(name, "twill lab heal")?;
    let problems = outage::heal(&mut cluster, node)?;
    if problems.is_empty() {
        print(&format!("the links of {node} are back, and so are packets, sessions and routes\n"))?;
    }
    Ok(degraded(
        &problems,
        &format!("the links of {node} are back, but not all that they carried; see: twill lab status"),
    ))
}

fn take_down(name: Option<&str>) -> anyhow::Result<ExitCode> {
    labs::need_root("twill lab down")?;
    if name.is_none() && labs::all().is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let name = labs::chosen(name)?;
    let lock = labs::lock(&name)?;
    let was = labs::exists(&name);
    down::down(&name)?;
    labs::forget(&name, lock);
    if was {
        print(&format!("lab {name} is gone\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Becomes the command, in a session of its own: no terminal's end reaches it.
fn run_detached(command: &[String]) -> anyhow::Result<ExitCode> {
    let [program, arguments @ ..] = command else { bail!("no command") };
    nix::unistd::setsid().context("setsid")?;
    Err(std::process::Command::new(program).args(arguments).exec()).with_context(|| program.clone())
}
