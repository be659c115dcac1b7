//! What a sender of the benchmark says.

use super::row::{Neighbour, Row};
pub(crate) use twill_e2e::messages::{HEADER, announced, first, keepalive};
use twill_e2e::messages::{announce, attributes};

/// OPEN with a hold time that outlasts every measurement's pauses.
pub(crate) fn open(asn: u16, identifier: [u8; 4]) -> Vec<u8> {
    twill_e2e::messages::open(asn, identifier, 240)
}

/// All UPDATEs of a sender, which has the prefixes behind those of the senders before it. The attribute sets take turns.
pub(crate) fn updates(row: Row, sender: Neighbour) -> Vec<u8> {
    let path = |set| [u32::from(sender.asn()), 100_000 + set, 5_000_000 + set];
    let sets: Vec<Vec<u8>> =
        (0..row.sets).map(|set| attributes(path(set), sender.address(), 65000 << 16 | set & 0xffff)).collect();
    let mut out = Vec::new();
    let mut first = u32::from(sender.number - 1) * row.prefixes;
    let end = first + row.prefixes;
    for set in sets.iter().cycle() {
        if first >= end {
            return out;
        }
        let last = end.min(first + row.per_update);
        out.extend(announce(set, first..last));
        first = last;
    }
    out
}
