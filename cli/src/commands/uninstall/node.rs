//! `twill uninstall` on one node: daemons leave, then what they made goes, last of all what the datastore holds of the node.
//!
//! Every step finds by itself what is left to do, so a run that was interrupted anywhere is completed by another. Only the node's name
//! and its store's identity would be lost: they are noted in the state directory from before the daemons leave until the end.

use super::confirm;
use super::identity::Identity;
use super::objects::{self, Forgotten};
use crate::args::Uninstall;
use crate::commands::counted;
use crate::io::daemon::Daemon;
use crate::io::{leftovers, with_store};
use crate::output::{Format, print, print_line};
use anyhow::{Context, bail, ensure};
use serde::Serialize;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use twill_crds::names::{CNI_IPAM_PLUGIN, CNI_PLUGIN};
use twill_felix::io::calls::Tombstones;
use twill_felix::io::conflist::Conflist;
use twill_felix::io::departure::UNDER_WAY;
use twill_felix::io::{place, removal, sysctl};

/// A supervisor that restarts a daemon does so within this long after it left, mostly (systemd's RestartSec is 100 ms).
const RESTART: Duration = Duration::from_millis(500);
/// How long the datastore may take; it is no condition for the rest.
const DATASTORE: Duration = Duration::from_secs(20);
/// How long it may take to judge a name before anything is removed; the last step judges again.
const NAME: Duration = Duration::from_secs(5);

/// What went.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    node: Option<String>,
    workload_interfaces: usize,
    routes: usize,
    tunnel_devices: usize,
    tables: usize,
    files: usize,
    objects: usize,
    /// What stays by intent.
    notes: Vec<String>,
    /// What a person has to do later.
    warnings: Vec<String>,
    /// What should have gone.
    problems: Vec<String>,
}

pub(super) fn run(args: &Uninstall) -> anyhow::Result<ExitCode> {
    confirm(args, || {
        let pods = removal::workloads().context("looking for workload interfaces")?.len();
        Ok(format!("Twill goes from this node, and with it the network of {}.", counted(pods, "pod")))
    })?;
    let daemons = Daemon::all(&args.node_dirs.run_dir)?;
    let under_way = args.state_dir.join(UNDER_WAY);
    let identity = identify(args, &daemons, &under_way)?;
    refuse_wrong_name(args, &identity)?;
    let mut report = Report { node: identity.best().map(str::to_owned), ..Report::default() };
    note(&under_way, &identity)?;
    daemons.iter().try_for_each(Daemon::leave)?;
    let left = Instant::now();
    remove_plugin(args, &mut report);
    remove_from_kernel(&mut report);
    if let Err(error) = stay_away(&daemons, left) {
        report.problems.push(format!("{error:#}"));
        return finish(args, &report);
    }
    remove_files(args, &mut report);
    if forget_objects(args, &identity, &mut report) {
        let (_, problems) = leftovers::remove([under_way]);
        report.problems.extend(problems);
    }
    leftovers::remove_empty(Tombstones::of(&args.state_dir, &args.node_dirs.run_dir).directories());
    leftovers::remove_empty(&[
        removal::store_dir(&args.state_dir),
        args.state_dir.clone(),
        args.node_dirs.run_dir.clone(),
    ]);
    finish(args, &report)
}

/// What daemons, operator and an interrupted run say of the node's name, and its store's identity.
fn identify(args: &Uninstall, daemons: &[Daemon], under_way: &Path) -> anyhow::Result<Identity> {
    let mut identity = Identity { given: args.node.clone(), ..Identity::default() };
    for daemon in daemons {
        let Some(served) = daemon.node()? else { continue };
        let other = identity.served.replace(served.clone()).or_else(|| args.node.clone());
        if let Some(other) = other.filter(|other| *other != served) {
            bail!("the daemons here serve node {served}, not {other}; leave out --node, or name their --run-dir");
        }
    }
    identity.claimant = removal::claimant(&args.state_dir);
    Ok(identity.with_note(&fs::read_to_string(under_way).unwrap_or_default()))
}

/// A name that cannot be this node's is refused while nothing is lost. A datastore that is away hinders nothing.
fn refuse_wrong_name(args: &Uninstall, identity: &Identity) -> anyhow::Result<()> {
    if identity.served.is_some() || identity.given.is_none() {
        return Ok(());
    }
    let named = with_store(&args.store.datastore, async |store| {
        Ok(tokio::time::timeout(NAME, identity.resolve(&store, &args.state_dir)).await??)
    });
    match named {
        Ok(Err(problem)) => bail!("{problem}; nothing was changed"),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

fn note(under_way: &Path, identity: &Identity) -> anyhow::Result<()> {
    let Some(text) = identity.to_note() else { return Ok(()) };
    match fs::write(under_way, text) {
        // No state directory: the daemons never ran here, and there is nothing to interrupt.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        written => written.with_context(|| format!("{} cannot be written", under_way.display())),
    }
}

/// The runtime is to make no new pod here.
fn remove_plugin(args: &Uninstall, report: &mut Report) {
    let conflists = Conflist::new(&args.cni_conf_dir, &args.node_dirs.run_dir).ours();
    let conflists = conflists.unwrap_or_else(|problem| {
        report.problems.push(problem);
        Vec::new()
    });
    let plugins = [CNI_PLUGIN, CNI_IPAM_PLUGIN].map(|name| args.cni_bin_dir.join(name));
    let plugins = plugins.into_iter().flat_map(|plugin| [place::unfinished(&plugin), plugin]);
    take(report, leftovers::remove(conflists.into_iter().chain(plugins)));
}

/// The table goes last: pods and tunnels are guarded as long as there are any.
fn remove_from_kernel(report: &mut Report) {
    let bgpd = twill_bgpd::io::netlink::remove();
    let felix = removal::remove();
    report.workload_interfaces = felix.interfaces;
    report.routes = bgpd.routes + felix.routes;
    report.tunnel_devices = bgpd.tunnels;
    report.tables = felix.tables;
    report.problems.extend(bgpd.problems.into_iter().chain(felix.problems));
    report.notes.push(format!("{} stay as they are: others may need them by now", sysctl::OF_THE_NODE));
}

/// That no daemon is started again for a while; one that was would bring everything back.
fn stay_away(daemons: &[Daemon], left: Instant) -> anyhow::Result<()> {
    loop {
        daemons.iter().try_for_each(Daemon::back)?;
        if left.elapsed() >= RESTART {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn remove_files(args: &Uninstall, report: &mut Report) {
    let run_dir = &args.node_dirs.run_dir;
    let mut files = twill_bgpd::files(run_dir, &args.state_dir);
    match removal::files(run_dir, &args.state_dir) {
        Ok(more) => files.extend(more),
        Err(error) => report.problems.push(format!("{} cannot be read: {error}", args.state_dir.display())),
    }
    take(report, leftovers::remove(files));
}

fn take(report: &mut Report, (removed, problems): (usize, Vec<String>)) {
    report.files += removed;
    report.problems.extend(problems);
}

/// What the datastore holds of this node; whether nothing is left to be done about it.
fn forget_objects(args: &Uninstall, identity: &Identity, report: &mut Report) -> bool {
    if identity.is_empty() {
        if report.is_anything_gone() {
            report.warnings.push(format!("no daemon of this node runs, so its name is not known; {BY_NAME}"));
        }
        return true;
    }
    let claimant = identity.claimant.as_deref();
    let forgotten = with_store(&args.store.datastore, async |store| {
        let work = async {
            Ok(match identity.resolve(&store, &args.state_dir).await? {
                Ok(Some(node)) => Ok(Some((objects::forget_node(&store, &node, claimant).await?, node))),
                Ok(None) => Ok(None),
                Err(problem) => Err(problem),
            })
        };
        let within = tokio::time::timeout(DATASTORE, work).await;
        within.with_context(|| format!("the datastore does not answer within {} s", DATASTORE.as_secs()))?
    });
    match forgotten {
        Ok(Ok(named)) => forgotten_as(named, report),
        Ok(Err(problem)) => {
            report.warnings.push(format!("{problem}; the node's objects stay in the datastore until then"));
            return false;
        }
        Err(error) => {
            report.warnings.push(format!(
                "objects of node {} stay in the datastore ({error:#}): when it answers, run this again; {} remembers whose they are",
                identity.best().unwrap_or("NAME"),
                args.state_dir.join(UNDER_WAY).display()
            ));
            return false;
        }
    }
    true
}

/// Where nothing says which node this was.
const BY_NAME: &str = "if objects of it are left (twill get nodenetworks), run this again with --node NAME";

fn forgotten_as(named: Option<(Forgotten, String)>, report: &mut Report) {
    let Some((Forgotten { gone, kept }, node)) = named else {
        let why = "no daemon of this node runs, and its store of addresses has no block in the datastore, so its name is not known";
        report.warnings.push(format!("{why}; {BY_NAME}"));
        return;
    };
    report.objects = gone;
    if !kept.is_empty() {
        report.warnings.push(format!(
            "IPBlocks {} were claimed by another machine that is registered as {node}, or by this one before its disk was lost, \
             and stay, as does NodeNetwork {node} if this machine's disk was lost; if nobody uses them: twill delete ipblock NAME, and \
             twill delete nodenetwork {node}",
            kept.join(", ")
        ));
    }
    report.node = Some(node);
}

impl Report {
    fn is_anything_gone(&self) -> bool {
        self.workload_interfaces + self.routes + self.tunnel_devices + self.tables + self.files > 0
    }
}

fn finish(args: &Uninstall, report: &Report) -> anyhow::Result<ExitCode> {
    let row = |what: &str, count: usize| vec![what.to_owned(), count.to_string()];
    let rows = [
        row("workload interfaces", report.workload_interfaces),
        row("routes", report.routes),
        row("tunnel devices", report.tunnel_devices),
        row("nftables tables", report.tables),
        row("files", report.files),
        row("objects", report.objects),
    ];
    print(args.output.output, report, &["REMOVED", "COUNT"], rows)?;
    if args.output.output == Format::Table {
        report.notes.iter().try_for_each(|note| print_line(&format!("note: {note}")))?;
    }
    report.warnings.iter().for_each(|warning| eprintln!("twill: warning: {warning}"));
    let Some((last, others)) = report.problems.split_last() else { return Ok(ExitCode::SUCCESS) };
    others.iter().for_each(|problem| eprintln!("twill: {problem}"));
    ensure!(false, "{last}");
    Ok(ExitCode::FAILURE)
}
