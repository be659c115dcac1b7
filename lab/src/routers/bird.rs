//! BIRD 2: one process. Nodes get their own AS back in paths, as BIRD has no as-override: they accept it (`allowOwnAS`).

use super::{File, Installed, Program, RESTART_TIME, Setup, command, families, text};
use crate::plan::{Peer, Speaker};
use std::fmt::Write as _;
use std::path::Path;

const BIRD: Installed = Installed { paths: &["/usr/sbin/bird", "/usr/bin/bird"], package: "bird2" };

/// Longer names are no symbols for BIRD.
const SYMBOL: usize = 60;

pub(super) fn setup(speaker: &Speaker, dir: &Path) -> Setup {
    let (config, socket) = (dir.join("bird.conf"), dir.join("bird.ctl"));
    let args = ["-f", "-c", &text(&config), "-s", &text(&socket), "-P", &text(&dir.join("bird.pid"))];
    Setup {
        files: vec![
            File { name: "bird.conf".to_owned(), text: configuration(speaker) },
            command("birdc", &format!("-s {}", text(&socket))),
        ],
        programs: vec![Program { name: "bird", installed: Some(BIRD), args: args.map(str::to_owned).to_vec(), socket }],
        user: None,
    }
}

/// How many sessions the answer of `birdc show protocols` shows as established.
pub(super) fn established(answer: &str) -> usize {
    let column = |line: &str, n| line.split_whitespace().nth(n).map(str::to_owned);
    answer.lines().filter(|l| column(l, 1).as_deref() == Some("BGP") && l.trim_end().ends_with("Established")).count()
}

fn configuration(speaker: &Speaker) -> String {
    let mut file = format!(
        "log stderr {{ info, remote, warning, error, auth, fatal, bug }};
router id {};
graceful restart wait {RESTART_TIME};
",
        speaker.router_id
    );
    file.push_str("\nprotocol device {}\n");
    for v6 in families(speaker) {
        let (family, digit) = if v6 { ("ipv6", 6) } else { ("ipv4", 4) };
        let _ = write!(
            file,
            "
protocol kernel kernel{digit} {{
  {family} {{ import none; export where source = RTS_BGP; }};
  merge paths on;
  graceful restart on;
}}
"
        );
        // Only told, never put into the kernel, which has the subnet as a connected one.
        let _ = write!(file, "\nprotocol static own{digit} {{\n  {family};\n");
        for own in speaker.originate.iter().filter(|o| o.addr().is_ipv6() == v6) {
            let _ = writeln!(file, "  route {own} unreachable;");
        }
        file.push_str("}\n");
    }
    for (number, peer) in speaker.peers.iter().enumerate() {
        session(&mut file, speaker.asn, number, peer);
    }
    file
}

fn session(file: &mut String, asn: u32, number: usize, peer: &Peer) {
    let name = if peer.name.len() <= SYMBOL { peer.name.clone() } else { format!("peer{number}") };
    let family = if peer.address.is_ipv6() { "ipv6" } else { "ipv4" };
    let passive = if peer.node { "  passive on;\n" } else { "" };
    let _ = write!(
        file,
        "
protocol bgp '{name}' {{
  local as {asn};
  neighbor {} as {};
{passive}  connect delay time 1;
  connect retry time 5;
  error wait time 1, 8;
  graceful restart on;
  graceful restart time {RESTART_TIME};
  {family} {{ import all; export where source ~ [RTS_BGP, RTS_STATIC]; }};
}}
",
        peer.address, peer.asn
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_counted_by_their_state() {
        let answer = "BIRD 2.0.12 ready.
Name       Proto      Table      State  Since         Info
kernel4    Kernel     master4    up     19:00:00.001
spine      BGP        ---        up     19:00:01.001  Established
n1         BGP        ---        start  19:00:00.001  Passive
";
        assert_eq!(established(answer), 1);
    }
}
