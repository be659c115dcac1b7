//! Policies in the order in which they are judged, filed by what they can be about: a pod is asked about those of its own namespace and those
//! of more than one, not about all.

use crate::model::{NamespaceScope, Policy};
use std::collections::BTreeMap;

/// All policies of pods.
#[derive(Clone, Debug, Default)]
pub(super) struct Policies {
    all: Vec<Policy>,
    /// Places of those that are about pods of one namespace, by that.
    of_one: BTreeMap<String, Vec<usize>>,
    /// Places of the others.
    of_many: Vec<usize>,
}

impl Policies {
    /// All, in order.
    pub(super) fn iter(&self) -> std::slice::Iter<'_, Policy> {
        self.all.iter()
    }

    /// Those that may be about pods of a namespace, in order.
    pub(super) fn of_namespace(&self, name: &str) -> impl Iterator<Item = &Policy> {
        let mut places: Vec<usize> =
            self.of_one.get(name).into_iter().flatten().chain(&self.of_many).copied().collect();
        places.sort_unstable();
        places.into_iter().map(|place| &self.all[place])
    }
}

impl Extend<Policy> for Policies {
    fn extend<T: IntoIterator<Item = Policy>>(&mut self, more: T) {
        let Self { all, of_one, of_many } = self;
        all.extend(more);
        all.sort_by(|a, b| a.order().cmp(&b.order()));
        of_one.clear();
        of_many.clear();
        for (place, policy) in all.iter().enumerate() {
            match &policy.subject.namespaces {
                NamespaceScope::Named(name) => of_one.entry(name.clone()).or_default().push(place),
                NamespaceScope::Matching(_) => of_many.push(place),
            }
        }
    }
}

impl FromIterator<Policy> for Policies {
    fn from_iter<T: IntoIterator<Item = Policy>>(policies: T) -> Self {
        let mut all = Self::default();
        all.extend(policies);
        all
    }
}

impl<'a> IntoIterator for &'a Policies {
    type Item = &'a Policy;
    type IntoIter = std::slice::Iter<'a, Policy>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
