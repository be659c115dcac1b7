//! UPDATEs on their way out: one attribute set and many prefixes, in as few messages as their length allows, written
//! into the caller's buffer.

use super::block::{Walk, flag, kind};
use super::frame::{HEADER_LEN, MAX_EXTENDED, MessageType, begin, finish};
use super::{AfiSafi, Family, NextHop, PrefixKey};
use std::marker::PhantomData;

/// The attributes of a route leave no room for a prefix in a message to this peer, so it cannot be sent to it; whoever
/// sent it before has to withdraw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("attributes of {attributes} octets leave no room for a prefix in a message of {max}")]
pub struct TooLong {
    /// Octets of the attribute block.
    pub attributes: usize,
    /// Octets that a message may have.
    pub max: usize,
}

/// Writes UPDATEs of one family. Each prefix pushed goes into the current message, or begins another when that is full.
///
/// ```
/// # use twill_bgpd::wire::{Attributes, Edits, NextHop, UpdateBuilder, V4};
/// let mut block = Vec::new();
/// Attributes::default().export(&Edits::to_ebgp(65001), true, &mut block);
/// let mut out = Vec::new();
/// let next_hop = NextHop::V4([192, 0, 2, 1].into());
/// let mut builder = UpdateBuilder::<V4>::announce(&mut out, 4096, &block, next_hop).unwrap();
/// builder.push((0x0a2a_0000, 26));
/// assert_eq!(builder.finish(), 1);
/// ```
#[derive(Debug)]
pub struct UpdateBuilder<'a, K> {
    out: &'a mut Vec<u8>,
    content: Content<'a>,
    max: usize,
    /// Whether each prefix has its path identifier before it (RFC 7911 section 3).
    identified: bool,
    /// Octets that follow the prefixes.
    tail: usize,
    /// Where the current message starts, and where in it the length lies that counts the prefixes.
    current: Option<(usize, usize)>,
    messages: usize,
    key: PhantomData<K>,
}

#[derive(Clone, Copy, Debug)]
enum Content<'a> {
    /// NEXT_HOP between the two parts of the block, prefixes in the NLRI field.
    Nlri { block: &'a [u8], next_hop: [u8; 4] },
    /// Prefixes in MP_REACH_NLRI, which comes first (RFC 7606 section 5.1).
    MpReach { block: &'a [u8], next_hop: NextHop },
    /// Prefixes in the Withdrawn Routes field.
    Withdrawn,
    /// Prefixes in MP_UNREACH_NLRI.
    MpUnreach,
}

impl<'a, K: PrefixKey> UpdateBuilder<'a, K> {
    /// Announces prefixes with an attribute block from [`super::Attributes::export`]. `max` is
    /// [`super::Negotiated::max_message`]. IPv4 prefixes with an IPv4 next hop take the classic fields.
    ///
    /// # Errors
    /// [`TooLong`] if not even one prefix fits beside the attributes.
    pub fn announce(out: &'a mut Vec<u8>, max: usize, block: &'a [u8], next_hop: NextHop) -> Result<Self, TooLong> {
        Self::announcement(out, max, block, next_hop, false)
    }

    /// [`UpdateBuilder::announce`] to a peer that takes path identifiers of this family (RFC 7911).
    ///
    /// # Errors
    /// [`TooLong`] if not even one prefix fits beside the attributes.
    pub fn announce_paths(
        out: &'a mut Vec<u8>,
        max: usize,
        block: &'a [u8],
        next_hop: NextHop,
    ) -> Result<Self, TooLong> {
        Self::announcement(out, max, block, next_hop, true)
    }

    fn announcement(
        out: &'a mut Vec<u8>,
        max: usize,
        block: &'a [u8],
        next_hop: NextHop,
        identified: bool,
    ) -> Result<Self, TooLong> {
        let max = max.min(MAX_EXTENDED);
        let (content, fixed, tail) = match (K::FAMILY, next_hop) {
            (Family::Ipv4Unicast, NextHop::V4(address)) => {
                (Content::Nlri { block, next_hop: address.octets() }, 7 + block.len(), 0)
            }
            // Flags, type, length, AFI, SAFI, length of the next hop, next hop, reserved.
            _ => (Content::MpReach { block, next_hop }, 9 + 32 + block.len(), block.len()),
        };
        let longest = identifier_size(identified) + 1 + usize::from(K::MAX_LEN).div_ceil(8);
        if HEADER_LEN + 4 + fixed + longest > max {
            return Err(TooLong { attributes: block.len(), max });
        }
        Ok(UpdateBuilder { out, content, max, identified, tail, current: None, messages: 0, key: PhantomData })
    }

    /// Withdraws prefixes.
    #[must_use]
    pub fn withdraw(out: &'a mut Vec<u8>, max: usize) -> Self {
        Self::withdrawal(out, max, false)
    }

    /// [`UpdateBuilder::withdraw`] to a peer that takes path identifiers of this family (RFC 7911).
    #[must_use]
    pub fn withdraw_paths(out: &'a mut Vec<u8>, max: usize) -> Self {
        Self::withdrawal(out, max, true)
    }

    fn withdrawal(out: &'a mut Vec<u8>, max: usize, identified: bool) -> Self {
        let (content, tail) = match K::FAMILY {
            Family::Ipv4Unicast => (Content::Withdrawn, 2),
            Family::Ipv6Unicast => (Content::MpUnreach, 0),
        };
        let max = max.min(MAX_EXTENDED);
        UpdateBuilder { out, content, max, identified, tail, current: None, messages: 0, key: PhantomData }
    }

    /// Adds a prefix.
    #[inline]
    pub fn push(&mut self, prefix: K) {
        self.push_path(0, prefix);
    }

    /// Adds a prefix with its path identifier, which is left out where the peer takes none.
    #[inline]
    pub fn push_path(&mut self, identifier: u32, prefix: K) {
        let size = identifier_size(self.identified) + 1 + usize::from(prefix.length()).div_ceil(8);
        match self.current {
            Some((start, _)) if self.out.len() - start + size + self.tail <= self.max => {}
            _ => self.next_message(),
        }
        if self.identified {
            self.out.extend_from_slice(&identifier.to_be_bytes());
        }
        prefix.write(self.out);
    }

    /// Octets in the caller's buffer so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether no prefix was pushed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// Completes the last message; returns how many there are. Without a prefix there is none.
    pub fn finish(mut self) -> usize {
        self.end_message();
        self.messages
    }

    #[cold]
    fn next_message(&mut self) {
        self.end_message();
        let start = begin(self.out, MessageType::Update);
        let counted_at = match self.content {
            Content::Nlri { block, next_hop } => {
                // Withdrawn Routes Length, Total Path Attribute Length.
                self.out.extend_from_slice(&[0, 0]);
                self.out.extend_from_slice(&length_of(block.len() + 7));
                let (before, after) = block.split_at(end_of_as_path(block));
                self.out.extend_from_slice(before);
                self.out.extend_from_slice(&[flag::TRANSITIVE, kind::NEXT_HOP, 4]);
                self.out.extend_from_slice(&next_hop);
                self.out.extend_from_slice(after);
                0
            }
            Content::MpReach { next_hop, .. } => {
                self.out.extend_from_slice(&[0, 0, 0, 0]);
                let at = begin_mp::<K>(self.out, kind::MP_REACH_NLRI);
                put_next_hop(self.out, next_hop);
                self.out.push(0);
                at
            }
            Content::Withdrawn => {
                self.out.extend_from_slice(&[0, 0]);
                self.out.len() - 2
            }
            Content::MpUnreach => {
                self.out.extend_from_slice(&[0, 0, 0, 0]);
                begin_mp::<K>(self.out, kind::MP_UNREACH_NLRI)
            }
        };
        self.current = Some((start, counted_at));
        self.messages += 1;
    }

    fn end_message(&mut self) {
        let Some((start, counted_at)) = self.current.take() else { return };
        if !matches!(self.content, Content::Nlri { .. }) {
            let counted = length_of(self.out.len() - counted_at - 2);
            self.out[counted_at..counted_at + 2].copy_from_slice(&counted);
        }
        if let Content::MpReach { block, .. } = self.content {
            self.out.extend_from_slice(block);
        }
        match self.content {
            Content::Nlri { .. } => {}
            Content::Withdrawn => self.out.extend_from_slice(&[0, 0]),
            Content::MpReach { .. } | Content::MpUnreach => {
                let attributes = length_of(self.out.len() - start - HEADER_LEN - 4);
                self.out[start + HEADER_LEN + 2..start + HEADER_LEN + 4].copy_from_slice(&attributes);
            }
        }
        finish(self.out, start);
    }
}

const fn identifier_size(identified: bool) -> usize {
    if identified { 4 } else { 0 }
}

fn length_of(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

/// Where NEXT_HOP belongs in a block that is in ascending order.
fn end_of_as_path(block: &[u8]) -> usize {
    Walk::new(block)
        .map_while(Result::ok)
        .take_while(|attribute| attribute.kind < kind::NEXT_HOP)
        .map(|attribute| attribute.whole.len())
        .sum()
}

/// Appends the head of an MP attribute up to SAFI; returns where its length lies.
fn begin_mp<K: PrefixKey>(out: &mut Vec<u8>, kind: u8) -> usize {
    let family = AfiSafi::from(K::FAMILY);
    out.extend_from_slice(&[flag::OPTIONAL | flag::EXTENDED_LENGTH, kind, 0, 0]);
    let length_at = out.len() - 2;
    out.extend_from_slice(&family.afi.to_be_bytes());
    out.push(family.safi);
    length_at
}

fn put_next_hop(out: &mut Vec<u8>, next_hop: NextHop) {
    match next_hop {
        NextHop::V4(address) => {
            out.push(4);
            out.extend_from_slice(&address.octets());
        }
        NextHop::V6 { global, link_local } => {
            out.push(if link_local.is_some() { 32 } else { 16 });
            out.extend_from_slice(&global.octets());
            if let Some(link_local) = link_local {
                out.extend_from_slice(&link_local.octets());
            }
        }
    }
}

/// Appends the End-of-RIB of a family (RFC 4724 section 2).
pub fn encode_end_of_rib(family: Family, out: &mut Vec<u8>) {
    let start = begin(out, MessageType::Update);
    match family {
        Family::Ipv4Unicast => out.extend_from_slice(&[0, 0, 0, 0]),
        Family::Ipv6Unicast => {
            let AfiSafi { afi, safi } = family.into();
            let [high, low] = afi.to_be_bytes();
            out.extend_from_slice(&[0, 0, 0, 6, flag::OPTIONAL, kind::MP_UNREACH_NLRI, 3, high, low, safi]);
        }
    }
    finish(out, start);
}

/// Appends a KEEPALIVE.
pub fn encode_keepalive(out: &mut Vec<u8>) {
    let start = begin(out, MessageType::Keepalive);
    finish(out, start);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::wire::{Attributes, Edits, Framer, Negotiated, Outcome, Prefixes, Update, V4, V6};

    fn block() -> Vec<u8> {
        let mut block = Vec::new();
        Attributes::default().export(&Edits::to_ibgp(100), true, &mut block);
        block
    }

    fn hop6() -> NextHop {
        NextHop::V6 { global: "2001:db8::1".parse().unwrap(), link_local: Some("fe80::1".parse().unwrap()) }
    }

    /// Lengths of the messages, and all prefixes that they announce and withdraw.
    fn read(bytes: &[u8]) -> (Vec<usize>, Vec<V6>, Vec<V6>) {
        let (mut lengths, mut announced, mut withdrawn) = (Vec::new(), Vec::new(), Vec::new());
        let mut framer = Framer::new(bytes, MAX_EXTENDED);
        let wide = |prefixes: Prefixes<'_>| match prefixes {
            Prefixes::V4(list) => list.map(|(address, len)| (u128::from(address), len)).collect(),
            Prefixes::V6(list) => list.collect::<Vec<V6>>(),
        };
        while let Some(frame) = framer.next_frame().unwrap() {
            lengths.push(frame.bytes.len());
            let update = Update::decode(frame.bytes, &Negotiated::sample(false, true)).unwrap();
            assert!(!matches!(update.outcome, Outcome::TreatAsWithdraw(_)));
            update.announced().for_each(|reach| announced.extend(wide(reach.prefixes)));
            update.withdrawn().for_each(|prefixes| withdrawn.extend(wide(prefixes)));
        }
        assert_eq!(framer.consumed(), bytes.len());
        (lengths, announced, withdrawn)
    }

    fn v6(count: u128) -> Vec<V6> {
        (0..count).map(|i| (0xfd << 120 | i << 64, 64)).collect()
    }

    #[test]
    fn messages_are_full_and_hold_every_prefix_once() {
        let block = block();
        for max in [100, 101, 4096, 65535] {
            let mut out = Vec::new();
            let mut builder = UpdateBuilder::<V6>::announce(&mut out, max, &block, hop6()).unwrap();
            v6(9000).into_iter().for_each(|prefix| builder.push(prefix));
            let messages = builder.finish();
            let (lengths, announced, _) = read(&out);
            assert_eq!((lengths.len(), announced), (messages, v6(9000)));
            assert!(lengths[..messages - 1].iter().all(|length| *length <= max && *length + 9 > max), "{max}");
        }
    }

    #[test]
    fn withdrawals_of_both_families_are_split_too() {
        let mut out = Vec::new();
        let mut builder = UpdateBuilder::<V4>::withdraw(&mut out, 4096);
        (0..5000_u32).for_each(|i| builder.push((i << 12, 20)));
        assert_eq!(builder.finish(), 5);
        let (lengths, _, withdrawn) = read(&out);
        assert_eq!((withdrawn.len(), lengths[0]), (5000, 23 + 1018 * 4));
        out.clear();
        let mut builder = UpdateBuilder::<V6>::withdraw(&mut out, 4096);
        v6(1000).into_iter().for_each(|prefix| builder.push(prefix));
        builder.finish();
        assert_eq!(read(&out).2, v6(1000));
    }

    /// Identifiers and prefixes that are announced and withdrawn in a session that has identifiers, and the lengths of the messages.
    fn read_paths(bytes: &[u8]) -> (Vec<usize>, Vec<(u32, V6)>) {
        let session = Negotiated { add_path_receive: crate::wire::Families::ALL, ..Negotiated::sample(false, true) };
        let (mut lengths, mut paths) = (Vec::new(), Vec::new());
        let mut framer = Framer::new(bytes, MAX_EXTENDED);
        while let Some(frame) = framer.next_frame().unwrap() {
            lengths.push(frame.bytes.len());
            let update = Update::decode(frame.bytes, &session).unwrap();
            let announced = update.announced().map(|reach| reach.prefixes);
            for prefixes in update.withdrawn().chain(announced) {
                match prefixes {
                    Prefixes::V4(mut list) => {
                        let wide = |(id, (address, len)): (u32, V4)| (id, (u128::from(address), len));
                        paths.extend(std::iter::from_fn(|| list.next_path()).map(wide));
                    }
                    Prefixes::V6(mut list) => paths.extend(std::iter::from_fn(|| list.next_path())),
                }
            }
        }
        (lengths, paths)
    }

    #[test]
    fn identifiers_stand_before_prefixes_in_all_four_places_and_count_in_the_length() {
        let (block, hop4) = (block(), NextHop::V4([192, 0, 2, 1].into()));
        let (mut four, mut six) = (Vec::new(), Vec::new());
        for id in 0..3000_u32 {
            four.push((id << 16 | 7, (u128::from(id << 12), 20_u8)));
            six.push((id, (0xfd << 120 | u128::from(id) << 64, 64_u8)));
        }
        for announces in [true, false] {
            let (mut out4, mut out6) = (Vec::new(), Vec::new());
            let mut builder = match announces {
                true => UpdateBuilder::<V4>::announce_paths(&mut out4, 4096, &block, hop4).unwrap(),
                false => UpdateBuilder::<V4>::withdraw_paths(&mut out4, 4096),
            };
            four.iter().for_each(|(id, (address, len))| builder.push_path(*id, (*address as u32, *len)));
            builder.finish();
            let mut builder = match announces {
                true => UpdateBuilder::<V6>::announce_paths(&mut out6, 4096, &block, hop6()).unwrap(),
                false => UpdateBuilder::<V6>::withdraw_paths(&mut out6, 4096),
            };
            six.iter().for_each(|(id, prefix)| builder.push_path(*id, *prefix));
            builder.finish();
            for (out, paths, size) in [(out4, &four, 8), (out6, &six, 13)] {
                let (lengths, read) = read_paths(&out);
                assert_eq!(&read, paths);
                assert!(lengths[..lengths.len() - 1].iter().all(|length| *length <= 4096 && *length + size > 4096));
            }
        }
        let long = vec![0; 4096 - 23 - 7 - 5];
        assert!(UpdateBuilder::<V4>::announce(&mut Vec::new(), 4096, &long, hop4).is_ok());
        assert!(UpdateBuilder::<V4>::announce_paths(&mut Vec::new(), 4096, &long, hop4).is_err());
    }

    #[test]
    fn next_hop_stands_in_its_place() {
        let (block, mut out) = (block(), Vec::new());
        let mut builder =
            UpdateBuilder::<V4>::announce(&mut out, 4096, &block, NextHop::V4([192, 0, 2, 1].into())).unwrap();
        builder.push((0x0a00_0000, 8));
        builder.finish();
        let attributes =
            [&[0x40, 1, 1, 0, 0x40, 2, 0][..], &[0x40, 3, 4, 192, 0, 2, 1], &[0x40, 5, 4, 0, 0, 0, 100]].concat();
        assert_eq!(out[19..], [&[0, 0, 0, 21][..], &attributes, &[8, 10]].concat());
    }

    #[test]
    fn attributes_that_leave_no_room_are_refused_before_anything_is_written() {
        let block = vec![0; 4096 - 23 - 7 - 4];
        let mut out = Vec::new();
        let hop = NextHop::V4([192, 0, 2, 1].into());
        let error = UpdateBuilder::<V4>::announce(&mut out, 4096, &block, hop).unwrap_err();
        assert_eq!(error, TooLong { attributes: block.len(), max: 4096 });
        assert!(UpdateBuilder::<V4>::announce(&mut out, 4096, &block[1..], hop).is_ok());
        assert!(UpdateBuilder::<V6>::announce(&mut out, 4096, &block[..4000], hop6()).is_ok());
        assert!(UpdateBuilder::<V6>::announce(&mut out, 4096, &block[..4020], hop6()).is_err());
        assert!(out.is_empty());
    }

    #[test]
    fn nothing_pushed_is_nothing_written() {
        let (block, mut out) = (block(), Vec::new());
        assert_eq!(UpdateBuilder::<V6>::announce(&mut out, 4096, &block, hop6()).unwrap().finish(), 0);
        assert_eq!(UpdateBuilder::<V4>::withdraw(&mut out, 4096).finish(), 0);
        assert!(out.is_empty());
    }

    #[test]
    fn end_of_rib_is_an_empty_update() {
        let mut out = Vec::new();
        encode_end_of_rib(Family::Ipv4Unicast, &mut out);
        assert_eq!(out[16..], [0, 23, 2, 0, 0, 0, 0]);
        out.clear();
        encode_end_of_rib(Family::Ipv6Unicast, &mut out);
        assert_eq!(out[16..], [0, 29, 2, 0, 0, 0, 6, 0x80, 15, 3, 0, 2, 1]);
    }
}
