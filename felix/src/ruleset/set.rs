//! A set and what stands beside its keys.

use super::{Key, KeyType, Verdict};
use std::collections::BTreeMap;
use std::time::Duration;

/// A set, or a map to verdicts or to values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Types of the key's parts.
    pub key: Vec<KeyType>,
    /// Elements are ranges: for ipBlocks, pools and many ports only, such a set costs O(n) per commit. One part of type V4, V6 or Port.
    pub interval: bool,
    /// Elements expire, after this by default. Such a set is never compared: the kernel changes it by itself.
    pub timeout: Option<Duration>,
    /// Upper limit of elements, and half the memory and time to load; a batch that exceeds it fails whole.
    pub size: Option<u32>,
    /// Elements carry a verdict, or a value of types `data`.
    pub map: bool,
    /// Types of the parts of a map's values; none: verdicts.
    pub data: Vec<KeyType>,
    /// Packets add elements.
    pub dynamic: bool,
    /// The elements.
    pub elements: BTreeMap<Key, Value>,
    /// Shown by `nft list`.
    pub comment: String,
}

impl Set {
    /// A hash set of this key, empty.
    #[must_use]
    pub fn of(key: impl Into<Vec<KeyType>>) -> Set {
        Set { key: key.into(), ..Set::default() }
    }

    /// The same as a set of ranges.
    #[must_use]
    pub fn interval(self) -> Set {
        Set { interval: true, ..self }
    }

    /// The same as a map to verdicts.
    #[must_use]
    pub fn verdict_map(self) -> Set {
        Set { map: true, ..self }
    }

    /// The same as a map to values of these types.
    #[must_use]
    pub fn map_to(self, data: impl Into<Vec<KeyType>>) -> Set {
        Set { map: true, data: data.into(), ..self }
    }

    /// The same with elements that expire.
    #[must_use]
    pub fn expiring(self, after: Duration) -> Set {
        Set { timeout: Some(after), ..self }
    }

    /// The same with elements that packets add, so many at most.
    #[must_use]
    pub fn dynamic(self, size: u32) -> Set {
        Set { dynamic: true, size: Some(size), ..self }
    }

    /// The same with this comment.
    #[must_use]
    pub fn comment(self, comment: impl Into<String>) -> Set {
        Set { comment: comment.into(), ..self }
    }

    /// The same with these elements.
    #[must_use]
    pub fn with(self, elements: impl IntoIterator<Item = (Key, Value)>) -> Set {
        Set { elements: elements.into_iter().collect(), ..self }
    }

    /// Whether both can be one kernel object: everything but the elements is equal.
    #[must_use]
    pub fn same_declaration(&self, other: &Set) -> bool {
        (&self.key, self.interval, self.timeout, self.size, self.map, &self.data, self.dynamic)
            == (&other.key, other.interval, other.timeout, other.size, other.map, &other.data, other.dynamic)
    }
}

/// What stands beside an element's key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    #[default]
    Plain,
    /// The range's last key, itself included; only in an interval set, where `Plain` means one key.
    Through(Key),
    /// The verdict; only in a map to verdicts.
    Verdict(Verdict),
    /// The value, in the form of a key; only in a map to values.
    Mapped(Key),
    /// Time until it expires, instead of the set's default; only in a set with timeout.
    Expires(Duration),
}
