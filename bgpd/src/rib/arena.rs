//! Numbered storage that grows by chunks: no copy of all elements when it grows, no allocation per element.

const SHIFT: u32 = 12;
const CHUNK: usize = 1 << SHIFT;

/// Elements with numbers that stay theirs until they are removed.
#[derive(Debug)]
pub struct Arena<T> {
    chunks: Vec<Vec<T>>,
    length: u32,
    free: Vec<u32>,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), length: 0, free: Vec::new() }
    }
}

impl<T: Copy> Arena<T> {
    /// Stores `value`; returns its number, which may be one that was removed before.
    pub fn insert(&mut self, value: T) -> u32 {
        if let Some(id) = self.free.pop() {
            self[id] = value;
            return id;
        }
        let id = self.length;
        if (id as usize).is_multiple_of(CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        self.chunks[id as usize >> SHIFT].push(value);
        self.length += 1;
        id
    }

    /// Gives up number `id`. When nothing is left, the memory goes too.
    pub fn remove(&mut self, id: u32) {
        self.free.push(id);
        if self.live() == 0 {
            *self = Self::default();
        }
    }

    /// Numbers handed out so far are below this, removed ones included.
    #[must_use]
    pub fn bound(&self) -> u32 {
        self.length
    }

    /// Elements stored.
    #[must_use]
    pub fn live(&self) -> u32 {
        self.length - self.free.len() as u32
    }
}

impl<T> std::ops::Index<u32> for Arena<T> {
    type Output = T;
    fn index(&self, id: u32) -> &T {
        &self.chunks[id as usize >> SHIFT][id as usize & (CHUNK - 1)]
    }
}

impl<T> std::ops::IndexMut<u32> for Arena<T> {
    fn index_mut(&mut self, id: u32) -> &mut T {
        &mut self.chunks[id as usize >> SHIFT][id as usize & (CHUNK - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_stable_over_chunks_and_reused_after_removal() {
        let mut arena = Arena::default();
        let ids: Vec<u32> = (0..10_000).map(|value: u32| arena.insert(value)).collect();
        assert!(ids.iter().all(|id| arena[*id] == *id));
        arena.remove(17);
        assert_eq!(arena.insert(99), 17);
        assert_eq!((arena[17], arena.live()), (99, 10_000));
    }

    #[test]
    fn an_empty_arena_holds_no_memory() {
        let mut arena = Arena::default();
        let id = arena.insert(1);
        arena.remove(id);
        assert_eq!((arena.chunks.len(), arena.free.capacity(), arena.bound()), (0, 0, 0));
    }
}
