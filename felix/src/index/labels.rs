//! Who is selected by whom: interned selectors and their members, kept so that a change costs what it changes.
//!
//! A selector is filed under one label that its members must have (if it demands one), so that a pod's change asks only the
//! selectors that can answer yes. Changes of membership since the last [`LabelIndex::take_touched`] are remembered with what
//! was before, so that there and back again is no change.

use crate::model::{Labels, NamespaceScope, PodSelector, Selector, Test};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Number of an item; the caller gives it.
pub(crate) type ItemId = u32;
/// Number of an interned selector.
pub(crate) type SelectorId = u32;

/// Items with labels in namespaces, and the selectors over them.
#[derive(Debug, Default)]
pub(crate) struct LabelIndex {
    namespaces: FxHashMap<String, Namespace>,
    items: FxHashMap<ItemId, Item>,
    selectors: FxHashMap<SelectorId, Entry>,
    ids: FxHashMap<Arc<PodSelector>, SelectorId>,
    next: SelectorId,
    filed: FxHashMap<Anchor, FxHashSet<SelectorId>>,
    by_scope: FxHashMap<Selector, FxHashSet<SelectorId>>,
    touched: FxHashMap<(SelectorId, ItemId), bool>,
}

#[derive(Debug, Default)]
struct Namespace {
    labels: Option<Labels>,
    items: FxHashSet<ItemId>,
}

#[derive(Debug)]
struct Item {
    namespace: String,
    labels: Labels,
    matched: BTreeSet<SelectorId>,
}

#[derive(Debug)]
struct Entry {
    selector: Arc<PodSelector>,
    users: usize,
    members: FxHashSet<ItemId>,
}

/// Where a selector is filed: its namespace if it names one, and a label that every member has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Anchor {
    namespace: Option<String>,
    label: Option<(String, Option<String>)>,
}

impl LabelIndex {
    /// Enters an item, or changes it.
    pub(crate) fn put_item(&mut self, id: ItemId, namespace: &str, labels: &Labels) {
        if let Some(old) = self.items.get(&id) {
            if old.namespace == namespace && old.labels == *labels {
                return;
            }
            if old.namespace != namespace {
                self.remove_item(id);
            }
        }
        let matched = self.matching(namespace, labels);
        self.namespaces.entry(namespace.to_owned()).or_default().items.insert(id);
        let old = self.items.get(&id).map(|i| i.matched.clone()).unwrap_or_default();
        for selector in old.difference(&matched) {
            self.note(*selector, id, true);
        }
        for selector in matched.difference(&old) {
            self.note(*selector, id, false);
        }
        self.items.insert(id, Item { namespace: namespace.to_owned(), labels: labels.clone(), matched });
    }

    /// Forgets an item.
    pub(crate) fn remove_item(&mut self, id: ItemId) {
        let Some(item) = self.items.remove(&id) else { return };
        for selector in item.matched {
            self.note(selector, id, true);
        }
        if let Some(namespace) = self.namespaces.get_mut(&item.namespace) {
            namespace.items.remove(&id);
        }
        self.forget_empty_namespace(&item.namespace);
    }

    /// Sets a namespace's labels; none: it is not known.
    pub(crate) fn put_namespace(&mut self, name: &str, labels: Option<&Labels>) {
        let namespace = self.namespaces.entry(name.to_owned()).or_default();
        let old = std::mem::replace(&mut namespace.labels, labels.cloned());
        if old.as_ref() == labels {
            self.forget_empty_namespace(name);
            return;
        }
        let items: Vec<ItemId> = namespace.items.iter().copied().collect();
        let mut flipped: Vec<(SelectorId, bool)> = Vec::new();
        for (scope, selectors) in &self.by_scope {
            let scope = NamespaceScope::Matching(scope.clone());
            let was = scope.contains(name, old.as_deref());
            if was != scope.contains(name, labels.map(AsRef::as_ref)) {
                flipped.extend(selectors.iter().map(|s| (*s, was)));
            }
        }
        for (selector, was) in flipped {
            let pods = &self.selectors[&selector].selector.pods;
            let touched: Vec<ItemId> =
                items.iter().copied().filter(|id| pods.matches(&self.items[id].labels)).collect();
            for id in touched {
                self.note(selector, id, was);
                if let Some(item) = self.items.get_mut(&id) {
                    if was {
                        item.matched.remove(&selector)
                    } else {
                        item.matched.insert(selector)
                    };
                }
            }
        }
        self.forget_empty_namespace(name);
    }

    /// Interns a selector for one more user. What it selects already is not told as a change.
    pub(crate) fn acquire(&mut self, selector: &PodSelector) -> SelectorId {
        if let Some(id) = self.ids.get(selector) {
            if let Some(entry) = self.selectors.get_mut(id) {
                entry.users += 1;
            }
            return *id;
        }
        let id = self.next;
        self.next += 1;
        let mut members = FxHashSet::default();
        for (name, namespace) in self.in_scope(&selector.namespaces) {
            if !selector.namespaces.contains(name, namespace.labels.as_deref()) {
                continue;
            }
            members.extend(namespace.items.iter().filter(|i| selector.pods.matches(&self.items[*i].labels)));
        }
        for member in &members {
            if let Some(item) = self.items.get_mut(member) {
                item.matched.insert(id);
            }
        }
        self.filed.entry(anchor(selector)).or_default().insert(id);
        if let NamespaceScope::Matching(scope) = &selector.namespaces {
            self.by_scope.entry(scope.clone()).or_default().insert(id);
        }
        let selector = Arc::new(selector.clone());
        self.ids.insert(selector.clone(), id);
        self.selectors.insert(id, Entry { selector, users: 1, members });
        id
    }

    /// Takes one user away; the selector is forgotten with its last.
    pub(crate) fn release(&mut self, id: SelectorId) {
        let Some(entry) = self.selectors.get_mut(&id) else { return };
        entry.users -= 1;
        if entry.users > 0 {
            return;
        }
        let Some(entry) = self.selectors.remove(&id) else { return };
        for member in &entry.members {
            if let Some(item) = self.items.get_mut(member) {
                item.matched.remove(&id);
            }
        }
        self.ids.remove(&entry.selector);
        remove_from(&mut self.filed, &anchor(&entry.selector), id);
        if let NamespaceScope::Matching(scope) = &entry.selector.namespaces {
            remove_from(&mut self.by_scope, scope, id);
        }
    }

    /// Items that a selector selects.
    pub(crate) fn members(&self, id: SelectorId) -> impl Iterator<Item = ItemId> {
        self.selectors.get(&id).into_iter().flat_map(|e| e.members.iter().copied())
    }

    /// Selectors that select an item.
    pub(crate) fn matched(&self, id: ItemId) -> impl Iterator<Item = SelectorId> {
        self.items.get(&id).into_iter().flat_map(|i| i.matched.iter().copied())
    }

    /// Whether a selector selects an item.
    pub(crate) fn is_member(&self, selector: SelectorId, id: ItemId) -> bool {
        self.selectors.get(&selector).is_some_and(|e| e.members.contains(&id))
    }

    /// Memberships that may have changed since the last call, each with what it was then.
    pub(crate) fn take_touched(&mut self) -> FxHashMap<(SelectorId, ItemId), bool> {
        std::mem::take(&mut self.touched)
    }

    /// Whether no selector is followed.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.selectors.is_empty() && self.ids.is_empty() && self.filed.is_empty() && self.by_scope.is_empty()
    }

    /// Turns one membership over and remembers what it was.
    fn note(&mut self, selector: SelectorId, id: ItemId, was: bool) {
        self.touched.entry((selector, id)).or_insert(was);
        if let Some(entry) = self.selectors.get_mut(&selector) {
            if was {
                entry.members.remove(&id)
            } else {
                entry.members.insert(id)
            };
        }
    }

    /// Selectors that select such an item.
    fn matching(&self, namespace: &str, labels: &Labels) -> BTreeSet<SelectorId> {
        let known = self.namespaces.get(namespace).and_then(|n| n.labels.as_deref());
        let mut found = BTreeSet::new();
        let mut ask = |anchor: &Anchor| {
            for id in self.filed.get(anchor).into_iter().flatten() {
                if self.selectors[id].selector.matches(namespace, known, labels) {
                    found.insert(*id);
                }
            }
        };
        for scope in [Some(namespace.to_owned()), None] {
            let mut anchor = Anchor { namespace: scope, label: None };
            ask(&anchor);
            for (key, value) in labels.iter() {
                anchor.label = Some((key.clone(), None));
                ask(&anchor);
                anchor.label = Some((key.clone(), Some(value.clone())));
                ask(&anchor);
            }
        }
        found
    }

    fn in_scope<'a>(&'a self, scope: &'a NamespaceScope) -> Box<dyn Iterator<Item = (&'a String, &'a Namespace)> + 'a> {
        match scope {
            NamespaceScope::Named(name) => Box::new(self.namespaces.get_key_value(name).into_iter()),
            NamespaceScope::Matching(_) => Box::new(self.namespaces.iter()),
        }
    }

    fn forget_empty_namespace(&mut self, name: &str) {
        if self.namespaces.get(name).is_some_and(|n| n.labels.is_none() && n.items.is_empty()) {
            self.namespaces.remove(name);
        }
    }
}

/// The rarest label that a selector demands is the best place to file it; a value is rarer than a key.
fn anchor(selector: &PodSelector) -> Anchor {
    let namespace = match &selector.namespaces {
        NamespaceScope::Named(name) => Some(name.clone()),
        NamespaceScope::Matching(_) => None,
    };
    let mut label = None;
    for requirement in selector.pods.requirements() {
        match &requirement.test {
            Test::In(values) if values.len() == 1 => {
                label = Some((requirement.key.clone(), values.first().cloned()));
                break;
            }
            Test::In(_) | Test::Exists if label.is_none() => label = Some((requirement.key.clone(), None)),
            _ => {}
        }
    }
    Anchor { namespace, label }
}

fn remove_from<K: std::hash::Hash + Eq>(map: &mut FxHashMap<K, FxHashSet<SelectorId>>, key: &K, id: SelectorId) {
    if let Some(ids) = map.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            map.remove(key);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::Requirement;
    use std::collections::BTreeMap;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Arc::new(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>())
    }

    fn with(key: &str, value: &str) -> Selector {
        Selector::of([Requirement { key: key.into(), test: Test::In([value.to_owned()].into()) }])
    }

    fn without(key: &str) -> Selector {
        Selector::of([Requirement { key: key.into(), test: Test::DoesNotExist }])
    }

    fn members(index: &LabelIndex, id: SelectorId) -> Vec<ItemId> {
        let mut all: Vec<_> = index.members(id).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn members_follow_labels_of_items_and_of_namespaces() {
        let mut index = LabelIndex::default();
        index.put_item(1, "x", &labels(&[("a", "1")]));
        index.put_item(2, "y", &labels(&[("a", "1")]));
        index.put_item(3, "y", &labels(&[("b", "1")]));
        let named = index.acquire(&PodSelector { namespaces: NamespaceScope::Named("y".into()), pods: with("a", "1") });
        let absent = index.acquire(&PodSelector { namespaces: NamespaceScope::Named("y".into()), pods: without("a") });
        let scoped =
            index.acquire(&PodSelector { namespaces: NamespaceScope::Matching(with("t", "1")), pods: with("a", "1") });
        assert_eq!((members(&index, named), members(&index, absent)), (vec![2], vec![3]));
        assert_eq!(members(&index, scoped), Vec::<u32>::new());
        index.put_namespace("x", Some(&labels(&[("t", "1")])));
        assert_eq!(members(&index, scoped), [1]);
        index.put_namespace("y", Some(&labels(&[("t", "1")])));
        index.put_item(3, "y", &labels(&[("a", "1")]));
        assert_eq!((members(&index, scoped), members(&index, absent)), (vec![1, 2, 3], vec![]));
        index.put_namespace("x", None);
        index.remove_item(2);
        assert_eq!((members(&index, scoped), members(&index, named)), (vec![3], vec![3]));
    }

    #[test]
    fn there_and_back_again_is_told_with_what_was_before() {
        let mut index = LabelIndex::default();
        let id = index.acquire(&PodSelector { namespaces: NamespaceScope::Named("x".into()), pods: with("a", "1") });
        index.put_item(1, "x", &labels(&[("a", "1")]));
        index.put_item(1, "x", &labels(&[("a", "2")]));
        assert_eq!(index.take_touched().into_iter().collect::<Vec<_>>(), [((id, 1), false)]);
        assert!(!index.is_member(id, 1));
        assert!(index.take_touched().is_empty());
    }

    #[test]
    fn a_selector_is_forgotten_with_its_last_user() {
        let mut index = LabelIndex::default();
        let selector = PodSelector { namespaces: NamespaceScope::Named("x".into()), pods: with("a", "1") };
        let id = index.acquire(&selector);
        assert_eq!(index.acquire(&selector), id);
        index.put_item(1, "x", &labels(&[("a", "1")]));
        index.release(id);
        assert_eq!(members(&index, id), [1]);
        index.release(id);
        assert_eq!(members(&index, id), Vec::<u32>::new());
        assert_eq!(index.matched(1).count(), 0);
        assert!(index.filed.is_empty() && index.by_scope.is_empty() && index.ids.is_empty());
    }
}
