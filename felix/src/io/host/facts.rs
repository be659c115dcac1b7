//! What a node is known to need: what is seen on it, where names of its datastore lead, and its BGP peers. Looked at every few seconds and
//! soon after something was heard, told when it is another.

use super::look::Looker;
use super::{kept, names};
use crate::host::failsafe::Facts;
use crate::io::agent::{Done, Places};
use futures::StreamExt;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use twill_crds::BGPPeer;
use twill_crds::control::{BgpdRequest, PeerStatus};
use twill_crds::names::{BGP_PORT, BGPD_SOCKET};
use twill_datastore::{Datastore, Filter, Followed, Index, follow};

const EVERY: Duration = Duration::from_secs(5);
/// Between two looks, however much is heard meanwhile.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the first look waits for what the datastore says of BGP.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long bgpd may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// How long a bgpd that does not answer any more is expected to.
const EXPECTED: Duration = Duration::from_secs(600);

/// Starts to look, and tells the agent.
pub fn start(datastore: Datastore, places: Places, done: mpsc::UnboundedSender<Done>) {
    tokio::spawn(async move {
        let mut peers = follow::<BGPPeer>(&datastore, Filter::default());
        let mut names = names::start(datastore.clone(), places.url.clone());
        let known = kept::read(&kept::path(&places.state_dir)).known;
        let looker = Arc::new(Mutex::new(Looker::new(&places.url, known)));
        let mut bgp = Bgp::new(places.run_dir);
        let mut pace = Pace::new(Instant::now());
        let (mut told, mut heard) = (None, false);
        loop {
            tokio::select! {
                Some(followed) = peers.next() => {
                    heard |= matches!(followed, Followed::Synced { .. });
                    bgp.peers.apply(followed);
                    pace.news(Instant::now(), heard);
                }
                Ok(()) = names.changed() => pace.news(Instant::now(), heard),
                () = tokio::time::sleep_until(pace.due.into()) => {
                    let places = names.borrow_and_update().clone();
                    let seen = look(&looker, places, heard.then(|| bgp.peers())).await;
                    let sessions = bgp.sessions().await;
                    pace.looked(Instant::now());
                    let Some(facts) = seen.map(|seen| Facts { established: sessions, ..seen }) else { continue };
                    if told.as_ref() != Some(&facts) {
                        told = Some(facts.clone());
                        if done.send(Done::HostFacts(Box::new(facts))).is_err() {
                            return;
                        }
                    }
                }
            }
        }
    });
}

/// What is known at once: all but BGP and where names lead now.
pub async fn local(places: &Places) -> Facts {
    let known = kept::read(&kept::path(&places.state_dir)).known;
    Looker::new(&places.url, known).look(names::written(&places.url).await, None)
}

/// Looks where it holds up nobody. None: that failed, and the next look may not.
async fn look(
    looker: &Arc<Mutex<Looker>>,
    places: names::Places,
    peers: Option<BTreeSet<SocketAddr>>,
) -> Option<Facts> {
    let looker = looker.clone();
    let looked =
        tokio::task::spawn_blocking(move || looker.lock().unwrap_or_else(PoisonError::into_inner).look(places, peers));
    looked.await.inspect_err(|error| tracing::error!(%error, "what the node needs was not looked at")).ok()
}

/// When the next look is due.
#[derive(Debug)]
struct Pace {
    due: Instant,
    not_before: Instant,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { due: now + PATIENCE, not_before: now }
    }

    /// Something was heard. It makes a difference once everything was.
    fn news(&mut self, now: Instant, all_heard: bool) {
        if all_heard {
            self.due = self.due.min(now.max(self.not_before));
        }
    }

    fn looked(&mut self, now: Instant) {
        *self = Self { due: now + EVERY, not_before: now + PAUSE };
    }
}

/// What is known of BGP.
struct Bgp {
    run_dir: PathBuf,
    peers: Index<BGPPeer>,
    /// When bgpd answered last.
    answered: Option<Instant>,
    /// Link-local addresses of peers on interfaces, as of that answer: no object has them.
    on_interfaces: BTreeSet<IpAddr>,
}

impl Bgp {
    fn new(run_dir: PathBuf) -> Self {
        Self { run_dir, peers: Index::default(), answered: None, on_interfaces: BTreeSet::new() }
    }

    fn peers(&self) -> BTreeSet<SocketAddr> {
        let peer = |peer: &BGPPeer| {
            let remote = &peer.spec.remote;
            Some(SocketAddr::new(remote.address?, remote.port.unwrap_or(BGP_PORT)))
        };
        let found = self.on_interfaces.iter().map(|address| SocketAddr::new(*address, BGP_PORT));
        self.peers.iter().filter_map(|(_, one)| peer(one)).chain(found).collect()
    }

    /// BGP sessions, if that is known. A bgpd that has left no socket, and has not answered for long, is none: then there are no sessions.
    async fn sessions(&mut self) -> Option<BTreeSet<IpAddr>> {
        match established(&self.run_dir).await {
            Ok(sessions) => {
                self.answered = Some(Instant::now());
                let link_local = |address: &IpAddr| matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
                self.on_interfaces = sessions.iter().copied().filter(link_local).collect();
                Some(sessions)
            }
            Err(error) => {
                let socket = self.run_dir.join(BGPD_SOCKET).exists();
                let expected = socket || self.answered.is_some_and(|last| last.elapsed() < EXPECTED);
                tracing::debug!(%error, expected, "BGP sessions are not known");
                (!expected).then(BTreeSet::new)
            }
        }
    }
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
            Ok(peers.into_iter().filter(|peer| peer.state == "Established").filter_map(|peer| peer.address).collect())
        }
        Ok(Err(error)) => Err(format!("bgpd does not answer: {error}")),
        Err(_) => Err(format!("bgpd does not answer within {} s", ANSWER.as_secs())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sessions_are_unknown_while_a_bgpd_that_was_there_does_not_answer() {
        let directory = tempfile::tempdir().unwrap();
        let mut bgp = Bgp::new(directory.path().to_owned());
        assert_eq!(bgp.sessions().await, Some(BTreeSet::new()), "there is no bgpd");
        // One that died leaves its socket.
        let socket = directory.path().join(BGPD_SOCKET);
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        assert_eq!(bgp.sessions().await, None);
        // One that ended as it should takes it away.
        std::fs::remove_file(&socket).unwrap();
        bgp.answered = Some(Instant::now());
        assert_eq!(bgp.sessions().await, None);
    }

    #[test]
    fn however_much_is_heard_looks_keep_their_distance() {
        let start = Instant::now();
        let looks = |heard_every: Duration| {
            let (mut pace, mut looks) = (Pace::new(start), 0);
            for n in 0_u32..20_000 {
                let now = start + Duration::from_millis(n.into());
                if n.is_multiple_of(u32::try_from(heard_every.as_millis()).unwrap()) {
                    pace.news(now, true);
                }
                if now >= pace.due {
                    looks += 1;
                    pace.looked(now);
                }
            }
            looks
        };
        assert_eq!(looks(Duration::from_millis(1)), 20, "one a second");
        assert_eq!(looks(Duration::from_secs(30)), 4, "one every five");
    }

    #[test]
    fn the_first_look_waits_a_moment_for_what_is_to_be_heard() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.news(start, false);
        assert_eq!(pace.due, start + PATIENCE);
        pace.news(start + PATIENCE / 2, true);
        assert_eq!(pace.due, start + PATIENCE / 2);
    }
}
