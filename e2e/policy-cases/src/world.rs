//! What there is after some changes: for those who judge a case without running it.

use crate::{Change, Reference, Universe};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// All objects, by kind and name.
#[derive(Clone, Debug, Default)]
pub struct World {
    objects: BTreeMap<Reference, Value>,
}

impl World {
    /// The universe at the beginning of a case.
    #[must_use]
    pub fn new(universe: &Universe) -> Self {
        let mut world = Self::default();
        for object in universe.nodes.iter().chain(&universe.namespaces).chain(&universe.pods) {
            world.objects.insert(reference(object), object.clone());
        }
        world
    }

    /// Makes a change. A change to an object that is not there does nothing.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Apply(object) => {
                self.objects.insert(reference(object), object.clone());
            }
            Change::Delete(reference) => {
                self.objects.remove(reference);
            }
            Change::Label(reference, labels) => {
                if let Some(object) = self.objects.get_mut(reference) {
                    object["metadata"]["labels"] = json!(labels);
                }
            }
        }
    }

    /// The changes that make this world the other: first goes what the other lacks, what lives in a namespace before the namespace. A
    /// pod of which more than labels differs is made anew.
    #[must_use]
    pub fn changes_to(&self, other: &Self) -> Vec<Change> {
        let (mut gone, mut come) = (Vec::new(), Vec::new());
        for (reference, object) in &self.objects {
            let remade = |new: &Value| reference.kind == "Pod" && !differ_in_labels_alone(object, new);
            if other.objects.get(reference).is_none_or(remade) {
                gone.push(reference.clone());
            }
        }
        for (reference, new) in &other.objects {
            match self.objects.get(reference).filter(|_| !gone.contains(reference)) {
                Some(old) if old == new => {}
                Some(old) if differ_in_labels_alone(old, new) => {
                    come.push(Change::Label(reference.clone(), labels(new)));
                }
                _ => come.push(Change::Apply(new.clone())),
            }
        }
        gone.sort_by_key(|reference| reference.kind == "Namespace");
        come.sort_by_key(|change| !matches!(change, Change::Apply(object) if object["kind"] == "Namespace"));
        gone.into_iter().map(Change::Delete).chain(come).collect()
    }

    /// All objects of a kind, ordered by name.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |(r, _)| r.kind == kind).map(|(_, object)| object)
    }

    /// The object, if it is there.
    #[must_use]
    pub fn object(&self, reference: &Reference) -> Option<&Value> {
        self.objects.get(reference)
    }

    /// Whether the object is there.
    #[must_use]
    pub fn has(&self, reference: &Reference) -> bool {
        self.objects.contains_key(reference)
    }
}

/// Whether a Pod or Namespace differs from itself in its labels, and in nothing else.
fn differ_in_labels_alone(old: &Value, new: &Value) -> bool {
    let bare = |object: &Value| {
        let mut bare = object.clone();
        bare["metadata"]["labels"] = Value::Null;
        bare
    };
    matches!(old["kind"].as_str(), Some("Pod" | "Namespace")) && bare(old) == bare(new)
}

fn labels(object: &Value) -> BTreeMap<String, String> {
    let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
    labels.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}

/// Names the object itself.
pub(crate) fn reference(object: &Value) -> Reference {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    Reference { kind: text(&object["kind"]), namespace: text(&metadata["namespace"]), name: text(&metadata["name"]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{label_namespace, label_pod, network_policy, object};
    use crate::universe::{namespace, served};
    use crate::{NODES, Protocol};

    #[test]
    fn the_way_back_undoes_whatever_was_done() {
        let universe = Universe::of(&["x/a", "x/b"], &[80], &[Protocol::Tcp]);
        let begun = World::new(&universe);
        let pod = |name: &str, port| Change::Apply(served("w", name, NODES[0], &[port], &[Protocol::Udp]));
        let changes = [
            network_policy("x", "shut", &json!({"podSelector": {}})),
            Change::Apply(namespace("w", &json!({}))),
            pod("a", 80),
            pod("a", 81),
            label_pod("x", "a", &[("pod", "other")]),
            label_namespace("y", &[]),
            Change::Delete(object("Pod", "x", "b")),
        ];
        let mut changed = begun.clone();
        changes.iter().for_each(|change| changed.apply(change));
        let back = changed.changes_to(&begun);
        let first: Vec<&Change> = back.iter().take_while(|change| matches!(change, Change::Delete(_))).collect();
        assert_eq!(first.last(), Some(&&Change::Delete(object("Namespace", "", "w"))), "{back:?}");
        assert!(back.contains(&label_pod("x", "a", &[("pod", "a")])), "{back:?}");
        assert!(matches!(back.last(), Some(Change::Label(..) | Change::Apply(_))));
        back.iter().for_each(|change| changed.apply(change));
        assert_eq!(changed.objects, begun.objects);
        assert_eq!(begun.changes_to(&begun), []);
    }

    #[test]
    fn a_pod_with_other_ports_is_made_anew() {
        let universe = Universe::of(&["x/a"], &[80], &[Protocol::Tcp]);
        let (old, mut new) = (World::new(&universe), World::new(&universe));
        let pod = served("x", "a", NODES[0], &[81], &[Protocol::Tcp]);
        new.apply(&Change::Apply(pod.clone()));
        assert_eq!(old.changes_to(&new), [Change::Delete(object("Pod", "x", "a")), Change::Apply(pod)]);
    }
}
