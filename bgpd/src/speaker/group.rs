//! An update group: peers that are told the same. In: prefixes that changed. Out: messages, built once for all members
//! and only when their sockets can take them.
//!
//! Members share one dirty list. One that cannot keep up leaves it for a list of its own, so that it neither holds the
//! others back nor makes anything grow beyond one number per prefix; it is back when its list is empty. A new member
//! starts the same way, with all prefixes in its list.

mod advertised;
mod paths;

pub(super) use advertised::Advertised;

use super::event::{Output, SessionId};
use super::export::{Exporter, Message, Provenance, Silent, Told};
use super::restart::Held;
use crate::rib::{AttrId, Bitmap, DirtyList, Key, Path, PathId, PeerId, PeerRank, PrefixId, Table};
use crate::wire::RefreshKind;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Octets handed to the I/O thread for one peer and not yet written: beyond this nothing more is built for it.
const WINDOW: usize = 256 << 10;
/// Prefixes per round: enough to fill messages, few enough not to overshoot the window by much.
const ROUND: usize = 8192;
/// No exclusion.
const NOBODY: u32 = u32::MAX;

/// One peer of a group.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) peer: PeerId,
    address: IpAddr,
    session: SessionId,
    /// What it has been told and not been told otherwise since.
    advertised: Advertised,
    /// Its own list while it does not share the group's.
    behind: Option<DirtyList>,
    /// What follows when that list is empty.
    then: Option<Closing>,
}

/// The end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    /// RFC 4724 section 2.
    EndOfRib,
    /// RFC 7313 section 4.
    EndOfRefresh,
}

/// What a flush needs to know and to change outside of the group.
pub(super) struct Surroundings<'a, K> {
    pub(super) table: &'a Table<K>,
    pub(super) attributes: &'a crate::rib::Attributes<super::path_attributes::PathAttributes>,
    /// By peer number.
    pub(super) provenance: &'a [Provenance],
    /// By peer number.
    pub(super) ranks: &'a [PeerRank],
    /// Octets on the way, by peer number.
    pub(super) outstanding: &'a mut [usize],
    /// Whose End-of-RIB has to wait.
    pub(super) held: Held,
    pub(super) out: &'a mut Vec<Output>,
}

/// Peers that are told the same, for one family.
pub(super) struct Group<K> {
    exporter: Exporter,
    members: Vec<Member>,
    /// Where each of them stands there.
    places: BTreeMap<PeerId, usize>,
    dirty: DirtyList,
    ids: Vec<PrefixId>,
    items: Vec<Item>,
    /// Prefixes that nobody is told of since their attributes leave no room in a message.
    too_long: Bitmap,
    key: std::marker::PhantomData<K>,
}

/// An announcement: who does not get it, which exported attributes, which prefix. Sorted in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Item {
    excluded: u32,
    exported: u32,
    prefix: PrefixId,
}

/// What a path with these attributes from this peer is told as.
#[derive(Clone, Copy)]
struct Translated {
    attributes: AttrId,
    peer: PeerId,
    told: Told,
    excluded: u32,
}

impl<K: Key> Group<K> {
    pub(super) fn new(exporter: Exporter) -> Self {
        let (members, dirty, too_long) = (Vec::new(), DirtyList::default(), Bitmap::default());
        let (places, ids, items) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { exporter, members, places, dirty, ids, items, too_long, key: std::marker::PhantomData }
    }

    pub(super) fn exporter(&self) -> &Exporter {
        &self.exporter
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// A peer joins; `all` is what it has to hear of, `advertised` what it has been told so far.
    pub(super) fn join(
        &mut self,
        peer: PeerId,
        address: IpAddr,
        session: SessionId,
        all: DirtyList,
        advertised: Option<Advertised>,
    ) {
        let then = advertised.is_none().then_some(Closing::EndOfRib);
        let mut advertised = advertised.unwrap_or_else(|| Advertised::none(self.tells_paths()));
        // As what it was told by another group means nothing here.
        advertised.forget_content();
        self.places.insert(peer, self.members.len());
        self.members.push(Member { peer, address, session, advertised, behind: Some(all), then });
    }

    /// A peer leaves; returns what it has been told.
    pub(super) fn leave(&mut self, peer: PeerId) -> Option<Advertised> {
        let at = self.places.remove(&peer)?;
        let gone = self.members.swap_remove(at);
        if let Some(moved) = self.members.get(at) {
            self.places.insert(moved.peer, at);
        }
        Some(gone.advertised)
    }

    /// Prefixes that are not told since their attributes leave no room in a message.
    pub(super) fn too_long(&self) -> impl Iterator<Item = PrefixId> {
        self.has_too_long().then(|| self.too_long.iter()).into_iter().flatten()
    }

    /// Whether there are such.
    pub(super) fn has_too_long(&self) -> bool {
        self.too_long.count() > 0
    }

    fn member(&self, peer: PeerId) -> Option<&Member> {
        self.members.get(*self.places.get(&peer)?)
    }

    /// The address of a member.
    pub(super) fn address_of(&self, peer: PeerId) -> Option<IpAddr> {
        self.member(peer).map(|member| member.address)
    }

    /// Takes note whether something of a prefix is too long.
    fn note_length(&mut self, prefix: PrefixId, is_too_long: bool) {
        if is_too_long {
            self.too_long.set(prefix);
        } else if self.too_long.count() > 0 {
            self.too_long.clear(prefix);
        }
    }

    /// Whether the peers are told several paths to a prefix.
    pub(super) fn tells_paths(&self) -> bool {
        self.exporter.policy().paths > 0
    }

    /// How many paths `peer` has been told, if it is a member.
    pub(super) fn advertised(&self, peer: PeerId) -> Option<u32> {
        self.member(peer).map(|member| member.advertised.count())
    }

    /// The prefixes that `peer` has been told, each with the path that it knows, of several with all.
    pub(super) fn told(&self, peer: PeerId, table: &Table<K>) -> Vec<(PrefixId, PathId)> {
        let Some(member) = self.member(peer) else { return Vec::new() };
        let paths = |prefix| {
            let known = move |(path, of): &(PathId, &Path)| match member.advertised {
                Advertised::Best(_) => of.is_best(),
                Advertised::Paths(_) => member.advertised.has_path(prefix, *path),
            };
            table.numbered_paths(prefix).filter(known).map(move |(path, _)| (prefix, path))
        };
        member.advertised.prefixes().flat_map(paths).collect()
    }

    /// The peer wants to hear everything again (RFC 2918); `demarcated` as RFC 7313 has it.
    pub(super) fn again(
        &mut self,
        peer: PeerId,
        mut all: DirtyList,
        demarcated: bool,
        around: &mut Surroundings<'_, K>,
    ) {
        let Some(index) = self.places.get(&peer).copied() else { return };
        let member = &mut self.members[index];
        // What it has been told and what is gone meanwhile may stand in a list that this one replaces.
        member.advertised.prefixes().for_each(|prefix| all.push(prefix));
        member.advertised.forget_content();
        member.behind = Some(all);
        // One that is still being told for the first time hears its End-of-RIB as promised.
        if demarcated && member.then.is_none() {
            member.then = Some(Closing::EndOfRefresh);
            let mut bytes = Vec::new();
            self.exporter.write(Message::Refresh::<K>(RefreshKind::Begin), &mut bytes);
            self.send(&[index], NOBODY, bytes, around);
        }
    }

    /// The best path of a prefix is another one, or where the peers are told several, one of its paths.
    pub(super) fn changed(&mut self, prefix: PrefixId) {
        let mut shared = false;
        for member in &mut self.members {
            match &mut member.behind {
                Some(behind) => behind.push(prefix),
                None => shared = true,
            }
        }
        if shared {
            self.dirty.push(prefix);
        }
    }

    /// Whether every member has been told everything.
    pub(super) fn is_settled(&self) -> bool {
        self.dirty.is_empty() && self.members.iter().all(|member| member.behind.is_none())
    }

    /// Whether a member has been told of a prefix, and not that it is gone.
    pub(super) fn knows(&self, prefix: PrefixId) -> bool {
        self.members.iter().any(|member| member.advertised.knows(prefix))
    }

    /// Nobody is to be told of a prefix: it came and went before anybody was.
    pub(super) fn leave_out(&mut self, prefix: PrefixId) {
        self.dirty.remove(prefix);
        self.too_long.clear(prefix);
        self.members.iter_mut().filter_map(|member| member.behind.as_mut()).for_each(|behind| behind.remove(prefix));
    }

    /// Builds what the members' windows have room for.
    pub(super) fn flush(&mut self, around: &mut Surroundings<'_, K>) {
        if self.exporter.trim(around.attributes.len()) {
            self.members.iter_mut().for_each(|member| member.advertised.forget_content());
        }
        self.flush_shared(around);
        for index in 0..self.members.len() {
            self.flush_behind(index, around);
        }
    }

    fn flush_shared(&mut self, around: &mut Surroundings<'_, K>) {
        while !self.dirty.is_empty() {
            let shares = |index: &usize| self.members[*index].behind.is_none();
            let sharing: Vec<usize> = (0..self.members.len()).filter(shares).collect();
            let octets = |index: usize| around.outstanding[usize::from(self.members[index].peer.0)];
            let (ready, late): (Vec<usize>, Vec<usize>) = sharing.iter().partition(|index| octets(**index) < WINDOW);
            if !late.is_empty() {
                // The others have nothing left to do: whoever still has a full window is left behind.
                if !ready.iter().any(|index| octets(*index) == 0) {
                    return;
                }
                for index in late {
                    self.members[index].behind = Some(self.dirty.clone());
                }
            }
            self.ids.clear();
            self.dirty.take(ROUND, &mut self.ids);
            self.tell(&ready, around);
        }
    }

    fn flush_behind(&mut self, index: usize, around: &mut Surroundings<'_, K>) {
        let peer = usize::from(self.members[index].peer.0);
        while let Some(behind) = &mut self.members[index].behind {
            if behind.is_empty() {
                self.members[index].behind = None;
                break;
            }
            if around.outstanding[peer] >= WINDOW {
                return;
            }
            self.ids.clear();
            behind.take(ROUND, &mut self.ids);
            self.tell(&[index], around);
        }
        let member = &mut self.members[index];
        let message = match member.then {
            None => return,
            Some(Closing::EndOfRib) if around.held.holds(member.peer) => return,
            Some(Closing::EndOfRib) => Message::EndOfRib::<K>,
            Some(Closing::EndOfRefresh) => Message::Refresh(RefreshKind::End),
        };
        member.then = None;
        let mut bytes = Vec::new();
        self.exporter.write(message, &mut bytes);
        self.send(&[index], NOBODY, bytes, around);
    }

    /// Tells `who` the present state of the prefixes in `self.ids`.
    fn tell(&mut self, who: &[usize], around: &mut Surroundings<'_, K>) {
        if self.tells_paths() {
            return self.tell_paths(who, around);
        }
        let mut gone = self.collect(who, around);
        let mut items = std::mem::take(&mut self.items);
        items.sort_unstable();
        let mut single: Vec<(usize, PrefixId)> = Vec::new();
        for item in &items {
            for index in who {
                let advertised = &mut self.members[*index].advertised;
                if *index as u32 != item.excluded {
                    advertised.set(item.prefix);
                } else if advertised.clear(item.prefix) {
                    single.push((*index, item.prefix));
                }
            }
        }
        gone.retain(|prefix| {
            let told = |index: &&usize| self.members[**index].advertised.has(*prefix);
            let count = who.iter().filter(told).count();
            if count < who.len() {
                single.extend(who.iter().filter(told).map(|index| (*index, *prefix)));
            }
            for index in who {
                self.members[*index].advertised.clear(*prefix);
            }
            count == who.len()
        });
        self.withdraw(who, &gone, around);
        single.sort_unstable();
        for of_one in single.chunk_by(|one, other| one.0 == other.0) {
            let prefixes: Vec<_> = of_one.iter().map(|(_, prefix)| *prefix).collect();
            self.withdraw(&[of_one[0].0], &prefixes, around);
        }
        for alike in items.chunk_by(|one, other| one.excluded == other.excluded) {
            let mut bytes = Vec::with_capacity(alike.len() * 5);
            for packed in alike.chunk_by(|one, other| one.exported == other.exported) {
                let mut keys = packed.iter().map(|item| (0, around.table.key(item.prefix)));
                self.exporter.write(Message::Announce(packed[0].exported, &mut keys), &mut bytes);
            }
            self.send(who, alike[0].excluded, bytes, around);
        }
        items.clear();
        self.items = items;
    }

    /// Fills `self.items` with what is announced; returns what is not, or not any more.
    fn collect(&mut self, who: &[usize], around: &Surroundings<'_, K>) -> Vec<PrefixId> {
        let (mut gone, ids) = (Vec::new(), std::mem::take(&mut self.ids));
        // Neighbours in the list mostly come from one UPDATE.
        let mut last: Option<Translated> = None;
        for prefix in &ids {
            let told = around.table.best(*prefix).map(|path| {
                let translated = self.translate(path, who, around, &mut last);
                let exported = match translated.told {
                    Told::Whole(exported) => exported,
                    Told::ByPrefix(number) => {
                        let of = (path.attributes, around.provenance[usize::from(path.peer.0)]);
                        let net = around.table.key(*prefix).net();
                        self.exporter.export_prefix(number, net, of, around.attributes)
                    }
                };
                exported.map(|exported| (exported, translated.excluded))
            });
            self.note_length(*prefix, told.is_some_and(|told| told == Err(Silent::TooLong)));
            let Some(Ok((exported, mut excluded))) = told else {
                gone.push(*prefix);
                continue;
            };
            if excluded == NOBODY {
                excluded = self.owner_of_next_hop(exported, who).map_or(NOBODY, |index| index as u32);
            }
            self.items.push(Item { excluded, exported, prefix: *prefix });
        }
        self.ids = ids;
        gone
    }

    /// What a path is told as; `last` is what was found before, mostly for the same attributes.
    fn translate(
        &mut self,
        path: &Path,
        who: &[usize],
        around: &Surroundings<'_, K>,
        last: &mut Option<Translated>,
    ) -> Translated {
        let known = last.filter(|last| (last.attributes, last.peer) == (path.attributes, path.peer));
        let translated = known.unwrap_or_else(|| {
            let provenance = around.provenance[usize::from(path.peer.0)];
            let told = self.exporter.export(path.attributes, provenance, around.attributes);
            let excluded = excluded(&self.members, who, path.peer);
            Translated { attributes: path.attributes, peer: path.peer, told, excluded }
        });
        *last = Some(translated);
        translated
    }

    /// RFC 4271 section 5.1.3: nobody is told its own address as next hop.
    fn owner_of_next_hop(&self, exported: u32, who: &[usize]) -> Option<usize> {
        let next_hop = Some(exported).filter(|exported| self.exporter.keeps_next_hop(*exported));
        let next_hop = next_hop.map(|exported| self.exporter.next_hop(exported))?;
        who.iter().find(|index| self.members[**index].address == next_hop).copied()
    }

    fn withdraw(&mut self, who: &[usize], prefixes: &[PrefixId], around: &mut Surroundings<'_, K>) {
        if prefixes.is_empty() {
            return;
        }
        let mut bytes = Vec::with_capacity(prefixes.len() * 5);
        let mut keys = prefixes.iter().map(|prefix| (0, around.table.key(*prefix)));
        self.exporter.write(Message::Withdraw(&mut keys), &mut bytes);
        self.send(who, NOBODY, bytes, around);
    }

    fn send(&self, who: &[usize], excluded: u32, bytes: Vec<u8>, around: &mut Surroundings<'_, K>) {
        if bytes.is_empty() {
            return;
        }
        let bytes = Bytes::from(bytes);
        for index in who.iter().filter(|index| **index as u32 != excluded) {
            let member = &self.members[*index];
            around.outstanding[usize::from(member.peer.0)] += bytes.len();
            around.out.push(Output::Transmit(member.peer, member.session, bytes.clone()));
        }
    }
}

/// The identifier under which peers are told a path (RFC 7911): stays for as long as it lives, and no two paths of a prefix have the same.
pub(super) fn identifier(path: PathId) -> u32 {
    path.wrapping_add(1)
}

/// Split horizon: the one of `who` that sent the path.
fn excluded(members: &[Member], who: &[usize], source: PeerId) -> u32 {
    let sender = who.iter().find(|index| members[**index].peer == source);
    sender.map_or(NOBODY, |index| *index as u32)
}
