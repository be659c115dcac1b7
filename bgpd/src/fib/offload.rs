//! Network interfaces that get checksums of what travels inside a tunnel wrong, by kernel and driver.
//!
//! In flow the configuration and what is known of the machine; out flows why a tunnel device must not leave checksums to who comes after it.
//! Without that the kernel finishes them before it wraps a packet, so that nobody below sees one that is unfinished. Only our own devices
//! are set: what else a machine sends through its interfaces is not ours to slow down.

use super::Config;
use super::route::Transport;
use super::world::{Release, World};
use std::collections::BTreeSet;
use twill_crds::ChecksumOffload;

/// Where checksum offload of tunnels does not work.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// The tunnels that suffer.
    pub transports: &'static [Transport],
    /// The first release that has it.
    pub since: Option<Release>,
    /// The first release that does not have it any more.
    pub before: Option<Release>,
    /// The driver of the interface that packets leave by; none: whatever it is.
    pub driver: Option<&'static str>,
    /// What goes wrong, and who says so.
    pub why: &'static str,
}

/// Where that is so. An entry has a report that names kernel and driver, from people whom turning it off has helped.
pub const KNOWN: &[Fault] = &[
    Fault {
        transports: &[Transport::Vxlan, Transport::Ipip],
        since: None,
        before: Some(Release(5, 7)),
        driver: None,
        why: "source NAT of a wrapped packet breaks its checksum, so that connections to Services take 63 s or fail \
              (projectcalico/calico#3145, #7807)",
    },
    Fault {
        transports: &[Transport::Vxlan],
        since: Some(Release(5, 9)),
        before: None,
        driver: Some("vmxnet3"),
        why: "ESXi drops TCP and UDP in VXLAN, whose checksums it should have finished (projectcalico/calico#4727, #9433, cilium/cilium#21801)",
    },
    Fault {
        transports: &[Transport::Vxlan],
        since: None,
        before: None,
        driver: Some("hv_netvsc"),
        why: "on Azure first packets of connections in VXLAN arrive with wrong checksums (projectcalico/calico#4727, #8860)",
    },
];

/// Why the device of this transport must not leave checksums to others, if so. `uplinks`: links by which packets leave.
#[must_use]
pub fn unwanted(config: &Config, world: &World, uplinks: &BTreeSet<u32>, transport: Transport) -> Option<&'static str> {
    match config.checksum_offload {
        ChecksumOffload::Unchanged => None,
        ChecksumOffload::Disabled => Some("tunnelChecksumOffload of BGPConfiguration default is Disabled"),
        ChecksumOffload::Auto => {
            let drivers = drivers(world, uplinks);
            let applies = |fault: &&Fault| fault.applies(world.release, &drivers, transport);
            config.offload_faults.iter().find(applies).map(|fault| fault.why)
        }
    }
}

impl Fault {
    /// A kernel that does not say its release is none of which something is known.
    fn applies(&self, release: Option<Release>, drivers: &BTreeSet<&str>, transport: Transport) -> bool {
        let Some(release) = release else { return false };
        self.transports.contains(&transport)
            && self.since.is_none_or(|since| release >= since)
            && self.before.is_none_or(|before| release < before)
            && self.driver.is_none_or(|driver| drivers.contains(driver))
    }
}

/// Drivers of the uplinks, and of all that they stand on: what a VLAN is a part of, what a bond or a bridge is made of.
fn drivers<'a>(world: &'a World, uplinks: &BTreeSet<u32>) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut open: Vec<u32> = uplinks.iter().copied().collect();
    while let Some(link) = open.pop().and_then(|index| world.links.get(&index)) {
        if !seen.insert(link.index) {
            continue;
        }
        found.extend(link.driver.as_deref());
        open.extend(link.below);
        open.extend(world.links.values().filter(|part| part.master == Some(link.index)).map(|part| part.index));
    }
    found
}
