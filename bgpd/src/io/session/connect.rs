//! Connections: made, accepted, closed.

use super::{Io, LAST_WORDS, LINGER};
use crate::fsm;
use crate::io::connection::{Connection, Farewell, Key, Ready};
use crate::io::sockets;
use crate::rib::PeerId;
use crate::scoped::ScopedAddr;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tracing::{debug, info, warn};

impl Io {
    pub(super) fn dial(&mut self, id: PeerId, conn: fsm::ConnId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let key = self.next_key;
        self.next_key += 1;
        let remote = peer.config.remote().socket(peer.config.port);
        let socket = sockets::dial(&peer.config, peer.external);
        peer.connections.insert(conn, key);
        self.connections.insert(key, Connection::new(id, conn, None));
        self.ready.push(Box::pin(async move {
            let result = match socket {
                Ok(socket) => socket.connect(remote).await,
                Err(error) => Err(error),
            };
            Ready::Connected(key, result)
        }));
    }

    pub(super) fn on_ready(&mut self, ready: Ready) {
        match ready {
            Ready::Connected(key, result) => self.connected(key, result),
            Ready::Readable(key) => self.read(key),
            Ready::Writable(key) => {
                if let Some(connection) = self.connections.get_mut(&key) {
                    connection.waits = false;
                    self.write(key);
                }
            }
            Ready::Expired(key) => self.expire(key),
            Ready::Accepted(listener, result) => {
                let wanted = self.listeners.again(listener, result.is_err(), &mut self.ready);
                match result {
                    Ok((stream, remote)) => self.accepted(stream, remote.into()),
                    Err(error) => {
                        if wanted && let Some(left_out) = self.refused.admit(Instant::now()) {
                            warn!(%error, left_out, "cannot accept a connection");
                        }
                    }
                }
            }
        }
    }

    fn connected(&mut self, key: Key, result: io::Result<TcpStream>) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let (id, conn) = (connection.peer, connection.id);
        // The FSM gave it up meanwhile, or the peer has gone.
        let Some(peer) = self.peers.get(&id).filter(|peer| peer.connections.get(&conn) == Some(&key)) else {
            self.connections.remove(&key);
            return;
        };
        let result = result.and_then(|stream| sockets::prepare(&stream, &peer.config, peer.external).map(|()| stream));
        match result {
            Ok(stream) => {
                connection.stream = Some(Arc::new(stream));
                self.await_readable(key);
                self.drive(id, |fsm, now, out| fsm.tcp_connected(now, conn, out));
            }
            Err(error) => {
                debug!(peer = peer.name, address = %peer.config.address, %error, "cannot connect");
                self.connections.remove(&key);
                self.drive(id, |fsm, now, out| fsm.tcp_failed(now, conn, out));
            }
        }
    }

    pub(super) fn accepted(&mut self, stream: TcpStream, remote: ScopedAddr) {
        if self.listeners.is_unguarded(remote.address) {
            if let Some(left_out) = self.strangers.admit(Instant::now()) {
                warn!(%remote, left_out, "connection closed: the kernel does not take this peer's TCP MD5 key, so anybody could be calling");
            }
            return;
        }
        // One of whom the planner is told that he is gone comes as a new one, after that.
        let known = self.by_address.get(&remote).copied().filter(|id| !self.going.contains(id));
        let Some(id) = known else {
            let Some(stream) = self.call(stream, remote) else { return };
            drop(stream);
            if let Some(left_out) = self.strangers.admit(Instant::now()) {
                info!(%remote, left_out, "connection closed: no peer with this address is configured");
            }
            return;
        };
        self.welcome(id, stream);
    }

    /// A connection that a peer has opened.
    pub(super) fn welcome(&mut self, id: PeerId, stream: TcpStream) {
        let Some(peer) = self.peers.get(&id) else { return };
        let remote = peer.config.address;
        if let Err(error) = sockets::prepare(&stream, &peer.config, peer.external) {
            debug!(peer = peer.name, %error, "connection lost at once");
            return;
        }
        let key = self.next_key;
        self.next_key += 1;
        let now = self.now();
        let mut out = Vec::new();
        let Some(conn) = self.peers.get_mut(&id).and_then(|peer| {
            let conn = peer.fsm.accept(now, &mut out)?;
            peer.connections.insert(conn, key);
            Some(conn)
        }) else {
            debug!(%remote, "connection closed: not wanted now");
            return self.obey(id, out);
        };
        self.connections.insert(key, Connection::new(id, conn, Some(Arc::new(stream))));
        self.await_readable(key);
        self.obey(id, out);
    }

    pub(super) fn await_readable(&mut self, key: Key) {
        let Some(stream) = self.connections.get(&key).and_then(|connection| connection.stream.clone()) else { return };
        self.ready.push(Box::pin(async move {
            // An error shows again when it is read.
            drop(stream.readable().await);
            Ready::Readable(key)
        }));
    }

    pub(super) fn close(&mut self, key: Key, flush: bool) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        if !flush || connection.stream.is_none() {
            return self.discard(key);
        }
        connection.closing = true;
        let drained = self.plan.as_ref().is_some_and(|plan| plan.config.shutdown.is_some());
        let peer = self.peers.get(&connection.peer).filter(|_| drained && connection.established);
        connection.farewell = peer.map(|peer| Farewell {
            address: peer.config.remote(),
            name: peer.name.clone(),
            hold_time: Duration::from_secs(peer.config.hold_time.into()),
        });
        connection.receiver = None;
        let id = connection.peer;
        self.write(key);
        // A peer that connects again and again makes us say goodbye as often, and each goodbye is a descriptor that others need.
        let oldest = self.peers.get_mut(&id).and_then(|peer| {
            peer.closing.push_back(key);
            if peer.closing.len() > LAST_WORDS { peer.closing.pop_front() } else { None }
        });
        oldest.into_iter().for_each(|key| self.discard(key));
        self.ready.push(Box::pin(async move {
            tokio::time::sleep(LINGER).await;
            Ready::Expired(key)
        }));
    }

    /// Whoever has not acknowledged our last words by now, being behind a cut cable, has our routes for his hold time, and then the
    /// restart time.
    fn expire(&mut self, key: Key) {
        if let Some(Farewell { address, name, hold_time }) =
            self.connections.get(&key).and_then(Connection::unheard).cloned()
        {
            warn!(peer = name, %address, "the peer has not heard that this node is out of routing");
            self.lost.insert(address, (name, Instant::now() + hold_time));
        }
        self.discard(key);
    }

    /// Forgets a connection. What still waits for its socket wakes up by the shutdown, and lets go of it.
    pub(super) fn discard(&mut self, key: Key) {
        if let Some(stream) = self.connections.remove(&key).and_then(|connection| connection.stream) {
            drop(socket2::SockRef::from(&*stream).shutdown(std::net::Shutdown::Both));
        }
    }
}
