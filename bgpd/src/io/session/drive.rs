//! What the FSMs ask for, and when they are woken.

use super::Io;
use super::callers::kept_for;
use crate::bmp::Opening;
use crate::fsm::{self, State};
use crate::io::connection::{Connection, Key};
use crate::io::interfaces;
use crate::rib::PeerId;
use crate::scoped::is_link_local;
use crate::speaker::{Established, Event, Link, Loss, Receiver};
use crate::wire::Negotiated;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{debug, info, warn};

impl Io {
    /// Lets a peer's FSM do something, and does what it asks for.
    pub(super) fn drive<T>(
        &mut self,
        id: PeerId,
        act: impl FnOnce(&mut fsm::Peer, fsm::Time, &mut Vec<fsm::Output>) -> T,
    ) -> Option<T> {
        let now = self.now();
        let mut out = Vec::new();
        let result = act(&mut self.peers.get_mut(&id)?.fsm, now, &mut out);
        self.obey(id, out);
        Some(result)
    }

    pub(super) fn obey(&mut self, id: PeerId, out: Vec<fsm::Output>) {
        for output in out {
            self.obey_one(id, output);
        }
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let timer = peer.fsm.poll_timeout();
        if timer != peer.timer {
            if let Some(at) = peer.timer {
                self.timers.remove(&(at, id));
            }
            self.timers.extend(timer.map(|at| (at, id)));
            peer.timer = timer;
        }
        self.note_idle(id);
    }

    fn obey_one(&mut self, id: PeerId, output: fsm::Output) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let key_of = |conn: &fsm::ConnId| peer.connections.get(conn).copied();
        match output {
            fsm::Output::Connect { conn } => self.dial(id, conn),
            fsm::Output::Send { conn, bytes } => {
                if let Some(key) = key_of(&conn) {
                    self.send(key, bytes.into(), false);
                }
            }
            fsm::Output::Close { conn, flush } => {
                if let Some(key) = peer.connections.remove(&conn) {
                    self.close(key, flush);
                }
            }
            fsm::Output::SessionUp { conn, negotiated } => {
                if let Some(key) = key_of(&conn) {
                    self.session_up(id, key, &negotiated);
                }
            }
            fsm::Output::Established { conn } => {
                info!(peer = peer.name, address = %peer.config.address, "session established");
                peer.sessions += 1;
                if let Some((_, spoken)) = self.spoken_to.get_mut(&peer.config.remote()) {
                    *spoken = true;
                }
                if let Some(connection) = key_of(&conn).and_then(|key| self.connections.get_mut(&key)) {
                    connection.established = true;
                }
                self.record_state(id, State::OpenConfirm, State::Established);
            }
            fsm::Output::SessionDown { conn, reason, graceful, established } => {
                warn!(peer = peer.name, address = %peer.config.address, %reason, graceful, "session down");
                peer.last_error = Some(reason.to_string());
                let session = peer.session.take();
                peer.connections.remove(&conn);
                if graceful && established {
                    self.lost.insert(peer.config.remote(), (peer.name.clone(), Instant::now()));
                } else if !graceful {
                    self.lost.remove(&peer.config.remote());
                }
                peer.kept = if graceful { peer.kept } else { Duration::ZERO };
                if established {
                    self.record_state(id, State::Established, State::Idle);
                }
                if let Some((session, _)) = session {
                    self.tell(Event::Ending(id, session, reason));
                    let loss = match (graceful, established) {
                        (true, true) => Loss::Restarting,
                        (true, false) => Loss::Aborted,
                        (false, _) => Loss::Final,
                    };
                    self.tell(Event::Down(id, session, loss));
                }
            }
            fsm::Output::Failed { conn, reason } => {
                let text = reason.to_string();
                // A peer that is not there is said once, not at every attempt.
                if peer.last_error.as_ref() == Some(&text) {
                    debug!(peer = peer.name, address = %peer.config.address, %reason, "no session");
                } else if let Some(left_out) = peer.failed.admit(Instant::now()) {
                    warn!(peer = peer.name, address = %peer.config.address, %reason, left_out, "no session");
                }
                peer.last_error = Some(text);
                peer.connections.remove(&conn);
            }
        }
    }

    fn session_up(&mut self, id: PeerId, key: Key, negotiated: &Arc<Negotiated>) {
        let (Some(plan), Some(peer)) = (&self.plan, self.peers.get_mut(&id)) else { return };
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let opening = opening(connection);
        let local = connection.stream.as_ref().and_then(|stream| stream.local_addr().ok());
        let link = local.map(|local| interfaces::link(local.into(), peer.config.address)).unwrap_or_default();
        let session = self.next_session;
        self.next_session += 1;
        peer.session = Some((session, key));
        let over = Link { zone: link.index, unnumbered: is_link_local(peer.config.address) };
        connection.receiver = Some(Receiver::new(id, session, (**negotiated).clone(), over));
        // RFC 8950: on an IPv6 session IPv4 prefixes have our IPv6 address, unless another one is configured.
        let only_v6 = negotiated.extended_next_hop && peer.config.address.is_ipv6();
        let established = Established {
            negotiated: (**negotiated).clone(),
            router_id: plan.config.router_id,
            remote: peer.config.address,
            link: over,
            next_hop_v4: peer.config.next_hop_v4.or(link.v4.filter(|_| !only_v6)),
            next_hop_v6: peer.config.next_hop_v6.or(link.v6),
            // RFC 2545 section 3 would have it beside a global address, too, but FRR 8.4 without an interface for the peer, while zebra is
            // not there, takes that for malformed and ends the session.
            link_local: link.link_local.filter(|_| over.unnumbered),
            shared: link.shared,
            opening,
        };
        peer.kept = kept_for(negotiated);
        self.tell(Event::Up(id, session, Box::new(established)));
        // Should this session end without the process, the next OPEN says that the kernel went on.
        let plan = self.plan.clone();
        if let (Some(plan), Some(address)) = (plan, self.peers.get(&id).map(|peer| peer.config.remote())) {
            self.met.insert(address);
            self.lost.remove(&address);
            let past = self.past(address);
            if let Some(peer) = self.peers.get_mut(&id) {
                *peer.fsm.config_mut() = plan.config.session(&peer.config, past);
            }
        }
    }

    pub(super) fn timeout(&mut self) {
        let now = self.now();
        while let Some((at, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, id));
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            peer.timer = None;
            // RFC 4271's hold timer is about the peer, not about how busy we are: unread data are a sign of life.
            for (conn, key) in &peer.connections {
                if self.connections.get(key).is_some_and(has_unread) {
                    peer.fsm.data_pending(*conn);
                }
            }
            self.drive(id, |fsm, now, out| fsm.handle_timeout(now, out));
        }
        self.listeners.open(&mut self.ready);
        self.expire_callers();
    }
}

/// What monitoring stations hear of how a session came about.
fn opening(connection: &Connection) -> Option<Arc<Opening>> {
    let stream = connection.stream.as_ref()?;
    let (local, remote) = (stream.local_addr().ok()?, stream.peer_addr().ok()?);
    let [sent, received] = connection.opens.clone();
    Some(Arc::new(Opening { local, remote_port: remote.port(), sent: sent?, received: received? }))
}

fn has_unread(connection: &Connection) -> bool {
    let Some(stream) = &connection.stream else { return false };
    let mut octet = [std::mem::MaybeUninit::uninit()];
    socket2::SockRef::from(&**stream).peek(&mut octet).is_ok_and(|octets| octets > 0)
}
