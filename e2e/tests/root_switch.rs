//! Encapsulation and MTU are changed while pods talk, inside a subnet and across, over IPv4 and IPv6, and over IPv6 where nodes have nothing else
//! (`support/switch.rs` draws it).
//!
//! 1. None → VXLAN always → VXLAN across subnets → None: of numbered datagrams both ways not one is lost, transfers go on.
//! 2. After each change every uplink carries the new form alone: plain, or VXLAN of our VNI between the nodes' addresses, never in fragments.
//! 3. The uplinks' MTU goes down and up: routes into tunnels follow, pods keep theirs, nothing is lost.
//! 4. No pod's interface is made anew.
//!
//! With IP-in-IP: `vm_ipip.rs`.
#![allow(clippy::unwrap_used)]

mod support;

use support::families::{DUAL, SIX};
use support::streams::PACE;
use support::switch::{ACROSS, PLAIN, Stage, Switch, VXLAN};
use support::wire::Form::Plain;

const ALWAYS: &str = "{protocol: VXLAN, when: Always}";

#[test]
#[ignore = "needs root: make test"]
fn encapsulation_and_mtu_change_under_traffic_and_no_packet_is_lost() {
    let switch = Switch::up("switch", DUAL, PACE);
    switch.travels(&[[Plain, VXLAN]; 2]);
    let none = Stage { encapsulations: &[PLAIN; 2], ways: &[[Plain, Plain]; 2] };
    let always = Stage { encapsulations: &[ALWAYS; 2], ways: &[[VXLAN, VXLAN]; 2] };
    let across = Stage { encapsulations: &[ACROSS; 2], ways: &[[Plain, VXLAN]; 2] };
    // One family alone: the other is not touched.
    let mixed = Stage { encapsulations: &[PLAIN, ALWAYS], ways: &[[Plain, Plain], [VXLAN, VXLAN]] };
    for stage in [&none, &always, &mixed, &across] {
        switch.to(stage);
    }
    mtu_goes_down_and_up(&switch, &across);
    switch.to(&none);
    switch.nothing_was_lost();
}

#[test]
#[ignore = "needs root: make test"]
fn so_they_do_where_there_is_no_ipv4_at_all() {
    let switch = Switch::up("switch-6", SIX, PACE);
    switch.travels(&[[Plain, VXLAN]]);
    let none = Stage { encapsulations: &[PLAIN], ways: &[[Plain, Plain]] };
    let always = Stage { encapsulations: &[ALWAYS], ways: &[[VXLAN, VXLAN]] };
    let across = Stage { encapsulations: &[ACROSS], ways: &[[Plain, VXLAN]] };
    for stage in [&none, &always, &across] {
        switch.to(stage);
    }
    mtu_goes_down_and_up(&switch, &across);
    switch.to(&none);
    switch.nothing_was_lost();
}

fn mtu_goes_down_and_up(switch: &Switch, across: &Stage<'_>) {
    for mtus in [1500, 1400, 9000, 1500].windows(2) {
        switch.to_mtu(mtus[0], mtus[1]);
        switch.travels(across.ways);
    }
}
