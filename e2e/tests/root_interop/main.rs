//! The lone speaker beside BIRD, FRR, GoBGP, OpenBGPD and ExaBGP: one directory of `e2e/interop` per scenario.
//!
//! ```text
//!  twill .1 ─┬─ first peer .2 ─┬─ second peer .3        10.99.0.0/24, fd99::/64, one segment
//! ```
//! `steps.yaml` says which peers there are and what is done and seen, in order; the other files are the configurations as each daemon reads
//! them. With `wires`, each peer has a cable of its own to Twill, without a subnet. What has to be seen is waited for.
#![allow(clippy::unwrap_used)]

mod daemons;
mod scenario;
mod segment;
mod wires;

use scenario::run;

#[test]
#[ignore = "needs root: make test"]
fn session_with_bird() {
    run("session-bird");
}

#[test]
#[ignore = "needs root: make test"]
fn session_with_frr() {
    run("session-frr");
}

#[test]
#[ignore = "needs root: make test"]
fn session_with_gobgp() {
    run("session-gobgp");
}

#[test]
#[ignore = "needs root: make test"]
fn session_with_openbgpd() {
    run("session-openbgpd");
}

#[test]
#[ignore = "needs root: make test"]
fn session_with_exabgp() {
    run("session-exabgp");
}

#[test]
#[ignore = "needs root: make test"]
fn filters_between_bird_and_frr() {
    run("filters");
}

#[test]
#[ignore = "needs root: make test"]
fn reflector_of_bird_and_gobgp() {
    run("reflector");
}

#[test]
#[ignore = "needs root: make test"]
fn several_paths_of_bird_and_frr() {
    run("add-path-bird-frr");
}

#[test]
#[ignore = "needs root: make test"]
fn several_paths_of_exabgp_and_gobgp() {
    run("add-path-exabgp-gobgp");
}

#[test]
#[ignore = "needs root: make test"]
fn several_paths_of_openbgpd() {
    run("add-path-openbgpd");
}

#[test]
#[ignore = "needs root: make test"]
fn hops_are_counted_by_bird_and_frr() {
    run("gtsm");
}

#[test]
#[ignore = "needs root: make test"]
fn long_absence_of_twill_and_of_bird() {
    run("long-lived");
}

#[test]
#[ignore = "needs root: make test"]
fn roles_of_bird_and_frr() {
    run("roles");
}

#[test]
#[ignore = "needs root: make test"]
fn limits_with_bird_and_frr() {
    run("max-prefixes");
}

#[test]
#[ignore = "needs root: make test"]
fn large_communities_of_all_five() {
    run("large-communities");
}

#[test]
#[ignore = "needs root: make test"]
fn unnumbered_peers_of_frr_and_bird() {
    run("unnumbered-frr");
}

#[test]
#[ignore = "needs root: make test"]
fn unnumbered_peer_of_gobgp() {
    run("unnumbered-gobgp");
}

#[test]
#[ignore = "needs root: make test"]
fn callers_from_a_range() {
    run("dynamic");
}
