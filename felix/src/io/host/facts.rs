//! What a node is known to need: its listening sockets, where it is connected to, its resolvers and its BGP peers. Looked at every few
//! seconds, told when it is another.
//!
//! What was needed a short while ago still counts: a server that restarts does not listen for a moment.

use super::sockets::{self, Socket};
use crate::host::failsafe::Facts;
use crate::io::agent::Done;
use crate::io::conntrack;
use futures::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use twill_crds::control::{BgpdRequest, PeerStatus};
use twill_crds::names::{BGP_PORT, BGPD_SOCKET};
use twill_crds::{BGPConfiguration, BGPPeer};
use twill_datastore::{Datastore, Filter, Followed, Index, follow};

const EVERY: Duration = Duration::from_secs(5);
/// How long what was seen counts after it was seen last.
const HELD: Duration = Duration::from_secs(600);
/// How long the first look waits for what the datastore says of BGP.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long bgpd may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
const SSH_SERVERS: [&str; 2] = ["sshd", "dropbear"];
const RESOLVERS: &str = "/etc/resolv.conf";
const ETCD_PORT: u16 = 2379;

/// Starts to look, and tells the agent.
pub fn start(datastore: Datastore, url: String, run_dir: PathBuf, done: mpsc::UnboundedSender<Done>) {
    tokio::spawn(async move {
        let mut peers = follow::<BGPPeer>(&datastore, Filter::default());
        let mut configurations = follow::<BGPConfiguration>(&datastore, Filter::default());
        let mut looker = Looker::new(url, run_dir);
        let first = tokio::time::Instant::now() + PATIENCE;
        let (mut told, mut heard) = (None, [false; 2]);
        let mut tick = tokio::time::interval_at(first, EVERY);
        loop {
            tokio::select! {
                Some(followed) = peers.next() => {
                    heard[0] |= matches!(followed, Followed::Synced { .. });
                    looker.peers.apply(followed);
                }
                Some(followed) = configurations.next() => {
                    heard[1] |= matches!(followed, Followed::Synced { .. });
                    looker.configurations.apply(followed);
                }
                _ = tick.tick() => heard = [true; 2],
            }
            if heard != [true; 2] {
                continue;
            }
            let facts = looker.look().await;
            if told.as_ref() != Some(&facts) {
                told = Some(facts.clone());
                if done.send(Done::HostFacts(Box::new(facts))).is_err() {
                    return;
                }
            }
        }
    });
}

/// What can be seen at once: all but BGP.
#[must_use]
pub fn local(url: &str) -> Facts {
    Looker::new(url.to_owned(), PathBuf::new()).look_here()
}

/// Things with the time when each was seen last.
struct Seen<T>(BTreeMap<T, Instant>);

impl<T: Ord + Copy + Hash> Seen<T> {
    fn look(&mut self, now: Instant, found: impl IntoIterator<Item = T>) -> BTreeSet<T> {
        self.0.extend(found.into_iter().map(|one| (one, now)));
        self.0.retain(|_, last| now.duration_since(*last) < HELD);
        self.0.keys().copied().collect()
    }
}

struct Looker {
    url: String,
    run_dir: PathBuf,
    peers: Index<BGPPeer>,
    configurations: Index<BGPConfiguration>,
    listening: Seen<u16>,
    ssh: Seen<u16>,
    datastore: Seen<SocketAddr>,
    /// Connections of this process when it was last asked where they lead to.
    own: BTreeSet<(SocketAddr, SocketAddr)>,
    behind: BTreeSet<SocketAddr>,
    /// When bgpd answered last.
    answered: Option<Instant>,
}

impl Looker {
    fn new(url: String, run_dir: PathBuf) -> Self {
        Self {
            url,
            run_dir,
            peers: Index::default(),
            configurations: Index::default(),
            listening: Seen(BTreeMap::new()),
            ssh: Seen(BTreeMap::new()),
            datastore: Seen(BTreeMap::new()),
            own: BTreeSet::new(),
            behind: BTreeSet::new(),
            answered: None,
        }
    }

    async fn look(&mut self) -> Facts {
        Facts { established: self.sessions().await, ..self.look_here() }
    }

    /// BGP sessions, if that is known. A bgpd that has left no socket, and has not answered for long, is none: then there are no sessions.
    async fn sessions(&mut self) -> Option<BTreeSet<IpAddr>> {
        match established(&self.run_dir).await {
            Ok(sessions) => {
                self.answered = Some(Instant::now());
                Some(sessions)
            }
            Err(error) => {
                let socket = self.run_dir.join(BGPD_SOCKET).exists();
                let expected = socket || self.answered.is_some_and(|last| last.elapsed() < HELD);
                tracing::debug!(%error, expected, "BGP sessions are not known");
                (!expected).then(BTreeSet::new)
            }
        }
    }

    fn look_here(&mut self) -> Facts {
        let now = Instant::now();
        let all = sockets::all();
        let listening = all.iter().filter(|socket| socket.listens && !socket.local.ip().is_loopback());
        let servers = sockets::of_processes_named(&SSH_SERVERS);
        let ssh = listening.clone().filter(|socket| servers.contains(&socket.inode)).map(|socket| socket.local.port());
        let datastore: Vec<SocketAddr> = written(&self.url).into_iter().chain(self.connected(&all)).collect();
        let bgp_peers = self.peers.iter().filter_map(|(_, peer)| {
            let remote = &peer.spec.remote;
            Some(SocketAddr::new(remote.address?, remote.port.unwrap_or(BGP_PORT)))
        });
        Facts {
            ssh: self.ssh.look(now, ssh),
            listening: self.listening.look(now, listening.map(|socket| socket.local.port())),
            datastore: self.datastore.look(now, datastore),
            resolvers: std::fs::read_to_string(RESOLVERS).map(|text| resolvers(&text)).unwrap_or_default(),
            bgp_port: self.configurations.iter().next().map(|(_, one)| one.spec.listen_port),
            bgp_peers: bgp_peers.collect(),
            established: None,
            control_plane: BTreeSet::new(),
        }
    }

    /// Where this process is connected to: what it dialled, and what stands behind that where the host translates addresses of Services.
    fn connected(&mut self, all: &[Socket]) -> Vec<SocketAddr> {
        let numbers = sockets::of_process("self");
        let out =
            |socket: &&Socket| !socket.listens && !socket.remote.ip().is_loopback() && numbers.contains(&socket.inode);
        let own: BTreeSet<_> = all.iter().filter(out).map(|socket| (socket.local, socket.remote)).collect();
        if own != self.own {
            let locals: BTreeSet<SocketAddr> = own.iter().map(|(local, _)| *local).collect();
            let found = conntrack::find(|one| locals.contains(&one.flow.source)).unwrap_or_default();
            self.behind = found.into_iter().map(|one| one.flow.destination).collect();
            self.own = own;
        }
        self.own.iter().map(|(_, remote)| *remote).chain(self.behind.iter().copied()).collect()
    }
}

/// Addresses that the datastore's URL, or the environment of a pod, says.
fn written(url: &str) -> Vec<SocketAddr> {
    if url.starts_with("kubernetes:") {
        let host = std::env::var("KUBERNETES_SERVICE_HOST").ok().and_then(|text| text.parse::<IpAddr>().ok());
        let port = std::env::var("KUBERNETES_SERVICE_PORT").ok().and_then(|text| text.parse().ok());
        return host.into_iter().map(|host| SocketAddr::new(host, port.unwrap_or(443))).collect();
    }
    let Some((_, rest)) = url.strip_prefix("etcd:").and_then(|url| url.split_once("://")) else { return Vec::new() };
    let hosts = rest.split(['/', '?']).next().unwrap_or_default();
    let one = |text: &str| {
        let bare = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        text.parse().ok().or_else(|| bare.ok().map(|ip| SocketAddr::new(ip, ETCD_PORT)))
    };
    hosts.split(',').filter_map(one).collect()
}

fn resolvers(text: &str) -> BTreeSet<IpAddr> {
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let address = |text: &str| text.trim().split('%').next().and_then(|text| text.parse::<IpAddr>().ok());
    servers.filter_map(address).filter(|address| !address.is_loopback()).collect()
}

/// Peers with which bgpd has a session.
///
/// # Errors
/// It does not answer.
pub async fn established(run_dir: &Path) -> Result<BTreeSet<IpAddr>, String> {
    let asked = async {
        let (read, mut write) = UnixStream::connect(run_dir.join(BGPD_SOCKET)).await?.into_split();
        let mut request = serde_json::to_vec(&BgpdRequest::Peers)?;
        request.push(b'\n');
        write.write_all(&request).await?;
        let mut line = String::new();
        BufReader::new(read).read_line(&mut line).await?;
        Ok::<Vec<PeerStatus>, std::io::Error>(serde_json::from_str(&line)?)
    };
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(Ok(peers)) => {
            Ok(peers.into_iter().filter(|peer| peer.state == "Established").map(|peer| peer.address).collect())
        }
        Ok(Err(error)) => Err(format!("bgpd does not answer: {error}")),
        Err(_) => Err(format!("bgpd does not answer within {} s", ANSWER.as_secs())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn where_the_datastore_is_written_to_be() {
        let at = |text: &str| -> SocketAddr { text.parse().unwrap() };
        assert_eq!(
            written("etcd:https://192.0.2.1:2379,[fd00::1]:2380,etcd.example:2379,192.0.2.2/p?ca=/a"),
            [at("192.0.2.1:2379"), at("[fd00::1]:2380"), at("192.0.2.2:2379")]
        );
        assert_eq!(written("sqlite:/a/b"), []);
    }

    #[test]
    fn resolvers_are_those_of_other_machines() {
        let text = "# nameserver 192.0.2.9\nnameserver 192.0.2.53\nnameserver\tfe80::1%eth0\nnameserver 127.0.0.53\nsearch x\n";
        assert_eq!(resolvers(text), ["192.0.2.53".parse().unwrap(), "fe80::1".parse().unwrap()].into());
    }

    #[tokio::test]
    async fn sessions_are_unknown_while_a_bgpd_that_was_there_does_not_answer() {
        let directory = tempfile::tempdir().unwrap();
        let mut looker = Looker::new("sqlite:/a".to_owned(), directory.path().to_owned());
        assert_eq!(looker.sessions().await, Some(BTreeSet::new()), "there is no bgpd");
        // One that died leaves its socket.
        let socket = directory.path().join(BGPD_SOCKET);
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        assert_eq!(looker.sessions().await, None);
        // One that ended as it should takes it away.
        std::fs::remove_file(&socket).unwrap();
        looker.answered = Some(Instant::now());
        assert_eq!(looker.sessions().await, None);
    }

    #[test]
    fn what_was_seen_a_short_while_ago_still_counts() {
        let (now, mut seen) = (Instant::now(), Seen(BTreeMap::new()));
        seen.look(now, [22_u16, 80]);
        assert_eq!(seen.look(now + HELD / 2, [22]), [22, 80].into());
        assert_eq!(seen.look(now + HELD, []), [22].into());
    }
}
