//! GoBGP: `gobgpd` speaks with all peers and writes no route itself; our own lone speaker carries its routes into the kernel.
//!
//! That follower has an iBGP session per family with `gobgpd`, from an address on the loopback device: it hears the best path of every
//! prefix, its next hop unchanged, and originates the router's prefixes, which GoBGP can only be told by a command. One session per family
//! gives each a next hop that may be told (127.0.0.0/8 may not).

use super::twill::{self, Config, Neighbour, RESTART, family};
use super::{File, Installed, Program, RESTART_TIME, Setup, command, text};
use crate::plan::{Peer, Speaker};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

const GOBGPD: Installed = Installed { paths: &["/usr/bin/gobgpd", "/usr/sbin/gobgpd"], package: "gobgpd" };

/// The follower's identifier is its router's and this bit, as two speakers of one AS must differ (RFC 6286).
const FOLLOWER: u32 = 0x8000;

pub(super) fn setup(speaker: &Speaker, dir: &Path) -> anyhow::Result<Setup> {
    let (config, socket) = (dir.join("gobgpd.toml"), dir.join("gobgp.sock"));
    let target = format!("unix://{}", text(&socket));
    let args = ["-f", &text(&config), "--api-hosts", &target, "--pprof-disable", "--log-plain"];
    let gobgpd = Program { name: "gobgpd", installed: Some(GOBGPD), args: args.map(str::to_owned).to_vec(), socket };
    Ok(Setup {
        files: vec![
            File { name: "gobgpd.toml".to_owned(), text: configuration(speaker) },
            twill::file(&follower(speaker))?,
            command("gobgp", &format!("--target {target}")),
        ],
        programs: vec![gobgpd, twill::program(dir)],
        user: None,
    })
}

/// How many sessions the answer of `gobgp neighbor -j` shows as established.
pub(super) fn established(answer: &str) -> usize {
    /// As GoBGP numbers the states of RFC 4271 section 8.2.2.
    const ESTABLISHED: u64 = 6;
    let neighbours: Vec<serde_json::Value> = serde_json::from_str(answer).unwrap_or_default();
    neighbours.iter().filter(|n| n["state"]["session_state"].as_u64() == Some(ESTABLISHED)).count()
}

fn follower(speaker: &Speaker) -> Config<'_> {
    let session = |source: &IpAddr| Neighbour {
        name: if source.is_ipv6() { "gobgpd-v6" } else { "gobgpd" },
        address: if source.is_ipv6() { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() },
        source: Some(*source),
        asn: speaker.asn,
        families: [family(*source)],
        import: "all",
        export: "own",
        graceful_restart: RESTART,
        as_override: false,
        passive: false,
    };
    Config {
        asn: speaker.asn,
        router_id: Ipv4Addr::from(u32::from(speaker.router_id) | FOLLOWER),
        listen: Vec::new(),
        install_routes: true,
        originate: &speaker.originate,
        peers: speaker.loopbacks.iter().map(session).collect(),
    }
}

fn configuration(speaker: &Speaker) -> String {
    let mut file = format!("[global.config]\n  as = {}\n  router-id = \"{}\"\n", speaker.asn, speaker.router_id);
    for address in &speaker.loopbacks {
        let name = format!("kernel-{}", family(*address));
        neighbour(&mut file, &Peer { name, address: *address, asn: speaker.asn, node: false, shares_as: false }, true);
    }
    for peer in &speaker.peers {
        neighbour(&mut file, peer, peer.node);
    }
    file
}

fn neighbour(file: &mut String, peer: &Peer, passive: bool) {
    let Peer { name, address, asn, shares_as, .. } = peer;
    let _ = write!(
        file,
        "
[[neighbors]]
  [neighbors.config]
    neighbor-address = \"{address}\"
    peer-as = {asn}
    description = \"{name}\"
  [neighbors.transport.config]
    passive-mode = {passive}
  [neighbors.timers.config]
    connect-retry = 5
    idle-hold-time-after-reset = 1
  [neighbors.as-path-options.config]
    replace-peer-as = {shares_as}
  [neighbors.graceful-restart.config]
    enabled = true
    restart-time = {RESTART_TIME}
  [[neighbors.afi-safis]]
    [neighbors.afi-safis.config]
      afi-safi-name = \"{}-unicast\"
    [neighbors.afi-safis.mp-graceful-restart.config]
      enabled = true
",
        family(*address)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_counted_by_their_state() {
        let answer = r#"[{"state": {"session_state": 6}}, {"state": {"session_state": 3}}, {"state": {}}]"#;
        assert_eq!(established(answer), 1);
        assert_eq!(established("context deadline exceeded"), 0);
    }
}
