//! The namespaces that there are, and NamespaceIsolations over them.
//!
//! In flow namespaces, pods' entering and leaving of them, and NamespaceIsolations, in any order; out flow the policies that these become:
//! one for each namespace that one selects. A change of a namespace costs a look at each NamespaceIsolation, of which there are few, and
//! one of a NamespaceIsolation a look at each namespace; only policies that come, go or change are told.

use crate::model::{Isolation, Labels, Policy, PolicyKey};
use std::collections::BTreeMap;

/// What is known of namespaces.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    all: BTreeMap<String, Namespace>,
    isolations: BTreeMap<String, Isolation>,
}

/// A namespace that was told, or that a pod is in.
#[derive(Debug, Default)]
struct Namespace {
    /// None until it was told.
    labels: Option<Labels>,
    pods: usize,
}

/// What becomes of a policy.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It is there, and so.
    Put(Policy),
    /// It is gone.
    Remove(PolicyKey),
}

impl Namespaces {
    /// Names of those that were told.
    pub(super) fn known(&self) -> impl Iterator<Item = &String> {
        self.all.iter().filter(|(_, namespace)| namespace.labels.is_some()).map(|(name, _)| name)
    }

    /// Names of all NamespaceIsolations.
    pub(super) fn isolations(&self) -> impl Iterator<Item = &String> {
        self.isolations.keys()
    }

    /// Those that were told, with their labels.
    pub(super) fn told(&self) -> impl Iterator<Item = (&String, &Labels)> {
        self.all.iter().filter_map(|(name, namespace)| Some((name, namespace.labels.as_ref()?)))
    }

    /// All NamespaceIsolations.
    pub(super) fn isolating(&self) -> impl Iterator<Item = &Isolation> {
        self.isolations.values()
    }

    /// What is wrong with NamespaceIsolations, one sentence each.
    pub(super) fn problems(&self) -> impl Iterator<Item = String> {
        self.isolations.values().flat_map(|isolation| isolation.problems.iter().cloned())
    }

    /// A namespace has these labels.
    pub(super) fn put(&mut self, name: String, labels: Labels) -> Vec<Change> {
        self.change(&name, |namespace| namespace.labels = Some(labels))
    }

    /// A namespace is not known any more.
    pub(super) fn remove(&mut self, name: &str) -> Vec<Change> {
        self.change(name, |namespace| namespace.labels = None)
    }

    /// A pod is in it.
    pub(super) fn enter(&mut self, name: &str) -> Vec<Change> {
        if let Some(namespace) = self.all.get_mut(name) {
            namespace.pods += 1;
            return Vec::new();
        }
        self.change(name, |namespace| namespace.pods = 1)
    }

    /// A pod is no longer in it.
    pub(super) fn leave(&mut self, name: &str) -> Vec<Change> {
        match self.all.get_mut(name) {
            Some(namespace) if namespace.pods > 1 || namespace.labels.is_some() => {
                namespace.pods = namespace.pods.saturating_sub(1);
                Vec::new()
            }
            _ => self.change(name, |namespace| namespace.pods = 0),
        }
    }

    /// A NamespaceIsolation is so.
    pub(super) fn isolate(&mut self, isolation: Isolation) -> Vec<Change> {
        let old = self.isolations.insert(isolation.name.clone(), isolation.clone());
        let change = |(name, namespace): (&String, &Namespace)| {
            let is_in = |one: &Isolation| one.selects(name, namespace.labels.as_deref());
            if is_in(&isolation) {
                return Some(Change::Put(isolation.policy(name)));
            }
            old.as_ref().filter(|old| is_in(old)).map(|old| Change::Remove(old.key(name)))
        };
        if old.as_ref() == Some(&isolation) { Vec::new() } else { self.all.iter().filter_map(change).collect() }
    }

    /// The NamespaceIsolation of this name is gone.
    pub(super) fn release(&mut self, name: &str) -> Vec<Change> {
        let Some(old) = self.isolations.remove(name) else { return Vec::new() };
        let selected = self.all.iter().filter(|(name, namespace)| old.selects(name, namespace.labels.as_deref()));
        selected.map(|(name, _)| Change::Remove(old.key(name))).collect()
    }

    /// Changes one namespace, which is there while it is told or a pod is in it.
    fn change(&mut self, name: &str, change: impl FnOnce(&mut Namespace)) -> Vec<Change> {
        let was = self.all.remove(name);
        let was_in = |one: &Isolation| was.as_ref().is_some_and(|was| one.selects(name, was.labels.as_deref()));
        let before: Vec<bool> = self.isolations.values().map(was_in).collect();
        let mut namespace = was.unwrap_or_default();
        change(&mut namespace);
        let stays = namespace.labels.is_some() || namespace.pods > 0;
        let is_in = |one: &Isolation| stays && one.selects(name, namespace.labels.as_deref());
        let changes = self.isolations.values().zip(before).filter_map(|(one, before)| match (before, is_in(one)) {
            (false, true) => Some(Change::Put(one.policy(name))),
            (true, false) => Some(Change::Remove(one.key(name))),
            _ => None,
        });
        let changes = changes.collect();
        if stays {
            self.all.insert(name.to_owned(), namespace);
        }
        changes
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::namespace_isolation;
    use serde_json::json;
    use std::sync::Arc;

    fn isolation(name: &str, selector: serde_json::Value, allow: &[&str]) -> Isolation {
        let raw = json!({"apiVersion": "twill.network/v1", "kind": "NamespaceIsolation", "metadata": {"name": name},
            "spec": {"namespaceSelector": selector, "allow": allow}});
        namespace_isolation(&serde_json::from_value(raw).unwrap())
    }

    fn labels(tenant: &str) -> Labels {
        Arc::new(BTreeMap::from([("tenant".to_owned(), tenant.to_owned())]))
    }

    fn told(changes: &[Change]) -> Vec<String> {
        let one = |change: &Change| match change {
            Change::Put(policy) => format!("+{}/{}", policy.key.namespace, policy.key.name),
            Change::Remove(key) => format!("-{}/{}", key.namespace, key.name),
        };
        changes.iter().map(one).collect()
    }

    #[test]
    fn a_namespace_is_isolated_when_it_comes_and_is_not_when_it_goes_or_is_relabelled() {
        let mut all = Namespaces::default();
        assert!(all.isolate(isolation("i", json!({"matchLabels": {"tenant": "yes"}}), &[])).is_empty());
        assert_eq!(told(&all.put("a".into(), labels("yes"))), ["+a/i"]);
        assert!(all.put("b".into(), labels("no")).is_empty() && all.put("a".into(), labels("yes")).is_empty());
        assert_eq!(told(&all.put("a".into(), labels("no"))), ["-a/i"]);
        assert_eq!(told(&all.put("b".into(), labels("yes"))), ["+b/i"]);
        assert_eq!(told(&all.remove("b")), ["-b/i"]);
        assert_eq!(all.known().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn a_namespace_that_only_pods_tell_of_is_isolated_by_the_empty_selector_while_they_are_there() {
        let mut all = Namespaces::default();
        all.isolate(isolation("some", json!({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}), &[]));
        all.isolate(isolation("all", json!({}), &[]));
        assert_eq!(told(&all.enter("a")), ["+a/all"]);
        assert!(all.enter("a").is_empty() && all.leave("a").is_empty());
        assert_eq!(told(&all.put("a".into(), labels("no"))), ["+a/some"]);
        assert_eq!(told(&all.remove("a")), ["-a/some"]);
        assert_eq!(told(&all.leave("a")), ["-a/all"]);
        assert!(all.all.is_empty());
    }

    #[test]
    fn an_isolation_that_changes_tells_of_each_namespace_that_it_selects_or_did() {
        let mut all = Namespaces::default();
        all.put("a".into(), labels("yes"));
        all.put("b".into(), labels("no"));
        assert_eq!(told(&all.isolate(isolation("i", json!({}), &[]))), ["+a/i", "+b/i"]);
        assert!(all.isolate(isolation("i", json!({}), &[])).is_empty());
        let yes = json!({"matchLabels": {"tenant": "yes"}});
        assert_eq!(told(&all.isolate(isolation("i", yes, &["DNS"]))), ["+a/i", "-b/i"]);
        assert_eq!(told(&all.release("i")), ["-a/i"]);
        assert!(all.release("i").is_empty());
    }
}
