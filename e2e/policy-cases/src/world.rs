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

    /// All objects of a kind, ordered by name.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |(r, _)| r.kind == kind).map(|(_, object)| object)
    }

    /// Whether the object is there.
    #[must_use]
    pub fn has(&self, reference: &Reference) -> bool {
        self.objects.contains_key(reference)
    }
}

fn reference(object: &Value) -> Reference {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    Reference { kind: text(&object["kind"]), namespace: text(&metadata["namespace"]), name: text(&metadata["name"]) }
}
