//! The durable ledger against a model of the rules, with crashes between any two steps.
#![allow(clippy::unwrap_used, missing_docs)]

use ipnet::IpNet;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use twill_ipam::io::store::Store;
use twill_ipam::{Attachment, Sandbox, StoreError};

const COOL_DOWN: u64 = 60_000;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn sandbox(n: usize) -> Sandbox {
    Sandbox { container_id: format!("c{n}"), ifname: "eth0".into() }
}

fn attachment(n: usize, address: IpAddr) -> Attachment {
    Attachment {
        sandbox: sandbox(n),
        namespace: "ns".into(),
        pod: format!("p{n}"),
        uid: format!("u{n}"),
        netns: "/run/netns/x".into(),
        boot_id: "boot".into(),
        addresses: vec![address],
        origin: Default::default(),
        asked: String::new(),
    }
}

#[derive(Clone, Debug)]
enum Action {
    Attach(usize),
    Release(usize),
    Pass(u64),
    /// The process ends and another opens the store.
    Restart,
    /// The kernel has this address, whatever the store says.
    Busy(u8),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (0usize..12).prop_map(Action::Attach),
        5 => (0usize..12).prop_map(Action::Release),
        4 => (1u64..50_000).prop_map(Action::Pass),
        1 => Just(Action::Restart),
        1 => (0u8..16).prop_map(Action::Busy),
    ]
}

/// What the rules say, in the plainest form.
#[derive(Default)]
struct Model {
    held: BTreeMap<usize, IpAddr>,
    idle_since: BTreeMap<IpAddr, u64>,
    busy: BTreeSet<IpAddr>,
}

impl Model {
    /// Longest idle first, never used before any other, ordinal 0 never, none that rests, is held or busy.
    fn next(&self, blocks: &[IpNet], now: u64) -> Option<IpAddr> {
        for block in blocks {
            let IpNet::V4(v4) = block else { continue };
            let first = u32::from(v4.network());
            let last = u32::from(v4.broadcast());
            let mut free: Vec<(u64, IpAddr)> = (first + 1..=last)
                .map(|n| IpAddr::V4(n.into()))
                .filter(|a| !self.held.values().any(|held| held == a))
                .map(|a| (self.idle_since.get(&a).copied().unwrap_or(0), a))
                .filter(|(since, a)| (*since == 0 || now - since >= COOL_DOWN) && !self.busy.contains(a))
                .collect();
            free.sort();
            if let Some((_, address)) = free.first() {
                return Some(*address);
            }
        }
        None
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn the_ledger_follows_the_rules_through_any_history_and_any_restart(actions in proptest::collection::vec(action(), 1..60)) {
        let directory = tempfile::tempdir().unwrap();
        let blocks = [net("10.42.0.0/29"), net("10.42.9.8/30")];
        let mut now = 1_000_000_u64;
        let mut store = Store::open(directory.path(), now).unwrap();
        for block in blocks {
            store.set_block(block, true).unwrap();
        }
        let mut model = Model::default();
        for action in actions {
            match action {
                Action::Attach(n) if model.held.contains_key(&n) => {}
                Action::Attach(n) => {
                    let chosen = store.ledger().choose(&blocks, now, COOL_DOWN, |a| model.busy.contains(&a));
                    prop_assert_eq!(chosen, model.next(&blocks, now));
                    if let Some(address) = chosen {
                        store.attach(attachment(n, address)).unwrap();
                        model.held.insert(n, address);
                        model.idle_since.remove(&address);
                    }
                }
                Action::Release(n) => {
                    let released = store.release(&sandbox(n), now).unwrap();
                    let expected = model.held.remove(&n);
                    prop_assert_eq!(released.map(|a| a.addresses[0]), expected);
                    model.idle_since.extend(expected.map(|address| (address, now)));
                }
                Action::Pass(time) => now += time,
                Action::Restart => {
                    drop(store);
                    store = Store::open(directory.path(), now).unwrap();
                    prop_assert!(store.fresh().is_none());
                }
                Action::Busy(n) => drop(model.busy.insert(IpAddr::V4([10, 42, 0, n].into()))),
            }
            let held: BTreeMap<String, IpAddr> =
                store.ledger().attachments().map(|a| (a.pod.clone(), a.addresses[0])).collect();
            let expected: BTreeMap<String, IpAddr> = model.held.iter().map(|(n, a)| (format!("p{n}"), *a)).collect();
            prop_assert_eq!(held, expected);
            let usage = store.ledger().usage(&blocks, now, COOL_DOWN);
            prop_assert_eq!(usage.free + usage.cooling + usage.held, 7 + 3);
        }
    }
}

#[test]
fn an_address_has_one_holder_and_a_refused_attachment_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(directory.path(), 1).unwrap();
    store.set_block(net("10.42.0.0/29"), true).unwrap();
    let address = "10.42.0.1".parse().unwrap();
    store.attach(attachment(1, address)).unwrap();
    assert!(
        matches!(store.attach(attachment(2, address)), Err(StoreError::Held { holder, .. }) if holder == sandbox(1))
    );
    assert_eq!(store.ledger().attachments().count(), 1);
    // The same sandbox may say it again.
    store.attach(attachment(1, address)).unwrap();
    assert_eq!(store.ledger().holder(address).unwrap().pod, "p1");
}

#[test]
fn nothing_is_handed_out_of_a_block_that_is_not_ready() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(directory.path(), 1).unwrap();
    store.set_block(net("10.42.0.0/29"), false).unwrap();
    assert_eq!(store.ledger().choose(&[net("10.42.0.0/29")], 5, COOL_DOWN, |_| false), None);
    store.set_block(net("10.42.0.0/29"), true).unwrap();
    assert!(store.ledger().choose(&[net("10.42.0.0/29")], 5, COOL_DOWN, |_| false).is_some());
}

#[test]
fn a_clock_that_jumped_back_neither_frees_nor_blocks_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let block = [net("10.42.0.0/31")];
    let mut store = Store::open(directory.path(), 1).unwrap();
    store.set_block(block[0], true).unwrap();
    store.attach(attachment(1, "10.42.0.1".parse().unwrap())).unwrap();
    store.release(&sandbox(1), 9_000_000).unwrap();
    assert_eq!(store.ledger().choose(&block, 1_000_000, COOL_DOWN, |_| false), None);
    drop(store);
    let store = Store::open(directory.path(), 1_000_000).unwrap();
    assert_eq!(store.ledger().choose(&block, 1_000_000 + COOL_DOWN - 1, COOL_DOWN, |_| false), None);
    assert!(store.ledger().choose(&block, 1_000_000 + COOL_DOWN, COOL_DOWN, |_| false).is_some());
}

#[test]
fn a_block_that_comes_back_finds_its_addresses_held_and_resting() {
    let directory = tempfile::tempdir().unwrap();
    let block = net("10.42.0.0/29");
    let mut store = Store::open(directory.path(), 1).unwrap();
    store.set_block(block, true).unwrap();
    store.attach(attachment(1, "10.42.0.1".parse().unwrap())).unwrap();
    store.attach(attachment(2, "10.42.0.2".parse().unwrap())).unwrap();
    store.release(&sandbox(2), 1_000).unwrap();
    store.remove_block(block).unwrap();
    assert!(store.ledger().block(block).is_none());
    store.set_block(block, true).unwrap();
    let usage = store.ledger().usage(&[block], 1_001, COOL_DOWN);
    assert_eq!((usage.held, usage.cooling, usage.free), (1, 1, 5));
}

#[test]
fn a_damaged_store_is_moved_aside_and_said() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("addresses.db"), vec![7; 9000]).unwrap();
    let store = Store::open(directory.path(), 42).unwrap();
    assert!(store.fresh().unwrap().contains("was damaged"), "{:?}", store.fresh());
    assert!(directory.path().join("addresses.db.damaged-42").exists());
}

#[test]
fn the_store_is_for_its_owner_alone_and_for_one_process_at_a_time() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ipam");
    let mut store = Store::open(&path, 1).unwrap();
    store.set_block(net("10.42.0.0/29"), true).unwrap();
    for entry in std::fs::read_dir(&path).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
    }
    assert!(matches!(Store::open(&path, 1), Err(StoreError::Locked { .. })));
}

#[test]
fn what_replaces_an_attachment_lets_what_was_there_rest_in_the_same_transaction() {
    let directory = tempfile::tempdir().unwrap();
    let block = net("10.42.0.0/29");
    let at = |text: &str| text.parse::<IpAddr>().unwrap();
    let mut store = Store::open(directory.path(), 1).unwrap();
    store.set_block(block, true).unwrap();
    store.attach(attachment(1, at("10.42.0.1"))).unwrap();
    store.attach(attachment(2, at("10.42.0.2"))).unwrap();
    let taken = store.replace(attachment(1, at("10.42.0.2")), 5_000);
    assert!(matches!(taken, Err(StoreError::Held { .. })));
    assert_eq!(store.ledger().attachment(&sandbox(1)).unwrap().addresses, [at("10.42.0.1")], "nothing has changed");
    let old = store.replace(attachment(1, at("10.42.0.3")), 5_000).unwrap().unwrap();
    assert_eq!(old.addresses, [at("10.42.0.1")]);
    assert_eq!(store.replace(attachment(3, at("10.42.0.4")), 5_000).unwrap(), None, "where nothing was");
    for _ in 0..2 {
        let ledger = store.ledger();
        assert_eq!(ledger.rests(at("10.42.0.1"), 6_000, COOL_DOWN), Some(59_000));
        assert_eq!(ledger.holder(at("10.42.0.3")).unwrap().sandbox, sandbox(1));
        let usage = ledger.usage(&[block], 6_000, COOL_DOWN);
        assert_eq!((usage.held, usage.cooling, usage.free), (3, 1, 3));
        drop(store);
        store = Store::open(directory.path(), 6_000).unwrap();
    }
}
