//! Listening sockets. One that cannot be opened is tried again, and said.

use super::connection::Ready;
use super::keys::keys;
use super::sockets;
use crate::speaker::Config;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tracing::{error, info, warn};

/// How soon a socket that could not be opened is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How soon a socket whose connection could not be taken is asked again: without descriptors it fails at once.
const BREATH: Duration = Duration::from_millis(100);

#[derive(Default)]
pub(super) struct Listeners {
    wanted: BTreeMap<SocketAddr, Listener>,
    next: u64,
    keys: BTreeMap<IpNet, String>,
    /// Whether answers begin with TTL 255.
    far: bool,
    retry_at: Option<Instant>,
    /// Peers whose keys the kernel did not take: without them anybody may call in their names.
    refused: BTreeMap<IpNet, String>,
}

#[derive(Default)]
struct Listener {
    number: u64,
    socket: Option<Arc<TcpListener>>,
    problem: Option<String>,
}

impl Listeners {
    /// Listen there and nowhere else; [`Listeners::open`] does it.
    pub(super) fn configure(&mut self, addresses: &[SocketAddr]) {
        for (_, listener) in self.wanted.extract_if(.., |address, _| !addresses.contains(address)) {
            // Whoever waits for a connection wakes up, and lets go of the socket.
            if let Some(socket) = listener.socket {
                drop(socket2::SockRef::from(&*socket).shutdown(std::net::Shutdown::Both));
            }
        }
        for address in addresses {
            self.wanted.entry(*address).or_default();
        }
        self.retry_at = None;
    }

    /// The keys of all peers that have one, and the TTL that a peer with `ttlSecurity` expects of a SYN's answer; both are on the sockets
    /// before any SYN of theirs is answered.
    pub(super) fn secure(&mut self, config: &Config) {
        let ranges = config.templates.ranges.values().map(|range| &range.peer);
        let far = config.peers.values().chain(ranges).any(|peer| peer.ttl_security.is_some());
        if std::mem::replace(&mut self.far, far) != far {
            self.wanted
                .values()
                .filter_map(|listener| listener.socket.as_ref())
                .for_each(|socket| set_ttl(&socket2::SockRef::from(&**socket), far));
        }
        let keys = keys(config);
        for listener in self.wanted.values().filter_map(|listener| listener.socket.as_ref()) {
            let listener = socket2::SockRef::from(&**listener);
            for peer in self.keys.keys().filter(|peer| !keys.contains_key(*peer)) {
                set_key(&listener, *peer, None, &mut self.refused);
            }
            // What was refused before may find room now.
            let refused = self.refused.clone();
            let differs = |peer: &IpNet, key: &String| self.keys.get(peer) != Some(key) || refused.contains_key(peer);
            for (peer, key) in keys.iter().filter(|(peer, key)| differs(peer, key)) {
                set_key(&listener, *peer, Some(key), &mut self.refused);
            }
        }
        self.refused.retain(|peer, _| keys.contains_key(peer));
        self.keys = keys;
    }

    /// Opens what is wanted and not open, if it is time.
    pub(super) fn open(&mut self, ready: &mut FuturesUnordered<BoxFuture<'static, Ready>>) {
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.retry_at = None;
        for (address, listener) in self.wanted.iter_mut().filter(|(_, listener)| listener.socket.is_none()) {
            // Keys and TTL before anybody can call.
            let refused = &mut self.refused;
            let secure = |socket: &socket2::Socket| {
                for (peer, key) in &self.keys {
                    set_key(socket, *peer, Some(key), refused);
                }
                if self.far {
                    set_ttl(socket, true);
                }
            };
            match sockets::listen(*address, secure) {
                Ok(socket) => {
                    info!(%address, "listening");
                    self.next += 1;
                    let socket = Arc::new(socket);
                    *listener = Listener { number: self.next, socket: Some(Arc::clone(&socket)), problem: None };
                    ready.push(accept(self.next, socket, Duration::ZERO));
                }
                Err(error) => {
                    let problem = format!("cannot listen on {address}: {error}; tried again every 5 s");
                    if listener.problem.as_ref() != Some(&problem) {
                        error!("{problem}");
                    }
                    listener.problem = Some(problem);
                    self.retry_at = Some(Instant::now() + RETRY);
                }
            }
        }
    }

    /// Waits for the next connection, if the listener is still wanted; a while later if the last one has `failed`. False: it
    /// is not, and its last error is only its end.
    pub(super) fn again(
        &self,
        number: u64,
        failed: bool,
        ready: &mut FuturesUnordered<BoxFuture<'static, Ready>>,
    ) -> bool {
        let listener = self.wanted.values().find(|listener| listener.number == number);
        let socket = listener.and_then(|listener| listener.socket.clone());
        let wanted = socket.is_some();
        ready.extend(socket.map(|socket| accept(number, socket, if failed { BREATH } else { Duration::ZERO })));
        wanted
    }

    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    pub(super) fn problems(&self) -> Vec<String> {
        let closed = self.refused.iter().map(|(peer, error)| {
            format!(
                "the kernel does not take the TCP MD5 key of {peer} ({error}), so nobody from there may call; see net.core.optmem_max, \
                 which bounds the keys of a socket"
            )
        });
        self.wanted.values().filter_map(|listener| listener.problem.clone()).chain(closed).collect()
    }

    /// Whether somebody at `address` has to sign, and the kernel does not see to it.
    pub(super) fn is_unguarded(&self, address: IpAddr) -> bool {
        self.refused.keys().any(|peer| peer.contains(&address))
    }
}

fn accept(number: u64, socket: Arc<TcpListener>, wait: Duration) -> BoxFuture<'static, Ready> {
    Box::pin(async move {
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Ready::Accepted(number, socket.accept().await)
    })
}

fn set_ttl(listener: &socket2::Socket, far: bool) {
    if let Err(error) = sockets::listener_ttl(listener, far) {
        warn!(%error, "cannot set the TTL of a listening socket: peers with ttlSecurity will not hear its answers");
    }
}

fn set_key(listener: &socket2::Socket, peer: IpNet, key: Option<&str>, refused: &mut BTreeMap<IpNet, String>) {
    match sockets::listener_key(listener, peer, key) {
        Ok(()) => drop(refused.remove(&peer)),
        Err(error) => {
            warn!(%peer, %error, "the kernel refuses the TCP MD5 key: connections of this peer will not be accepted");
            refused.insert(peer, error.to_string());
        }
    }
}
