//! The machine itself: settings, uplink, clock, directories.

use crate::args::Install;
use crate::fitness::host::{Directory, Facts};
use crate::fitness::settings;
use crate::io::now;
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};
use std::fs;
use std::path::Path;
use std::time::UNIX_EPOCH;
use twill_felix::io::link::Link;

/// `RTF_UP` of `/proc/net/route`.
const UP: u32 = 1;

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
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let uplink = default_route(&routes).and_then(|name| links.iter().find(|link| link.name == name));
    let made = std::env::current_exe().and_then(fs::metadata).and_then(|file| file.modified()).ok();
    let plugins = fs::read_dir(&args.cni_bin_dir).into_iter().flatten().flatten();
    let directories = [
        ("state directory", &args.state_dir),
        ("run directory", &args.node.run_dir),
        ("plugin directory", &args.cni_bin_dir),
        ("configuration directory", &args.cni_conf_dir),
    ];
    Facts {
        uplink: uplink.map(|link| (link.name.clone(), link.mtu)),
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

/// The link of the default route with the least metric.
fn default_route(table: &str) -> Option<&str> {
    let routes = table.lines().skip(1).filter_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let &[link, destination, _, flags, _, _, metric, mask, ..] = words.as_slice() else { return None };
        let up = u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & UP != 0);
        (up && destination == "00000000" && mask == "00000000").then(|| Some((metric.parse::<u32>().ok()?, link)))?
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
}
