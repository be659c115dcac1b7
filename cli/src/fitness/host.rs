//! The machine: its uplink, clock and directories.

use super::Finding;
use std::path::{Path, PathBuf};

/// What IPv6 needs at least (RFC 8200 section 5).
const LEAST_MTU: u32 = 1280;
/// Enough for a store of addresses, a snapshot, and both once more.
const LEAST_FREE: u64 = 64 << 20;
/// 2026-01-01: no release is older.
const FIRST_RELEASE: u64 = 1_767_225_600;
/// The plugin that sets up loopback, which most runtimes call beside every network.
const LOOPBACK: &str = "loopback";

/// A directory in which something is to be written.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    pub(crate) check: &'static str,
    pub(crate) path: PathBuf,
    /// The kernel's words why nothing can be written there, or in the nearest directory above that is there.
    pub(crate) unwritable: Option<String>,
    /// Bytes.
    pub(crate) free: u64,
}

/// The link by which other nodes are reached.
#[derive(Clone, Debug)]
pub(crate) struct Uplink {
    pub(crate) name: String,
    pub(crate) mtu: u32,
    /// What VXLAN takes of that, by the family of its outer header.
    pub(crate) overhead: u32,
}

/// What was read.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// The link of the default route: of the IPv4 one, if there is one.
    pub(crate) uplink: Option<Uplink>,
    /// Seconds since 1970.
    pub(crate) now: u64,
    /// When this executable was made, likewise.
    pub(crate) made: u64,
    pub(crate) directories: Vec<Directory>,
    /// Plugins in the runtime's directory.
    pub(crate) plugins: Vec<String>,
}

pub(crate) fn verdict(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![uplink(facts), clock(facts)];
    findings.extend(facts.directories.iter().map(directory));
    findings.push(match facts.plugins.iter().any(|name| name == LOOPBACK) {
        true => Finding::fine("loopback plugin", "is there"),
        false => Finding::warning(
            "loopback plugin",
            "is not there, and most runtimes attach no pod without it",
            "apt-get install containernetworking-plugins, or kubernetes-cni, and have the runtime look there",
        ),
    });
    findings
}

fn uplink(facts: &Facts) -> Finding {
    match &facts.uplink {
        None => Finding::warning(
            "uplink",
            "there is no default route; the uplink will be the link with the Node's InternalIP",
            "ip route show; ip -6 route show; kubectl get node -o wide",
        ),
        Some(Uplink { name, mtu, overhead }) if mtu.saturating_sub(*overhead) < LEAST_MTU => Finding::warning(
            "uplink",
            format!("{name} has MTU {mtu}: VXLAN leaves less than the {LEAST_MTU} that IPv6 needs"),
            format!(
                "ip link set {name} mtu 1500, or {} at least, if the network carries it; else have IPv6 pools with encapsulation.protocol None",
                LEAST_MTU + overhead
            ),
        ),
        Some(Uplink { name, mtu, overhead }) => {
            Finding::fine("uplink", format!("{name}, MTU {mtu}; {} through VXLAN", mtu.saturating_sub(*overhead)))
        }
    }
}

fn clock(facts: &Facts) -> Finding {
    if facts.now < facts.made.max(FIRST_RELEASE) {
        return Finding::unfit(
            "clock",
            "is before the making of this executable: certificates are refused, and addresses rest too long or too short",
            "timedatectl set-ntp true",
        );
    }
    Finding::fine("clock", "is plausible")
}

fn directory(directory: &Directory) -> Finding {
    let Directory { check, path, unwritable, free } = directory;
    let path: &Path = path;
    let shown = path.display();
    match unwritable {
        Some(words) => Finding::unfit(
            check,
            format!("{shown}: {words}"),
            format!("make it writable for root, or mount it: mount -o remount,rw, or name another in place of {shown}"),
        ),
        None if *free < LEAST_FREE => Finding::warning(
            check,
            format!("{shown} has only {} MiB left", free >> 20),
            format!("make room: du -xh {shown} | sort -h | tail"),
        ),
        None => Finding::fine(check, format!("{shown} can be written")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use twill_crds::names::{VXLAN_OVERHEAD, VXLAN_OVERHEAD_V6};

    fn uplink(name: &str, mtu: u32, overhead: u32) -> Option<Uplink> {
        Some(Uplink { name: name.to_owned(), mtu, overhead })
    }

    fn facts() -> Facts {
        Facts {
            uplink: uplink("eth0", 1500, VXLAN_OVERHEAD),
            now: FIRST_RELEASE + 10,
            made: FIRST_RELEASE + 5,
            directories: vec![Directory {
                check: "state directory",
                path: "/var/lib/twill".into(),
                unwritable: None,
                free: 1 << 40,
            }],
            plugins: vec![LOOPBACK.to_owned()],
        }
    }

    fn states(facts: &Facts) -> Vec<State> {
        verdict(facts).into_iter().map(|finding| finding.state).collect()
    }

    #[test]
    fn an_ordinary_machine_is_fine() {
        assert_eq!(states(&facts()), [State::Fine; 4]);
        assert!(verdict(&facts())[0].found.contains("1450 through VXLAN"));
    }

    #[test]
    fn a_small_or_unknown_uplink_is_told() {
        let state = |uplink| states(&Facts { uplink, ..facts() })[0];
        assert_eq!(state(None), State::Warning);
        for (overhead, least) in [(VXLAN_OVERHEAD, 1330), (VXLAN_OVERHEAD_V6, 1350)] {
            assert_eq!(state(uplink("wg0", least - 1, overhead)), State::Warning);
            assert_eq!(state(uplink("wg0", least, overhead)), State::Fine);
        }
    }

    #[test]
    fn a_clock_before_its_executable_is_wrong() {
        assert_eq!(states(&Facts { now: FIRST_RELEASE + 4, ..facts() })[1], State::Unfit);
        assert_eq!(states(&Facts { now: FIRST_RELEASE - 1, made: 0, ..facts() })[1], State::Unfit);
        assert_eq!(states(&Facts { made: 0, ..facts() })[1], State::Fine, "an image may have lost its times");
    }

    #[test]
    fn directories_that_are_full_or_read_only_are_told() {
        let with = |unwritable: Option<&str>, free| {
            let one = Directory { unwritable: unwritable.map(str::to_owned), free, ..facts().directories.remove(0) };
            Facts { directories: vec![one], plugins: Vec::new(), ..facts() }
        };
        assert_eq!(states(&with(Some("read-only file system"), 1 << 40))[2], State::Unfit);
        assert_eq!(states(&with(None, 1 << 20))[2..], [State::Warning; 2], "and there is no loopback");
    }
}
