//! BFD of `twill bfd` with that of BIRD and FRR, for BGP sessions of both families, over one hop and over several.
//!
//! ```text
//!  Twill, AS 65000 ── (router) ── BIRD or FRR, AS 65001
//!  10.42.0.0/24, fd42::/64        203.0.113.0/24, 2001:db8:113::/48
//! ```
//! 1. BFD is Up within two seconds at 100 ms × 5, and its agreed times are these.
//! 2. When packets vanish while every interface stays up, the sessions are down and their routes gone from the kernel in under a second, and
//!    all come back when packets do.
//! 3. bgpd killed without a word: BFD stays Up, and BIRD, which waits for a restart, has the routes at every moment until bgpd is back.
//! 4. The same without BFD surviving: BIRD has dropped them, which is what claim 3 is worth. On our side, routes that are kept for a speaker
//!    that restarts go within a second when its BFD, having outlived it, goes down; not if that is part of the speaker (C bit, RFC 5882 4.3).
//! 5. `twill bfd` killed: a BGP session whose peer does not mind goes on, and BFD comes back. Ended by SIGTERM and started again, no session of
//!    BFD or BGP goes down anywhere.
//! 6. A session that is not wanted any more says AdminDown, which Twill does not take for a failure (FRR 8.4 does).
//! 7. A packet that came through a router is not listened to where there is none.
//! 8. Nodes of a cluster whose BGPPeers have `bfd`: each watches the other, a killed bgpd costs nothing, a node that is cut off is out of the
//!    other's kernel within a second.
#![allow(clippy::unwrap_used)]

mod load;
mod speakers;
mod world;

use speakers::{Bird, Frr, OWN, PREFIXES, Twill};
use std::time::{Duration, Instant};
use twill_e2e::{Lab, succeeded};
use world::{LIMIT, World, has_route, holds, within};

const SECOND: Duration = Duration::from_secs(1);
/// Within which a failure is found at the latest: a machine that stands still for a moment has as much again as detection takes.
const FOUND: Duration = SECOND;
/// Twill's side of a session.
const BFD: &str = "bfd: {minTx: 100, minRx: 100, multiplier: 5}";
const RESTART: &str = "gracefulRestart: {restartTime: 60}";

/// Claims 1 and 2, whoever the other side is.
fn comes_up_and_finds_a_cut(world: &World, options: &str, multihop: bool) {
    let began = Instant::now();
    let twill = Twill::start(world, options);
    within(LIMIT, "BFD is up on both sessions", || twill.are_watched());
    let up = began.elapsed();
    within(LIMIT, "sessions and routes", || twill.is_ready());
    let agreed = || {
        let sessions = twill.bfd().sessions;
        let is_agreed = |session: &twill_crds::control::BfdSession| {
            (session.transmit_interval, session.detection_time, session.multihop) == (Some(100), Some(500), multihop)
        };
        sessions.len() == 2 && sessions.iter().all(is_agreed)
    };
    within(LIMIT, "the intervals are agreed on", agreed);
    println!("BFD up {up:.2?} after bgpd's start");
    assert!(up < SECOND * 2, "{up:?}");

    let failures = || twill.log().matches("BFD session down").count();
    let before = failures();
    world.cut();
    let cut = Instant::now();
    within(LIMIT, "the routes are gone", || PREFIXES.iter().all(|prefix| !has_route(&world.twill, prefix)));
    let gone = cut.elapsed();
    within(LIMIT, "no session is established", || twill.peers().iter().all(|peer| peer.state != "Established"));
    let down = cut.elapsed();
    println!("cut: routes gone after {gone:.0?}, sessions known to be down after {down:.0?}");
    assert!(gone < FOUND && down < FOUND, "{gone:?} {down:?}");
    let peers = twill.peers();
    assert!(peers.iter().all(|peer| peer.bfd.as_deref() == Some("Down")), "{peers:?}");
    assert_eq!(failures() - before, 2);

    world.heal();
    within(LIMIT, "everything is back", || twill.is_ready());
}

#[test]
#[ignore = "needs root and bird2: make test"]
fn bfd_over_one_hop_with_bird_is_up_in_two_seconds_and_finds_a_cut_in_one() {
    let world = World::new(false);
    let _bird = Bird::start(&world, "bfd on; graceful restart on;", "");
    comes_up_and_finds_a_cut(&world, &format!("{BFD}, {RESTART}"), false);
}

#[test]
#[ignore = "needs root and bird2: make test"]
fn bfd_over_several_hops_with_bird_is_up_in_two_seconds_and_finds_a_cut_in_one() {
    let world = World::new(true);
    let _bird = Bird::start(&world, "multihop 8; bfd on; graceful restart on;", "");
    comes_up_and_finds_a_cut(&world, &format!("multihop: 8, {BFD}, {RESTART}"), true);
}

#[test]
#[ignore = "needs root and frr: make test"]
fn bfd_over_one_hop_with_frr_is_up_in_two_seconds_and_finds_a_cut_in_one() {
    let world = World::new(false);
    let frr = Frr::start(&world, false);
    comes_up_and_finds_a_cut(&world, &format!("{BFD}, {RESTART}"), false);
    assert!(frr.ask("show bfd peers").contains("peer 10.73.1.1"));
}

#[test]
#[ignore = "needs root and frr: make test"]
fn bfd_over_several_hops_with_frr_is_up_in_two_seconds_and_finds_a_cut_in_one() {
    let world = World::new(true);
    let _frr = Frr::start(&world, true);
    comes_up_and_finds_a_cut(&world, &format!("multihop: 8, {BFD}, {RESTART}"), true);
}

#[test]
#[ignore = "needs root and bird2: make test"]
fn bgpd_killed_beside_bfd_loses_nothing_at_bird() {
    let world = World::new(false);
    let bird = Bird::start(&world, "bfd on; graceful restart on;", "");
    let mut twill = Twill::start(&world, &format!("{BFD}, {RESTART}"));
    let route = || bird.ask(&format!("show route {}", OWN[0]));
    within(LIMIT, "all is up", || twill.is_ready() && route().contains("via 10.73.1.1"));
    let process = twill.bfd_process().unwrap();
    for round in 0..3 {
        twill.kill_bgpd();
        let looks = holds(SECOND * 2, "BIRD has the route while bgpd is away", || {
            let route = route();
            assert!(route.contains("via 10.73.1.1"), "{route}");
            true
        });
        let bfd = bird.ask("show bfd sessions");
        assert_eq!(bfd.matches(" Up ").count(), 2, "{bfd}");
        assert!(!bird.ask("show protocols").contains("Established"));
        assert_eq!(twill.bfd().sessions.iter().filter(|session| session.state == "Up").count(), 2);
        twill.start_bgpd();
        let back = within(LIMIT, "bgpd is back", || {
            assert!(route().contains("via 10.73.1.1"));
            twill.is_ready()
        });
        holds(SECOND, "and the route is still there", || route().contains("via 10.73.1.1"));
        println!("round {round}: {looks} looks while bgpd was away, back after {back:.2?}");
    }
    assert_eq!(twill.bfd_process(), Some(process), "one BFD process all the while");
    assert_eq!(twill.log().matches("session down").count(), 0, "{}", twill.log());
}

#[test]
#[ignore = "needs root: make test"]
fn stale_routes_go_when_bfd_that_outlived_the_speaker_goes_down() {
    let world = World::new(false);
    let options = format!("{BFD}, {RESTART}");
    let mut other = Twill::start_other(&world, &options);
    let twill = Twill::start(&world, &options);
    within(LIMIT, "all is up on both sides", || twill.is_ready() && other.is_ready());
    other.kill_bgpd();
    within(LIMIT, "the sessions are over", || twill.peers().iter().all(|peer| peer.state != "Established"));
    holds(SECOND, "the routes are kept as stale", || twill.has_routes() && twill.are_watched());
    world.cut();
    let gone = within(LIMIT, "the routes are gone", || !PREFIXES.iter().any(|prefix| has_route(&world.twill, prefix)));
    println!("stale routes gone after {gone:.0?}");
    assert!(gone < FOUND);
}

#[test]
#[ignore = "needs root and bird2: make test"]
fn stale_routes_stay_when_bfd_goes_down_with_a_speaker_that_it_is_part_of() {
    let world = World::new(false);
    let mut bird = Bird::start(&world, "bfd on; graceful restart on;", "");
    let twill = Twill::start(&world, &format!("{BFD}, {RESTART}"));
    within(LIMIT, "all is up", || twill.is_ready());
    // Without the C bit, this says as much of BIRD's forwarding as the end of its TCP does.
    bird.kill();
    within(LIMIT, "BFD is down", || twill.peers().iter().all(|peer| peer.bfd.as_deref() == Some("Down")));
    holds(SECOND * 2, "the routes are kept as stale", || twill.has_routes());
}

#[test]
#[ignore = "needs root and bird2: make test"]
fn bgpd_and_bfd_killed_together_are_a_failure_to_bird() {
    let world = World::new(false);
    let bird = Bird::start(&world, "bfd on; graceful restart on;", "");
    let mut twill = Twill::start(&world, &format!("{BFD}, {RESTART}"));
    let has_route = || bird.ask(&format!("show route {}", OWN[0])).contains("via 10.73.1.1");
    within(LIMIT, "all is up", || twill.is_ready() && has_route());
    twill.kill_bgpd();
    twill.signal_bfd("KILL");
    let gone = within(LIMIT, "BIRD drops the route", || !has_route());
    println!("gone after {gone:.2?}");
    assert!(gone < SECOND * 3);
}

#[test]
#[ignore = "needs root and bird2: make test"]
fn bfd_killed_takes_no_session_down_and_comes_back() {
    let world = World::new(false);
    // BFD beside BGP, which does not ask for it.
    let neighbours = "neighbor 10.73.1.1 local 10.73.1.2; neighbor fd73:1::1 local fd73:1::2;";
    let bird = Bird::start(&world, "graceful restart on;", neighbours);
    let twill = Twill::start(&world, &format!("{BFD}, {RESTART}"));
    within(LIMIT, "all is up", || twill.is_ready());
    let process = twill.bfd_process().unwrap();
    twill.signal_bfd("KILL");
    within(LIMIT, "another one is there", || twill.bfd_process().is_some_and(|other| other != process));
    within(LIMIT, "BFD is up again", || {
        assert!(twill.are_established(), "{:?}", twill.peers());
        twill.are_watched()
    });
    assert!(bird.ask("show bfd sessions").matches(" Up ").count() == 2);
    assert_eq!(twill.log().matches("session down").count(), 0, "{}", twill.log());
    // A failure is found as before.
    world.cut();
    let gone = within(LIMIT, "the routes are gone", || PREFIXES.iter().all(|prefix| !has_route(&world.twill, prefix)));
    assert!(gone < FOUND, "{gone:?}");
}

/// Claim 5, whoever the other side is.
fn is_replaced_unnoticed(world: &World, sessions_up: impl Fn() -> usize) {
    let twill = Twill::start(world, &format!("{BFD}, {RESTART}"));
    within(LIMIT, "all is up", || twill.is_ready());
    let agreed = || twill.bfd().sessions.iter().filter(|session| session.detection_time == Some(500)).count() == 2;
    for _ in 0..2 {
        within(LIMIT, "fast on both sides", agreed);
        let process = twill.bfd_process().unwrap();
        twill.signal_bfd("TERM");
        within(LIMIT, "another process is there", || twill.bfd_process().is_some_and(|other| other != process));
        within(LIMIT, "which has the sessions", || twill.are_watched());
        assert!(twill.log().contains("going on where the process before ended sessions=2"), "{}", twill.log());
        assert_eq!(sessions_up(), 2);
        assert!(twill.are_established() && twill.has_routes());
    }
    assert_eq!(twill.log().matches("session down").count(), 0, "{}", twill.log());
    // Everything is as before: a failure is found as fast.
    within(LIMIT, "fast on both sides", agreed);
    world.cut();
    let gone = within(LIMIT, "the routes are gone", || !PREFIXES.iter().any(|prefix| has_route(&world.twill, prefix)));
    assert!(gone < FOUND, "{gone:?}");
}

#[test]
#[ignore = "needs root and bird2: make test"]
fn bfd_that_is_replaced_is_noticed_by_no_bird() {
    let world = World::new(false);
    let bird = Bird::start(&world, "bfd on; graceful restart on;", "");
    is_replaced_unnoticed(&world, || bird.ask("show bfd sessions").matches(" Up ").count());
}

#[test]
#[ignore = "needs root and frr: make test"]
fn bfd_that_is_replaced_is_noticed_by_no_frr() {
    let world = World::new(false);
    let frr = Frr::start(&world, false);
    is_replaced_unnoticed(&world, || frr.ask("show bfd peers").matches("Status: up").count());
}

#[test]
#[ignore = "needs root and bird2: make test"]
fn bfd_and_bgpd_that_are_replaced_together_lose_nothing_at_bird() {
    let world = World::new(false);
    let bird = Bird::start(&world, "bfd on; graceful restart on;", "");
    let mut twill = Twill::start(&world, &format!("{BFD}, {RESTART}"));
    let has_route = || bird.ask(&format!("show route {}", OWN[0])).contains("via 10.73.1.1");
    within(LIMIT, "all is up", || twill.is_ready() && has_route());
    // As a kubelet ends a pod: whom BFD works for is gone while it asks its peers for patience.
    twill.signal_bfd("TERM");
    twill.kill_bgpd();
    within(LIMIT, "the sessions of BGP are over", || !bird.ask("show protocols").contains("Established"));
    holds(SECOND * 2, "BIRD has the route while both are away", has_route);
    assert_eq!(bird.ask("show bfd sessions").matches(" Up ").count(), 2);
    twill.start_bgpd();
    within(LIMIT, "both are back", || {
        assert!(has_route());
        twill.is_ready()
    });
}

#[test]
#[ignore = "needs root: make test"]
fn a_bfd_session_whose_ends_change_is_no_failure() {
    let world = World::new(false);
    let other = Twill::start_other(&world, BFD);
    let twill = Twill::start(&world, BFD);
    within(LIMIT, "all is up on both sides", || twill.is_ready() && other.is_ready());
    twill.configure(&twill.configuration().replace("multiplier: 5}", "multiplier: 5, multihop: always}"));
    let several = || {
        let sessions = twill.bfd().sessions;
        sessions.len() == 2 && sessions.iter().all(|session| session.multihop)
    };
    within(LIMIT, "the sessions count on several hops", several);
    holds(SECOND * 2, "BGP stays", || twill.are_established() && other.are_established());
    for log in [twill.log(), other.log()] {
        assert!(!log.contains("BFD Down") && !log.contains("BFD session down"), "{log}");
    }
}

#[test]
#[ignore = "needs root: make test"]
fn bfd_that_is_taken_out_of_service_is_no_failure_to_twill() {
    let world = World::new(false);
    let other = Twill::start_other(&world, BFD);
    let twill = Twill::start(&world, BFD);
    let is_ready = || twill.is_ready() && other.is_ready();
    within(LIMIT, "all is up on both sides", is_ready);
    twill.configure(&twill.configuration().replace(BFD, "holdTime: 90"));
    within(LIMIT, "nobody wants BFD", || twill.bfd().sessions.is_empty());
    holds(SECOND, "sessions stay", || twill.are_established() && other.are_established());
    assert!(other.peers().iter().all(|peer| peer.bfd.as_deref() == Some("Down")), "{:?}", other.peers());
    twill.configure(&twill.configuration().replace("holdTime: 90", BFD));
    within(LIMIT, "BFD is up again on both sides", || {
        assert!(twill.are_established() && other.are_established(), "{:?} {:?}", twill.peers(), other.peers());
        twill.are_watched() && other.are_watched()
    });
    for log in [twill.log(), other.log()] {
        assert!(!log.contains("BFD session down"), "{log}");
    }
    // What a failure is like, for comparison.
    other.signal_bfd("STOP");
    within(FOUND, "a silent one is a failure", || !twill.are_established() && twill.log().contains("BFD session down"));
    other.signal_bfd("CONT");
}

#[test]
#[ignore = "needs root and bird2: make test"]
fn a_packet_that_came_through_a_router_is_not_listened_to_on_one_hop() {
    let world = World::new(false);
    let _bird = Bird::start(&world, "bfd on; graceful restart on;", "");
    let twill = Twill::start(&world, &format!("{BFD}, {RESTART}"));
    within(LIMIT, "all is up", || twill.is_ready());
    // Version 1, Down, multiplier 3, My Discriminator 7, Your Discriminator 0.
    let mut packet = [0; 24];
    packet[..8].copy_from_slice(&[0x20, 0x40, 3, 24, 0, 0, 0, 7]);
    let discarded = twill.bfd().discarded;
    world.send(&packet, "10.73.1.1:3784", 254);
    within(LIMIT, "it is discarded", || twill.bfd().discarded > discarded);
    assert!(twill.are_watched() && twill.are_established());
    // With the TTL that only a neighbour can give, it ends the session.
    world.send(&packet, "10.73.1.1:3784", 255);
    within(FOUND, "the session is down", || twill.log().contains("Neighbor Signaled Session Down"));
}

#[test]
#[ignore = "needs root: make test"]
fn nodes_whose_bgppeers_have_bfd_watch_each_other() {
    // Each node takes the one that names the other.
    let peer = |name: &str, address: &str| {
        format!(
            "---\napiVersion: twill.network/v1\nkind: BGPPeer\nmetadata: {{name: {name}}}\n\
             spec: {{remote: {{address: {address}}}, asn: internal, bfd: {{minTx: 100, minRx: 100}}}}\n"
        )
    };
    let peers = peer("to-n1", "172.31.1.11") + &peer("to-n2", "172.31.1.12");
    let lab = "apiVersion: twill.network/v1\nkind: Lab\nmetadata: {name: test}\nspec:\n  \
               racks: [{name: r1, subnet: 172.31.1.0/24, nodes: [n1, n2]}]\n  resources: [peers.yaml]\n";
    let lab = Lab::up("bfd", lab, &[("peers.yaml", &peers)]).unwrap();
    let watched = |node: &str| {
        lab.ask(node, &["peers"]).is_ok_and(|table| table.contains("Established") && table.contains(" Up "))
    };
    within(LIMIT, "BFD is up on both nodes", || watched("n1") && watched("n2"));

    succeeded(lab.lab(["kill", "n1", "bgpd"]).output().unwrap()).unwrap();
    let table = || lab.exec("n2", &["ip", "route", "show", "metric", "512"]).unwrap();
    assert!(table().contains("172.31.1.11"), "{}", table());
    succeeded(lab.lab(["start", "n1", "bgpd"]).output().unwrap()).unwrap();
    within(LIMIT, "both are back", || watched("n1") && watched("n2"));

    // The interface of n2 stays up: only n1 is cut off.
    succeeded(lab.lab(["partition", "n1"]).output().unwrap()).unwrap();
    within(FOUND, "n2 has no route to n1", || table().is_empty());
}

/// Both sides of a thousand sessions at 50 ms × 3, on this machine: prints what share of a processor each process takes.
#[test]
#[ignore = "needs a quiet machine: make bench-bfd"]
fn a_thousand_bfd_sessions_stay_up_at_fifty_milliseconds() {
    const COUNT: u16 = 1000;
    let world = World::new(false);
    let load = load::Load::start(&world, COUNT);
    within(LIMIT, "all sessions are up", || load.up() == [COUNT; 2].map(usize::from));
    let (before, began) = (load.processor_time(), Instant::now());
    holds(SECOND * 10, "all stay up", || {
        std::thread::sleep(SECOND);
        load.up() == [COUNT; 2].map(usize::from)
    });
    let took = began.elapsed();
    let shares = load
        .processor_time()
        .map(|time| time.as_secs_f64())
        .into_iter()
        .zip(before)
        .map(|(now, before)| 100.0 * (now - before.as_secs_f64()) / took.as_secs_f64());
    let shares: Vec<String> = shares.map(|share| format!("{share:.1} %")).collect();
    println!("{COUNT} sessions at 50 ms: {} of a processor", shares.join(" and "));
    assert_eq!(load.failures(), [0; 2], "none was down since all were up");
}
