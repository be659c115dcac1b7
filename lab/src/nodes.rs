//! Nodes: in flow what the lab and manifests say of them, out flow their labels, annotations and AS numbers.
//!
//! A Node is the lab's. A manifest of one adds labels and annotations to it; `null` takes one away, what else it says is passed over.

use crate::file::{LabFile, Topology};
use crate::resources::what;
use anyhow::{Context, anyhow, bail, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use twill_crds::bgp::NodeAsn;
use twill_crds::manifest::Manifest;
use twill_crds::{BGPConfiguration, Node, Object};

/// Labels or annotations.
pub type Map = BTreeMap<String, String>;

/// Label of a node that names its rack.
pub const RACK_LABEL: &str = "topology.kubernetes.io/rack";

/// Keys of [`own_labels`].
const OWN_LABELS: [&str; 3] = ["kubernetes.io/hostname", RACK_LABEL, "topology.kubernetes.io/zone"];

/// Labels that the lab gives to a node, and that no manifest changes.
#[must_use]
pub fn own_labels(node: &str, rack: &str) -> Map {
    OWN_LABELS.into_iter().zip([node, rack, rack]).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Refuses manifests of nodes that the lab does not have, and labels that are none.
///
/// # Errors
/// The first such manifest.
pub fn check(nodes: &[&str], objects: &[Manifest]) -> anyhow::Result<()> {
    for object in objects.iter().filter(|o| o.kind == Node::kind()) {
        let name = object.value["metadata"]["name"].as_str().unwrap_or_default();
        ensure!(
            nodes.contains(&name),
            "{}: metadata.name: the lab has no such node; it has {}",
            what(object),
            nodes.join(", ")
        );
        for field in ["labels", "annotations"] {
            let mut entries = object.value["metadata"][field].as_object().into_iter().flatten();
            if let Some((key, value)) = entries.find(|(_, value)| !value.is_string() && !value.is_null()) {
                bail!("{}: metadata.{field}: {key} is no text; write \"{value}\"", what(object));
            }
        }
    }
    Ok(())
}

/// Merges the labels of a node's manifests, in their order.
pub fn relabel(labels: &mut Map, node: &str, objects: &[Manifest]) {
    for object in objects.iter().filter(|o| o.kind == Node::kind() && o.value["metadata"]["name"] == node) {
        merge(labels, &object.value["metadata"]["labels"], &OWN_LABELS);
    }
}

/// Merges labels and annotations of a manifest into a node.
pub fn update(node: &mut Node, manifest: &Manifest) {
    let new = &manifest.value["metadata"];
    merge(node.metadata.labels.get_or_insert_default(), &new["labels"], &OWN_LABELS);
    merge(node.metadata.annotations.get_or_insert_default(), &new["annotations"], &[]);
}

fn merge(map: &mut Map, new: &Value, kept: &[&str]) {
    for (key, value) in new.as_object().into_iter().flatten().filter(|(key, _)| !kept.contains(&key.as_str())) {
        match value.as_str() {
            Some(value) => map.insert(key.clone(), value.to_owned()),
            None => map.remove(key),
        };
    }
}

/// Where nodes have their AS from, as the last BGPConfiguration among the objects says.
///
/// # Errors
/// It says nothing that can be understood.
pub fn source(objects: &[Manifest]) -> anyhow::Result<Option<NodeAsn>> {
    let counts = |o: &&Manifest| o.kind == BGPConfiguration::kind() && o.value["metadata"]["name"] == "default";
    let Some(object) = objects.iter().rfind(counts) else { return Ok(None) };
    let configuration: BGPConfiguration = serde_json::from_value(object.value.clone()).with_context(|| what(object))?;
    Ok(Some(configuration.spec.asn))
}

/// The AS of every node of a lab with these objects.
///
/// # Errors
/// A node has no valid label, or in a Fabric the AS of a router, which would then have to be a reflector.
pub fn asns(file: &LabFile, objects: &[Manifest]) -> anyhow::Result<BTreeMap<String, u32>> {
    let source = source(objects)?.unwrap_or_default();
    let mut routers = file.spine.iter().map(|s| (s.asn, "spine".to_owned())).collect::<BTreeMap<_, _>>();
    routers.extend(file.racks.iter().flat_map(|r| r.tors.iter().map(|t| t.asn).zip(r.tor_names())));
    let mut asns = BTreeMap::new();
    for rack in &file.racks {
        for node in &rack.nodes {
            let mut labels = own_labels(node, &rack.name);
            relabel(&mut labels, node, objects);
            let asn = source.of(Some(&labels)).map_err(|problem| anyhow!("Node {node}: {problem}"))?;
            if let Some(router) = routers.get(&asn).filter(|_| file.topology == Topology::Fabric) {
                return Err(anyhow!("Node {node}: its AS is {asn}, as that of {router}; in a Fabric it needs another"));
            }
            asns.insert(node.clone(), asn);
        }
    }
    Ok(asns)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::file::parse;
    use serde_json::json;

    fn document(kind: &str, name: &str, rest: Value) -> Manifest {
        let mut value = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
        for (key, new) in rest.as_object().unwrap() {
            value[key] = new.clone();
        }
        value["metadata"]["name"] = json!(name);
        Manifest { kind: twill_crds::known::named(kind).unwrap(), value, line: 1 }
    }

    fn node(name: &str, labels: Value) -> Manifest {
        document("Node", name, json!({"metadata": {"labels": labels}, "spec": {"unschedulable": true}}))
    }

    fn file(topology: &str) -> LabFile {
        let text = format!(
            "apiVersion: twill.network/v1\nkind: Lab\nmetadata: {{name: t}}\nspec:\n  topology: {topology}\n  \
             racks: [{{name: r1, subnet: 172.31.1.0/24, nodes: [n1, n2], tor: {{asn: 65101}}}}]"
        );
        parse(&text, "t").unwrap()
    }

    #[test]
    fn labels_are_added_and_the_labs_own_stay() {
        let mut labels = own_labels("n1", "r1");
        let objects = [
            node("n1", json!({"disk": "ssd", "row": "7", RACK_LABEL: "lies"})),
            node("n2", json!({"disk": "none"})),
            node("n1", json!({"row": null})),
        ];
        relabel(&mut labels, "n1", &objects);
        assert_eq!((labels["disk"].as_str(), labels[RACK_LABEL].as_str(), labels.len()), ("ssd", "r1", 4));
    }

    #[test]
    fn a_manifest_changes_nothing_else_of_a_node() {
        let mut own: Node =
            serde_json::from_value(json!({"metadata": {"name": "n1", "annotations": {"a": "1"}}})).unwrap();
        let new =
            document("Node", "n1", json!({"metadata": {"annotations": {"b": "2"}}, "spec": {"unschedulable": true}}));
        update(&mut own, &new);
        assert_eq!(own.metadata.annotations.unwrap().len(), 2);
        assert_eq!(own.spec, None);
    }

    #[test]
    fn strangers_and_labels_that_are_no_text_are_refused() {
        let refused = |object| check(&["n1", "n2"], &[object]).unwrap_err().to_string();
        assert_eq!(refused(node("n9", json!({}))), "Node n9: metadata.name: the lab has no such node; it has n1, n2");
        assert_eq!(refused(node("n1", json!({"asn": 7}))), "Node n1: metadata.labels: asn is no text; write \"7\"");
    }

    #[test]
    fn the_as_of_a_node_is_its_labels_or_that_of_all() {
        let by_label = document("BGPConfiguration", "default", json!({"spec": {"asn": {"nodeLabel": "asn"}}}));
        let objects = [by_label, node("n1", json!({"asn": "65201"})), node("n2", json!({"asn": "65202"}))];
        let found = asns(&file("Fabric"), &objects).unwrap();
        assert_eq!(found, BTreeMap::from([("n1".to_owned(), 65201), ("n2".to_owned(), 65202)]));
        assert!(asns(&file("Mesh"), &[]).unwrap().values().all(|asn| *asn == 64512));
        let error = asns(&file("Mesh"), &objects[..2]).unwrap_err().to_string();
        assert!(error.starts_with("Node n2: metadata.labels: there is no asn"), "{error}");
    }

    #[test]
    fn in_a_fabric_no_node_has_the_as_of_a_router() {
        let one = document("BGPConfiguration", "default", json!({"spec": {"asn": 65101}}));
        let error = asns(&file("Fabric"), std::slice::from_ref(&one)).unwrap_err().to_string();
        assert_eq!(error, "Node n1: its AS is 65101, as that of tor-r1; in a Fabric it needs another");
        assert!(asns(&file("Mesh"), &[one]).is_ok());
    }
}
