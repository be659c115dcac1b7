//! UPDATEs, in both directions.

use crate::model::{Nlri, Set, Update, update};
use crate::{bgp_rs_codec, netgauze, ours, rustbgpd};
use proptest::prelude::*;

/// Prefixes of one meaning that needed several messages are put together again.
pub(crate) fn join(said: Vec<Update>) -> Vec<Update> {
    let mut joined: Vec<Update> = Vec::new();
    for update in said {
        let merged = match (joined.last_mut(), &update) {
            (Some(Update::Withdraw(all)), Update::Withdraw(more)) => extend(all, more),
            (Some(Update::Announce { hop, nlri, set }), Update::Announce { hop: h, nlri: more, set: s }) => {
                hop == h && set == s && extend(nlri, more)
            }
            _ => false,
        };
        if !merged {
            joined.push(update);
        }
    }
    joined
}

fn extend(all: &mut Nlri, more: &Nlri) -> bool {
    match (all, more) {
        (Nlri::V4(all), Nlri::V4(more)) => all.extend(more),
        (Nlri::V6(all), Nlri::V6(more)) => all.extend(more),
        _ => return false,
    }
    true
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn we_understand_ourselves(update in update(), four_octet_as in any::<bool>()) {
        let session = ours::session(false, four_octet_as);
        let bytes = ours::encode(&update, &session);
        prop_assert_eq!(join(ours::meaning(&bytes, &session)), vec![update]);
    }

    #[test]
    fn rustbgpd_understands_us(update in update()) {
        let bytes = ours::encode(&update, &ours::session(false, true));
        let said = ours::split(&bytes).into_iter().flat_map(|message| rustbgpd::meaning(message, true)).collect();
        prop_assert_eq!(join(said), vec![update]);
    }

    #[test]
    fn we_understand_rustbgpd(update in update()) {
        let update = rustbgpd::sayable(update);
        let Some(bytes) = rustbgpd::encode(&update, true) else { return Ok(()) };
        prop_assert_eq!(ours::meaning(&bytes, &ours::session(false, true)), vec![update]);
    }

    #[test]
    fn we_understand_what_rustbgpd_sends_to_a_two_octet_peer(update in update()) {
        let update = rustbgpd::sayable(update);
        let Some(bytes) = rustbgpd::encode(&update, false) else { return Ok(()) };
        prop_assert_eq!(ours::meaning(&bytes, &ours::session(false, false)), vec![update]);
    }

    #[test]
    fn netgauze_understands_us(update in update()) {
        let bytes = ours::encode(&update, &ours::session(false, true));
        let said = ours::split(&bytes).into_iter().flat_map(netgauze::meaning).collect();
        prop_assert_eq!(join(said), vec![update]);
    }

    #[test]
    fn we_understand_netgauze(update in update()) {
        let bytes = netgauze::encode(&update);
        if bytes.len() <= 4096 {
            prop_assert_eq!(ours::meaning(&bytes, &ours::session(false, true)), vec![update]);
        }
    }

    #[test]
    fn bgp_rs_understands_us_where_it_can_be_trusted(update in update()) {
        let update = bgp_rs_codec::safe(update);
        let bytes = ours::encode(&update, &ours::session(false, true));
        let said = ours::split(&bytes).into_iter().flat_map(bgp_rs_codec::meaning).collect();
        prop_assert_eq!(join(said), vec![update]);
    }

    #[test]
    fn we_understand_bgp_rs_where_it_can_be_trusted(update in update()) {
        let update = bgp_rs_codec::safe(update);
        let Some(bytes) = bgp_rs_codec::encode(&update) else { return Ok(()) };
        prop_assert_eq!(ours::meaning(&bytes, &ours::session(false, true)), vec![update]);
    }
}

#[test]
fn many_prefixes_take_as_few_messages_as_fit() {
    let session = ours::session(false, true);
    let prefixes: Vec<_> = (0..10_000_u32).map(|i| (0x0a00_0000 | i << 8, 24)).collect();
    let hop = crate::model::Hop::V4([192, 0, 2, 1].into());
    let update = Update::Announce { hop, nlri: Nlri::V4(prefixes), set: Set::default() };
    let bytes = ours::encode(&update, &session);
    let lengths: Vec<usize> = ours::split(&bytes).iter().map(|message| message.len()).collect();
    // 23 octets of message, 4 of ORIGIN, 3 of AS_PATH, 7 of NEXT_HOP, 4 per prefix.
    assert_eq!(lengths.len(), 10_000_usize.div_ceil((4096 - 37) / 4));
    assert!(lengths[..lengths.len() - 1].iter().all(|length| *length > 4092));
    let said = ours::split(&bytes).into_iter().flat_map(|message| rustbgpd::meaning(message, true)).collect();
    assert_eq!(join(said), vec![update]);
}
