//! Settings of the kernel's network stack, in the calling thread's namespace.

use crate::io::link::Link;
use netlink_packet_route::link::{AfSpecInet, AfSpecInet6, AfSpecUnspec, LinkAttribute};
use std::{fs, io};

/// Where the kernel shows them.
const OWN: &str = "/proc/sys/net";
/// In a container [`OWN`] is read-only, and the node's may be mounted here. Either shows the settings of the caller's namespace.
const MOUNTED: &str = "/host/proc/sys/net";

/// Names of what [`node`] and [`forward_ipv6`] set for the node as a whole, for a person.
pub const OF_THE_NODE: &str =
    "the settings net.ipv4.ip_forward, net.ipv4.fib_multipath_hash_policy and their like for IPv6";

/// What every node of a routed cluster needs.
///
/// # Errors
/// Naming the setting. One that the kernel does not have is no error.
pub fn node() -> io::Result<()> {
    set("ipv4/ip_forward", "1")?;
    // Equal paths by layer 4, so that one pair of pods can use several links.
    set("ipv4/fib_multipath_hash_policy", "1")?;
    set("ipv6/fib_multipath_hash_policy", "1")
}

/// Forwarding of IPv6, set when the node has an IPv6 block. It makes interfaces ignore router advertisements, so uplinks
/// that follow them are told to go on.
///
/// # Errors
/// Naming the setting.
pub fn forward_ipv6() -> io::Result<()> {
    if fs::read_to_string(format!("{OWN}/ipv6/conf/all/forwarding")).is_ok_and(|value| value.trim() == "1") {
        return Ok(());
    }
    for entry in fs::read_dir(format!("{OWN}/ipv6/conf")).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("ipv6/conf/{name}/accept_ra");
        if fs::read_to_string(format!("{OWN}/{path}")).is_ok_and(|value| value.trim() == "1") {
            set(&path, "2")?;
        }
    }
    set("ipv6/conf/all/forwarding", "1")
}

/// What of forwarding others have ended for the node as a whole, one sentence each; that of IPv6 where it is needed.
#[must_use]
pub fn forwarding_differs(ipv6: bool) -> Vec<String> {
    let needed = [Some("ipv4/ip_forward"), ipv6.then_some("ipv6/conf/all/forwarding")];
    let differs = |name: &str| {
        let now = fs::read_to_string(format!("{OWN}/{name}")).ok()?;
        (now.trim() != "1").then(|| differs(name, now.trim(), 1))
    };
    needed.into_iter().flatten().filter_map(differs).collect()
}

/// Forwarding again, after others have ended it.
///
/// # Errors
/// Naming the setting.
pub fn forward(ipv6: bool) -> io::Result<()> {
    set("ipv4/ip_forward", "1")?;
    if ipv6 { forward_ipv6() } else { Ok(()) }
}

/// What an uplink's setting is where others have ended that packets which come in by it are passed on.
#[must_use]
pub fn uplink_differs(link: &Link) -> Option<String> {
    let now = link.settings[FORWARDING].filter(|now| *now != 1)?;
    Some(differs(&format!("ipv4/conf/{}/forwarding", link.name), &now.to_string(), 1))
}

/// Packets that come in by an interface are passed on again.
///
/// # Errors
/// Naming the setting.
pub fn uplink(interface: &str) -> io::Result<()> {
    set(&format!("ipv4/conf/{interface}/forwarding"), "1")
}

/// Of IPv4, in [`OF_WORKLOAD`].
const FORWARDING: usize = 1;

/// Settings of the host side of a workload's interface. The source check is in our nft table, strictly.
const OF_WORKLOAD: [(&str, &str); 7] = [
    ("ipv4", "rp_filter"),
    ("ipv4", "forwarding"),
    ("ipv4", "accept_redirects"),
    ("ipv4", "send_redirects"),
    ("ipv6", "accept_ra"),
    ("ipv6", "accept_dad"),
    ("ipv6", "disable_ipv6"),
];

/// Such settings of a link, in that order; none of a family that the kernel or the link does not have.
pub type OfLink = [Option<i32>; OF_WORKLOAD.len()];

/// What they are to be; `ipv6`: whether the workload has an address of it.
#[must_use]
pub fn of_workload(ipv6: bool) -> [i32; OF_WORKLOAD.len()] {
    [0, 1, 0, 0, 0, 0, i32::from(!ipv6)]
}

/// What the kernel tells of them with a link, which costs nothing more.
pub(crate) fn of_link(attributes: &[LinkAttribute]) -> OfLink {
    let mut found = OfLink::default();
    let families =
        attributes.iter().filter_map(|one| if let LinkAttribute::AfSpecUnspec(all) = one { Some(all) } else { None });
    for family in families.flatten() {
        match family {
            AfSpecUnspec::Inet(all) => {
                for one in all {
                    let AfSpecInet::DevConf(one) = one else { continue };
                    let values = [one.rp_filter, one.forwarding, one.accept_redirects, one.send_redirects];
                    found[..4].copy_from_slice(&values.map(Some));
                }
            }
            AfSpecUnspec::Inet6(all) => {
                for one in all {
                    let AfSpecInet6::DevConf(one) = one else { continue };
                    found[4..].copy_from_slice(&[one.accept_ra, one.accept_dad, one.disable_ipv6].map(Some));
                }
            }
            _ => {}
        }
    }
    found
}

/// Makes those of a workload's interface.
///
/// # Errors
/// Naming the setting.
pub fn workload(interface: &str, ipv6: bool) -> io::Result<()> {
    let all = OF_WORKLOAD.into_iter().zip(of_workload(ipv6));
    all.into_iter()
        .try_for_each(|((family, name), value)| set(&format!("{family}/conf/{interface}/{name}"), &value.to_string()))
}

/// Which of them are others than [`workload`] made them, one sentence each.
#[must_use]
pub fn workload_differs(interface: &str, now: &OfLink, ipv6: bool) -> Vec<String> {
    let all = OF_WORKLOAD.into_iter().zip(of_workload(ipv6)).zip(now);
    let sentence = |(((family, name), value), now): (((&str, &str), i32), &Option<i32>)| {
        let now = now.filter(|now| *now != value)?;
        Some(differs(&format!("{family}/conf/{interface}/{name}"), &now.to_string(), value))
    };
    all.filter_map(sentence).collect()
}

fn differs(name: &str, now: &str, value: i32) -> String {
    format!("setting net/{name} is {now} and not {value}")
}

/// The pod side, while it is still down, from inside the pod's namespace. Addresses are unique by construction: no duplicate
/// address detection, which would hold them back for a second.
///
/// # Errors
/// Naming the setting.
pub fn pod(interface: &str, ipv6: bool) -> io::Result<()> {
    set(&format!("ipv6/conf/{interface}/accept_dad"), "0")?;
    set(&format!("ipv6/conf/{interface}/accept_ra"), "0")?;
    set(&format!("ipv6/conf/{interface}/disable_ipv6"), if ipv6 { "0" } else { "1" })
}

fn set(name: &str, value: &str) -> io::Result<()> {
    let path = format!("{OWN}/{name}");
    match fs::read_to_string(&path) {
        Ok(now) if now.trim() == value => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        _ => {}
    }
    let failed = |e: io::Error| io::Error::new(e.kind(), format!("{path} cannot be set to {value}: {e}"));
    match fs::write(&path, value) {
        Err(e) if e.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            match fs::write(format!("{MOUNTED}/{name}"), value) {
                // Nobody mounted it: what hinders is that ours is read-only.
                Err(other) if other.kind() == io::ErrorKind::NotFound => Err(failed(e)),
                written => written.map_err(failed),
            }
        }
        written => written.map_err(failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_other_than_it_was_made_is_named_and_what_the_kernel_lacks_is_not() {
        let now = of_workload(true).map(Some);
        assert!(workload_differs("twl0", &now, true).is_empty());
        assert_eq!(workload_differs("twl0", &now, false), ["setting net/ipv6/conf/twl0/disable_ipv6 is 0 and not 1"]);
        assert!(workload_differs("twl0", &OfLink::default(), true).is_empty());
        let mut strict = now;
        (strict[0], strict[1]) = (Some(2), Some(0));
        let said = ["ipv4/conf/twl0/rp_filter is 2 and not 0", "ipv4/conf/twl0/forwarding is 0 and not 1"];
        assert_eq!(workload_differs("twl0", &strict, true), said.map(|text| format!("setting net/{text}")));
    }
}
