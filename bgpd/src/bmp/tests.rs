//! Octets of messages, laid out by hand from RFC 7854.

use super::*;
use crate::wire::{Notification, cease, encode_end_of_rib};

const PEER: Peer =
    Peer { address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), asn: 70000, identifier: Ipv4Addr::new(10, 9, 9, 9) };

/// The header about the peer, with these flags.
fn header(kind: u8, length: u8, flags: u8) -> Vec<u8> {
    let address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2];
    let rest = [0, 1, 0x11, 0x70, 10, 9, 9, 9, 0, 0, 0, 0, 0, 0, 0, 0];
    [&[3, 0, 0, 0, length, kind, 0, flags][..], &[0; 8], &address, &rest].concat()
}

fn written(write: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

#[test]
fn a_session_with_a_station_begins_and_ends_as_it_should() {
    let begun = written(|out| initiation("10.9.9.9", out));
    assert_eq!((begun[0], begun[4] as usize, begun[5]), (3, begun.len(), 4));
    assert!(begun[6..].starts_with(&[0, 1]) && begun.ends_with(&[&[0, 2, 0, 8][..], b"10.9.9.9"].concat()));
    assert_eq!(written(termination), [3, 0, 0, 0, 12, 5, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn a_peer_comes_with_both_opens_and_goes_with_the_reason() {
    let opening = Opening {
        local: "10.0.0.1:179".parse().unwrap(),
        remote_port: 40000,
        sent: Bytes::from_static(&[1, 2]),
        received: Bytes::from_static(&[3]),
    };
    let local = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1, 0, 179, 0x9c, 0x40, 1, 2, 3];
    assert_eq!(written(|out| peer_up(&PEER, &opening, out)), [header(3, 71, 0), local.to_vec()].concat());
    let cease = Notification::cease(cease::SHUTDOWN, "");
    let message = written(|out| cease.encode(out));
    let down = |reason: Option<Reason>| written(|out| peer_down(&PEER, reason.as_ref(), out));
    let length = u8::try_from(49 + message.len()).unwrap();
    let sent = down(Some(Reason::Sent(cease.clone())));
    assert_eq!(sent, [header(2, length, 0), vec![1], message.clone()].concat());
    assert_eq!(down(Some(Reason::Received(cease))), [header(2, length, 0), vec![3], message].concat());
    assert_eq!(down(Some(Reason::SendHoldTimer)), [header(2, 51, 0), vec![2, 0, 0]].concat());
    assert_eq!(down(Some(Reason::Closed)), [header(2, 49, 0), vec![4]].concat());
    assert_eq!(down(None), [header(2, 49, 0), vec![5]].concat());
}

#[test]
fn every_update_is_a_message_of_its_own_and_says_that_filters_have_judged() {
    let updates = written(|out| Family::ALL.into_iter().for_each(|family| encode_end_of_rib(family, out)));
    let out = written(|out| route_monitoring(&PEER, &updates, out));
    let expected = [header(0, 48 + 23, 0x40), updates[..23].to_vec(), header(0, 48 + 29, 0x40), updates[23..].to_vec()];
    assert_eq!(out, expected.concat());
    let six = Peer { address: "fd00::2".parse().unwrap(), ..PEER };
    assert_eq!(written(|out| route_monitoring(&six, &updates, out))[7], 0xc0);
}

#[test]
fn counts_are_gauges() {
    let counts = Statistics { received: vec![(Family::Ipv4Unicast, 3), (Family::Ipv6Unicast, 4)], advertised: 5 };
    let gauge = |count: u8| [0, 0, 0, 0, 0, 0, 0, count];
    let all = [
        &[0, 0, 0, 4, 0, 7, 0, 8][..],
        &gauge(7),
        &[0, 9, 0, 11, 0, 1, 1],
        &gauge(3),
        &[0, 9, 0, 11, 0, 2, 1],
        &gauge(4),
        &[0, 15, 0, 8],
        &gauge(5),
    ];
    let all = all.concat();
    let length = u8::try_from(48 + all.len()).unwrap();
    assert_eq!(written(|out| statistics(&PEER, &counts, out)), [header(1, length, 0), all].concat());
}
