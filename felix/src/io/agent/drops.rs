//! Packets that were denied: what the kernel tells of, in the words of people, kept for a while and told to who follows.

use super::Agent;
use super::forecast::{denial, end};
use crate::base::Reason;
use crate::compile::{User, Users};
use crate::io::nflog::{Heard, Packet};
use crate::io::nft::Dropped;
use crate::model::Protocol;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::broadcast;
use twill_crds::control::{Denial, DropCount, DropLine, DroppedPacket, Drops};

/// Packets that are kept.
const KEPT: usize = 1000;
/// Lines that a follower may be behind.
const BEHIND: usize = 1024;
/// Users of a list that are named.
const NAMED: usize = 8;

/// What was denied lately.
#[derive(Debug)]
pub(super) struct Denied {
    kept: VecDeque<DroppedPacket>,
    followers: broadcast::Sender<Arc<DropLine>>,
    missed: u64,
    problem: Option<String>,
}

impl Default for Denied {
    fn default() -> Self {
        let problem = Some("this kernel cannot tell of denied packets (NFLOG): they are counted only".to_owned());
        Self { kept: VecDeque::new(), followers: broadcast::channel(BEHIND).0, missed: 0, problem }
    }
}

impl Agent {
    /// The kernel told of denied packets, or cannot.
    pub fn denied(&mut self, heard: Heard) {
        let line = match heard {
            Heard::Packets(packets) => {
                for packet in packets {
                    let Some(told) = self.told(&packet) else { continue };
                    if self.denied.kept.len() == KEPT {
                        self.denied.kept.pop_front();
                    }
                    self.denied.kept.push_back(told.clone());
                    // That nobody follows is no error.
                    let _ = self.denied.followers.send(Arc::new(DropLine::Packet(Box::new(told))));
                }
                return;
            }
            Heard::Missed(missed) => {
                self.denied.missed += missed;
                DropLine::Missed { missed }
            }
            Heard::Listening => return self.denied.problem = None,
            Heard::Deaf(problem) => {
                tracing::warn!(%problem, "denied packets are not told of; tried again");
                self.denied.problem = Some(problem.clone());
                DropLine::Problem { problem }
            }
        };
        let _ = self.denied.followers.send(Arc::new(line));
    }

    /// What is known, with what rules have counted, and what comes from now on.
    pub(super) fn drops(&self, counted: Vec<Dropped>) -> (Drops, broadcast::Receiver<Arc<DropLine>>) {
        let all = self.compiler.users();
        let count = |one: Dropped| DropCount {
            of: named(&all, &one.chain),
            chain: one.chain,
            reason: one.comment,
            dropped: one.packets,
            told: one.told,
        };
        let drops = Drops {
            node: self.node.clone(),
            packets: self.denied.kept.iter().cloned().collect(),
            counts: counted.into_iter().map(count).collect(),
            missed: self.denied.missed,
            problem: self.denied.problem.clone(),
        };
        (drops, self.denied.followers.subscribe())
    }

    fn told(&self, packet: &Packet) -> Option<DroppedPacket> {
        let headers = packet.headers?;
        let [from, to] = [packet.in_interface, packet.out_interface].map(|index| index.map(|one| self.interface(one)));
        let protocol = headers.protocol;
        Some(DroppedPacket {
            time: jiff::Timestamp::now().to_string(),
            source: end(&self.compiler, headers.source, protocol),
            destination: end(&self.compiler, headers.destination, protocol),
            protocol: Protocol(protocol).to_string(),
            denial: self.why(&packet.prefix, from.as_deref(), to.as_deref()),
            in_interface: from,
            out_interface: to,
        })
    }

    /// Why a rule that says this denied a packet between these interfaces.
    fn why(&self, prefix: &str, from: Option<&str>, to: Option<&str>) -> Denial {
        if let Some((chain, comment)) = prefix.split_once(' ').filter(|(chain, _)| chain.starts_with("list_")) {
            return denial(&self.compiler, (chain, comment), from, to);
        }
        let sends = [Reason::Spoofed, Reason::Tunnel].iter().any(|reason| reason.text() == prefix);
        let pod = from.filter(|_| sends).and_then(|ifname| self.compiler.behind(ifname)).map(ToString::to_string);
        Denial { pod, reason: prefix.to_owned(), ..Denial::default() }
    }

    /// Name of an interface; one that has gone meanwhile has its number.
    fn interface(&self, index: u32) -> String {
        if let Some(live) = self.endpoints.values().find(|live| live.index == index) {
            return live.host_name.clone();
        }
        let name = nix::net::if_::if_indextoname(index).ok().and_then(|name| name.into_string().ok());
        name.unwrap_or_else(|| index.to_string())
    }
}

/// Whose list a chain is, in words.
fn named(users: &Users, chain: &str) -> Vec<String> {
    let all: Vec<&User> = users.of(chain).collect();
    let named = all.iter().take(NAMED).map(|user| format!("{} of {}", user.blame.direction, user.blame.pod));
    let more = (all.len() > NAMED).then(|| format!("{} more", all.len() - NAMED));
    named.chain(more).collect()
}
