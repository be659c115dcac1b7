//! Policy changes, felix is killed and started, and somebody empties all tables, under as many packets as the machine carries: none that is
//! forbidden passes, and none that is allowed is lost.
//!
//! ```text
//!   friend ──UDP 7000──▶ target      allowed all the time: by label, by several policies in turn
//!          ──TCP 7001──▶             never allowed
//!   enemy  ──UDP 7000──▶ target      never allowed
//!          ──TCP 7000──▶
//!          ──UDP 7000──▶ closed      never allowed
//! ```
//! Each packet is the first of a connection as the node sees it, so it is judged by policy: nobody answers the datagrams, those that are
//! forbidden have another source port each time, and the segments are bare SYNs. They are counted by the kernel where they arrive, in the pod's
//! namespace. What a queue of the kernel drops on the way, which it counts, is not policy's.

#![allow(clippy::unwrap_used)]

mod changes;
#[allow(unreachable_pub)]
#[path = "../daemon/node.rs"]
mod node;
mod packets;
#[path = "../daemon/world.rs"]
mod world;

use changes::Changes;
use node::{Attached, Node};
use packets::{Arrivals, Flow, SYN, Sender, UDP};
use serde_json::json;
use std::time::{Duration, Instant};

/// Packets per second that each of the two senders tries.
const RATE: u64 = 50_000;
/// What a person waits for a table that somebody has removed.
const REPAIR: Duration = Duration::from_secs(1);

#[test]
#[ignore = "needs root: make test"]
fn a_hundred_changes_three_kills_and_a_foreign_hand_under_a_flood() {
    flood(100, 3, 1);
}

#[test]
#[ignore = "needs minutes and root: make test-flood"]
fn a_thousand_changes_twenty_kills_and_foreign_hands_under_a_flood() {
    flood(1000, 20, 4);
}

/// What is attached, and what is sent.
struct Stage {
    node: Node,
    pods: [Attached; 4],
    changes: Changes,
    arrivals: [Arrivals; 2],
    senders: [Sender; 2],
    /// Forbidden packets that passed while there was no table, and allowed ones that were lost until it was there whole.
    excused: [u64; 2],
}

fn flood(changes: usize, kills: usize, flushes: usize) {
    let mut stage = Stage::set();
    let began = Instant::now();
    let mut repairs = Vec::new();
    let per_life = changes.div_ceil(kills);
    for life in 0..kills {
        for _ in 0..per_life - 2 {
            stage.change();
        }
        stage.applied();
        if flushes > 0 && life % (kills / flushes) == 0 {
            stage.flushed_while_felix_lives(&mut repairs);
        }
        stage.node.kill();
        // What changes meanwhile is in force when felix is there again.
        stage.change();
        stage.change();
        if flushes > 0 && life % (kills / flushes) == kills / flushes - 1 {
            repairs.push(stage.flushed_while_felix_is_dead());
        } else {
            stage.node.start();
        }
        stage.check();
    }
    stage.applied();
    let took = began.elapsed();
    let made = stage.changes.made;
    stage.end(took);
    println!("{made} changes, {kills} kills in {took:.1?}; the table was back after {repairs:.0?}");
    assert!(repairs.iter().all(|took| *took < REPAIR), "{repairs:?}");
    assert!(made >= changes);
}

impl Stage {
    fn set() -> Self {
        let mut node = Node::new(&["10.42.0.0/16"]);
        node.start_routed(1);
        let pods = ["friend", "enemy", "target", "closed"].map(|name| node.pod(name));
        let addresses = pods.each_ref().map(|pod| node.add(pod).remove(0));
        for (pod, address) in pods.iter().zip(&addresses) {
            node.report(pod, std::slice::from_ref(address));
        }
        let changes = Changes::begin(&node);
        let [friend, enemy, target, closed] = addresses.map(|address| address.parse().unwrap());
        let arrivals = [Arrivals::count(&pods[2], friend), Arrivals::count(&pods[3], friend)];
        let flow = |from, to, protocol, port, ports| Flow { from, to, protocol, port, ports };
        applied(&node);
        let senders = [
            // The connections of what is allowed are remembered, so they are few.
            Sender::start(
                &pods[0],
                RATE,
                [
                    flow(friend, target, UDP, 7000, 1_000),
                    flow(friend, target, UDP, 7000, 1),
                    flow(friend, target, SYN, 7001, 20_000),
                ],
            ),
            Sender::start(
                &pods[1],
                RATE,
                [
                    flow(enemy, target, UDP, 7000, 20_000),
                    flow(enemy, target, SYN, 7000, 20_000),
                    flow(enemy, closed, UDP, 7000, 20_000),
                ],
            ),
        ];
        let stage = Self { node, pods, changes, arrivals, senders, excused: [0; 2] };
        world::until("packets arrive", Duration::from_secs(5), || stage.arrivals[0].allowed() > 1000);
        stage
    }

    /// One change of policy, labels or namespaces, after which the flows are allowed and forbidden as before.
    fn change(&mut self) {
        if self.changes.make(&self.node) {
            // Changes of different kinds come by different ways: what one follows the other for must not come before it.
            self.applied();
        }
    }

    /// All that changed is in the kernel, if a felix is there.
    fn applied(&self) {
        if self.node.status().is_some() {
            applied(&self.node);
        }
    }

    fn forbidden(&self) -> u64 {
        self.arrivals.iter().map(Arrivals::forbidden).sum()
    }

    /// Forbidden packets that have passed, and allowed ones that have not, but for those that a queue dropped. Nothing is sent meanwhile.
    fn wrong(&self) -> [u64; 2] {
        self.senders.iter().for_each(Sender::hold);
        let [friend, _] = &self.senders;
        let allowed = friend.sent()[0] + friend.sent()[1];
        let missing = || allowed.saturating_sub(self.arrivals[0].allowed() + self.in_queues());
        // What was sent last may be under way.
        let end = Instant::now() + Duration::from_secs(2);
        while missing() > self.excused[1] && Instant::now() < end {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        let wrong = [self.forbidden(), missing()];
        self.senders.iter().for_each(Sender::go_on);
        wrong
    }

    /// Packets that the kernel could not hand on, out of the friend or to the target.
    fn in_queues(&self) -> u64 {
        packets::dropped_by_queues(&self.pods[0].ns) + packets::dropped_by_queues(&self.node.ns)
    }

    fn check(&self) {
        let wrong = self.wrong();
        assert_eq!(
            wrong,
            self.excused,
            "forbidden packets that passed and allowed ones that were lost, after {} changes; {} dropped by queues\n{}",
            self.changes.made,
            self.in_queues(),
            self.node.tail()
        );
    }

    /// Where the kernel lets us own the table nothing happens; elsewhere it is back within a second.
    fn flushed_while_felix_lives(&mut self, repairs: &mut Vec<Duration>) {
        self.check();
        let owned = self.node.ns.run(&["nft", "list", "table", "inet", "twill"]).contains("flags owner");
        let began = Instant::now();
        self.node.ns.run(&["nft", "flush", "ruleset"]);
        if !owned {
            repairs.push(self.guarded_again(began));
        }
        self.check();
    }

    /// Nobody is there to put it right, so packets pass until felix is: how long that takes from its start.
    fn flushed_while_felix_is_dead(&mut self) -> Duration {
        self.check();
        self.node.ns.run(&["nft", "flush", "ruleset"]);
        self.node.launch();
        let took = self.guarded_again(Instant::now());
        self.check();
        took
    }

    /// Waits until nothing forbidden arrives any more and what is allowed does, and excuses what went wrong meanwhile. How long since
    /// `began`.
    fn guarded_again(&mut self, began: Instant) -> Duration {
        let mut took = Duration::ZERO;
        let mut last = [0; 2];
        world::until("the table is back", Duration::from_secs(10), || {
            took = began.elapsed();
            // Dozens of each would come in this time.
            std::thread::park_timeout(Duration::from_millis(5));
            let now = [self.forbidden(), self.arrivals[0].allowed()];
            let before = std::mem::replace(&mut last, now);
            now[0] == before[0] && now[1] > before[1]
        });
        world::until("felix is in sync", Duration::from_secs(10), || self.node.status().is_some());
        self.applied();
        self.excused = self.wrong();
        took
    }

    fn end(self, took: Duration) {
        self.check();
        let [friend, enemy] = self.senders.each_ref().map(Sender::sent);
        let allowed = friend[0] + friend[1];
        let per_second = |packets: u64| packets as f64 / took.as_secs_f64();
        let forbidden = friend[2] + enemy.iter().sum::<u64>();
        println!(
            "{:.0} packets/s: {:.0} allowed, {:.0} forbidden; {} dropped by queues; without the table {} forbidden passed, {} allowed were lost",
            per_second(allowed + forbidden),
            per_second(allowed),
            per_second(forbidden),
            self.in_queues(),
            self.excused[0],
            self.excused[1],
        );
        assert!(allowed > 20_000 && forbidden > 20_000, "that was no flood: {allowed} and {forbidden}");
    }
}

fn applied(node: &Node) {
    let waited = node.ask(&json!({"op": "wait", "timeout_ms": 30_000})).unwrap();
    assert_eq!(waited["applied"], json!(true), "{waited}; {}", node.tail());
}
