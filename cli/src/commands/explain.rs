//! `twill explain`: whether policy lets a connection be opened, and why, by the evaluator that enforcement is held to.

use crate::args::Explain;
use crate::commands::exit;
use crate::destination::Destination;
use crate::io::with_store;
use crate::output::{Format, print_line, print_value};
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::process::ExitCode;
use twill_crds::{ClusterNetworkPolicy, NamespaceIsolation, NetworkPolicy, Node, Pod};
use twill_datastore::{Datastore, Filter};
use twill_felix::evaluate::{Explanation, Objects, Party, Universe};
use twill_felix::model::{PodKey, Protocol};

pub(crate) fn run(args: &Explain) -> anyhow::Result<ExitCode> {
    let (src, Destination { party: dst, port }) = (&args.src, &args.dst);
    with_store(&args.store.datastore, async |store| {
        let pods = all::<Pod>(&store).await?;
        let ports = match port {
            Some(port) => vec![*port],
            None => declared(dst, &pods)?,
        };
        let namespaces = all::<twill_crds::Namespace>(&store).await?;
        let (policies, nodes) = (all::<NetworkPolicy>(&store).await?, all::<Node>(&store).await?);
        let of_cluster = all::<ClusterNetworkPolicy>(&store).await?;
        let isolations = all::<NamespaceIsolation>(&store).await?;
        let universe = Universe::new(&Objects {
            pods: &pods,
            namespaces: &namespaces,
            network_policies: &policies,
            cluster_network_policies: &of_cluster,
            namespace_isolations: &isolations,
            nodes: &nodes,
        });
        let explained: Result<Vec<Explanation>, _> =
            ports.iter().map(|(port, protocol)| universe.explain(src, dst, *port, *protocol)).collect();
        let explained = explained?;
        universe.problems().for_each(|problem| eprintln!("warning: {problem}"));
        match args.output.output {
            Format::Table => explained.iter().try_for_each(|explanation| print_line(&explanation.to_string()))?,
            format => print_value(format, &explained.iter().map(value).collect::<Vec<_>>())?,
        }
        Ok(exit(explained.iter().all(|explanation| explanation.allowed)))
    })
}

async fn all<K: twill_crds::Object>(store: &Datastore) -> anyhow::Result<Vec<K>> {
    Ok(store.list::<K>(&Filter::default()).await?.items)
}

/// All ports that a pod declares.
fn declared(dst: &Party, pods: &[Pod]) -> anyhow::Result<Vec<(u16, Protocol)>> {
    let Party::Pod(key) = dst else { bail!("{dst} has no declared ports; write {dst}:PORT") };
    let is = |pod: &&Pod| {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        PodKey { namespace: text(&pod.metadata.namespace), name: text(&pod.metadata.name) } == *key
    };
    let containers = pods.iter().find(is).and_then(|pod| pod.spec.as_ref()).map(|spec| spec.containers.as_slice());
    let mut ports = Vec::new();
    for port in containers.unwrap_or_default().iter().flat_map(|container| container.ports.iter().flatten()) {
        let number = u16::try_from(port.container_port).context("a declared port is out of range")?;
        ports.push((number, Protocol::of_port(port.protocol.as_deref()).map_err(anyhow::Error::msg)?));
    }
    if ports.is_empty() {
        bail!("{dst} declares no ports, or does not exist; write {dst}:PORT");
    }
    Ok(ports)
}

fn value(explanation: &Explanation) -> Value {
    let judgement = |j: &twill_felix::evaluate::Judgement| json!({"allowed": j.allows(), "reason": j.to_string()});
    json!({
        "allowed": explanation.allowed,
        "source": explanation.src.to_string(),
        "destination": explanation.dst.to_string(),
        "port": explanation.port,
        "protocol": explanation.protocol.to_string(),
        "egress": judgement(&explanation.egress),
        "ingress": judgement(&explanation.ingress),
    })
}
