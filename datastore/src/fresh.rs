//! Whether what was heard of a kind is at least as fresh as a moment.
//!
//! In flow marks, which an engine makes when it is asked what there is now ([`crate::Engine::barrier`]), and what a watch tells;
//! out flows whether the watch has told all that the mark stands for. An engine with one revision of the whole marks that
//! revision. One without (Kubernetes: a watch that has nothing to tell says nothing for a minute) marks what a consistent list
//! showed: the latest revision in it, and which objects there were.

use crate::{Filter, Followed, Key, Revision};
use rustc_hash::FxHasher;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use twill_crds::{Kind, Object};

/// Part of a kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Scope {
    /// The kind.
    pub kind: Kind,
    /// Which of its objects: what the watch follows, or less of it, by namespace and `metadata.name`.
    pub filter: Filter,
}

impl Scope {
    /// All of a kind.
    #[must_use]
    pub fn all<K: Object>() -> Self {
        Self { kind: K::kind(), filter: Filter::default() }
    }

    /// All of a kind in one namespace.
    #[must_use]
    pub fn namespace<K: Object>(namespace: &str) -> Self {
        Self { kind: K::kind(), filter: Filter { namespace: Some(namespace.to_owned()), ..Filter::default() } }
    }

    /// One object.
    #[must_use]
    pub fn object<K: Object>(key: &Key) -> Self {
        let namespace = K::kind().namespaced.then(|| key.namespace.clone());
        let fields = vec![(NAME.to_owned(), key.name.clone())];
        Self { kind: K::kind(), filter: Filter { namespace, fields, ..Filter::default() } }
    }
}

const NAME: &str = "metadata.name";

/// What a watch must have told of a scope to be as fresh as when the mark was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Of what.
    pub scope: Scope,
    /// All up to here.
    pub revision: Revision,
    /// For an engine of which `revision` alone does not say it: what else.
    pub present: Option<Present>,
}

/// Which objects of a scope there were.
#[derive(Clone, Debug, PartialEq)]
pub struct Present {
    /// Their keys: who holds another of the scope has not heard of its deletion …
    pub keys: Vec<Key>,
    /// … unless it is later than this.
    pub at: Revision,
}

/// What a watch of one kind has told so far: up to where, and of which objects. 40 bytes an object.
#[derive(Clone, Debug, Default)]
pub struct Told {
    up_to: Revision,
    objects: BTreeMap<Id, Revision>,
}

/// Hashes of namespace and name.
type Id = (u64, u64);

impl Told {
    /// Takes in what [`crate::follow`] tells.
    pub fn take<K: Object>(&mut self, followed: &Followed<K>) {
        let at = match followed {
            Followed::Synced { items, revision } => {
                let held =
                    |object: &K| (id(object.namespace(), object.name()), revision_of(object).unwrap_or(*revision));
                self.objects = items.iter().map(held).collect();
                *revision
            }
            Followed::Applied(object, at) => {
                self.objects.insert(id(object.namespace(), object.name()), *at);
                *at
            }
            Followed::Deleted(object, at) => {
                self.objects.remove(&id(object.namespace(), object.name()));
                *at
            }
            Followed::Bookmark(at) => *at,
        };
        // A list made anew by an engine that was put back to an older state is what counts now.
        let replaced = matches!(followed, Followed::Synced { .. });
        self.up_to = if replaced { at } else { self.up_to.max(at) };
    }

    /// All up to here has been told.
    #[must_use]
    pub fn up_to(&self) -> Revision {
        self.up_to
    }

    /// Whether all that the mark stands for has been told. The mark is of this kind.
    #[must_use]
    pub fn reached(&self, mark: &Mark) -> bool {
        let complete = |present: &Present| {
            let keys: std::collections::BTreeSet<Id> =
                present.keys.iter().map(|key| id(&key.namespace, &key.name)).collect();
            self.within(&mark.scope.filter).all(|(id, at)| at > present.at || keys.contains(&id))
        };
        self.up_to >= mark.revision && mark.present.as_ref().is_none_or(complete)
    }

    /// What is held of a scope.
    fn within<'a>(&'a self, filter: &'a Filter) -> Box<dyn Iterator<Item = (Id, Revision)> + 'a> {
        let name = filter.fields.iter().find(|(path, _)| path == NAME).map(|(_, name)| name);
        let namespace = filter.namespace.as_ref();
        match (namespace, name) {
            (Some(namespace), Some(name)) => Box::new(self.one(id(namespace, name))),
            (None, Some(name)) => Box::new(self.one(id("", name))),
            (Some(namespace), None) => {
                let (first, last) = ((hash(namespace), 0), (hash(namespace), u64::MAX));
                Box::new(self.objects.range(first..=last).map(|(id, at)| (*id, *at)))
            }
            (None, None) => Box::new(self.objects.iter().map(|(id, at)| (*id, *at))),
        }
    }

    fn one(&self, id: Id) -> impl Iterator<Item = (Id, Revision)> {
        self.objects.get(&id).map(|at| (id, *at)).into_iter()
    }
}

/// What a daemon has been told of all kinds that it follows.
#[derive(Clone, Debug, Default)]
pub struct Freshness {
    kinds: Vec<(Scope, Option<Told>)>,
}

impl Freshness {
    /// Of nothing yet. One scope for each kind, as it is followed.
    #[must_use]
    pub fn of(scopes: Vec<Scope>) -> Self {
        Self { kinds: scopes.into_iter().map(|scope| (scope, None)).collect() }
    }

    /// What is followed.
    #[must_use]
    pub fn scopes(&self) -> Vec<Scope> {
        self.kinds.iter().map(|(scope, _)| scope.clone()).collect()
    }

    /// Takes in what [`crate::follow`] tells of a kind; whether that is the first that is told of it. A kind counts from its first
    /// [`Followed::Synced`].
    pub fn take<K: Object>(&mut self, followed: &Followed<K>) -> bool {
        let kind = K::kind();
        let Some((_, told)) = self.kinds.iter_mut().find(|(scope, _)| scope.kind == kind) else { return false };
        let first = told.is_none() && matches!(followed, Followed::Synced { .. });
        if first {
            *told = Some(Told::default());
        }
        if let Some(told) = told {
            told.take(followed);
        }
        first
    }

    /// Whether a kind has been told whole.
    #[must_use]
    pub fn has<K: Object>(&self) -> bool {
        let kind = K::kind();
        self.kinds.iter().any(|(scope, told)| scope.kind == kind && told.is_some())
    }

    /// Whether every kind has been told whole.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.kinds.iter().all(|(_, told)| told.is_some())
    }

    /// Up to where everything of every kind has been told; none before they are complete.
    #[must_use]
    pub fn up_to(&self) -> Option<Revision> {
        let told = |(_, told): &(Scope, Option<Told>)| told.as_ref().map(Told::up_to);
        self.kinds.iter().map(told).try_fold(Revision(u64::MAX), |least, at| at.map(|at| least.min(at)))
    }

    /// Whether all that the marks stand for has been told.
    #[must_use]
    pub fn reached(&self, marks: &[Mark]) -> bool {
        let told = |mark: &Mark| self.kinds.iter().find(|(scope, _)| scope.kind == mark.scope.kind)?.1.as_ref();
        marks.iter().all(|mark| told(mark).is_some_and(|told| told.reached(mark)))
    }
}

fn id(namespace: &str, name: &str) -> Id {
    (hash(namespace), hash(name))
}

fn hash(text: &str) -> u64 {
    let mut hasher = FxHasher::default();
    text.hash(&mut hasher);
    hasher.finish()
}

fn revision_of<K: Object>(object: &K) -> Option<Revision> {
    object.meta().resource_version.as_deref()?.parse().ok().map(Revision)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;
    use twill_crds::{Namespace, NetworkPolicy};

    fn policy(namespace: &str, name: &str, at: u64) -> NetworkPolicy {
        let metadata = json!({"namespace": namespace, "name": name, "resourceVersion": at.to_string()});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"podSelector": {}}})).unwrap()
    }

    fn applied(namespace: &str, name: &str, at: u64) -> Followed<NetworkPolicy> {
        Followed::Applied(policy(namespace, name, at), Revision(at))
    }

    fn listed(namespace: Option<&str>, keys: &[(&str, &str)], revision: u64, at: u64) -> Mark {
        let scope = namespace.map_or_else(Scope::all::<NetworkPolicy>, Scope::namespace::<NetworkPolicy>);
        let keys = keys.iter().map(|(namespace, name)| Key::namespaced(*namespace, *name)).collect();
        Mark { scope, revision: Revision(revision), present: Some(Present { keys, at: Revision(at) }) }
    }

    #[test]
    fn a_mark_of_a_revision_is_reached_by_whatever_tells_up_to_there() {
        let mark = |at| Mark { scope: Scope::all::<NetworkPolicy>(), revision: Revision(at), present: None };
        let mut told = Told::default();
        told.take(&Followed::<NetworkPolicy>::Synced { items: vec![], revision: Revision(4) });
        assert!(told.reached(&mark(4)) && !told.reached(&mark(5)));
        told.take(&applied("a", "p", 5));
        assert!(told.reached(&mark(5)));
        told.take(&Followed::<NetworkPolicy>::Bookmark(Revision(9)));
        assert!(told.reached(&mark(9)) && !told.reached(&mark(10)));
        told.take(&Followed::<NetworkPolicy>::Synced { items: vec![], revision: Revision(2) });
        assert!(!told.reached(&mark(9)), "the engine went back");
    }

    #[test]
    fn a_mark_of_a_list_waits_for_its_latest_object_and_for_deletions_of_others() {
        let mut told = Told::default();
        told.take(&Followed::Synced { items: vec![policy("a", "p", 3), policy("b", "q", 4)], revision: Revision(7) });
        assert!(told.reached(&listed(Some("a"), &[("a", "p")], 3, 20)), "nothing changed, however late the list");
        assert!(!told.reached(&listed(Some("a"), &[("a", "p")], 8, 20)), "p was changed at 8");
        assert!(!told.reached(&listed(Some("a"), &[], 0, 20)), "p was deleted");
        assert!(told.reached(&listed(Some("b"), &[("b", "q")], 4, 20)), "that is nothing to b");
        assert!(!told.reached(&listed(None, &[("b", "q")], 4, 20)), "but to the whole");
        told.take(&Followed::Deleted(policy("a", "p", 19), Revision(19)));
        assert!(told.reached(&listed(Some("a"), &[], 0, 20)));
        told.take(&applied("a", "later", 21));
        assert!(told.reached(&listed(Some("a"), &[], 0, 20)), "one that came after the list is no deletion unheard");
    }

    #[test]
    fn a_mark_of_one_object_asks_for_that_alone() {
        let mut told = Told::default();
        let one = |name: &str| json!({"metadata": {"name": name, "resourceVersion": "3"}});
        let items = ["a", "b"].map(|name| serde_json::from_value::<Namespace>(one(name)).unwrap()).to_vec();
        told.take(&Followed::Synced { items, revision: Revision(7) });
        let mark = |name: &str, keys: &[&str]| Mark {
            scope: Scope::object::<Namespace>(&Key::cluster(name)),
            revision: Revision(0),
            present: Some(Present { keys: keys.iter().map(|k| Key::cluster(*k)).collect(), at: Revision(9) }),
        };
        assert!(told.reached(&mark("a", &["a"])) && told.reached(&mark("c", &[])));
        assert!(!told.reached(&mark("a", &[])), "a was deleted");
    }
}
