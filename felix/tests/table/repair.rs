//! Who may touch the table, what happens when somebody does, and how it passes from one felix to the next.

use crate::packets::{Kept, isolate, with_pods};
use crate::structure::{listed, rich, runtime};
use crate::world::{Host, Namespace, Responder, nft, sh, tcp, try_sh, udp};
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use twill_felix::base::{self, Settings, chain_name, skeleton};
use twill_felix::io::nft::{Error, Event, LONGEST_TRANSACTION, Options, Ownership, Table};
use twill_felix::ruleset::{Action, Delta, Key, Name, Rule, Value, Verdict};

/// As on a kernel that has no owners.
const UNOWNED: Options = Options { ownership: Ownership::Never, longest_transaction: LONGEST_TRANSACTION };
const SECOND: Duration = Duration::from_secs(1);

#[test]
#[ignore = "needs root and Linux 6.9: make test"]
fn nobody_else_can_change_the_table_while_its_owner_lives() {
    let host = Host::new();
    let kept = Kept::open(&host);
    kept.resync(&rich());
    host.namespace.run(|| {
        let before = sh("nft list table inet twill");
        nft("add table inet other\n");
        assert!(try_sh("nft flush ruleset").0, "it succeeds, on what is not owned");
        assert!(!try_sh("nft list table inet other").0);
        for line in ["delete table inet twill", "flush chain inet twill list_a", "add rule inet twill list_a accept"] {
            assert!(!try_sh(&format!("nft {line}")).0, "{line}");
        }
        assert_eq!(sh("nft list table inet twill"), before);
    });
    assert_eq!(kept.resync(&rich()).messages, 0);
}

/// Where the kernel has no `owner, persist`, or the table was made without it, repair is all there is.
#[test]
#[ignore = "needs root: make test"]
fn what_another_process_does_to_an_unowned_table_is_undone_within_a_second() {
    let host = Host::new();
    let mut kept = Kept::open_with(&host, UNOWNED);
    kept.resync(&rich());
    let list = || host.namespace.run(listed);
    let before = list();
    for line in [
        "flush ruleset",
        "delete table inet twill",
        "flush chain inet twill forward_v1",
        "insert rule inet twill forward_v1 accept",
        "add chain inet twill stranger",
        "add element inet twill known { twlstranger }",
        "delete element inet twill sel_6 { fd00::1 }",
        "delete element inet twill pools4 { 10.42.0.0/24 }",
        "chain inet twill forward_v1 { policy drop; }",
        "add table inet twill { flags dormant; }",
        "flush map inet twill from_pod",
        "delete table inet twill; add table inet twill; add chain inet twill forward_v1; add set inet twill known { type mark; }",
    ] {
        let begun = Instant::now();
        let script = format!("{}\n", line.replace("; add", "\nadd"));
        host.namespace.run(move || nft(&script));
        match kept.event(SECOND) {
            Event::Repaired { by, .. } => assert!(by.starts_with("nft (pid "), "{by}"),
            other => panic!("{line}: {other:?}"),
        }
        assert!(begun.elapsed() < SECOND, "{line}");
        assert_eq!(list(), before, "{line}");
    }
    host.namespace.run(|| nft("add table inet stranger\n"));
    assert_eq!(kept.resync(&rich()).messages, 0);
    assert!(kept.events.try_recv().is_err(), "other tables are not our business");
}

#[test]
#[ignore = "needs root: make test"]
fn a_delta_against_a_table_that_was_just_deleted_takes_effect_all_the_same() {
    let host = Host::new();
    let kept = Kept::open_with(&host, UNOWNED);
    kept.resync(&rich());
    for _ in 0..20 {
        host.namespace.run(|| nft("delete table inet twill\n"));
        let mut delta = Delta::default();
        delta.add_element(&base::name(base::KNOWN), Key::interface("twlnew"), Value::Plain);
        kept.commit(delta.clone());
        let mut wanted = rich();
        wanted.apply(&delta);
        assert_eq!(kept.resync(&wanted).messages, 0);
        kept.resync(&rich());
    }
}

#[test]
#[ignore = "needs root and Linux 6.9: make test"]
fn the_second_felix_waits_until_the_first_has_ended() {
    let host = Host::new();
    let first = Kept::open(&host);
    first.resync(&rich());
    let opening = host.namespace.start(|| {
        let runtime = runtime();
        let waited = runtime.block_on(async {
            tokio::time::timeout(Duration::from_millis(600), Table::open(skeleton(&Settings::default()))).await
        });
        assert!(waited.is_err(), "the table is the first one's");
        runtime.block_on(Table::open(skeleton(&Settings::default()))).map(|(table, _)| (runtime, table))
    });
    assert!(opening.recv_timeout(SECOND).is_err());
    assert_eq!(first.resync(&rich()).messages, 0, "undisturbed");
    drop(first);
    let (runtime, table) = opening.recv_timeout(5 * SECOND).expect("adopted").unwrap();
    let early = runtime.block_on(table.commit(one_element())).unwrap_err();
    assert!(matches!(early, Error::NotSynced), "{early}");
    assert_eq!(runtime.block_on(table.resync(rich())).unwrap().messages, 0, "found as it was left");
}

fn one_element() -> Delta {
    let mut delta = Delta::default();
    delta.add_element(&base::name(base::KNOWN), Key::interface("twlx"), Value::Plain);
    delta
}

#[test]
#[ignore = "needs root and Linux 6.9: make test"]
fn the_table_of_a_dead_owner_protects_and_is_repaired_at_adoption() {
    let mut host = Host::new();
    let (a, b) = (host.pod("twla"), host.pod("twlb"));
    let server = Responder::new(&b.namespace, 80);
    let mut all = with_pods(&[&a, &b]);
    isolate(&mut all, base::TO_POD, &b, vec![]);
    let kept = Kept::open(&host);
    kept.resync(&all);
    drop(kept);
    assert_eq!(udp(&a.namespace, b.v4, 80), None, "enforced while nobody is there");
    // Which is when anybody can do this.
    let deadline = Instant::now() + 5 * SECOND;
    while !host.namespace.run(|| try_sh("nft flush chain inet twill forward_v1").0) {
        assert!(Instant::now() < deadline, "the owner is dead");
    }
    let kept = Kept::open(&host);
    assert!(kept.resync(&all).messages > 0);
    assert_eq!(tcp(&a.namespace, b.v4, 80), None);
    assert!(!host.namespace.run(|| try_sh("nft flush chain inet twill forward_v1").0), "owned again");
    drop(server);
}

/// Two floods over one host: one that the policy allows, one that it denies, while felix dies, comes back, and changes its mind.
#[test]
#[ignore = "needs root: make test"]
fn a_restart_under_traffic_loses_no_packet_and_lets_none_slip_through() {
    let mut host = Host::new();
    let (a, b, c) = (host.pod("twla"), host.pod("twlb"), host.pod("twlc"));
    let mut all = with_pods(&[&a, &b, &c]);
    isolate(&mut all, base::TO_POD, &c, vec![]);
    let kept = Kept::open(&host);
    kept.resync(&all);
    let allowed = Flood::start(&a.namespace, &b.namespace, b.v4, 7001);
    let denied = Flood::start(&a.namespace, &c.namespace, c.v4, 7002);
    allowed.more(500);
    drop(kept);
    for round in 0..6 {
        allowed.more(300);
        let mut kept = Kept::open(&host);
        kept.is_followed = round < 5;
        // The base chain is replaced, lists are renamed, elements come and go.
        let mut changed = all.clone();
        let forward = changed.chains.get_mut(&chain_name("forward")).unwrap();
        forward.rules.insert(2, Rule::new(vec![], forward.rules[2].action.clone()).comment(format!("round {round}")));
        forward.rules[2].matches = vec![forward.rules[3].matches[0].clone()];
        kept.resync(&changed);
        allowed.more(300);
        assert!(kept.resync(&all).messages > 0);
        allowed.more(300);
    }
    let (sent, received) = allowed.stop();
    assert_eq!(sent, received, "allowed");
    let (sent, received) = denied.stop();
    assert!(sent > 1000);
    assert_eq!(received, 0, "denied");
}

/// A release with another skeleton: its base chains are in force before the old ones go, in a later commit.
#[test]
#[ignore = "needs root: make test"]
fn a_new_schema_takes_over_from_the_old_without_a_gap() {
    let mut host = Host::new();
    let (a, b, c) = (host.pod("twla"), host.pod("twlb"), host.pod("twlc"));
    let mut new = with_pods(&[&a, &b, &c]);
    isolate(&mut new, base::TO_POD, &c, vec![]);
    let mut old = new.clone();
    let rename = |name: &Name| Name::from(name.replace(&format!("_v{}", base::SCHEMA), "_v0"));
    old.chains = old.chains.into_iter().map(|(name, chain)| (rename(&name), chain)).collect();
    for rule in old.chains.values_mut().flat_map(|c| &mut c.rules) {
        if let Action::Verdict(Verdict::Jump(to) | Verdict::Goto(to)) = &mut rule.action {
            *to = rename(to);
        }
    }
    old.check().unwrap();
    Kept::open(&host).resync(&old);
    let allowed = Flood::start(&a.namespace, &b.namespace, b.v4, 7001);
    let denied = Flood::start(&a.namespace, &c.namespace, c.v4, 7002);
    for round in 0..10 {
        for schema in [&new, &old] {
            let mut kept = Kept::open(&host);
            kept.is_followed = round < 9;
            kept.resync(schema);
            let chains = host.namespace.run(|| sh("nft list chains inet"));
            assert_eq!(chains.matches("hook forward").count(), 1, "the other is gone: {chains}");
            assert_eq!(kept.resync(schema).messages, 0);
            allowed.more(100);
        }
    }
    let (sent, received) = allowed.stop();
    assert_eq!(sent, received, "allowed");
    let (sent, received) = denied.stop();
    assert!(sent > 1000);
    assert_eq!(received, 0, "denied");
}

/// Datagrams, some thousands a second: few enough that no buffer loses one, and, on a slow processor, that others have their turn.
struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    received: Arc<AtomicUsize>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Flood {
    fn start(from: &Namespace, to: &Namespace, addr: IpAddr, port: u16) -> Flood {
        let (stop, sent, received) = (Arc::default(), Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (end, count): (Arc<AtomicBool>, _) = (Arc::clone(&stop), received.clone());
        let receiver = to.run(move || {
            let socket = UdpSocket::bind((addr, port)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                loop {
                    match socket.recv(&mut buffer) {
                        Ok(_) => drop(count.fetch_add(1, Ordering::Relaxed)),
                        Err(_) if end.load(Ordering::Relaxed) => return,
                        Err(_) => {}
                    }
                }
            })
        });
        let (end, count): (Arc<AtomicBool>, _) = (Arc::clone(&stop), sent.clone());
        let sender = from.run(move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.connect((addr, port)).unwrap();
            std::thread::spawn(move || {
                while !end.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    if socket.send(b"x").is_ok() {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    // A send is the whole way to the receiver's queue.
                    std::thread::park_timeout(Duration::from_micros(100).max(4 * start.elapsed()));
                }
            })
        });
        Flood { stop, sent, received, threads: vec![sender, receiver] }
    }

    /// Waits until that many more were sent.
    fn more(&self, packets: usize) {
        let (target, deadline) = (self.sent.load(Ordering::Relaxed) + packets, Instant::now() + 10 * SECOND);
        while self.sent.load(Ordering::Relaxed) < target {
            assert!(Instant::now() < deadline);
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    fn stop(self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        (self.sent.load(Ordering::Relaxed), self.received.load(Ordering::Relaxed))
    }
}
