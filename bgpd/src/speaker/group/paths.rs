//! Update groups whose peers are told several paths of a prefix (RFC 7911). What a member has been told is kept path by path, so that
//! of a prefix that changes only those paths are told that did.

use super::advertised::News;
use super::{Group, Surroundings, Translated, identifier};
use crate::rib::{Key, PathId, PrefixId};
use crate::speaker::export::{Message, Silent, Told};
use std::collections::BTreeMap;

/// What some members are told.
#[derive(Default)]
struct Lists {
    withdrawn: Vec<(PrefixId, PathId)>,
    /// What they are told as, first, so that equal ones come together.
    announced: Vec<(u32, PrefixId, PathId)>,
}

/// A path that is to be known to the members, but for some.
struct Candidate {
    path: PathId,
    exported: u32,
    /// Who of them sent it, or has its next hop.
    excluded: [Option<usize>; 2],
}

impl Candidate {
    fn is_for(&self, index: usize) -> bool {
        !self.excluded.contains(&Some(index))
    }
}

impl<K: Key> Group<K> {
    /// Tells `who` the present state of the prefixes in `self.ids`, as far as they do not know it.
    pub(super) fn tell_paths(&mut self, who: &[usize], around: &mut Surroundings<'_, K>) {
        // By who of `who` is told: mostly everybody, or everybody but the sender.
        let mut lists: BTreeMap<Vec<usize>, Lists> = BTreeMap::new();
        let ids = std::mem::take(&mut self.ids);
        let mut last = None;
        for prefix in &ids {
            let candidates = self.candidates(*prefix, who, around, &mut last);
            let mut news: BTreeMap<PathId, Vec<(usize, News)>> = BTreeMap::new();
            for index in who {
                let now = candidates.iter().filter(|one| one.is_for(*index)).map(|one| (one.path, one.exported));
                let note = |path, what| news.entry(path).or_default().push((*index, what));
                self.members[*index].advertised.become_paths(*prefix, now, note);
            }
            for (path, mut told) in news {
                // Whether a path is there is the same for all, unless one of them has sent it.
                told.sort_by_key(|(_, what)| *what == News::Withdrawn);
                for alike in told.chunk_by(|one, other| one.1 == other.1) {
                    let to: Vec<usize> = alike.iter().map(|(index, _)| *index).collect();
                    let lists = lists.entry(to).or_default();
                    match alike[0].1 {
                        News::Announced(exported) => lists.announced.push((exported, *prefix, path)),
                        News::Withdrawn => lists.withdrawn.push((*prefix, path)),
                    }
                }
            }
        }
        self.ids = ids;
        for (to, Lists { withdrawn, mut announced }) in lists {
            announced.sort_unstable();
            let mut bytes = Vec::with_capacity((withdrawn.len() + announced.len()) * 9);
            let key = |(prefix, path): (PrefixId, PathId)| (identifier(path), around.table.key(prefix));
            let mut keys = withdrawn.into_iter().map(key);
            self.exporter.write(Message::Withdraw(&mut keys), &mut bytes);
            for packed in announced.chunk_by(|one, other| one.0 == other.0) {
                let mut keys = packed.iter().map(|(_, prefix, path)| key((*prefix, *path)));
                self.exporter.write(Message::Announce(packed[0].0, &mut keys), &mut bytes);
            }
            self.send(&to, super::NOBODY, bytes, around);
        }
    }

    /// The paths of a prefix that the members are to know: so many of the best ones as the peers are told.
    fn candidates(
        &mut self,
        prefix: PrefixId,
        who: &[usize],
        around: &Surroundings<'_, K>,
        last: &mut Option<Translated>,
    ) -> Vec<Candidate> {
        let most = usize::from(self.exporter.policy().paths);
        let (mut candidates, mut is_too_long) = (Vec::new(), false);
        for number in around.table.ranked(prefix, around.attributes, around.ranks) {
            let path = around.table.path(number);
            let translated = self.translate(path, who, around, last);
            let exported = match translated.told {
                Told::Whole(exported) => exported,
                Told::ByPrefix(rules) => {
                    let of = (path.attributes, around.provenance[usize::from(path.peer.0)]);
                    self.exporter.export_prefix(rules, around.table.key(prefix).net(), of, around.attributes)
                }
            };
            let exported = match exported {
                Ok(exported) => exported,
                Err(why) => {
                    is_too_long |= why == Silent::TooLong;
                    continue;
                }
            };
            let sender = (translated.excluded != super::NOBODY).then_some(translated.excluded as usize);
            let excluded = [sender, self.owner_of_next_hop(exported, who)];
            candidates.push(Candidate { path: number, exported, excluded });
            if candidates.len() == most {
                break;
            }
        }
        self.note_length(prefix, is_too_long);
        candidates
    }
}
