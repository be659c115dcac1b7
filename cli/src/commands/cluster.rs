//! `twill status --cluster`: how the nodes are, as they wrote it into their NodeNetworks.

use crate::commands::exit;
use crate::io::with_store;
use crate::output::{Format, print_line, print_table, print_value};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use twill_controller::exodus::exodus;
use twill_crds::bgp::Topology;
use twill_crds::topology::Sessions;
use twill_crds::{BGPConfiguration, Node, NodeNetwork, Object};
use twill_datastore::{Filter, Key};

pub(crate) fn run(datastore: &str, format: Format) -> anyhow::Result<ExitCode> {
    with_store(datastore, async |store| {
        let nodes = store.list::<Node>(&Filter::default()).await?.items;
        let networks = store.list::<NodeNetwork>(&Filter::default()).await?.items;
        let configuration = store.get::<BGPConfiguration>(&Key::cluster("default")).await?;
        let sessions = configuration.and_then(|configuration| configuration.status?.sessions);
        let cluster = cluster(&nodes, &networks, sessions.as_ref());
        show(format, &cluster)?;
        Ok(exit(cluster.in_sync == cluster.total))
    })
}

/// The nodes of a cluster.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Cluster {
    total: usize,
    in_sync: usize,
    drained: usize,
    unreachable: usize,
    /// Who peers with whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions: Option<Sessions>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
    nodes: Vec<NodeState>,
}

/// One of them.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeState {
    name: String,
    in_sync: bool,
    drained: bool,
    unreachable: bool,
    /// Whether it reflects what other nodes tell.
    reflector: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
}

/// Nodes, and NodeNetworks without one, by name.
fn cluster(nodes: &[Node], networks: &[NodeNetwork], sessions: Option<&Sessions>) -> Cluster {
    let by_name: BTreeMap<&str, &NodeNetwork> = networks.iter().map(|network| (network.name(), network)).collect();
    let registered: BTreeMap<&str, &Node> = nodes.iter().map(|node| (node.name(), node)).collect();
    // As the controller judges it.
    let left = by_name.iter().filter(|(name, network)| !registered.contains_key(**name) && !network.spec.uninstall);
    let exodus = exodus(nodes.len(), &left.map(|(name, _)| *name).collect::<Vec<_>>());
    let names: BTreeSet<&str> = by_name.keys().chain(registered.keys()).copied().collect();
    let states = names.into_iter().map(|name| NodeState {
        reflector: sessions.is_some_and(|sessions| sessions.reflects(name)),
        ..state(name, registered.get(name).copied(), by_name.get(name).copied())
    });
    let nodes: Vec<NodeState> = states.collect();
    let count = |holds: fn(&NodeState) -> bool| nodes.iter().filter(|node| holds(node)).count();
    Cluster {
        total: nodes.len(),
        in_sync: count(|node| node.in_sync),
        drained: count(|node| node.drained),
        unreachable: count(|node| node.unreachable),
        sessions: sessions.cloned(),
        problems: exodus.into_iter().collect(),
        nodes,
    }
}

fn state(name: &str, node: Option<&Node>, network: Option<&NodeNetwork>) -> NodeState {
    let drained = network.is_some_and(|network| network.spec.drain);
    let unreachable = node.is_some_and(is_silent);
    let status = network.and_then(|network| network.status.as_ref());
    let (bgp, felix): (&[Condition], &[Condition]) =
        status.map(|status| (&*status.bgp.conditions, &*status.felix.conditions)).unwrap_or_default();
    let mut problems = Vec::new();
    if node.is_none() {
        problems.push("its Node is gone; the controller frees what it left, when it may".to_owned());
    }
    if unreachable {
        problems.push("its kubelet is not heard of, so that what the node said last may no longer be so".to_owned());
    }
    if felix.is_empty() {
        problems.push("felix has not reported".to_owned());
    }
    if bgp.is_empty() {
        problems.push("bgpd has not reported".to_owned());
    }
    let bad = bgp.iter().chain(felix).filter(|condition| condition.status != "True");
    // Sessions that an operator closed are no problem.
    let bad = bad.filter(|condition| !(drained && condition.type_ == "SessionsEstablished"));
    problems.extend(bad.map(|condition| format!("{}: {}", condition.type_, condition.message)));
    NodeState { name: name.to_owned(), in_sync: problems.is_empty(), drained, unreachable, reflector: false, problems }
}

fn is_silent(node: &Node) -> bool {
    let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "Unknown")
}

/// As a table only what a person must look at: there may be thousands.
fn show(format: Format, cluster: &Cluster) -> anyhow::Result<()> {
    if format != Format::Table {
        return print_value(format, cluster);
    }
    let Cluster { total, in_sync, drained, unreachable, sessions, problems, nodes } = cluster;
    let unlike: Vec<&NodeState> = nodes.iter().filter(|node| !node.in_sync || node.drained).collect();
    if !unlike.is_empty() {
        let rows = unlike.iter().map(|node| {
            let is = match (node.unreachable, node.drained) {
                (true, _) => "unreachable",
                (false, true) => "drained",
                (false, false) => "not in sync",
            };
            vec![node.name.clone(), is.to_owned(), node.problems.join("; ")]
        });
        print_table(&["NODE", "IS", "PROBLEMS"], rows)?;
    }
    for problem in problems {
        print_line(problem)?;
    }
    if let Some(sessions) = sessions {
        print_line(&routing(sessions))?;
    }
    print_line(&format!("{in_sync} of {total} nodes are in sync; {drained} drained, {unreachable} unreachable"))
}

/// Who peers with whom, in one sentence.
fn routing(sessions: &Sessions) -> String {
    let is = match sessions.topology {
        Topology::RouteReflector => format!("nodes peer with {}, which reflect", sessions.route_reflectors.join(", ")),
        Topology::Fabric => "nodes peer with routers".to_owned(),
        Topology::Mesh | Topology::Auto => "nodes peer with each other".to_owned(),
    };
    let Some(retiring) = &sessions.retiring else { return is };
    let mesh = retiring.mesh.then(|| "the mesh".to_owned());
    let names: Vec<String> = mesh.into_iter().chain(retiring.route_reflectors.iter().cloned()).collect();
    format!("{is}; sessions of before are kept: {}; kubectl describe bgpconfig says for whom", names.join(", "))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn object<K: Object>(name: &str, rest: Value) -> K {
        let mut object =
            json!({"apiVersion": K::kind().api_version(), "kind": K::kind().kind, "metadata": {"name": name}});
        object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        serde_json::from_value(object).unwrap()
    }

    fn network(name: &str, drain: bool, conditions: &[(&str, &str)]) -> NodeNetwork {
        let of = |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": "R", "message": "why", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let bgp: Vec<Value> = conditions.iter().map(|(kind, status)| of(kind, status)).collect();
        let status = json!({"bgp": {"conditions": bgp}, "felix": {"conditions": [of("PolicySynced", "True")]}});
        object(name, json!({"spec": {"drain": drain}, "status": status}))
    }

    #[test]
    fn a_node_is_in_sync_when_all_that_it_says_holds_and_it_is_heard_of() {
        let silent = json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}});
        let nodes: Vec<Node> = vec![
            object("down", json!({})),
            object("drained", json!({})),
            object("fine", json!({})),
            object("new", json!({})),
            object("silent", silent),
        ];
        let ready = ("BGPReady", "True");
        let networks = [
            network("down", false, &[ready, ("SessionsEstablished", "False")]),
            network("drained", true, &[ready, ("SessionsEstablished", "False"), ("Drained", "True")]),
            network("fine", false, &[ready, ("SessionsEstablished", "True")]),
            network("gone", false, &[ready]),
            network("silent", false, &[ready]),
        ];
        let sessions = Sessions {
            step: 4,
            topology: Topology::RouteReflector,
            route_reflectors: vec!["fine".to_owned()],
            retiring: Some(twill_crds::topology::Retiring { mesh: true, route_reflectors: vec!["down".to_owned()] }),
        };
        let cluster = cluster(&nodes, &networks, Some(&sessions));
        let reflect: Vec<&str> = cluster.nodes.iter().filter(|node| node.reflector).map(|node| &*node.name).collect();
        assert_eq!(reflect, ["down", "fine"]);
        let said = "nodes peer with fine, which reflect; sessions of before are kept: the mesh, down; kubectl describe bgpconfig says for whom";
        assert_eq!(routing(&sessions), said);
        assert_eq!((cluster.total, cluster.in_sync, cluster.drained, cluster.unreachable), (6, 2, 1, 1));
        let problems = |name: &str| cluster.nodes.iter().find(|node| node.name == name).unwrap().problems.join("; ");
        assert_eq!(problems("down"), "SessionsEstablished: why");
        assert_eq!(problems("drained") + &problems("fine"), "");
        assert_eq!(problems("new"), "felix has not reported; bgpd has not reported");
        assert!(problems("gone").starts_with("its Node is gone") && problems("silent").starts_with("its kubelet"));
        assert!(cluster.problems.is_empty());
    }

    #[test]
    fn most_nodes_gone_is_a_problem_of_the_cluster() {
        let left: Vec<NodeNetwork> = ["a", "b", "c"].iter().map(|name| network(name, false, &[])).collect();
        let gone = cluster(&[object("d", json!({}))], &left, None);
        assert!(gone.problems[0].starts_with("3 of 4 nodes are gone"), "{:?}", gone.problems);
    }
}
