//! `twill uninstall --cluster`: every node's felix is asked by its NodeNetwork, whose end is the node's report; then the objects go.

use super::{confirm, objects};
use crate::args::Uninstall;
use crate::commands::{DEGRADED, counted, is_attached};
use crate::io::with_store;
use crate::output::print;
use futures::StreamExt;
use serde::Serialize;
use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use twill_crds::{NodeNetwork, Object, Pod};
use twill_datastore::{Datastore, Filter, Followed, Index, follow};

/// What went.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// Nodes that are clean.
    uninstalled: BTreeSet<String>,
    /// Nodes that have no Node object, and for which nobody answered.
    gone: BTreeSet<String>,
    /// Nodes that did not say so in time.
    missing: BTreeSet<String>,
    /// Objects that were deleted after all nodes were clean.
    objects: usize,
}

pub(super) fn run(args: &Uninstall) -> anyhow::Result<ExitCode> {
    with_store(&args.store.datastore, async |store| {
        let question = question(&store).await?;
        confirm(args, || Ok(question))?;
        let mut report = uninstall(&store, Instant::now() + args.timeout).await?;
        if report.missing.is_empty() || args.force {
            report.objects = objects::forget_all(&store).await?;
        }
        answer(args, &report)
    })
}

async fn question(store: &Datastore) -> anyhow::Result<String> {
    let nodes = objects::nodes(store).await?.len();
    let pods = store.list::<Pod>(&Filter::default()).await?.items;
    let pods = counted(pods.iter().filter(|pod| is_attached(pod)).count(), "pod");
    Ok(format!("Twill goes from {}, and with it the network of {pods}.", counted(nodes, "node")))
}

/// How long a node may take whose Node object is gone: most likely nobody is there any more.
const GONE: Duration = Duration::from_secs(15);

/// Asks every node that has anything of Twill's, and those that come to have it, until none is left or the time is over.
async fn uninstall(store: &Datastore, deadline: Instant) -> anyhow::Result<Report> {
    let mut asked = objects::nodes(store).await?;
    let mut gone = BTreeSet::new();
    for node in &asked {
        objects::ask_node(store, node, true).await?;
        if !objects::exists(store, node).await? {
            gone.insert(node.clone());
        }
    }
    let patience = deadline.min(Instant::now() + GONE);
    let mut told = follow::<NodeNetwork>(store, Filter::default());
    let (mut left, mut synced) = (Index::<NodeNetwork>::default(), false);
    loop {
        let names: BTreeSet<String> = left.iter().map(|(key, _)| key.name.clone()).collect();
        let until = if synced && names.is_subset(&gone) { patience } else { deadline };
        if synced && names.is_empty() {
            break;
        }
        let Ok(Some(step)) = timeout_at(until, told.next()).await else { break };
        synced |= matches!(step, Followed::Synced { .. });
        for node in left.apply(step).into_iter().filter_map(|change| change.new) {
            asked.insert(node.name().to_owned());
            if !node.spec.uninstall {
                objects::ask_node(store, node.name(), false).await?;
            }
        }
    }
    anyhow::ensure!(synced, "the datastore does not answer; nothing was changed");
    let left: BTreeSet<String> = left.iter().map(|(key, _)| key.name.clone()).collect();
    let (gone, missing): (BTreeSet<_>, BTreeSet<_>) = left.into_iter().partition(|node| gone.contains(node));
    Ok(Report { uninstalled: &(&asked - &missing) - &gone, gone, missing, objects: 0 })
}

fn answer(args: &Uninstall, report: &Report) -> anyhow::Result<ExitCode> {
    let row = |node: &String, state: &str| vec![node.clone(), state.to_owned()];
    let clean = report.uninstalled.iter().map(|node| row(node, "uninstalled"));
    let missing = report.missing.iter().map(|node| row(node, "did not answer"));
    let gone = report.gone.iter().map(|node| row(node, "no Node, no answer"));
    let objects = row(&"objects".to_owned(), &format!("{} deleted", report.objects));
    print(args.output.output, report, &["NODE", "STATE"], clean.chain(gone).chain(missing).chain([objects]))?;
    if !report.gone.is_empty() {
        let names = report.gone.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        eprintln!(
            "twill: warning: there is no Node {names}, and nobody answered; should such a machine still run, run twill uninstall there"
        );
    }
    if report.missing.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let names = report.missing.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let rest = if args.force {
        "where Twill is still installed, run twill uninstall there; their objects are gone all the same"
    } else {
        "where Twill is still installed, run twill uninstall there, or start felix there and run this again; where it is not, or the \
         machine is gone, nobody can answer, and --force deletes the objects all the same; nothing else was removed"
    };
    eprintln!(
        "twill: {} did not answer within {} s ({names}): {rest}",
        counted(report.missing.len(), "node"),
        args.timeout.as_secs()
    );
    Ok(ExitCode::from(DEGRADED))
}
