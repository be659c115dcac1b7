//! The form in which equal sets of attributes are equal octets.

use super::{Attribute, AttributeBlock, SLOT, Walk, class, flag, kind, put, put_head};
use crate::wire::as_path::two_octet;

impl<'a> AttributeBlock<'a> {
    /// Appends the canonical form; at most 64 KiB.
    pub fn write_canonical(&self, out: &mut Vec<u8>) {
        let mut unknown_from = 0;
        for kind in [
            kind::ORIGIN,
            kind::AS_PATH,
            kind::MULTI_EXIT_DISC,
            kind::LOCAL_PREF,
            kind::ATOMIC_AGGREGATE,
            kind::AGGREGATOR,
            kind::COMMUNITIES,
            kind::ORIGINATOR_ID,
            kind::CLUSTER_LIST,
            kind::EXTENDED_COMMUNITIES,
            kind::IPV6_EXTENDED_COMMUNITIES,
            kind::LARGE_COMMUNITIES,
            kind::ONLY_TO_CUSTOMER,
        ] {
            if self.unknown {
                self.write_unknown(unknown_from, kind, out);
                unknown_from = kind;
            }
            let Some(value) = self.value(kind) else { continue };
            let partial = self.partial >> SLOT[usize::from(kind)] & 1 != 0;
            let flags = class(kind) | if partial { flag::PARTIAL } else { 0 };
            match kind {
                kind::AS_PATH if !self.four_octet_as => self.write_merged_path(value, out),
                kind::AGGREGATOR if !self.four_octet_as => self.write_merged_aggregator(flags, value, out),
                _ => put(out, flags, kind, value),
            }
        }
        if self.unknown {
            self.write_unknown(unknown_from, u8::MAX, out);
        }
    }

    /// Appends the unknown optional transitive attributes of types above `after`, below `before` (255 included), in
    /// ascending order, with the Partial bit (RFC 4271 section 5). The first of several counts.
    #[cold]
    fn write_unknown(&self, after: u8, before: u8, out: &mut Vec<u8>) {
        let mut found: [Option<Attribute<'a>>; 256] = [None; 256];
        for attribute in Walk::new(self.raw).map_while(Result::ok) {
            let kind = attribute.kind;
            let wanted =
                SLOT[usize::from(kind)] == 0 && (kind > after || after == 0) && (kind < before || before == u8::MAX);
            // Duplicates: the first one occupies the place whatever its flags are, as in the check.
            if wanted && found[usize::from(kind)].is_none() {
                found[usize::from(kind)] = Some(attribute);
            }
        }
        for attribute in found.into_iter().flatten().filter(|a| a.flags & flag::CLASS == flag::CLASS) {
            put(out, attribute.flags | flag::PARTIAL, attribute.kind, attribute.value);
        }
    }

    /// Whether AS4_PATH and AS4_AGGREGATOR count: not if AGGREGATOR shows that a speaker on the way aggregated without
    /// knowing them (RFC 6793 section 4.2.3).
    fn as4_counts(&self) -> bool {
        match (self.value(kind::AGGREGATOR), self.value(kind::AS4_AGGREGATOR)) {
            (Some(aggregator), Some(_)) => aggregator.starts_with(&crate::wire::AS_TRANS.to_be_bytes()),
            _ => true,
        }
    }

    #[cold]
    fn write_merged_path(&self, path: &[u8], out: &mut Vec<u8>) {
        let as4_path = self.value(kind::AS4_PATH).filter(|_| self.as4_counts());
        let merged = two_octet::merge(path, as4_path.unwrap_or(&[]));
        put(out, class(kind::AS_PATH), kind::AS_PATH, &merged);
    }

    #[cold]
    fn write_merged_aggregator(&self, flags: u8, value: &[u8], out: &mut Vec<u8>) {
        let as4 = self.value(kind::AS4_AGGREGATOR).filter(|_| self.as4_counts());
        put_head(out, flags, kind::AGGREGATOR, 8);
        match as4 {
            Some(as4) => out.extend_from_slice(as4),
            None => {
                out.extend_from_slice(&[0, 0]);
                out.extend_from_slice(value);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{Context, check};

    fn canonical(raw: &[u8], ebgp: bool, four_octet_as: bool) -> Vec<u8> {
        let checked = check(raw, Context { ebgp, four_octet_as }).unwrap();
        assert_eq!(checked.fault.map(|(fault, _)| fault), None);
        let mut out = Vec::new();
        checked.block.write_canonical(&mut out);
        out
    }

    const ORIGIN: &[u8] = &[0x40, 1, 1, 0];
    const PATH: &[u8] = &[0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9];
    const NEXT_HOP: &[u8] = &[0x40, 3, 4, 192, 0, 2, 1];
    const MED: &[u8] = &[0x80, 4, 4, 0, 0, 0, 7];

    #[test]
    fn order_length_form_next_hop_and_unused_bits_do_not_matter() {
        let expected = [ORIGIN, PATH, MED].concat();
        assert_eq!(canonical(&[ORIGIN, PATH, NEXT_HOP, MED].concat(), true, true), expected);
        assert_eq!(canonical(&[MED, PATH, NEXT_HOP, ORIGIN].concat(), true, true), expected);
        let spelled =
            [&[0x5f, 1, 0, 1, 0][..], &[0x60, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9], &[0xa0, 4, 4, 0, 0, 0, 7]].concat();
        assert_eq!(canonical(&spelled, true, true), expected);
    }

    #[test]
    fn unknown_transitive_attributes_stay_in_order_with_the_partial_bit_and_others_go() {
        let high = [0xc0, 250, 1, 9];
        let low = [0xe0, 20, 0];
        let raw = [&high[..], ORIGIN, &[0x80, 251, 1, 1], PATH, &low, &high, &[0xc0, 255, 0], &[0x80, 254, 0]].concat();
        let expected = [ORIGIN, PATH, &low, &[0xe0, 250, 1, 9], &[0xe0, 255, 0]].concat();
        assert_eq!(canonical(&raw, true, true), expected);
    }

    #[test]
    fn what_only_inner_peers_may_say_is_dropped_from_outer_ones() {
        let inner = [&[0x40, 5, 4, 0, 0, 0, 100][..], &[0x80, 9, 4, 1, 1, 1, 1], &[0x80, 10, 4, 2, 2, 2, 2]].concat();
        let raw = [ORIGIN, PATH, &inner].concat();
        assert_eq!(canonical(&raw, true, true), [ORIGIN, PATH].concat());
        assert_eq!(canonical(&raw, false, true), raw);
    }

    #[test]
    fn two_octet_sets_become_four_octet_ones() {
        let raw = [
            ORIGIN,
            &[0x40, 2, 6, 2, 2, 0, 9, 0x5b, 0xa0],
            &[0xc0, 7, 6, 0x5b, 0xa0, 10, 0, 0, 1],
            &[0xc0, 17, 6, 2, 1, 0, 1, 0, 0],
            &[0xc0, 18, 8, 0, 1, 0, 0, 10, 0, 0, 1],
        ];
        let expected =
            [ORIGIN, &[0x40, 2, 12, 2, 1, 0, 0, 0, 9, 2, 1, 0, 1, 0, 0], &[0xc0, 7, 8, 0, 1, 0, 0, 10, 0, 0, 1]];
        assert_eq!(canonical(&raw.concat(), true, false), expected.concat());
        // Somebody on the way aggregated and knew nothing of four octets: both AS4 attributes are out of date.
        let mut aggregated = raw;
        aggregated[2] = &[0xc0, 7, 6, 0, 8, 10, 0, 0, 1];
        let expected =
            [ORIGIN, &[0x40, 2, 10, 2, 2, 0, 0, 0, 9, 0, 0, 0x5b, 0xa0], &[0xc0, 7, 8, 0, 0, 0, 8, 10, 0, 0, 1]];
        assert_eq!(canonical(&aggregated.concat(), true, false), expected.concat());
    }
}
