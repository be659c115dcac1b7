//! `twill policy diff`: what policies in files would open and close in a cluster.

mod hosts;

use super::{Cluster, Putting, connections, declared, told};
use crate::args::PolicyDiff;
use crate::commands::{counted, exit, get};
use crate::io::{manifests, with_store};
use crate::output::{Format, print_line, print_table, print_value};
use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::ExitCode;
use twill_crds::control::{ObjectName, PolicyChange};
use twill_crds::{Object, Pod};
use twill_datastore::Datastore;
use twill_felix::evaluate::{Change, Diff, Group, Span, diff};
use twill_felix::host::State;
use twill_felix::model::{PodKey, Protocol};

/// Kinds that a change may be made of.
const COUNTS: [&str; 5] = ["NetworkPolicy", "ClusterNetworkPolicy", "NamespaceIsolation", "HostPolicy", "Namespace"];

pub(crate) fn run(args: &PolicyDiff) -> anyhow::Result<ExitCode> {
    let manifests = if args.file.is_empty() { Vec::new() } else { manifests::read(&args.file)? };
    with_store(&args.store.datastore, async |store| {
        let before = Cluster::of(&store).await?;
        let mut after = before.clone();
        let (mut passed_over, mut change) = (0, PolicyChange::default());
        let mut putting = Putting::into(&mut after);
        for manifest in &manifests {
            if COUNTS.contains(&manifest.kind.kind.as_ref()) && putting.put(manifest)? {
                // A HostPolicy cuts nothing: connections that are open go on, so there is nothing to foretell.
                if manifest.kind.kind != "HostPolicy" {
                    change.applied.push(manifest.value.clone());
                }
            } else {
                passed_over += 1;
            }
        }
        if passed_over > 0 {
            let what = counted(passed_over, "object");
            eprintln!("warning: {what} in the files passed over: neither a policy nor a namespace");
        }
        for word in &args.delete {
            let gone = remove(&store, &mut after, word).await?;
            if gone.kind != "HostPolicy" {
                change.deleted.push(gone);
            }
        }
        let states: Vec<State> = told::known(&args.node.run_dir, &args.told, &before.nodes)?;
        let [old, new] = [&before, &after].map(|cluster| told::needing(cluster.universe(), &states));
        new.problems().for_each(|problem| eprintln!("warning: {problem}"));
        let Diff { changes, at_hosts, .. } = diff(&old, &new);
        let pods = before.pods.iter().map(|pod| (key(pod), pod)).collect();
        let forecast = args.connections.then(|| connections::forecast(&args.node, change)).transpose()?;
        let values = || {
            let at_pods = changes.iter().map(|change| value(change, &pods));
            at_pods.chain(at_hosts.iter().map(hosts::value)).collect::<Vec<_>>()
        };
        match (args.output.output, &forecast) {
            (Format::Table, _) => {
                if !changes.is_empty() || at_hosts.is_empty() {
                    table(&changes, &pods)?;
                }
                hosts::table(&at_hosts, &states)?;
            }
            (format, None) => print_value(format, &values())?,
            (format, Some(forecast)) => {
                print_value(format, &json!({"changes": values(), "connections": forecast}))?;
            }
        }
        if let Some(forecast) = forecast.as_ref().filter(|_| args.output.output == Format::Table) {
            connections::table(forecast)?;
        }
        let same = changes.is_empty() && at_hosts.is_empty();
        Ok(exit(same && forecast.is_none_or(|forecast| forecast.cut.is_empty())))
    })
}

fn key(pod: &Pod) -> PodKey {
    PodKey { namespace: pod.namespace().to_owned(), name: pod.name().to_owned() }
}

/// Takes a policy away that `KIND/NAME` or `KIND/NAMESPACE/NAME` names.
async fn remove(store: &Datastore, cluster: &mut Cluster, word: &str) -> anyhow::Result<ObjectName> {
    let (kind, name) = word.split_once('/').with_context(|| format!("--delete {word}: write KIND/NAME"))?;
    let kind = get::kind(store, kind).await?;
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    let gone = match kind.kind.as_ref() {
        "NetworkPolicy" => drop_from(&mut cluster.network_policies, namespace, name),
        "ClusterNetworkPolicy" => drop_from(&mut cluster.cluster_network_policies, "", name),
        "NamespaceIsolation" => drop_from(&mut cluster.namespace_isolations, "", name),
        "HostPolicy" => drop_from(&mut cluster.host_policies, "", name),
        other => bail!(
            "--delete {word}: {other} is no kind of policy; use NetworkPolicy, ClusterNetworkPolicy, NamespaceIsolation or HostPolicy"
        ),
    };
    let shown = if kind.namespaced { format!("{namespace}/{name}") } else { name.to_owned() };
    ensure!(gone, "--delete {word}: there is no {} {shown}", kind.kind);
    let namespace = if kind.namespaced { namespace.to_owned() } else { String::new() };
    Ok(ObjectName { kind: kind.kind.to_string(), namespace, name: name.to_owned() })
}

fn drop_from<K: Object>(objects: &mut Vec<K>, namespace: &str, name: &str) -> bool {
    let before = objects.len();
    objects.retain(|object| (object.namespace(), object.name()) != (namespace, name));
    objects.len() < before
}

type Pods<'a> = BTreeMap<PodKey, &'a Pod>;

/// Declared ports of the receivers that the change is about.
fn declared_ports(change: &Change, pods: &Pods<'_>) -> Vec<String> {
    let Group::Pods { pods: receivers, .. } = &change.to else { return Vec::new() };
    let all: std::collections::BTreeSet<(Protocol, u16)> = receivers
        .iter()
        .filter_map(|key| pods.get(key))
        .flat_map(|pod| declared(pod))
        .filter(|(port, protocol)| change.ports.iter().any(|span| span.contains(*port, *protocol)))
        .map(|(port, protocol)| (protocol, port))
        .collect();
    all.into_iter().map(|(protocol, port)| format!("{port}/{protocol}")).collect()
}

/// `all`, or the first few.
fn ports(change: &Change) -> String {
    if change.ports.len() == 4 && change.ports.iter().all(Span::is_whole) {
        return "all".to_owned();
    }
    few(change.ports.iter().map(ToString::to_string).collect())
}

fn few(all: Vec<String>) -> String {
    const SHOWN: usize = 6;
    let shown = all.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if all.len() > SHOWN { format!("{shown} and {} more", all.len() - SHOWN) } else { shown }
}

fn table(changes: &[Change], pods: &Pods<'_>) -> anyhow::Result<()> {
    if changes.is_empty() {
        return print_line("nothing opens or closes");
    }
    let rows = changes.iter().map(|change| {
        vec![
            if change.opens { "opens" } else { "closes" }.to_owned(),
            change.from.to_string(),
            change.to.to_string(),
            ports(change),
            declared_ports(change, pods).join(", "),
            change.pairs.to_string(),
        ]
    });
    print_table(&["CHANGE", "FROM", "TO", "PORTS", "OF THESE DECLARED", "PAIRS"], rows)?;
    let sum = |opens| changes.iter().filter(|change| change.opens == opens).map(|change| change.pairs).sum::<usize>();
    print_line(&format!(
        "{} open, {} close, in whole or in part",
        counted(sum(true), "pair"),
        counted(sum(false), "pair")
    ))
}

fn value(change: &Change, pods: &Pods<'_>) -> Value {
    json!({
        "change": if change.opens { "Opens" } else { "Closes" },
        "from": group(&change.from),
        "to": group(&change.to),
        "ports": change.ports.iter().map(span).collect::<Vec<_>>(),
        "declaredPorts": declared_ports(change, pods),
        "pairs": change.pairs,
    })
}

fn span(span: &Span) -> Value {
    match span.protocol {
        Some(protocol) if protocol.has_ports() => {
            json!({"protocol": protocol.to_string(), "port": span.first, "endPort": span.last})
        }
        Some(protocol) => json!({"protocol": protocol.to_string()}),
        None => json!({"protocol": "other"}),
    }
}

/// Names of nodes that programs are told of one end.
const NAMED: usize = 64;

fn group(group: &Group) -> Value {
    match group {
        Group::Pods { pods, labels, .. } => {
            json!({"pods": pods.iter().map(ToString::to_string).collect::<Vec<_>>(), "labels": labels})
        }
        Group::Nodes { nodes, .. } => {
            json!({"nodes": nodes.iter().take(NAMED).collect::<Vec<_>>(), "nodeCount": nodes.len()})
        }
        Group::Outside { ranges, .. } => {
            json!({"outside": ranges.to_string().split(", ").collect::<Vec<_>>()})
        }
    }
}
