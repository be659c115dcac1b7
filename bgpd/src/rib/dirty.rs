//! Sets of prefix numbers: one bit each, and a list in order of arrival where order matters.

/// A set of small numbers, one bit each.
#[derive(Clone, Debug, Default)]
pub struct Bitmap {
    words: Vec<u64>,
    count: u32,
}

impl Bitmap {
    /// Adds `id`; false if it was there.
    pub fn set(&mut self, id: u32) -> bool {
        let word = id as usize / 64;
        if word >= self.words.len() {
            self.words.resize((word + 1).next_power_of_two(), 0);
        }
        let bit = 1 << (id % 64);
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.count += u32::from(new);
        new
    }

    /// Removes `id`; false if it was not there.
    pub fn clear(&mut self, id: u32) -> bool {
        let bit = 1 << (id % 64);
        match self.words.get_mut(id as usize / 64) {
            Some(word) if *word & bit != 0 => {
                *word &= !bit;
                self.count -= 1;
                true
            }
            _ => false,
        }
    }

    /// Whether `id` is in the set.
    #[must_use]
    pub fn has(&self, id: u32) -> bool {
        self.words.get(id as usize / 64).is_some_and(|word| word & (1 << (id % 64)) != 0)
    }

    /// The numbers in the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        (0u32..).zip(&self.words).flat_map(|(index, word)| {
            (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| index * 64 + bit)
        })
    }

    /// How many are in the set.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }
}

/// Prefixes that have something to be told, each once, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub struct DirtyList {
    list: std::collections::VecDeque<u32>,
    bits: Bitmap,
}

impl DirtyList {
    /// Adds `id` at the end unless it is in the list.
    pub fn push(&mut self, id: u32) {
        if self.bits.set(id) {
            self.list.push_back(id);
        }
    }

    /// Removes up to `limit` from the front and appends them to `into`.
    pub fn take(&mut self, limit: usize, into: &mut Vec<u32>) {
        let full = into.len().saturating_add(limit);
        while into.len() < full
            && let Some(id) = self.list.pop_front()
        {
            // One that was removed stands there still.
            if self.bits.clear(id) {
                into.push(id);
            }
        }
        if self.list.is_empty() && self.list.capacity() > 4096 {
            self.list = std::collections::VecDeque::new();
        }
    }

    /// Removes `id`, wherever it is.
    pub fn remove(&mut self, id: u32) {
        self.bits.clear(id);
        // Whoever removes as often as he adds does not make it grow.
        if self.list.len() > 2 * self.len() + 1024 {
            let mut seen = Bitmap::default();
            self.list.retain(|id| self.bits.has(*id) && seen.set(*id));
        }
    }

    /// Whether `id` is in the list.
    #[must_use]
    pub fn has(&self, id: u32) -> bool {
        self.bits.has(id)
    }

    /// How many are in the list.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bits.count() as usize
    }

    /// Whether nothing is to be told.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_that_changes_twice_is_told_once_and_in_order() {
        let mut dirty = DirtyList::default();
        [5, 3, 5, 700, 3].into_iter().for_each(|id| dirty.push(id));
        let mut out = Vec::new();
        dirty.take(2, &mut out);
        assert_eq!((out.as_slice(), dirty.has(5), dirty.has(700)), ([5, 3].as_slice(), false, true));
        dirty.push(5);
        dirty.take(10, &mut out);
        assert_eq!((out.as_slice(), dirty.is_empty()), ([5, 3, 700, 5].as_slice(), true));
    }

    #[test]
    fn a_bitmap_counts_what_it_holds() {
        let mut bits = Bitmap::default();
        assert!(bits.set(1000) && !bits.set(1000) && bits.has(1000) && !bits.has(999));
        assert!(bits.clear(1000) && !bits.clear(1000) && !bits.clear(1 << 30));
        assert_eq!(bits.count(), 0);
    }

    #[test]
    fn what_is_removed_is_not_told_and_may_come_again() {
        let (mut dirty, mut out) = (DirtyList::default(), Vec::new());
        [1, 2, 3].into_iter().for_each(|id| dirty.push(id));
        dirty.remove(1);
        dirty.remove(3);
        dirty.push(3);
        dirty.take(1, &mut out);
        assert_eq!((out.as_slice(), dirty.len()), ([2].as_slice(), 1));
        dirty.take(9, &mut out);
        assert_eq!((out.as_slice(), dirty.is_empty()), ([2, 3].as_slice(), true));
        for _ in 0..10_000 {
            dirty.push(7);
            dirty.remove(7);
        }
        assert!(dirty.is_empty() && dirty.list.len() <= 1025, "{}", dirty.list.len());
    }
}
