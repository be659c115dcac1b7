//! Octets: out of the RIB into sockets, out of sockets as messages into the RIB.

use super::{Io, READ};
use crate::fsm;
use crate::io::connection::{Key, Ready};
use crate::io::rib;
use crate::rib::PeerId;
use crate::speaker::{Event, Output, Receiver, SessionId};
use crate::wire::{AfiSafi, Frame, Framer, HEADER_LEN, MessageType, Notification, RefreshKind, RouteRefresh, cease};
use bytes::Bytes;
use std::io;
use std::time::Instant;
use tokio::sync::mpsc;
use tracing::{debug, warn};

impl Io {
    pub(super) fn output(&mut self, output: Output) {
        match output {
            Output::Transmit(peer, session, bytes) => {
                if let Some(key) = self.key_of(peer, session) {
                    self.send(key, bytes, true);
                }
            }
            Output::Refresh(peer, session, family) => {
                let Some(key) = self.key_of(peer, session) else { return };
                let able = self.peers[&peer].fsm.negotiated().is_some_and(|negotiated| negotiated.route_refresh);
                if able {
                    let mut bytes = Vec::new();
                    RouteRefresh { family: AfiSafi::from(family), kind: RefreshKind::Request }.encode(&mut bytes);
                    self.send(key, bytes.into(), false);
                } else if let Some(conn) = self.connections.get(&key).map(|connection| connection.id) {
                    let notification = Notification::cease(cease::CONFIG_CHANGE, "");
                    self.drive(peer, |fsm, now, out| fsm.reset(now, conn, notification, out));
                }
            }
            Output::Exceeded { peer, session, family, limit, retry } => {
                if self.key_of(peer, session).is_some() {
                    let notification = Notification::max_prefixes(AfiSafi::from(family), limit);
                    self.drive(peer, |fsm, now, out| fsm.suspend(now, notification, retry, out));
                }
            }
        }
    }

    fn key_of(&self, peer: PeerId, session: SessionId) -> Option<Key> {
        let (current, key) = self.peers.get(&peer)?.session?;
        (current == session).then_some(key)
    }

    pub(super) fn send(&mut self, key: Key, bytes: Bytes, counted: bool) {
        self.record(key, true, &bytes);
        let Some(connection) = self.connections.get_mut(&key) else { return };
        if is_open(&bytes) {
            connection.opens[0] = Some(bytes.clone());
        }
        connection.push(bytes, counted);
        if !connection.waits {
            self.write(key);
        }
    }

    pub(super) fn write(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let written = connection.write();
        let (id, conn, closing) = (connection.peer, connection.id, connection.closing);
        if let (true, Some(stream)) = (written.left, connection.stream.clone()) {
            connection.waits = true;
            self.ready.push(Box::pin(async move {
                drop(stream.writable().await);
                Ready::Writable(key)
            }));
        } else if closing {
            // The peer reads our last words, and then the end.
            if let Some(stream) = &connection.stream {
                drop(socket2::SockRef::from(&**stream).shutdown(std::net::Shutdown::Write));
            }
        }
        if closing {
            return;
        }
        let now = self.now();
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.fsm.send_state(now, conn, written.progressed, written.left);
            if let Some((session, _)) = peer.session.filter(|(_, of)| *of == key && written.counted > 0) {
                self.tell(Event::Written(id, session, written.counted));
            }
        }
        if written.failed {
            // Reading tells it to the FSM, after what the peer may have said before.
            debug!(key, "write failed");
        }
    }

    pub(super) fn read(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let Some(stream) = connection.stream.clone() else { return };
        let mut buffer = std::mem::take(&mut self.buffer);
        let held = connection.partial.len();
        if buffer.len() < held + READ {
            buffer.resize(held + READ, 0);
        }
        buffer[..held].copy_from_slice(&connection.partial);
        let result = stream.try_read(&mut buffer[held..]);
        let (id, conn, closing) = (connection.peer, connection.id, connection.closing);
        match result {
            Ok(octets) if octets > 0 => {
                if !closing {
                    self.take_in(key, &buffer[..held + octets]);
                }
                self.await_more(key);
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                self.await_more(key);
            }
            _ if closing => self.discard(key),
            _ => {
                self.drive(id, |fsm, now, out| fsm.tcp_closed(now, conn, out));
                self.discard(key);
            }
        }
        self.buffer = buffer;
    }

    /// Waits for more to read, unless the RIB is behind.
    fn await_more(&mut self, key: Key) {
        if !self.connections.contains_key(&key) {
            return;
        }
        if self.pending.is_empty() {
            self.await_readable(key);
        } else {
            self.paused.push(key);
        }
    }

    /// Reads go on once the RIB has taken everything.
    pub(super) fn resume(&mut self) {
        if self.pending.is_empty() && !self.paused.is_empty() {
            for key in std::mem::take(&mut self.paused) {
                self.await_readable(key);
            }
        }
    }

    /// Takes the whole messages out of `bytes` and keeps the rest.
    fn take_in(&mut self, key: Key, bytes: &[u8]) {
        let mut at = 0;
        while self.connections.get(&key).is_some_and(|connection| !connection.closing) {
            match self.take_message(key, &bytes[at..]) {
                Some(octets) => at += octets,
                None => break,
            }
        }
        let Some(connection) = self.connections.get_mut(&key) else { return };
        connection.partial.clear();
        connection.partial.extend_from_slice(&bytes[at..]);
        let batch = connection.receiver.as_mut().and_then(Receiver::take);
        if let Some(batch) = batch {
            self.tell(Event::Batch(batch));
        }
    }

    /// Takes in messages from the start of `bytes`; returns how many octets they have, none if none is whole or the
    /// stream is lost.
    fn take_message(&mut self, key: Key, bytes: &[u8]) -> Option<usize> {
        let connection = self.connections.get_mut(&key)?;
        let (id, conn) = (connection.peer, connection.id);
        let peer = self.peers.get_mut(&id)?;
        let mut framer = Framer::new(bytes, peer.fsm.max_message(conn));
        let mut repeated = 0;
        let other = loop {
            match framer.next_frame() {
                Ok(Some(frame)) if connection.established && frame.kind == MessageType::Update => {
                    let Some(receiver) = &mut connection.receiver else { return None };
                    if !receiver.repeats(frame.bytes) {
                        break Ok(Some(frame));
                    }
                    repeated += 1;
                    if receiver.is_full() {
                        break Ok(None);
                    }
                }
                other => break other,
            }
        };
        let consumed = framer.consumed();
        let full = connection.receiver.as_mut().filter(|receiver| receiver.is_full()).and_then(Receiver::take);
        self.record(key, false, &bytes[..consumed]);
        if repeated > 0 {
            // To the FSM, an UPDATE whose attributes were judged before is a sign of life like a KEEPALIVE.
            let alive = Frame { kind: MessageType::Keepalive, bytes: &[] };
            self.drive(id, |fsm, now, out| fsm.receive(now, conn, alive, out).is_some());
        }
        full.into_iter().for_each(|batch| self.tell(Event::Batch(batch)));
        match other {
            Ok(Some(frame)) => self.take_frame(key, id, conn, frame),
            Ok(None) => {}
            Err(notification) => {
                self.drive(id, |fsm, now, out| fsm.reset(now, conn, notification, out));
            }
        }
        (consumed > 0).then_some(consumed)
    }

    /// A message that is the FSM's business, or has attributes that must be judged.
    fn take_frame(&mut self, key: Key, id: PeerId, conn: fsm::ConnId, frame: Frame<'_>) {
        if let (MessageType::Open, Some(connection)) = (frame.kind, self.connections.get_mut(&key)) {
            connection.opens[1] = Some(Bytes::copy_from_slice(frame.bytes));
        }
        let received = self.drive(id, |fsm, now, out| fsm.receive(now, conn, frame, out)).flatten();
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let Some(receiver) = connection.receiver.as_mut().filter(|_| !connection.closing) else { return };
        match received {
            Some(fsm::Received::Update(update)) => {
                if let Some(problem) = receiver.update(frame.bytes, &update)
                    && let Some(peer) = self.peers.get_mut(&id)
                    && let Some(left_out) = peer.malformed.admit(Instant::now())
                {
                    warn!(peer = peer.name, problem, left_out, "malformed UPDATE");
                }
            }
            Some(fsm::Received::RouteRefresh(refresh)) => receiver.refresh(&refresh),
            None => {}
        }
        let full = receiver.is_full().then(|| receiver.take()).flatten();
        full.into_iter().for_each(|batch| self.tell(Event::Batch(batch)));
    }

    /// Hands an event to the RIB, or keeps it until there is room.
    pub(super) fn tell(&mut self, event: Event) {
        if self.leaving {
            return;
        }
        if !self.pending.is_empty() {
            return self.pending.push_back(event);
        }
        if let Err(mpsc::error::TrySendError::Full(rib::Command::Event(event))) =
            self.rib.try_send(rib::Command::Event(event))
        {
            self.pending.push_back(event);
        }
    }
}

fn is_open(bytes: &[u8]) -> bool {
    bytes.get(HEADER_LEN - 1) == Some(&(MessageType::Open as u8))
}
