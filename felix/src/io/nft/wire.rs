//! Netlink messages and attributes as bytes: an append-only writer and a reader that never panics.
//!
//! Why not the types of `netlink-packet-netfilter` on the way out: more than half of what this table needs (`ct`, `counter`,
//! `masq`, verdict data, userdata, batches' generation, transaction ids of anonymous sets) would be raw attributes inside them
//! anyway, and a hundred thousand elements would be some millions of small allocations instead of one buffer. The crate judges
//! our bytes in tests instead, as the second implementation.

use std::fmt::Debug;

/// `nfnetlink.h`: subsystem of nf_tables.
pub(super) const SUBSYSTEM: u16 = 10;
pub(super) const FAMILY_INET: u8 = 1;
/// In a dump: of every family.
pub(super) const FAMILY_ANY: u8 = 0;
pub(super) const BATCH_BEGIN: u16 = 0x10;
pub(super) const BATCH_END: u16 = 0x11;
/// Attribute of BATCH_BEGIN.
pub(super) const BATCH_GENID: u16 = 1;

pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
pub(super) const REQUEST: u16 = 0x1;
pub(super) const ACK: u16 = 0x4;
pub(super) const DUMP: u16 = 0x300;
pub(super) const DUMP_INTERRUPTED: u16 = 0x10;
pub(super) const EXCLUSIVE: u16 = 0x200;
pub(super) const CREATE: u16 = 0x400;
pub(super) const APPEND: u16 = 0x800;

const NESTED: u16 = 0x8000;
const KIND: u16 = 0x3fff;
const HEADER: usize = 16;

/// `nf_tables.h`: messages.
pub(super) mod message {
    pub(in super::super) const NEW_TABLE: u8 = 0;
    pub(in super::super) const GET_TABLE: u8 = 1;
    pub(in super::super) const DELETE_TABLE: u8 = 2;
    pub(in super::super) const NEW_CHAIN: u8 = 3;
    pub(in super::super) const GET_CHAIN: u8 = 4;
    pub(in super::super) const DELETE_CHAIN: u8 = 5;
    pub(in super::super) const NEW_RULE: u8 = 6;
    pub(in super::super) const GET_RULE: u8 = 7;
    pub(in super::super) const DELETE_RULE: u8 = 8;
    pub(in super::super) const NEW_SET: u8 = 9;
    pub(in super::super) const GET_SET: u8 = 10;
    pub(in super::super) const DELETE_SET: u8 = 11;
    pub(in super::super) const NEW_ELEMENTS: u8 = 12;
    pub(in super::super) const GET_ELEMENTS: u8 = 13;
    pub(in super::super) const DELETE_ELEMENTS: u8 = 14;
    pub(in super::super) const NEW_GENERATION: u8 = 15;
    pub(in super::super) const GET_GENERATION: u8 = 16;
    pub(in super::super) const TRACE: u8 = 17;
}

/// Messages in the making.
#[derive(Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// A message of nf_tables about our family.
    pub(super) fn message(&mut self, kind: u8, flags: u16, sequence: u32, body: impl FnOnce(&mut Writer)) {
        self.message_about(FAMILY_INET, kind, flags, sequence, body);
    }

    /// A message of nf_tables about a family.
    pub(super) fn message_about(
        &mut self,
        family: u8,
        kind: u8,
        flags: u16,
        sequence: u32,
        body: impl FnOnce(&mut Writer),
    ) {
        self.raw_message(SUBSYSTEM << 8 | u16::from(kind), flags, sequence, (family, 0), body);
    }

    /// BATCH_BEGIN or BATCH_END, which name the subsystem in `res_id`.
    pub(super) fn batch_message(&mut self, kind: u16, sequence: u32, body: impl FnOnce(&mut Writer)) {
        self.raw_message(kind, REQUEST, sequence, (0, SUBSYSTEM), body);
    }

    fn raw_message(
        &mut self,
        kind: u16,
        flags: u16,
        sequence: u32,
        (family, res_id): (u8, u16),
        body: impl FnOnce(&mut Writer),
    ) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&res_id.to_be_bytes());
        body(self);
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.attribute_of(kind, |w| w.bytes.extend_from_slice(value));
    }

    pub(super) fn u32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    pub(super) fn u64(&mut self, kind: u16, value: u64) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// A string with its terminating zero.
    pub(super) fn string(&mut self, kind: u16, value: &str) {
        self.attribute_of(kind, |w| {
            w.bytes.extend_from_slice(value.as_bytes());
            w.bytes.push(0);
        });
    }

    pub(super) fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Writer)) {
        self.attribute_of(kind | NESTED, body);
    }

    /// Attributes that were written before.
    pub(super) fn raw(&mut self, attributes: &[u8]) {
        self.bytes.extend_from_slice(attributes);
    }

    /// Lengths are 16 bit: who writes lists keeps them shorter.
    fn attribute_of(&mut self, kind: u16, body: impl FnOnce(&mut Writer)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        body(self);
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// One message of a datagram.
#[derive(Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    /// After the netlink header.
    pub(super) payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The number inside nf_tables, if it is one of its messages.
    pub(super) fn nft(&self) -> Option<u8> {
        (self.kind >> 8 == SUBSYSTEM).then_some((self.kind & 0xff) as u8)
    }

    /// The family and the attributes after the netfilter header.
    pub(super) fn family(&self) -> u8 {
        self.payload.first().copied().unwrap_or_default()
    }

    pub(super) fn attributes(&self) -> Attributes<'a> {
        Attributes(self.payload.get(4..).unwrap_or_default())
    }

    /// The negative errno of an NLMSG_ERROR; 0 is an acknowledgement.
    pub(super) fn error(&self) -> Option<i32> {
        (self.kind == NLMSG_ERROR).then(|| i32::from_ne_bytes(at(self.payload, 0).unwrap_or_default()))
    }
}

/// The messages of a datagram; ends at the first that is broken.
pub(super) fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(at(rest, 0)?) as usize;
        let message = Message {
            kind: u16::from_ne_bytes(at(rest, 4)?),
            flags: u16::from_ne_bytes(at(rest, 6)?),
            sequence: u32::from_ne_bytes(at(rest, 8)?),
            payload: rest.get(HEADER..length)?,
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// Attributes in sequence; ends at the first that is broken.
#[derive(Clone, Copy)]
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Attributes<'a> {
    pub(super) fn value(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find(|(k, _)| *k == kind).map(|(_, v)| v)
    }

    pub(super) fn u32(self, kind: u16) -> Option<u32> {
        at(self.value(kind)?, 0).map(u32::from_be_bytes)
    }

    pub(super) fn u64(self, kind: u16) -> Option<u64> {
        at(self.value(kind)?, 0).map(u64::from_be_bytes)
    }

    pub(super) fn string(self, kind: u16) -> Option<&'a str> {
        let bytes = self.value(kind)?;
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        std::str::from_utf8(&bytes[..end]).ok()
    }

    pub(super) fn nested(self, kind: u16) -> Option<Attributes<'a>> {
        self.value(kind).map(Attributes)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let length = usize::from(u16::from_ne_bytes(at(self.0, 0)?));
        let kind = u16::from_ne_bytes(at(self.0, 2)?) & KIND;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

impl Debug for Attributes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(*self).finish()
    }
}

fn at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset + N)?.try_into().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut w = Writer::default();
        w.message(message::NEW_SET, CREATE, 7, |w| {
            w.string(1, "abc");
            w.nested(9, |w| w.u32(1, 100));
            w.u64(11, 5);
        });
        w.batch_message(BATCH_END, 8, |_| {});
        let bytes = w.into_bytes();
        assert_eq!(bytes.len() % 4, 0);
        let all: Vec<Message<'_>> = messages(&bytes).collect();
        assert_eq!((all.len(), all[0].nft(), all[0].sequence, all[0].family()), (2, Some(9), 7, 1));
        assert_eq!(all[0].flags, REQUEST | CREATE);
        let attributes = all[0].attributes();
        assert_eq!(attributes.string(1), Some("abc"));
        assert_eq!(attributes.nested(9).unwrap().u32(1), Some(100));
        assert_eq!(attributes.u64(11), Some(5));
        assert_eq!((all[1].kind, &all[1].payload[2..]), (BATCH_END, &[0, 10][..]));
    }

    #[test]
    fn broken_bytes_end_the_reading() {
        let mut w = Writer::default();
        w.message(message::NEW_SET, 0, 1, |w| w.string(1, "abc"));
        let bytes = w.into_bytes();
        for cut in 0..bytes.len() {
            assert_eq!(messages(&bytes[..cut]).count(), 0, "{cut}");
        }
        for length in [0u16, 1, 3, 200, u16::MAX] {
            let mut broken = bytes.clone();
            broken[20..22].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(messages(&broken).next().unwrap().attributes().count(), 0, "{length}");
        }
        assert_eq!(messages(&[0; 64]).count(), 0);
    }
}
