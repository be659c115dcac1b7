//! Addresses that are kept for a pod which moves between nodes: from several beginnings everything that can happen, up to so many states; and every
//! safeguard that is left out is missed. What must hold is said in `search.rs`.
#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr};
use twill_ipam_model::machine::Link::{Alone, Unheard};
use twill_ipam_model::machine::Why;
use twill_ipam_model::mutants::Mutant;
use twill_ipam_model::scene::Scene;
use twill_ipam_model::state::Action::{
    self, Ask, Attach, Bind, Control, Crash, Cut, Deregister, End, Force, Heal, Hear, Keep, Perform, Reboot, Register,
    Remove, Report, Run, Settle, Tick, Unanswered, Unkeep, Wipe,
};

/// What node a's block has, what node b's has, and what no block has.
const OF_A: &str = "10.0.0.5";
const OF_B: &str = "10.0.0.1";
const OF_NOBODY: &str = "10.0.0.7";

fn address(text: &str) -> IpAddr {
    IpAddr::V4(text.parse::<Ipv4Addr>().unwrap())
}

/// A pod that a machine has heard of gets what is kept for it by reservation 0.
fn written(m: usize) -> [Action; 4] {
    [Hear(m), Settle(m, 0, Why::Attach), Ask(m, 0), Hear(m)]
}

fn attached(m: usize, pod: u8) -> Vec<Action> {
    [&written(m)[..], &[Attach(m, pod), Report(m, pod)]].concat()
}

/// Nobody has what is kept, and its pod is made, by and by on either node.
fn kept(address: &'static str) -> Scene {
    Scene {
        names: vec![0, 1],
        // Of a pool of two blocks each node has one, of four one each.
        block_len: if address == OF_NOBODY { 31 } else { 30 },
        // It has been known for a while.
        way: Some(vec![Tick, Run(0, 0)]),
        faults: vec![Force(0), Cut(0, Unheard), Heal(0), Crash(0), Unanswered(0, 0), Unanswered(1, 0)],
        left: (2, 2, 3),
        hosts: Vec::new(),
        fine: true,
        strict: false,
        kept: vec![(0, address, 0)],
        named: vec![(0, 0), (1, 0)],
    }
}

/// A pod has it on the first node, which may lose the datastore, its felix, or all; the pod's next is made on the second.
fn moves(address: &'static str) -> Scene {
    let way = [&[Tick, Run(0, 0)], &attached(0, 0)[..], &[Hear(0), Hear(1)]].concat();
    let faults = vec![Force(0), Cut(0, Unheard), Cut(0, Alone), Heal(0), Crash(0), Reboot(0), Wipe(0)];
    Scene { way: Some(way), faults, ..kept(address) }
}

/// It is in the other node's block, and is kept while that gives it to pods of its own.
fn made_late() -> Scene {
    Scene {
        way: Some(Vec::new()),
        faults: vec![Keep(0, address(OF_B), 0), Crash(0), Crash(1), Unkeep(0)],
        left: (2, 3, 2),
        hosts: vec![1],
        kept: Vec::new(),
        named: vec![(0, 0)],
        ..kept(OF_B)
    }
}

/// It is edited for another pod, for another address, and another reservation keeps what it kept.
fn edited() -> Scene {
    let pod = Keep(0, address(OF_NOBODY), 1);
    let other = Keep(0, address(OF_A), 0);
    Scene {
        faults: vec![pod, other, Keep(0, address(OF_NOBODY), 0), Keep(1, address(OF_NOBODY), 1), Force(0)],
        named: vec![(0, 0), (1, 1)],
        ..kept(OF_NOBODY)
    }
}

/// It is deleted and made again under its pod.
fn deleted(of: &'static str) -> Scene {
    Scene { faults: vec![Unkeep(0), Keep(0, address(of), 0), Force(0), Cut(0, Unheard), Heal(0)], ..moves(of) }
}

/// The node of the pod is deleted while it lives, and its quarantine is nearly over.
fn gone(address: &'static str, heard: bool) -> Scene {
    let begin = [&[Tick, Run(0, 0)], &attached(0, 0)[..], &[Hear(0), Hear(1)]].concat();
    let cut = if heard { Vec::new() } else { vec![Cut(0, Unheard)] };
    let wait = [Deregister(0), Remove(0), Hear(1), Control];
    let hears: &[Action] = if heard { &[Hear(0)] } else { &[] };
    let way = [&begin[..], &cut, &wait, hears, &[Tick, Control, Tick]].concat();
    Scene { way: Some(way), faults: vec![Register(0), Heal(0), Crash(0)], left: (3, 1, 1), ..kept(address) }
}

/// The same, and the controller has just freed what it left; of an address of its own block the holder some time after that.
fn freed(address: &'static str, heard: bool) -> Scene {
    let before = gone(address, heard);
    let frees = |calls: usize| [&[Control][..], &vec![Perform; calls], &[Hear(1)]].concat();
    let frees = match (address, heard) {
        (OF_A, true) => frees(3),
        (OF_A, false) => [&frees(3)[..], &[Tick, Control, Tick], &frees(3)].concat(),
        _ => frees(6),
    };
    Scene { way: Some([before.way.unwrap_or_default(), frees].concat()), ..before }
}

#[test]
fn a_pod_is_made_on_one_node_then_on_another() {
    [OF_A, OF_B, OF_NOBODY].into_iter().for_each(|of| kept(of).holds());
}

#[test]
fn a_pod_moves_from_a_node_that_fails() {
    [OF_A, OF_B, OF_NOBODY].into_iter().for_each(|of| moves(of).holds());
}

#[test]
fn a_reservation_is_made_edited_and_deleted_under_pods() {
    made_late().holds();
    edited().holds();
    deleted(OF_NOBODY).holds();
    deleted(OF_B).holds();
}

#[test]
fn the_node_of_a_pod_is_deleted_while_it_lives() {
    for of in [OF_A, OF_NOBODY] {
        [gone(of, true), gone(of, false), freed(of, true), freed(of, false)].iter().for_each(Scene::holds);
    }
}

#[test]
fn safeguards_of_taking_are_missed() {
    let on_b = [Force(0), Run(1, 0)];
    kept(OF_NOBODY).misses(Mutant::TakesUnwritten, &[]);
    kept(OF_NOBODY).misses(Mutant::TakesFresh, &[&written(0)[..], &on_b].concat());
    let unheard = [&written(0)[..], &[Cut(0, Unheard)], &on_b, &[Hear(1)]].concat();
    kept(OF_NOBODY).misses(Mutant::TakesUnheard, &unheard);
    moves(OF_NOBODY).misses(Mutant::NoLookAtRoutes, &[&[Cut(0, Unheard)], &on_b[..], &[Hear(1)]].concat());
    moves(OF_NOBODY).misses(Mutant::NeverCutsKept, &[&[Cut(0, Alone)], &on_b[..], &[Hear(1)]].concat());
    let late = [Bind(1), Attach(1, 0), Keep(0, address(OF_B), 0), Run(0, 0)];
    made_late().misses(Mutant::TakesYoung, &late);
    Scene { hosts: vec![1], ..kept(OF_B) }.misses(Mutant::GivesKept, &written(0));
}

#[test]
fn safeguards_of_writing_are_missed() {
    let other = [Keep(0, address(OF_NOBODY), 1), Run(1, 1)];
    edited().misses(Mutant::NoLookAtHolder, &[&written(0)[..], &other].concat());
    let written_since = [&[Hear(0), Settle(0, 0, Why::Attach)], &other[..], &written(1), &[Attach(1, 1)]].concat();
    edited().misses(Mutant::NoCompare, &written_since);
    moves(OF_NOBODY).misses(Mutant::NeverGivesUp, &[End(0, 0)]);
}

#[test]
fn safeguards_of_nodes_that_are_gone_are_missed() {
    gone(OF_A, true).misses(Mutant::FreesHolderFirst, &[Control, Perform, Perform, Perform, Run(1, 0)]);
    freed(OF_A, false).misses(Mutant::TakesNew, &[Run(1, 0), Heal(0)]);
    freed(OF_A, false).misses(Mutant::NeverWritesDown, &[Run(1, 0), Heal(0)]);
}
