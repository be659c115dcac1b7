//! The meaning of an UPDATE, in nobody's types.
#![allow(missing_docs)]

use std::net::{Ipv4Addr, Ipv6Addr};
use twill_bgpd::wire::{V4, V6};

/// Prefixes of one family.
#[derive(Clone, Debug, PartialEq)]
pub enum Nlri {
    /// IPv4: address and length.
    V4(Vec<V4>),
    /// IPv6.
    V6(Vec<V6>),
}

/// Where they lead.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Hop {
    /// IPv4.
    V4(Ipv4Addr),
    /// Global address, and link-local one.
    V6(Ipv6Addr, Option<Ipv6Addr>),
}

/// A set of attributes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Set {
    pub origin: u8,
    /// Segments: whether it is an AS_SET, and its numbers.
    pub path: Vec<(bool, Vec<u32>)>,
    pub med: Option<u32>,
    pub local_pref: Option<u32>,
    pub atomic: bool,
    pub aggregator: Option<(u32, Ipv4Addr)>,
    pub communities: Vec<u32>,
    pub originator: Option<Ipv4Addr>,
    pub clusters: Vec<Ipv4Addr>,
    pub extended: Vec<u64>,
    pub large: Vec<(u32, u32, u32)>,
    /// Optional transitive attributes that nobody knows: type and value.
    pub unknown: Vec<(u8, Vec<u8>)>,
}

/// An UPDATE that says one thing.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a test's value")]
pub enum Update {
    Announce { hop: Hop, nlri: Nlri, set: Set },
    Withdraw(Nlri),
}
