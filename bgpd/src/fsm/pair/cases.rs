//! What two speakers make of each other.

use super::*;

#[test]
fn two_that_start_at_once_agree_on_one_session_and_never_lose_it() {
    let mut collisions = 0;
    for seed in 0..4000 {
        let delay = ms([1, 20, 200, 900][(seed % 4) as usize]);
        let mut pair = Pair::internal(seed, delay);
        pair.sides[1].eager = seed % 3 == 0;
        let (first, second) = if seed % 2 == 0 { (0, 1) } else { (1, 0) };
        pair.start(first);
        let gap = pair.random.up_to(ms(400));
        pair.run(gap, |_| false);
        pair.start(second);
        pair.run(secs(30), Pair::agree);
        assert!(pair.agree(), "seed {seed}: {:?} {:?}", pair.sides[0].peer, pair.sides[1].peer);
        // Whatever is still on its way changes nothing.
        pair.run(secs(60), |_| false);
        assert!(pair.agree(), "seed {seed}");
        for side in &pair.sides {
            assert_eq!(side.downs, [], "seed {seed}: a session was lost");
            assert_eq!(side.links.len(), 1, "seed {seed}: a connection is left over");
        }
        assert!(pair.sides[1].updates > 0, "what was written with the KEEPALIVE arrives");
        collisions += usize::from(pair.links.len() > 1);
    }
    assert!(collisions > 1000, "{collisions} collisions of 4000");
}

#[test]
fn on_a_fast_network_a_synchronised_start_takes_less_than_a_second() {
    for seed in 0..500 {
        let mut pair = Pair::internal(seed, ms(1));
        pair.start(0);
        pair.start(1);
        pair.run(secs(1), Pair::agree);
        assert!(pair.agree(), "seed {seed}");
    }
}

#[test]
fn a_peer_that_starts_later_is_met_within_two_seconds() {
    for seed in 0..200 {
        let mut pair = Pair::internal(seed, ms(1));
        pair.start(0);
        pair.run(secs(1), |_| false);
        pair.start(1);
        pair.run(secs(2), Pair::agree);
        assert!(pair.agree(), "seed {seed}");
    }
}

#[test]
fn a_connection_lost_at_any_step_is_made_again() {
    for seed in 0..1500 {
        let mut pair = Pair::internal(seed, ms(20));
        pair.start(0);
        pair.start(1);
        // After so many events cut every connection there is, or one of them.
        let steps = seed % 40;
        for _ in 0..steps {
            let events = pair.sequence;
            pair.run(secs(5), |pair| pair.sequence > events);
        }
        for link in 0..pair.links.len() {
            if seed % 3 == 0 || link as u64 % 2 == seed % 2 {
                pair.cut(link);
            }
        }
        pair.run(secs(1), |_| false);
        pair.run(secs(30), Pair::agree);
        assert!(pair.agree(), "seed {seed}");
        pair.run(secs(30), |_| false);
        assert!(pair.agree(), "seed {seed}");
    }
}

#[test]
fn a_passive_peer_never_dials_and_two_passive_ones_wait() {
    let mut pair = Pair::internal(1, ms(5));
    pair.sides[0].peer.config_mut().passive = true;
    pair.start(0);
    pair.start(1);
    pair.run(secs(2), Pair::agree);
    assert!(pair.agree());
    assert_eq!((pair.sides[0].dials, pair.sides[1].dials), (0, 1));

    let mut pair = Pair::internal(1, ms(5));
    for side in 0..2 {
        pair.sides[side].peer.config_mut().passive = true;
        pair.start(side);
    }
    pair.run(secs(600), Pair::agree);
    assert_eq!(pair.sides[0].peer.state(), State::Active);
    assert_eq!(pair.sides[0].dials + pair.sides[1].dials, 0);
}

#[test]
fn equal_identifiers_in_different_as_collide_by_as_number() {
    for seed in 0..300 {
        let a = config(65001, RemoteAs::External, 7);
        let b = config(65002, RemoteAs::Exactly(65001), 7);
        let mut pair = Pair::new(a, b, seed, ms(50));
        pair.start(0);
        pair.start(1);
        pair.run(secs(10), Pair::agree);
        assert!(pair.agree(), "seed {seed}");
        let session = pair.sides[0].peer.negotiated().cloned().expect("a session");
        assert_eq!((session.peer_asn, session.ebgp), (65002, true));
    }
}

#[test]
fn a_wrong_as_an_equal_identifier_and_no_common_family_are_refused_by_name_and_rarely_retried() {
    let cases = [
        (config(65001, RemoteAs::Exactly(65009), 1), config(65002, RemoteAs::Exactly(65001), 2), (2, 2)),
        (config(65001, RemoteAs::External, 1), config(65001, RemoteAs::Exactly(65001), 2), (2, 2)),
        (config(65001, RemoteAs::Exactly(65001), 1), config(65001, RemoteAs::Exactly(65001), 1), (2, 3)),
        (
            PeerConfig { families: Families::only(Family::Ipv4Unicast), ..config(1, RemoteAs::Exactly(2), 1) },
            PeerConfig { families: Families::only(Family::Ipv6Unicast), ..config(2, RemoteAs::Exactly(1), 2) },
            (2, 7),
        ),
    ];
    for (a, b, expected) in cases {
        let mut pair = Pair::new(a, b, 3, ms(5));
        pair.start(0);
        pair.start(1);
        pair.run(secs(600), |_| false);
        assert!(pair.sides.iter().all(|side| side.up.is_none()));
        let said = |reason: &Reason| match reason {
            Reason::Sent(n) | Reason::Received(n) => Some((n.code, n.subcode)),
            _ => None,
        };
        assert!(
            pair.sides[0].failures.iter().any(|reason| said(reason) == Some(expected)),
            "{:?}",
            pair.sides[0].failures
        );
        let dials: usize = pair.sides.iter().map(|side| side.dials).sum();
        assert!(dials < 60, "{dials} attempts in ten minutes");
    }
}

#[test]
fn the_smaller_hold_time_counts_and_keepalives_keep_the_session() {
    let mut pair = Pair::internal(5, ms(10));
    pair.sides[1].peer.config_mut().hold_time = 3;
    pair.start(0);
    pair.start(1);
    pair.run(secs(5), Pair::agree);
    assert_eq!(pair.sides[0].peer.negotiated().expect("a session").hold_time, 3);
    pair.run(secs(120), |_| false);
    assert!(pair.agree());
    assert_eq!(pair.sides[0].downs, []);
}

#[test]
fn hold_time_zero_means_neither_keepalives_nor_expiry() {
    let mut pair = Pair::internal(5, ms(10));
    pair.sides[1].peer.config_mut().hold_time = 0;
    pair.start(0);
    pair.start(1);
    pair.run(secs(5), Pair::agree);
    let sent = pair.sequence;
    pair.run(secs(3600), |_| false);
    assert!(pair.agree());
    assert_eq!(pair.sequence, sent);
    assert_eq!(pair.sides[0].peer.poll_timeout(), None);
    assert_eq!(pair.sides[0].peer.heard(), None, "nobody knows");
}

#[test]
fn it_is_known_when_a_peer_was_heard_last() {
    let mut pair = Pair::internal(6, ms(10));
    assert_eq!(pair.sides[0].peer.heard(), None);
    pair.start(0);
    pair.start(1);
    pair.run(secs(100), |_| false);
    let ago = |pair: &Pair| pair.now - pair.sides[0].peer.heard().expect("a session");
    assert!(ago(&pair) < secs(31), "KEEPALIVEs are a third of the hold time apart: {:?}", ago(&pair));
    let (link, _) = pair.session_link();
    pair.links[link].stuck = [true; 2];
    pair.run(secs(55), |_| false);
    assert!(ago(&pair) >= secs(54), "{:?}", ago(&pair));
}

#[test]
fn a_silent_peer_is_given_up_after_the_hold_time() {
    let mut pair = Pair::internal(6, ms(10));
    pair.start(0);
    pair.start(1);
    pair.run(secs(5), Pair::agree);
    let (link, end) = pair.session_link();
    pair.links[link].stuck = [true; 2];
    let _ = end;
    let started = pair.now;
    pair.run(secs(200), |pair| !pair.sides[0].downs.is_empty());
    let waited = pair.now - started;
    assert!(waited >= secs(60) && waited <= secs(90), "{waited:?}");
    assert_eq!(pair.sides[0].downs[0].0, Reason::Sent(Notification::new(Code::HoldTimer, 0)));
}

#[test]
fn a_peer_that_opens_and_then_says_nothing_is_given_up_in_open_sent() {
    let mut peer = Peer::new(config(1, RemoteAs::Exactly(2), 1), 0);
    let mut out = Vec::new();
    peer.start(Time::ZERO);
    peer.accept(Time::ZERO, &mut out).expect("accepted");
    assert_eq!(peer.state(), State::OpenSent);
    let mut now = Time::ZERO;
    while now < secs(241) {
        now = peer.poll_timeout().expect("a timer");
        peer.handle_timeout(now, &mut out);
        // Nobody answers its own attempts either.
        for output in std::mem::take(&mut out) {
            if let Output::Connect { conn } = output {
                peer.tcp_failed(now, conn, &mut out);
            }
        }
    }
    assert_eq!(peer.state(), State::Active, "the silent connection is gone");
}

#[test]
fn unread_data_put_off_the_hold_timer_but_not_for_ever() {
    let mut pair = Pair::internal(6, ms(10));
    pair.start(0);
    pair.start(1);
    pair.run(secs(5), Pair::agree);
    let (link, _) = pair.session_link();
    pair.links[link].stuck = [true; 2];
    let started = pair.now;
    let conn = pair.sides[0].up.expect("a session");
    while pair.sides[0].downs.is_empty() && pair.now < started + secs(400) {
        pair.sides[0].peer.data_pending(conn);
        let before = pair.sequence;
        pair.run(ms(500), |pair| pair.sequence != before);
    }
    let waited = pair.now - started;
    assert!(waited > secs(95) && waited <= secs(181), "{waited:?}");
}

#[test]
fn a_peer_that_takes_no_data_is_given_up_after_the_send_hold_time_without_a_word() {
    let mut pair = Pair::internal(6, ms(10));
    pair.start(0);
    pair.start(1);
    pair.run(secs(5), Pair::agree);
    let conn = pair.sides[0].up.expect("a session");
    let started = pair.now;
    pair.sides[0].peer.send_state(started, conn, true, true);
    // Later writes that take nothing do not prolong it; one that took something does.
    pair.run(secs(100), |_| false);
    let now = pair.now;
    pair.sides[0].peer.send_state(now, conn, false, true);
    pair.run(secs(200), |_| false);
    let now = pair.now;
    pair.sides[0].peer.send_state(now, conn, true, true);
    let restarted = pair.now;
    pair.run(secs(1000), |pair| !pair.sides[0].downs.is_empty());
    assert_eq!(pair.now - restarted, secs(480));
    assert_eq!(pair.sides[0].downs[0].0, Reason::SendHoldTimer);
}

#[test]
fn a_restarted_peer_replaces_its_old_session_when_it_knows_graceful_restart() {
    let mut pair = Pair::internal(8, ms(10));
    for side in 0..2 {
        pair.sides[side].peer.config_mut().graceful_restart = restart();
    }
    pair.start(0);
    pair.start(1);
    pair.run(secs(5), Pair::agree);
    pair.run(secs(60), |_| false);
    // Side 1 dies without a FIN and comes back.
    let (link, _) = pair.session_link();
    pair.links[link].stuck = [true; 2];
    let old = pair.sides[1].peer.config().clone();
    pair.sides[1].peer = Peer::new(old, 99);
    pair.sides[1].links.clear();
    (pair.sides[1].up, pair.sides[1].established) = (None, None);
    let started = pair.now;
    pair.start(1);
    pair.run(secs(30), Pair::agree);
    assert!(pair.agree());
    assert!(pair.now - started < secs(2));
    assert_eq!(pair.sides[0].downs, [(Reason::Restarted, true)]);
}

#[test]
fn a_restarted_peer_without_graceful_restart_waits_for_the_old_session_to_prove_dead() {
    let mut pair = Pair::internal(8, ms(10));
    pair.start(0);
    pair.start(1);
    pair.run(secs(5), Pair::agree);
    pair.run(secs(60), |_| false);
    let (link, end) = pair.session_link();
    let old = pair.sides[1].peer.config().clone();
    pair.sides[1].peer = Peer::new(old, 99);
    pair.sides[1].links.clear();
    (pair.sides[1].up, pair.sides[1].established) = (None, None);
    // Its kernel knows nothing of the old connection: whatever reaches it is answered by a reset.
    pair.links[link].closed[1 - end] = true;
    pair.start(1);
    pair.run(secs(5), |pair| !pair.links[link].queues[1 - end].is_empty());
    pair.send(link, end, Item::Closed);
    pair.run(secs(30), Pair::agree);
    assert!(pair.agree());
    assert_eq!(pair.sides[0].downs, [(Reason::Closed, false)]);
}

#[test]
fn a_stop_with_text_reaches_the_peer_and_a_silent_one_is_a_graceful_restart() {
    for silently in [false, true] {
        let mut pair = Pair::internal(9, ms(10));
        for side in 0..2 {
            pair.sides[side].peer.config_mut().graceful_restart = restart();
        }
        pair.start(0);
        pair.start(1);
        pair.run(secs(5), Pair::agree);
        let text = "hardware exchange";
        let stop = match silently {
            true => Stop::Silently,
            false => Stop::Notify(Notification::cease(cease::SHUTDOWN, text)),
        };
        pair.with(0, |peer, now, out| peer.stop(now, &stop, out));
        pair.sides[0].listening = false;
        assert_eq!(pair.sides[0].peer.state(), State::Idle);
        assert_eq!(pair.sides[0].peer.poll_timeout(), None);
        pair.run(secs(1), |_| false);
        let (reason, graceful) = pair.sides[1].downs[0].clone();
        match (silently, reason) {
            (true, Reason::Closed) => assert!(graceful),
            (false, Reason::Received(notification)) => {
                let expected = Notification::cease(cease::SHUTDOWN, text).hard_reset();
                assert_eq!(notification, expected, "both know RFC 8538, and it is meant for good");
                assert!(!graceful);
            }
            (_, reason) => panic!("{reason:?}"),
        }
        // It tries again, ever more rarely.
        let dials = pair.sides[1].dials;
        pair.run(secs(600), |_| false);
        assert!((10..30).contains(&(pair.sides[1].dials - dials)), "{}", pair.sides[1].dials - dials);
        // And meets it again within the longest delay.
        pair.start(0);
        pair.run(secs(61), Pair::agree);
        assert!(pair.agree());
    }
}

#[test]
fn a_hard_reset_and_a_peer_without_the_n_bit_end_the_routes() {
    for (n_bit, subcode, kept) in
        [(true, cease::RESET, true), (true, cease::HARD_RESET, false), (false, cease::RESET, false)]
    {
        let mut pair = Pair::internal(9, ms(10));
        for side in 0..2 {
            pair.sides[side].peer.config_mut().graceful_restart =
                restart().map(|restart| GracefulRestart { notification: n_bit, ..restart });
            pair.start(side);
        }
        pair.run(secs(5), Pair::agree);
        let conn = pair.sides[0].up.expect("a session");
        pair.with(0, |peer, now, out| peer.reset(now, conn, Notification::cease(subcode, ""), out));
        pair.run(secs(1), |pair| !pair.sides[1].downs.is_empty());
        assert_eq!(pair.sides[1].downs[0].1, kept);
    }
}

#[test]
fn capabilities_that_the_peer_refuses_are_left_out_the_next_time() {
    let mut peer = Peer::new(config(1, RemoteAs::Exactly(2), 1), 0);
    peer.start(Time::ZERO);
    let mut open_lengths = Vec::new();
    for notification in
        [Notification::open(7, vec![70, 0]), Notification::open(4, Vec::new()), Notification::open(4, Vec::new())]
    {
        let (now, mut out) = (secs(1000), Vec::new());
        peer.handle_timeout(peer.poll_timeout().expect("a timer").max(now), &mut out);
        let Some(Output::Connect { conn }) = out.pop() else { panic!("{out:?}") };
        peer.tcp_connected(now, conn, &mut out);
        let Some(Output::Send { bytes, .. }) = out.pop() else { panic!("{out:?}") };
        open_lengths.push(bytes.len());
        let mut message = Vec::new();
        notification.encode(&mut message);
        let frame = Framer::new(&message, 4096).next_frame().expect("a frame").expect("whole");
        peer.receive(now, conn, frame, &mut out);
    }
    assert_eq!(open_lengths[0] - open_lengths[1], 2, "enhanced route refresh is gone");
    assert_eq!(open_lengths[2], 29, "all are gone");
}

#[test]
fn garbage_in_any_state_neither_panics_nor_keeps_a_connection() {
    let mut random = Random::new(1);
    for seed in 0..2000 {
        let mut pair = Pair::internal(seed, ms(10));
        pair.start(0);
        pair.start(1);
        let steps = seed % 30;
        for _ in 0..steps {
            let events = pair.sequence;
            pair.run(secs(1), |pair| pair.sequence > events);
        }
        let mut message = vec![0xff; 16];
        let length = 19 + random.next() % 80;
        message.extend_from_slice(&u16::try_from(length).expect("small").to_be_bytes());
        message.push((random.next() % 7) as u8);
        message.extend((19..length).map(|_| (random.next() % 256) as u8));
        for side in 0..2 {
            for conn in pair.sides[side].links.keys().copied().collect::<Vec<_>>() {
                pair.bytes(side, conn, &message);
            }
        }
        pair.run(secs(90), Pair::agree);
        assert!(pair.agree(), "seed {seed}: they meet again");
    }
}

#[test]
fn roles_must_be_counterparts_and_said_where_that_is_asked() {
    use crate::wire::Role::{Customer, Peer, Provider};
    let role = |ours, strict| Some(LocalRole { ours, strict });
    let mismatch = |reason: &Reason| match reason {
        Reason::Sent(n) | Reason::Received(n) => n.to_string() == "OPEN Message Error: Role Mismatch (2/11)",
        _ => false,
    };
    let cases = [
        (role(Provider, true), role(Customer, true), true),
        (role(Provider, false), None, true),
        (role(Provider, true), None, false),
        (None, role(Customer, true), false),
        (role(Provider, false), role(Provider, false), false),
        (role(Peer, false), role(Peer, false), true),
        (role(Peer, false), role(Customer, false), false),
    ];
    for (a, b, agree) in cases {
        let one = PeerConfig { role: a, ..config(65001, RemoteAs::External, 1) };
        let other = PeerConfig { role: b, ..config(65002, RemoteAs::External, 2) };
        let mut pair = Pair::new(one, other, 7, ms(1));
        pair.start(0);
        pair.start(1);
        pair.run(secs(5), Pair::established);
        assert_eq!(pair.established(), agree, "{a:?} {b:?}");
        if !agree {
            assert!(pair.sides.iter().flat_map(|side| &side.failures).any(mismatch), "{a:?} {b:?}");
        }
    }
}

#[test]
fn a_suspended_peer_is_left_alone_for_its_time_and_then_met_again() {
    let mut pair = Pair::new(config(65001, RemoteAs::External, 1), config(65002, RemoteAs::External, 2), 7, ms(1));
    pair.start(0);
    pair.start(1);
    pair.run(secs(5), Pair::established);
    let notification = Notification::max_prefixes(Families::ALL.iter().next().unwrap().into(), 7);
    assert_eq!(notification.data, [0, 1, 1, 0, 0, 0, 7]);
    pair.with(0, |peer, now, out| peer.suspend(now, notification, secs(300), out));
    pair.run(secs(299), Pair::established);
    assert!(!pair.established(), "the other side tries all the while");
    pair.run(secs(70), Pair::established);
    assert!(pair.established());
}
