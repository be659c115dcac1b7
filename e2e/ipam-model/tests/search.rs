//! From several beginnings everything that can happen, up to so many states; and every safeguard that is left out is missed.
//!
//! What must hold: no address is in use twice, none is given before it has rested, and from every state everything that nobody needs becomes
//! free without anybody's help once faults end. `TWILL_MODEL_STATES` says how many states of each beginning are visited.
#![allow(clippy::unwrap_used)]

use twill_ipam_model::machine::Link::{Alone, Unheard};
use twill_ipam_model::mutants::Mutant;
use twill_ipam_model::scene::Scene;
use twill_ipam_model::state::Action::{
    Attach, Bind, Claim, Control, Crash, Cut, Delete, Depose, Deregister, Free, Heal, Hear, Off, Perform, Reboot,
    Register, Remove, Report, Resize, Start, Tick, Watch, Wipe,
};

/// Nothing is claimed yet, blocks are made larger or smaller, and felix is killed.
fn claims() -> Scene {
    Scene {
        names: vec![0, 1, 2],
        block_len: 31,
        way: None,
        faults: vec![Crash(0), Crash(1), Resize],
        left: (0, 1, 2),
        hosts: vec![0],
        fine: false,
        strict: false,
        kept: Vec::new(),
        named: Vec::new(),
    }
}

/// A node cannot hear, is deleted while it lives, and its quarantine is nearly over; another needs addresses and all are taken.
fn gone() -> Scene {
    let begin = [Start(0), Start(2), Claim(2), Claim(2), Hear(2)];
    let end = [Cut(0, Unheard), Deregister(0), Remove(0), Tick, Control, Tick, Control, Tick];
    Scene {
        way: Some([&begin[..], &end[..]].concat()),
        faults: vec![Register(0), Heal(0), Depose],
        left: (1, 2, 1),
        hosts: vec![1],
        ..claims()
    }
}

/// The same, after blocks were made smaller.
fn gone_and_smaller() -> Scene {
    let way = vec![Start(0), Cut(0, Unheard), Deregister(0), Remove(0), Resize, Tick, Control, Tick, Control, Tick];
    Scene { block_len: 30, way: Some(way), hosts: vec![2], ..gone() }
}

/// The same with a machine that nobody reaches, whose pods nobody deletes.
fn gone_and_alone() -> Scene {
    let begin = [Start(0), Start(2), Claim(2), Claim(2), Hear(2)];
    let end = [Cut(0, Alone), Deregister(0), Tick, Control, Tick, Control, Tick];
    Scene { way: Some([&begin[..], &end[..]].concat()), strict: true, ..gone() }
}

/// A machine with a pod goes off for good, and is deleted, while another needs its addresses.
fn gone_for_good() -> Scene {
    let way = vec![Start(2), Claim(2), Claim(2), Hear(2), Start(0), Hear(1), Off(0), Deregister(0), Remove(1)];
    Scene { way: Some(way), faults: vec![Register(0), Depose], left: (3, 2, 1), ..gone() }
}

/// Two machines of one name, one of which is about to lose its disk, or was cut off.
fn names() -> Scene {
    Scene {
        names: vec![0, 0, 1],
        way: Some(vec![Bind(0), Attach(0, 0), Report(0, 0)]),
        faults: vec![Wipe(0), Reboot(0), Cut(0, Unheard)],
        left: (2, 2, 2),
        hosts: vec![0, 1],
        fine: true,
        ..claims()
    }
}

/// A machine rebooted and lost its disk; its pod's object is gone.
fn names_and_disk() -> Scene {
    Scene {
        way: Some(vec![
            Bind(0),
            Attach(0, 0),
            Report(0, 0),
            Hear(0),
            Bind(1),
            Attach(2, 1),
            Report(2, 1),
            Reboot(0),
            Remove(0),
            Wipe(0),
            Hear(0),
            Hear(2),
            Claim(2),
            Claim(2),
            Hear(2),
        ]),
        faults: vec![Crash(0), Crash(1)],
        left: (2, 1, 1),
        hosts: vec![0, 1],
        ..names()
    }
}

/// One of two machines of one name is cut off before it has attached a pod; the other has it, and is about to give that machine's block back.
fn names_and_alone() -> Scene {
    let pod =
        [Bind(0), Hear(0), Cut(0, Alone), Hear(1), Attach(1, 0), Report(1, 0), Hear(1), Claim(1), Claim(1), Hear(1)];
    let quarantine = [Tick, Watch(1), Tick, Watch(1)];
    Scene {
        way: Some([&pod[..], &quarantine[..]].concat()),
        faults: vec![Heal(0), Crash(1)],
        left: (1, 2, 1),
        strict: true,
        ..names()
    }
}

/// A pod has ended, and its node has a block too many, which another needs.
fn idle() -> Scene {
    Scene {
        way: Some(vec![Start(0), Claim(0), Claim(0), Hear(0), Start(1), Hear(1)]),
        faults: vec![Crash(0), Crash(1), Wipe(0), Resize],
        left: (2, 2, 1),
        hosts: vec![0, 1],
        ..claims()
    }
}

/// Somebody deletes a block under a pod.
fn deleted() -> Scene {
    let faults = vec![Delete("10.0.0.2/31".parse().unwrap()), Crash(0)];
    Scene { way: Some(vec![Start(0), Start(1), Hear(1)]), faults, left: (1, 2, 2), hosts: vec![1], ..claims() }
}

#[test]
fn blocks_claimed_at_once() {
    claims().holds();
}

#[test]
fn a_node_deleted_while_it_lives() {
    gone().holds();
    gone_and_smaller().holds();
    gone_and_alone().holds();
    gone_for_good().holds();
}

#[test]
fn two_machines_of_one_name() {
    names().holds();
    names_and_disk().holds();
    names_and_alone().holds();
}

#[test]
fn blocks_given_back_or_taken_away() {
    idle().holds();
    deleted().holds();
}

#[test]
fn safeguards_of_claims_and_addresses_are_missed() {
    claims().misses(Mutant::NoOverlap, &[]);
    idle().misses(Mutant::NoCoolDown, &[]);
    idle().misses(Mutant::ReleasesWarm, &[]);
    names().misses(Mutant::NameOwns, &[]);
    let given_back =
        [Watch(0), Free(0), Free(0), Bind(0), Attach(1, 2), Report(1, 2), Hear(1), Claim(1), Claim(1), Hear(1)];
    names_and_disk().misses(Mutant::NoQuarantine, &given_back);
    let given_away =
        [Free(1), Free(1), Bind(1), Hear(2), Attach(2, 1), Report(2, 1), Hear(2), Claim(2), Claim(2), Hear(2)];
    names_and_alone().misses(Mutant::GivesUnheard, &given_away);
}

#[test]
fn safeguards_of_nodes_that_are_gone_are_missed() {
    let freed = [Start(1), Control, Perform, Perform, Perform];
    gone().misses(Mutant::NoHoldBack, &freed);
    gone_and_alone().misses(Mutant::NoLook, &freed);
    gone_for_good().misses(Mutant::NeverFrees, &[]);
}
