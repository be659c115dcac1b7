//! What is told of objects, as the compiler's events.

use crate::index::Event;
use crate::model::{self, Policy};
use twill_crds::{ClusterNetworkPolicy, Namespace, NamespaceIsolation, NetworkPolicy, Object, Pod};
use twill_datastore::Followed;

/// A kind that the compiler hears of, object by object.
pub(super) trait Compiled: Object {
    /// These are all.
    fn replaced(all: &[Self]) -> Event;
    /// It was created or changed.
    fn applied(&self) -> Event;
    /// It was deleted; its last state.
    fn deleted(&self) -> Event;
}

/// The compiler's event, if there is anything in it but a revision.
pub(super) fn event<K: Compiled>(followed: &Followed<K>) -> Option<Event> {
    match followed {
        Followed::Synced { items, .. } => Some(K::replaced(items)),
        Followed::Applied(object, _) => Some(object.applied()),
        Followed::Deleted(object, _) => Some(object.deleted()),
        Followed::Bookmark(_) => None,
    }
}

impl Compiled for Pod {
    fn replaced(all: &[Self]) -> Event {
        Event::PodsReplaced(all.iter().map(model::Pod::read).collect())
    }
    fn applied(&self) -> Event {
        Event::PodApplied(model::Pod::read(self))
    }
    fn deleted(&self) -> Event {
        let pod = model::Pod::read(self);
        Event::PodDeleted { key: pod.key, uid: pod.uid }
    }
}

impl Compiled for Namespace {
    fn replaced(all: &[Self]) -> Event {
        Event::NamespacesReplaced(all.iter().map(|one| (one.name().to_owned(), model::namespace_labels(one))).collect())
    }
    fn applied(&self) -> Event {
        Event::NamespaceApplied { name: self.name().to_owned(), labels: model::namespace_labels(self) }
    }
    fn deleted(&self) -> Event {
        Event::NamespaceDeleted { name: self.name().to_owned() }
    }
}

impl Compiled for NetworkPolicy {
    fn replaced(all: &[Self]) -> Event {
        all_of::<Self>(all.iter().map(model::network_policy))
    }
    fn applied(&self) -> Event {
        Event::PolicyApplied(model::network_policy(self))
    }
    fn deleted(&self) -> Event {
        Event::PolicyDeleted(model::network_policy(self).key)
    }
}

impl Compiled for ClusterNetworkPolicy {
    fn replaced(all: &[Self]) -> Event {
        all_of::<Self>(all.iter().map(model::cluster_network_policy))
    }
    fn applied(&self) -> Event {
        Event::PolicyApplied(model::cluster_network_policy(self))
    }
    fn deleted(&self) -> Event {
        Event::PolicyDeleted(model::cluster_network_policy(self).key)
    }
}

impl Compiled for NamespaceIsolation {
    fn replaced(all: &[Self]) -> Event {
        Event::IsolationsReplaced(all.iter().map(model::namespace_isolation).collect())
    }
    fn applied(&self) -> Event {
        Event::IsolationApplied(model::namespace_isolation(self))
    }
    fn deleted(&self) -> Event {
        Event::IsolationDeleted(self.name().to_owned())
    }
}

fn all_of<K: Object>(policies: impl Iterator<Item = Policy>) -> Event {
    Event::PoliciesReplaced { kind: K::kind().kind, policies: policies.collect() }
}
