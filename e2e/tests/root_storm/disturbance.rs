//! What befalls a node while the storm rages: its daemons are killed, at any moment or before their n-th write, and its way to the datastore
//! is cut. A supervisor starts again what has ended.

use crate::daemon::Daemon;
use crate::points::Doomed;
use crate::random::Random;
use crate::world::{Node, World};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Between two of them on a node, in milliseconds, where it is alone.
const EVERY: u64 = 700;
/// Before the next one, a node attaches a pod for every so many of its hands; it is not waited for longer than this.
const WORK: u64 = 4;
const IDLE: Duration = Duration::from_secs(60);
/// How long a killed daemon is away at most, and a cut lasts, in milliseconds.
const AWAY: u64 = 800;
const CUT: u64 = 3000;
/// How long it is waited that a daemon writes.
const WRITES: Duration = Duration::from_secs(5);
/// Write points in turn; then any of these.
const POINTS: u64 = 80;

/// What befalls a node, one after the other; the moments and the lengths are left to chance.
const IN_TURN: [Blow; 5] = [Blow::FelixBeforeWrite, Blow::Felix, Blow::Cut, Blow::FelixBeforeWrite, Blow::Bgpd];

#[derive(Clone, Copy)]
enum Blow {
    FelixBeforeWrite,
    Felix,
    Bgpd,
    Cut,
}

/// Disturbs a node until the storm is over; then all is as before.
pub(crate) fn disturb(world: &World, node: &Node, number: u64, over: &AtomicBool) {
    let mut random = Random::new(world.size.seed, u64::MAX - number);
    // Each node begins elsewhere.
    let mut point = number * 7 % POINTS;
    let every = EVERY * u64::from(world.size.nodes);
    let mut seen = 0;
    for blow in IN_TURN.iter().cycle().skip(usize::try_from(2 * number).unwrap()) {
        pause(every / 2 + random.below(every), over);
        await_work(world, node, &mut seen, over);
        if over.load(Ordering::Relaxed) {
            break;
        }
        match (blow, &node.relay) {
            (Blow::FelixBeforeWrite, _) => kill_at_point(world, &node.felix, &mut point, &mut random, over),
            (Blow::Bgpd, _) => kill(world, "bgpd", &node.bgpd, &mut random, over),
            (Blow::Cut, Some(relay)) => cut(world, relay, &mut random, over),
            // A file is always there.
            (Blow::Felix, _) | (Blow::Cut, None) => kill(world, "felix", &node.felix, &mut random, over),
        }
        for daemon in [&node.felix, &node.bgpd] {
            supervise(world, daemon);
        }
    }
    let all = [Some(&node.felix), Some(&node.bgpd), node.relay.as_ref()];
    all.into_iter().flatten().for_each(|one| one.lock().unwrap().start());
}

/// However slow the machine: a node that has not come to work since the last time is not disturbed again, for it would show nothing.
fn await_work(world: &World, node: &Node, seen: &mut u64, over: &AtomicBool) {
    let enough = *seen + world.size.parallel / WORK;
    let end = Instant::now() + IDLE;
    while node.attached.load(Ordering::Relaxed) < enough && Instant::now() < end && !over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(10));
    }
    *seen = node.attached.load(Ordering::Relaxed);
}

fn supervise(world: &World, daemon: &Mutex<Daemon>) {
    let mut daemon = daemon.lock().unwrap();
    if !daemon.runs() {
        world.tally.count(&format!("ended by itself and was started again: {}", daemon.last_words()));
        daemon.start();
    }
}

fn kill(world: &World, name: &str, daemon: &Mutex<Daemon>, random: &mut Random, over: &AtomicBool) {
    let mut daemon = daemon.lock().unwrap();
    daemon.kill();
    world.tally.count(&format!("{name} killed"));
    pause(random.below(AWAY), over);
    daemon.start();
}

/// The points in turn, then any.
fn kill_at_point(world: &World, felix: &Mutex<Daemon>, point: &mut u64, random: &mut Random, over: &AtomicBool) {
    let mut felix = felix.lock().unwrap();
    *point += 1;
    let n = if *point <= POINTS { *point } else { 1 + random.below(POINTS) };
    let doomed = Doomed::at(felix.pid(), usize::try_from(n).unwrap());
    let began = Instant::now();
    while !doomed.is_over() && began.elapsed() < WRITES && !over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(5));
    }
    match doomed.end() {
        Some(_) => world.tally.count("felix killed before a write"),
        None => world.tally.count("felix did not write so often"),
    }
    if !felix.runs() {
        pause(random.below(AWAY), over);
        felix.start();
    }
}

fn cut(world: &World, relay: &Mutex<Daemon>, random: &mut Random, over: &AtomicBool) {
    let mut relay = relay.lock().unwrap();
    relay.kill();
    world.tally.count("way to the datastore cut");
    pause(random.below(CUT), over);
    relay.start();
}

fn pause(milliseconds: u64, over: &AtomicBool) {
    let end = Instant::now() + Duration::from_millis(milliseconds);
    while Instant::now() < end && !over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(10));
    }
}
