//! A set element's key in the kernel's bytes: each part in network order, padded with zeros to four bytes.

use super::{Family, Field, Value};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

/// Type of one part of a set's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyType {
    /// Interface name, 16 bytes.
    Interface,
    /// IPv4 address.
    V4,
    /// IPv6 address.
    V6,
    /// Family of addresses, one byte.
    Family,
    /// Layer 4 protocol, one byte.
    Protocol,
    /// Port, two bytes.
    Port,
    /// Which of the selectors that share a set, eight bytes.
    Selector,
}

impl KeyType {
    /// Bytes without padding.
    #[must_use]
    pub fn width(self) -> usize {
        match self {
            KeyType::Interface | KeyType::V6 => 16,
            KeyType::V4 => 4,
            KeyType::Family | KeyType::Protocol => 1,
            KeyType::Port => 2,
            KeyType::Selector => 8,
        }
    }

    /// Bytes inside a concatenation.
    #[must_use]
    pub fn padded(self) -> usize {
        self.width().next_multiple_of(4)
    }
}

impl From<Field> for KeyType {
    fn from(field: Field) -> KeyType {
        field.key_type()
    }
}

/// A key: of one part or of several. Build it with [`Key::addr`] and the like, chain parts with [`Key::and_addr`] and the like.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Box<[u8]>);

impl Key {
    /// One address; the set's type is V4 or V6 accordingly.
    #[must_use]
    pub fn addr(addr: impl Into<IpAddr>) -> Key {
        match addr.into() {
            IpAddr::V4(a) => Key(Box::new(a.octets())),
            IpAddr::V6(a) => Key(Box::new(a.octets())),
        }
    }

    /// One interface name, cut at 15 bytes.
    #[must_use]
    pub fn interface(name: &str) -> Key {
        let mut bytes = [0; 16];
        let n = name.len().min(15);
        bytes[..n].copy_from_slice(&name.as_bytes()[..n]);
        Key(Box::new(bytes))
    }

    /// One family of addresses.
    #[must_use]
    pub fn family(family: Family) -> Key {
        Key(Box::new([family.number()]))
    }

    /// One protocol. Alone it is one byte; as a part it is padded.
    #[must_use]
    pub fn protocol(protocol: u8) -> Key {
        Key(Box::new([protocol]))
    }

    /// One port. Alone it is two bytes; as a part it is padded.
    #[must_use]
    pub fn port(port: u16) -> Key {
        Key(Box::new(port.to_be_bytes()))
    }

    /// One selector of those that share a set.
    #[must_use]
    pub fn selector(selector: u64) -> Key {
        Key(Box::new(selector.to_be_bytes()))
    }

    /// This and an address.
    #[must_use]
    pub fn and_addr(self, addr: impl Into<IpAddr>) -> Key {
        self.and(&Key::addr(addr))
    }

    /// This and an interface name.
    #[must_use]
    pub fn and_interface(self, name: &str) -> Key {
        self.and(&Key::interface(name))
    }

    /// This and a protocol.
    #[must_use]
    pub fn and_protocol(self, protocol: u8) -> Key {
        self.and(&Key::protocol(protocol))
    }

    /// This and a port.
    #[must_use]
    pub fn and_port(self, port: u16) -> Key {
        self.and(&Key::port(port))
    }

    /// The element that stands for a network in an interval set.
    #[must_use]
    pub fn net(net: IpNet) -> (Key, Value) {
        Key::range(net.network(), net.broadcast())
    }

    /// The element that stands for a range of addresses of one family, both ends included.
    #[must_use]
    pub fn range(first: IpAddr, last: IpAddr) -> (Key, Value) {
        let value = if first == last { Value::Plain } else { Value::Through(Key::addr(last)) };
        (Key::addr(first), value)
    }

    /// The element that stands for a range of ports in an interval set.
    #[must_use]
    pub fn ports(range: &RangeInclusive<u16>) -> (Key, Value) {
        let (first, last) = (*range.start(), *range.end());
        let value = if first == last { Value::Plain } else { Value::Through(Key::port(last)) };
        (Key::port(first), value)
    }

    /// A key from the kernel's bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Key {
        Key(bytes.into())
    }

    /// The kernel's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key that follows, for the kernel's exclusive ends; `None` after the last.
    #[must_use]
    pub fn successor(&self) -> Option<Key> {
        self.step(u8::MAX, |b| b.wrapping_add(1))
    }

    /// The key before; `None` before the first.
    #[must_use]
    pub fn predecessor(&self) -> Option<Key> {
        self.step(u8::MIN, |b| b.wrapping_sub(1))
    }

    /// The part that says whom or what an element is about, and its type: the first, or the one after the selector.
    #[must_use]
    pub fn about(&self, types: &[KeyType]) -> Option<(KeyType, Key)> {
        let (skipped, kind) = match types {
            [KeyType::Selector, kind, ..] => (KeyType::Selector.padded(), *kind),
            types => (0, *types.first()?),
        };
        Some((kind, Key(self.0.get(skipped..skipped + kind.width())?.into())))
    }

    /// The address that an element is about; `None` if it is about something else.
    #[must_use]
    pub fn address(&self, types: &[KeyType]) -> Option<IpAddr> {
        match self.about(types)? {
            (KeyType::V4, key) => <[u8; 4]>::try_from(&*key.0).ok().map(IpAddr::from),
            (KeyType::V6, key) => <[u8; 16]>::try_from(&*key.0).ok().map(IpAddr::from),
            _ => None,
        }
    }

    /// The port that it ends with, if its last part is one.
    #[must_use]
    pub fn last_port(&self) -> Option<u16> {
        let bytes = if self.0.len() > 2 { self.0.get(self.0.len() - 4..self.0.len() - 2)? } else { &self.0 };
        <[u8; 2]>::try_from(bytes).ok().map(u16::from_be_bytes)
    }

    /// Its first part, as a key of its own, if it is one of a set that selectors share.
    #[must_use]
    pub fn first_selector(&self) -> Option<Key> {
        self.0.get(..KeyType::Selector.width()).map(|bytes| Key(bytes.into()))
    }

    fn step(&self, carries: u8, next: impl Fn(u8) -> u8) -> Option<Key> {
        let mut bytes = self.0.clone();
        for byte in bytes.iter_mut().rev() {
            let carry = *byte == carries;
            *byte = next(*byte);
            if !carry {
                return Some(Key(bytes));
            }
        }
        None
    }

    /// This and another part.
    #[must_use]
    pub fn and(self, part: &Key) -> Key {
        let mut bytes = Vec::with_capacity(self.0.len().next_multiple_of(4) + part.0.len().next_multiple_of(4));
        for part in [&self, part] {
            bytes.extend_from_slice(&part.0);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        Key(bytes.into())
    }

    /// The parts as nft writes them, `10.0.0.1 . tcp . 80`; hex if the types do not fit.
    #[must_use]
    pub fn text(&self, types: &[KeyType]) -> String {
        let mut rest: &[u8] = &self.0;
        let mut parts = Vec::with_capacity(types.len());
        for kind in types {
            let (Some(part), padded) = (rest.get(..kind.width()), kind.padded().min(rest.len())) else {
                return self.0.iter().map(|b| format!("{b:02x}")).collect();
            };
            parts.push(part_text(*kind, part));
            rest = &rest[padded..];
        }
        parts.join(" . ")
    }
}

fn part_text(kind: KeyType, part: &[u8]) -> String {
    match kind {
        KeyType::Interface => {
            let end = part.iter().position(|b| *b == 0).unwrap_or(part.len());
            format!("\"{}\"", String::from_utf8_lossy(&part[..end]))
        }
        KeyType::V4 => <[u8; 4]>::try_from(part).map(|b| Ipv4Addr::from(b).to_string()).unwrap_or_default(),
        KeyType::V6 => <[u8; 16]>::try_from(part).map(|b| Ipv6Addr::from(b).to_string()).unwrap_or_default(),
        KeyType::Selector => selector_text(part),
        KeyType::Family if part[0] == Family::V4.number() => "ipv4".into(),
        KeyType::Family => "ipv6".into(),
        KeyType::Protocol => protocol_text(part[0]),
        KeyType::Port => <[u8; 2]>::try_from(part).map(|b| u16::from_be_bytes(b).to_string()).unwrap_or_default(),
    }
}

/// A selector as nft writes it: as two marks, which are numbers in this machine's byte order.
fn selector_text(part: &[u8]) -> String {
    let half = |bytes: &[u8]| bytes.first_chunk::<4>().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
    format!("{:#010x} . {:#010x}", half(part), half(&part[4..]))
}

/// A protocol as nft writes it.
pub(super) fn protocol_text(protocol: u8) -> String {
    match protocol {
        1 => "icmp".into(),
        6 => "tcp".into(),
        17 => "udp".into(),
        58 => "ipv6-icmp".into(),
        132 => "sctp".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_concatenation_are_padded_to_four_bytes() {
        let key = Key::addr(Ipv4Addr::new(10, 0, 0, 1)).and_protocol(6).and_port(80);
        assert_eq!(key.bytes(), [10, 0, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0]);
        assert_eq!(key.text(&[KeyType::V4, KeyType::Protocol, KeyType::Port]), "10.0.0.1 . tcp . 80");
        assert_eq!(Key::protocol(17).and_port(53).bytes(), [17, 0, 0, 0, 0, 53, 0, 0]);
    }

    #[test]
    fn interface_names_fill_sixteen_bytes_and_never_more_than_fifteen() {
        assert_eq!(Key::interface("twl0123456789ab").bytes().last(), Some(&0));
        assert_eq!(Key::interface("a-name-that-is-too-long").bytes(), b"a-name-that-is-\0");
        assert_eq!(Key::interface("eth0").text(&[KeyType::Interface]), "\"eth0\"");
    }

    #[test]
    fn the_successor_carries_and_the_last_key_has_none() {
        let addr = |s: &str| Key::addr(s.parse::<IpAddr>().unwrap());
        assert_eq!(addr("10.0.0.255").successor(), Some(addr("10.0.1.0")));
        assert_eq!(addr("255.255.255.255").successor(), None);
        assert_eq!(addr("10.0.1.0").predecessor(), Some(addr("10.0.0.255")));
        assert_eq!(addr("::").predecessor(), None);
    }

    #[test]
    fn a_network_is_the_range_from_its_first_to_its_last_address() {
        let (key, value) = Key::net("10.42.0.0/16".parse().unwrap());
        assert_eq!(key, Key::addr(Ipv4Addr::new(10, 42, 0, 0)));
        assert_eq!(value, Value::Through(Key::addr(Ipv4Addr::new(10, 42, 255, 255))));
        assert_eq!(Key::net("10.0.0.1/32".parse().unwrap()).1, Value::Plain);
    }

    #[test]
    fn types_that_do_not_fit_are_shown_as_hex() {
        assert_eq!(Key::port(80).text(&[KeyType::V4]), "0050");
    }

    #[test]
    fn an_element_of_a_shared_set_is_about_what_follows_the_selector() {
        let types = [KeyType::Selector, KeyType::V4, KeyType::Protocol, KeyType::Port];
        let address = IpAddr::from([10, 0, 0, 1]);
        let key = Key::selector(0x1111_1111_2222_2222).and_addr(address).and_protocol(6).and_port(80);
        assert_eq!(key.text(&types), "0x11111111 . 0x22222222 . 10.0.0.1 . tcp . 80");
        assert_eq!(key.address(&types), Some(address));
        assert_eq!(Key::interface("twl1").address(&[KeyType::Interface]), None);
    }
}
