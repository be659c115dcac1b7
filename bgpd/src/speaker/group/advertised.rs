//! What a member of an update group has been told and not been told otherwise since.

use crate::rib::{Bitmap, PathId, PrefixId};
use std::collections::BTreeMap;

/// In place of what a path was told as: nobody knows any more.
const FORGOTTEN: u32 = u32::MAX;

/// What a peer has been told.
#[derive(Debug)]
pub(in crate::speaker) enum Advertised {
    /// One path each of these prefixes.
    Best(Bitmap),
    /// These paths (RFC 7911), and as which number of the group's exported attributes.
    Paths(BTreeMap<(PrefixId, PathId), u32>),
}

/// What a peer is told of a path that it has not been told before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// It is there, or has other attributes.
    Announced(u32),
    /// It is gone.
    Withdrawn,
}

impl Advertised {
    /// Nothing, to a peer that takes path identifiers or does not.
    pub(super) fn none(identified: bool) -> Self {
        if identified { Self::Paths(BTreeMap::new()) } else { Self::Best(Bitmap::default()) }
    }

    /// How many paths.
    pub(super) fn count(&self) -> u32 {
        match self {
            Self::Best(prefixes) => prefixes.count(),
            Self::Paths(paths) => paths.len() as u32,
        }
    }

    /// The prefixes, ascending.
    pub(in crate::speaker) fn prefixes(&self) -> Box<dyn Iterator<Item = PrefixId> + '_> {
        match self {
            Self::Best(prefixes) => Box::new(prefixes.iter()),
            Self::Paths(paths) => {
                let mut last = None;
                let first = move |prefix: &PrefixId| last.replace(*prefix) != Some(*prefix);
                Box::new(paths.keys().map(|(prefix, _)| *prefix).filter(first))
            }
        }
    }

    /// Whether any path of a prefix is known.
    pub(super) fn knows(&self, prefix: PrefixId) -> bool {
        match self {
            Self::Best(prefixes) => prefixes.has(prefix),
            Self::Paths(paths) => paths.range((prefix, 0)..=(prefix, PathId::MAX)).next().is_some(),
        }
    }

    /// Takes note that the best path of a prefix is told.
    pub(super) fn set(&mut self, prefix: PrefixId) {
        if let Self::Best(prefixes) = self {
            prefixes.set(prefix);
        }
    }

    /// Takes note that a prefix is withdrawn; false if it was not known.
    pub(super) fn clear(&mut self, prefix: PrefixId) -> bool {
        match self {
            Self::Best(prefixes) => prefixes.clear(prefix),
            Self::Paths(_) => false,
        }
    }

    /// Whether a path of a prefix is known.
    pub(super) fn has(&self, prefix: PrefixId) -> bool {
        matches!(self, Self::Best(prefixes) if prefixes.has(prefix))
    }

    /// Whether the peer knows this path.
    pub(super) fn has_path(&self, prefix: PrefixId, path: PathId) -> bool {
        matches!(self, Self::Paths(paths) if paths.contains_key(&(prefix, path)))
    }

    /// Numbers of what paths were told as mean nothing any more: all are to be told again.
    pub(super) fn forget_content(&mut self) {
        if let Self::Paths(paths) = self {
            paths.values_mut().for_each(|told| *told = FORGOTTEN);
        }
    }

    /// From now on these paths of a prefix, with what they are told as, are what the peer knows of it. Hands over what is news.
    pub(super) fn become_paths(
        &mut self,
        prefix: PrefixId,
        now: impl Iterator<Item = (PathId, u32)> + Clone,
        mut news: impl FnMut(PathId, News),
    ) {
        let Self::Paths(paths) = self else { return };
        let known = paths.range((prefix, 0)..=(prefix, PathId::MAX)).map(|((_, path), _)| *path);
        let gone: Vec<PathId> = known.filter(|path| now.clone().all(|(other, _)| other != *path)).collect();
        for path in gone {
            paths.remove(&(prefix, path));
            news(path, News::Withdrawn);
        }
        for (path, told) in now {
            if paths.insert((prefix, path), told) != Some(told) {
                news(path, News::Announced(told));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn become_these(advertised: &mut Advertised, prefix: PrefixId, now: &[(PathId, u32)]) -> Vec<(PathId, News)> {
        let mut all = Vec::new();
        advertised.become_paths(prefix, now.iter().copied(), |path, news| all.push((path, news)));
        all
    }

    #[test]
    fn only_what_changed_is_news_until_its_content_is_forgotten() {
        use News::{Announced, Withdrawn};
        let mut told = Advertised::none(true);
        assert_eq!(become_these(&mut told, 1, &[(7, 0), (8, 0)]), [(7, Announced(0)), (8, Announced(0))]);
        assert_eq!(become_these(&mut told, 2, &[(9, 4)]), [(9, Announced(4))]);
        assert_eq!(become_these(&mut told, 1, &[(8, 0), (7, 1)]), [(7, Announced(1))]);
        assert_eq!(become_these(&mut told, 1, &[(8, 0)]), [(7, Withdrawn)]);
        assert_eq!((told.count(), told.prefixes().collect::<Vec<_>>()), (2, vec![1, 2]));
        told.forget_content();
        assert_eq!(become_these(&mut told, 1, &[(8, 0)]), [(8, Announced(0))]);
        assert_eq!(become_these(&mut told, 1, &[]), [(8, Withdrawn)]);
        assert_eq!(become_these(&mut told, 1, &[]), []);
    }
}
