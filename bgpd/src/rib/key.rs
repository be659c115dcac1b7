//! What a prefix is inside the RIB: 8 bytes for IPv4, 17 for IPv6.

use crate::wire::{self, Family, PrefixKey};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::fmt::Debug;
use std::hash::Hash;

/// A prefix of one family. Bits behind the length are zero.
pub trait Key: Copy + Eq + Ord + Hash + Debug + Send + 'static {
    /// The prefix as the rest of the program names it.
    fn net(self) -> IpNet;
    /// The key of `net`, if it is of this family.
    fn of(net: IpNet) -> Option<Self>;
    /// The codec's form of a prefix of this family.
    type Wire: PrefixKey;
    /// The key of what the codec read.
    fn from_wire(wire: Self::Wire) -> Self;
    /// What the codec writes.
    fn wire(self) -> Self::Wire;
    /// The family.
    const FAMILY: Family = <Self::Wire as PrefixKey>::FAMILY;
}

/// An IPv4 prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct V4 {
    address: u32,
    length: u8,
}

/// An IPv6 prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct V6 {
    address: [u8; 16],
    length: u8,
}

impl V4 {
    /// The prefix of `length` bits, at most 32, that holds `address` (host byte order).
    #[must_use]
    pub fn new(address: u32, length: u8) -> Self {
        let length = length.min(32);
        let mask = if length == 0 { 0 } else { u32::MAX << (32 - length) };
        Self { address: address & mask, length }
    }

    /// Network address in host byte order.
    #[must_use]
    pub fn address(self) -> u32 {
        self.address
    }

    /// Length in bits.
    #[must_use]
    pub fn length(self) -> u8 {
        self.length
    }
}

/// One multiplication instead of one per field.
impl Hash for V4 {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(self.address) << 8 | u64::from(self.length));
    }
}

impl Key for V4 {
    fn net(self) -> IpNet {
        IpNet::V4(Ipv4Net::new_assert(self.address.into(), self.length))
    }

    fn of(net: IpNet) -> Option<Self> {
        match net {
            IpNet::V4(net) => Some(Self::new(net.addr().into(), net.prefix_len())),
            IpNet::V6(_) => None,
        }
    }

    type Wire = wire::V4;

    fn from_wire((address, length): wire::V4) -> Self {
        Self { address, length }
    }

    fn wire(self) -> wire::V4 {
        (self.address, self.length)
    }
}

impl Key for V6 {
    fn net(self) -> IpNet {
        IpNet::V6(Ipv6Net::new_assert(self.address.into(), self.length))
    }

    fn of(net: IpNet) -> Option<Self> {
        match net {
            IpNet::V4(_) => None,
            IpNet::V6(net) => Some(Self { address: net.network().octets(), length: net.prefix_len() }),
        }
    }

    type Wire = wire::V6;

    fn from_wire((address, length): wire::V6) -> Self {
        Self { address: address.to_be_bytes(), length }
    }

    fn wire(self) -> wire::V6 {
        (u128::from_be_bytes(self.address), self.length)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_small_and_name_the_network() {
        assert_eq!(size_of::<V4>(), 8);
        assert_eq!(size_of::<V6>(), 17);
        for text in ["10.1.2.0/24", "0.0.0.0/0", "10.1.2.3/32"] {
            assert_eq!(V4::of(text.parse().unwrap()).unwrap().net().to_string(), text);
        }
        assert_eq!(V6::of("fd10:1::/64".parse().unwrap()).unwrap().net().to_string(), "fd10:1::/64");
    }

    #[test]
    fn host_bits_do_not_make_another_prefix() {
        assert_eq!(V4::new(0x0a01_02ff, 24), V4::new(0x0a01_0200, 24));
        assert_eq!(V6::of("fd10::1/64".parse().unwrap()), V6::of("fd10::/64".parse().unwrap()));
    }
}
