//! How many paths each peer has.

use super::table::PeerId;

/// By peer number.
#[derive(Debug, Default)]
pub(super) struct Counts {
    all: Vec<u32>,
    stale: Vec<u32>,
}

impl Counts {
    /// Paths of `peer`.
    pub(super) fn all(&self, peer: PeerId) -> u32 {
        self.all.get(usize::from(peer.0)).copied().unwrap_or(0)
    }

    /// Those that it has told since it is back, if it was away.
    pub(super) fn fresh(&self, peer: PeerId) -> u32 {
        self.all(peer) - self.stale.get(usize::from(peer.0)).copied().unwrap_or(0)
    }

    /// There are `all` more paths, and `stale` more of those are stale.
    pub(super) fn add(&mut self, peer: PeerId, all: i32, stale: i32) {
        let index = usize::from(peer.0);
        if index >= self.all.len() {
            self.all.resize(index + 1, 0);
            self.stale.resize(index + 1, 0);
        }
        self.all[index] = self.all[index].wrapping_add_signed(all);
        self.stale[index] = self.stale[index].wrapping_add_signed(stale);
    }
}
