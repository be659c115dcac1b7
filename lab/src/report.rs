//! What a lab says of itself: in flow its state and pods, out flow text and the JSON of `twill lab status`.

use crate::names::pod_netns;
use crate::ports::declared;
use crate::state::{Node, Router, State};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use twill_crds::{IPBlock, Object, Pod};

/// `twill lab status -o json`.
#[must_use]
pub fn status(state: &State, pods: &[Pod], drained: &BTreeSet<String>) -> Value {
    let nodes = state.nodes.iter().map(|node| node_status(node, drained)).collect::<Vec<_>>();
    let routers = state
        .routers
        .iter()
        .map(|r| json!({"name": r.name, "netns": r.netns, "asn": r.asn, "speaker": speaker(r)}))
        .collect::<Vec<_>>();
    let pods = pods.iter().map(|p| pod(state, p)).collect::<Vec<_>>();
    json!({"name": state.name, "datastore": state.datastore, "nodes": nodes, "routers": routers, "pods": pods})
}

fn speaker(router: &Router) -> String {
    router.software.map_or_else(|| "static".to_owned(), |s| s.to_string())
}

fn node_status(node: &Node, drained: &BTreeSet<String>) -> Value {
    let mut value = json!({"name": node.name, "netns": node.netns, "addresses": node.addresses, "rack": node.rack});
    if node.partitioned {
        value["partitioned"] = json!(true);
    }
    if drained.contains(&node.name) {
        value["drained"] = json!(true);
    }
    value
}

fn pod(state: &State, pod: &Pod) -> Value {
    let ports = declared(pod)
        .iter()
        .map(|p| json!({"port": p.port, "protocol": p.protocol, "name": p.name}))
        .collect::<Vec<_>>();
    json!({
        "namespace": pod.namespace(),
        "name": pod.name(),
        "node": node(pod),
        "netns": netns(state, pod),
        "ips": ips(pod),
        "ports": ports,
        "phase": phase(pod),
    })
}

/// A pod of its own network has a namespace of its own, a hostNetwork pod its node's.
fn netns(state: &State, pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    if spec.and_then(|s| s.host_network).unwrap_or_default() {
        return state.nodes.iter().find(|n| n.name == node(pod)).map(|n| n.netns.clone()).unwrap_or_default();
    }
    pod_netns(&state.name, pod.namespace(), pod.name())
}

fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default()
}

fn ips(pod: &Pod) -> Vec<String> {
    pod.status.iter().flat_map(|s| s.pod_ips.iter().flatten()).map(|ip| ip.ip.clone()).collect()
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending")
}

/// Nodes whose links are cut, one sentence each.
#[must_use]
pub fn partitioned(state: &State) -> Vec<String> {
    let cut = state.nodes.iter().filter(|n| n.partitioned);
    cut.map(|n| format!("the links of {0} are cut; restore them with: twill lab heal {0}", n.name)).collect()
}

/// Nodes that are out of routing, one sentence each.
#[must_use]
pub fn drained(nodes: &BTreeSet<String>) -> Vec<String> {
    let one = |n: &String| format!("{n} is drained; bring it back with: twill lab exec {n} -- twill drain {n} --undo");
    nodes.iter().map(one).collect()
}

/// What was built, for people.
#[must_use]
pub fn built(state: &State, pods: &[Pod], blocks: &[IPBlock], notes: &[String]) -> String {
    let mut text = format!("lab {}, datastore {}\n", state.name, state.datastore);
    for note in notes {
        let _ = writeln!(text, "{note}");
    }
    let routers = state.routers.iter().map(|r| {
        let asn = r.asn.map_or_else(|| "-".to_owned(), |a| a.to_string());
        vec![r.name.clone(), asn, speaker(r), r.netns.clone()]
    });
    section(&mut text, &["ROUTER", "AS", "SPEAKER", "NETNS"], routers);
    let nodes = state.nodes.iter().map(|n| {
        let addresses = n.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let own = blocks.iter().filter(|b| b.spec.node == n.name).map(|b| b.spec.cidr.to_string());
        vec![n.name.clone(), n.rack.clone(), addresses, own.collect::<Vec<_>>().join(" "), n.netns.clone()]
    });
    section(&mut text, &["NODE", "RACK", "ADDRESSES", "BLOCKS", "NETNS"], nodes);
    let pods = pods.iter().map(|p| {
        let ports = declared(p).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let name = format!("{}/{}", p.namespace(), p.name());
        vec![name, node(p).to_owned(), ips(p).join(" "), ports, phase(p).to_owned()]
    });
    section(&mut text, &["POD", "NODE", "ADDRESSES", "PORTS", "PHASE"], pods);
    text
}

/// Columns as wide as their widest cell; nothing without rows.
fn section(text: &mut String, header: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let rows = rows.collect::<Vec<_>>();
    if rows.is_empty() {
        return;
    }
    let header = header.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>();
    let width = |column: usize| rows.iter().chain([&header]).filter_map(|r| r.get(column)).map(String::len).max();
    let widths = (0..header.len()).map(|c| width(c).unwrap_or_default()).collect::<Vec<_>>();
    text.push('\n');
    for row in [&header].into_iter().chain(&rows) {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect::<Vec<_>>();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::file;
    use crate::plan::plan;
    use crate::state::Store;
    use std::collections::BTreeMap;

    #[test]
    fn status_has_the_fields_of_the_contract() {
        let text = "apiVersion: twill.network/v1\nkind: Lab\nmetadata: {name: t}\nspec: {racks: [{name: r1, subnet: 172.31.1.0/24, nodes: [n1]}]}";
        let store = Store { url: "sqlite:/run/twill-lab/t/datastore.db".to_owned(), server: None };
        let state = State::of(&plan(&file::parse(text, "t").unwrap(), &BTreeMap::new()), false, &store);
        let pod: Pod = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0", "namespace": "shop"},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"containerPort": 80, "name": "http"}]}]},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.42.0.1"}]},
        }))
        .unwrap();
        let expected = json!({
            "name": "t",
            "datastore": "sqlite:/run/twill-lab/t/datastore.db",
            "nodes": [{"name": "n1", "netns": "twill_t_n1", "addresses": ["172.31.1.11"], "rack": "r1"}],
            "routers": [{"name": "router", "netns": "twill_t_router", "asn": null, "speaker": "static"}],
            "pods": [{"namespace": "shop", "name": "web-0", "node": "n1", "netns": "twill_t_shop_web-0", "ips": ["10.42.0.1"],
                "ports": [{"port": 80, "protocol": "TCP", "name": "http"}], "phase": "Running"}],
        });
        assert_eq!(status(&state, std::slice::from_ref(&pod), &BTreeSet::new()), expected);
        let drained = BTreeSet::from(["n1".to_owned()]);
        assert_eq!(status(&state, &[], &drained)["nodes"][0]["drained"], true);
        assert!(built(&state, &[pod], &[], &[]).contains("\nshop/web-0  n1    10.42.0.1  80/TCP  Running\n"));
    }
}
