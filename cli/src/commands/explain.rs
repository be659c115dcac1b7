//! `twill explain`: whether policy lets a connection be opened, and why, by the evaluator that enforcement is held to.

use crate::args::Explain;
use crate::commands::policy::{Cluster, declared, told};
use crate::commands::{counted, exit};
use crate::destination::{Destination, NodePort};
use crate::io::with_store;
use crate::output::{Format, print_line, print_value};
use anyhow::bail;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::process::ExitCode;
use twill_crds::{Object, Pod};
use twill_felix::evaluate::{Crossing, Entered, Explanation, Judgement, Party, Universe};
use twill_felix::model::Protocol;

pub(crate) fn run(args: &Explain) -> anyhow::Result<ExitCode> {
    let (src, Destination { party: dst, port }) = (&args.src, &args.dst);
    with_store(&args.store.datastore, async |store| {
        let cluster = Cluster::of(&store).await?;
        let ports = match port {
            Some(port) => vec![*port],
            None => declared_by(dst, &cluster.pods)?,
        };
        let states = told::known(&args.node.run_dir, &args.told, &cluster.nodes)?;
        let universe = states.iter().fold(cluster.universe(), Universe::told);
        let way = crossing(args.interface.as_ref(), args.through.as_ref());
        let explained: Result<Vec<Vec<Explanation>>, _> =
            ports.iter().map(|(port, protocol)| universe.explain_each(src, dst, *port, *protocol, &way)).collect();
        let explained = explained?;
        universe.problems().for_each(|problem| eprintln!("warning: {problem}"));
        match args.output.output {
            Format::Table => explained.iter().try_for_each(|each| table(each))?,
            format => print_value(format, &explained.iter().flatten().map(value).collect::<Vec<_>>())?,
        }
        Ok(exit(explained.iter().flatten().all(|explanation| explanation.allowed)))
    })
}

/// Receivers of a Service that are told in full; of the others, how many are denied.
const SHOWN: usize = 4;

pub(super) fn table(each: &[Explanation]) -> anyhow::Result<()> {
    // Those that somebody has to see come first.
    let (allowed, denied): (Vec<_>, Vec<_>) = each.iter().partition(|explanation| explanation.allowed);
    let all: Vec<&Explanation> = denied.iter().chain(&allowed).copied().collect();
    let (shown, others) = all.split_at(all.len().min(SHOWN));
    shown.iter().try_for_each(|explanation| print_line(&explanation.to_string()))?;
    if others.is_empty() {
        return Ok(());
    }
    let denied = others.iter().filter(|explanation| !explanation.allowed).count();
    print_line(&format!(
        "{} more: {} allowed, {denied} denied",
        counted(others.len(), "receiver"),
        others.len() - denied
    ))
}

/// What a connection meets on its way.
pub(super) fn crossing(interface: Option<&String>, through: Option<&NodePort>) -> Crossing {
    let came_to = through.map(|at| (at.node.clone(), at.port));
    Crossing { interface: interface.cloned(), came_to, ..Crossing::default() }
}

/// All ports that a pod declares.
fn declared_by(dst: &Party, pods: &[Pod]) -> anyhow::Result<Vec<(u16, Protocol)>> {
    let written = match dst {
        // Without brackets its last part would be the port.
        Party::Address(IpAddr::V6(address)) => format!("[{address}]:PORT"),
        other => format!("{other}:PORT"),
    };
    let Party::Pod(key) = dst else { bail!("{dst} has no declared ports; write {written}") };
    let pod = pods.iter().find(|pod| pod.namespace() == key.namespace && pod.name() == key.name);
    let ports: Vec<(u16, Protocol)> = pod.map(declared).into_iter().flatten().collect();
    if ports.is_empty() {
        bail!("{dst} declares no ports, or does not exist; write {dst}:PORT");
    }
    Ok(ports)
}

/// An explanation for programs.
pub(super) fn value(explanation: &Explanation) -> Value {
    let judgement = |j: &Judgement| match j {
        Judgement::Denied { fix: Some(fix), .. } => {
            json!({"allowed": false, "reason": j.to_string(), "fix": fix.to_string()})
        }
        Judgement::Needed { node, reason, assumed } => json!({
            "allowed": true, "reason": j.to_string(), "failsafe": {"node": node, "reason": reason, "assumed": assumed},
        }),
        _ => json!({"allowed": j.allows(), "reason": j.to_string()}),
    };
    let mut value = json!({
        "allowed": explanation.allowed,
        "source": explanation.src.to_string(),
        "destination": explanation.dst.to_string(),
        "port": explanation.port,
        "protocol": explanation.protocol.to_string(),
        "egress": judgement(&explanation.egress),
        "ingress": judgement(&explanation.ingress),
    });
    if let Some(outer) = &explanation.outer {
        value["tunnel"] = judgement(outer);
    }
    if let Some(through) = &explanation.through {
        value["through"] = judgement(through);
    }
    match &explanation.entered {
        Some(Entered::HostPort { node, port }) => value["hostPort"] = json!({"node": node, "port": port}),
        Some(Entered::NodePort { node, port, service }) => {
            value["nodePort"] = json!({"node": node, "port": port, "service": service});
        }
        Some(Entered::External { address, port, service }) => {
            value["external"] = json!({"address": address, "port": port, "service": service});
        }
        Some(Entered::ClusterIp { address, port, service }) => {
            value["clusterIP"] = json!({"address": address, "port": port, "service": service});
        }
        None => {}
    }
    if !explanation.notes.is_empty() {
        value["notes"] = explanation.notes.iter().map(ToString::to_string).collect();
    }
    if explanation.depends() {
        value["depends"] = json!("interface");
    }
    value
}
