//! What peers told and was not taken, to be shown with the reason: a part of it where it is much.

use super::import::Refusal;
use super::path_attributes::PathAttributes;
use crate::rib::{Key, PeerId};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Paths that are kept of one peer. Beyond that, one that leaks a whole table costs nothing.
const KEPT: usize = 10_000;

/// Paths that were not taken, by peer.
#[derive(Default)]
pub(super) struct Rejected {
    peers: BTreeMap<PeerId, BTreeMap<IpNet, Entry>>,
}

/// A path that was not taken.
pub(super) struct Entry {
    /// Its attributes as they came.
    pub(super) set: Arc<PathAttributes>,
    pub(super) refusal: Refusal,
}

impl Rejected {
    pub(super) fn note(&mut self, peer: PeerId, prefix: IpNet, set: &Arc<PathAttributes>, refusal: Refusal) {
        let of_peer = self.peers.entry(peer).or_default();
        if of_peer.len() < KEPT || of_peer.contains_key(&prefix) {
            of_peer.insert(prefix, Entry { set: Arc::clone(set), refusal });
        }
    }

    /// The peer tells something else of the prefix now.
    pub(super) fn forget<K: Key>(&mut self, peer: PeerId, key: K) {
        // Most peers have nothing here.
        if let Some(of_peer) = self.peers.get_mut(&peer) {
            of_peer.remove(&key.net());
            if of_peer.is_empty() {
                self.peers.remove(&peer);
            }
        }
    }

    /// The peer's session is over.
    pub(super) fn forget_all(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
    }

    /// What is kept of each peer, by prefix.
    pub(super) fn iter(&self) -> impl Iterator<Item = (PeerId, IpNet, &Entry)> {
        self.peers.iter().flat_map(|(peer, entries)| entries.iter().map(|(prefix, entry)| (*peer, *prefix, entry)))
    }

    /// How many are kept of `peer`.
    pub(super) fn count(&self, peer: PeerId) -> usize {
        self.peers.get(&peer).map_or(0, BTreeMap::len)
    }
}
