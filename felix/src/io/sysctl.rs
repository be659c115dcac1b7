//! Settings of the kernel's network stack, in the calling thread's namespace.

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

/// The host side of a workload's interface, while it is still down. The source check is in our nft table, strictly.
///
/// # Errors
/// Naming the setting.
pub fn workload(interface: &str, ipv6: bool) -> io::Result<()> {
    of_workload(interface, ipv6).into_iter().try_for_each(|(name, value)| set(&name, value))
}

/// Which settings of the host side of a workload's interface are others than [`workload`] made them, one sentence each.
#[must_use]
pub fn workload_differs(interface: &str, ipv6: bool) -> Vec<String> {
    let differs = |(name, value): (String, &str)| {
        let now = fs::read_to_string(format!("{OWN}/{name}")).ok()?;
        (now.trim() != value).then(|| format!("setting net/{name} is {} and not {value}", now.trim()))
    };
    of_workload(interface, ipv6).into_iter().filter_map(differs).collect()
}

fn of_workload(interface: &str, ipv6: bool) -> [(String, &'static str); 7] {
    [
        (format!("ipv4/conf/{interface}/rp_filter"), "0"),
        (format!("ipv4/conf/{interface}/forwarding"), "1"),
        (format!("ipv4/conf/{interface}/accept_redirects"), "0"),
        (format!("ipv4/conf/{interface}/send_redirects"), "0"),
        (format!("ipv6/conf/{interface}/accept_ra"), "0"),
        (format!("ipv6/conf/{interface}/accept_dad"), "0"),
        (format!("ipv6/conf/{interface}/disable_ipv6"), if ipv6 { "0" } else { "1" }),
    ]
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
