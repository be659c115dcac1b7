//! Prefixes as keys and as NLRI (RFC 4271 section 4.3): iterators over bytes that were checked once, and the trait that
//! lets one builder and one RIB serve both families.

use super::Family;
use std::fmt::Debug;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 prefix: address in host byte order with zeros beyond the length, and the length.
pub type V4 = (u32, u8);
/// An IPv6 prefix: address in host byte order with zeros beyond the length, and the length.
pub type V6 = (u128, u8);

/// A prefix of one family as a RIB's key.
pub trait PrefixKey: Copy + Eq + Hash + Ord + Debug + 'static {
    /// Its family.
    const FAMILY: Family;
    /// Longest prefix length.
    const MAX_LEN: u8;
    /// Key of the prefix of `len` bits that `octets` (at least `len` bits of them) begin with.
    fn from_octets(octets: &[u8], len: u8) -> Self;
    /// Prefix length.
    fn length(self) -> u8;
    /// Appends length and as many octets as the length needs.
    fn write(self, out: &mut Vec<u8>);
}

impl PrefixKey for V4 {
    const FAMILY: Family = Family::Ipv4Unicast;
    const MAX_LEN: u8 = 32;

    #[inline]
    fn from_octets(octets: &[u8], len: u8) -> Self {
        let address = match octets.first_chunk::<4>() {
            Some(four) => u32::from_be_bytes(*four),
            None => {
                let mut four = [0; 4];
                four[..octets.len()].copy_from_slice(octets);
                u32::from_be_bytes(four)
            }
        };
        (address & u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0), len)
    }

    #[inline]
    fn length(self) -> u8 {
        self.1
    }

    #[inline]
    fn write(self, out: &mut Vec<u8>) {
        out.push(self.1);
        out.extend_from_slice(&self.0.to_be_bytes()[..usize::from(self.1.min(32)).div_ceil(8)]);
    }
}

impl PrefixKey for V6 {
    const FAMILY: Family = Family::Ipv6Unicast;
    const MAX_LEN: u8 = 128;

    #[inline]
    fn from_octets(octets: &[u8], len: u8) -> Self {
        let address = match octets.first_chunk::<16>() {
            Some(all) => u128::from_be_bytes(*all),
            None => {
                let mut all = [0; 16];
                all[..octets.len()].copy_from_slice(octets);
                u128::from_be_bytes(all)
            }
        };
        (address & u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0), len)
    }

    #[inline]
    fn length(self) -> u8 {
        self.1
    }

    #[inline]
    fn write(self, out: &mut Vec<u8>) {
        out.push(self.1);
        out.extend_from_slice(&self.0.to_be_bytes()[..usize::from(self.1.min(128)).div_ceil(8)]);
    }
}

/// NLRI of one family whose lengths were checked; yields its prefixes in order, duplicates included.
#[derive(Clone, Copy, Debug)]
pub struct PrefixIter<'a, K> {
    bytes: &'a [u8],
    add_path: bool,
    count: usize,
    key: std::marker::PhantomData<K>,
}

impl<'a, K: PrefixKey> PrefixIter<'a, K> {
    /// No prefix.
    pub const EMPTY: PrefixIter<'static, K> =
        PrefixIter { bytes: &[], add_path: false, count: 0, key: std::marker::PhantomData };

    /// Checks `bytes`: `None` if a length is beyond the family's, or a prefix runs beyond the end (RFC 7606 section
    /// 5.3).
    #[must_use]
    pub fn check(bytes: &'a [u8], add_path: bool) -> Option<Self> {
        let head = if add_path { 4 } else { 0 };
        let (mut at, mut count) = (0, 0);
        while at < bytes.len() {
            let len = *bytes.get(at + head)?;
            if len > K::MAX_LEN {
                return None;
            }
            at += head + 1 + usize::from(len).div_ceil(8);
            count += 1;
        }
        (at == bytes.len()).then_some(PrefixIter { bytes, add_path, count, key: std::marker::PhantomData })
    }

    /// The next prefix with its path identifier (RFC 7911), 0 where the session carries none.
    #[inline]
    pub fn next_path(&mut self) -> Option<(u32, K)> {
        let mut id = 0;
        if self.add_path {
            let (head, rest) = self.bytes.split_first_chunk::<4>()?;
            id = u32::from_be_bytes(*head);
            self.bytes = rest;
        }
        let (&len, rest) = self.bytes.split_first()?;
        let key = K::from_octets(rest, len);
        self.bytes = rest.get(usize::from(len).div_ceil(8)..).unwrap_or(&[]);
        self.count = self.count.saturating_sub(1);
        Some((id, key))
    }

    /// The octets as they stood in the message.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl<K: PrefixKey> Iterator for PrefixIter<'_, K> {
    type Item = K;

    #[inline]
    fn next(&mut self) -> Option<K> {
        self.next_path().map(|(_, key)| key)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

impl<K: PrefixKey> ExactSizeIterator for PrefixIter<'_, K> {}

/// NLRI of either family.
#[derive(Clone, Copy, Debug)]
pub enum Prefixes<'a> {
    /// IPv4 unicast.
    V4(PrefixIter<'a, V4>),
    /// IPv6 unicast.
    V6(PrefixIter<'a, V6>),
}

impl<'a> Prefixes<'a> {
    /// Checks `bytes` as NLRI of `family`.
    #[must_use]
    pub fn check(family: Family, bytes: &'a [u8], add_path: bool) -> Option<Self> {
        match family {
            Family::Ipv4Unicast => PrefixIter::check(bytes, add_path).map(Prefixes::V4),
            Family::Ipv6Unicast => PrefixIter::check(bytes, add_path).map(Prefixes::V6),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Prefixes::V4(prefixes) => prefixes.count,
            Prefixes::V6(prefixes) => prefixes.count,
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their family.
    #[must_use]
    pub fn family(&self) -> Family {
        match self {
            Prefixes::V4(_) => Family::Ipv4Unicast,
            Prefixes::V6(_) => Family::Ipv6Unicast,
        }
    }
}

/// Next hop of announced prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NextHop {
    /// NEXT_HOP, or MP_REACH_NLRI of IPv4.
    V4(Ipv4Addr),
    /// MP_REACH_NLRI with a next hop of 16 or 32 octets (RFC 2545 section 3).
    V6 {
        /// The first address: global, or link-local where the sender has no other.
        global: Ipv6Addr,
        /// The second address.
        link_local: Option<Ipv6Addr>,
    },
}

impl NextHop {
    /// The address that counts for the decision process: IPv4, or the first IPv6 address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        match self {
            NextHop::V4(address) => IpAddr::V4(address),
            NextHop::V6 { global, .. } => IpAddr::V6(global),
        }
    }
}

impl From<IpAddr> for NextHop {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => NextHop::V4(address),
            IpAddr::V6(global) => NextHop::V6 { global, link_local: None },
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn v4(bytes: &[u8]) -> Option<Vec<V4>> {
        PrefixIter::<V4>::check(bytes, false).map(Iterator::collect)
    }

    #[test]
    fn bits_beyond_the_length_do_not_count() {
        assert_eq!(v4(&[0]), Some(vec![(0, 0)]));
        assert_eq!(v4(&[9, 10, 0xff]), Some(vec![(0x0a80_0000, 9)]));
        assert_eq!(v4(&[32, 1, 2, 3, 4, 8, 10]), Some(vec![(0x0102_0304, 32), (0x0a00_0000, 8)]));
        // What follows a prefix is none of its business.
        assert_eq!(v4(&[8, 10, 24, 10, 1, 2]), Some(vec![(0x0a00_0000, 8), (0x0a01_0200, 24)]));
        let all =
            PrefixIter::<V6>::check(&[0, 128, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 3, 0xff], false);
        let all: Vec<V6> = all.unwrap().collect();
        assert_eq!(all, [(0, 0), (0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10, 128), (0xe << 124, 3)]);
    }

    #[test]
    fn lengths_beyond_the_family_and_the_end_are_refused() {
        assert_eq!(v4(&[]), Some(vec![]));
        assert_eq!(v4(&[33, 1, 2, 3, 4, 5]), None);
        assert_eq!(v4(&[24, 10, 0]), None);
        assert_eq!(v4(&[8, 10, 24]), None);
        assert!(PrefixIter::<V6>::check(&[129; 18], false).is_none());
        assert!(PrefixIter::<V4>::check(&[0, 0, 0], true).is_none());
    }

    #[test]
    fn path_identifiers_are_read_where_they_were_negotiated() {
        let mut paths = PrefixIter::<V4>::check(&[0, 0, 0, 7, 8, 10, 0, 0, 0, 8, 0], true).unwrap();
        assert_eq!(paths.len(), 2);
        assert_eq!(paths.next_path(), Some((7, (0x0a00_0000, 8))));
        assert_eq!(paths.next_path(), Some((8, (0, 0))));
        assert_eq!(paths.next_path(), None);
    }

    #[test]
    fn prefixes_are_written_as_they_are_read() {
        let mut out = Vec::new();
        for prefix in [(0_u32, 0_u8), (0x0a80_0000, 9), (0x0102_0304, 32)] {
            prefix.write(&mut out);
        }
        assert_eq!(out, [0, 9, 10, 0x80, 32, 1, 2, 3, 4]);
        out.clear();
        (0xfd00_u128 << 112, 12_u8).write(&mut out);
        assert_eq!(out, [12, 0xfd, 0]);
    }
}
