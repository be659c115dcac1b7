//! Routers: in flows what a speaker has to do, out flow the files and programs that do it, for each software.
//!
//! Whatever it is, it runs inside the router's namespace with its sockets and files in the router's directory, so that several labs
//! and the host's own routing daemons never meet. `bin/` there holds the operator's command with the right socket.

mod bird;
mod frr;
mod gobgp;
mod twill;

use crate::plan::Speaker;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};

/// What a router runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Software {
    /// Twill's own lone speaker.
    #[default]
    Twill,
    /// BIRD 2.
    Bird,
    /// FRRouting: zebra and bgpd.
    Frr,
    /// GoBGP.
    Gobgp,
}

impl fmt::Display for Software {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Twill => "twill",
            Self::Bird => "bird",
            Self::Frr => "frr",
            Self::Gobgp => "gobgp",
        })
    }
}

/// All that a router needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    /// Files, in the router's directory.
    pub files: Vec<File>,
    /// Programs, in the order in which they are started.
    pub programs: Vec<Program>,
    /// Who owns the directory, if the programs give up root.
    pub user: Option<&'static str>,
}

/// A file of a router.
#[derive(Clone, Debug, PartialEq)]
pub struct File {
    /// Its path below the router's directory.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// A program of a router.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// Its name; its log is NAME.log.
    pub name: &'static str,
    /// Where it may be, and Debian's package that has it; none: it is our own executable.
    pub installed: Option<Installed>,
    /// Its arguments.
    pub args: Vec<String>,
    /// Made by it once others may use it.
    pub socket: PathBuf,
}

/// Where a program of others comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Paths to try.
    pub paths: &'static [&'static str],
    /// Debian's package.
    pub package: &'static str,
}

/// The operator's command that lists the sessions of a router.
#[derive(Clone, Copy, Debug)]
pub struct Sessions {
    /// It is in the router's `bin/`.
    pub command: &'static str,
    /// Its arguments.
    pub args: &'static [&'static str],
    /// How many sessions are established in its answer.
    pub established: fn(&str) -> usize,
}

/// How long peers keep what a router told before its speaker ended, in seconds (RFC 4724): what a node asks of them.
const RESTART_TIME: u16 = 120;

impl Software {
    /// What lists its sessions; none: Twill's tells them on its socket.
    #[must_use]
    pub fn sessions(self) -> Option<Sessions> {
        match self {
            Self::Twill => None,
            Self::Bird => {
                Some(Sessions { command: "birdc", args: &["show", "protocols"], established: bird::established })
            }
            Self::Frr => {
                let args = &["-c", "show bgp summary json"];
                Some(Sessions { command: "vtysh", args, established: frr::established })
            }
            Self::Gobgp => {
                Some(Sessions { command: "gobgp", args: &["neighbor", "-j"], established: gobgp::established })
            }
        }
    }
}

/// What a router runs to be that speaker, with everything of its own in `dir`.
///
/// # Errors
/// None that is known.
pub fn setup(speaker: &Speaker, machine: &str, dir: &Path) -> anyhow::Result<Setup> {
    match speaker.software {
        Software::Twill => twill::setup(speaker, dir),
        Software::Bird => Ok(bird::setup(speaker, dir)),
        Software::Frr => Ok(frr::setup(speaker, machine, dir)),
        Software::Gobgp => gobgp::setup(speaker, dir),
    }
}

/// What a person should know of this speaker beforehand.
#[must_use]
pub fn caveat(speaker: &Speaker) -> Option<&'static str> {
    (speaker.software == Software::Gobgp && speaker.peers.iter().any(|peer| peer.shares_as)).then_some(
        "GoBGP (3.10) passes no withdrawal on to nodes whose AS it overrides, so routes that are withdrawn stay with them; give each node an \
         AS of its own: BGPConfiguration spec.asn: {nodeLabel: KEY}, and Node manifests with that label",
    )
}

/// A command that finds the router's socket by itself. It stands before the real one in PATH, so it must look elsewhere.
fn command(name: &str, arguments: &str) -> File {
    let text = format!("#!/bin/sh\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\nexport PATH\nexec {name} {arguments} \"$@\"\n");
    File { name: format!("bin/{name}"), text }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// The families that a speaker has sessions in.
fn families(speaker: &Speaker) -> Vec<bool> {
    [false, true].into_iter().filter(|v6| speaker.peers.iter().any(|p| p.address.is_ipv6() == *v6)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::plan::Peer;

    fn speaker(software: Software) -> Speaker {
        let peer = |name: &str, address: &str, asn, node| Peer {
            name: name.to_owned(),
            address: address.parse().unwrap(),
            asn,
            node,
            shares_as: node,
        };
        Speaker {
            software,
            asn: 65101,
            router_id: "198.19.0.2".parse().unwrap(),
            originate: vec!["172.31.1.0/24".parse().unwrap(), "fd31:1::/64".parse().unwrap()],
            loopbacks: vec!["198.19.128.2".parse().unwrap(), "fd00:7477:696c:ffff::2".parse().unwrap()],
            peers: vec![
                peer("spine", "198.18.0.1", 65000, false),
                peer("spine-v6", "fd00:7477:696c::1", 65000, false),
                peer("n-1.a", "172.31.1.11", 64512, true),
                peer("n-1.a-v6", "fd31:1::11", 64512, true),
            ],
        }
    }

    fn written(software: Software) -> String {
        let setup = setup(&speaker(software), "tor-r1", Path::new("/run/twill-lab/t/tor-r1")).unwrap();
        let files = setup.files.iter().map(|f| format!("--- {}\n{}", f.name, f.text));
        let programs = setup.programs.iter().map(|p| format!("$ {} {}\n", p.name, p.args.join(" ")));
        files.chain(programs).collect()
    }

    #[test]
    fn twill_is_configured_in_one_file() {
        insta::assert_snapshot!(written(Software::Twill));
    }

    #[test]
    fn bird_sends_the_nodes_own_as_back_as_it_is() {
        insta::assert_snapshot!(written(Software::Bird));
    }

    #[test]
    fn frr_overrides_the_nodes_as_and_leaves_the_kernel_to_zebra() {
        insta::assert_snapshot!(written(Software::Frr));
    }

    #[test]
    fn gobgp_overrides_the_nodes_as_and_leaves_the_kernel_to_a_follower() {
        insta::assert_snapshot!(written(Software::Gobgp));
    }

    #[test]
    fn an_as_is_overridden_for_nodes_that_share_it_alone() {
        for software in [Software::Twill, Software::Frr, Software::Gobgp] {
            let mut speaker = speaker(software);
            let overrides = |speaker: &Speaker| {
                let files = setup(speaker, "tor-r1", Path::new("/d")).unwrap().files;
                let words = ["asOverride: true", "as-override", "replace-peer-as = true"];
                words.iter().map(|w| files.iter().map(|f| f.text.matches(w).count()).sum::<usize>()).sum::<usize>()
            };
            assert_eq!(overrides(&speaker), 2, "{software}");
            speaker.peers.iter_mut().for_each(|p| p.shares_as = false);
            assert_eq!(overrides(&speaker), 0, "{software}");
        }
    }

    #[test]
    fn one_family_is_configured_alone() {
        for software in [Software::Twill, Software::Bird, Software::Frr, Software::Gobgp] {
            let mut speaker = speaker(software);
            speaker.peers.retain(|p| p.address.is_ipv4());
            speaker.originate.truncate(1);
            speaker.loopbacks.truncate(1);
            let setup = setup(&speaker, "tor-r1", Path::new("/d")).unwrap();
            assert!(setup.files.iter().all(|f| !f.text.contains("ipv6")), "{software}: {:?}", setup.files);
        }
    }
}
