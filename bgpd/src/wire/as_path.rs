//! AS_PATH with four-octet numbers (RFC 4271 section 4.3, RFC 6793).

use std::fmt;

/// An AS_PATH in canonical form: checked, four octets a number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct AsPath<'a>(pub(super) &'a [u8]);

/// One segment of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Whether it is an AS_SET (unordered) and not an AS_SEQUENCE.
    pub set: bool,
    /// AS numbers in network byte order.
    pub asns: &'a [[u8; 4]],
}

/// Iterator over the segments of a path.
#[derive(Clone, Debug)]
pub struct Segments<'a>(&'a [u8]);

impl<'a> Iterator for Segments<'a> {
    type Item = Segment<'a>;

    fn next(&mut self) -> Option<Segment<'a>> {
        let (&[kind, count], rest) = self.0.split_first_chunk::<2>()?;
        let (asns, rest) = rest.split_at_checked(usize::from(count) * 4)?;
        self.0 = rest;
        Some(Segment { set: kind == 1, asns: asns.as_chunks().0 })
    }
}

impl<'a> AsPath<'a> {
    /// The value of the attribute.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// The segments, nearest first.
    #[must_use]
    pub fn segments(self) -> Segments<'a> {
        Segments(self.0)
    }

    /// All AS numbers, nearest first, those of sets included.
    pub fn asns(self) -> impl Iterator<Item = u32> + 'a {
        self.segments().flat_map(|segment| segment.asns.iter().map(|asn| u32::from_be_bytes(*asn)))
    }

    /// Length for the decision process: a set counts as one (RFC 4271 section 9.1.2.2 a).
    #[must_use]
    pub fn length(self) -> u32 {
        self.segments().map(|segment| if segment.set { 1 } else { segment.asns.len() as u32 }).sum()
    }

    /// The neighbouring AS: the first number, if the path begins with a sequence.
    #[must_use]
    pub fn first(self) -> Option<u32> {
        let segment = self.segments().next()?;
        segment.asns.first().filter(|_| !segment.set).map(|asn| u32::from_be_bytes(*asn))
    }

    /// The originating AS: the last number, if the path ends with a sequence.
    #[must_use]
    pub fn origin(self) -> Option<u32> {
        let segment = self.segments().last()?;
        segment.asns.last().filter(|_| !segment.set).map(|asn| u32::from_be_bytes(*asn))
    }

    /// How often `asn` stands in the path.
    #[must_use]
    pub fn count(self, asn: u32) -> usize {
        self.asns().filter(|other| *other == asn).count()
    }

    /// Whether there is no segment: the route originates in the peer's own AS (iBGP).
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for AsPath<'_> {
    /// `65001 65002 {65010,65011}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut space = "";
        for segment in self.segments() {
            if segment.set {
                write!(f, "{space}{{")?;
                let mut comma = "";
                for asn in segment.asns {
                    write!(f, "{comma}{}", u32::from_be_bytes(*asn))?;
                    comma = ",";
                }
                f.write_str("}")?;
                space = " ";
                continue;
            }
            for asn in segment.asns {
                write!(f, "{space}{}", u32::from_be_bytes(*asn))?;
                space = " ";
            }
        }
        Ok(())
    }
}

impl fmt::Debug for AsPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AsPath({self})")
    }
}

/// AS_PATH as spoken with peers that know only two octets (RFC 6793).
pub(super) mod two_octet {
    use super::super::AS_TRANS;

    /// The longest AS_PATH and AS4_PATH taken from a peer, in octets: with four octets a number their merger still
    /// fits into one attribute.
    const LONGEST: usize = 16 * 1024;

    /// One segment: type and octets of its numbers.
    struct Raw<'a> {
        kind: u8,
        asns: &'a [u8],
        width: usize,
    }

    impl Raw<'_> {
        /// How many numbers it counts for (RFC 4271 section 9.1.2.2 a).
        fn count(&self) -> usize {
            if self.kind == 1 { 1 } else { self.asns.len() / self.width }
        }
    }

    /// Segments of checked octets.
    fn segments(mut path: &[u8], width: usize) -> impl Iterator<Item = Raw<'_>> {
        std::iter::from_fn(move || {
            let (&[kind, count], rest) = path.split_first_chunk::<2>()?;
            let (asns, rest) = rest.split_at_checked(usize::from(count) * width)?;
            path = rest;
            Some(Raw { kind, asns, width })
        })
    }

    fn is_valid(path: &[u8], width: usize, kinds: std::ops::RangeInclusive<u8>) -> bool {
        let mut length = 0;
        let all = segments(path, width).all(|segment| {
            length += 2 + segment.asns.len();
            kinds.contains(&segment.kind)
                && !segment.asns.is_empty()
                && !segment.asns.chunks_exact(width).any(|asn| asn.iter().all(|octet| *octet == 0))
        });
        all && length == path.len() && length <= LONGEST
    }

    /// Whether an AS_PATH of two-octet numbers is well-formed.
    pub(crate) fn path_is_valid(path: &[u8]) -> bool {
        is_valid(path, 2, 1..=2)
    }

    /// Whether an AS4_PATH is well-formed (RFC 6793 section 6); confederation segments are, and are left out later.
    pub(crate) fn as4_path_is_valid(path: &[u8]) -> bool {
        !path.is_empty() && is_valid(path, 4, 1..=4)
    }

    /// Path of four-octet numbers from AS_PATH and AS4_PATH (RFC 6793 section 4.2.3): as many leading numbers of the
    /// former as it is longer than the latter, then the latter; without AS4_PATH, or if that is the longer one, the
    /// former alone.
    pub(crate) fn merge(path: &[u8], as4_path: &[u8]) -> Vec<u8> {
        let as4 = || segments(as4_path, 4).filter(|segment| segment.kind <= 2);
        let length: usize = segments(path, 2).map(|segment| segment.count()).sum();
        let as4_length: usize = as4().map(|segment| segment.count()).sum();
        let mut leading = match length.checked_sub(as4_length) {
            Some(more) if as4_length > 0 => more,
            _ => usize::MAX,
        };
        let keeps_as4 = leading != usize::MAX;
        let mut merged = Vec::with_capacity(path.len() * 2 + as4_path.len());
        for segment in segments(path, 2) {
            if leading == 0 {
                break;
            }
            let numbers = segment.asns.len() / 2;
            let taken = if segment.kind == 1 { numbers } else { numbers.min(leading) };
            leading = leading.saturating_sub(segment.count());
            merged.extend_from_slice(&[segment.kind, u8::try_from(taken).unwrap_or(u8::MAX)]);
            for asn in segment.asns.as_chunks::<2>().0.iter().take(taken) {
                merged.extend_from_slice(&[0, 0, asn[0], asn[1]]);
            }
        }
        for segment in as4().filter(|_| keeps_as4) {
            let count = u8::try_from(segment.asns.len() / 4).unwrap_or(u8::MAX);
            merged.extend_from_slice(&[segment.kind, count]);
            merged.extend_from_slice(segment.asns);
        }
        merged
    }

    /// The same path in two-octet numbers; whether AS_TRANS had to stand in for one.
    pub(crate) fn shorten(path: super::AsPath<'_>) -> (Vec<u8>, bool) {
        let mut short = Vec::with_capacity(path.0.len());
        let mut substituted = false;
        for segment in path.segments() {
            short.extend_from_slice(&[
                if segment.set { 1 } else { 2 },
                u8::try_from(segment.asns.len()).unwrap_or(u8::MAX),
            ]);
            for asn in segment.asns {
                let asn = u16::try_from(u32::from_be_bytes(*asn)).unwrap_or_else(|_| {
                    substituted = true;
                    AS_TRANS
                });
                short.extend_from_slice(&asn.to_be_bytes());
            }
        }
        (short, substituted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &[u8] = &[2, 2, 0, 0, 0xfd, 0xe9, 0, 1, 0, 0, 1, 2, 0, 0, 0, 1, 0, 0, 0, 2];

    #[test]
    fn a_set_counts_as_one_and_has_no_neighbour() {
        let path = AsPath(PATH);
        assert_eq!(path.to_string(), "65001 65536 {1,2}");
        assert_eq!((path.length(), path.first(), path.origin(), path.count(65001)), (3, Some(65001), None, 1));
        assert_eq!((AsPath(&PATH[10..]).first(), AsPath(&[]).first(), AsPath(&[]).length()), (None, None, 0));
        assert_eq!(path.asns().collect::<Vec<_>>(), [65001, 65536, 1, 2]);
    }

    /// Segments: type and numbers.
    type Path = &'static [(u8, &'static [u32])];

    /// Segments as octets.
    fn path(width: usize, segments: Path) -> Vec<u8> {
        let mut out = Vec::new();
        for (kind, asns) in segments {
            out.extend_from_slice(&[*kind, u8::try_from(asns.len()).expect("short")]);
            asns.iter().for_each(|asn| out.extend_from_slice(&asn.to_be_bytes()[4 - width..]));
        }
        out
    }

    #[test]
    fn as4_path_replaces_the_tail_of_as_path() {
        // RFC 6793 section 4.2.3: the numbers are counted from the far end.
        let merged = |old: Path, new: Path| two_octet::merge(&path(2, old), &path(4, new));
        const TRANS: u32 = 23456;
        let cases: [(Path, Path, Path); 6] = [
            (&[(2, &[1, TRANS, TRANS])], &[(2, &[70000, 80000])], &[(2, &[1]), (2, &[70000, 80000])]),
            (&[(2, &[TRANS, TRANS])], &[(2, &[70000, 80000])], &[(2, &[70000, 80000])]),
            // A longer AS4_PATH is a lie.
            (&[(2, &[TRANS])], &[(2, &[70000, 80000])], &[(2, &[TRANS])]),
            (&[(2, &[1, 2])], &[], &[(2, &[1, 2])]),
            // A set counts as one, and is taken whole.
            (&[(1, &[1, 2]), (2, &[TRANS])], &[(2, &[70000])], &[(1, &[1, 2]), (2, &[70000])]),
            // Confederation segments do not belong there.
            (&[(2, &[1, TRANS])], &[(3, &[9, 9]), (2, &[70000])], &[(2, &[1]), (2, &[70000])]),
        ];
        for (old, new, expected) in cases {
            assert_eq!(merged(old, new), path(4, expected), "{old:?} and {new:?}");
        }
    }
}
