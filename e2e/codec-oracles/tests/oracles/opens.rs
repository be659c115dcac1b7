//! OPEN, NOTIFICATION, KEEPALIVE and ROUTE-REFRESH, in both directions.

use crate::{bgp_rs_codec, netgauze};
use bgp_rs::{OpenCapability, OpenParameter};
use bytes::Bytes;
use netgauze_bgp_pkt::BgpMessage;
use netgauze_parse_utils::WritablePdu;
use proptest::collection::vec;
use proptest::prelude::*;
use rustbgpd_wire::{
    AddPathFamily, AddPathMode, Afi, BgpRole, Capability as Theirs, ExtendedNextHopFamily, GracefulRestartFamily,
    LlgrFamily, Message, NotificationCode, NotificationMessage, OpenMessage, RouteRefreshMessage, RouteRefreshSubtype,
    Safi, decode_message, encode_message,
};
use std::net::Ipv4Addr;
use twill_bgpd::wire::{
    AS_TRANS, AfiSafi, Capability, Framer, GracefulRestart, LongLived, MessageType, Notification, Open, RefreshKind,
    Role, RouteRefresh, encode_keepalive,
};

const V4: AfiSafi = AfiSafi { afi: 1, safi: 1 };
const V6: AfiSafi = AfiSafi { afi: 2, safi: 1 };

fn family() -> impl Strategy<Value = AfiSafi> {
    prop_oneof![Just(V4), Just(V6)]
}

fn families() -> impl Strategy<Value = Vec<AfiSafi>> {
    prop_oneof![Just(vec![V4]), Just(vec![V6]), Just(vec![V4, V6])]
}

prop_compose! {
    fn restart()(restarting in any::<bool>(), notification in any::<bool>(), restart_time in 0..4096_u16,
                 list in families(), forwarding in any::<bool>()) -> Capability {
        let families = list.into_iter().map(|family| (family, forwarding)).collect();
        Capability::GracefulRestart(GracefulRestart { restarting, notification, restart_time, families })
    }
}

fn capability() -> impl Strategy<Value = Capability> {
    prop_oneof![
        family().prop_map(Capability::Multiprotocol),
        Just(Capability::RouteRefresh),
        Just(Capability::ExtendedNextHop(vec![(V4, 2)])),
        Just(Capability::ExtendedMessage),
        restart(),
        (families(), 1..4_u8)
            .prop_map(|(list, mode)| Capability::AddPath(list.into_iter().map(|f| (f, mode)).collect())),
        Just(Capability::EnhancedRouteRefresh),
        prop::sample::select(vec![
            Role::Provider,
            Role::RouteServer,
            Role::RouteServerClient,
            Role::Customer,
            Role::Peer
        ])
        .prop_map(Capability::Role),
        (families(), any::<bool>(), 0..0x0100_0000_u32).prop_map(|(list, forwarding, seconds)| {
            let families = list.into_iter().map(|family| (family, forwarding, seconds)).collect();
            Capability::LongLived(LongLived { families })
        }),
        (200..=240_u8, vec(any::<u8>(), 0..20)).prop_map(|(code, value)| Capability::Unknown { code, value }),
    ]
}

prop_compose! {
    fn open()(asn in prop_oneof![1..65536_u32, 65536..=u32::MAX], hold_time in prop_oneof![Just(0), 3..=u16::MAX],
              identifier in 0x0100_0000..0x7f00_0000_u32, four in any::<bool>(), mut capabilities in vec(capability(), 0..12)) -> Open {
        let asn = if four { asn } else { asn % 65535 + 1 };
        if four {
            capabilities.push(Capability::FourOctetAs(asn));
        }
        Open { asn, hold_time, identifier: identifier.into(), capabilities }
    }
}

fn encode(open: &Open) -> Vec<u8> {
    let mut bytes = Vec::new();
    open.encode(&mut bytes);
    bytes
}

fn theirs(capability: &Capability) -> Theirs {
    let afi = |afi: u16| Afi::from_u16(afi).unwrap();
    let safi = |safi: u8| Safi::from_u8(safi).unwrap();
    match capability {
        Capability::Multiprotocol(f) => Theirs::MultiProtocol { afi: afi(f.afi), safi: safi(f.safi) },
        Capability::RouteRefresh => Theirs::RouteRefresh,
        Capability::ExtendedNextHop(list) => Theirs::ExtendedNextHop(
            list.iter()
                .map(|(f, hop)| ExtendedNextHopFamily {
                    nlri_afi: afi(f.afi),
                    nlri_safi: safi(f.safi),
                    next_hop_afi: afi(*hop),
                })
                .collect(),
        ),
        Capability::ExtendedMessage => Theirs::ExtendedMessage,
        Capability::GracefulRestart(restart) => Theirs::GracefulRestart {
            restart_state: restart.restarting,
            notification: restart.notification,
            restart_time: restart.restart_time,
            families: restart
                .families
                .iter()
                .map(|(f, forwarding)| GracefulRestartFamily {
                    afi: afi(f.afi),
                    safi: safi(f.safi),
                    forwarding_preserved: *forwarding,
                })
                .collect(),
        },
        Capability::FourOctetAs(asn) => Theirs::FourOctetAs { asn: *asn },
        Capability::AddPath(list) => Theirs::AddPath(
            list.iter()
                .map(|(f, mode)| AddPathFamily {
                    afi: afi(f.afi),
                    safi: safi(f.safi),
                    send_receive: AddPathMode::from_u8(*mode).unwrap(),
                })
                .collect(),
        ),
        Capability::EnhancedRouteRefresh => Theirs::EnhancedRouteRefresh,
        Capability::LongLived(long) => Theirs::LongLivedGracefulRestart(
            long.families
                .iter()
                .map(|(f, forwarding, seconds)| LlgrFamily {
                    afi: afi(f.afi),
                    safi: safi(f.safi),
                    forwarding_preserved: *forwarding,
                    stale_time: *seconds,
                })
                .collect(),
        ),
        Capability::Role(role) => Theirs::Role { role: BgpRole::from_u8(*role as u8).unwrap() },
        Capability::Unknown { code, value } => Theirs::Unknown { code: *code, data: Bytes::from(value.clone()) },
    }
}

fn their_open(open: &Open) -> OpenMessage {
    OpenMessage {
        version: 4,
        my_as: u16::try_from(open.asn).unwrap_or(AS_TRANS),
        hold_time: open.hold_time,
        bgp_identifier: open.identifier,
        capabilities: open.capabilities.iter().map(theirs).collect(),
    }
}

fn theirs_decode(bytes: &[u8]) -> Message {
    decode_message(&mut Bytes::copy_from_slice(bytes), 4096).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rustbgpd_understands_our_open(open in open()) {
        prop_assert_eq!(theirs_decode(&encode(&open)), Message::Open(their_open(&open)));
    }

    #[test]
    fn we_understand_rustbgpds_open(open in open()) {
        let bytes = encode_message(&Message::Open(their_open(&open))).unwrap();
        prop_assert_eq!(Open::decode(&bytes).unwrap(), open);
    }

    #[test]
    fn netgauze_understands_our_open_and_says_the_same(open in open()) {
        let Some(BgpMessage::Open(parsed)) = netgauze::decode(&encode(&open), true) else { panic!("refused {open:?}") };
        prop_assert_eq!(parsed.my_asn4(), open.asn);
        prop_assert_eq!(parsed.hold_time(), open.hold_time);
        prop_assert_eq!(parsed.bgp_id(), open.identifier);
        prop_assert_eq!(parsed.capabilities().len(), open.capabilities.len());
        let mut bytes = Vec::new();
        BgpMessage::Open(parsed).write(&mut bytes).unwrap();
        prop_assert_eq!(Open::decode(&bytes).unwrap(), open);
    }

    #[test]
    fn bgp_rs_understands_our_open_and_says_the_same(open in open()) {
        let mut open = open;
        open.capabilities.retain(|c| matches!(c.code(), 1 | 2 | 65));
        let Some(bgp_rs::Message::Open(parsed)) = bgp_rs_codec::decode(&encode(&open)) else { panic!("refused") };
        prop_assert_eq!(parsed.identifier, u32::from(open.identifier));
        prop_assert_eq!(parsed.hold_timer, open.hold_time);
        let read: usize = parsed.parameters.iter().map(|parameter| match parameter {
            OpenParameter::Capabilities(list) => {
                assert!(!list.iter().any(|c| matches!(c, OpenCapability::Unknown { .. })));
                list.len()
            }
            other => panic!("{other:?}"),
        }).sum();
        prop_assert_eq!(read, open.capabilities.len());
        let mut bytes = Vec::new();
        bgp_rs::Message::Open(parsed).encode(&mut bytes).unwrap();
        prop_assert_eq!(Open::decode(&bytes).unwrap(), open);
    }

    #[test]
    fn notifications_agree(code in 1..=8_u8, subcode in any::<u8>(), data in vec(any::<u8>(), 0..200)) {
        let ours = Notification { code, subcode, data: data.clone() };
        let mut bytes = Vec::new();
        ours.encode(&mut bytes);
        let message = Message::Notification(NotificationMessage {
            code: NotificationCode::from_u8(code), subcode, data: Bytes::from(data.clone()),
        });
        prop_assert_eq!(&theirs_decode(&bytes), &message);
        prop_assert_eq!(Notification::decode(&encode_message(&message).unwrap()), ours);
        let Some(bgp_rs::Message::Notification(parsed)) = bgp_rs_codec::decode(&bytes) else { panic!("refused") };
        prop_assert_eq!((parsed.major_err_code, parsed.minor_err_code, parsed.data), (code, subcode, data));
    }
}

#[test]
fn keepalives_and_route_refreshes_agree() {
    let mut keepalive = Vec::new();
    encode_keepalive(&mut keepalive);
    assert_eq!(theirs_decode(&keepalive), Message::Keepalive);
    assert_eq!(encode_message(&Message::Keepalive).unwrap()[..], keepalive);
    assert!(matches!(netgauze::decode(&keepalive, true), Some(BgpMessage::KeepAlive)));
    assert!(matches!(bgp_rs_codec::decode(&keepalive), Some(bgp_rs::Message::KeepAlive)));

    let kinds = [
        (RefreshKind::Request, RouteRefreshSubtype::Normal),
        (RefreshKind::Begin, RouteRefreshSubtype::BoRR),
        (RefreshKind::End, RouteRefreshSubtype::EoRR),
    ];
    for (family, afi) in [(V4, Afi::Ipv4), (V6, Afi::Ipv6)] {
        for (kind, subtype) in kinds {
            let refresh = RouteRefresh { family, kind };
            let mut bytes = Vec::new();
            refresh.encode(&mut bytes);
            let message = Message::RouteRefresh(RouteRefreshMessage::new_with_subtype(afi, Safi::Unicast, subtype));
            assert_eq!(encode_message(&message).unwrap()[..], bytes);
            assert_eq!(RouteRefresh::decode(&bytes, true), Ok(Some(refresh)));
            let Some(bgp_rs::Message::RouteRefresh(parsed)) = bgp_rs_codec::decode(&bytes) else { panic!("refused") };
            assert_eq!((parsed.afi as u16, parsed.subtype), (family.afi, kind as u8));
        }
    }
}

#[test]
fn long_optional_parameters_agree() {
    // RFC 9072: more than 255 octets of capabilities.
    let unknown = |code| Capability::Unknown { code, value: vec![code; 100] };
    let open = Open {
        asn: 65001,
        hold_time: 90,
        identifier: Ipv4Addr::new(10, 0, 0, 1),
        capabilities: vec![unknown(200), unknown(201), unknown(202), Capability::RouteRefresh],
    };
    let bytes = encode(&open);
    assert_eq!(theirs_decode(&bytes), Message::Open(their_open(&open)));
    let back = encode_message(&Message::Open(their_open(&open))).unwrap();
    assert_eq!(Open::decode(&back), Ok(open));
}

#[test]
fn headers_are_judged_alike() {
    let mut good = Vec::new();
    encode_keepalive(&mut good);
    let mut verdicts = Vec::new();
    for at in 0..19 {
        for value in [0, 1, 2, 5, 6, 18, 20, 23, 255] {
            let mut bad = good.clone();
            bad[at] = value;
            let length = usize::from(u16::from_be_bytes([bad[16], bad[17]]));
            bad.resize(length.clamp(19, 4096), 0);
            let ours = Framer::new(&bad, 4096).next_frame().map(|frame| frame.map(|f| f.kind));
            let theirs = decode_message(&mut Bytes::from(bad.clone()), 4096);
            if let (Ok(Some(MessageType::Keepalive)), Err(_)) | (Err(_), Ok(_)) = (&ours, &theirs) {
                verdicts.push(format!("octet {at} = {value}: {ours:?} and {theirs:?}"));
            }
        }
    }
    assert_eq!(verdicts, Vec::<String>::new());
}
