//! What monitoring stations know of one family's paths, each of them as far as it has been told.

use super::event::StationId;
use super::path_attributes::PathAttributes;
use crate::rib::{AttrId, Attributes, DirtyList, Key, PathId, PeerId, PrefixId, Table, Teller};
use std::collections::BTreeMap;

/// A station's view.
#[derive(Debug, Default)]
struct View {
    dirty: DirtyList,
    told: BTreeMap<(PrefixId, PathId), ToldAs>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ToldAs {
    from: Teller,
    attributes: AttrId,
    /// Of the set, whose number may be another's by now.
    serial: u32,
}

/// A path that a station does not know, or does not know to be gone. Sorted so that what goes together is together, and what is gone first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct News<K> {
    pub(super) peer: PeerId,
    /// None: it is gone.
    pub(super) attributes: Option<AttrId>,
    pub(super) key: K,
    pub(super) identifier: u32,
}

/// The views of all stations.
#[derive(Debug, Default)]
pub(super) struct Views(BTreeMap<StationId, View>);

impl Views {
    /// A station that knows nothing yet.
    pub(super) fn add<K: Key>(&mut self, station: StationId, table: &Table<K>) {
        let mut view = View::default();
        table.prefixes().for_each(|id| view.dirty.push(id));
        self.0.insert(station, view);
    }

    pub(super) fn remove(&mut self, station: StationId) {
        self.0.remove(&station);
    }

    /// A path of the prefix has changed.
    pub(super) fn changed(&mut self, prefix: PrefixId) {
        self.0.values_mut().for_each(|view| view.dirty.push(prefix));
    }

    /// The stations know that what this peer told is void.
    pub(super) fn forget(&mut self, peer: PeerId) {
        self.0.values_mut().for_each(|view| view.told.retain(|_, told| told.from.peer != peer));
    }

    /// Whether every station has been told everything.
    pub(super) fn is_settled(&self) -> bool {
        self.0.values().all(|view| view.dirty.is_empty())
    }

    /// Whether a station has been told of a path of the prefix, and not that it is gone.
    pub(super) fn know(&self, prefix: PrefixId) -> bool {
        let told = |view: &View| view.told.range((prefix, 0)..=(prefix, PathId::MAX)).next().is_some();
        self.0.values().any(told)
    }

    /// No station is to be told of a prefix: it came and went before one was.
    pub(super) fn leave_out(&mut self, prefix: PrefixId) {
        self.0.values_mut().for_each(|view| view.dirty.remove(prefix));
    }

    /// What a station is to be told of the next `limit` prefixes: paths of peers that are up, as far as they are not kept for a restart.
    /// None: there is no such prefix.
    pub(super) fn news<K: Key>(
        &mut self,
        station: StationId,
        limit: usize,
        table: &Table<K>,
        sets: &Attributes<PathAttributes>,
        is_up: impl Fn(PeerId) -> bool,
    ) -> Option<Vec<News<K>>> {
        let view = self.0.get_mut(&station).filter(|view| !view.dirty.is_empty())?;
        let (mut ids, mut news) = (Vec::new(), Vec::new());
        view.dirty.take(limit, &mut ids);
        for prefix in ids {
            let key = table.key(prefix);
            let known = view.told.range((prefix, 0)..=(prefix, PathId::MAX));
            let before: BTreeMap<PathId, ToldAs> = known.map(|((_, path), told)| (*path, *told)).collect();
            let mut now = BTreeMap::new();
            for (id, path) in table.numbered_paths(prefix) {
                if is_up(path.peer) && !path.is_stale() {
                    let from = Teller { peer: path.peer, identifier: table.identifier(id) };
                    let serial = sets.serial(path.attributes);
                    now.insert(id, ToldAs { from, attributes: path.attributes, serial });
                }
            }
            let one = |told: &ToldAs, attributes| {
                let Teller { peer, identifier } = told.from;
                News { peer, attributes, key, identifier }
            };
            for (id, told) in &before {
                if now.get(id).is_none_or(|new| new.from != told.from) {
                    news.push(one(told, None));
                }
                view.told.remove(&(prefix, *id));
            }
            for (id, told) in now {
                if before.get(&id) != Some(&told) {
                    news.push(one(&told, Some(told.attributes)));
                }
                view.told.insert((prefix, id), told);
            }
        }
        news.sort_unstable();
        Some(news)
    }
}
