//! Blocks that bear this node's name and that another store claimed: a machine before this one, or this one before it lost its disk. In
//! flows which of them may still be in use; out flow those that may be given back.
//!
//! Times are milliseconds of any clock that does not jump. A restart begins the time anew, which is only longer.

use std::collections::BTreeMap;

/// How long a block must look unused before it is given back, in milliseconds.
pub const QUARANTINE: u64 = 15 * 60 * 1000;

/// What has been seen of such blocks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Quarantine {
    length: u64,
    /// By the object's UID: since when nothing has spoken for its use.
    since: BTreeMap<String, u64>,
}

impl Quarantine {
    /// None seen yet; `length` in milliseconds.
    #[must_use]
    pub fn new(length: u64) -> Self {
        Self { length, since: BTreeMap::new() }
    }

    /// Takes in all such blocks as they are now: UID, and whether a pod or a route speaks for its use. Returns those of which neither
    /// did for the whole time; the caller looks once more, consistently, before it gives one back.
    pub fn observe(&mut self, now: u64, seen: &BTreeMap<String, bool>) -> Vec<String> {
        self.since.retain(|uid, _| seen.contains_key(uid));
        let mut over = Vec::new();
        for (uid, used) in seen {
            let since = self.since.entry(uid.clone()).or_insert(now);
            if *used {
                *since = now;
            } else if now.saturating_sub(*since) >= self.length {
                over.push(uid.clone());
            }
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_given_back_after_it_looked_unused_for_the_whole_time() {
        let mut quarantine = Quarantine::new(100);
        let seen = |blocks: &[(&str, bool)]| blocks.iter().map(|(uid, used)| ((*uid).to_owned(), *used)).collect();
        assert!(quarantine.observe(1000, &seen(&[("a", false), ("b", true)])).is_empty());
        assert!(quarantine.observe(1050, &seen(&[("a", false), ("b", true)])).is_empty());
        assert!(quarantine.observe(1099, &seen(&[("a", false), ("b", false)])).is_empty());
        assert_eq!(quarantine.observe(1100, &seen(&[("a", false), ("b", false)])), ["a"]);
        assert_eq!(quarantine.observe(1140, &seen(&[("a", true), ("b", false)])), Vec::<String>::new());
        assert_eq!(quarantine.observe(1200, &seen(&[("a", false), ("b", false)])), ["b"]);
        // Gone and there again is another block, even if it were under the same UID.
        assert!(quarantine.observe(1210, &seen(&[])).is_empty());
        assert!(quarantine.observe(1300, &seen(&[("a", false), ("b", false)])).is_empty());
    }

    #[test]
    fn two_looks_are_needed_whatever_the_time() {
        let mut quarantine = Quarantine::new(0);
        assert_eq!(quarantine.observe(5, &[("a".to_owned(), true)].into()).len(), 0);
    }
}
