//! ADD-PATH in OPEN (RFC 7911 section 4).

use crate::wire::{AfiSafi, Capability, Families, Family, Open};

/// The sender of the capability takes several paths.
const RECEIVE: u8 = 1;
/// It sends several.
const SEND: u8 = 2;

/// What is said of a family in OPEN; 0: nothing.
pub(super) fn mode(receive: bool, send: bool) -> u8 {
    let receive = if receive { RECEIVE } else { 0 };
    receive | if send { SEND } else { 0 }
}

/// Families of which `sender` sends identifiers and `receiver` takes them.
pub(super) fn families(receiver: &Open, sender: &Open) -> Families {
    let both = |family: &Family| said(receiver, *family) & RECEIVE != 0 && said(sender, *family) & SEND != 0;
    Family::ALL.into_iter().filter(both).collect()
}

/// What an OPEN says of a family; of several words the last one. A capability with a value that means nothing counts as not understood.
fn said(open: &Open, family: Family) -> u8 {
    let lists = open.capabilities.iter().filter_map(|capability| match capability {
        Capability::AddPath(list) if list.iter().all(|(_, mode)| (RECEIVE..=RECEIVE | SEND).contains(mode)) => {
            Some(list)
        }
        _ => None,
    });
    let mut named = lists.flatten().filter(|(named, _)| *named == AfiSafi::from(family));
    named.next_back().map_or(0, |(_, mode)| *mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    type List<'a> = &'a [(Family, u8)];

    fn open(lists: &[List<'_>]) -> Open {
        let capability = |list: &List<'_>| {
            Capability::AddPath(list.iter().map(|(family, mode)| (AfiSafi::from(*family), *mode)).collect())
        };
        let capabilities = lists.iter().map(capability).collect();
        Open { asn: 65001, hold_time: 90, identifier: [10, 0, 0, 2].into(), capabilities }
    }

    #[test]
    fn identifiers_are_sent_where_one_side_sends_and_the_other_takes_them() {
        use Family::{Ipv4Unicast as V4, Ipv6Unicast as V6};
        let cases: [(List<'_>, List<'_>, &[Family]); 7] = [
            (&[(V4, 1)], &[(V4, 2)], &[V4]),
            (&[(V4, 3), (V6, 1)], &[(V4, 3), (V6, 3)], &[V4, V6]),
            (&[(V4, 1)], &[(V4, 1)], &[]),
            (&[(V4, 2)], &[(V4, 2)], &[]),
            (&[(V4, 3)], &[(V6, 3)], &[]),
            // 0 and 4 mean nothing, and void the whole capability.
            (&[(V4, 3)], &[(V4, 3), (V6, 4)], &[]),
            (&[(V4, 0)], &[(V4, 3)], &[]),
        ];
        for (receiver, sender, expected) in cases {
            let found = families(&open(&[receiver]), &open(&[sender]));
            assert_eq!(found, expected.iter().copied().collect(), "{receiver:?} {sender:?}");
        }
        assert_eq!([mode(false, false), mode(true, false), mode(false, true), mode(true, true)], [0, 1, 2, 3]);
        let twice = open(&[&[(V4, 3)], &[(V4, 1)]]);
        assert_eq!(families(&open(&[&[(V4, 3)]]), &twice), Families::NONE, "the last word counts");
        assert_eq!(families(&open(&[]), &open(&[&[(V4, 3)]])), Families::NONE);
    }
}
