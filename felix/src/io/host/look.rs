//! What can be seen of a node on the node itself: its listening sockets, where it is connected to, its resolvers. It reads much of `/proc`
//! and, when connections are others, all that conntrack has: seldom and never on the agent's loop, but for the first look.
//!
//! What was needed a short while ago still counts: a server that restarts does not listen for a moment.

use super::activation;
use super::names;
use super::resolvers::resolvers;
use super::sockets::{self, Socket};
use crate::host::failsafe::Facts;
use crate::host::known::{By, Clock, HELD, Known, Memory, Seen as Found};
use crate::io::conntrack;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::net::SocketAddr;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

const SSH_SERVERS: [&str; 2] = ["sshd", "dropbear"];
/// Who listens in the place of servers that run only while somebody is connected.
const STARTERS: [&str; 1] = ["systemd"];

/// What was seen, and when.
#[derive(Debug)]
pub struct Looker {
    /// The datastore is a file: it is always reached.
    file: bool,
    memory: Memory,
    listening: Seen<u16>,
    ssh: Seen<u16>,
    /// Connections of this process when it was last asked where they lead to.
    own: BTreeSet<(SocketAddr, SocketAddr)>,
    behind: BTreeSet<SocketAddr>,
}

impl Looker {
    /// Begins with what was known before.
    #[must_use]
    pub fn new(url: &str, known: Known) -> Self {
        Self {
            file: url.starts_with("sqlite:"),
            memory: Memory::new(known, Instant::now()),
            listening: Seen::default(),
            ssh: Seen::default(),
            own: BTreeSet::new(),
            behind: BTreeSet::new(),
        }
    }

    /// All but BGP sessions, with what else was found out about the datastore. It blocks.
    pub fn look(&mut self, places: names::Places, bgp_peers: Option<BTreeSet<SocketAddr>>) -> Facts {
        let now = Instant::now();
        let all = sockets::all();
        let listening = all.iter().filter(|socket| socket.listens && !socket.local.ip().is_loopback());
        let servers = sockets::of_processes_named(&SSH_SERVERS);
        // systemd listens for servers of other things, too.
        let (activated, starters) = (activation::ports(), sockets::of_processes_named(&STARTERS));
        let is_ssh = |socket: &&Socket| {
            let (inode, port) = (&socket.inode, socket.local.port());
            servers.contains(inode) || activated.contains(&port) && starters.contains(inode)
        };
        let ssh = listening.clone().filter(is_ssh).map(|socket| socket.local.port());
        let (connected, reached) = self.connected(&all);
        let connected = connected.into_iter().map(|place| (place, By::Connection));
        let datastore = places.into_iter().chain(connected).filter(|(place, _)| !place.ip().is_loopback()).collect();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let found = Found { datastore, resolvers: resolvers(), reached: reached || self.file, bgp_peers };
        Facts {
            ssh: self.ssh.look(now, ssh),
            listening: self.listening.look(now, listening.map(|socket| socket.local.port())),
            known: self.memory.look(Clock { now, wall }, found),
            ..Facts::default()
        }
    }

    /// Where this process is connected to: what it dialled, and what stands behind that where the host translates addresses of Services. And
    /// whether it is connected at all.
    fn connected(&mut self, all: &[Socket]) -> (BTreeSet<SocketAddr>, bool) {
        let numbers = sockets::of_process("self");
        let out = |socket: &&Socket| !socket.listens && numbers.contains(&socket.inode);
        let own: BTreeSet<_> = all.iter().filter(out).map(|socket| (socket.local, socket.remote)).collect();
        if own != self.own {
            let locals: BTreeSet<SocketAddr> = own.iter().map(|(local, _)| *local).collect();
            let found = conntrack::find(|one| locals.contains(&one.flow.source)).unwrap_or_default();
            self.behind = found.into_iter().map(|one| one.flow.destination).collect();
            self.own = own;
        }
        let connected = self.own.iter().map(|(_, remote)| *remote).chain(self.behind.iter().copied()).collect();
        (connected, !self.own.is_empty())
    }
}

/// Things with the time when each was seen last.
#[derive(Debug)]
struct Seen<T>(BTreeMap<T, Instant>);

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Ord + Copy + Hash> Seen<T> {
    fn look(&mut self, now: Instant, found: impl IntoIterator<Item = T>) -> BTreeSet<T> {
        self.0.extend(found.into_iter().map(|one| (one, now)));
        self.0.retain(|_, last| now.duration_since(*last) < HELD);
        self.0.keys().copied().collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_a_short_while_ago_still_counts() {
        let (now, mut seen) = (Instant::now(), Seen(BTreeMap::new()));
        seen.look(now, [22_u16, 80]);
        assert_eq!(seen.look(now + HELD / 2, [22]), [22, 80].into());
        assert_eq!(seen.look(now + HELD, []), [22].into());
    }

    #[test]
    fn what_is_named_and_what_was_known_is_known_and_loopback_needs_nothing() {
        let at = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let before = [(at("192.0.2.1:2379"), crate::host::known::Sighting { seen: 7, by: By::Connection })].into();
        let mut looker = Looker::new("etcd:http://e:1", Known { datastore: before, ..Known::default() });
        let facts = looker.look(vec![(at("192.0.2.2:2379"), By::Name), (at("127.0.0.1:2379"), By::Name)], None);
        let known: Vec<_> = facts.known.datastore.keys().copied().collect();
        assert_eq!(known, [at("192.0.2.1:2379"), at("192.0.2.2:2379")]);
    }
}
