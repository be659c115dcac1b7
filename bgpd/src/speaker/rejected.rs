//! What peers told and was not taken, to be shown with the reason: a part of it where it is much.

use super::import::Refusal;
use super::path_attributes::PathAttributes;
use crate::rib::{Key, PeerId, Teller};
use crate::wire::Family;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Paths that are kept of one peer. Beyond that, one that leaks a whole table costs nothing.
const KEPT: usize = 10_000;

/// Paths that were not taken, by peer.
#[derive(Default)]
pub(super) struct Rejected {
    /// By prefix and path identifier.
    peers: BTreeMap<PeerId, BTreeMap<(IpNet, u32), Entry>>,
}

/// A path that was not taken.
pub(super) struct Entry {
    /// Its attributes as they came.
    pub(super) set: Arc<PathAttributes>,
    pub(super) refusal: Refusal,
}

impl Rejected {
    /// A path was not taken; whether it is kept.
    pub(super) fn note(&mut self, from: Teller, prefix: IpNet, set: &Arc<PathAttributes>, refusal: Refusal) -> bool {
        let (of_peer, path) = (self.peers.entry(from.peer).or_default(), (prefix, from.identifier));
        let is_kept = of_peer.len() < KEPT || of_peer.contains_key(&path);
        if is_kept {
            of_peer.insert(path, Entry { set: Arc::clone(set), refusal });
        }
        is_kept
    }

    /// The peer tells everything of the family again.
    pub(super) fn forget_family(&mut self, peer: PeerId, family: Family) {
        if let Some(of_peer) = self.peers.get_mut(&peer) {
            of_peer.retain(|(prefix, _), _| Family::of(*prefix) != family);
        }
    }

    /// The peer tells something else of the path now.
    pub(super) fn forget<K: Key>(&mut self, from: Teller, key: K) {
        // Most peers have nothing here.
        if let Some(of_peer) = self.peers.get_mut(&from.peer) {
            of_peer.remove(&(key.net(), from.identifier));
            if of_peer.is_empty() {
                self.peers.remove(&from.peer);
            }
        }
    }

    /// The peer's session is over.
    pub(super) fn forget_all(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
    }

    /// What is kept of each peer, by prefix.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Teller, IpNet, &Entry)> {
        self.peers.iter().flat_map(|(peer, entries)| {
            let from = |identifier| Teller { peer: *peer, identifier };
            entries.iter().map(move |((prefix, identifier), entry)| (from(*identifier), *prefix, entry))
        })
    }

    /// What is kept of `peer`, by prefix and path identifier.
    pub(super) fn of(&self, peer: PeerId) -> impl Iterator<Item = (IpNet, u32, &Entry)> {
        let entries = self.peers.get(&peer).into_iter().flatten();
        entries.map(|((prefix, identifier), entry)| (*prefix, *identifier, entry))
    }

    /// How many are kept of `peer`.
    pub(super) fn count(&self, peer: PeerId) -> usize {
        self.peers.get(&peer).map_or(0, BTreeMap::len)
    }
}
