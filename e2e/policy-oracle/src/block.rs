//! `networking/v1 IPBlock`, from its text: strings and bits.

use k8s_openapi::api::networking::v1::IPBlock;
use std::net::IpAddr;

/// "cidr is a string representing the IPBlock"; "except is a slice of CIDRs that should not be included within an IPBlock".
pub(crate) fn contains(block: &IPBlock, address: IpAddr) -> bool {
    cidr_contains(&block.cidr, address) && !block.except.iter().flatten().any(|e| cidr_contains(e, address))
}

/// "Except values will be rejected if they are outside the cidr range."
pub(crate) fn is_valid(block: &IPBlock) -> bool {
    let Some(outer) = parse(&block.cidr) else { return false };
    block.except.iter().flatten().all(|text| {
        parse(text)
            .is_some_and(|(hole, length)| length >= outer.1 && hole.len() == outer.0.len() && covers(&outer, &hole))
    })
}

/// Whether an address lies in a CIDR; in one that cannot be read lies none.
pub(crate) fn cidr_contains(cidr: &str, address: IpAddr) -> bool {
    parse(cidr).is_some_and(|net| covers(&net, &bits(address)))
}

/// CEL's `isCIDR`: bits beyond the prefix may be set; no zone, no IPv4 address in IPv6 clothes, no length like `08` or `+8`.
pub(crate) fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let plain = length == "0" || (!length.starts_with('0') && length.chars().all(|c| c.is_ascii_digit()));
    let mapped = matches!(address.parse(), Ok(IpAddr::V6(a)) if a.to_ipv4_mapped().is_some());
    plain && !mapped && parse(text).is_some()
}

type Bits = Vec<bool>;

fn parse(text: &str) -> Option<(Bits, usize)> {
    let (address, length) = text.split_once('/')?;
    let bits = bits(address.parse().ok()?);
    let length = length.parse().ok().filter(|l| *l <= bits.len())?;
    Some((bits, length))
}

fn bits(address: IpAddr) -> Bits {
    let octets = match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    };
    octets.iter().flat_map(|octet| (0..8).rev().map(move |i| octet & (1 << i) != 0)).collect()
}

fn covers((net, length): &(Bits, usize), address: &Bits) -> bool {
    net.len() == address.len() && net[..*length] == address[..*length]
}
