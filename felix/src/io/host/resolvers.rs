//! Servers that answer this machine's questions for names, as the resolver's files say.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

const FILE: &str = "/etc/resolv.conf";
/// Where a resolver of this machine itself says whom it asks: systemd-resolved, and dnsmasq of NetworkManager.
const BEHIND: [&str; 2] = ["/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf"];

/// Those of other machines. Where the file names only this machine, whom its resolver asks.
#[must_use]
pub fn resolvers() -> BTreeSet<IpAddr> {
    of(Path::new(FILE), &BEHIND.map(Path::new))
}

fn of(file: &Path, behind: &[&Path]) -> BTreeSet<IpAddr> {
    let others = |file: &Path| -> BTreeSet<IpAddr> { named(file).filter(|address| !address.is_loopback()).collect() };
    let found = others(file);
    let only_this_machine = found.is_empty() && named(file).next().is_some();
    if only_this_machine { behind.iter().flat_map(|file| others(file)).collect() } else { found }
}

/// A file that is not there names nobody.
fn named(file: &Path) -> impl Iterator<Item = IpAddr> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let address = |text: &str| text.trim().split('%').next().and_then(|text| text.parse::<IpAddr>().ok());
    servers.filter_map(address).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_those_of_other_machines_and_whom_a_local_one_asks() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let (file, systemd, manager) = (at("resolv.conf"), at("systemd"), at("manager"));
        let read = || -> Vec<String> { of(&file, &[&systemd, &manager]).iter().map(ToString::to_string).collect() };
        std::fs::write(&systemd, "nameserver 192.0.2.54\nnameserver 127.0.0.1\nnameserver 192.0.2.55\n").unwrap();
        assert_eq!(read(), [""; 0], "nothing is configured");
        let some = "# nameserver 192.0.2.9\nnameserver 192.0.2.53\nnameserver\tfe80::1%eth0\nnameserver 127.0.0.53\nsearch x\n";
        std::fs::write(&file, some).unwrap();
        assert_eq!(read(), ["192.0.2.53", "fe80::1"]);
        std::fs::write(&file, "nameserver 127.0.0.53\noptions edns0\n").unwrap();
        assert_eq!(read(), ["192.0.2.54", "192.0.2.55"]);
        std::fs::write(&manager, "nameserver fd00::53\n").unwrap();
        std::fs::remove_file(&systemd).unwrap();
        assert_eq!(read(), ["fd00::53"]);
    }
}
