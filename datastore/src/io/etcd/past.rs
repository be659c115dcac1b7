//! Whether etcd still has the past that was told.
//!
//! In flows what watches have heard of a kind's head; out flows what etcd must show when it is asked for the head at that revision
//! again. Each write of a kind puts a head of its own, so one head says all the writes before it: an etcd that was put back to an
//! older state and has grown since shows another one there, whatever its revision. Nothing else tells: the copy has the identity,
//! and may have the cluster's and the member's number, too.

use crate::{Filter, Revision};
use rustc_hash::FxHashMap;
use std::sync::{Mutex, PoisonError};

/// A kind's head; the default is that there was none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// Of the write that put it.
    pub(super) revision: i64,
    /// What it put.
    pub(super) value: Vec<u8>,
}

/// The head as it was when all up to a revision had been told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Past {
    pub(super) up_to: Revision,
    pub(super) head: Head,
}

/// What the watches of a handle have told, by head and filter. A watch that begins where another with the same filter ended goes on
/// with its past.
#[derive(Debug, Default)]
pub(super) struct Pasts(Mutex<FxHashMap<(String, String), Past>>);

impl Past {
    /// Whether a head that etcd has now can be a later one of this past. What was told up to `up_to` is no longer the last, but none
    /// may have come before that.
    pub(super) fn goes_on_with(&self, now: &Head) -> bool {
        *now == self.head
            || now.revision > self.head.revision && u64::try_from(now.revision).unwrap_or(0) > self.up_to.0
    }
}

impl Pasts {
    pub(super) fn of(&self, head: &str, filter: &Filter) -> Option<Past> {
        self.with(|pasts| pasts.get(&id(head, filter)).cloned())
    }

    /// The longest of a kind, whatever the filter: all watches of a kind hear its heads.
    pub(super) fn longest(&self, head: &str) -> Option<Past> {
        let of = |((key, _), past): (&(String, String), &Past)| (key == head).then(|| past.clone());
        self.with(|pasts| pasts.iter().filter_map(of).max_by_key(|past| past.up_to))
    }

    pub(super) fn begin(&self, head: &str, filter: &Filter, past: Past) {
        self.with(|pasts| drop(pasts.insert(id(head, filter), past)));
    }

    /// All up to `up_to` was told, with this head if there was a new one.
    pub(super) fn told(&self, head: &str, filter: &Filter, up_to: Revision, new: Option<Head>) {
        self.with(|pasts| {
            let Some(past) = pasts.get_mut(&id(head, filter)) else { return };
            past.up_to = past.up_to.max(up_to);
            if let Some(new) = new.filter(|new| new.revision > past.head.revision) {
                past.head = new;
            }
        });
    }

    /// What comes is told from the beginning.
    pub(super) fn forget(&self, head: &str, filter: &Filter) {
        self.with(|pasts| drop(pasts.remove(&id(head, filter))));
    }

    fn with<T>(&self, work: impl FnOnce(&mut FxHashMap<(String, String), Past>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn id(head: &str, filter: &Filter) -> (String, String) {
    (head.to_owned(), format!("{filter:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(revision: i64, value: &str) -> Head {
        Head { revision, value: value.into() }
    }

    #[test]
    fn a_past_goes_on_with_its_own_head_or_one_that_came_after_all_that_was_told() {
        let past = Past { up_to: Revision(9), head: head(5, "a") };
        assert!(past.goes_on_with(&head(5, "a")) && past.goes_on_with(&head(10, "b")));
        for other in [Head::default(), head(4, "a"), head(5, "b"), head(7, "b"), head(9, "b")] {
            assert!(!past.goes_on_with(&other), "{other:?}");
        }
        let none = Past { up_to: Revision(9), head: Head::default() };
        assert!(none.goes_on_with(&Head::default()) && !none.goes_on_with(&head(3, "a")));
    }

    #[test]
    fn what_watches_tell_is_kept_for_each_filter_and_the_longest_counts_for_the_kind() {
        let (pasts, all) = (Pasts::default(), Filter::default());
        let some = Filter { namespace: Some("shop".into()), ..Filter::default() };
        pasts.told("/t/Pod/.head", &all, Revision(3), None);
        assert_eq!(pasts.longest("/t/Pod/.head"), None, "nobody began");
        for filter in [&all, &some] {
            pasts.begin("/t/Pod/.head", filter, Past { up_to: Revision(3), head: head(2, "a") });
        }
        pasts.told("/t/Pod/.head", &some, Revision(6), Some(head(6, "b")));
        pasts.told("/t/Pod/.head", &some, Revision(8), None);
        assert_eq!(pasts.longest("/t/Pod/.head"), Some(Past { up_to: Revision(8), head: head(6, "b") }));
        assert_eq!(pasts.of("/t/Pod/.head", &all).map(|past| past.up_to), Some(Revision(3)));
        pasts.forget("/t/Pod/.head", &some);
        assert_eq!(pasts.longest("/t/Pod/.head").map(|past| past.up_to), Some(Revision(3)));
        assert_eq!(pasts.longest("/t/Node/.head"), None);
    }
}
