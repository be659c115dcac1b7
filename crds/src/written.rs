//! Values as people write them: what cannot be read is refused in words that say how it is written.

use ipnet::IpNet;
use serde::de::{Deserialize, Deserializer, Error};
use std::net::IpAddr;

/// A range of addresses.
pub(crate) fn range<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpNet, D::Error> {
    read_range(&String::deserialize(deserializer)?)
}

/// Ranges of addresses.
pub(crate) fn ranges<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    Vec::<String>::deserialize(deserializer)?.iter().map(|text| read_range(text)).collect()
}

/// An address that may be left out.
pub(crate) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
    Option::<String>::deserialize(deserializer)?.map(|text| read(&text)).transpose()
}

/// An address.
pub(crate) fn one_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpAddr, D::Error> {
    read(&String::deserialize(deserializer)?)
}

/// Addresses.
pub(crate) fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpAddr>, D::Error> {
    Vec::<String>::deserialize(deserializer)?.iter().map(|text| read(text)).collect()
}

fn read_range<E: Error>(text: &str) -> Result<IpNet, E> {
    let range = text.parse::<IpNet>().ok().filter(|range| !is_mapped(range.addr()));
    let problem = || format!("\"{text}\" is no range of addresses; write it like 10.42.0.0/16 or fd42::/48");
    range.ok_or_else(|| E::custom(problem()))
}

fn read<E: Error>(text: &str) -> Result<IpAddr, E> {
    let address = text.parse::<IpAddr>().ok().filter(|address| !is_mapped(*address));
    address.ok_or_else(|| E::custom(format!("\"{text}\" is no address; write it like 172.31.1.1 or fd00::1")))
}

/// An IPv4 address in the dress of IPv6 (RFC 4291 section 2.5.5.2): no host has it, and Kubernetes does not take it.
fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}
