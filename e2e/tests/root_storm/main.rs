//! A storm of calls over several nodes, with daemons and plugins killed and the way to the datastore cut.
//!
//! ```text
//!  n1 ─┐                 each node: felix, bgpd, a runtime with many hands, each with one pod after the other
//!  n2 ─┼─ router         a supervisor that starts again what was killed
//!  n3 ─┘                 a referee who asks nobody: who had which address, and when
//! ```
//! 1. No address is given twice at one time, over all nodes, or before it has rested.
//! 2. What ADD has attached stands, whoever is killed: CHECK finds it whole.
//! 3. When all that the runtime has is deleted, GC has run for what it has forgotten, and addresses have rested, every node has what it had
//!    before: no interface, route, rule, element of the table, address, DEL or block is left.
//! 4. The same for felix killed before each of its writes in turn: of an ADD, of a DEL, and of a start.
//!
//! How large it is, the environment says: `make test-storm`.
#![allow(clippy::unwrap_used)]

mod daemon;
mod disturbance;
mod leftovers;
#[path = "../root_cni/libcni.rs"]
#[allow(dead_code)]
mod libcni;
mod life;
mod objects;
mod points;
mod random;
mod referee;
mod sweep;
mod tally;
mod world;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use twill_e2e::within;
use twill_lab::io::daemons;
use world::{Node, World};

/// What a busy machine takes.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// Until marks are written, routes withdrawn and blocks deleted, one after the other.
const GIVEN_BACK: Duration = Duration::from_secs(120);

#[derive(Clone, Copy)]
pub(crate) enum Engine {
    Sqlite,
    Etcd,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "sqlite",
            Self::Etcd => "etcd",
        })
    }
}

/// How large a storm is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) nodes: u32,
    /// Calls at one time on one node.
    pub(crate) parallel: u64,
    pub(crate) operations: u64,
    pub(crate) seed: u64,
    /// How long an address rests.
    pub(crate) cool_down: Duration,
}

impl Size {
    fn asked() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Self {
            nodes: u32::try_from(number("TWILL_STORM_NODES", 3)).unwrap(),
            parallel: number("TWILL_STORM_PARALLEL", 6),
            operations: number("TWILL_STORM_OPERATIONS", 600),
            seed: number("TWILL_STORM_SEED", u64::from(now.subsec_nanos())),
            cool_down: Duration::from_secs(number("TWILL_STORM_COOL_DOWN", 3)),
        }
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    let Ok(text) = std::env::var(name) else { return otherwise };
    text.parse().unwrap_or_else(|_| panic!("{name}={text}: it is a number"))
}

#[test]
#[ignore = "needs root: make test"]
fn the_storm_on_sqlite_leaves_nothing() {
    storm(Engine::Sqlite);
}

#[test]
#[ignore = "needs root: make test"]
fn the_storm_on_etcd_leaves_nothing() {
    storm(Engine::Etcd);
}

#[test]
#[ignore = "needs root: make test"]
fn felix_killed_before_each_of_its_writes_leaves_nothing() {
    let size = Size { nodes: 1, cool_down: Duration::ZERO, ..Size::asked() };
    let world = World::up("sweep", Engine::Sqlite, size);
    sweep::sweep(&world, usize::try_from(number("TWILL_STORM_EVERY", 6)).unwrap());
}

fn storm(engine: Engine) {
    let size = Size::asked();
    println!("{engine}: {size:?}");
    let world = World::up(&format!("storm-{engine}"), engine, size);
    world.nodes.iter().for_each(|node| within(SOON, "felix is ready", || is_ready(node)).map(drop).unwrap());
    let before: Vec<BTreeSet<String>> =
        world.nodes.iter().map(|node| leftovers::of(&world.lab, node).unwrap()).collect();
    let began = Instant::now();
    rage(&world);
    let raged = began.elapsed();
    let left = calm(&world, &before);
    let (given, times) = world.referee.given();
    println!(
        "{engine}, seed {}: {:.0} s, and {:.0} s until nothing was left; {given} addresses were given {times} times; {}",
        size.seed,
        raged.as_secs_f64(),
        (began.elapsed() - raged).as_secs_f64(),
        world.tally.report()
    );
    let wrong = [world.referee.verdict(), left].concat();
    if !wrong.is_empty() {
        panic!("TWILL_STORM_SEED={}, logs in {}\n{}", size.seed, keep_logs(&world).display(), wrong.join("\n"));
    }
    let added = world.tally.counted("ADD, done");
    assert!(added * 8 > size.operations, "so few were attached that nothing is shown: {added}");
}

/// What the daemons of a storm said that found something, where it outlives the lab.
fn keep_logs(world: &World) -> PathBuf {
    let kept = std::env::temp_dir().join(&world.lab.name);
    std::fs::create_dir_all(&kept).unwrap();
    for node in &world.nodes {
        for (name, daemon) in [("felix", &node.felix), ("bgpd", &node.bgpd)] {
            std::fs::write(kept.join(format!("{}-{name}.log", node.name)), daemon.lock().unwrap().said()).unwrap();
        }
    }
    kept
}

/// The storm itself.
fn rage(world: &World) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let all = (0..).zip(&world.nodes);
        let hands: Vec<_> = all
            .clone()
            .flat_map(|(at, node)| (0..world.size.parallel).map(move |n| (node, at * world.size.parallel + n)))
            .map(|(node, number)| scope.spawn(move || life::Hand::new(world, node, number).work()))
            .collect();
        for (number, node) in all {
            let over = &over;
            scope.spawn(move || disturbance::disturb(world, node, number, over));
        }
        let failed = hands.into_iter().map(|hand| hand.join().is_err()).filter(|failed| *failed).count();
        over.store(true, Ordering::Relaxed);
        assert_eq!(failed, 0, "hands of runtimes that gave up");
    });
}

/// The runtimes end what they have, and collect what they have not; what is left then.
fn calm(world: &World, before: &[BTreeSet<String>]) -> Vec<String> {
    let mut left = Vec::new();
    for node in &world.nodes {
        within(SOON, "felix is ready", || is_ready(node)).unwrap_or_else(|e| panic!("{}: {e}", node.name));
        let all: Vec<_> = node.containers.lock().unwrap().values().cloned().collect();
        left.extend(all.iter().filter(|one| !world.detach(node, one)).map(|one| format!("DEL of {} failed", one.id)));
        if let Err(error) = world.collect(node) {
            left.push(format!("GC of {}: {error}", node.name));
        }
    }
    for (node, before) in world.nodes.iter().zip(before) {
        let mut differs = Vec::new();
        let clean = within(SOON, "nothing is left", || {
            let now = leftovers::of(&world.lab, node);
            differs = now.map_or_else(|e| vec![format!("{e:#}")], |now| leftovers::differences(before, &now));
            differs.is_empty()
        });
        if clean.is_err() {
            left.extend(differs.iter().map(|line| format!("{}: {line}", node.name)));
        }
        for daemon in [&node.felix, &node.bgpd] {
            let said = daemon.lock().unwrap().said();
            left.extend(
                said.lines().filter(|line| line.contains("panicked")).map(|line| format!("{}: {line}", node.name)),
            );
        }
    }
    left.extend(blocks_left(world));
    left
}

/// Blocks beyond the warm one of each family that a node keeps.
fn blocks_left(world: &World) -> Vec<String> {
    let mut wrong = Vec::new();
    let _ = within(world.size.cool_down + GIVEN_BACK, "spare blocks are given back", || {
        let blocks = world.nodes[0].blocks();
        wrong.clear();
        for node in &world.nodes {
            for v4 in [true, false] {
                let its = blocks.iter().filter(|b| b.spec.node == node.name && b.spec.cidr.addr().is_ipv4() == v4);
                let its: Vec<String> = its
                    .map(|b| format!("{}{}", world::name_of(b), if b.is_releasing() { ", releasing" } else { "" }))
                    .collect();
                if its.len() != 1 || its[0].ends_with("releasing") {
                    wrong.push(format!("blocks of {}: {its:?}", node.name));
                }
            }
        }
        let strays = blocks.iter().filter(|b| !world.nodes.iter().any(|node| node.name == b.spec.node));
        wrong.extend(strays.map(|b| format!("block of nobody: {}", world::name_of(b))));
        wrong.is_empty()
    });
    wrong
}

/// Whether felix of a node is in sync and attaches pods.
pub(crate) fn is_ready(node: &Node) -> bool {
    daemons::felix_status(&node.runtime.dir.join("felix.sock")).is_ok_and(|status| status.in_sync && status.ready)
}
