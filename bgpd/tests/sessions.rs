//! Whole speakers over loopback sockets: sessions, reload, garbage. Needs no root.

#![allow(clippy::unwrap_used)]

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use twill_bgpd::fsm::Stop;
use twill_bgpd::io::SpeakerHandle;
use twill_bgpd::speaker::{AddPath, Config, Export, Import, Member, NextHopRule, Peer, PeerAsn};
use twill_bgpd::wire::Families;

const LIMIT: Duration = Duration::from_secs(20);

fn address(node: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 9, 9, node)
}

/// Ports that were free a moment ago, one per node.
fn ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] =
        std::array::from_fn(|i| TcpListener::bind(SocketAddr::new(address(i as u8 + 1).into(), 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

fn peer(me: u8, other: u8, port: u16, asn: u32) -> Peer {
    Peer {
        address: address(other).into(),
        interface: None,
        range: None,
        port,
        asn: PeerAsn::Number(asn),
        local_asn: None,
        source: Some(address(me).into()),
        password: None,
        hold_time: 9,
        ttl: None,
        ttl_security: None,
        passive: false,
        families: Families::ALL,
        extended_next_hop: false,
        next_hop_v4: Some(Ipv4Addr::new(192, 0, 2, me)),
        next_hop_v6: Some(format!("2001:db8::{me}").parse().unwrap()),
        graceful_restart: None,
        long_lived: None,
        import_filter: Default::default(),
        import: Import::All,
        export_filter: Default::default(),
        export: Export::All,
        allow_own_as: 0,
        as_override: false,
        reflector_client: false,
        member: Member::Apart,
        next_hop: NextHopRule::Auto,
        add_path: AddPath::default(),
        bfd: None,
        max_prefixes: None,
        role: None,
    }
}

fn config(me: u8, port: u16, asn: u32, peers: Vec<(&str, Peer)>) -> Config {
    Config {
        asn,
        router_id: Ipv4Addr::new(192, 0, 2, me),
        listen: vec![SocketAddr::new(address(me).into(), port)],
        originate: [format!("10.{me}.0.0/16").parse().unwrap(), format!("fd00:{me}::/32").parse().unwrap()].into(),
        peers: peers.into_iter().map(|(name, peer)| (name.to_owned(), peer)).collect(),
        templates: Default::default(),
        shared: Default::default(),
        bmp: Default::default(),
        exclusive: false,
        step: None,
        complete: true,
        shutdown: None,
        leaving: false,
    }
}

async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + LIMIT;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn start(config: Config, seed: u64) -> SpeakerHandle {
    let speaker = SpeakerHandle::start(None, seed).unwrap();
    speaker.reconfigure(config).await;
    speaker
}

async fn used(speaker: &SpeakerHandle) -> Vec<String> {
    let routes = speaker.routes(twill_crds::control::RouteQuery::default()).await;
    let show = |route: &twill_crds::control::RouteStatus| {
        let via = route.next_hop.map(|hop| format!(" via {hop}")).unwrap_or_default();
        format!("{}{via} [{}]", route.prefix, route.as_path)
    };
    routes.iter().filter(|route| route.best).map(show).collect()
}

async fn established(speaker: &SpeakerHandle, count: usize) {
    until("sessions established", || async {
        let (peers, _) = speaker.peers().await;
        peers.iter().filter(|peer| peer.state == "Established").count() == count
    })
    .await;
}

#[tokio::test]
async fn two_speakers_exchange_both_families_whoever_connects_first() {
    let [one, two] = ports();
    let a = start(config(1, one, 65001, vec![("b", peer(1, 2, two, 65002))]), 1).await;
    let b = start(config(2, two, 65002, vec![("a", peer(2, 1, one, 65001))]), 2).await;
    let expected = [
        "10.1.0.0/16 via 192.0.2.1 [65001]",
        "10.2.0.0/16 []",
        "fd00:1::/32 via 2001:db8::1 [65001]",
        "fd00:2::/32 []",
    ];
    until("routes at b", || async { used(&b).await == expected }).await;
    until("routes at a", || async { used(&a).await.len() == 4 }).await;
    let (peers, problems) = a.peers().await;
    assert_eq!((peers[0].received, peers[0].advertised, peers[0].asn, problems.len()), (2, 2, 65002, 0));
}

#[tokio::test]
async fn a_full_ibgp_mesh_that_starts_at_once_is_complete() {
    const N: usize = 8;
    let ports: [u16; N] = ports();
    let mut speakers = Vec::new();
    for me in 1..=N as u8 {
        let others = (1..=N as u8).filter(|other| *other != me);
        let names: Vec<(String, Peer)> =
            others.map(|other| (format!("n{other}"), peer(me, other, ports[usize::from(other) - 1], 65000))).collect();
        let peers = names.iter().map(|(name, peer)| (name.as_str(), peer.clone())).collect();
        speakers.push(start(config(me, ports[usize::from(me) - 1], 65000, peers), u64::from(me)).await);
    }
    for speaker in &speakers {
        until("all prefixes", || async { used(speaker).await.len() == 2 * N }).await;
    }
}

#[tokio::test]
async fn a_reload_keeps_sessions_that_did_not_change_and_moves_prefixes() {
    let [one, two, three] = ports();
    let base = config(1, one, 65001, vec![("b", peer(1, 2, two, 65002)), ("c", peer(1, 3, three, 65003))]);
    let a = start(base.clone(), 1).await;
    let b = start(config(2, two, 65002, vec![("a", peer(2, 1, one, 65001))]), 2).await;
    let c = start(config(3, three, 65003, vec![("a", peer(3, 1, one, 65001))]), 3).await;
    established(&a, 2).await;

    let mut changed = base.clone();
    changed.originate = ["10.77.0.0/16".parse().unwrap()].into();
    changed.peers.get_mut("b").unwrap().hold_time = 30;
    changed.peers.get_mut("c").unwrap().families = Families::only(twill_bgpd::wire::Family::Ipv4Unicast);
    a.reconfigure(changed).await;
    until("b hears of the change", || async { used(&b).await.contains(&"10.77.0.0/16 via 192.0.2.1 [65001]".into()) })
        .await;
    established(&a, 2).await;
    until("c hears it over a new session", || async {
        used(&c).await.contains(&"10.77.0.0/16 via 192.0.2.1 [65001]".into())
    })
    .await;
    let error_of = |speaker: SpeakerHandle| async move { speaker.peers().await.0[0].last_error.clone() };
    assert_eq!(error_of(b.clone()).await, None, "the session to b must not have ended");
    assert!(!used(&c).await.iter().any(|route| route.contains("fd00:1::")), "c is not offered IPv6 any more");

    let mut without = base;
    without.peers.remove("b");
    a.reconfigure(without).await;
    until("b loses the routes of a", || async { used(&b).await.len() == 2 }).await;
    established(&a, 1).await;
}

#[tokio::test]
async fn md5_keys_must_agree_on_the_listener_and_when_connecting() {
    let [one, two] = ports();
    let with = |mut peer: Peer, key: &str, passive: bool| {
        (peer.password, peer.passive) = (Some(key.to_owned()), passive);
        peer
    };
    let right = config(2, two, 65002, vec![("a", with(peer(2, 1, one, 65001), "secret", true))]);
    let a = start(config(1, one, 65001, vec![("b", with(peer(1, 2, two, 65002), "secret", false))]), 1).await;
    let b = start(right.clone(), 2).await;
    established(&a, 1).await;

    let mut wrong = right.clone();
    wrong.peers.get_mut("a").unwrap().password = Some("other".to_owned());
    b.reconfigure(wrong).await;
    until("the session with the old key is over", || async { a.peers().await.0[0].state != "Established" }).await;
    // A segment with the wrong key is dropped by the kernel: nothing comes up.
    let plain = TcpSocket::new_v4().unwrap();
    plain.bind(SocketAddr::new(address(1).into(), 0)).unwrap();
    let attempt = plain.connect(SocketAddr::new(address(2).into(), two));
    assert!(tokio::time::timeout(Duration::from_millis(300), attempt).await.is_err(), "no SYN without key is answered");
    b.reconfigure(right).await;
    established(&a, 1).await;
}

async fn connect(me: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(me, 0)).unwrap();
    socket.connect(to).await.unwrap()
}

#[tokio::test]
async fn garbage_gets_the_right_notification_a_stranger_none_and_others_do_not_notice() {
    let [one, two, three] = ports();
    let mut quiet = peer(1, 3, three, 65003);
    quiet.passive = true;
    let a = start(config(1, one, 65001, vec![("b", peer(1, 2, two, 65002)), ("c", quiet)]), 1).await;
    let b = start(config(2, two, 65002, vec![("a", peer(2, 1, one, 65001))]), 2).await;
    established(&a, 1).await;

    let to = SocketAddr::new(address(1).into(), one);
    let mut garbage = connect(address(3).into(), to).await;
    garbage.write_all(b"GET / HTTP/1.1\r\nHost: bgp\r\n\r\n").await.unwrap();
    let mut heard = Vec::new();
    tokio::time::timeout(LIMIT, garbage.read_to_end(&mut heard)).await.unwrap().unwrap();
    // Our OPEN, then NOTIFICATION 1/1, Connection Not Synchronized, and the end.
    let open = usize::from(u16::from_be_bytes([heard[16], heard[17]]));
    assert_eq!((heard[18], heard[open + 18], heard[open + 19], heard[open + 20]), (1, 3, 1, 1));

    let mut stranger = connect(address(77).into(), to).await;
    let mut nothing = Vec::new();
    let end = tokio::time::timeout(LIMIT, stranger.read_to_end(&mut nothing)).await.unwrap();
    assert!(nothing.is_empty() && end.is_ok_and(|octets| octets == 0), "closed without a word");

    let (peers, _) = a.peers().await;
    let c = peers.iter().find(|peer| peer.name == "c").unwrap();
    assert!(c.last_error.as_ref().unwrap().contains("we sent"), "{:?}", c.last_error);
    assert_eq!(b.peers().await.0[0].state, "Established");
    assert_eq!(b.peers().await.0[0].last_error, None);
}

#[tokio::test]
async fn leaving_silently_keeps_routes_at_a_peer_with_graceful_restart_and_cease_does_not() {
    let [one, two] = ports();
    let restart = |mut peer: Peer| {
        peer.graceful_restart = Some(120);
        peer
    };
    let at_b = config(2, two, 65002, vec![("a", restart(peer(2, 1, one, 65001)))]);
    let b = start(at_b, 2).await;
    let at_a = config(1, one, 65001, vec![("b", restart(peer(1, 2, two, 65002)))]);
    let a = start(at_a.clone(), 1).await;
    until("routes at b", || async { used(&b).await.len() == 4 }).await;
    a.leave(Stop::Silently).await;
    until("the session is over", || async { b.peers().await.0[0].state != "Established" }).await;
    assert_eq!(used(&b).await.len(), 4, "stale paths are used while there is nothing fresh");

    let a = start(at_a, 3).await;
    established(&b, 1).await;
    until("fresh routes at b", || async {
        let routes = b.routes(twill_crds::control::RouteQuery::default()).await;
        routes.iter().filter(|route| route.best && !route.reason.contains("restarts")).count() == 4
    })
    .await;
    a.leave(Stop::Notify(twill_bgpd::wire::Notification::cease(twill_bgpd::wire::cease::SHUTDOWN, ""))).await;
    until("the routes are gone", || async { used(&b).await.len() == 2 }).await;
}
