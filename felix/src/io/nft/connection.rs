//! One netlink socket: transactions and dumps.

use super::Error;
use super::batch::Batch;
use super::wire::{self, DUMP, DUMP_INTERRUPTED, Message, NLMSG_DONE, Writer, message};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use std::io;

/// Bytes of socket buffers: a batch is one datagram, 1000 chains of ten rules have 4.5 MB. The memory is only used while a
/// batch is on its way.
const SEND_BUFFER: usize = 64 << 20;
const RECEIVE_BUFFER: usize = 8 << 20;

/// The socket that owns the table. It must live as long as the process does.
pub(super) struct Connection {
    socket: Socket,
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
}

/// What the kernel said to a transaction.
pub(super) enum Outcome {
    Committed,
    /// Somebody committed between our reading and this.
    Overtaken,
    Refused {
        object: String,
        errno: Errno,
    },
}

impl Connection {
    pub(super) fn open() -> Result<Connection, Error> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        let port = socket.bind_auto()?.port_number();
        setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER).map_err(io::Error::from)?;
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).map_err(io::Error::from)?;
        // Errors carry the failed message's header only, not all of its elements.
        socket.set_cap_ack(true)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Connection { socket, port, sequence: 0, buffer: Vec::with_capacity(256 << 10) })
    }

    /// The socket's netlink address: who we are in notifications.
    pub(super) fn port(&self) -> u32 {
        self.port
    }

    /// The sequence number that the next batch may start with.
    pub(super) fn next_sequence(&self) -> u32 {
        self.sequence.wrapping_add(1)
    }

    /// Sends a transaction. The kernel has worked it off when the send returns, so every answer is there to be read; the last
    /// message's acknowledgement tells that it was committed.
    pub(super) fn transact(&mut self, batch: &Batch) -> Result<Outcome, Error> {
        self.sequence = self.sequence.wrapping_add(u32::try_from(batch.len()).unwrap_or(u32::MAX)).wrapping_add(2);
        let sent = self.socket.send(&batch.bytes, 0)?;
        if sent != batch.bytes.len() {
            return Err(io::Error::new(io::ErrorKind::WriteZero, "a batch was sent in part").into());
        }
        let mut acknowledged = false;
        let mut refused: Option<(u32, Errno)> = None;
        while self.receive(libc::MSG_DONTWAIT)? {
            for answer in wire::messages(&self.buffer).filter(|m| batch.owns(m.sequence)) {
                match answer.error() {
                    Some(0) => acknowledged = true,
                    Some(error) if refused.is_none() => {
                        refused = Some((answer.sequence, Errno::from_raw(error.wrapping_neg())));
                    }
                    _ => {}
                }
            }
        }
        match refused {
            Some((_, Errno::ERESTART)) => Ok(Outcome::Overtaken),
            Some((sequence, errno)) => Ok(Outcome::Refused { object: batch.object(sequence).into(), errno }),
            None if acknowledged => Ok(Outcome::Committed),
            None => Err(Error::NoAnswer),
        }
    }

    /// Asks for a dump and hands each message to `each`; false if it changed while it was read.
    pub(super) fn dump(
        &mut self,
        kind: u8,
        body: impl FnOnce(&mut Writer),
        each: &mut dyn FnMut(Message<'_>),
    ) -> Result<bool, Error> {
        self.query(wire::FAMILY_INET, kind, DUMP, body, each)
    }

    /// As [`Connection::dump`], of the objects of every family.
    pub(super) fn dump_of_all_families(&mut self, kind: u8, each: &mut dyn FnMut(Message<'_>)) -> Result<bool, Error> {
        self.query(wire::FAMILY_ANY, kind, DUMP, |_| {}, each)
    }

    /// Asks for one object; `ENOENT` gives no message.
    pub(super) fn one(
        &mut self,
        kind: u8,
        body: impl FnOnce(&mut Writer),
        each: &mut dyn FnMut(Message<'_>),
    ) -> Result<(), Error> {
        self.query(wire::FAMILY_INET, kind, wire::ACK, body, each).map(|_| ())
    }

    /// The generation of the namespace's rules; it changes with every transaction of anybody.
    pub(super) fn generation(&mut self) -> Result<u32, Error> {
        let mut generation = None;
        self.one(message::GET_GENERATION, |_| {}, &mut |m| generation = m.attributes().u32(1))?;
        generation.ok_or(Error::NoAnswer)
    }

    fn query(
        &mut self,
        family: u8,
        kind: u8,
        flags: u16,
        body: impl FnOnce(&mut Writer),
        each: &mut dyn FnMut(Message<'_>),
    ) -> Result<bool, Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        let mut w = Writer::default();
        w.message_about(family, kind, flags, sequence, body);
        self.socket.send(&w.into_bytes(), 0)?;
        let mut consistent = true;
        loop {
            self.receive(0)?;
            for answer in wire::messages(&self.buffer).filter(|m| m.sequence == sequence) {
                consistent &= answer.flags & DUMP_INTERRUPTED == 0;
                match (answer.kind, answer.error()) {
                    (NLMSG_DONE, _) | (_, Some(0)) => return Ok(consistent),
                    (_, Some(error)) => match Errno::from_raw(error.wrapping_neg()) {
                        Errno::ENOENT => return Ok(consistent),
                        errno => return Err(io::Error::from(errno).into()),
                    },
                    _ => each(answer),
                }
            }
        }
    }

    /// The next datagram into the buffer; false if there is none and `flags` forbid to wait.
    fn receive(&mut self, flags: i32) -> Result<bool, Error> {
        self.buffer.clear();
        match self.socket.recv(&mut self.buffer, flags) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}
