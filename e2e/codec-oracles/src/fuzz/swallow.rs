//! The codec alone: every message is decoded by all that a speaker would use, and what was decoded encodes to itself.

use crate::ours;
use twill_bgpd::wire::{
    Attributes, Edits, Families, Framer, MessageType, Negotiated, NextHop, Notification, Open, Outcome, PrefixIter,
    PrefixKey, Prefixes, Reach, RouteRefresh, Update as Decoded, UpdateBuilder,
};

/// Reads `bytes` as a stream, uses everything that a speaker would use, and checks what was decoded by a round trip.
/// Returns how many UPDATEs carried routes.
pub fn swallow(bytes: &[u8], session: &Negotiated) -> usize {
    let mut framer = Framer::new(bytes, session.max_message());
    let mut routes = 0;
    while let Ok(Some(frame)) = framer.next_frame() {
        match frame.kind {
            MessageType::Open => {
                if let Ok(open) = Open::decode(frame.bytes) {
                    let mut again = Vec::new();
                    open.encode(&mut again);
                    assert_eq!(Open::decode(&again).as_ref(), Ok(&open), "{:02x?}", frame.bytes);
                }
            }
            MessageType::Notification => {
                let notification = Notification::decode(frame.bytes);
                let _ = (notification.text(), notification.to_string());
            }
            MessageType::RouteRefresh => drop(RouteRefresh::decode(frame.bytes, true)),
            MessageType::Keepalive => {}
            MessageType::Update => routes += usize::from(swallow_update(frame.bytes, session)),
        }
    }
    assert!(framer.consumed() <= bytes.len());
    routes
}

fn count(prefixes: Prefixes<'_>) {
    let expected = prefixes.len();
    let seen = match prefixes {
        Prefixes::V4(list) => list.inspect(|(address, len)| assert!(masked(*address, *len))).count(),
        Prefixes::V6(list) => list.inspect(|(_, len)| assert!(*len <= 128)).count(),
    };
    assert_eq!(seen, expected);
}

fn masked(address: u32, len: u8) -> bool {
    len <= 32 && address & !u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0) == 0
}

fn swallow_update(message: &[u8], session: &Negotiated) -> bool {
    let Ok(update) = Decoded::decode(message, session) else { return false };
    update.withdrawn().for_each(count);
    update.announced().for_each(|reach| count(reach.prefixes));
    let Outcome::Routes(block) = update.outcome else { return false };
    let mut canonical = Vec::new();
    block.write_canonical(&mut canonical);
    let attributes = Attributes::from_canonical(&canonical);
    let _ = (attributes.as_path.to_string(), attributes.as_path.length(), attributes.as_path.first());
    let mut edited = Vec::new();
    let edits = Edits { replace_as: Some((65001, 65002)), ..Edits::to_ebgp(65000) };
    attributes.export(&edits, true, &mut edited);
    assert_eq!(Attributes::from_canonical(&edited).as_path.first(), Some(65000));
    let mut exported = Vec::new();
    attributes.export(&Edits::default(), session.four_octet_as, &mut exported);
    for reach in update.announced() {
        let Some(again) = encode(reach, &exported) else { continue };
        // Told without path identifiers, whatever they came with.
        let session = Negotiated { extended_message: true, add_path_receive: Families::NONE, ..session.clone() };
        for message in ours::split(&again) {
            let second = Decoded::decode(message, &session).expect("what we encode can be decoded");
            let Outcome::Routes(block) = second.outcome else { panic!("{:?} of {message:02x?}", second.outcome) };
            let mut canonical_again = Vec::new();
            block.write_canonical(&mut canonical_again);
            assert_eq!(canonical_again, canonical, "{message:02x?}");
        }
    }
    true
}

fn encode(reach: Reach<'_>, block: &[u8]) -> Option<Vec<u8>> {
    match reach.prefixes {
        Prefixes::V4(prefixes) => build(prefixes, reach.next_hop, block),
        Prefixes::V6(prefixes) => build(prefixes, reach.next_hop, block),
    }
}

fn build<K: PrefixKey>(prefixes: PrefixIter<'_, K>, next_hop: NextHop, block: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut builder = UpdateBuilder::<K>::announce(&mut out, 65535, block, next_hop).ok()?;
    prefixes.for_each(|prefix| builder.push(prefix));
    builder.finish();
    Some(out)
}
