//! Which states of objects need no look any more, and how soon a write that came to nothing is tried again.

use crate::world::Known;
use std::collections::BTreeMap;
use twill_crds::Object;
use twill_datastore::Key;

/// From which the pause after a write that came to nothing is doubled, in milliseconds.
const LEAST: u64 = 5_000;
/// Longest pause between two attempts at a write, in milliseconds.
const LONGEST: u64 = 600_000;

/// States of objects of one kind that were judged, and whose stored status is as it should be.
#[derive(Debug, Default)]
pub(crate) struct Settled(BTreeMap<Key, (Option<String>, Option<String>)>);

impl Settled {
    /// The objects that are to be judged: those that are new, or another than when they were settled.
    pub(crate) fn others<'k, K: Object>(&mut self, known: &'k Known<K>) -> Vec<&'k K> {
        self.0.retain(|key, _| known.get(key).is_some());
        let is_settled = |key: &Key, object: &K| self.0.get(key).is_some_and(|state| *state == state_of(object));
        known.iter().filter(|(key, object)| !is_settled(key, object)).map(|(_, object)| object).collect()
    }

    /// This state needs no look any more. One that was never stored has no name by which it could be told.
    pub(crate) fn settle<K: Object>(&mut self, object: &K) {
        let state = state_of(object);
        if state.1.is_some() {
            self.0.insert(Key::cluster(object.name()), state);
        }
    }
}

fn state_of<K: Object>(object: &K) -> (Option<String>, Option<String>) {
    (object.meta().uid.clone(), object.meta().resource_version.clone())
}

/// When statuses were written, by kind and name.
#[derive(Debug, Default)]
pub(crate) struct Writes(BTreeMap<(&'static str, String), Attempt>);

#[derive(Clone, Copy, Debug)]
struct Attempt {
    at: u64,
    /// How often in a row it came to nothing.
    failed: u32,
}

impl Attempt {
    fn pause(self, usual: u64) -> u64 {
        if self.failed == 0 { usual } else { usual.max(LEAST).saturating_mul(1 << self.failed.min(16)).min(LONGEST) }
    }
}

impl Writes {
    /// Whether the last one is long enough ago: `pause`, and twice that for each time in a row that it came to nothing. Then it is written now.
    pub(crate) fn may(&mut self, kind: &'static str, name: &str, pause: u64, now: u64) -> bool {
        self.0.retain(|_, attempt| now.saturating_sub(attempt.at) < 2 * LONGEST);
        let last = self.0.get(&(kind, name.to_owned())).copied();
        let may = last.is_none_or(|last| now.saturating_sub(last.at) >= last.pause(pause));
        if may {
            let failed = last.map_or(0, |last| last.failed);
            self.0.insert((kind, name.to_owned()), Attempt { at: now, failed });
        }
        may
    }

    /// How the last one went.
    pub(crate) fn went(&mut self, kind: &'static str, name: &str, well: bool) {
        if let Some(attempt) = self.0.get_mut(&(kind, name.to_owned())) {
            attempt.failed = if well { 0 } else { attempt.failed.saturating_add(1) };
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::world::{Fact, World};
    use serde_json::json;
    use twill_crds::NamespaceIsolation;
    use twill_datastore::{Followed, Revision};

    fn isolation(name: &str, version: u32) -> NamespaceIsolation {
        let metadata = json!({"name": name, "uid": name, "resourceVersion": version.to_string()});
        let kind = json!({"apiVersion": "twill.network/v1", "kind": "NamespaceIsolation", "metadata": metadata});
        let mut raw = kind;
        raw["spec"] = json!({"namespaceSelector": {}});
        serde_json::from_value(raw).unwrap()
    }

    #[test]
    fn of_many_objects_only_those_are_judged_that_have_changed_since() {
        let mut world = World::default();
        let mut hear = |name, version| {
            world.hear(Fact::isolation(Followed::Applied(isolation(name, version), Revision(version.into()))));
            world.isolations.clone()
        };
        let mut settled = Settled::default();
        let names = |objects: Vec<&NamespaceIsolation>| -> Vec<String> {
            objects.into_iter().map(|one| one.name().to_owned()).collect()
        };
        hear("a", 1);
        let known = hear("b", 2);
        assert_eq!(names(settled.others(&known)), ["a", "b"]);
        settled.settle(&isolation("a", 1));
        settled.settle(&isolation("b", 2));
        assert!(settled.others(&known).is_empty());
        assert_eq!(names(settled.others(&hear("b", 3))), ["b"]);
    }

    #[test]
    fn what_comes_to_nothing_is_tried_ever_more_seldom_and_at_last_every_ten_minutes() {
        let mut writes = Writes::default();
        let (mut times, mut now) = (Vec::new(), 0);
        while now <= 4_000_000 {
            if writes.may("K", "a", 5_000, now) {
                times.push(now / 1_000);
                writes.went("K", "a", false);
            }
            now += 1_000;
        }
        assert_eq!(times, [0, 10, 30, 70, 150, 310, 630, 1230, 1830, 2430, 3030, 3630]);
        writes.went("K", "a", true);
        assert!(!writes.may("K", "a", 5_000, 3_634_000) && writes.may("K", "a", 5_000, 3_635_000));
    }
}
