//! A large cluster in memory: what a decision costs. Prints its figures: cargo test -p twill-controller --test scale -- --nocapture
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs, unreachable_pub)]

mod support;

use serde_json::json;
use std::time::{Duration, Instant};
use support::{applied, block, cluster_wide, node, now, peer, pool, reported, synced};
use twill_controller::{Action, Controller, Fact, Written};
use twill_crds::BGPConfiguration;
use twill_crds::bgp::Topology;
use twill_datastore::{Followed, Revision};

const NODES: usize = 5_000;
const BLOCKS: usize = 10_000;

fn timed<T>(what: &str, run: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let result = run();
    let took = began.elapsed();
    println!("{what}: {took:?}");
    (result, took)
}

fn cidr(n: usize) -> String {
    format!("10.{}.{}.{}/26", 64 + n / 1024, n / 4 % 256, n % 4 * 64)
}

#[test]
fn five_thousand_nodes_are_decided_about_in_a_moment() {
    let mut controller = Controller::new(Duration::from_secs(900));
    synced(&mut controller);
    let name = |n: usize| format!("n{n:04}");
    let nodes = (0..NODES).map(|n| node(&name(n), 1)).collect();
    controller.hear(Fact::node(Followed::Synced { items: nodes, revision: Revision(2) }));
    controller.hear(Fact::Pool(applied(pool("p", json!({"cidr": "10.64.0.0/10"})))));
    for tor in 0..100 {
        let spec = json!({"remote": {"address": format!("172.31.{tor}.1")}, "asn": 65000, "nodeSelector": {"matchLabels": {"rack": "r5"}}});
        controller.hear(Fact::Peer(applied(peer(&format!("tor{tor:02}"), spec))));
    }
    for n in 0..NODES {
        let network = reported(&name(n), 1, &format!("172.30.{}.{}", n / 250, n % 250 + 1), &["tor07"], true);
        controller.hear(Fact::Network(applied(network)));
    }
    let blocks: Vec<_> = (0..BLOCKS).map(|n| block(&cidr(n), &name(n % NODES), &format!("b{n}"), 1, 7)).collect();
    timed("10,000 blocks heard", || blocks.into_iter().for_each(|b| controller.hear(Fact::Block(applied(b)))));
    let (mut first, took) = timed("the first plan, with 100 peers of all nodes", || controller.plan(now(1_000)));
    // Without one its nodes would be a mesh.
    assert_eq!(first.iter().filter(|action| **action == Action::Configure).count(), 1);
    first.retain(|action| *action != Action::Configure);
    controller.hear(Fact::Configuration(applied(cluster_wide::<BGPConfiguration>("default", 1, json!({})))));
    assert_eq!(first.iter().filter(|action| matches!(action, Action::Write(Written::Pool(_), _))).count(), 1);
    assert_eq!(first.len(), 101);
    // Debug builds on a busy machine included; a release build takes a twentieth.
    assert!(took < Duration::from_secs(10), "{took:?}");
    for action in first {
        match action {
            Action::Write(Written::Pool(pool), _) => controller.hear(Fact::Pool(applied(*pool))),
            Action::Write(Written::Peer(peer), _) => controller.hear(Fact::Peer(applied(*peer))),
            other => panic!("{other:?}"),
        }
    }
    let (second, took) = timed("the next, with reflectors chosen", || controller.plan(now(6_000)));
    let [Action::Write(Written::Configuration(written), _)] = &second[..] else { panic!("{second:?}") };
    let sessions = written.status.clone().unwrap().sessions.unwrap();
    assert_eq!((sessions.topology, sessions.route_reflectors.len()), (Topology::RouteReflector, 5));
    assert!(took < Duration::from_secs(2), "{took:?}");
    controller.hear(Fact::Configuration(applied(*written.clone())));
    let (third, _) = timed("the next, when its writes were heard", || controller.plan(now(7_000)));
    assert_eq!(third, []);
    let (fourth, took) = timed("one when nothing was heard", || controller.plan(now(8_000)));
    assert_eq!(fourth, []);
    assert!(took < Duration::from_millis(200), "{took:?}");
    // A rack is deleted: its nodes are looked at, a hundred at once.
    for n in 0..250 {
        controller.hear(Fact::node(support::deleted(node(&name(n), 1))));
    }
    let (actions, _) = timed("250 nodes deleted", || controller.plan(now(10_000)));
    assert_eq!(actions.iter().filter(|action| matches!(action, Action::Look { .. })).count(), 100);
}
