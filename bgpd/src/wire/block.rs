//! Path attributes as received: one pass that checks every attribute by RFC 7606 section 7 and remembers where its value
//! lies.

mod canonical;

use super::as_path::two_octet;
use super::{Code, NextHop, Notification};
use std::net::Ipv4Addr;

/// Attribute type codes.
pub(super) mod kind {
    pub(crate) const ORIGIN: u8 = 1;
    pub(crate) const AS_PATH: u8 = 2;
    pub(crate) const NEXT_HOP: u8 = 3;
    pub(crate) const MULTI_EXIT_DISC: u8 = 4;
    pub(crate) const LOCAL_PREF: u8 = 5;
    pub(crate) const ATOMIC_AGGREGATE: u8 = 6;
    pub(crate) const AGGREGATOR: u8 = 7;
    pub(crate) const COMMUNITIES: u8 = 8;
    pub(crate) const ORIGINATOR_ID: u8 = 9;
    pub(crate) const CLUSTER_LIST: u8 = 10;
    pub(crate) const MP_REACH_NLRI: u8 = 14;
    pub(crate) const MP_UNREACH_NLRI: u8 = 15;
    pub(crate) const EXTENDED_COMMUNITIES: u8 = 16;
    pub(crate) const AS4_PATH: u8 = 17;
    pub(crate) const AS4_AGGREGATOR: u8 = 18;
    pub(crate) const IPV6_EXTENDED_COMMUNITIES: u8 = 25;
    pub(crate) const LARGE_COMMUNITIES: u8 = 32;
    pub(crate) const ONLY_TO_CUSTOMER: u8 = 35;
}

/// Attribute flags (RFC 4271 section 4.3).
pub(super) mod flag {
    pub(crate) const OPTIONAL: u8 = 0x80;
    pub(crate) const TRANSITIVE: u8 = 0x40;
    pub(crate) const PARTIAL: u8 = 0x20;
    pub(crate) const EXTENDED_LENGTH: u8 = 0x10;
    /// What says to which of the four categories an attribute belongs.
    pub(crate) const CLASS: u8 = OPTIONAL | TRANSITIVE;
}

/// One attribute of a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attribute<'a> {
    pub(super) flags: u8,
    pub(super) kind: u8,
    pub(super) value: &'a [u8],
    /// Flags, type, length and value.
    pub(super) whole: &'a [u8],
}

/// The block ends inside an attribute (RFC 7606 section 4); with the type, as far as it is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Overrun(pub(super) Option<u8>);

/// Iterator over the attributes of a block; ends after the first error.
#[derive(Clone, Debug)]
pub(super) struct Walk<'a>(&'a [u8]);

impl<'a> Walk<'a> {
    pub(super) fn new(block: &'a [u8]) -> Self {
        Walk(block)
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Result<Attribute<'a>, Overrun>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let block = self.0;
        if block.is_empty() {
            return None;
        }
        self.0 = &[];
        let overrun = Some(Err(Overrun(block.get(1).copied())));
        let (head, length) = match *block {
            [flags, _, high, low, ..] if flags & flag::EXTENDED_LENGTH != 0 => {
                (4, usize::from(u16::from_be_bytes([high, low])))
            }
            [flags, _, length, ..] if flags & flag::EXTENDED_LENGTH == 0 => (3, usize::from(length)),
            _ => return overrun,
        };
        let Some((whole, rest)) = block.split_at_checked(head + length) else { return overrun };
        self.0 = rest;
        Some(Ok(Attribute { flags: block[0], kind: block[1], value: &whole[head..], whole }))
    }
}

/// Appends an attribute; the extended length only where it is needed.
pub(super) fn put(out: &mut Vec<u8>, flags: u8, kind: u8, value: &[u8]) {
    put_head(out, flags, kind, value.len());
    out.extend_from_slice(value);
}

/// Appends flags, type and length of an attribute.
pub(super) fn put_head(out: &mut Vec<u8>, flags: u8, kind: u8, length: usize) {
    let flags = flags & !flag::EXTENDED_LENGTH;
    match u8::try_from(length) {
        Ok(length) => out.extend_from_slice(&[flags, kind, length]),
        Err(_) => {
            // Beyond 65,535 the block fits into no message, which the builder refuses by the block's own length.
            let [high, low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
            out.extend_from_slice(&[flags | flag::EXTENDED_LENGTH, kind, high, low]);
        }
    }
}

/// Places of known attributes in [`AttributeBlock::values`]: their type, except for the three beyond 18. 0: unknown.
const SLOTS: usize = 19;
const SLOT: [u8; 256] = {
    let mut table = [0; 256];
    let mut kind = 1;
    while kind <= 18 {
        if kind <= 10 || kind >= 14 {
            table[kind] = kind as u8;
        }
        kind += 1;
    }
    table[kind::IPV6_EXTENDED_COMMUNITIES as usize] = 11;
    table[kind::LARGE_COMMUNITIES as usize] = 12;
    table[kind::ONLY_TO_CUSTOMER as usize] = 13;
    table
};

/// Category of a known attribute.
pub(super) const fn class(kind: u8) -> u8 {
    match kind {
        kind::ORIGIN | kind::AS_PATH | kind::NEXT_HOP | kind::LOCAL_PREF | kind::ATOMIC_AGGREGATE => flag::TRANSITIVE,
        kind::MULTI_EXIT_DISC
        | kind::ORIGINATOR_ID
        | kind::CLUSTER_LIST
        | kind::MP_REACH_NLRI
        | kind::MP_UNREACH_NLRI => flag::OPTIONAL,
        _ => flag::OPTIONAL | flag::TRANSITIVE,
    }
}

/// A set of attribute types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttributeSet([u64; 4]);

impl AttributeSet {
    /// Whether `kind` is in the set.
    #[must_use]
    pub const fn contains(self, kind: u8) -> bool {
        self.0[(kind >> 6) as usize] >> (kind & 63) & 1 != 0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == [0; 4]
    }

    /// The types in ascending order.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..=255).filter(move |kind| self.contains(*kind))
    }

    /// Adds `kind`; false if it was there.
    #[inline]
    fn insert(&mut self, kind: u8) -> bool {
        let new = !self.contains(kind);
        self.0[usize::from(kind >> 6)] |= 1 << (kind & 63);
        new
    }
}

/// What is wrong with an attribute, or with the block, when the routes of the UPDATE are to be treated as withdrawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Type of the attribute; 0: the block as a whole.
    pub attribute: u8,
    /// Subcode of UPDATE Message Error that RFC 4271 section 6.3 has for it.
    pub subcode: u8,
}

impl std::fmt::Display for Fault {
    /// `attribute 2: UPDATE Message Error: Malformed AS_PATH (3/11)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let error = Notification::new(Code::Update, self.subcode);
        match self.attribute {
            0 => write!(f, "attributes: {error}"),
            kind => write!(f, "attribute {kind}: {error}"),
        }
    }
}

/// The checked attributes of an UPDATE, borrowed from it. What RFC 7606 discards is no longer in it.
#[derive(Clone, Copy, Debug)]
pub struct AttributeBlock<'a> {
    raw: &'a [u8],
    values: [Option<&'a [u8]>; SLOTS],
    /// Known optional transitive attributes, by slot, that came with the Partial bit.
    partial: u32,
    /// Whether there are optional transitive attributes that Twill does not know.
    unknown: bool,
    four_octet_as: bool,
}

/// Outcome of the pass over a block.
pub(super) struct Checked<'a> {
    pub(super) block: AttributeBlock<'a>,
    pub(super) discarded: AttributeSet,
    /// First error that asks for treat-as-withdraw, with the attribute's octets.
    pub(super) fault: Option<(Fault, &'a [u8])>,
    /// Values of MP_REACH_NLRI and MP_UNREACH_NLRI.
    pub(super) mp_reach: Option<Attribute<'a>>,
    pub(super) mp_unreach: Option<Attribute<'a>>,
}

/// What an attribute's value deserves.
enum Verdict {
    Keep,
    Discard,
    /// Treat-as-withdraw, with the subcode.
    Withdraw(u8),
}

/// What the check of a value depends on.
#[derive(Clone, Copy)]
pub(super) struct Context {
    pub(super) ebgp: bool,
    pub(super) four_octet_as: bool,
}

/// Checks the path attributes field of an UPDATE.
///
/// # Errors
/// What asks for a reset: MP attributes that are doubled, cut off or flagged wrongly, since no prefix in them can be
/// trusted (RFC 7606 sections 3 g and 5.3).
pub(super) fn check(raw: &[u8], context: Context) -> Result<Checked<'_>, Notification> {
    let mut checked = Checked {
        block: AttributeBlock {
            raw,
            values: [None; SLOTS],
            partial: 0,
            unknown: false,
            four_octet_as: context.four_octet_as,
        },
        discarded: AttributeSet::default(),
        fault: None,
        mp_reach: None,
        mp_unreach: None,
    };
    let mut seen = AttributeSet::default();
    for attribute in Walk::new(raw) {
        let attribute = match attribute {
            Ok(attribute) => attribute,
            Err(Overrun(kind)) => {
                if matches!(kind, Some(kind::MP_REACH_NLRI | kind::MP_UNREACH_NLRI)) {
                    return Err(Notification::update(9, Vec::new()));
                }
                checked.fault.get_or_insert((Fault { attribute: 0, subcode: 1 }, &[]));
                break;
            }
        };
        if seen.insert(attribute.kind) {
            checked.attribute(attribute, context)?;
        } else if matches!(attribute.kind, kind::MP_REACH_NLRI | kind::MP_UNREACH_NLRI) {
            return Err(Notification::update(1, Vec::new()));
        } else {
            checked.discarded.insert(attribute.kind);
        }
    }
    Ok(checked)
}

impl<'a> Checked<'a> {
    #[inline]
    fn attribute(&mut self, attribute: Attribute<'a>, context: Context) -> Result<(), Notification> {
        let Attribute { flags, kind, value, whole } = attribute;
        let slot = SLOT[usize::from(kind)];
        if slot == 0 {
            self.unknown(attribute);
            return Ok(());
        }
        let flagged = flags & flag::CLASS == class(kind);
        match kind {
            kind::MP_REACH_NLRI | kind::MP_UNREACH_NLRI => {
                if !flagged {
                    return Err(Notification::update(4, whole.to_vec()));
                }
                let place = if kind == kind::MP_REACH_NLRI { &mut self.mp_reach } else { &mut self.mp_unreach };
                *place = Some(attribute);
                return Ok(());
            }
            kind::AS4_PATH | kind::AS4_AGGREGATOR if !flagged => {
                self.discarded.insert(kind);
                return Ok(());
            }
            _ if !flagged => {
                self.fault.get_or_insert((Fault { attribute: kind, subcode: 4 }, whole));
                return Ok(());
            }
            _ => {}
        }
        match verdict(kind, value, context) {
            Verdict::Keep => {
                self.block.values[usize::from(slot)] = Some(value);
                // Elsewhere the bit means nothing (RFC 4271 section 4.3).
                let partial = flags & (flag::CLASS | flag::PARTIAL) == flag::CLASS | flag::PARTIAL;
                self.block.partial |= u32::from(partial) << slot;
            }
            Verdict::Discard => {
                self.discarded.insert(kind);
            }
            Verdict::Withdraw(subcode) => {
                self.fault.get_or_insert((Fault { attribute: kind, subcode }, whole));
            }
        }
        Ok(())
    }

    /// An attribute that Twill does not know: passed on if optional transitive, ignored if optional non-transitive
    /// (RFC 4271 section 9).
    #[cold]
    fn unknown(&mut self, attribute: Attribute<'a>) {
        match attribute.flags & flag::CLASS {
            flag::CLASS => self.block.unknown = true,
            flag::OPTIONAL => {}
            // RFC 4271 section 6.3 would reset the session; what one speaker lets through must not end the sessions
            // of another.
            _ => {
                self.fault.get_or_insert((Fault { attribute: attribute.kind, subcode: 2 }, attribute.whole));
            }
        }
    }
}

/// RFC 7606 section 7, attribute by attribute.
#[inline]
fn verdict(kind: u8, value: &[u8], context: Context) -> Verdict {
    const LENGTH: u8 = 5;
    let exactly = |length: usize| if value.len() == length { Verdict::Keep } else { Verdict::Withdraw(LENGTH) };
    let multiple_of = |size: usize| match value.len() {
        0 => Verdict::Withdraw(LENGTH),
        length if length % size != 0 => Verdict::Withdraw(LENGTH),
        _ => Verdict::Keep,
    };
    match kind {
        kind::ORIGIN => match value {
            [0..=2] => Verdict::Keep,
            [_] => Verdict::Withdraw(6),
            _ => Verdict::Withdraw(LENGTH),
        },
        kind::AS_PATH if path_is_valid(value, context.four_octet_as) => Verdict::Keep,
        kind::AS_PATH => Verdict::Withdraw(11),
        kind::NEXT_HOP | kind::MULTI_EXIT_DISC => exactly(4),
        kind::LOCAL_PREF | kind::ORIGINATOR_ID | kind::CLUSTER_LIST if context.ebgp => Verdict::Discard,
        kind::LOCAL_PREF | kind::ORIGINATOR_ID => exactly(4),
        kind::CLUSTER_LIST | kind::COMMUNITIES => multiple_of(4),
        kind::ATOMIC_AGGREGATE if value.is_empty() => Verdict::Keep,
        kind::AGGREGATOR => aggregator(value, context.four_octet_as),
        kind::EXTENDED_COMMUNITIES => multiple_of(8),
        kind::IPV6_EXTENDED_COMMUNITIES => multiple_of(20),
        kind::LARGE_COMMUNITIES => multiple_of(12),
        // RFC 9234 section 5; an AS 0 has told nobody (RFC 7607).
        kind::ONLY_TO_CUSTOMER if value == [0; 4] => Verdict::Withdraw(9),
        kind::ONLY_TO_CUSTOMER => exactly(4),
        // RFC 6793 sections 4.1 and 6.
        kind::AS4_PATH if !context.four_octet_as && two_octet::as4_path_is_valid(value) => Verdict::Keep,
        kind::AS4_AGGREGATOR if !context.four_octet_as => match value.first_chunk::<4>() {
            Some(asn) if value.len() == 8 && *asn != [0; 4] => Verdict::Keep,
            _ => Verdict::Discard,
        },
        _ => Verdict::Discard,
    }
}

/// AGGREGATOR: a length that does not fit the session discards it (RFC 7606 section 7.7), so does AS 0 (RFC 7607).
fn aggregator(value: &[u8], four_octet_as: bool) -> Verdict {
    let valid = match (four_octet_as, value) {
        (true, [a, b, c, d, _, _, _, _]) => [*a, *b, *c, *d] != [0; 4],
        (false, [a, b, _, _, _, _]) => [*a, *b] != [0; 2],
        _ => false,
    };
    if valid { Verdict::Keep } else { Verdict::Discard }
}

/// RFC 7606 section 7.2, RFC 7607 (no AS 0); confederation segments are errors outside of one (RFC 5065 section 5).
#[inline]
fn path_is_valid(mut path: &[u8], four_octet_as: bool) -> bool {
    if !four_octet_as {
        return two_octet::path_is_valid(path);
    }
    while let Some((&[kind, count], rest)) = path.split_first_chunk::<2>() {
        let Some((asns, rest)) = rest.split_at_checked(usize::from(count) * 4) else { return false };
        if !matches!(kind, 1 | 2) || count == 0 || asns.as_chunks::<4>().0.contains(&[0; 4]) {
            return false;
        }
        path = rest;
    }
    path.is_empty()
}

impl<'a> AttributeBlock<'a> {
    #[inline]
    fn value(&self, kind: u8) -> Option<&'a [u8]> {
        self.values[usize::from(SLOT[usize::from(kind)])]
    }

    /// First well-known mandatory attribute that is missing, apart from NEXT_HOP. LOCAL_PREF is not demanded of iBGP
    /// peers: its default is as good.
    pub(super) fn missing(&self) -> Option<u8> {
        [kind::ORIGIN, kind::AS_PATH].into_iter().find(|kind| self.value(*kind).is_none())
    }

    /// NEXT_HOP.
    pub(super) fn next_hop(&self) -> Option<NextHop> {
        self.value(kind::NEXT_HOP)?.first_chunk::<4>().map(|octets| NextHop::V4(Ipv4Addr::from(*octets)))
    }

    /// The octets as they stood in the message. Messages with equal octets and no MP_REACH_NLRI have equal sets.
    #[must_use]
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_says_what_it_is_about() {
        let checked = check(&[0x40, 2, 1, 0], Context { ebgp: true, four_octet_as: true }).unwrap();
        let (fault, whole) = checked.fault.unwrap();
        assert_eq!(fault.to_string(), "attribute 2: UPDATE Message Error: Malformed AS_PATH (3/11)");
        assert_eq!(whole, [0x40, 2, 1, 0]);
    }
}
