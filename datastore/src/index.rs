//! A local copy of one kind that only remembers: list once, then apply every event.

use crate::{Key, Revision};
use std::collections::BTreeMap;
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
