//! The machine itself: settings, uplink, clock, directories.

use crate::args::Install;
use crate::fitness::host::{Directory, Facts, Uplink};
use crate::fitness::settings;
use crate::io::now;
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};
use std::fs;
use std::path::Path;
use std::time::UNIX_EPOCH;
use twill_crds::names::{VXLAN_OVERHEAD, VXLAN_OVERHEAD_V6};
use twill_felix::io::link::Link;

/// `RTF_UP` of `/proc/net/route` and `/proc/net/ipv6_route`.
const UP: u32 = 1;
/// `RTF_REJECT`: the kernel's own entry of an IPv6 table without a default route.
const REJECT: u32 = 0x200;

/// Settings of the network stack.
pub(crate) fn settings() -> settings::Facts {
    let value = |name: &str| Some(fs::read_to_string(format!("/proc/sys/net/{name}")).ok()?.trim().to_owned());
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let uplink = default_route(&routes).map(|name| (name.to_owned(), value(&format!("ipv4/conf/{name}/rp_filter"))));
    settings::Facts {
        writable: access("/proc/sys/net/ipv4/ip_forward", AccessFlags::W_OK).is_ok(),
        ip_forward: value("ipv4/ip_forward"),
        rp_filter: value("ipv4/conf/all/rp_filter"),
        uplink,
        disable_ipv6: value("ipv6/conf/all/disable_ipv6"),
    }
}

/// The machine, with these links.
pub(crate) fn host(args: &Install, links: &[Link]) -> Facts {
    let read = |table: &str| fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
    let (v4, v6) = (read("route"), read("ipv6_route"));
    // Tunnels between nodes go by IPv4 where there is any.
    let of_v6 = || default_route_v6(&v6).map(|name| (name, VXLAN_OVERHEAD_V6));
    let route = default_route(&v4).map(|name| (name, VXLAN_OVERHEAD)).or_else(of_v6);
    let uplink = route.and_then(|(name, overhead)| {
        let link = links.iter().find(|link| link.name == name)?;
        Some(Uplink { name: link.name.clone(), mtu: link.mtu, overhead })
    });
    let made = std::env::current_exe().and_then(fs::metadata).and_then(|file| file.modified()).ok();
    let plugins = fs::read_dir(&args.cni_bin_dir).into_iter().flatten().flatten();
    let directories = [
        ("state directory", &args.state_dir),
        ("run directory", &args.node.run_dir),
        ("plugin directory", &args.cni_bin_dir),
        ("configuration directory", &args.cni_conf_dir),
    ];
    Facts {
        uplink,
        now: u64::try_from(now()).unwrap_or_default(),
        made: made.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_secs()),
        directories: directories.map(|(check, path)| directory(check, path)).into(),
        plugins: plugins.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect(),
    }
}

/// A directory that is not there yet is judged by the nearest above it.
fn directory(check: &'static str, path: &Path) -> Directory {
    let there = path.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
    let unwritable = match access(there, AccessFlags::W_OK | AccessFlags::X_OK) {
        Err(errno) => Some(format!("{} cannot be written: {}", there.display(), errno.desc())),
        Ok(()) if !there.is_dir() => Some(format!("{} is no directory", there.display())),
        Ok(()) => None,
    };
    let free =
        statvfs(there).map_or(u64::MAX, |file_system| file_system.blocks_available() * file_system.fragment_size());
    Directory { check, path: path.to_owned(), unwritable, free }
}

/// The link of the IPv4 default route with the least metric.
fn default_route(table: &str) -> Option<&str> {
    let routes = table.lines().skip(1).filter_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let &[link, destination, _, flags, _, _, metric, mask, ..] = words.as_slice() else { return None };
        let up = u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & UP != 0);
        (up && destination == "00000000" && mask == "00000000").then(|| Some((metric.parse::<u32>().ok()?, link)))?
    });
    routes.min().map(|(_, link)| link)
}

/// The same of IPv6, where numbers are hexadecimal, and nothing is said in a first line.
fn default_route_v6(table: &str) -> Option<&str> {
    let routes = table.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let &[destination, "00", _, "00", _, metric, _, _, flags, link] = words.as_slice() else { return None };
        let up = u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & (UP | REJECT) == UP);
        let everywhere = destination.bytes().all(|digit| digit == b'0');
        (up && everywhere).then(|| Some((u32::from_str_radix(metric, 16).ok()?, link)))?
    });
    routes.min().map(|(_, link)| link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_route_of_the_least_metric_leads_to_the_uplink() {
        let head = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n";
        let table = format!(
            "{head}wlan0 00000000 010011AC 0003 0 0 600 00000000 0 0 0\neth0 00000000 010011AC 0003 0 0 100 00000000 0 0 0\n\
             down0 00000000 010011AC 0002 0 0 0 00000000 0 0 0\neth1 000011AC 00000000 0001 0 0 0 00FFFFFF 0 0 0\n"
        );
        assert_eq!(default_route(&table), Some("eth0"));
        assert_eq!(default_route(head), None);
        assert_eq!(default_route(""), None);
    }

    #[test]
    fn a_machine_without_ipv4_has_the_uplink_of_its_ipv6_default_route() {
        let none = "0".repeat(32);
        let (net, router) = ("fd00".to_owned() + &"0".repeat(28), "fd00".to_owned() + &"0".repeat(27) + "1");
        let reject = format!("{none} 00 {none} 00 {none} ffffffff 00000001 00000000 00200200       lo\n");
        let connected = format!("{net} 40 {none} 00 {none} 00000100 00000001 00000000 00000001     eth1\n");
        let default = |link: &str, metric: &str, flags: &str| {
            format!("{none} 00 {none} 00 {router} {metric} 00000003 00000000 {flags} {link}\n")
        };
        assert_eq!(default_route_v6(&(reject.clone() + &connected)), None);
        let down = default("down0", "00000001", "00000002");
        let table =
            connected + &down + &default("wlan0", "00000400", "00000003") + &default("eth0", "00000064", "00450003");
        assert_eq!(default_route_v6(&(table + &reject)), Some("eth0"));
        assert_eq!(default_route_v6(""), None);
    }
}
