//! A local copy of one kind that only remembers: list once, then apply every event.

use crate::{Followed, Key, Revision};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use twill_crds::Object;

/// What an event changed.
#[derive(Clone, Debug)]
pub struct Change<K> {
    /// The object.
    pub key: Key,
    /// Before.
    pub old: Option<Arc<K>>,
    /// After.
    pub new: Option<Arc<K>>,
}

/// A local copy of one kind.
#[derive(Clone, Debug)]
pub struct Index<K> {
    objects: BTreeMap<Key, Arc<K>>,
    revision: Revision,
}

impl<K> Default for Index<K> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), revision: Revision::default() }
    }
}

impl<K: Object> Index<K> {
    /// Takes in what [`crate::follow`] tells and says what that changed: nothing for a bookmark or a repetition, many
    /// objects for [`Followed::Synced`], those that are gone first.
    pub fn apply(&mut self, followed: Followed<K>) -> Vec<Change<K>> {
        match followed {
            Followed::Synced { items, revision } => {
                self.revision = revision;
                self.replace(items)
            }
            Followed::Applied(object, _) => self.insert(object).into_iter().collect(),
            Followed::Deleted(object, _) => self.remove(key_of(&object)).into_iter().collect(),
            Followed::Bookmark(revision) => {
                self.revision = self.revision.max(revision);
                Vec::new()
            }
        }
    }

    fn replace(&mut self, items: Vec<K>) -> Vec<Change<K>> {
        let kept: BTreeSet<Key> = items.iter().map(key_of).collect();
        let gone: Vec<Key> = self.objects.keys().filter(|key| !kept.contains(key)).cloned().collect();
        let mut changes: Vec<Change<K>> = gone.into_iter().filter_map(|key| self.remove(key)).collect();
        changes.extend(items.into_iter().filter_map(|object| self.insert(object)));
        changes
    }

    /// None if this very state of the object is known.
    fn insert(&mut self, object: K) -> Option<Change<K>> {
        let key = key_of(&object);
        let same = |old: &Arc<K>| {
            let (old, new) = (old.meta(), object.meta());
            old.uid == new.uid && old.resource_version.is_some() && old.resource_version == new.resource_version
        };
        if self.objects.get(&key).is_some_and(same) {
            return None;
        }
        let new = Arc::new(object);
        let old = self.objects.insert(key.clone(), new.clone());
        Some(Change { key, old, new: Some(new) })
    }

    fn remove(&mut self, key: Key) -> Option<Change<K>> {
        let old = self.objects.remove(&key)?;
        Some(Change { key, old: Some(old), new: None })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// The object, if it is known.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Arc<K>> {
        self.objects.get(key)
    }

    /// All objects, ordered by key.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Arc<K>)> {
        self.objects.iter()
    }

    /// Everything up to here is known.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }
}

fn key_of<K: Object>(object: &K) -> Key {
    Key::namespaced(object.namespace(), object.name())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use twill_crds::Node;

    fn node(name: &str, version: u64) -> Node {
        serde_json::from_value(json!({"metadata": {"name": name, "uid": name, "resourceVersion": version.to_string()}}))
            .unwrap()
    }

    #[test]
    fn synced_tells_only_what_differs_and_deletions_first() {
        let mut index = Index::default();
        let synced = |items: Vec<Node>, at| Followed::Synced { items, revision: Revision(at) };
        assert_eq!(index.apply(synced(vec![node("a", 1), node("b", 2)], 2)).len(), 2);
        let changes = index.apply(synced(vec![node("b", 2), node("c", 5)], 5));
        let told: Vec<(&str, bool)> = changes.iter().map(|c| (c.key.name.as_str(), c.new.is_some())).collect();
        assert_eq!(told, [("a", false), ("c", true)]);
        assert_eq!(index.revision(), Revision(5));
    }

    #[test]
    fn a_bookmark_moves_the_revision_and_a_repetition_nothing() {
        let mut index = Index::default();
        assert_eq!(index.apply(Followed::Applied(node("a", 3), Revision(3))).len(), 1);
        assert_eq!(index.revision(), Revision(0));
        assert!(index.apply(Followed::Bookmark(Revision(4))).is_empty());
        assert_eq!(index.revision(), Revision(4));
        assert!(index.apply(Followed::Applied(node("a", 3), Revision(3))).is_empty());
        assert_eq!(index.apply(Followed::Deleted(node("a", 5), Revision(5))).len(), 1);
        assert!(index.apply(Followed::Deleted(node("a", 5), Revision(5))).is_empty());
        assert!(index.is_empty());
    }

    proptest! {
        /// Whatever the road, event by event or by a list, the index is the same, and so is what its changes add up to.
        #[test]
        fn events_and_lists_lead_to_one_state(steps in prop::collection::vec((0usize..5, prop::bool::ANY, prop::bool::ANY), 0..40)) {
            let mut index: Index<Node> = Index::default();
            let mut world: BTreeMap<String, Node> = BTreeMap::new();
            let mut folded: BTreeMap<Key, Arc<Node>> = BTreeMap::new();
            for (at, (name, present, relist)) in (1u64..).zip(steps) {
                let object = node(["a", "b", "c", "d", "e"][name], at);
                let event = if present {
                    world.insert(object.name().to_owned(), object.clone());
                    Followed::Applied(object, Revision(at))
                } else {
                    world.remove(object.name());
                    Followed::Deleted(object, Revision(at))
                };
                let told = if relist {
                    Followed::Synced { items: world.values().cloned().collect(), revision: Revision(at) }
                } else {
                    event
                };
                for change in index.apply(told) {
                    prop_assert_eq!(folded.get(&change.key), change.old.as_ref());
                    match change.new {
                        Some(new) => folded.insert(change.key, new),
                        None => folded.remove(&change.key),
                    };
                }
                let held: Vec<Node> = index.iter().map(|(_, object)| object.as_ref().clone()).collect();
                prop_assert_eq!(held, world.values().cloned().collect::<Vec<_>>());
                prop_assert!(index.iter().all(|(key, object)| folded.get(key) == Some(object)));
            }
        }
    }
}
