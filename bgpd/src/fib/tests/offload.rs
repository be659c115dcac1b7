//! Where checksum offload of tunnels is turned off.

use super::*;
use crate::fib::offload::{KNOWN, unwanted};
use crate::fib::route::Transport;
use crate::fib::uplinks::uplinks;
use crate::fib::world::Release;
use twill_crds::ChecksumOffload;

/// The node with this kernel, and this driver under its uplink.
fn machine(release: Release, driver: &str) -> World {
    let mut world = world();
    world.release = Some(release);
    if let Some(link) = world.links.get_mut(&UPLINK) {
        link.driver = Some(driver.into());
    }
    world
}

/// Whether VXLAN and IPIP suffer there.
fn suffers(world: &World) -> [bool; 2] {
    let config = config(Protocol::VXLAN, When::Always);
    let uplinks = uplinks(&config, world);
    [Transport::Vxlan, Transport::Ipip].map(|transport| unwanted(&config, world, &uplinks, transport).is_some())
}

#[test]
fn a_fault_is_known_by_kernel_driver_and_tunnel() {
    for (release, driver, expected) in [
        (Release(5, 6), "virtio_net", [true, true]),
        (Release(4, 18), "vmxnet3", [true, true]),
        (Release(5, 7), "virtio_net", [false, false]),
        (Release(5, 8), "vmxnet3", [false, false]),
        (Release(5, 9), "vmxnet3", [true, false]),
        (Release(6, 18), "vmxnet3", [true, false]),
        (Release(6, 8), "hv_netvsc", [true, false]),
        (Release(6, 18), "mlx5_core", [false, false]),
    ] {
        assert_eq!(suffers(&machine(release, driver)), expected, "{release:?} {driver}");
    }
    assert_eq!(suffers(&World { release: None, ..machine(Release(5, 6), "vmxnet3") }), [false, false]);
}

#[test]
fn drivers_are_those_of_all_that_the_uplink_stands_on() {
    let mut world = machine(Release(6, 1), "802.1Q VLAN Support");
    let mut put = |index, name: &str, driver: &str, master| {
        let link = Link { driver: Some(driver.into()), master, ..link(index, name, 1500, LinkKind::Other) };
        world.links.insert(index, link);
    };
    put(20, "bond0", "bonding", None);
    put(21, "eth8", "mlx5_core", Some(20));
    put(22, "eth9", "hv_netvsc", Some(20));
    put(23, "eth10", "vmxnet3", None);
    // Neither a ring nor a link that is not there does harm.
    world.links.get_mut(&20).unwrap().below = Some(UPLINK);
    world.links.get_mut(&21).unwrap().below = Some(99);
    assert_eq!(suffers(&world), [false, false], "nothing leads from the uplink to the bond");
    world.links.get_mut(&UPLINK).unwrap().below = Some(20);
    assert_eq!(suffers(&world), [true, false], "one of the bond's interfaces");
    world.links.get_mut(&22).unwrap().driver = Some("ice".into());
    assert_eq!(suffers(&world), [false, false]);
}

#[test]
fn where_the_nodes_address_is_routed_drivers_are_those_of_the_links_that_lead_to_other_nodes() {
    let mut world = machine(Release(6, 18), "vmxnet3");
    world.addresses.remove(&(UPLINK, net("172.31.1.11/24")));
    world.addresses.insert((1, net("172.31.1.11/32")));
    world.links.insert(1, Link { loopback: true, ..link(1, "lo", 65_536, LinkKind::Other) });
    assert_eq!(suffers(&world), [true, false]);
    world.links.get_mut(&UPLINK).unwrap().mtu = 1600;
    let config = config(Protocol::VXLAN, When::Always);
    let mtus = |step| match step {
        tunnel::Step::SetMtu(_, _, mtu) => Some(mtu),
        _ => None,
    };
    let steps = tunnel::additions(&config, &world, &BTreeMap::new());
    assert_eq!(steps.into_iter().filter_map(mtus).collect::<Vec<_>>(), [1550, 1580], "theirs, too, is the MTU");
}

#[test]
fn an_operator_may_want_it_off_everywhere_or_nothing_touched() {
    let mut world = machine(Release(6, 18), "vmxnet3");
    let steps = |world: &World, checksum_offload| {
        let config = Config { checksum_offload, ..config(Protocol::VXLAN, When::CrossSubnet) };
        let off = |step| match step {
            tunnel::Step::DisableChecksumOffload { transport, .. } => transport,
            other => panic!("{other:?}"),
        };
        tunnel::additions(&config, world, &BTreeMap::new()).into_iter().map(off).collect::<Vec<_>>()
    };
    let set = |world: &mut World, on| {
        for device in [VXLAN, IPIP] {
            world.links.get_mut(&device).unwrap().checksum_offload = on;
        }
    };
    set(&mut world, Some(true));
    assert_eq!(steps(&world, ChecksumOffload::Auto), [Transport::Vxlan]);
    assert_eq!(steps(&world, ChecksumOffload::Disabled), [Transport::Vxlan, Transport::Ipip]);
    assert_eq!(steps(&world, ChecksumOffload::Unchanged), []);
    // It is off already, or the kernel does not say.
    for on in [Some(false), None] {
        set(&mut world, on);
        assert_eq!(steps(&world, ChecksumOffload::Disabled), [], "{on:?}");
    }
}

#[test]
fn each_known_fault_says_who_has_seen_it() {
    for fault in KNOWN {
        assert!(fault.why.contains('#') && !fault.transports.is_empty(), "{fault:?}");
        assert!(fault.since.is_none() || fault.before.is_none() || fault.since < fault.before, "{fault:?}");
    }
}
