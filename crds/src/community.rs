//! BGP communities as people write them: `65000:1` (RFC 1997), `65000:1:2` (RFC 8092), `rt:65000:1` and `soo:65000:1` (RFC 4360), and
//! the well-known ones by name. In patterns `*` stands for any number.

use std::fmt;
use std::str::FromStr;

/// Well-known communities (RFC 1997, 3765, 7999, 8326, 9494) by name.
const WELL_KNOWN: [(&str, u32); 8] = [
    ("no-export", 0xffff_ff01),
    ("no-advertise", 0xffff_ff02),
    ("no-export-subconfed", 0xffff_ff03),
    ("no-peer", 0xffff_ff04),
    ("graceful-shutdown", 0xffff_0000),
    ("llgr-stale", 0xffff_0006),
    ("no-llgr", 0xffff_0007),
    ("blackhole", 0xffff_029a),
];

/// Type of a transitive extended community by the form of its administrator (RFC 4360 section 3.1, RFC 5668).
const TWO_OCTET_AS: u8 = 0x00;
const FOUR_OCTET_AS: u8 = 0x02;

/// A community, in network byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Community {
    /// RFC 1997.
    Standard([u8; 4]),
    /// RFC 8092.
    Large([u8; 12]),
    /// RFC 4360.
    Extended([u8; 8]),
}

/// Communities that differ in the numbers which the pattern leaves open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CommunityPattern {
    /// AS and number.
    Standard([Option<u16>; 2]),
    /// Administrator and two numbers.
    Large([Option<u32>; 3]),
    /// Sub-type (2 route target, 3 route origin), AS and number.
    Extended(u8, [Option<u32>; 2]),
}

/// A text that is no community.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no community; write it like 65000:1, 65000:1:2, rt:65000:1 or no-export{1}, each number as large as its kind has room for"
)]
pub struct NoCommunity(String, &'static str);

impl CommunityPattern {
    /// Whether the pattern is about this one.
    #[must_use]
    pub fn matches(&self, community: &Community) -> bool {
        match (self, community) {
            (Self::Standard(parts), Community::Standard(octets)) => {
                let numbers = octets.as_chunks::<2>().0;
                parts.iter().zip(numbers).all(|(part, number)| part.is_none_or(|p| p.to_be_bytes() == *number))
            }
            (Self::Large(parts), Community::Large(octets)) => {
                let numbers = octets.as_chunks::<4>().0;
                parts.iter().zip(numbers).all(|(part, number)| part.is_none_or(|p| p.to_be_bytes() == *number))
            }
            (Self::Extended(sub_type, [asn, number]), Community::Extended(octets)) => extended_parts(octets)
                .is_some_and(|(kind, of_asn, of_number)| {
                    kind == *sub_type
                        && asn.is_none_or(|asn| asn == of_asn)
                        && number.is_none_or(|number| number == of_number)
                }),
            _ => false,
        }
    }

    /// The only community that it is about, if nothing is left open.
    #[must_use]
    pub fn exact(&self) -> Option<Community> {
        match *self {
            Self::Standard([Some(asn), Some(number)]) => {
                Some(Community::Standard((u32::from(asn) << 16 | u32::from(number)).to_be_bytes()))
            }
            Self::Large([Some(a), Some(b), Some(c)]) => {
                let mut octets = [0; 12];
                for (place, number) in octets.as_chunks_mut::<4>().0.iter_mut().zip([a, b, c]) {
                    *place = number.to_be_bytes();
                }
                Some(Community::Large(octets))
            }
            Self::Extended(sub_type, [Some(asn), Some(number)]) => extended(sub_type, asn, number),
            _ => None,
        }
    }
}

/// Sub-type, AS and number of a transitive community that names an AS.
fn extended_parts(octets: &[u8; 8]) -> Option<(u8, u32, u32)> {
    let [kind, sub_type, a, b, c, d, e, f] = *octets;
    match kind {
        TWO_OCTET_AS => Some((sub_type, u32::from_be_bytes([0, 0, a, b]), u32::from_be_bytes([c, d, e, f]))),
        FOUR_OCTET_AS => Some((sub_type, u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([0, 0, e, f]))),
        _ => None,
    }
}

/// None: the AS needs four octets, and the number then has no room in two.
fn extended(sub_type: u8, asn: u32, number: u32) -> Option<Community> {
    let mut octets = [0; 8];
    octets[1] = sub_type;
    if let Ok(asn) = u16::try_from(asn) {
        octets[2..4].copy_from_slice(&asn.to_be_bytes());
        octets[4..].copy_from_slice(&number.to_be_bytes());
    } else {
        octets[0] = FOUR_OCTET_AS;
        octets[2..6].copy_from_slice(&asn.to_be_bytes());
        octets[6..].copy_from_slice(&u16::try_from(number).ok()?.to_be_bytes());
    }
    Some(Community::Extended(octets))
}

impl FromStr for CommunityPattern {
    type Err = NoCommunity;

    fn from_str(text: &str) -> Result<Self, NoCommunity> {
        let none = || NoCommunity(text.to_owned(), ", with * for any number");
        if let Some((_, value)) = WELL_KNOWN.iter().find(|(name, _)| *name == text) {
            let (high, low) = ((value >> 16) as u16, *value as u16);
            return Ok(Self::Standard([Some(high), Some(low)]));
        }
        let parts: Vec<&str> = text.split(':').collect();
        match parts[..] {
            [kind @ ("rt" | "soo"), asn, number] => {
                let parts = [part(asn).ok_or_else(none)?, part(number).ok_or_else(none)?];
                if let [Some(asn), Some(number)] = parts {
                    extended(0, asn, number).ok_or_else(none)?;
                }
                Ok(Self::Extended(if kind == "rt" { 2 } else { 3 }, parts))
            }
            [asn, number] => Ok(Self::Standard([part(asn).ok_or_else(none)?, part(number).ok_or_else(none)?])),
            [a, b, c] => {
                let parts = [a, b, c].map(part);
                let [Some(a), Some(b), Some(c)] = parts else { return Err(none()) };
                Ok(Self::Large([a, b, c]))
            }
            _ => Err(none()),
        }
    }
}

/// A number in decimal digits without sign or leading zero, or `*`.
#[expect(clippy::option_option, reason = "no number at all is not any number")]
fn part<N: FromStr>(text: &str) -> Option<Option<N>> {
    if text == "*" {
        return Some(None);
    }
    let plain = text.bytes().all(|octet| octet.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain).map(Some)
}

impl FromStr for Community {
    type Err = NoCommunity;

    fn from_str(text: &str) -> Result<Self, NoCommunity> {
        let pattern = text.parse::<CommunityPattern>().ok();
        pattern.and_then(|pattern| pattern.exact()).ok_or_else(|| NoCommunity(text.to_owned(), ""))
    }
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard(octets) => {
                let value = u32::from_be_bytes(*octets);
                match WELL_KNOWN.iter().find(|(_, known)| *known == value) {
                    Some((name, _)) => f.write_str(name),
                    None => write!(f, "{}:{}", value >> 16, value & 0xffff),
                }
            }
            Self::Large(octets) => {
                let numbers = octets.as_chunks::<4>().0;
                let [a, b, c] = [0, 1, 2].map(|at| u32::from_be_bytes(numbers[at]));
                write!(f, "{a}:{b}:{c}")
            }
            Self::Extended(octets) => match extended_parts(octets) {
                Some((2, asn, number)) => write!(f, "rt:{asn}:{number}"),
                Some((3, asn, number)) => write!(f, "soo:{asn}:{number}"),
                _ => write!(f, "0x{:016x}", u64::from_be_bytes(*octets)),
            },
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_read_and_written_alike() {
        for text in
            ["65000:1", "0:0", "4200000000:1:2", "rt:65000:4200000000", "soo:4200000000:7", "no-export", "blackhole"]
        {
            assert_eq!(text.parse::<Community>().unwrap().to_string(), text);
        }
        assert_eq!("65535:0".parse::<Community>().unwrap().to_string(), "graceful-shutdown");
        assert_eq!("65000:1".parse::<Community>().unwrap(), Community::Standard([0xfd, 0xe8, 0, 1]));
        assert_eq!("rt:65000:1".parse::<Community>().unwrap(), Community::Extended([0, 2, 0xfd, 0xe8, 0, 0, 0, 1]));
        assert_eq!("rt:70000:1".parse::<Community>().unwrap(), Community::Extended([2, 2, 0, 1, 0x11, 0x70, 0, 1]));
    }

    #[test]
    fn what_is_no_community_is_refused_with_the_way_out() {
        for text in [
            "",
            "65000",
            "65536:1",
            "1:65536",
            "-1:2",
            "+1:2",
            "01:2",
            "1:2:3:4",
            "rt:70000:65536",
            "x:1",
            "no-exports",
            "1:*",
            "rt:1",
        ] {
            let problem = text.parse::<Community>().unwrap_err().to_string();
            assert!(problem.starts_with(&format!("\"{text}\" is no community; write it like 65000:1")), "{problem}");
        }
    }

    #[test]
    fn a_pattern_leaves_numbers_open() {
        let matches = |pattern: &str, text: &str| {
            pattern.parse::<CommunityPattern>().unwrap().matches(&text.parse::<Community>().unwrap())
        };
        assert!(matches("65000:*", "65000:7") && matches("*:*", "1:2") && !matches("65000:*", "65001:7"));
        assert!(matches("65000:*:1", "65000:9:1") && !matches("65000:*:1", "65000:9:2"));
        assert!(matches("rt:*:1", "rt:70000:1") && !matches("rt:*:1", "soo:70000:1") && !matches("*:*", "1:2:3"));
        assert!("65000:*".parse::<CommunityPattern>().unwrap().exact().is_none());
    }
}
