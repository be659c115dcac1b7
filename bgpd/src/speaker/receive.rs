//! From UPDATE messages of one session to batches for the RIB: every attribute set once per batch, prefixes flat.

use super::event::{Batch, Op, SessionId, Then, WITHDRAW};
use super::path_attributes::{Link, PathAttributes};
use crate::rib::{Key, PeerId};
use crate::wire::{
    self, Family, HEADER_LEN, Negotiated, Outcome, PrefixIter, Prefixes, RefreshKind, RouteRefresh, Update,
};
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;
use std::sync::Arc;

/// Attribute sets that are remembered per session.
const REMEMBERED: usize = 512;
/// Prefixes after which a batch is full.
const FULL: usize = 16 << 10;

/// An attribute set, and its index in the batch with number `batch`.
#[derive(Debug)]
struct Slot {
    set: Arc<PathAttributes>,
    batch: u64,
    index: u32,
}

/// What one session has received and not handed over yet.
#[derive(Debug)]
pub struct Receiver {
    session: Negotiated,
    link: Link,
    batch: Batch,
    number: u64,
    slots: Vec<Slot>,
    /// By the octets of blocks without MP attributes: an UPDATE that repeats one need not be judged again.
    by_octets: HashMap<Box<[u8]>, u32, FxBuildHasher>,
    by_set: HashMap<Arc<PathAttributes>, u32, FxBuildHasher>,
}

impl Receiver {
    /// For a session that has just become Established, over `link`.
    #[must_use]
    pub fn new(peer: PeerId, id: SessionId, session: Negotiated, link: Link) -> Self {
        let batch = Batch { peer, session: id, ..Batch::default() };
        let (slots, by_octets, by_set) = (Vec::new(), HashMap::default(), HashMap::default());
        Self { session, link, batch, number: 1, slots, by_octets, by_set }
    }

    /// Takes in a whole UPDATE that [`Receiver::repeats`] did not; a sentence for the log if something in it had to be
    /// dropped.
    pub fn update(&mut self, message: &[u8], update: &Update<'_>) -> Option<String> {
        if let Some(family) = update.end_of_rib {
            self.batch.then.push(Then::EndOfRib(family));
            return None;
        }
        update.withdrawn().for_each(|prefixes| self.push(prefixes, WITHDRAW));
        let problem = match &update.outcome {
            Outcome::TreatAsWithdraw(fault) => Some(format!("{fault}; its prefixes count as withdrawn")),
            Outcome::Routes(block) => {
                let mut canonical = Vec::new();
                block.write_canonical(&mut canonical);
                let canonical: Box<[u8]> = canonical.into();
                for reach in update.announced() {
                    let set = PathAttributes::heard(canonical.clone(), reach.next_hop, self.link);
                    let slot = self.slot_of(set);
                    if is_classic(message, block.raw(), &reach.prefixes) {
                        self.by_octets.insert(block.raw().into(), slot);
                    }
                    let index = self.index(slot);
                    self.push(reach.prefixes, index);
                }
                None
            }
            Outcome::Nothing => None,
        };
        let discarded = (!update.discarded.is_empty()).then(|| {
            let kinds: Vec<String> = update.discarded.iter().map(|kind| kind.to_string()).collect();
            format!("attribute {} dropped as malformed", kinds.join(", "))
        });
        problem.or(discarded)
    }

    /// The peer asks to hear everything again, or says that it tells everything again; nothing if the family is none of ours.
    pub fn refresh(&mut self, message: &RouteRefresh) {
        let then = match message.kind {
            RefreshKind::Request => Then::Refresh,
            RefreshKind::Begin => Then::RefreshBegins,
            RefreshKind::End => Then::RefreshEnds,
        };
        self.batch.then.extend(message.family.family().map(then));
    }

    /// Whether the batch should be handed over before more is taken in.
    #[must_use]
    pub fn is_full(&self) -> bool {
        !self.batch.then.is_empty() || self.batch.v4.len() + self.batch.v6.len() >= FULL
    }

    /// Hands over what there is, if anything.
    pub fn take(&mut self) -> Option<Batch> {
        if self.batch.is_empty() {
            return None;
        }
        let next = Batch { peer: self.batch.peer, session: self.batch.session, ..Batch::default() };
        self.number += 1;
        Some(std::mem::replace(&mut self.batch, next))
    }

    /// Takes in an UPDATE if its attributes were judged before, so that nothing but IPv4 prefixes is new in it.
    pub fn repeats(&mut self, message: &[u8]) -> bool {
        let body = &message[HEADER_LEN..];
        let Some((&[0, 0, high, low], rest)) = body.split_first_chunk::<4>() else { return false };
        let Some((octets, nlri)) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low]))) else {
            return false;
        };
        if nlri.is_empty() {
            return false;
        }
        let Some(slot) = self.by_octets.get(octets).copied() else { return false };
        let identified = self.session.add_path_receive.contains(Family::Ipv4Unicast);
        let Some(prefixes) = PrefixIter::<wire::V4>::check(nlri, identified) else { return false };
        let attributes = self.index(slot);
        let Batch { v4, v4_identifiers, .. } = &mut self.batch;
        append(prefixes, attributes, v4, identified.then_some(v4_identifiers));
        true
    }

    fn slot_of(&mut self, set: PathAttributes) -> u32 {
        if let Some(slot) = self.by_set.get(&set) {
            return *slot;
        }
        if self.slots.len() >= REMEMBERED {
            self.slots.clear();
            self.by_octets.clear();
            self.by_set.clear();
        }
        let (set, slot) = (Arc::new(set), self.slots.len() as u32);
        self.by_set.insert(Arc::clone(&set), slot);
        self.slots.push(Slot { set, batch: 0, index: 0 });
        slot
    }

    /// Index of the set in the present batch.
    fn index(&mut self, slot: u32) -> u32 {
        let slot = &mut self.slots[slot as usize];
        if slot.batch != self.number {
            slot.batch = self.number;
            slot.index = self.batch.attributes.len() as u32;
            self.batch.attributes.push(Arc::clone(&slot.set));
        }
        slot.index
    }

    fn push(&mut self, prefixes: Prefixes<'_>, attributes: u32) {
        match prefixes {
            Prefixes::V4(keys) => {
                let identified = self.session.add_path_receive.contains(Family::Ipv4Unicast);
                let Batch { v4, v4_identifiers, .. } = &mut self.batch;
                append(keys, attributes, v4, identified.then_some(v4_identifiers));
            }
            Prefixes::V6(keys) => {
                let identified = self.session.add_path_receive.contains(Family::Ipv6Unicast);
                let Batch { v6, v6_identifiers, .. } = &mut self.batch;
                append(keys, attributes, v6, identified.then_some(v6_identifiers));
            }
        }
    }
}

/// Adds prefixes, and where there are any their identifiers.
fn append<K: Key>(
    mut keys: PrefixIter<'_, K::Wire>,
    attributes: u32,
    ops: &mut Vec<Op<K>>,
    identifiers: Option<&mut Vec<u32>>,
) {
    let op = |key| Op { key: K::from_wire(key), attributes };
    match identifiers {
        None => ops.extend(keys.map(op)),
        Some(identifiers) => {
            while let Some((identifier, key)) = keys.next_path() {
                ops.push(op(key));
                identifiers.push(identifier);
            }
        }
    }
}

/// Whether the UPDATE announces IPv4 prefixes in the NLRI field and holds no MP attribute: then the octets of its
/// attributes alone say what its prefixes have.
fn is_classic(message: &[u8], octets: &[u8], prefixes: &Prefixes<'_>) -> bool {
    let Prefixes::V4(keys) = prefixes else { return false };
    // Header, two lengths, attributes, and then the prefixes to the end: nothing is withdrawn, and they are the NLRI.
    HEADER_LEN + 4 + octets.len() + keys.bytes().len() == message.len()
        && message.ends_with(keys.bytes())
        && !has_mp(octets)
}

fn has_mp(mut octets: &[u8]) -> bool {
    while let [flags, kind, rest @ ..] = octets {
        if matches!(kind, 14 | 15) {
            return true;
        }
        let skip = match (flags & 0x10 != 0, rest) {
            (true, [high, low, ..]) => 2 + usize::from(u16::from_be_bytes([*high, *low])),
            (false, [length, ..]) => 1 + usize::from(*length),
            _ => return true,
        };
        let Some(next) = rest.get(skip..) else { return true };
        octets = next;
    }
    false
}
