//! FRRouting: zebra writes the kernel's routes, bgpd speaks. Both give up root for their own user.

use super::{File, Installed, Program, RESTART_TIME, Setup, command, families, text};
use crate::plan::Speaker;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

const PACKAGE: &str = "frr";
const ZEBRA: Installed = Installed { paths: &["/usr/lib/frr/zebra", "/usr/libexec/frr/zebra"], package: PACKAGE };
const BGPD: Installed = Installed { paths: &["/usr/lib/frr/bgpd", "/usr/libexec/frr/bgpd"], package: PACKAGE };

pub(super) fn setup(speaker: &Speaker, machine: &str, dir: &Path) -> Setup {
    let zserv = dir.join("zserv.api");
    let program = |name: &'static str, installed, socket| {
        let config = dir.join(format!("{name}.conf"));
        let pid = dir.join(format!("{name}.pid"));
        let args = ["--vty_socket", &text(dir), "-i", &text(&pid), "-z", &text(&zserv), "-f", &text(&config)];
        let port = ["-A", "127.0.0.1", "-P", "0", "--log", "stdout"];
        Program {
            name,
            installed: Some(installed),
            args: args.into_iter().chain(port).map(str::to_owned).collect(),
            socket,
        }
    };
    Setup {
        files: vec![
            File { name: "zebra.conf".to_owned(), text: format!("hostname {machine}\n") },
            File { name: "bgpd.conf".to_owned(), text: configuration(speaker, machine) },
            command("vtysh", &format!("--vty_socket {}", text(dir))),
        ],
        programs: vec![program("zebra", ZEBRA, zserv.clone()), program("bgpd", BGPD, dir.join("bgpd.vty"))],
        user: Some("frr"),
    }
}

/// How many sessions the answer of `show bgp summary json` shows as established; each has one family.
pub(super) fn established(answer: &str) -> usize {
    let families: BTreeMap<String, Value> = serde_json::from_str(answer).unwrap_or_default();
    let peers = families.values().filter_map(|family| family["peers"].as_object()).flat_map(|peers| peers.values());
    peers.filter(|peer| peer["state"] == "Established").count()
}

fn configuration(speaker: &Speaker, machine: &str) -> String {
    let mut file = format!(
        "frr defaults traditional
hostname {machine}
router bgp {}
 bgp router-id {}
 bgp log-neighbor-changes
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 no bgp network import-check
 bgp bestpath as-path multipath-relax
 bgp graceful-restart
 bgp graceful-restart preserve-fw-state
 bgp graceful-restart restart-time {RESTART_TIME}
",
        speaker.asn, speaker.router_id
    );
    for peer in &speaker.peers {
        let at = peer.address;
        let _ = writeln!(file, " neighbor {at} remote-as {}", peer.asn);
        let _ = writeln!(file, " neighbor {at} description {}", peer.name);
        let _ = writeln!(file, " neighbor {at} timers connect 2");
        let _ = writeln!(file, " neighbor {at} advertisement-interval 0");
        if peer.node {
            let _ = writeln!(file, " neighbor {at} passive");
        }
    }
    for v6 in families(speaker) {
        let _ = writeln!(file, " address-family {} unicast", if v6 { "ipv6" } else { "ipv4" });
        let _ = writeln!(file, "  maximum-paths 8");
        for own in speaker.originate.iter().filter(|o| o.addr().is_ipv6() == v6) {
            let _ = writeln!(file, "  network {own}");
        }
        for peer in speaker.peers.iter().filter(|p| p.address.is_ipv6() == v6) {
            let _ = writeln!(file, "  neighbor {} activate", peer.address);
            if peer.shares_as {
                let _ = writeln!(file, "  neighbor {} as-override", peer.address);
            }
        }
        let _ = writeln!(file, " exit-address-family");
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_counted_by_their_state() {
        let peers = r#"{"peers": {"198.18.0.1": {"state": "Established"}, "172.31.1.11": {"state": "Active"}}}"#;
        assert_eq!(established(&format!(r#"{{"ipv4Unicast": {peers}, "ipv6Unicast": {peers}}}"#)), 2);
        assert_eq!(established("% No BGP neighbors found"), 0);
    }
}
