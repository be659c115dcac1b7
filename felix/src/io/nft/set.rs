//! A set's declaration and elements, to and from the kernel.

use super::expression::{AnonymousSet, read_verdict, verdict};
use super::wire::{Attributes, Writer};
use crate::ruleset::{Key, KeyType, Set, Value};
use std::time::Duration;
use twill_crds::names::NFT_TABLE;

pub(super) const TABLE: u16 = 1;
pub(super) const NAME: u16 = 2;
const FLAGS: u16 = 3;
const KEY_TYPE: u16 = 4;
const KEY_LENGTH: u16 = 5;
const DATA_TYPE: u16 = 6;
const DATA_LENGTH: u16 = 7;
const DESCRIPTION: u16 = 9;
const DESCRIPTION_SIZE: u16 = 1;
const ID: u16 = 10;
const TIMEOUT: u16 = 11;
const USERDATA: u16 = 13;

const ANONYMOUS: u32 = 1;
const CONSTANT: u32 = 2;
const INTERVAL: u32 = 4;
const MAP: u32 = 8;
const EXPIRING: u32 = 16;
const DYNAMIC: u32 = 32;
const DATA_VERDICT: u32 = 0xffff_ff00;

const LIST_SET: u16 = 2;
pub(super) const LIST_ELEMENTS: u16 = 3;
const LIST_SET_ID: u16 = 4;
const LIST_ELEMENT: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const ELEMENT_FLAGS: u16 = 3;
const ELEMENT_TIMEOUT: u16 = 4;
pub(super) const ELEMENT_EXPIRATION: u16 = 5;
const INTERVAL_END: u32 = 1;
const VALUE: u16 = 1;

/// nft's number of the type of a packet mark, four bytes.
const MARK: u32 = 19;
/// nft's number of the type of an ICMPv6 type.
pub(super) const ICMPV6_TYPE: u32 = 29;

/// nft's number of a type; informational for the kernel, what nft and we read back.
pub(super) fn type_number(kind: KeyType) -> u32 {
    match kind {
        KeyType::Interface => 41,
        KeyType::V4 => 7,
        KeyType::V6 => 8,
        KeyType::Family => 2,
        KeyType::Protocol => 12,
        KeyType::Port => 13,
        KeyType::Selector => MARK,
    }
}

fn type_of(number: u32) -> Option<KeyType> {
    use KeyType::{Family, Interface, Port, Protocol, V4, V6};
    [Interface, V4, V6, Family, Protocol, Port].into_iter().find(|kind| type_number(*kind) == number)
}

/// Attributes of NEWSET in our table.
pub(super) fn declaration(w: &mut Writer, name: &str, id: u32, set: &Set) {
    declaration_in(w, NFT_TABLE, name, id, set);
}

/// Attributes of NEWSET in a table.
pub(super) fn declaration_in(w: &mut Writer, table: &str, name: &str, id: u32, set: &Set) {
    let flag = |on: bool, flag: u32| if on { flag } else { 0 };
    w.string(TABLE, table);
    w.string(NAME, name);
    let flags = flag(set.interval, INTERVAL) | flag(set.map, MAP) | flag(set.timeout.is_some(), EXPIRING);
    w.u32(FLAGS, flags | flag(set.dynamic, DYNAMIC));
    w.u32(KEY_TYPE, packed_types(&set.key));
    w.u32(KEY_LENGTH, u32::try_from(key_length(&set.key)).unwrap_or_default());
    if set.map {
        w.u32(DATA_TYPE, data_type(set));
        w.u32(DATA_LENGTH, u32::try_from(key_length(&set.data)).unwrap_or_default());
    }
    w.u32(ID, id);
    if let Some(size) = set.size {
        w.nested(DESCRIPTION, |w| w.u32(DESCRIPTION_SIZE, size));
    }
    if let Some(timeout) = set.timeout {
        w.u64(TIMEOUT, milliseconds(timeout));
    }
    w.attribute(USERDATA, &userdata(set));
}

fn data_type(set: &Set) -> u32 {
    if set.data.is_empty() { DATA_VERDICT } else { packed_types(&set.data) }
}

/// Attributes of NEWSET for a set without a name, whose lookups find it by `id`.
pub(super) fn anonymous_declaration(w: &mut Writer, id: u32, set: &AnonymousSet) {
    w.string(TABLE, NFT_TABLE);
    w.string(NAME, "__set%d");
    w.u32(FLAGS, ANONYMOUS | CONSTANT | if set.interval { INTERVAL } else { 0 });
    w.u32(KEY_TYPE, set.key.0);
    w.u32(KEY_LENGTH, set.key.1);
    w.u32(ID, id);
    let elements = set.ranges.len() * if set.interval { 2 } else { 1 };
    w.nested(DESCRIPTION, |w| w.u32(DESCRIPTION_SIZE, u32::try_from(elements).unwrap_or(u32::MAX)));
    w.attribute(USERDATA, &byte_order(BIG_ENDIAN));
}

/// Ranges of a set without a name in one message: two elements of 20 bytes each at most, in a list whose length is 16 bit.
pub(super) const ANONYMOUS_RANGES: usize = 1_500;

/// Attributes of NEWSETELEM for some ranges of a set without a name.
pub(super) fn anonymous_elements(w: &mut Writer, id: u32, set: &AnonymousSet, ranges: &[(Vec<u8>, Vec<u8>)]) {
    w.string(TABLE, NFT_TABLE);
    w.string(LIST_SET, "__set%d");
    w.u32(LIST_SET_ID, id);
    w.nested(LIST_ELEMENTS, |w| {
        for (first, last) in ranges {
            let (first, last) = (Key::from_bytes(first), Key::from_bytes(last));
            if set.interval { range(w, &first, &last) } else { key_only(w, &first, None) }
        }
    });
}

/// The attributes before the list of elements.
pub(super) fn elements_header(w: &mut Writer, set: &str) {
    w.string(TABLE, NFT_TABLE);
    w.string(LIST_SET, set);
}

/// One element; in an interval set, two entries of the list.
pub(super) fn element(w: &mut Writer, interval: bool, key: &Key, value: &Value) {
    match value {
        Value::Plain if interval => range(w, key, key),
        Value::Plain => key_only(w, key, None),
        Value::Through(last) => range(w, key, last),
        Value::Verdict(to) => w.nested(LIST_ELEMENT, |w| {
            w.nested(ELEMENT_KEY, |w| w.attribute(VALUE, key.bytes()));
            w.nested(ELEMENT_DATA, |w| verdict(w, to));
        }),
        Value::Mapped(to) => w.nested(LIST_ELEMENT, |w| {
            w.nested(ELEMENT_KEY, |w| w.attribute(VALUE, key.bytes()));
            w.nested(ELEMENT_DATA, |w| w.attribute(VALUE, to.bytes()));
        }),
        Value::Expires(after) => w.nested(LIST_ELEMENT, |w| {
            w.nested(ELEMENT_KEY, |w| w.attribute(VALUE, key.bytes()));
            w.u64(ELEMENT_TIMEOUT, milliseconds(*after));
        }),
    }
}

/// The kernel's ends are exclusive; a range up to the last key has none.
fn range(w: &mut Writer, first: &Key, last: &Key) {
    key_only(w, first, None);
    if let Some(end) = last.successor() {
        key_only(w, &end, Some(INTERVAL_END));
    }
}

fn key_only(w: &mut Writer, key: &Key, flags: Option<u32>) {
    w.nested(LIST_ELEMENT, |w| {
        if let Some(flags) = flags {
            w.u32(ELEMENT_FLAGS, flags);
        }
        w.nested(ELEMENT_KEY, |w| w.attribute(VALUE, key.bytes()));
    });
}

/// A set's declaration from a dump, without elements; `None` if nobody can name it (an anonymous set).
pub(super) fn read_declaration(attributes: Attributes<'_>) -> Option<(&str, Set)> {
    let flags = attributes.u32(FLAGS).unwrap_or_default();
    if flags & ANONYMOUS != 0 {
        return None;
    }
    // A type or flag that is not ours gives a declaration that equals none of ours.
    let packed = attributes.u32(KEY_TYPE).unwrap_or_default();
    let mut key = unpacked_types(packed);
    let leads_to = attributes.u32(DATA_TYPE).filter(|_| flags & MAP != 0);
    let data = leads_to.filter(|kind| *kind != DATA_VERDICT).map(unpacked_types).unwrap_or_default();
    let data_fits = flags & MAP == 0
        || leads_to == Some(DATA_VERDICT)
        || attributes.u32(DATA_LENGTH).is_some_and(|n| n as usize == key_length(&data));
    if flags & !(INTERVAL | MAP | EXPIRING | DYNAMIC) != 0
        || attributes.u32(KEY_LENGTH).is_some_and(|n| n as usize != key_length(&key))
        || !data_fits
    {
        key.clear();
    }
    let timeout = attributes.u64(TIMEOUT).map(Duration::from_millis);
    let set = Set {
        key,
        interval: flags & INTERVAL != 0,
        timeout: (flags & EXPIRING != 0).then_some(timeout.unwrap_or_default()),
        size: attributes.nested(DESCRIPTION).and_then(|d| d.u32(DESCRIPTION_SIZE)),
        map: flags & MAP != 0,
        data,
        dynamic: flags & DYNAMIC != 0,
        elements: Default::default(),
        comment: String::new(),
    };
    Some((attributes.string(NAME)?, set))
}

/// The elements of a set that expires, in one list of a dump: key, time left, and the timeout if it is not the set's.
pub(super) fn read_expiring(list: Attributes<'_>) -> impl Iterator<Item = (Key, Duration, Option<Duration>)> {
    list.filter_map(|(_, element)| {
        let element = Attributes(element);
        let key = Key::from_bytes(element.nested(ELEMENT_KEY)?.value(VALUE)?);
        let left = element.u64(ELEMENT_EXPIRATION).map(Duration::from_millis)?;
        Some((key, left, element.u64(ELEMENT_TIMEOUT).map(Duration::from_millis)))
    })
}

/// Collects the elements of one set from dumped messages.
pub(super) struct ElementReader {
    interval: bool,
    entries: Vec<(Key, bool, Value)>,
}

impl ElementReader {
    pub(super) fn new(set: &Set) -> ElementReader {
        ElementReader { interval: set.interval, entries: Vec::new() }
    }

    /// The list of one NEWSETELEM.
    pub(super) fn read(&mut self, list: Attributes<'_>) {
        for (_, element) in list {
            let element = Attributes(element);
            let Some(key) = element.nested(ELEMENT_KEY).and_then(|k| k.value(VALUE)) else { continue };
            let end = element.u32(ELEMENT_FLAGS).unwrap_or_default() & INTERVAL_END != 0;
            let value = element.nested(ELEMENT_DATA).and_then(read_data).unwrap_or_default();
            self.entries.push((Key::from_bytes(key), end, value));
        }
    }

    /// The elements, with starts and ends of ranges joined.
    pub(super) fn finish(mut self) -> std::collections::BTreeMap<Key, Value> {
        if !self.interval {
            return self.entries.into_iter().map(|(key, _, value)| (key, value)).collect();
        }
        // At one key an end precedes a start: ranges may touch.
        self.entries.sort_by(|a, b| (&a.0, !a.1).cmp(&(&b.0, !b.1)));
        let mut out = std::collections::BTreeMap::new();
        let mut open: Option<Key> = None;
        for (key, end, _) in self.entries {
            if let Some(first) = open.take() {
                close(&mut out, first, key.predecessor());
            }
            open = (!end).then_some(key);
        }
        if let Some(first) = open {
            let last = Key::from_bytes(&vec![u8::MAX; first.bytes().len()]);
            close(&mut out, first, Some(last));
        }
        out
    }
}

fn read_data(data: Attributes<'_>) -> Option<Value> {
    let mapped = || data.value(VALUE).map(|bytes| Value::Mapped(Key::from_bytes(bytes)));
    read_verdict(data).map(Value::Verdict).or_else(mapped)
}

fn close(out: &mut std::collections::BTreeMap<Key, Value>, first: Key, last: Option<Key>) {
    let Some(last) = last else { return };
    let value = if last == first { Value::Plain } else { Value::Through(last) };
    out.insert(first, value);
}

/// nft packs the types of a concatenation into six bits each. A selector is two marks to it, whose type has four bytes.
fn packed_types(key: &[KeyType]) -> u32 {
    key.iter().fold(0, |packed, kind| match kind {
        KeyType::Selector => packed << 12 | MARK << 6 | MARK,
        kind => packed << 6 | type_number(*kind),
    })
}

fn unpacked_types(packed: u32) -> Vec<KeyType> {
    let mut numbers =
        (0..5).rev().map(|place| packed >> (6 * place) & 0x3f).skip_while(|number| *number == 0).peekable();
    let mut key = Vec::new();
    while let Some(number) = numbers.next() {
        let selector = number == MARK && numbers.next_if_eq(&MARK).is_some();
        key.push(if selector { KeyType::Selector } else { type_of(number).unwrap_or(KeyType::Protocol) });
    }
    key
}

fn key_length(key: &[KeyType]) -> usize {
    match key {
        [one] => one.width(),
        parts => parts.iter().map(|p| p.padded()).sum(),
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

const HOST_ENDIAN: u32 = 1;
const BIG_ENDIAN: u32 = 2;
const UDATA_KEY_BYTE_ORDER: u8 = 0;
const UDATA_DATA_BYTE_ORDER: u8 = 1;
const UDATA_COMMENT: u8 = 7;

/// What nft keeps for itself beside a set. Without the byte order it lists interface names as empty strings.
fn userdata(set: &Set) -> Vec<u8> {
    let mut bytes = byte_order(match set.key.as_slice() {
        [KeyType::Interface | KeyType::Family] => HOST_ENDIAN,
        [_] => BIG_ENDIAN,
        _ => 0,
    });
    if set.map {
        bytes.extend_from_slice(&[UDATA_DATA_BYTE_ORDER, 4, 0, 0, 0, 0]);
    }
    if !set.comment.is_empty() {
        let comment = super::cut(&set.comment, 127);
        bytes.extend_from_slice(&[UDATA_COMMENT, u8::try_from(comment.len() + 1).unwrap_or_default()]);
        bytes.extend_from_slice(comment.as_bytes());
        bytes.push(0);
    }
    bytes
}

fn byte_order(order: u32) -> Vec<u8> {
    let mut bytes = vec![UDATA_KEY_BYTE_ORDER, 4];
    bytes.extend_from_slice(&order.to_ne_bytes());
    bytes
}
