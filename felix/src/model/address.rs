//! Sets of addresses as ranges: a CIDR minus its exceptions is subtracted once, here, and never in the kernel.

use ipnet::IpNet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses as disjoint inclusive ranges in ascending order, IPv4 before IPv6, neighbours joined.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ranges {
    v4: Vec<(u128, u128)>,
    v6: Vec<(u128, u128)>,
}

impl Ranges {
    /// `cidr` without any of `except`. An exception of the other family takes nothing away.
    #[must_use]
    pub fn subtract(cidr: IpNet, except: &[IpNet]) -> Self {
        let mut holes: Vec<(u128, u128)> =
            except.iter().filter(|e| is_v4(e) == is_v4(&cidr)).map(|e| bounds(*e)).collect();
        holes.sort_unstable();
        let (mut next, last) = bounds(cidr);
        let mut left = Vec::new();
        let mut exhausted = false;
        for (from, to) in holes {
            if from > last {
                break;
            }
            if from > next {
                left.push((next, from - 1));
            }
            if to >= last {
                exhausted = true;
                break;
            }
            next = next.max(to + 1);
        }
        if !exhausted {
            left.push((next, last));
        }
        if is_v4(&cidr) { Self { v4: left, v6: Vec::new() } } else { Self { v4: Vec::new(), v6: left } }
    }

    /// A whole network.
    #[must_use]
    pub fn network(net: IpNet) -> Self {
        Self::subtract(net, &[])
    }

    /// Of one family, from first and last addresses as numbers.
    #[must_use]
    pub(crate) fn from_bounds(v4: bool, bounds: Vec<(u128, u128)>) -> Self {
        if v4 { Self { v4: join(bounds), v6: Vec::new() } } else { Self { v4: Vec::new(), v6: join(bounds) } }
    }

    /// First and last addresses of one family, as numbers.
    pub(crate) fn bounds(&self, v4: bool) -> &[(u128, u128)] {
        if v4 { &self.v4 } else { &self.v6 }
    }

    /// What is in any of them.
    #[must_use]
    pub fn union<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for ranges in all {
            v4.extend_from_slice(&ranges.v4);
            v6.extend_from_slice(&ranges.v6);
        }
        Self { v4: join(v4), v6: join(v6) }
    }

    /// The part of one family.
    #[must_use]
    pub fn of_family(&self, v4: bool) -> Self {
        if v4 { Self { v4: self.v4.clone(), v6: Vec::new() } } else { Self { v4: Vec::new(), v6: self.v6.clone() } }
    }

    /// Whether the address is inside.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (ranges, number) = match address {
            IpAddr::V4(a) => (&self.v4, u128::from(a.to_bits())),
            IpAddr::V6(a) => (&self.v6, a.to_bits()),
        };
        let behind = ranges.partition_point(|(from, _)| *from <= number);
        behind.checked_sub(1).is_some_and(|place| ranges[place].1 >= number)
    }

    /// The IPv4 ranges, first and last address.
    pub fn v4(&self) -> impl Iterator<Item = (Ipv4Addr, Ipv4Addr)> {
        self.v4.iter().map(|(from, to)| (to_v4(*from), to_v4(*to)))
    }

    /// The IPv6 ranges, first and last address.
    pub fn v6(&self) -> impl Iterator<Item = (Ipv6Addr, Ipv6Addr)> {
        self.v6.iter().map(|(from, to)| (Ipv6Addr::from_bits(*from), Ipv6Addr::from_bits(*to)))
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v4 = self.v4().map(|(a, b)| text(a, b, ipnet::Ipv4Subnets::new(a, b, 0)));
        let v6 = self.v6().map(|(a, b)| text(a, b, ipnet::Ipv6Subnets::new(a, b, 0)));
        let all: Vec<String> = v4.chain(v6).collect();
        f.write_str(if all.is_empty() { "no address" } else { "" })?;
        f.write_str(&all.join(", "))
    }
}

/// An address, a network, or the ends of a range that is neither.
fn text<A: fmt::Display + PartialEq, N: fmt::Display>(a: A, b: A, mut networks: impl Iterator<Item = N>) -> String {
    match (networks.next(), networks.next()) {
        _ if a == b => a.to_string(),
        (Some(network), None) => network.to_string(),
        _ => format!("{a}-{b}"),
    }
}

fn is_v4(net: &IpNet) -> bool {
    matches!(net, IpNet::V4(_))
}

fn bounds(net: IpNet) -> (u128, u128) {
    match net {
        IpNet::V4(n) => (n.network().to_bits().into(), n.broadcast().to_bits().into()),
        IpNet::V6(n) => (n.network().to_bits(), n.broadcast().to_bits()),
    }
}

fn to_v4(number: u128) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::try_from(number).expect("an IPv4 range holds 32-bit numbers only"))
}

fn join(mut ranges: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    ranges.sort_unstable();
    let mut joined: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
    for (from, to) in ranges {
        match joined.last_mut() {
            Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
            _ => joined.push((from, to)),
        }
    }
    joined
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn shown(cidr: &str, except: &[&str]) -> String {
        Ranges::subtract(net(cidr), &except.iter().map(|e| net(e)).collect::<Vec<_>>()).to_string()
    }

    #[test]
    fn exceptions_are_taken_out_wherever_they_lie() {
        assert_eq!(shown("10.0.0.0/24", &[]), "10.0.0.0/24");
        assert_eq!(shown("10.0.0.0/24", &["10.0.0.0/25"]), "10.0.0.128/25");
        assert_eq!(shown("10.0.0.0/24", &["10.0.0.128/25"]), "10.0.0.0/25");
        assert_eq!(shown("10.0.0.0/30", &["10.0.0.1/32", "10.0.0.3/32"]), "10.0.0.0, 10.0.0.2");
        assert_eq!(shown("10.0.0.0/24", &["10.0.0.0/26"]), "10.0.0.64-10.0.0.255");
        assert_eq!(shown("10.0.0.0/24", &["10.0.0.0/24"]), "no address");
        assert_eq!(shown("10.0.0.0/24", &["10.0.0.0/25", "10.0.0.64/26", "10.0.0.128/25"]), "no address");
    }

    #[test]
    fn the_whole_address_space_can_be_named_and_emptied() {
        assert_eq!(shown("0.0.0.0/0", &[]), "0.0.0.0/0");
        assert_eq!(shown("0.0.0.0/0", &["0.0.0.0/0"]), "no address");
        assert_eq!(shown("::/0", &["::/1"]), "8000::/1");
        assert_eq!(shown("::/0", &["8000::/1", "::/1"]), "no address");
    }

    #[test]
    fn a_union_joins_neighbours_and_overlaps() {
        let parts = [
            Ranges::subtract(net("10.0.0.0/25"), &[]),
            Ranges::subtract(net("10.0.0.128/25"), &[]),
            Ranges::subtract(net("fd00::/127"), &[]),
            Ranges::subtract(net("10.0.0.16/28"), &[]),
            Ranges::subtract(net("10.0.2.0/32"), &[]),
        ];
        assert_eq!(Ranges::union(&parts).to_string(), "10.0.0.0/24, 10.0.2.0, fd00::/127");
    }
}
