//! One TCP connection of a peer: octets that came and are no whole message yet, and octets that have to leave.

use super::sockets;
use crate::fsm;
use crate::rib::PeerId;
use crate::scoped::ScopedAddr;
use crate::speaker::Receiver;
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// Number of a connection, never used twice.
pub(super) type Key = u64;
/// Pieces per write.
const PIECES: usize = 16;

/// What woke us.
pub(super) enum Ready {
    /// A connection attempt has ended.
    Connected(Key, io::Result<TcpStream>),
    /// There is something to read.
    Readable(Key),
    /// There is room to write.
    Writable(Key),
    /// A closing connection had its time.
    Expired(Key),
    /// A listener has a connection, or an error.
    Accepted(u64, io::Result<(TcpStream, std::net::SocketAddr)>),
}

/// A connection.
pub(super) struct Connection {
    pub(super) peer: PeerId,
    /// Its number in the FSM.
    pub(super) id: fsm::ConnId,
    /// None while it is being made.
    pub(super) stream: Option<Arc<TcpStream>>,
    /// The beginning of a message.
    pub(super) partial: Vec<u8>,
    pieces: VecDeque<Piece>,
    /// The OPENs that were sent and received, header included.
    pub(super) opens: [Option<Bytes>; 2],
    /// From SessionUp on.
    pub(super) receiver: Option<Receiver>,
    /// The peer is Established: its UPDATEs may come.
    pub(super) established: bool,
    /// Whether we wait for room to write.
    pub(super) waits: bool,
    /// The FSM has done with it: what is left to write leaves, what comes is dropped.
    pub(super) closing: bool,
    /// To whom the last words say that our routes are gone.
    pub(super) farewell: Option<Farewell>,
}

/// A peer that is told goodbye.
#[derive(Clone)]
pub(super) struct Farewell {
    pub(super) address: ScopedAddr,
    pub(super) name: String,
    /// How long it believes in the session if it hears nothing.
    pub(super) hold_time: Duration,
}

struct Piece {
    bytes: Bytes,
    /// Whether the RIB counts it.
    counted: bool,
}

/// What a write did.
#[derive(Default)]
pub(super) struct Written {
    /// Octets that the RIB counts.
    pub(super) counted: usize,
    pub(super) progressed: bool,
    pub(super) left: bool,
    pub(super) failed: bool,
}

impl Connection {
    pub(super) fn new(peer: PeerId, id: fsm::ConnId, stream: Option<Arc<TcpStream>>) -> Self {
        Self {
            peer,
            id,
            stream,
            partial: Vec::new(),
            pieces: VecDeque::new(),
            opens: [None, None],
            receiver: None,
            established: false,
            waits: false,
            closing: false,
            farewell: None,
        }
    }

    pub(super) fn push(&mut self, bytes: Bytes, counted: bool) {
        self.pieces.push_back(Piece { bytes, counted });
    }

    /// Who was to hear that our routes are gone, and has not acknowledged it yet.
    pub(super) fn unheard(&self) -> Option<&Farewell> {
        self.farewell.as_ref().filter(|_| self.stream.as_deref().is_some_and(sockets::is_unheard))
    }

    pub(super) fn has_output(&self) -> bool {
        !self.pieces.is_empty()
    }

    /// Writes as much as the socket takes.
    pub(super) fn write(&mut self) -> Written {
        let mut written = Written::default();
        let Some(stream) = self.stream.clone() else { return written };
        while !self.pieces.is_empty() {
            let mut slices = [IoSlice::new(&[]); PIECES];
            let mut count = 0;
            for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
                *slice = IoSlice::new(&piece.bytes);
                count += 1;
            }
            match stream.try_write_vectored(&slices[..count]) {
                Ok(octets) => {
                    written.progressed = true;
                    written.counted += self.advance(octets);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    written.failed = true;
                    self.pieces.clear();
                }
            }
        }
        written.left = !self.pieces.is_empty();
        written
    }

    /// Takes off what was written; returns how much of it the RIB counts.
    fn advance(&mut self, mut octets: usize) -> usize {
        let mut counted = 0;
        while octets > 0 {
            let Some(piece) = self.pieces.front_mut() else { break };
            let taken = octets.min(piece.bytes.len());
            octets -= taken;
            counted += if piece.counted { taken } else { 0 };
            piece.bytes.advance(taken);
            if piece.bytes.is_empty() {
                self.pieces.pop_front();
            }
        }
        counted
    }
}
