//! A sorted set of few values: one is kept in place, more in one allocation of exactly their size, where a tree takes room for eleven.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

/// Values in ascending order, each once.
#[derive(Clone)]
pub struct Few<T>(Held<T>);

#[derive(Clone)]
enum Held<T> {
    One(T),
    Many(Box<[T]>),
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(Held::Many(Box::default()))
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.0 {
            Held::One(value) => std::slice::from_ref(value),
            Held::Many(values) => values,
        }
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for Few<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl<T: PartialEq> PartialEq for Few<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Eq> Eq for Few<T> {}

impl<T: Ord> PartialOrd for Few<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Ord> Ord for Few<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl<T: Hash> Hash for Few<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl<T: Ord> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(all: I) -> Self {
        let mut all = all.into_iter();
        let (Some(first), second) = (all.next(), all.next()) else { return Self::default() };
        let Some(second) = second else { return Self(Held::One(first)) };
        let mut all: Vec<T> = [first, second].into_iter().chain(all).collect();
        all.sort_unstable();
        all.dedup();
        match all.len() {
            1 => all.pop().map_or_else(Self::default, |one| Self(Held::One(one))),
            _ => Self(Held::Many(all.into_boxed_slice())),
        }
    }
}

impl<T: Ord, const N: usize> From<[T; N]> for Few<T> {
    fn from(all: [T; N]) -> Self {
        all.into_iter().collect()
    }
}

impl<'a, T> IntoIterator for &'a Few<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_sorted_and_each_is_there_once() {
        assert_eq!(*Few::from([3, 1, 3, 2]), [1, 2, 3]);
        assert_eq!(Few::from([2, 1]), [1, 2, 2].into_iter().collect());
        assert_eq!(Few::from([2, 2]), Few::from([2]));
        assert!(Few::from([2]) < Few::from([2, 3]) && Few::from([1, 9]) < Few::from([2]));
        assert!(Few::<u8>::default().is_empty());
    }
}
